// SPDX-License-Identifier: Apache-2.0
// The heads of attention in two parts, each with a cache of its own, and the two together again.
// Cycles: one flat loop over a launch, a token a cycle: steps * batch * seq * blocks.
#ifndef T2F_HEADS_HPP
#define T2F_HEADS_HPP

#include "t2f/core.hpp"

namespace t2f {

// The first C::first channel blocks of every row, and the others.
template <typename C>
void split_heads(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y0,
                 hls::stream<typename C::token_t> &y1, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
  token_place at = first_token(seq);
SPLIT:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    if (at.block < C::first) {
      y0.write(v);
    } else {
      y1.write(v);
    }
    advance<C::blocks, C::tile>(at, seq);
  }
}

// C::first channel blocks of one stream, then the blocks of the other.
template <typename C>
void join_heads(hls::stream<typename C::token_t> &x0, hls::stream<typename C::token_t> &x1,
                hls::stream<typename C::token_t> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
  token_place at = first_token(seq);
JOIN:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    typename C::token_t v;
    if (at.block < C::first) {
      v = x0.read();
    } else {
      v = x1.read();
    }
    y.write(v);
    advance<C::blocks, C::tile>(at, seq);
  }
}

}  // namespace t2f
#endif
