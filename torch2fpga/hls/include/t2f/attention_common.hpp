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

// How the rows of a sequence lie in the banks: `columns` rows one behind the other meet the
// multipliers in a cycle, each from another bank. A word of a cache holds `parts` blocks of one
// row, which are written in a cycle, so each goes into a memory of its own: `split` of them into
// the memories of a bank, `turns` times into banks one behind the other.
//
// Block b of row s is in bank (s + b / split % turns) % columns, memory b % split, at
// b / split * rows + s / columns, where `rows` is what a bank holds of a block.
template <typename C>
struct kept_rows {
  static constexpr int blocks = C::heads / C::kv_groups * C::head_blocks;
  static constexpr int parts = C::cached ? 64 / C::lanes : 1;
  static constexpr int split = larger(1, parts / C::columns);
  static constexpr int turns = parts / split;
  static constexpr int groups = ceil_div(blocks, split);  // of blocks side by side
  static constexpr int depth = groups * C::key_blocks * (C::lanes / C::columns);
};

// Where a design has no cache: in the place of the words from it.
struct no_words {};

template <typename C, int DEPTH>
inline void keep_past(no_words &,
                      const vec<int8_t, C::lanes> (&)[C::columns][kept_rows<C>::split][DEPTH], int,
                      int) {
#pragma HLS inline
}

// The block in the given part of a word of a cache.
template <typename C>
inline vec<int8_t, C::lanes> block_of(const word &w, int part) {
#pragma HLS inline
  vec<int8_t, C::lanes> v;
  for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
    v.d[lane] = w.d[part * C::lanes + lane];
  }
  return v;
}

// Read the rows that earlier turns left in a cache, 0 .. past - 1 one after the other, each from a
// word on, into the banks of keep_sequence: a word a cycle.
template <typename C, int DEPTH>
inline void keep_past(hls::stream<word> &words,
                      vec<int8_t, C::lanes> (&kept)[C::columns][kept_rows<C>::split][DEPTH],
                      int bank_rows, int past) {
#pragma HLS inline
  constexpr int split = kept_rows<C>::split;
  constexpr uint32_t turns = kept_rows<C>::turns;
  constexpr int groups = kept_rows<C>::groups;
  constexpr int row_words = ceil_div(kept_rows<C>::blocks, kept_rows<C>::parts);
  int offset[turns];  // of the groups of a word
#pragma HLS array_partition variable = offset complete
  for (int turn = 0; turn < static_cast<int>(turns); ++turn) {
#pragma HLS unroll
    offset[turn] = turn * bank_rows;
  }
  const int word_rows = static_cast<int>(turns) * bank_rows;
  int row = 0;
  int group = 0;  // the first of the word
  int at = 0;     // its place in the banks
PAST:
  for (int i = 0; i < row_words * past; ++i) {
#pragma HLS loop_tripcount max = row_words * C::key_blocks * C::lanes
    T2F_PIPELINE(1);
    const word w = words.read();
    const uint32_t s = static_cast<uint32_t>(row);
    uint32_t place[turns];
#pragma HLS array_partition variable = place complete
    for (int turn = 0; turn < static_cast<int>(turns); ++turn) {
#pragma HLS unroll
      place[turn] = static_cast<uint32_t>(at + offset[turn]) + s / C::columns;
    }
    // A bank takes one block at most: which one depends on the row.
    for (int bank = 0; bank < C::columns; ++bank) {
#pragma HLS unroll
      const uint32_t turn = (static_cast<uint32_t>(bank) - s) % C::columns;
      const uint32_t taken = turn % turns;
      const bool inside = groups % turns == 0 || group + static_cast<int>(taken) < groups;
      if (turn < turns && inside) {
        for (int part = 0; part < split; ++part) {
#pragma HLS unroll
          kept[bank][part][place[taken]] =
              block_of<C>(w, static_cast<int>(taken) * split + part);
        }
      }
    }
    if (group < groups - static_cast<int>(turns)) {
      group += static_cast<int>(turns);
      at += word_rows;
    } else {
      group = 0;
      at = 0;
      ++row;
    }
  }
}

// Read all rows of a sequence, the first of them row `past`, into the banks. For the first blocks
// a bank holds `bank_rows` rows, then those of the next ones, and so on. Rows behind the sequence
// keep what they hold.
template <typename C, int DEPTH>
inline void keep_sequence(hls::stream<vec<int8_t, C::lanes>> &x,
                          vec<int8_t, C::lanes> (&kept)[C::columns][kept_rows<C>::split][DEPTH],
                          int bank_rows, int seq, int past) {
#pragma HLS inline
  constexpr uint32_t split = kept_rows<C>::split;
  constexpr uint32_t turns = kept_rows<C>::turns;
  constexpr int blocks = kept_rows<C>::blocks;
  int last = tile_rows(seq, 0, C::tile) - 1;  // row of the tile
  int behind = seq - C::tile;                 // rows behind the tile
  int first = past;
  int t = 0;
  int block = 0;
  int at = 0;
KEEP:
  for (int i = 0; i < blocks * seq; ++i) {
#pragma HLS loop_tripcount max = blocks * C::max_seq
    T2F_PIPELINE(1);
    const uint32_t s = static_cast<uint32_t>(first + t);
    const uint32_t b = static_cast<uint32_t>(block);
    const uint32_t bank = turns == 1 ? s % C::columns : (s + b / split % turns) % C::columns;
    kept[bank][b % split][static_cast<uint32_t>(at) + s / C::columns] = x.read();
    if (t != last) {
      ++t;
    } else {
      t = 0;
      if (block != blocks - 1) {
        ++block;
        if (b % split == split - 1) at += bank_rows;
      } else {
        block = 0;
        at = 0;
        first += C::tile;
        last = behind < C::tile ? behind - 1 : C::tile - 1;
        behind -= C::tile;
      }
    }
  }
}

// Block `block` of `columns` rows, the first of them a multiple of it, at `place` of the banks.
template <typename C, int DEPTH>
inline void take_rows(const vec<int8_t, C::lanes> (&kept)[C::columns][kept_rows<C>::split][DEPTH],
                      int block, int place, vec<int8_t, C::lanes> (&rows)[C::columns]) {
#pragma HLS inline
  constexpr uint32_t split = kept_rows<C>::split;
  constexpr uint32_t turns = kept_rows<C>::turns;
  constexpr int levels = floor_log2(kept_rows<C>::turns);
  const uint32_t b = static_cast<uint32_t>(block);
  for (int j = 0; j < C::columns; ++j) {
#pragma HLS unroll
    rows[j] = kept[j][b % split][place];
  }
  // Row j is in bank j + turn: back by a turn of 1, of 2, of 4.
  for (int level = 0; level < levels; ++level) {
#pragma HLS unroll
    vec<int8_t, C::lanes> turned[C::columns];
#pragma HLS aggregate variable = turned
#pragma HLS array_partition variable = turned complete
    for (int j = 0; j < C::columns; ++j) {
#pragma HLS unroll
      const int from = (j + (1 << level)) % C::columns;
      turned[j] = (b / split % turns >> level) % 2 != 0 ? rows[from] : rows[j];
    }
    for (int j = 0; j < C::columns; ++j) {
#pragma HLS unroll
      rows[j] = turned[j];
    }
  }
}

}  // namespace t2f
#endif
