// SPDX-License-Identifier: Apache-2.0
// Keys and values of the tokens so far, in memory.
//
// A row starts at a word; a step has `max_keys` rows behind each other. In a turn the rows of
// earlier turns go from memory to attention as words, those of this one pass by on the chip and are
// written behind them; the next turn may read when all are written (see turns.hpp).
// Cycles of a turn, each loop flat at one word or token a cycle and entered once a step:
//   read_cache   GO of 1 once, READ of past * row_words
//   cache_rows   NEW of seq * blocks
//   write_cache  WRITE of seq * row_words, DONE of 1 once
#ifndef T2F_CACHE_HPP
#define T2F_CACHE_HPP

#include "t2f/core.hpp"

namespace t2f {

// The rows of earlier turns, step by step, from when `go` says that they are written.
template <typename C>
void read_cache(const word *memory, hls::stream<int32_t> &go, hls::stream<word> &stored,
                int past) {
#pragma HLS inline off
  int32_t begun = 0;
GO:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    begun = go.read();
  }
  (void)begun;
STEP:
  for (int step = 0; step < C::steps; ++step) {
    T2F_LOOP_ENTRY;
  READ:
    for (int i = 0; i < past * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::max_keys * C::row_words
      T2F_PIPELINE(1);
      stored.write(T2F_MEMORY(memory, step * C::step_words + i));
    }
  }
}

// The rows of a step, behind those of earlier turns. The words of a tile's rows come block by
// block, as `cache_rows` fills them.
template <typename C>
inline void write_cache_step(hls::stream<word> &fresh, word *memory, int step, int seq, int past) {
#pragma HLS inline
  token_place at = first_token(seq);
  T2F_LOOP_ENTRY;
WRITE:
  for (int i = 0; i < seq * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::max_seq * C::row_words
    T2F_PIPELINE(1);
    const int row = past + seq - 1 - at.behind + at.t;
    const word w = fresh.read();
    T2F_MEMORY(memory, step * C::step_words + row * C::row_words + at.block) = w;
    advance<C::row_words, C::tile>(at, seq);
  }
}

// One cache by itself; kernels write all of theirs in one process (`write_caches`), so that they
// take one master.
template <typename C>
void write_cache(hls::stream<word> &fresh, word *memory, hls::stream<int32_t> &written, int seq,
                 int past) {
#pragma HLS inline off
STEP:
  for (int step = 0; step < C::steps; ++step) {
    write_cache_step<C>(fresh, memory, step, seq, past);
  }
  T2F_WRITTEN(memory);
DONE:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    written.write(past + seq);
  }
}

// The rows of a turn pass to attention, and beside it the same rows as words of memory.
template <typename C>
void cache_rows(hls::stream<vec<int8_t, C::lanes>> &x, hls::stream<vec<int8_t, C::lanes>> &y,
                hls::stream<word> &fresh, int seq) {
#pragma HLS inline off
  constexpr int parts = 64 / C::lanes;
  word filling[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = filling complete
STEP:
  for (int step = 0; step < C::steps; ++step) {
    token_place at = first_token(seq);
    int into = 0;  // part of the word that is filled
    T2F_LOOP_ENTRY;
  NEW:
    for (int i = 0; i < seq * C::blocks; ++i) {
#pragma HLS loop_tripcount max = C::max_seq * C::blocks
      T2F_PIPELINE(1);
      const vec<int8_t, C::lanes> v = x.read();
      y.write(v);
      word w = filling[at.t];
      for (int byte = 0; byte < 64; ++byte) {
#pragma HLS unroll
        if (byte / C::lanes == into) w.d[byte] = v.d[byte % C::lanes];
        if (byte / C::lanes > into) w.d[byte] = 0;
      }
      filling[at.t] = w;
      const bool full = into == parts - 1 || at.block == C::blocks - 1;
      if (full) fresh.write(w);
      if (at.t == C::tile - 1 || at.t == at.behind) into = full ? 0 : into + 1;
      advance<C::blocks, C::tile>(at, seq);
    }
  }
}

}  // namespace t2f
#endif
