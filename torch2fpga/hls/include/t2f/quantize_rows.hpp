// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation: every row gets the smallest power-of-two exponent with
// which its largest magnitude fits int8.
//   x = y * 2^exponent (up to rounding), y in [-127, 127]
// Depends on that row alone, so prefill and decode agree bit for bit.
// Cycles per tile: 2 * blocks * tile (one pass for the maximum, one for the output).
#ifndef T2F_QUANTIZE_ROWS_HPP
#define T2F_QUANTIZE_ROWS_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

// Smallest e >= 0 with round(largest / 2^e) <= 127.
inline int row_exponent(uint32_t largest) {
#pragma HLS inline
  const int top = largest == 0 ? 0 : top_bit(largest);
  const int e = top > 6 ? top - 6 : 0;
  return round_shift(largest, e) > 127 ? e + 1 : e;
}

template <typename C>
void quantize_rows(hls::stream<vec<int32_t, C::lanes>> &x, hls::stream<vec<int8_t, C::lanes>> &y,
                   hls::stream<int8_t> &exponents, int batch, int seq) {
#pragma HLS inline off
  vec<int32_t, C::lanes> rows[C::blocks][C::tile];
#pragma HLS aggregate variable = rows
  uint32_t largest[C::tile];
#pragma HLS array_partition variable = largest complete
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
          largest[t] = 0;
        }
      FILL:
        for (int block = 0; block < C::blocks; ++block) {
        FILL_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const vec<int32_t, C::lanes> v = x.read();
            uint32_t top = largest[t];
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int32_t value = v.d[lane];
              const uint32_t magnitude = value < 0 ? 0u - static_cast<uint32_t>(value)
                                                   : static_cast<uint32_t>(value);
              top = magnitude > top ? magnitude : top;
            }
            largest[t] = top;
            rows[block][t] = v;
          }
        }
      EXPONENT:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          exponent[t] = row_exponent(largest[t]);
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
              out.d[lane] = static_cast<int8_t>(saturate(q, 8));
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
