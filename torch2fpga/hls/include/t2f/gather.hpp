// SPDX-License-Identifier: Apache-2.0
// The output of a linear layer whose channels are made by several arrays.
#ifndef T2F_GATHER_HPP
#define T2F_GATHER_HPP

#include "t2f/core.hpp"

namespace t2f {

// A token of the stream number `from`.
template <typename T>
inline T read_from(int from, hls::stream<T> &x) {
#pragma HLS inline
  return x.read();
}

template <typename T, typename... Others>
inline T read_from(int from, hls::stream<T> &x, Others &...others) {
#pragma HLS inline
  T v;
  if (from == 0) {
    v = x.read();
  } else {
    v = read_from(from - 1, others...);
  }
  return v;
}

// For tile, for channel block: the rows of the tile, from one input after the other. Input i of
// n carries blocks i, i + n, ...; the last round may end before the last input.
// One flat loop over a launch: steps * batch * seq * blocks.
template <typename C, typename... Inputs>
void gather_blocks(hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, Inputs &...inputs) {
#pragma HLS inline off
  constexpr int count = sizeof...(Inputs);
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
  token_place at = first_token(seq);
  int from = 0;
GATHER:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::blocks
    T2F_PIPELINE(1);
    y.write(read_from(from, inputs...));
    if (at.t == C::tile - 1 || at.t == at.behind) {
      from = from == count - 1 || at.block == C::blocks - 1 ? 0 : from + 1;
    }
    advance<C::blocks, C::tile>(at, seq);
  }
}

}  // namespace t2f
#endif
