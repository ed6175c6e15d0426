// SPDX-License-Identifier: Apache-2.0
// What the two multiplier arrays of attention share: the rows of a sequence that they keep,
// and the walk over tiles and heads.
//
// Both take in what belongs to a head while the head before is multiplied, tile after tile in
// one loop a sequence. A pass of a tile ends with a head: the first one only takes in, the last
// one only multiplies and lets the last rows leave. A tile therefore never waits for the next.
#ifndef T2F_ATTENTION_COMMON_HPP
#define T2F_ATTENTION_COMMON_HPP

#include "t2f/core.hpp"

namespace t2f {

// Where a stage keeps the rows of a sequence: the member `kept_in` of its configuration.
struct in_lutram {};
struct in_bram {};
struct in_uram {};

// Iterations of the passes of a tile with `rows` rows.
struct tile_passes {
  int rows;
  int group;   // of a block of the result
  int first;   // only takes in
  int middle;  // takes in a head and multiplies the head before
  int last;    // only multiplies; the last rows leave
};

// A tile whose heads take `in` iterations to come in and `work` to be multiplied.
inline tile_passes passes_of(int rows, int group, int in, int work) {
#pragma HLS inline
  return tile_passes{rows, group, in, larger(in, work), work + rows};
}

// All iterations of such a tile.
constexpr int tile_iterations(int heads, int rows, int in, int work) {
  return in + (heads - 1) * larger(in, work) + work + rows;
}

// Those of a sequence of `tiles` full ones and the rest.
inline int sequence_iterations(int heads, int tiles, const tile_passes &full,
                               const tile_passes &rest) {
#pragma HLS inline
  const int of_rest = rest.first + (heads - 1) * rest.middle + rest.last;
  return tiles * (full.first + (heads - 1) * full.middle + full.last) +
         (rest.rows != 0 ? of_rest : 0);
}

// Heads of queries that share a head of keys and values; a configuration says how many.
template <int GROUPS>
struct shared_head {
  int user = 0;  // of the head of keys, among its heads of queries
};

// True when the head behind the one that ends has keys of its own.
template <int GROUPS>
inline bool next_shared(shared_head<GROUPS> &at) {
#pragma HLS inline
  const bool ends = at.user == GROUPS - 1;
  at.user = ends ? 0 : at.user + 1;
  return ends;
}

// Where the loop over a sequence stands.
struct head_walk {
  tile_passes tile;
  int head;        // that comes in; the one before is multiplied
  int left;        // iterations of the pass behind this one
  int behind;      // rows of the sequence behind the tile
  bool taking;     // tokens of `head` are still to come
  bool working;    // the head before is still being multiplied
  int in;          // block and row of the next token of `head`
  int in_row;
  uint32_t place;  // in the group that is multiplied
  int row;         // of the last group's result, the next to leave
  bool leaving;    // its rows are on their way
};

inline head_walk first_pass(const tile_passes &tile, int seq) {
#pragma HLS inline
  return head_walk{tile, 0, tile.first - 1, seq - tile.rows, true, false, 0, 0, 0, 0, false};
}

// Behind a token that came in: the next of the head's `blocks` blocks of the tile's rows.
inline void advance_in(head_walk &at, int blocks) {
#pragma HLS inline
  if (at.in_row != at.tile.rows - 1) {
    ++at.in_row;
  } else {
    at.in_row = 0;
    if (at.in != blocks - 1) {
      ++at.in;
    } else {
      at.in = 0;
      at.taking = false;
    }
  }
}

// Behind a row that left.
inline void advance_out(head_walk &at) {
#pragma HLS inline
  at.leaving = at.row != at.tile.rows - 1;
  ++at.row;
}

// The next place in the group; true when the group ends, whose rows then leave.
inline bool advance_place(head_walk &at) {
#pragma HLS inline
  const bool ends = at.place == static_cast<uint32_t>(at.tile.group) - 1;
  if (ends) {
    at.row = 0;
    at.leaving = true;
  }
  at.place = ends ? 0 : at.place + 1;
  return ends;
}

// The next iteration; true when a tile begins. Registers are compared only, so that the step
// closes in a cycle.
template <int HEADS, int TILE>
inline bool advance_pass(head_walk &at, const tile_passes &full, const tile_passes &rest) {
#pragma HLS inline
  if (at.left != 0) {
    --at.left;
    return false;
  }
  const bool ends = at.head == HEADS;
  if (ends) {
    at.head = 0;
    at.tile = at.behind < TILE ? rest : full;
    at.left = (at.behind < TILE ? rest.first : full.first) - 1;
    at.behind -= TILE;
  } else {
    at.left = (at.head == HEADS - 1 ? at.tile.last : at.tile.middle) - 1;
    ++at.head;
  }
  at.taking = at.head != HEADS;
  at.working = !ends;
  return ends;
}

// Read the rows that earlier launches left in a cache, 0 .. past - 1 one after the other, into
// the banks of keep_sequence.
template <int BLOCKS, int MAX_KEYS, int LANES, int BANKS, int DEPTH>
inline void keep_past(hls::stream<vec<int8_t, LANES>> &x,
                      vec<int8_t, LANES> (&kept)[BANKS][DEPTH], int bank_rows, int past) {
#pragma HLS inline
  int row = 0;
  int block = 0;
  int at = 0;
PAST:
  for (int i = 0; i < BLOCKS * past; ++i) {
#pragma HLS loop_tripcount max = BLOCKS * MAX_KEYS
    T2F_PIPELINE(1);
    const uint32_t s = static_cast<uint32_t>(row);
    kept[s % BANKS][static_cast<uint32_t>(at) + s / BANKS] = x.read();
    if (block != BLOCKS - 1) {
      ++block;
      at += bank_rows;
    } else {
      block = 0;
      at = 0;
      ++row;
    }
  }
}

// Read all rows of a sequence, the first of them row `past`, one bank for each of BANKS
// consecutive rows. For the first channel block a bank holds `bank_rows` rows, then those of the
// second, and so on. Rows behind the sequence keep what they hold.
template <int BLOCKS, int MAX_SEQ, int TILE, int LANES, int BANKS, int DEPTH>
inline void keep_sequence(hls::stream<vec<int8_t, LANES>> &x,
                          vec<int8_t, LANES> (&kept)[BANKS][DEPTH], int bank_rows, int seq,
                          int past) {
#pragma HLS inline
  int last = tile_rows(seq, 0, TILE) - 1;  // row of the tile
  int behind = seq - TILE;                 // rows behind the tile
  int first = past;
  int t = 0;
  int block = 0;
  int at = 0;
KEEP:
  for (int i = 0; i < BLOCKS * seq; ++i) {
#pragma HLS loop_tripcount max = BLOCKS * MAX_SEQ
    T2F_PIPELINE(1);
    const uint32_t s = static_cast<uint32_t>(first + t);
    kept[s % BANKS][static_cast<uint32_t>(at) + s / BANKS] = x.read();
    if (t != last) {
      ++t;
    } else {
      t = 0;
      if (block != BLOCKS - 1) {
        ++block;
        at += bank_rows;
      } else {
        block = 0;
        at = 0;
        first += TILE;
        last = behind < TILE ? behind - 1 : TILE - 1;
        behind -= TILE;
      }
    }
  }
}

}  // namespace t2f
#endif
