// SPDX-License-Identifier: Apache-2.0
// Layer norm without its affine part:
//   y = (x - mean) / sqrt(sum((x - mean)^2) + channels * eps), 24 fraction bits.
// gamma, beta, sqrt(channels) and the output format are the multipliers and biases
// of the requant stages behind it, one for each format that is wanted.
//
// Parameter word of a step: {eps_low, eps_high, mean_multiplier, mean_shift, 0 ...};
// eps is channels * eps in units of x^2 (int64), the mean is
// round(sum * mean_multiplier / 2^mean_shift).
// `ways` channels are worked on a cycle, a token takes parts = lanes / ways iterations.
// Cycles of a step: LOAD of 1; then for every tile of n rows SUM of blocks * n * parts, INVERSE
// of n and OUTPUT of blocks * n * parts.
#ifndef T2F_NORMALIZE_HPP
#define T2F_NORMALIZE_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// Parameters of one step.
struct normalize_parameters {
  uint64_t eps;
  int32_t mean_multiplier;
  int mean_shift;
};

inline void load_normalize(hls::stream<word> &params, normalize_parameters &p) {
#pragma HLS inline
LOAD:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    const word w = params.read();
    p.eps = (static_cast<uint64_t>(static_cast<uint32_t>(int32_at(w, 1))) << 32) |
            static_cast<uint32_t>(int32_at(w, 0));
    p.mean_multiplier = int32_at(w, 2);
    p.mean_shift = int32_at(w, 3);
  }
}

// 18 fraction bits and 2^-exponent to 24 fraction bits. The mantissa is at most 2^18.
template <int BITS>
inline int32_t normalized(int64_t difference, const scaled &inverse) {
#pragma HLS inline
  const int64_t product =
      narrowed<BITS>(difference) * narrowed<20>(static_cast<int64_t>(inverse.mantissa));
  return static_cast<int32_t>(inverse.exponent >= 6
                                  ? round_shift(product, inverse.exponent - 6)
                                  : product * (int64_t(1) << (6 - inverse.exponent)));
}

template <typename C>
constexpr int input_bits{8 * sizeof(typename C::in_t)};

// The n rows of a tile, less their mean and scaled. The mean's own rounding may pass the
// largest input, so that it has a bit more than an input and the difference two.
template <typename C>
inline void drain_normalized(const vec<typename C::in_t, C::lanes> (&rows)[C::blocks * C::tile],
                             const int32_t (&mean)[C::tile], const scaled (&inverse)[C::tile],
                             hls::stream<vec<int32_t, C::lanes>> &y, int n) {
#pragma HLS inline
  constexpr int parts = C::lanes / C::ways;
  vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
  vec<int32_t, C::lanes> out T2F_UNWRITTEN;
  int token = 0;
  int t = 0;
  int part = 0;
  int block = 0;  // its first channel
OUTPUT:
  for (int i = 0; i < C::blocks * parts * n; ++i) {
#pragma HLS loop_tripcount max = C::blocks * parts * C::tile
    T2F_PIPELINE(1);
    if (part == 0) v = rows[token];
    const vec<typename C::in_t, C::ways> lowest =
        take_lanes<C::ways, typename C::in_t, C::lanes>(v);
    vec<int32_t, C::ways> made;
    for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
      const int64_t d = static_cast<int64_t>(lowest.d[way]) - mean[t];
      const bool used = block + part * C::ways + way < C::channels;
      made.d[way] = used ? normalized<input_bits<C> + 2>(d, inverse[t]) : 0;
    }
    put_lanes<C::ways, int32_t, C::lanes>(made, out);
    if (part != parts - 1) {
      ++part;
    } else {
      y.write(out);
      part = 0;
      ++token;
      if (++t == n) {
        t = 0;
        block += C::lanes;
      }
    }
  }
}

template <typename C>
void normalize(hls::stream<vec<typename C::in_t, C::lanes>> &x, hls::stream<word> &params,
               hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  constexpr int mean_bits = input_bits<C> + 1;
  constexpr int sum_bits = input_bits<C> + floor_log2(C::channels) + 1;
  // The tokens of a tile, in their order.
  vec<typename C::in_t, C::lanes> rows[C::blocks * C::tile];
#pragma HLS aggregate variable = rows
  int64_t sum[C::tile];
#pragma HLS array_partition variable = sum complete
  uint64_t squares[C::tile];
#pragma HLS array_partition variable = squares complete
  int32_t mean[C::tile];
#pragma HLS array_partition variable = mean complete
  scaled inverse[C::tile];
#pragma HLS array_partition variable = inverse complete
  normalize_parameters p;
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_normalize(params, p);
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
          squares[t] = p.eps;
        }
        vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
        int token = 0;
        int at = 0;  // row in the tile
        int part = 0;
      SUM:
        for (int i = 0; i < C::blocks * parts * n; ++i) {
#pragma HLS loop_tripcount max = C::blocks * parts * C::tile
          T2F_PIPELINE(1);
          if (part == 0) {
            v = x.read();
            rows[token] = v;
          }
          // Lanes that only fill up the last block are zero.
          const vec<typename C::in_t, C::ways> lowest =
              take_lanes<C::ways, typename C::in_t, C::lanes>(v);
          vec<int64_t, C::ways> values;
          vec<uint64_t, C::ways> powers;
          for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
            const int64_t value = lowest.d[way];
            values.d[way] = value;
            powers.d[way] = static_cast<uint64_t>(value * value);
          }
          sum[at] += reduce_sum<int64_t, C::ways>(values);
          squares[at] += reduce_sum<uint64_t, C::ways>(powers);
          if (part != parts - 1) {
            ++part;
          } else {
            part = 0;
            ++token;
            if (++at == n) at = 0;
          }
        }
      INVERSE:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          const int64_t total = narrowed<sum_bits>(sum[t]);
          const int32_t m =
              static_cast<int32_t>(round_shift(total * p.mean_multiplier, p.mean_shift));
          // sum((x - m)^2) = sum(x^2) - m * (2 sum(x) - channels * m) for every integer m,
          // so that no pass of its own is needed. Modulo 2^64, like the sums themselves.
          const uint64_t um = static_cast<uint64_t>(narrowed<mean_bits>(m));
          const int64_t rest = 2 * total - static_cast<int64_t>(C::channels) * m;
          const uint64_t share = um * static_cast<uint64_t>(narrowed<sum_bits + 2>(rest));
          const uint64_t deviation = squares[t] - share;
          mean[t] = m;
          inverse[t] = rsqrt(deviation == 0 ? 1 : deviation);
        }
        drain_normalized<C>(rows, mean, inverse, y, n);
      }
    }
  }
}

}  // namespace t2f
#endif
