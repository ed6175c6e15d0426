// SPDX-License-Identifier: Apache-2.0
// Where data goes: forks, the layer loop, row selection, channel slices, joins of
// channels, gaps between groups of channels.  Nothing here computes.
// Cycles: every stage is one flat loop over a whole launch, a token (or for slices, joins and
// groups a block of a row) a cycle: steps * batch * seq * blocks; relay: uses * batch * blocks *
// seq (rows), ceil(seq / lanes) (masks) or seq * ceil(seq / lanes) (scores).
#ifndef T2F_FLOW_HPP
#define T2F_FLOW_HPP

#include "t2f/core.hpp"

namespace t2f {

// Every token to each output (a stream has one reader).
template <typename C>
void fork(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y0,
          hls::stream<typename C::token_t> &y1, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
FORK:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    y0.write(v);
    y1.write(v);
  }
}

template <typename C>
void fork(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y0,
          hls::stream<typename C::token_t> &y1, hls::stream<typename C::token_t> &y2, int batch,
          int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
FORK:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    y0.write(v);
    y1.write(v);
    y2.write(v);
  }
}

// A token stream through a FIFO: the near end of a stream between two kernels. Tokens of a
// sequence: blocks of every row, of keys of every row (scores), or of keys (masks).
template <typename C>
void relay(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
           int seq) {
#pragma HLS inline off
  const int keys = C::per_keys ? ceil_div(seq, C::lanes) : 1;
  const int vectors = rows_of(batch, C::per_row ? seq : keys);
  const int tokens = (C::per_row ? vectors * keys : vectors) * (C::uses * C::blocks);
RELAY:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    y.write(x.read());
  }
}

// The same behind `past` rows of a cache, whose keys are more.
template <typename C>
void relay(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
           int seq, int past) {
#pragma HLS inline off
  const int keys = C::per_keys ? ceil_div(past + seq, C::lanes) : 1;
  const int tokens = rows_of(batch, seq) * keys * (C::uses * C::blocks);
RELAY:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_tokens
    T2F_PIPELINE(1);
    y.write(x.read());
  }
}

// The layer loop opens: the first step takes `first`, later steps what came back.
template <typename C>
void loop_enter(hls::stream<typename C::token_t> &first, hls::stream<typename C::token_t> &back,
                hls::stream<typename C::token_t> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * C::blocks;
PASS:
  for (int i = 0; i < C::steps * tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_tokens
    T2F_PIPELINE(1);
    if (i < tokens) {
      y.write(first.read());
    } else {
      y.write(back.read());
    }
  }
}

// The layer loop closes: every step but the last goes back, the last goes on.
template <typename C>
void loop_exit(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &back,
               hls::stream<typename C::token_t> &y, int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * C::blocks;
  const int last = (C::steps - 1) * tokens;
PASS:
  for (int i = 0; i < C::steps * tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    if (i < last) {
      back.write(v);
    } else {
      y.write(v);
    }
  }
}

// A format that only the next layer wants: the last step's tokens are dropped.
template <typename C>
void loop_back(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &back,
               int batch, int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * C::blocks;
  const int last = (C::steps - 1) * tokens;
PASS:
  for (int i = 0; i < C::steps * tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    if (i < last) back.write(v);
  }
}

// A format that only the code behind the loop wants: all but the last step dropped.
template <typename C>
void loop_last(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
               int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * C::blocks;
  const int last = (C::steps - 1) * tokens;
PASS:
  for (int i = 0; i < C::steps * tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_tokens
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    if (i >= last) y.write(v);
  }
}

// Row C::row of every sequence, from its end if negative; the output has one row a sequence.
template <typename C>
void select_row(hls::stream<typename C::token_t> &x, hls::stream<typename C::token_t> &y, int batch,
                int seq) {
#pragma HLS inline off
  const int tokens = rows_of(batch, seq) * (C::steps * C::blocks);
  token_place at = first_token(seq);
SELECT:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::blocks
    T2F_PIPELINE(1);
    const typename C::token_t v = x.read();
    const int row = C::row < 0 ? at.t - at.behind - 1 : seq - 1 - at.behind + at.t;
    if (row == C::row) y.write(v);
    advance<C::blocks, C::tile>(at, seq);
  }
}

// Lanes TURN .. TURN + N - 1 of `a` with `b` behind it.
template <int TURN, typename T, int N>
inline vec<T, N> turned(const vec<T, N> &a, const vec<T, N> &b) {
#pragma HLS inline
  vec<T, N> out;
  for (int lane = 0; lane < N; ++lane) {
#pragma HLS unroll
    const int from = lane + TURN;
    out.d[lane] = from < N ? a.d[from % N] : b.d[from % N];
  }
  return out;
}

// Channels [start, start + size). Where they start inside a block, an output block is the end
// of one input block and the beginning of the next of the same row: one block of the tile's
// rows is held back, and the output lags by a block.
// Blocks a row: max(in_blocks, start / lanes + lag + out_blocks), lag 1 where it is held.
template <typename C>
void slice_channels(hls::stream<vec<typename C::value_t, C::lanes>> &x,
                    hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int turn = C::start % C::lanes;
  constexpr int first_block = C::start / C::lanes + (turn > 0 ? 1 : 0);
  constexpr int end_block = first_block + C::out_blocks;
  constexpr int blocks = larger(C::in_blocks, end_block);
  vec<typename C::value_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  const int tokens = rows_of(batch, seq) * (C::steps * blocks);
  token_place at = first_token(seq);
SLICE:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * blocks
    T2F_PIPELINE(1);
    vec<typename C::value_t, C::lanes> v = {};
    if (at.block < C::in_blocks) v = x.read();
    if (at.block >= first_block && at.block < end_block) {
      const vec<typename C::value_t, C::lanes> before = turn > 0 ? held[at.t] : v;
      vec<typename C::value_t, C::lanes> out =
          turned<turn, typename C::value_t, C::lanes>(before, v);
      for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
        if ((at.block - first_block) * C::lanes + lane >= C::size) out.d[lane] = 0;
      }
      y.write(out);
    }
    held[at.t] = v;
    advance<blocks, C::tile>(at, seq);
  }
}

// Channels of a, then channels of b. Where a ends inside a block, what follows is turned and
// lags by a block as in slice_channels.
// Blocks a row: max(a_blocks + b_blocks, lag + out_blocks).
template <typename C>
void concat_channels(hls::stream<vec<typename C::value_t, C::lanes>> &a,
                     hls::stream<vec<typename C::value_t, C::lanes>> &b,
                     hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int in_blocks = C::a_blocks + C::b_blocks;
  constexpr int turn = C::a_blocks * C::lanes - C::a_channels;
  constexpr int lag = turn > 0 ? 1 : 0;
  constexpr int blocks = larger(in_blocks, C::out_blocks + lag);
  vec<typename C::value_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  const int tokens = rows_of(batch, seq) * (C::steps * blocks);
  token_place at = first_token(seq);
JOIN:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * blocks
    T2F_PIPELINE(1);
    vec<typename C::value_t, C::lanes> v = {};
    if (at.block < C::a_blocks) {
      v = a.read();
    } else if (at.block < in_blocks) {
      v = b.read();
    }
    if (at.block >= lag && at.block < C::out_blocks + lag) {
      const vec<typename C::value_t, C::lanes> before = turn > 0 ? held[at.t] : v;
      vec<typename C::value_t, C::lanes> out =
          turned<turn, typename C::value_t, C::lanes>(before, v);
      for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
        const int channel = (at.block - lag) * C::lanes + lane;
        if (channel < C::a_channels) {
          out.d[lane] = before.d[lane];
        } else if (channel >= C::a_channels + C::b_channels) {
          out.d[lane] = 0;
        }
      }
      y.write(out);
    }
    held[at.t] = v;
    advance<blocks, C::tile>(at, seq);
  }
}

// Lane `by` comes first; the lanes before it go to the end. log2(N) levels.
template <typename T, int N>
inline vec<T, N> rotated(vec<T, N> v, int by) {
#pragma HLS inline
  constexpr int levels = floor_log2(N);
  for (int level = 0; level < levels; ++level) {
#pragma HLS unroll
    vec<T, N> out;
    for (int lane = 0; lane < N; ++lane) {
#pragma HLS unroll
      out.d[lane] = (by >> level) % 2 != 0 ? v.d[(lane + (1 << level)) % N] : v.d[lane];
    }
    v = out;
  }
  return v;
}

// A block of a row whose channels lie in groups: its number in the group, and where the
// channels before it end in a block of a row without gaps.
struct group_place {
  int block;
  int lane;
};

// The place of the next token's block, LAST channels in a group's last one. Like `advance`, in
// front of which it stands, it compares registers only.
template <int GROUP_BLOCKS, int LAST, int LANES, int BLOCKS, int TILE>
inline void advance_group(group_place &at, const token_place &token) {
#pragma HLS inline
  if (token.t == TILE - 1 || token.t == token.behind) {
    if (token.block == BLOCKS - 1) {
      at.block = 0;
      at.lane = 0;
    } else if (at.block != GROUP_BLOCKS - 1) {
      ++at.block;
    } else {
      at.block = 0;
      at.lane = (at.lane + LAST) & (LANES - 1);
    }
  }
}

// Groups of channels that fill whole tokens each, to channels without gaps (the outputs of
// attention heads, joined). Channels wait in a token of each row of the tile until it is full.
// Blocks a row: groups * group_blocks, one more where the last input fills a token and begins
// another.
template <typename C>
void close_groups(hls::stream<vec<typename C::value_t, C::lanes>> &x,
                  hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int in_blocks = C::groups * C::group_blocks;
  constexpr int last = C::group_size - (C::group_blocks - 1) * C::lanes;
  constexpr int before = (C::groups * C::group_size - last) % C::lanes;
  constexpr int blocks = in_blocks + (before + last > C::lanes ? 1 : 0);
  vec<typename C::value_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  const int tokens = rows_of(batch, seq) * (C::steps * blocks);
  token_place at = first_token(seq);
  group_place from = {0, 0};
CLOSE:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * blocks
    T2F_PIPELINE(1);
    // Lanes that only fill up a group's last block are zero, and so is what follows the last.
    vec<typename C::value_t, C::lanes> v = {};
    if (at.block < in_blocks) v = x.read();
    const vec<typename C::value_t, C::lanes> moved =
        rotated<typename C::value_t, C::lanes>(v, C::lanes - from.lane);
    const vec<typename C::value_t, C::lanes> waiting = held[at.t];
    vec<typename C::value_t, C::lanes> out;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      out.d[lane] = lane < from.lane ? waiting.d[lane] : moved.d[lane];
    }
    const int added = from.block == C::group_blocks - 1 ? last : C::lanes;
    const bool full = from.lane + added >= C::lanes;
    if (full || at.block >= blocks - 1) y.write(out);
    held[at.t] = full ? moved : out;
    advance_group<C::group_blocks, last, C::lanes, blocks, C::tile>(from, at);
    advance<blocks, C::tile>(at, seq);
  }
}

// The inverse: channels without gaps, to groups that fill whole tokens each. The block in which
// a group begins may hold the end of the one before: a block of the tile's rows is held back.
// Blocks a row: groups * group_blocks.
template <typename C>
void open_groups(hls::stream<vec<typename C::value_t, C::lanes>> &x,
                 hls::stream<vec<typename C::value_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int last = C::group_size - (C::group_blocks - 1) * C::lanes;
  constexpr int blocks = C::groups * C::group_blocks;
  vec<typename C::value_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  const int tokens = rows_of(batch, seq) * (C::steps * blocks);
  token_place at = first_token(seq);
  group_place to = {0, 0};
OPEN:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * blocks
    T2F_PIPELINE(1);
    const int wanted = to.block == C::group_blocks - 1 ? last : C::lanes;
    const vec<typename C::value_t, C::lanes> begun = held[at.t];
    vec<typename C::value_t, C::lanes> v = begun;
    if (to.lane == 0 || to.lane + wanted > C::lanes) v = x.read();
    vec<typename C::value_t, C::lanes> both;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      both.d[lane] = to.lane != 0 && lane >= to.lane ? begun.d[lane] : v.d[lane];
    }
    vec<typename C::value_t, C::lanes> out =
        rotated<typename C::value_t, C::lanes>(both, to.lane);
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      if (lane >= wanted) out.d[lane] = 0;
    }
    y.write(out);
    held[at.t] = v;
    advance_group<C::group_blocks, last, C::lanes, blocks, C::tile>(to, at);
    advance<blocks, C::tile>(at, seq);
  }
}

}  // namespace t2f
#endif
