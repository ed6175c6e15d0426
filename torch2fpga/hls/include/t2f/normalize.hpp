// SPDX-License-Identifier: Apache-2.0
// Layer norm without its affine part:
//   y = (x - mean) / sqrt(sum((x - mean)^2) + channels * eps), 24 fraction bits.
// gamma, beta, sqrt(channels) and the output format are the multipliers and biases
// of the requant stages behind it, one for each format that is wanted.
//
// Parameter word of a step: {eps_low, eps_high, mean_multiplier, mean_shift, 0 ...};
// eps is channels * eps in units of x^2 (int64), the mean is
// round(sum * mean_multiplier / 2^mean_shift).
// Cycles per tile: 3 * blocks * tile (sum, squares, output).
#ifndef T2F_NORMALIZE_HPP
#define T2F_NORMALIZE_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

template <typename C>
void normalize(hls::stream<vec<typename C::in_t, C::lanes>> &x, hls::stream<word> &params,
               hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  vec<typename C::in_t, C::lanes> rows[C::blocks][C::tile];
#pragma HLS aggregate variable = rows
  int64_t sum[C::tile];
#pragma HLS array_partition variable = sum complete
  int32_t mean[C::tile];
#pragma HLS array_partition variable = mean complete
  uint64_t squares[C::tile];
#pragma HLS array_partition variable = squares complete
  scaled inverse[C::tile];
#pragma HLS array_partition variable = inverse complete
STEP:
  for (int step = 0; step < C::steps; ++step) {
    const word header = params.read();
    const uint64_t eps = (static_cast<uint64_t>(static_cast<uint32_t>(int32_at(header, 1))) << 32) |
                         static_cast<uint32_t>(int32_at(header, 0));
    const int64_t mean_multiplier = int32_at(header, 2);
    const int mean_shift = int32_at(header, 3);
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
          sum[t] = 0;
          squares[t] = eps;
        }
      SUM:
        for (int block = 0; block < C::blocks; ++block) {
        SUM_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const vec<typename C::in_t, C::lanes> v = x.read();
            int64_t partial = 0;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              partial += v.d[lane];
            }
            sum[t] += partial;
            rows[block][t] = v;
          }
        }
      MEAN:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          mean[t] = static_cast<int32_t>(round_shift(sum[t] * mean_multiplier, mean_shift));
        }
      SQUARE:
        for (int block = 0; block < C::blocks; ++block) {
        SQUARE_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            uint64_t partial = 0;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int64_t d = rows[block][t].d[lane] - mean[t];
              // Channels that only fill up the last block do not count.
              if (block * C::lanes + lane < C::channels) partial += static_cast<uint64_t>(d * d);
            }
            squares[t] += partial;
          }
        }
      INVERSE:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          inverse[t] = rsqrt(squares[t] == 0 ? 1 : squares[t]);
        }
      OUTPUT:
        for (int block = 0; block < C::blocks; ++block) {
        OUTPUT_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            vec<int32_t, C::lanes> out;
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              const int64_t d = rows[block][t].d[lane] - mean[t];
              const int64_t product = d * static_cast<int64_t>(inverse[t].mantissa);
              // 18 fraction bits and 2^-exponent to 24 fraction bits.
              const int64_t h = inverse[t].exponent >= 6
                                    ? round_shift(product, inverse[t].exponent - 6)
                                    : product * (int64_t(1) << (6 - inverse[t].exponent));
              const bool used = block * C::lanes + lane < C::channels;
              out.d[lane] = used ? static_cast<int32_t>(h) : 0;
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
