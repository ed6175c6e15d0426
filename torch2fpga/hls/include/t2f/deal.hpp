// SPDX-License-Identifier: Apache-2.0
// One memory port's words for several arrays.
#ifndef T2F_DEAL_HPP
#define T2F_DEAL_HPP

#include "t2f/core.hpp"

namespace t2f {

// A word to the stream number `to`.
template <typename T>
inline void write_to(int to, const T &v, hls::stream<T> &x) {
#pragma HLS inline
  x.write(v);
}

template <typename T, typename... Others>
inline void write_to(int to, const T &v, hls::stream<T> &x, Others &...others) {
#pragma HLS inline
  if (to == 0) {
    x.write(v);
  } else {
    write_to(to - 1, v, others...);
  }
}

// In every step, first all words of the first output, then those of the second, and so on: C::most
// each for the first C::longer outputs, C::least for the others.
// One flat loop over a launch: steps * (words of all outputs).
template <typename C, typename... Outputs>
void deal_words(hls::stream<word> &in, Outputs &...outputs) {
#pragma HLS inline off
  constexpr int count = sizeof...(Outputs);
  constexpr int words = C::longer * C::most + (count - C::longer) * C::least;
  int to = 0;
  int left = (C::longer > 0 ? C::most : C::least) - 1;  // words of this output behind this one
DEAL:
  for (int i = 0; i < C::steps * words; ++i) {
    T2F_PIPELINE(1);
    write_to(to, in.read(), outputs...);
    if (left != 0) {
      --left;
    } else {
      to = to == count - 1 ? 0 : to + 1;
      left = (to < C::longer ? C::most : C::least) - 1;
    }
  }
}

}  // namespace t2f
#endif
