// SPDX-License-Identifier: Apache-2.0
// Dot products with int4 weights on DSP48E2 slices.
//
// Both recipes hold the weights w0 and w1 of two neighbouring output channels in one
// operand, A = (w1 << 22) + w0:
//   W4A8, two products: B = x, an int8 activation. Fields of P from bits 0 and 22; a
//     chain may have 2,047 products, so P lives across iterations and is drained only
//     every CHAIN products (w4a8_sum). A shift of 23 would not fit the 27 bits of A.
//   W4A4, four products: B = (x1 << 11) + x0, 4-bit activations of two rows. Fields
//     w0*x0, w0*x1, w1*x0, w1*x1 from bits 0, 11, 22, 33; a chain may have 8 products
//     of unsigned activations, 15 of signed ones (dot_quad).
//
// Packed weights: a byte holds 16 * w1 + w0 modulo 256, made offline
// (torch2fpga.plan.packing.packed_bytes). Its high nibble is w1 less the borrow of a
// negative w0, just as in A, so the operand is wires and one look-up table, no adder.
#ifndef T2F_PACKED4_HPP
#define T2F_PACKED4_HPP

#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

constexpr int w4a8_chain = longest_chain(22, -8 * 127, -8 * -128);

constexpr int w4a4_chain(bool signed_x) {
  return signed_x ? longest_chain(11, -8 * 7, -8 * -8) : longest_chain(11, -8 * 15, 7 * 15);
}

static_assert(w4a8_chain == 2047, "limit of the shared-activation recipe");
static_assert(w4a4_chain(false) == 8 && w4a4_chain(true) == 15, "limits of the four-product recipe");

// The weights of a byte.
inline int low_weight(int8_t packed) {
#pragma HLS inline
  return ((packed & 15) ^ 8) - 8;
}

inline int high_weight(int8_t packed) {
#pragma HLS inline
  // Through eight bits: -8 with a negative neighbour wrapped around in the byte.
  return static_cast<int8_t>(packed - low_weight(packed)) >> 4;
}

#ifdef T2F_AP_INT

using packed_total = ap_int<48>;

// A byte as operand A: bits 21..0 are w0, bits 26..22 what the byte holds above it.
inline ap_int<27> weight_operand(int8_t packed) {
#pragma HLS inline
  const ap_int<8> bits = packed;
  const ap_int<4> low = bits.range(3, 0);
  const ap_int<4> high = bits.range(7, 4);
  ap_int<5> above = high;
  // 7 above a negative w0 is -9 (w1 = -8 less the borrow), whose sign the byte has no room for.
  above[4] = bits[7] | (bits[6] & bits[5] & bits[4] & bits[3]);
  ap_int<27> a = low;
  a.range(26, 22) = above;
  return a;
}

#else

using packed_total = int64_t;

#endif

// Accumulator of two channels, for CHAIN products between drains.
template <int CHAIN>
struct w4a8_sum {
  static_assert(CHAIN >= 1 && CHAIN <= w4a8_chain, "W4A8: at most 2,047 accumulations");
  packed_total p;
};

// sum += (x . w0, x . w1): LANES products of the chain. A caller drains after CHAIN / LANES of
// these calls at the latest.
template <int LANES, int CHAIN>
inline void accumulate_w4a8(const vec<int8_t, LANES> &x, const int8_t (&w)[LANES],
                            w4a8_sum<CHAIN> &sum) {
#pragma HLS inline
  static_assert(LANES <= CHAIN, "one call is longer than the chain");
#ifdef T2F_AP_INT
  // A chain of its own, then one addition: only that is carried from call to call.
  ap_int<48> p = 0;
  for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
    accumulate_packed(weight_operand(w[i]), x.d[i], p);
  }
  sum.p += p;
#else
  // The same P from two sums of int32, which g++ vectorises.
  int32_t low = 0;
  int32_t high = 0;
  for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
    low += x.d[i] * low_weight(w[i]);
    high += x.d[i] * high_weight(w[i]);
  }
  sum.p += static_cast<int64_t>(high) * (1 << 22) + low;
#endif
}

// sum0 and sum1 take over what the fields hold; the chain starts anew.
template <int CHAIN>
inline void drain_w4a8(w4a8_sum<CHAIN> &sum, int32_t &sum0, int32_t &sum1) {
#pragma HLS inline
#ifdef T2F_AP_INT
  sum0 += lowest_field<22>(sum.p);
  sum1 += static_cast<int32_t>(fields_above<22>(sum.p).to_int());
#else
  // Fields of 22 and 26 bits like those of the slice: a chain that is too long shows here too.
  const int64_t low = ((sum.p & 0x3fffff) ^ 0x200000) - 0x200000;
  sum0 += static_cast<int32_t>(low);
  sum1 += static_cast<int32_t>(((((sum.p - low) >> 22) & 0x3ffffff) ^ 0x2000000) - 0x2000000);
#endif
  sum.p = 0;
}

// sum[c][t] += x_t . w_c, channels c and rows t of 0, 1: LANES multipliers in chains of CHAIN.
// Activations lie in [-8, 7] where SIGNED_X, else in [0, 15].
template <int LANES, int CHAIN, bool SIGNED_X>
inline void dot_quad(const vec<int8_t, LANES> &x0, const vec<int8_t, LANES> &x1,
                     const int8_t (&w)[LANES], int32_t (&sum)[2][2]) {
#pragma HLS inline
  static_assert(CHAIN >= 1 && CHAIN <= w4a4_chain(SIGNED_X),
                "W4A4: at most 8 accumulations, 15 with signed activations");
#ifdef T2F_AP_INT
  for (int chunk = 0; chunk < LANES; chunk += CHAIN) {
#pragma HLS unroll
    ap_int<48> p = 0;
    for (int j = 0; j < CHAIN; ++j) {
#pragma HLS unroll
      if (chunk + j < LANES) {
        const int i = chunk + j;
        accumulate_packed(weight_operand(w[i]), (ap_int<18>(x1.d[i]) << 11) + ap_int<18>(x0.d[i]), p);
      }
    }
    const ap_int<37> from1 = fields_above<11>(p);
    const ap_int<26> from2 = fields_above<11>(from1);
    const ap_int<15> from3 = fields_above<11>(from2);
    sum[0][0] += lowest_field<11>(p);
    sum[0][1] += lowest_field<11>(from1);
    sum[1][0] += lowest_field<11>(from2);
    sum[1][1] += static_cast<int32_t>(from3.to_int());
  }
#else
  for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
    const int w0 = low_weight(w[i]);
    const int w1 = high_weight(w[i]);
    sum[0][0] += x0.d[i] * w0;
    sum[0][1] += x1.d[i] * w0;
    sum[1][0] += x0.d[i] * w1;
    sum[1][1] += x1.d[i] * w1;
  }
#endif
}

}  // namespace t2f
#endif
