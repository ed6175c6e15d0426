// SPDX-License-Identifier: Apache-2.0
// Linear layers: int8 activations times int8 weights, int32 accumulators.
//
// Two processes and a FIFO of `in_blocks` tokens between them:
//   join_rows    puts a channel block of all rows of a tile side by side
//   matmul       the multiplier array (matmul_streamed where weights are not kept)
// While the array works on a tile, the next one comes together in the FIFO. The array takes
// from it only in the first part of a tile, when everything of the tile before has left:
// no output ever waits for the input behind it.
//
// Per cycle the array takes `tile` rows, `lanes` input channels and `columns` output channels
// (tile * lanes * columns products). An output block of `lanes` channels is made in
// lanes / columns parts. Accumulators leave untouched; a requant stage behind gives them a
// format.
//
// Weight words of a step, in memory order: for output block, for part, for input block,
// columns x lanes bytes, output channel outermost.
//
// Loops, all at II 1. `words` is columns * lanes / 64, places = max(in_blocks, tile):
//   JOIN    (join_rows) once a launch: steps * batch * seq * in_blocks iterations
//   LOAD    once a step, or once a launch where the weights of all steps are kept:
//           out_blocks * parts * in_blocks * words iterations a step
//   REDUCE  once a sequence: tiles * out_blocks * parts * places + seq
// A part takes `places` iterations. The rows of a finished output block leave during the first
// part of the next one, which is why a part is not shorter than a tile; those of a tile's last
// block leave in iterations of their own.
#ifndef T2F_MATMUL_HPP
#define T2F_MATMUL_HPP

#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

// One channel block of every row of a tile.
template <int TILE, int LANES>
struct tile_block {
  vec<int8_t, LANES> row[TILE];
};

// A tile's rows side by side. Rows that the last tile of a sequence does not have are those of
// the tile before: their sums never leave.
template <typename C>
void join_rows(hls::stream<vec<int8_t, C::lanes>> &x,
               hls::stream<tile_block<C::tile, C::lanes>> &tiles, int batch, int seq) {
#pragma HLS inline off
  vec<int8_t, C::lanes> held[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = held complete
  const int tokens = rows_of(batch, seq) * (C::steps * C::in_blocks);
  token_place at = first_token(seq);
JOIN:
  for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::in_blocks
    T2F_PIPELINE(1);
    held[at.t] = x.read();
    if (at.t == C::tile - 1 || at.t == at.behind) {
      tile_block<C::tile, C::lanes> out;
      for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
        out.row[t] = held[t];
      }
      tiles.write(out);
    }
    advance<C::in_blocks, C::tile>(at, seq);
  }
}

// Where an array stands in a sequence.
struct array_place {
  int left;   // rows of the sequence from the tile on
  int rows;   // of the tile
  int block;  // of the output; the number of blocks while the last one's rows leave
  int part;   // of the block
  int last;   // place of the part
  int p;      // place in the part
};

template <int PLACES, int TILE>
inline array_place first_place(int seq) {
#pragma HLS inline
  return array_place{seq, seq < TILE ? seq : TILE, 0, 0, PLACES - 1, 0};
}

// The next iteration's place. Every test is one comparison with a register.
template <int PLACES, int PARTS, int BLOCKS, int TILE>
inline void advance_array(array_place &at) {
#pragma HLS inline
  if (at.p != at.last) {
    ++at.p;
  } else {
    at.p = 0;
    if (at.block == BLOCKS) {
      at.block = 0;
      at.last = PLACES - 1;
      at.rows = at.left < 2 * TILE ? at.left - TILE : TILE;
      at.left -= TILE;
    } else if (at.part != PARTS - 1) {
      ++at.part;
    } else {
      at.part = 0;
      if (at.block == BLOCKS - 1) at.last = at.rows - 1;
      ++at.block;
    }
  }
}

// acc[t][o] = (first ? 0 : acc[t][o]) + sum_i x[t][i] * row[i], for one column o
template <int TILE, int COLUMNS, int LANES>
inline void accumulate_column(const vec<int8_t, LANES> (&x)[TILE], const int8_t (&row)[LANES],
                              bool first, int o, int32_t (&acc)[TILE][COLUMNS]) {
#pragma HLS inline
  for (int t = 0; t + 1 < TILE; t += 2) {
#pragma HLS unroll
    int32_t sum0 = first ? 0 : acc[t][o];
    int32_t sum1 = first ? 0 : acc[t + 1][o];
    dot_pair<LANES>(x[t], x[t + 1], row, sum0, sum1);
    acc[t][o] = sum0;
    acc[t + 1][o] = sum1;
  }
  if (TILE % 2 == 1) {
    int32_t sum = first ? 0 : acc[TILE - 1][o];
    dot<LANES>(x[TILE - 1], row, sum);
    acc[TILE - 1][o] = sum;
  }
}

// acc[t][o] = (first ? 0 : acc[t][o]) + sum_i x[t][i] * w[o][i]
template <int TILE, int COLUMNS, int LANES>
inline void multiply_accumulate(const vec<int8_t, LANES> (&x)[TILE],
                                const word (&w)[COLUMNS * LANES / 64], bool first,
                                int32_t (&acc)[TILE][COLUMNS]) {
#pragma HLS inline
  for (int o = 0; o < COLUMNS; ++o) {
#pragma HLS unroll
    int8_t row[LANES];
#pragma HLS array_partition variable = row complete
    for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
      row[i] = w[(o * LANES + i) / 64].d[(o * LANES + i) % 64];
    }
    accumulate_column<TILE, COLUMNS, LANES>(x, row, first, o, acc);
  }
}

// Registers as after a reset: what they hold before the first part is finished never leaves.
template <int TILE, int COLUMNS, int LANES>
inline void clear(int32_t (&acc)[TILE][COLUMNS], vec<int32_t, LANES> (&result)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < COLUMNS; ++o) {
#pragma HLS unroll
      acc[t][o] = 0;
    }
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      result[t].d[o] = 0;
    }
  }
}

// The sums of a part move in behind those of the parts before it: when all parts of a block
// have, each is in its lanes (registers need no choice by index then).
template <int TILE, int COLUMNS, int LANES>
inline void move_in(const int32_t (&acc)[TILE][COLUMNS], vec<int32_t, LANES> (&result)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      result[t].d[o] = o + COLUMNS < LANES ? result[t].d[(o + COLUMNS) % LANES]
                                           : acc[t][(o + COLUMNS) % LANES % COLUMNS];
    }
  }
}

// The channel block of the tile that belongs to a place: new ones come in in the first part.
template <int TILE, int LANES>
inline tile_block<TILE, LANES> block_at(const array_place &at,
                                        hls::stream<tile_block<TILE, LANES>> &tiles,
                                        tile_block<TILE, LANES> &kept) {
#pragma HLS inline
  tile_block<TILE, LANES> x;
  if (at.block == 0 && at.part == 0) {
    x = tiles.read();
    kept = x;
  } else {
    x = kept;
  }
  return x;
}

// Weights are loaded once and kept in URAM: those of a step while all its rows pass, or
// (C::resident) those of all steps for the whole launch.
template <typename C>
void matmul(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
            hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::columns;
  constexpr int places = larger(C::in_blocks, C::tile);
  constexpr int part_words = C::columns * C::lanes / 64;
  constexpr int step_parts = C::out_blocks * parts * C::in_blocks;
  constexpr int together = C::resident ? C::steps : 1;  // steps whose weights are kept at once
  word kept[together * step_parts][part_words];
#pragma HLS aggregate variable = kept
#pragma HLS array_partition variable = kept complete dim = 2
#pragma HLS bind_storage variable = kept type = ram_s2p impl = uram
  tile_block<C::tile, C::lanes> tile[C::in_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = tile
#pragma HLS bind_storage variable = tile type = ram_s2p impl = bram
  int32_t acc[C::tile][C::columns];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, C::columns, C::lanes>(acc, result);
  const int length = ceil_div(seq, C::tile) * (C::out_blocks * parts * places) + seq;
PASS:
  for (int pass = 0; pass < C::steps / together; ++pass) {
    int into = 0;
    int word_of_part = 0;
  LOAD:
    for (int i = 0; i < together * step_parts * part_words; ++i) {
      T2F_PIPELINE(1);
      kept[into][word_of_part] = weights.read();
      if (++word_of_part == part_words) {
        word_of_part = 0;
        ++into;
      }
    }
  STEP:
    for (int step = 0; step < together; ++step) {
    SEQUENCE:
      for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
        array_place at = first_place<places, C::tile>(seq);
        int from = step * step_parts;
        T2F_LOOP_ENTRY;
      REDUCE:
        for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::out_blocks * parts * places + C::max_seq
          T2F_PIPELINE(1);
          const bool leaves = at.block == C::out_blocks;
          if (!leaves && at.p < C::in_blocks) {
            const tile_block<C::tile, C::lanes> x =
                block_at<C::tile, C::lanes>(at, tiles, tile[at.p]);
            multiply_accumulate<C::tile, C::columns, C::lanes>(x.row, kept[from], at.p == 0, acc);
            ++from;
          }
          if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
          if (leaves) {
            from = step * step_parts;
          } else if (at.p == places - 1) {
            move_in<C::tile, C::columns, C::lanes>(acc, result);
          }
          advance_array<places, parts, C::out_blocks, C::tile>(at);
        }
      }
    }
  }
}

// Weights arrive again for every tile (a head over a whole vocabulary), one 512-bit word a
// cycle: the port sets the pace, so an array of 64 / lanes columns wastes no multiplier.
template <typename C>
void matmul_streamed(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int columns = 64 / C::lanes;
  constexpr int parts = C::lanes / columns;
  constexpr int places = larger(C::in_blocks, C::tile);
  tile_block<C::tile, C::lanes> tile[C::in_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = tile
#pragma HLS bind_storage variable = tile type = ram_s2p impl = bram
  int32_t acc[C::tile][columns];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, columns, C::lanes>(acc, result);
  const int length = ceil_div(seq, C::tile) * (C::out_blocks * parts * places) + seq;
SEQUENCE:
  for (int s = 0; s < C::steps * batch; ++s) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch
    array_place at = first_place<places, C::tile>(seq);
    T2F_LOOP_ENTRY;
  REDUCE:
    for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::out_blocks * parts * places + C::max_seq
      T2F_PIPELINE(1);
      const bool leaves = at.block == C::out_blocks;
      if (!leaves && at.p < C::in_blocks) {
        const tile_block<C::tile, C::lanes> x =
            block_at<C::tile, C::lanes>(at, tiles, tile[at.p]);
        const word w[1] = {weights.read()};
        multiply_accumulate<C::tile, columns, C::lanes>(x.row, w, at.p == 0, acc);
      }
      if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
      if (!leaves && at.p == places - 1) move_in<C::tile, columns, C::lanes>(acc, result);
      advance_array<places, parts, C::out_blocks, C::tile>(at);
    }
  }
}

}  // namespace t2f
#endif
