// SPDX-License-Identifier: Apache-2.0
// Stages that take one token and give one token: residual add, table activations.
// Cycles of a launch: one flat loop over its steps * batch * seq * blocks tokens.
#ifndef T2F_ELEMENTWISE_HPP
#define T2F_ELEMENTWISE_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/tables.hpp"

namespace t2f {

// y = saturate(a + b); both operands and the sum share one format.
template <typename C>
void add(hls::stream<vec<typename C::value_t, C::lanes>> &a,
         hls::stream<vec<typename C::value_t, C::lanes>> &b,
         hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = C::steps * batch * seq * C::blocks;
ADD:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const vec<typename C::value_t, C::lanes> va = a.read();
    const vec<typename C::value_t, C::lanes> vb = b.read();
    vec<typename C::value_t, C::lanes> out;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      const int64_t sum = static_cast<int64_t>(va.d[lane]) + vb.d[lane];
      out.d[lane] = static_cast<typename C::value_t>(saturate(sum, C::bits));
    }
    y.write(out);
  }
}

// Piecewise linear function on [-8, 8) with 1,024 segments; x and y have 14
// fraction bits.  Outside: a constant on the left, a constant or x itself on the
// right (C::table holds the 1,025 node values, see torch2fpga/simulate/tables.py).
template <typename C>
inline int32_t table_function(int32_t x) {
#pragma HLS inline
  const int32_t limit = 8 << 14;
  if (x < -limit) return C::left;
  if (x >= limit) return C::right_is_x ? x : C::right;
  const uint32_t at = static_cast<uint32_t>(x + limit);
  const int index = at >> 8;
  const int fraction = at & 255;
  const int32_t low = C::table(index);
  const int32_t high = C::table(index + 1);
  return low + static_cast<int32_t>(round_shift((high - low) * fraction, 8));
}

template <typename C>
void activation(hls::stream<vec<int32_t, C::lanes>> &x, hls::stream<vec<int32_t, C::lanes>> &y,
                int batch, int seq) {
#pragma HLS inline off
  const int tokens = C::steps * batch * seq * C::blocks;
ACTIVATE:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const vec<int32_t, C::lanes> v = x.read();
    vec<int32_t, C::lanes> out;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      out.d[lane] = table_function<typename C::function>(v.d[lane]);
    }
    y.write(out);
  }
}

}  // namespace t2f
#endif
