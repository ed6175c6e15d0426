// SPDX-License-Identifier: Apache-2.0
// Elementwise product of two row streams, with a table function on the first one.
// Cycles of a launch: one flat loop over its steps * batch * seq * blocks tokens, lanes / ways
// iterations each.
#ifndef T2F_MULTIPLY_HPP
#define T2F_MULTIPLY_HPP

#include "t2f/core.hpp"
#include "t2f/elementwise.hpp"
#include "t2f/fixed.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// The member `function` of a configuration where nothing is applied.
struct identity {};

inline int32_t function_of(identity, int32_t x) {
#pragma HLS inline
  return x;
}

template <typename F>
inline int32_t function_of(F, int32_t x) {
#pragma HLS inline
  return table_function<F>(x);
}

// y = round(function(a) * b / 2^8); a and the function's value have 24 bits, 14 of them fraction
// bits, so that the product has 40 and what is left of it 32.
template <typename C>
void multiply(hls::stream<vec<int32_t, C::lanes>> &a, hls::stream<vec<int16_t, C::lanes>> &b,
              hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  vec<int32_t, C::lanes> va T2F_UNWRITTEN;
  vec<int16_t, C::lanes> vb T2F_UNWRITTEN;
  vec<int32_t, C::lanes> out T2F_UNWRITTEN;
  int part = 0;
  const int iterations = rows_of(batch, seq) * (C::steps * C::blocks * parts);
MULTIPLY:
  for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens * parts
    T2F_PIPELINE(1);
    if (part == 0) {
      va = a.read();
      vb = b.read();
    }
    const vec<int32_t, C::ways> left = take_lanes<C::ways, int32_t, C::lanes>(va);
    const vec<int16_t, C::ways> right = take_lanes<C::ways, int16_t, C::lanes>(vb);
    vec<int32_t, C::ways> made;
    for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
      const int32_t value = function_of(typename C::function(), left.d[way]);
      const int64_t product = narrowed<24>(value) * narrowed<16>(right.d[way]);
      made.d[way] = static_cast<int32_t>(round_shift(product, 8));
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
