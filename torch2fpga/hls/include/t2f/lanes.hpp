// SPDX-License-Identifier: Apache-2.0
// Linear layers that share one array: a lane of multipliers beside each memory port, which all
// layers of a block use in turn, and the layers behind the loop after it (the uses).
//
// A port then always has words to bring: they wait in the FIFO in front of its lane while the
// lane waits for its input. Weights stay with their port; only activations and sums travel:
//   lanes_select   takes the input of the use at hand, tile by tile, as join_rows does
//   lane, lane4    lane i of n makes output blocks i, i + n, ... of every use from streamed weights
//                  (matmul.hpp, matmul4.hpp); it hands the input on to the next lane as it takes it
//   lanes_gather   output blocks from one lane after the other
//   lanes_deal     the sums to the stage behind the layer that made them
// A use passes over all rows of a sequence before the next one begins; the uses behind the loop
// have one row. Sizes of a use are functions of its number in the configuration.
//
// Loops, all at II 1, each entered once a use:
//   READ    (read_lane_words) once a launch: every word as often as its use has tiles
//   JOIN    rows * in_blocks iterations
//   REDUCE  tiles * out_blocks * parts * places + rows; places = max(beats, tile), beats a word for
//           every input block and, with int4 weights, every beat of scales
//   GATHER, DEAL  rows * blocks
#ifndef T2F_LANES_HPP
#define T2F_LANES_HPP

#include "t2f/core.hpp"
#include "t2f/deal.hpp"
#include "t2f/gather.hpp"
#include "t2f/matmul.hpp"
#include "t2f/matmul4.hpp"
#include "t2f/sums.hpp"

namespace t2f {

// Which use comes next: those of the loop `steps` times over, then those behind it.
struct use_place {
  int use;
  int step;
};

template <typename C>
inline void next_use(use_place &at) {
#pragma HLS inline
  const bool again = at.use == C::loop_uses - 1 && at.step != C::steps - 1;
  if (again) ++at.step;
  at.use = again ? 0 : at.use + 1;
}

template <typename C>
inline int rows_of_use(const use_place &at, int seq) {
#pragma HLS inline
  return at.use < C::loop_uses ? seq : 1;
}

// The words of a lane: those of a use again for each of its tiles.
template <typename C, typename... Sum>
void read_lane_words(const word *memory, hls::stream<word> &out, int seq, Sum &...sum) {
#pragma HLS inline off
  uint64_t sum_of_words = 0;
  const int tiles = ceil_div(seq, C::tile);
  const int total = tiles * (C::steps * C::step_words) + C::after_words;
  use_place use = {0, 0};
  int address = 0;
  int first = 0;  // word of the use
  int left = C::words(0) - 1;
  int tiles_left = C::loop_uses > 0 ? tiles - 1 : 0;
READ:
  for (int i = 0; i < total; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::steps * C::step_words + C::after_words
    T2F_PIPELINE(1);
    const word w = T2F_MEMORY(memory, address);
    add_word(sum_of_words, w, sum...);
    out.write(w);
    if (left != 0) {
      --left;
      ++address;
    } else if (tiles_left != 0) {
      --tiles_left;
      left = C::words(use.use) - 1;
      address = first;
    } else {
      next_use<C>(use);
      left = C::words(use.use) - 1;
      tiles_left = use.use < C::loop_uses ? tiles - 1 : 0;
      ++address;
      first = address;
    }
  }
  give_sum(sum_of_words, sum...);
}

// The place of the next token of a use.
template <int TILE>
inline void advance_token(token_place &at, int last_block, int seq) {
#pragma HLS inline
  if (at.t != TILE - 1 && at.t != at.behind) {
    ++at.t;
  } else {
    at.t = 0;
    if (at.block != last_block) {
      ++at.block;
    } else {
      at.block = 0;
      at.behind = at.behind >= TILE ? at.behind - TILE : seq - 1;
    }
  }
}

// The input of every use, rows of a tile side by side.
template <typename C, typename... Inputs>
void lanes_select(hls::stream<tile_block<C::tile, C::lanes>> &tiles, int seq, Inputs &...x) {
#pragma HLS inline off
  vec<int8_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  use_place use = {0, 0};
USE:
  for (int n = 0; n < C::steps * C::loop_uses + C::after_uses; ++n) {
    const int rows = rows_of_use<C>(use, seq);
    const int blocks = C::in_blocks(use.use);
    token_place at = first_token(rows);
    T2F_LOOP_ENTRY;
  JOIN:
    for (int i = 0; i < rows * blocks; ++i) {
#pragma HLS loop_tripcount max = C::max_seq * C::most_in
      T2F_PIPELINE(1);
      held[at.t] = read_from(use.use, x...);
      if (at.t == C::tile - 1 || at.t == at.behind) {
        tile_block<C::tile, C::lanes> out;
        for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
          out.row[t] = held[t];
        }
        tiles.write(out);
      }
      advance_token<C::tile>(at, blocks - 1, rows);
    }
    next_use<C>(use);
  }
}

// The next iteration's place in an array whose sizes are those of a use.
template <int PARTS, int TILE>
inline void advance_lane(array_place &at, int last_place, int blocks) {
#pragma HLS inline
  if (at.p != at.last) {
    ++at.p;
  } else {
    at.p = 0;
    if (at.block == blocks) {
      at.block = 0;
      at.last = last_place;
      at.rows = at.left < 2 * TILE ? at.left - TILE : TILE;
      at.left -= TILE;
    } else if (at.part != PARTS - 1) {
      ++at.part;
    } else {
      at.part = 0;
      if (at.block == blocks - 1) at.last = at.rows - 1;
      ++at.block;
    }
  }
}

// Behind the last lane.
struct chain_end {};

template <typename T>
inline void hand_on(chain_end &, const T &) {
#pragma HLS inline
}

template <typename T>
inline void hand_on(hls::stream<T> &next, const T &x) {
#pragma HLS inline
  next.write(x);
}

// The channel block of the tile that belongs to a place; new ones are handed on.
template <int TILE, int LANES, typename Next>
inline tile_block<TILE, LANES> lane_block(const array_place &at,
                                          hls::stream<tile_block<TILE, LANES>> &tiles, Next &next,
                                          tile_block<TILE, LANES> &kept) {
#pragma HLS inline
  tile_block<TILE, LANES> x;
  if (at.block == 0 && at.part == 0) {
    x = tiles.read();
    kept = x;
    hand_on(next, x);
  } else {
    x = kept;
  }
  return x;
}

// int8 weights: a word has 64 / lanes columns of an input block.
template <typename C, typename Next>
inline void lane_rows(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
                      Next &next, hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline
  constexpr int columns = 64 / C::lanes;
  constexpr int parts = C::lanes / columns;
  tile_block<C::tile, C::lanes> tile[C::most_in] T2F_UNWRITTEN;
#pragma HLS aggregate variable = tile
#pragma HLS bind_storage variable = tile type = ram_s2p impl = bram
  int32_t acc[C::tile][columns];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, columns, C::lanes>(acc, result);
  use_place use = {0, 0};
USE:
  for (int n = 0; n < C::steps * C::loop_uses + C::after_uses; ++n) {
    const int rows = rows_of_use<C>(use, seq);
    const int inputs = C::in_blocks(use.use);
    const int blocks = C::out_blocks(use.use);
    const int places = larger(inputs, C::tile);
    const int length = ceil_div(rows, C::tile) * (blocks * parts * places) + rows;
    array_place at = {rows, rows < C::tile ? rows : C::tile, 0, 0, places - 1, 0};
    T2F_LOOP_ENTRY;
  REDUCE:
    for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::most_places + C::max_seq
      T2F_PIPELINE(1);
      const bool leaves = at.block == blocks;
      if (!leaves && at.p < inputs) {
        const tile_block<C::tile, C::lanes> x =
            lane_block<C::tile, C::lanes, Next>(at, tiles, next, tile[at.p]);
        const word w[1] = {weights.read()};
        multiply_accumulate<C::tile, columns, C::lanes>(x.row, w, at.p == 0, acc);
      }
      if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
      if (!leaves && at.p == places - 1) move_in<C::tile, columns, C::lanes>(acc, result);
      advance_lane<parts, C::tile>(at, places - 1, blocks);
    }
    next_use<C>(use);
  }
}

template <typename C>
void lane(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
          hls::stream<tile_block<C::tile, C::lanes>> &next,
          hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline off
  lane_rows<C>(tiles, weights, next, y, seq);
}

template <typename C>
void lane(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
          hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline off
  chain_end end;
  lane_rows<C>(tiles, weights, end, y, seq);
}

// Where a walk over the beats of a part goes from here, in a use with so many input blocks.
template <typename C>
inline void advance_beat_of(beat_place &at, int last_block) {
#pragma HLS inline
  if (at.scales) {
    at.scales = false;
  } else {
    const bool full = at.of_beats == scale_groups * C::group_blocks - 1;
    at.of_beats = at.block == last_block || full ? 0 : at.of_beats + 1;
    at.scales = at.of_beats == 0;
    at.block = at.block == last_block ? 0 : at.block + 1;
  }
}

// int4 weights in groups: a word has 128 / lanes columns of an input block, or scales.
template <typename C, typename Next>
inline void lane4_rows(hls::stream<tile_block<C::tile, C::lanes>> &tiles,
                       hls::stream<word> &weights, Next &next,
                       hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline
  constexpr int columns = 128 / C::lanes;
  constexpr int parts = C::lanes / columns;
  tile_block<C::tile, C::lanes> tile[C::most_in] T2F_UNWRITTEN;
#pragma HLS aggregate variable = tile
#pragma HLS bind_storage variable = tile type = ram_s2p impl = bram
  int8_t scale[scale_groups * columns];
#pragma HLS array_partition variable = scale complete
  group_sum<C> sum[C::tile][columns / 2];
#pragma HLS array_partition variable = sum complete dim = 0
  int32_t acc[C::tile][columns];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, columns, C::lanes>(acc, result);
  clear_groups<C, columns>(sum, scale);
  use_place use = {0, 0};
USE:
  for (int n = 0; n < C::steps * C::loop_uses + C::after_uses; ++n) {
    const int rows = rows_of_use<C>(use, seq);
    const int last = C::in_blocks(use.use) - 1;
    const int beats = C::beats(use.use);
    const int blocks = C::out_blocks(use.use);
    const int places = larger(beats, C::tile);
    const int length = ceil_div(rows, C::tile) * (blocks * parts * places) + rows;
    array_place at = {rows, rows < C::tile ? rows : C::tile, 0, 0, places - 1, 0};
    beat_place beat = first_beat();
    T2F_LOOP_ENTRY;
  REDUCE:
    for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::most_places + C::max_seq
      T2F_PIPELINE(1);
      const bool leaves = at.block == blocks;
      if (!leaves && at.p < beats) {
        const word w[1] = {weights.read()};
        if (beat.scales) {
          take_scales<columns>(w, scale);
        } else {
          const tile_block<C::tile, C::lanes> x =
              lane_block<C::tile, C::lanes, Next>(at, tiles, next, tile[beat.block]);
          const bool ends = beat.block == last || beat.of_beats % C::group_blocks == C::group_blocks - 1;
          accumulate_group<C, columns>(x.row, w, scale, beat.block < C::group_blocks, ends, sum, acc);
          if (ends) next_scales<columns>(scale);
        }
        advance_beat_of<C>(beat, last);
      }
      if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
      if (!leaves && at.p == places - 1) move_in<C::tile, columns, C::lanes>(acc, result);
      advance_lane<parts, C::tile>(at, places - 1, blocks);
    }
    next_use<C>(use);
  }
}

template <typename C>
void lane4(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
           hls::stream<tile_block<C::tile, C::lanes>> &next,
           hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline off
  lane4_rows<C>(tiles, weights, next, y, seq);
}

template <typename C>
void lane4(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
           hls::stream<vec<int32_t, C::lanes>> &y, int seq) {
#pragma HLS inline off
  chain_end end;
  lane4_rows<C>(tiles, weights, end, y, seq);
}

// Output blocks from one lane after the other, from the first one in every tile.
template <typename C, typename... Lanes>
void lanes_gather(hls::stream<vec<int32_t, C::lanes>> &y, int seq, Lanes &...from) {
#pragma HLS inline off
  constexpr int count = sizeof...(Lanes);
  use_place use = {0, 0};
USE:
  for (int n = 0; n < C::steps * C::loop_uses + C::after_uses; ++n) {
    const int rows = rows_of_use<C>(use, seq);
    const int last = C::out_blocks(use.use) - 1;
    token_place at = first_token(rows);
    int number = 0;  // of the lane
    T2F_LOOP_ENTRY;
  GATHER:
    for (int i = 0; i < rows * (last + 1); ++i) {
#pragma HLS loop_tripcount max = C::max_seq * C::most_out
      T2F_PIPELINE(1);
      y.write(read_from(number, from...));
      if (at.t == C::tile - 1 || at.t == at.behind) {
        number = number == count - 1 || at.block == last ? 0 : number + 1;
      }
      advance_token<C::tile>(at, last, rows);
    }
    next_use<C>(use);
  }
}

// The sums of every use to a stream: to the kernel that works on them, and there to the stage. A
// use of another kernel has no blocks.
template <typename C, typename... Outputs>
void lanes_deal(hls::stream<vec<int32_t, C::lanes>> &y, int seq, Outputs &...to) {
#pragma HLS inline off
  use_place use = {0, 0};
USE:
  for (int n = 0; n < C::steps * C::loop_uses + C::after_uses; ++n) {
    const int rows = rows_of_use<C>(use, seq);
    const int slot = C::slots(use.use);
    T2F_LOOP_ENTRY;
  DEAL:
    for (int i = 0; i < rows * C::out_blocks(use.use); ++i) {
#pragma HLS loop_tripcount max = C::max_seq * C::most_out
      T2F_PIPELINE(1);
      write_to(slot, y.read(), to...);
    }
    next_use<C>(use);
  }
}

}  // namespace t2f
#endif
