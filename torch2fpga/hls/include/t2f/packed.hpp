// SPDX-License-Identifier: Apache-2.0
// Dot products on DSP48E2 slices, two int8 products per slice with a shared weight
// (WP486): A = (x1 << 18) + x0, B = w, P accumulates both sums, x0 * w from bit 0 and
// x1 * w from bit 18.
//
// The low field has 18 bits. A chain of 8 products stays inside it where weights lie in
// [-127, 127] (the quantiser is symmetric); -128 * -128 is one more than that leaves
// room for, so full-range weights have 7. Then both fields leave for the int32
// accumulators. A negative low field has borrowed one from the field above it, which
// gets it back there.
//
// Unsigned activations (the weights of attention, 0 to 255) are twice as large: their chains
// have 4 products, with any int8 value.
//
// For synthesis the operands are spelt with AMD's ap_int so that every width is
// what the slice has; plain integers compute the same and run far faster under g++.
// int4 weights: packed4.hpp. All recipes as data: torch2fpga/plan/packing.py.
#ifndef T2F_PACKED_HPP
#define T2F_PACKED_HPP

#include "t2f/core.hpp"

#if defined(__SYNTHESIS__) && defined(__has_include)
#if __has_include(<ap_int.h>)
#include <ap_int.h>
#define T2F_AP_INT 1
#endif
#endif

namespace t2f {

// The most products of least..greatest whose sum a signed field of `bits` always holds.
constexpr int longest_chain(int bits, int least, int greatest) {
  const int down = (1 << (bits - 1)) / -least;
  const int up = ((1 << (bits - 1)) - 1) / greatest;
  return down < up ? down : up;
}

// Products of int8 activations and weights from `least_weight` to 127, in 18 bits.
constexpr int w8a8_chain(int least_weight) {
  return longest_chain(18, -128 * 127, -128 * least_weight);
}

// Products of uint8 activations and any int8 weights, in 18 bits.
constexpr int u8a8_chain = longest_chain(18, -128 * 255, 127 * 255);

static_assert(u8a8_chain == 4, "limit of the shared-weight recipe with unsigned activations");
static_assert(w8a8_chain(-127) == 8 && w8a8_chain(-128) == 7, "limits of the shared-weight recipe");

#ifdef T2F_AP_INT

// p += a * b in one slice.
inline void accumulate_packed(const ap_int<27> &a, const ap_int<18> &b, ap_int<48> &p) {
#pragma HLS inline
  const ap_int<45> product = a * b;
#pragma HLS bind_op variable = product op = mul impl = dsp latency = 3
  p += product;
}

// The lowest field of an accumulator.
template <int BITS, int WIDTH>
inline int32_t lowest_field(const ap_int<WIDTH> &p) {
#pragma HLS inline
  const ap_int<BITS> field = p.range(BITS - 1, 0);
  return static_cast<int32_t>(field.to_int());
}

// What lies above it, with the borrow of a negative lowest field given back.
template <int BITS, int WIDTH>
inline ap_int<WIDTH - BITS> fields_above(const ap_int<WIDTH> &p) {
#pragma HLS inline
  const ap_int<WIDTH - BITS> above = p.range(WIDTH - 1, BITS);
  return above + ap_int<WIDTH - BITS>(p[BITS - 1] ? 1 : 0);
}

#endif

// a * b in one slice: a of 27 bits, b of 18, each with its sign.
inline int64_t slice_product(int32_t a, int32_t b) {
#pragma HLS inline
#ifdef T2F_AP_INT
  ap_int<48> p = 0;
  accumulate_packed(a, b, p);
  return p.to_int64();
#else
  return static_cast<int64_t>(a) * b;
#endif
}

template <int LANES>
inline void dot(const vec<int8_t, LANES> &x, const int8_t (&w)[LANES], int32_t &sum) {
#pragma HLS inline
  int32_t partial = 0;
  for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
    partial += x.d[i] * w[i];
  }
  sum += partial;
}

// sum0 += x0 . w and sum1 += x1 . w, with LANES multipliers in chains of CHAIN. No weight may
// be less than LEAST_WEIGHT.
template <int LANES, int CHAIN = 8, int LEAST_WEIGHT = -127>
inline void dot_pair(const vec<int8_t, LANES> &x0, const vec<int8_t, LANES> &x1,
                     const int8_t (&w)[LANES], int32_t &sum0, int32_t &sum1) {
#pragma HLS inline
  static_assert(LEAST_WEIGHT == -127 || LEAST_WEIGHT == -128, "symmetric or full-range int8");
  static_assert(CHAIN >= 1 && CHAIN <= w8a8_chain(LEAST_WEIGHT),
                "W8A8: at most 8 accumulations, 7 with weights of -128");
#ifdef T2F_AP_INT
  int32_t partial0 = 0;
  int32_t partial1 = 0;
  for (int chunk = 0; chunk < LANES; chunk += CHAIN) {
#pragma HLS unroll
    ap_int<48> p = 0;
    for (int j = 0; j < CHAIN; ++j) {
#pragma HLS unroll
      if (chunk + j < LANES) {
        const int i = chunk + j;
        accumulate_packed((ap_int<27>(x1.d[i]) << 18) + ap_int<27>(x0.d[i]), w[i], p);
      }
    }
    partial0 += lowest_field<18>(p);
    partial1 += static_cast<int32_t>(fields_above<18>(p).to_int());
  }
  sum0 += partial0;
  sum1 += partial1;
#else
  dot<LANES>(x0, w, sum0);
  dot<LANES>(x1, w, sum1);
#endif
}

// sum += p . w
template <int LANES>
inline void weigh_one(const uint8_t (&p)[LANES], const int8_t (&w)[LANES], int32_t &sum) {
#pragma HLS inline
  int32_t partial = 0;
  for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
    partial += p[i] * w[i];
  }
  sum += partial;
}

// sum0 += p0 . w and sum1 += p1 . w likewise with uint8 activations (weights of attention) and
// all int8 weights (values): A = (p1 << 18) + p0 is 26 bits and a sign.
template <int LANES, int CHAIN = u8a8_chain>
inline void weigh_pair(const uint8_t (&p0)[LANES], const uint8_t (&p1)[LANES],
                       const int8_t (&w)[LANES], int32_t &sum0, int32_t &sum1) {
#pragma HLS inline
  static_assert(CHAIN >= 1 && CHAIN <= u8a8_chain, "U8A8: at most 4 accumulations");
#ifdef T2F_AP_INT
  int32_t partial0 = 0;
  int32_t partial1 = 0;
  for (int chunk = 0; chunk < LANES; chunk += CHAIN) {
#pragma HLS unroll
    ap_int<48> sum = 0;
    for (int j = 0; j < CHAIN; ++j) {
#pragma HLS unroll
      if (chunk + j < LANES) {
        const int i = chunk + j;
        accumulate_packed((ap_int<27>(p1[i]) << 18) + ap_int<27>(p0[i]), w[i], sum);
      }
    }
    partial0 += lowest_field<18>(sum);
    partial1 += static_cast<int32_t>(fields_above<18>(sum).to_int());
  }
  sum0 += partial0;
  sum1 += partial1;
#else
  weigh_one<LANES>(p0, w, sum0);
  weigh_one<LANES>(p1, w, sum1);
#endif
}

}  // namespace t2f
#endif
