// SPDX-License-Identifier: Apache-2.0
// Dot products on DSP48E2 slices, two int8 products per slice with a shared weight
// (WP486): A = (x1 << 18) + x0, B = w, P accumulates both sums.  The low field is
// exact for 8 accumulations because weights lie in [-127, 127] (the quantiser is
// symmetric); after that both fields leave for the int32 accumulators.
//
// For synthesis the operands are spelt with AMD's ap_int so that every width is
// what the slice has; plain integers compute the same and run far faster under g++.
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

#ifdef T2F_AP_INT

template <int LANES>
inline void dot_pair(const vec<int8_t, LANES> &x0, const vec<int8_t, LANES> &x1,
                     const int8_t (&w)[LANES], int32_t &sum0, int32_t &sum1) {
#pragma HLS inline
  static_assert(LANES % 8 == 0, "fields are emptied every 8 products");
  int32_t partial0 = 0;
  int32_t partial1 = 0;
  for (int chunk = 0; chunk < LANES; chunk += 8) {
#pragma HLS unroll
    ap_int<48> p = 0;
    for (int i = chunk; i < chunk + 8; ++i) {
#pragma HLS unroll
      const ap_int<27> a = (ap_int<27>(x1.d[i]) << 18) + ap_int<27>(x0.d[i]);
      const ap_int<45> product = a * ap_int<18>(w[i]);
#pragma HLS bind_op variable = product op = mul impl = dsp latency = 3
      p += product;
    }
    const ap_int<18> low = p.range(17, 0);
    const ap_int<30> high = (p >> 18) + ap_int<48>(p[17] ? 1 : 0);
    partial0 += static_cast<int32_t>(low.to_int());
    partial1 += static_cast<int32_t>(high.to_int());
  }
  sum0 += partial0;
  sum1 += partial1;
}

#else

template <int LANES>
inline void dot_pair(const vec<int8_t, LANES> &x0, const vec<int8_t, LANES> &x1,
                     const int8_t (&w)[LANES], int32_t &sum0, int32_t &sum1) {
#pragma HLS inline
  dot<LANES>(x0, w, sum0);
  dot<LANES>(x1, w, sum1);
}

#endif

}  // namespace t2f
#endif
