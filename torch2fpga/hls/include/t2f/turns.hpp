// SPDX-License-Identifier: Apache-2.0
// Turns of a launch that generates tokens. The first turn takes the launch's rows, every other
// one the token that the turn before chose. Each process goes through the turns by itself; the
// token, which goes round through a link between two kernels, is what one waits for.
// Cycles of a turn: token_enter ENTER of its rows; token_exit WRITTEN of 1, EXIT of 1;
// write_tokens WRITE of 1.
#ifndef T2F_TURNS_HPP
#define T2F_TURNS_HPP

#include "t2f/core.hpp"
#include "t2f/sums.hpp"

namespace t2f {

// Rows of a turn.
inline int turn_rows(int turn, int seq) {
#pragma HLS inline
  return turn == 0 ? seq : 1;
}

// Rows in front of those of a turn.
inline int turn_past(int turn, int seq, int past) {
#pragma HLS inline
  return turn == 0 ? past : past + seq + turn - 1;
}

// The ids of a turn; `go` tells the readers of the cache that it begins.
template <typename C>
void token_enter(hls::stream<int32_t> &first, hls::stream<int32_t> &back,
                 hls::stream<int32_t> &ids, hls::stream<int32_t> &go, int turn, int seq) {
#pragma HLS inline off
ENTER:
  for (int i = 0; i < seq; ++i) {
#pragma HLS loop_tripcount max = C::max_seq
    T2F_PIPELINE(1);
    int32_t id = 0;
    if (turn == 0) {
      id = first.read();
    } else {
      id = back.read();
    }
    ids.write(id);
    if (i == 0) go.write(id);
  }
}

// A token of each stream.
inline void await_all() {
#pragma HLS inline
}

template <typename... Others>
inline void await_all(hls::stream<int32_t> &x, Others &...others) {
#pragma HLS inline
  const int32_t done = x.read();
  (void)done;
  await_all(others...);
}

// The token of a turn leaves, and goes back for the next turn when its rows are in the cache.
template <typename C, typename... Written>
void token_exit(hls::stream<int32_t> &token, hls::stream<int32_t> &back,
                hls::stream<int32_t> &out, int turn, int turns, Written &...written) {
#pragma HLS inline off
WRITTEN:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    await_all(written...);
  }
EXIT:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    const int32_t id = token.read();
    out.write(id);
    if (turn != turns - 1) back.write(id);
  }
}

inline void write_token(hls::stream<int32_t> &tokens, int32_t *memory, int turn) {
#pragma HLS inline
WRITE:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    const int32_t id = tokens.read();
    T2F_MEMORY(memory, turn) = id;
  }
}

// The tokens of a launch, in order.
template <typename C>
void write_tokens(hls::stream<int32_t> &tokens, int32_t *memory, int turn) {
#pragma HLS inline off
  write_token(tokens, memory, turn);
}

// Each with the sums of what was read for it.
template <typename C, typename... Sums>
void write_tokens(hls::stream<int32_t> &tokens, int32_t *memory, int turn, int32_t *sums, Sums &...from) {
#pragma HLS inline off
  write_token(tokens, memory, turn);
  write_sums_of_turn(sums, turn, from...);
}

}  // namespace t2f
#endif
