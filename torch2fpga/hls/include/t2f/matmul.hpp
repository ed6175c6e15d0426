// SPDX-License-Identifier: Apache-2.0
// Linear layers: int8 activations times int8 weights, int32 accumulators.
//
// One process is one multiplier array: per cycle it takes `tile` rows, `lanes`
// input channels and `lanes` output channels (tile * lanes * lanes products).
// Accumulators leave untouched; a requant stage behind gives them a format.
//
// Weight words of a step, in memory order: for output block, for input block,
// lanes x lanes bytes, output channel outermost.
//
// Loops, all at II 1. `words` is lanes * lanes / 64, n the rows of the tile:
//   LOAD    once a step (matmul only): out_blocks * in_blocks * words iterations
//   FILL    once a tile: in_blocks * n
//   REDUCE  once a tile: out_blocks * group + n, where group = max(in_blocks, tile),
//           or max(in_blocks * words, tile) where the weights are streamed
// A group of REDUCE makes one output block. Its rows leave while the next group runs,
// which is why a group is not shorter than a tile; the last one's leave in n iterations
// of their own. A loop costs its iterations, its depth, and one cycle (UG1399).
#ifndef T2F_MATMUL_HPP
#define T2F_MATMUL_HPP

#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

constexpr int larger(int a, int b) { return a > b ? a : b; }

// acc[t][o] = (first ? 0 : acc[t][o]) + sum_i x[t][i] * row[i], for one column o
template <int TILE, int LANES>
inline void accumulate_column(const vec<int8_t, LANES> (&x)[TILE], const int8_t (&row)[LANES],
                              bool first, int o, int32_t (&acc)[TILE][LANES]) {
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
template <int TILE, int LANES>
inline void multiply_accumulate(const vec<int8_t, LANES> (&x)[TILE],
                                const word (&w)[LANES * LANES / 64], bool first,
                                int32_t (&acc)[TILE][LANES]) {
#pragma HLS inline
  for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
    int8_t row[LANES];
#pragma HLS array_partition variable = row complete
    for (int i = 0; i < LANES; ++i) {
#pragma HLS unroll
      row[i] = w[(o * LANES + i) / 64].d[(o * LANES + i) % 64];
    }
    accumulate_column<TILE, LANES>(x, row, first, o, acc);
  }
}

// Registers as after a reset: what they hold before the first group is finished never leaves.
template <int TILE, int LANES>
inline void clear(int32_t (&acc)[TILE][LANES], vec<int32_t, LANES> (&result)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      acc[t][o] = 0;
      result[t].d[o] = 0;
    }
  }
}

// The finished sums become the result whose rows leave; columns from `columns` on are zero.
template <int TILE, int LANES>
inline void copy_sums(const int32_t (&acc)[TILE][LANES], int columns,
                      vec<int32_t, LANES> (&result)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      result[t].d[o] = o < columns ? acc[t][o] : 0;
    }
  }
}

// Read `n` rows of a tile. Rows from `n` on keep what they hold: their sums never leave.
template <int BLOCKS, int TILE, int LANES>
inline void fill_tile(hls::stream<vec<int8_t, LANES>> &x, vec<int8_t, LANES> (&rows)[BLOCKS][TILE],
                      int n) {
#pragma HLS inline
  int block = 0;
  int t = 0;
FILL:
  for (int i = 0; i < BLOCKS * n; ++i) {
#pragma HLS loop_tripcount max = BLOCKS * TILE
    T2F_PIPELINE(1);
    rows[block][t] = x.read();
    if (++t == n) {
      t = 0;
      ++block;
    }
  }
}

// Read all rows of a sequence, one bank for each of LANES consecutive rows. A bank holds
// ceil(seq / LANES) rows of the first channel block, then those of the second, and so on.
// Rows behind the sequence keep what they hold.
template <int BLOCKS, int BANK_ROWS, int MAX_SEQ, int TILE, int LANES>
inline void keep_rows(hls::stream<vec<int8_t, LANES>> &x,
                      vec<int8_t, LANES> (&kept)[LANES][BLOCKS * BANK_ROWS], int seq) {
#pragma HLS inline
  const int bank_rows = ceil_div(seq, LANES);
  int last = tile_rows(seq, 0, TILE) - 1;  // row of the tile
  int behind = seq - TILE;                 // rows behind the tile
  int first = 0;
  int t = 0;
  int block = 0;
  int at = 0;
KEEP:
  for (int i = 0; i < BLOCKS * seq; ++i) {
#pragma HLS loop_tripcount max = BLOCKS * MAX_SEQ
    T2F_PIPELINE(1);
    const uint32_t s = static_cast<uint32_t>(first + t);
    kept[s % LANES][static_cast<uint32_t>(at) + s / LANES] = x.read();
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

// Weights of a step are loaded once and kept in URAM while all its rows pass.
template <typename C>
void matmul(hls::stream<vec<int8_t, C::lanes>> &x, hls::stream<word> &weights,
            hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int word_blocks = C::lanes * C::lanes / 64;
  constexpr int group = larger(C::in_blocks, C::tile);
  word kept[C::out_blocks * C::in_blocks][word_blocks];
#pragma HLS aggregate variable = kept
#pragma HLS array_partition variable = kept complete dim = 2
#pragma HLS bind_storage variable = kept type = ram_s2p impl = uram
  vec<int8_t, C::lanes> rows[C::in_blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 2
#pragma HLS bind_storage variable = rows type = ram_s2p impl = bram
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, C::lanes>(acc, result);
STEP:
  for (int step = 0; step < C::steps; ++step) {
    int at = 0;
    int part = 0;
  LOAD:
    for (int i = 0; i < C::out_blocks * C::in_blocks * word_blocks; ++i) {
      T2F_PIPELINE(1);
      kept[at][part] = weights.read();
      if (++part == word_blocks) {
        part = 0;
        ++at;
      }
    }
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        fill_tile<C::in_blocks, C::tile, C::lanes>(x, rows, n);
        int p = 0;      // place in the group
        int block = 0;  // of weights
        int row = n;    // of the result, the next to leave
      REDUCE:
        for (int i = 0; i < C::out_blocks * group + n; ++i) {
#pragma HLS loop_tripcount max = C::out_blocks * group + C::tile
          T2F_PIPELINE(1);
          if (p < C::in_blocks && i < C::out_blocks * group) {
            multiply_accumulate<C::tile, C::lanes>(rows[p], kept[block], p == 0, acc);
            ++block;
          }
          if (row < n) {
            y.write(result[row]);
            ++row;
          }
          if (++p == group) {
            p = 0;
            row = 0;
            copy_sums<C::tile, C::lanes>(acc, C::lanes, result);
          }
        }
      }
    }
  }
}

// Weights arrive again for every tile (a head over a whole vocabulary). One 512-bit
// word a cycle: the port sets the pace, the array works in one of `words` cycles.
template <typename C>
void matmul_streamed(hls::stream<vec<int8_t, C::lanes>> &x, hls::stream<word> &weights,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int word_blocks = C::lanes * C::lanes / 64;
  constexpr int words = C::in_blocks * word_blocks;
  constexpr int group = larger(words, C::tile);
  vec<int8_t, C::lanes> rows[C::in_blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 2
#pragma HLS bind_storage variable = rows type = ram_s2p impl = bram
  word w[word_blocks];
#pragma HLS array_partition variable = w complete
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, C::lanes>(acc, result);
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        fill_tile<C::in_blocks, C::tile, C::lanes>(x, rows, n);
        int p = 0;      // place in the group
        int part = 0;   // of a block of weights
        int block = 0;  // of input channels
        int row = n;    // of the result, the next to leave
      REDUCE:
        for (int i = 0; i < C::out_blocks * group + n; ++i) {
#pragma HLS loop_tripcount max = C::out_blocks * group + C::tile
          T2F_PIPELINE(1);
          if (p < words && i < C::out_blocks * group) {
            // Words move up: registers need no choice by index then.
            for (int j = 0; j + 1 < word_blocks; ++j) {
#pragma HLS unroll
              w[j] = w[j + 1];
            }
            w[word_blocks - 1] = weights.read();
            if (++part == word_blocks) {
              multiply_accumulate<C::tile, C::lanes>(rows[block], w, block == 0, acc);
              part = 0;
              ++block;
            }
          }
          if (row < n) {
            y.write(result[row]);
            ++row;
          }
          if (++p == group) {
            p = 0;
            block = 0;
            row = 0;
            copy_sums<C::tile, C::lanes>(acc, C::lanes, result);
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
