// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation: every row gets the smallest power-of-two exponent with
// which it fits int8 around a fixed zero point.
//   x = (y + zero_point) * 2^exponent (up to rounding), y in [-127, 127]
// The zero point gives the long side of a lopsided function (GELU) more of the range.
// Depends on that row alone, so prefill and decode agree bit for bit.
//
// Two processes and two FIFOs between them:
//   row_exponents   passes the tokens on and finds each row's exponent
//   quantize_rows   holds the tokens of a tile back until its exponents are known
// While a tile leaves, the next one comes in, and none waits for another.
// `ways` channels are worked on a cycle, a token takes parts = lanes / ways iterations.
// Cycles of a launch: one flat loop each, FILL and DRAIN, over its steps * batch * seq * blocks
// tokens, parts iterations each.
#ifndef T2F_QUANTIZE_ROWS_HPP
#define T2F_QUANTIZE_ROWS_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// Smallest e >= 0 with round(magnitude / 2^e) <= LIMIT.
template <int LIMIT>
inline int fitting_exponent(uint32_t magnitude) {
#pragma HLS inline
  constexpr int limit_top = floor_log2(LIMIT);
  const int top = magnitude == 0 ? 0 : top_bit(magnitude);
  const int e = top > limit_top ? top - limit_top : 0;
  return round_shift(magnitude, e) > LIMIT ? e + 1 : e;
}

// The largest values of `ways` channels above and below zero.
template <int WAYS>
inline void largest_of(const vec<int32_t, WAYS> &v, uint32_t &high, uint32_t &low) {
#pragma HLS inline
  vec<uint32_t, WAYS> up;
  vec<uint32_t, WAYS> down;
  for (int way = 0; way < WAYS; ++way) {
#pragma HLS unroll
    const int32_t value = v.d[way];
    up.d[way] = value > 0 ? static_cast<uint32_t>(value) : 0u;
    down.d[way] = value < 0 ? 0u - static_cast<uint32_t>(value) : 0u;
  }
  high = reduce_max<uint32_t, WAYS>(up);
  low = reduce_max<uint32_t, WAYS>(down);
}

// Every token as it is, and the exponent of a row behind its last token.
template <typename C>
void row_exponents(hls::stream<vec<int32_t, C::lanes>> &x, hls::stream<vec<int32_t, C::lanes>> &held,
                   hls::stream<int8_t> &fitting, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  vec<int32_t, C::lanes> v T2F_UNWRITTEN;
  uint32_t above[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = above complete
  uint32_t below[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = below complete
  const int iterations = rows_of(batch, seq) * (C::steps * C::blocks * parts);
  token_place at = first_token(seq);
  int part = 0;
FILL:
  for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::blocks * parts
    T2F_PIPELINE(1);
    if (part == 0) {
      v = x.read();
      held.write(v);
    }
    const vec<int32_t, C::ways> lowest = take_lanes<C::ways, int32_t, C::lanes>(v);
    uint32_t high;
    uint32_t low;
    largest_of<C::ways>(lowest, high, low);
    const bool first = at.block == 0 && part == 0;
    if (!first && above[at.t] > high) high = above[at.t];
    if (!first && below[at.t] > low) low = below[at.t];
    above[at.t] = high;
    below[at.t] = low;
    if (part != parts - 1) {
      ++part;
    } else {
      if (at.block == C::blocks - 1) {
        const int up = fitting_exponent<127 + C::zero_point>(high);
        const int down = fitting_exponent<127 - C::zero_point>(low);
        fitting.write(static_cast<int8_t>(up > down ? up : down));
      }
      part = 0;
      advance<C::blocks, C::tile>(at, seq);
    }
  }
}

// `ways` channels in int8. Channels that only fill up a group's last block stay zero.
template <typename C>
inline vec<int8_t, C::ways> quantized(const vec<int32_t, C::ways> &v, int exponent, int channel) {
#pragma HLS inline
  vec<int8_t, C::ways> out;
  for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
    const int64_t q = narrowed<33>(round_shift(v.d[way], exponent));
    const bool used = channel + way < C::group_size;
    out.d[way] = used ? static_cast<int8_t>(saturate(q - C::zero_point, 8)) : int8_t(0);
  }
  return out;
}

// The rows of a tile in int8, each with its exponent, which leaves together with its first token.
template <typename C>
void quantize_rows(hls::stream<vec<int32_t, C::lanes>> &held, hls::stream<int8_t> &fitting,
                   hls::stream<vec<int8_t, C::lanes>> &y, hls::stream<int8_t> &exponents, int batch,
                   int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  vec<int32_t, C::lanes> v T2F_UNWRITTEN;
  vec<int8_t, C::lanes> out T2F_UNWRITTEN;
  int8_t exponent[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = exponent complete
  const int iterations = rows_of(batch, seq) * (C::steps * C::blocks * parts);
  token_place at = first_token(seq);
  int part = 0;
  int channel = 0;  // of its group, at the block's first lane
DRAIN:
  for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::blocks * parts
    T2F_PIPELINE(1);
    int8_t e;
    if (at.block == 0 && part == 0) {
      e = fitting.read();
      exponents.write(e);
      exponent[at.t] = e;
    } else {
      e = exponent[at.t];
    }
    if (part == 0) v = held.read();
    const vec<int32_t, C::ways> lowest = take_lanes<C::ways, int32_t, C::lanes>(v);
    put_lanes<C::ways, int8_t, C::lanes>(quantized<C>(lowest, e, channel + part * C::ways), out);
    if (part != parts - 1) {
      ++part;
    } else {
      y.write(out);
      part = 0;
      const int block = at.block;
      advance<C::blocks, C::tile>(at, seq);
      if (at.block != block || C::blocks == 1) {
        channel = channel == (C::group_blocks - 1) * C::lanes ? 0 : channel + C::lanes;
      }
    }
  }
}

}  // namespace t2f
#endif
