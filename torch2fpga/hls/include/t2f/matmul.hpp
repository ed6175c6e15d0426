// SPDX-License-Identifier: Apache-2.0
// Linear layers: int8 activations times int8 weights, int32 accumulators.
//
// One process is one multiplier array: per cycle it takes `tile` rows, `lanes`
// input channels and `lanes` output channels (tile * lanes * lanes products).
// Accumulators leave untouched; a requant stage behind gives them a format.
//
// Weight words of a step, in memory order: for output block, for input block,
// lanes x lanes bytes, output channel outermost.
// Cycles per tile: in_blocks * tile (fill) + out_blocks * (in_blocks + tile), for
// streamed weights in_blocks * lanes * lanes / 64 in place of the second in_blocks.
#ifndef T2F_MATMUL_HPP
#define T2F_MATMUL_HPP

#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

// acc[t][o] += sum_i x[t][i] * w[o][i]
template <int TILE, int LANES>
inline void multiply_accumulate(const vec<int8_t, LANES> (&x)[TILE],
                                const word (&w)[LANES * LANES / 64],
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
    for (int t = 0; t + 1 < TILE; t += 2) {
#pragma HLS unroll
      dot_pair<LANES>(x[t], x[t + 1], row, acc[t][o], acc[t + 1][o]);
    }
    if (TILE % 2 == 1) dot<LANES>(x[TILE - 1], row, acc[TILE - 1][o]);
  }
}

// Read `rows` rows of one tile.
template <int BLOCKS, int TILE, int LANES>
inline void fill_tile(hls::stream<vec<int8_t, LANES>> &x, vec<int8_t, LANES> (&rows)[BLOCKS][TILE],
                      int n) {
#pragma HLS inline
FILL:
  for (int kb = 0; kb < BLOCKS; ++kb) {
  FILL_ROW:
    for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = TILE
      T2F_PIPELINE(1);
      rows[kb][t] = x.read();
    }
  }
}

template <int TILE, int LANES>
inline void clear(int32_t (&acc)[TILE][LANES]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      acc[t][o] = 0;
    }
  }
}

template <int TILE, int LANES>
inline void drain(const int32_t (&acc)[TILE][LANES], hls::stream<vec<int32_t, LANES>> &y, int n) {
#pragma HLS inline
DRAIN:
  for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = TILE
    T2F_PIPELINE(1);
    vec<int32_t, LANES> out;
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      out.d[o] = acc[t][o];
    }
    y.write(out);
  }
}

// Weights of a step are loaded once and kept in URAM while all its rows pass.
template <typename C>
void matmul(hls::stream<vec<int8_t, C::lanes>> &x, hls::stream<word> &weights,
            hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int word_blocks = C::lanes * C::lanes / 64;
  word kept[C::out_blocks * C::in_blocks][word_blocks];
#pragma HLS aggregate variable = kept
#pragma HLS array_partition variable = kept complete dim = 2
#pragma HLS bind_storage variable = kept type = ram_s2p impl = uram
  vec<int8_t, C::lanes> rows[C::in_blocks][C::tile];
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 2
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  for (int kb = 0; kb < C::in_blocks; ++kb) {
    T2F_PIPELINE(1);
    for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
      rows[kb][t] = vec<int8_t, C::lanes>{};
    }
  }
STEP:
  for (int step = 0; step < C::steps; ++step) {
  LOAD:
    for (int i = 0; i < C::out_blocks * C::in_blocks; ++i) {
    LOAD_WORD:
      for (int j = 0; j < word_blocks; ++j) {
        T2F_PIPELINE(1);
        kept[i][j] = weights.read();
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
      OUTPUT:
        for (int nb = 0; nb < C::out_blocks; ++nb) {
          clear<C::tile, C::lanes>(acc);
        REDUCE:
          for (int kb = 0; kb < C::in_blocks; ++kb) {
            T2F_PIPELINE(1);
            multiply_accumulate<C::tile, C::lanes>(rows[kb], kept[nb * C::in_blocks + kb], acc);
          }
          drain<C::tile, C::lanes>(acc, y, n);
        }
      }
    }
  }
}

// Weights arrive again for every tile (a head over a whole vocabulary).
template <typename C>
void matmul_streamed(hls::stream<vec<int8_t, C::lanes>> &x, hls::stream<word> &weights,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int word_blocks = C::lanes * C::lanes / 64;
  vec<int8_t, C::lanes> rows[C::in_blocks][C::tile];
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 2
  word w[word_blocks];
#pragma HLS array_partition variable = w complete
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  for (int kb = 0; kb < C::in_blocks; ++kb) {
    T2F_PIPELINE(1);
    for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
      rows[kb][t] = vec<int8_t, C::lanes>{};
    }
  }
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
      OUTPUT:
        for (int nb = 0; nb < C::out_blocks; ++nb) {
          clear<C::tile, C::lanes>(acc);
        REDUCE:
          for (int i = 0; i < C::in_blocks * word_blocks; ++i) {
            // One 512-bit word a cycle: the port sets the pace.
            T2F_PIPELINE(1);
            w[i % word_blocks] = weights.read();
            if (i % word_blocks == word_blocks - 1) {
              multiply_accumulate<C::tile, C::lanes>(rows[i / word_blocks], w, acc);
            }
          }
          drain<C::tile, C::lanes>(acc, y, n);
        }
      }
    }
  }
}

}  // namespace t2f
#endif
