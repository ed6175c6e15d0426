// SPDX-License-Identifier: Apache-2.0
// The only place where a number leaves one format for another:
//   y = saturate(round((x * multiplier[c] + bias[c] * 2^bias_shift) / 2^shift))
// with one multiplier and one bias a channel, both data of the step.
//
// Parameter words of a step: {shift, bias_shift, 0 ...}, then for each channel
// block one word of multipliers and one word of biases (int32, `lanes` used).
// Cycles: one token a cycle.
#ifndef T2F_REQUANT_HPP
#define T2F_REQUANT_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

// Per-channel parameters of one step.
template <int BLOCKS, int LANES>
struct requant_parameters {
  int shift;
  int bias_shift;
  int32_t multiplier[BLOCKS][LANES];
  int32_t bias[BLOCKS][LANES];
};

template <int BLOCKS, int LANES>
inline void load_requant(hls::stream<word> &params, requant_parameters<BLOCKS, LANES> &p) {
#pragma HLS inline
  const word header = params.read();
  p.shift = int32_at(header, 0);
  p.bias_shift = int32_at(header, 1);
LOAD:
  for (int block = 0; block < BLOCKS; ++block) {
    T2F_PIPELINE(2);
    const word multiplier = params.read();
    const word bias = params.read();
    for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
      p.multiplier[block][lane] = int32_at(multiplier, lane);
      p.bias[block][lane] = int32_at(bias, lane);
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
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C::blocks, C::lanes>(params, p);
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      BLOCK:
        for (int block = 0; block < C::blocks; ++block) {
        ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            y.write(requantized<C>(x.read(), p, block, 0));
          }
        }
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
  requant_parameters<C::blocks, C::lanes> p;
#pragma HLS array_partition variable = p.multiplier complete dim = 2
#pragma HLS array_partition variable = p.bias complete dim = 2
  int32_t offset[C::blocks][C::lanes];
#pragma HLS array_partition variable = offset complete dim = 2
  int8_t exponent[C::tile];
#pragma HLS array_partition variable = exponent complete
STEP:
  for (int step = 0; step < C::steps; ++step) {
    load_requant<C::blocks, C::lanes>(params, p);
  LOAD_OFFSET:
    for (int block = 0; block < C::blocks; ++block) {
      T2F_PIPELINE(1);
      const word w = params.read();
      for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
        offset[block][lane] = int32_at(w, lane);
      }
    }
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      EXPONENT:
        for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
          T2F_PIPELINE(1);
          exponent[t] = exponents.read();
        }
      BLOCK:
        for (int block = 0; block < C::blocks; ++block) {
        ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            vec<typename C::in_t, C::lanes> v = x.read();
            for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
              v.d[lane] += offset[block][lane];
            }
            y.write(requantized<C>(v, p, block, exponent[t]));
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
