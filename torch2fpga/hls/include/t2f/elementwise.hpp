// SPDX-License-Identifier: Apache-2.0
// Stages that take one token and give one token: residual add, table activations.
// Cycles of a launch: one flat loop over its steps * batch * seq * blocks tokens; an activation
// that works on `ways` channels a cycle takes lanes / ways iterations a token.
#ifndef T2F_ELEMENTWISE_HPP
#define T2F_ELEMENTWISE_HPP

#include "t2f/activation_tables.hpp"
#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// y = saturate(a + b); both operands and the sum share one format.
template <typename C>
void add(hls::stream<vec<typename C::value_t, C::lanes>> &a,
         hls::stream<vec<typename C::value_t, C::lanes>> &b,
         hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
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

// Piecewise linear function on [-limit, limit) with 64 segments for each unit; x and y
// have 14 fraction bits.  Outside: a constant on the left, a constant or x itself on the
// right (C::table holds the node values, see torch2fpga/simulate/tables.py).
template <typename C>
inline int32_t table_function(int32_t x) {
#pragma HLS inline
  if (x < -C::limit) return C::left;
  if (x >= C::limit) return C::right_is_x ? x : C::right;
  const uint32_t at = static_cast<uint32_t>(x + C::limit);
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
  constexpr int parts = C::lanes / C::ways;
  vec<int32_t, C::lanes> v T2F_UNWRITTEN;
  vec<int32_t, C::lanes> out T2F_UNWRITTEN;
  int part = 0;
  const int iterations = rows_of(batch, seq) * (C::steps * C::blocks * parts);
ACTIVATE:
  for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens * parts
    T2F_PIPELINE(1);
    if (part == 0) v = x.read();
    const vec<int32_t, C::ways> lowest = take_lanes<C::ways, int32_t, C::lanes>(v);
    vec<int32_t, C::ways> made;
    for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
      made.d[way] = table_function<typename C::function>(lowest.d[way]);
    }
    put_lanes<C::ways, int32_t, C::lanes>(made, out);
    if (part != parts - 1) {
      ++part;
    } else {
      y.write(out);
      part = 0;
    }
  }
}

}  // namespace t2f
#endif
