// SPDX-License-Identifier: Apache-2.0
// The only place where a number leaves one format for another:
//   y = saturate(round((x * multiplier[c] + bias[c] * 2^bias_shift) / 2^shift))
// with one multiplier and one bias a channel, both data of the step.
//
// Parameter words of a step: {shift, bias_shift, 0 ...}, then for each channel
// block one word of multipliers and one word of biases (int32, `lanes` used).
// Cycles of a step: LOAD of 1 + 2 * blocks words (1 + 3 * blocks where rows carry
// exponents), then one flat loop ROW over its batch * seq * blocks tokens.
#ifndef T2F_REQUANT_HPP
#define T2F_REQUANT_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

// Per-channel parameters of one step; offsets only where rows carry exponents.
template <int BLOCKS, int LANES>
struct requant_parameters {
  int shift;
  int bias_shift;
  int32_t multiplier[BLOCKS][LANES];
  int32_t bias[BLOCKS][LANES];
  int32_t offset[BLOCKS][LANES];
};

// The words of a step: the header, multipliers and biases by turns, then offsets if SCALED.
template <int BLOCKS, int LANES, bool SCALED>
inline void load_requant(hls::stream<word> &params, requant_parameters<BLOCKS, LANES> &p) {
#pragma HLS inline
  constexpr int offsets = 1 + 2 * BLOCKS;
  p.shift = 0;
  p.bias_shift = 0;
LOAD:
  for (int i = 0; i < offsets + (SCALED ? BLOCKS : 0); ++i) {
    T2F_PIPELINE(1);
    const word w = params.read();
    if (i == 0) {
      p.shift = int32_at(w, 0);
      p.bias_shift = int32_at(w, 1);
    }
    for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
      const int32_t value = int32_at(w, lane);
      if (SCALED && i >= offsets) {
        p.offset[i - offsets][lane] = value;
      } else if (i > 0 && (i & 1) == 1) {
        p.multiplier[i >> 1][lane] = value;
      } else if (i > 0) {
        p.bias[(i >> 1) - 1][lane] = value;
      }
    }
  }
}

// `exponent` is 0 for statically scaled rows (the shifter is then removed).
template <typename C, typename IN>
inline vec<typename C::out_t, C::lanes> requantized(
    const vec<IN, C::lanes> &x, const requant_parameters<C::blocks, C::lanes> &p, int block,
    int exponent) {
#pragma HLS inline
  vec<typename C::out_t, C::lanes> y;
  for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
    const int64_t product = static_cast<int64_t>(x.d[lane]) * p.multiplier[block][lane];
    // Multiplication, not <<: a left shift of a negative number is undefined in C++.
    const int64_t scaled = product * (int64_t(1) << exponent);
    const int64_t biased =
        scaled + static_cast<int64_t>(p.bias[block][lane]) * (int64_t(1) << p.bias_shift);
    int64_t value = saturate(round_shift(biased, p.shift), C::out_bits);
    if (C::relu && value < 0) value = 0;
    y.d[lane] = static_cast<typename C::out_t>(value);
  }
  return y;
}

template <typename C>
void requant(hls::stream<vec<typename C::in_t, C::lanes>> &x, hls::stream<word> &params,
             hls::stream<vec<typename C::out_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  requant_parameters<C::blocks, C::lanes> p;
#pragma HLS array_partition variable = p.multiplier complete dim = 2
#pragma HLS array_partition variable = p.bias complete dim = 2
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C::blocks, C::lanes, false>(params, p);
    token_place at = first_token(seq);
  ROW:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks
      T2F_PIPELINE(1);
      y.write(requantized<C>(x.read(), p, at.block, 0));
      advance<C::blocks, C::tile>(at, seq);
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
  requant_parameters<C::blocks, C::lanes> p;
#pragma HLS array_partition variable = p.multiplier complete dim = 2
#pragma HLS array_partition variable = p.bias complete dim = 2
#pragma HLS array_partition variable = p.offset complete dim = 2
  int8_t exponent[C::tile];
#pragma HLS array_partition variable = exponent complete
  const int tokens = batch * seq * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C::blocks, C::lanes, true>(params, p);
    token_place at = first_token(seq);
  ROW:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks
      T2F_PIPELINE(1);
      // A row's exponent comes with its first block and is kept for the others.
      int8_t e;
      if (at.block == 0) {
        e = exponents.read();
        exponent[at.t] = e;
      } else {
        e = exponent[at.t];
      }
      vec<typename C::in_t, C::lanes> v = x.read();
      for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
        v.d[lane] += p.offset[at.block][lane];
      }
      y.write(requantized<C>(v, p, at.block, e));
      advance<C::blocks, C::tile>(at, seq);
    }
  }
}

}  // namespace t2f
#endif
