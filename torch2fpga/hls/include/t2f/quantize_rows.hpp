// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation: every row gets the smallest power-of-two exponent with
// which it fits int8 around a fixed zero point.
//   x = (y + zero_point) * 2^exponent (up to rounding), y in [-127, 127]
// The zero point gives the long side of a lopsided function (GELU) more of the range.
// Depends on that row alone, so prefill and decode agree bit for bit.
// Cycles of a tile of n rows: FILL of blocks * n (the maximum), EXPONENT of n, DRAIN of
// blocks * n (the output).
#ifndef T2F_QUANTIZE_ROWS_HPP
#define T2F_QUANTIZE_ROWS_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

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

// The n rows of a tile in int8, each with its exponent.
template <typename C>
inline void drain_quantized(const vec<int32_t, C::lanes> (&rows)[C::blocks * C::tile],
                            const int (&exponent)[C::tile],
                            hls::stream<vec<int8_t, C::lanes>> &y, int n) {
#pragma HLS inline
  int t = 0;
  int channel = 0;  // of its group, at the block's first lane
DRAIN:
  for (int i = 0; i < C::blocks * n; ++i) {
#pragma HLS loop_tripcount max = C::blocks * C::tile
    T2F_PIPELINE(1);
    const vec<int32_t, C::lanes> v = rows[i];
    const int e = exponent[t];
    vec<int8_t, C::lanes> out;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      const int64_t q = round_shift(v.d[lane], e);
      // Channels that only fill up a group's last block stay zero.
      const bool used = channel + lane < C::group_size;
      out.d[lane] = used ? static_cast<int8_t>(saturate(q - C::zero_point, 8)) : int8_t(0);
    }
    y.write(out);
    if (++t == n) {
      t = 0;
      channel = channel == (C::group_blocks - 1) * C::lanes ? 0 : channel + C::lanes;
    }
  }
}

template <typename C>
void quantize_rows(hls::stream<vec<int32_t, C::lanes>> &x, hls::stream<vec<int8_t, C::lanes>> &y,
                   hls::stream<int8_t> &exponents, int batch, int seq) {
#pragma HLS inline off
  // The tokens of a tile, in their order.
  vec<int32_t, C::lanes> rows[C::blocks * C::tile];
#pragma HLS aggregate variable = rows
  uint32_t above[C::tile];
#pragma HLS array_partition variable = above complete
  uint32_t below[C::tile];
#pragma HLS array_partition variable = below complete
  int exponent[C::tile];
#pragma HLS array_partition variable = exponent complete
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
          above[t] = 0;
          below[t] = 0;
        }
        int at = 0;  // row in the tile
      FILL:
        for (int i = 0; i < C::blocks * n; ++i) {
#pragma HLS loop_tripcount max = C::blocks * C::tile
          T2F_PIPELINE(1);
          const vec<int32_t, C::lanes> v = x.read();
          vec<uint32_t, C::lanes> up;
          vec<uint32_t, C::lanes> down;
          for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
            const int32_t value = v.d[lane];
            up.d[lane] = value > 0 ? static_cast<uint32_t>(value) : 0u;
            down.d[lane] = value < 0 ? 0u - static_cast<uint32_t>(value) : 0u;
          }
          const uint32_t high = reduce_max<uint32_t, C::lanes>(up);
          const uint32_t low = reduce_max<uint32_t, C::lanes>(down);
          if (high > above[at]) above[at] = high;
          if (low > below[at]) below[at] = low;
          rows[i] = v;
          if (++at == n) at = 0;
        }
      EXPONENT:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          const int up = fitting_exponent<127 + C::zero_point>(above[t]);
          const int down = fitting_exponent<127 - C::zero_point>(below[t]);
          const int larger = up > down ? up : down;
          exponent[t] = larger;
          exponents.write(static_cast<int8_t>(larger));
        }
        drain_quantized<C>(rows, exponent, y, n);
      }
    }
  }
}

}  // namespace t2f
#endif
