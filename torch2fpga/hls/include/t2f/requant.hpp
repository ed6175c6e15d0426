// SPDX-License-Identifier: Apache-2.0
// The only place where a number leaves one format for another:
//   y = saturate(round((x * multiplier[c] + bias[c] * 2^bias_shift) / 2^shift))
// with one multiplier and one bias a channel, both data of the step. Multipliers have 18 bits
// with their sign, x has `in_bits` (with its offset, where rows are scaled): up to 27 bits
// their product is one DSP slice.
//
// Parameter words of a step: {shift, bias_shift, 0 ...}, then for each channel
// block one word of multipliers and one word of biases (int32, `lanes` used).
// `ways` channels are worked on a cycle, a token takes parts = lanes / ways iterations.
// Cycles of a step: LOAD of 1 + 2 * blocks * parts (1 + 3 * blocks * parts where rows carry
// exponents), then one flat loop ROW over its batch * seq * blocks tokens, parts iterations each.
#ifndef T2F_REQUANT_HPP
#define T2F_REQUANT_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/ways.hpp"

namespace t2f {

#ifdef T2F_AP_INT
using multiplier_t = ap_int<18>;
#else
using multiplier_t = int32_t;
#endif

// Per-channel parameters of one step, for each part of each block; offsets only where rows
// carry exponents.
template <int ENTRIES, int WAYS>
struct requant_parameters {
  int shift;
  int bias_shift;
  multiplier_t multiplier[ENTRIES][WAYS];
  int32_t bias[ENTRIES][WAYS];
  int32_t offset[ENTRIES][WAYS];
};

template <typename C>
using parameters_of = requant_parameters<C::blocks * (C::lanes / C::ways), C::ways>;

// What the words of a step are, in order; multipliers and biases come by turns.
enum requant_word { requant_head, requant_multipliers, requant_biases, requant_offsets };

// What follows a word of a block: all multipliers and biases come before the offsets.
inline requant_word word_behind(requant_word kind, bool last_block) {
#pragma HLS inline
  if (kind == requant_head) return requant_multipliers;
  if (kind == requant_multipliers) return requant_biases;
  return last_block || kind == requant_offsets ? requant_offsets : requant_multipliers;
}

// The parameters of a step, a token's part of a word an iteration.
template <typename C, bool SCALED>
inline void load_requant(hls::stream<word> &params, parameters_of<C> &p) {
#pragma HLS inline
  constexpr int parts = C::lanes / C::ways;
  constexpr int entries = C::blocks * parts;
  vec<int32_t, 16> values T2F_UNWRITTEN;
  requant_word kind = requant_head;
  int first = 0;  // entry of the block
  int part = 0;
LOAD:
  for (int i = 0; i < 1 + (SCALED ? 3 : 2) * entries; ++i) {
    T2F_PIPELINE(1);
    if (part == 0) {
      const word w = params.read();
      for (int at = 0; at < 16; ++at) {
#pragma HLS unroll
        values.d[at] = int32_at(w, at);
      }
    }
    if (kind == requant_head) {
      p.shift = values.d[0] & 63;
      p.bias_shift = values.d[1] & 63;
    }
    const vec<int32_t, C::ways> lowest = take_lanes<C::ways, int32_t, 16>(values);
    for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
      if (kind == requant_multipliers) p.multiplier[first + part][way] = lowest.d[way];
      if (kind == requant_biases) p.bias[first + part][way] = lowest.d[way];
      if (SCALED && kind == requant_offsets) p.offset[first + part][way] = lowest.d[way];
    }
    if (kind != requant_head && part != parts - 1) {
      ++part;
    } else {
      const bool last = first == entries - parts;
      part = 0;
      if (kind == requant_biases || kind == requant_offsets) first = last ? 0 : first + parts;
      kind = word_behind(kind, last);
    }
  }
}

// `ways` channels; `exponent` is 0 for statically scaled rows (the shifter is then removed).
template <typename C>
inline vec<typename C::out_t, C::ways> requantized(const vec<typename C::in_t, C::ways> &x,
                                                   const parameters_of<C> &p, int entry,
                                                   int exponent) {
#pragma HLS inline
  vec<typename C::out_t, C::ways> y;
  for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
    const int64_t multiplier = p.multiplier[entry][way];
    const int64_t product = narrowed<C::in_bits>(x.d[way]) * narrowed<18>(multiplier);
    // Multiplication, not <<: a left shift of a negative number is undefined in C++.
    const int64_t scaled = product * (int64_t(1) << exponent);
    const int64_t biased =
        scaled + static_cast<int64_t>(p.bias[entry][way]) * (int64_t(1) << p.bias_shift);
    int64_t value = saturate(round_shift(biased, p.shift), C::out_bits);
    if (C::relu && value < 0) value = 0;
    y.d[way] = static_cast<typename C::out_t>(value);
  }
  return y;
}

template <typename C>
void requant(hls::stream<vec<typename C::in_t, C::lanes>> &x, hls::stream<word> &params,
             hls::stream<vec<typename C::out_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  parameters_of<C> p;
#pragma HLS array_partition variable = p.multiplier complete dim = 2
#pragma HLS array_partition variable = p.bias complete dim = 2
  vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
  vec<typename C::out_t, C::lanes> out T2F_UNWRITTEN;
  const int iterations = rows_of(batch, seq) * (C::blocks * parts);
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C, false>(params, p);
    token_place at = first_token(seq);
    int part = 0;
  ROW:
    for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks * parts
      T2F_PIPELINE(1);
      if (part == 0) v = x.read();
      const vec<typename C::in_t, C::ways> lowest =
          take_lanes<C::ways, typename C::in_t, C::lanes>(v);
      const vec<typename C::out_t, C::ways> made =
          requantized<C>(lowest, p, at.block * parts + part, 0);
      put_lanes<C::ways, typename C::out_t, C::lanes>(made, out);
      if (part != parts - 1) {
        ++part;
      } else {
        y.write(out);
        part = 0;
        advance<C::blocks, C::tile>(at, seq);
      }
    }
  }
}

// The same behind a matmul whose input rows carried a power-of-two exponent each and
// a zero point (see quantize_rows): x stands for (x + offset[c]) * 2^exponent, where
// offset[c] is the zero point times the sum of the channel's weights. Parameter words
// of a step: those of requant, then one word of offsets for each channel block.
template <typename C>
void requant_scaled(hls::stream<vec<typename C::in_t, C::lanes>> &x, hls::stream<int8_t> &exponents,
                    hls::stream<word> &params,
                    hls::stream<vec<typename C::out_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  parameters_of<C> p;
#pragma HLS array_partition variable = p.multiplier complete dim = 2
#pragma HLS array_partition variable = p.bias complete dim = 2
#pragma HLS array_partition variable = p.offset complete dim = 2
  int8_t exponent[C::tile];
#pragma HLS array_partition variable = exponent complete
  vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
  vec<typename C::out_t, C::lanes> out T2F_UNWRITTEN;
  const int iterations = rows_of(batch, seq) * (C::blocks * parts);
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C, true>(params, p);
    token_place at = first_token(seq);
    int part = 0;
  ROW:
    for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks * parts
      T2F_PIPELINE(1);
      // A row's exponent comes with its first block and is kept for the others.
      int8_t e;
      if (at.block == 0 && part == 0) {
        e = exponents.read();
        exponent[at.t] = e;
      } else {
        e = exponent[at.t];
      }
      if (part == 0) v = x.read();
      vec<typename C::in_t, C::ways> lowest = take_lanes<C::ways, typename C::in_t, C::lanes>(v);
      for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
        lowest.d[way] += p.offset[at.block * parts + part][way];
      }
      const vec<typename C::out_t, C::ways> made =
          requantized<C>(lowest, p, at.block * parts + part, e);
      put_lanes<C::ways, typename C::out_t, C::lanes>(made, out);
      if (part != parts - 1) {
        ++part;
      } else {
        y.write(out);
        part = 0;
        advance<C::blocks, C::tile>(at, seq);
      }
    }
  }
}

}  // namespace t2f
#endif
