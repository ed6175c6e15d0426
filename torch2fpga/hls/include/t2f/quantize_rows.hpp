// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation: every row gets the smallest power-of-two exponent with
// which it fits int8 around a fixed zero point.
//   x = (y + zero_point) * 2^exponent (up to rounding), y in [-127, 127]
// The zero point gives the long side of a lopsided function (GELU) more of the range.
// Depends on that row alone, so prefill and decode agree bit for bit.
// Cycles per tile: 2 * blocks * tile (one pass for the maximum, one for the output).
#ifndef T2F_QUANTIZE_ROWS_HPP
#define T2F_QUANTIZE_ROWS_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

// Index of the highest set bit of a constant (a loop: the HLS tools take no recursion).
constexpr int floor_log2(int value) {
  int top = 0;
  for (int bit = 1; bit < 31; ++bit) {
    if (value >> bit != 0) top = bit;
  }
  return top;
}

// Smallest e >= 0 with round(magnitude / 2^e) <= LIMIT.
template <int LIMIT>
inline int fitting_exponent(uint32_t magnitude) {
#pragma HLS inline
  constexpr int limit_top = floor_log2(LIMIT);
  const int top = magnitude == 0 ? 0 : top_bit(magnitude);
  const int e = top > limit_top ? top - limit_top : 0;
  return round_shift(magnitude, e) > LIMIT ? e + 1 : e;
}

template <typename C>
void quantize_rows(hls::stream<vec<int32_t, C::lanes>> &x, hls::stream<vec<int8_t, C::lanes>> &y,
                   hls::stream<int8_t> &exponents, int batch, int seq) {
#pragma HLS inline off
  vec<int32_t, C::lanes> rows[C::blocks][C::tile];
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
      FILL:
        for (int block = 0; block < C::blocks; ++block) {
        FILL_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const vec<int32_t, C::lanes> v = x.read();
            uint32_t high = above[t];
            uint32_t low = below[t];
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int32_t value = v.d[lane];
              const uint32_t up = value > 0 ? static_cast<uint32_t>(value) : 0u;
              const uint32_t down = value < 0 ? 0u - static_cast<uint32_t>(value) : 0u;
              high = up > high ? up : high;
              low = down > low ? down : low;
            }
            above[t] = high;
            below[t] = low;
            rows[block][t] = v;
          }
        }
      EXPONENT:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          const int up = fitting_exponent<127 + C::zero_point>(above[t]);
          const int down = fitting_exponent<127 - C::zero_point>(below[t]);
          exponent[t] = up > down ? up : down;
          exponents.write(static_cast<int8_t>(exponent[t]));
        }
      DRAIN:
        for (int block = 0; block < C::blocks; ++block) {
        DRAIN_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            vec<int8_t, C::lanes> out;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int64_t q = round_shift(rows[block][t].d[lane], exponent[t]);
              // Channels that only fill up a group's last block stay zero.
              const bool used = block % C::group_blocks * C::lanes + lane < C::group_size;
              out.d[lane] = used ? static_cast<int8_t>(saturate(q - C::zero_point, 8)) : int8_t(0);
            }
            y.write(out);
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
