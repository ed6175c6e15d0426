// SPDX-License-Identifier: Apache-2.0
// Attention, first stage: queries times keys.
#ifndef T2F_ATTENTION_SCORES_HPP
#define T2F_ATTENTION_SCORES_HPP

#include "t2f/attention_common.hpp"
#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

// acc[t][o] = (first ? 0 : acc[t][o]) + sum_i x[t][i] * key[o][i], two rows a multiplier.
// No element of a key is -128.
template <int TILE, int COLUMNS, int LANES>
inline void score_keys(const vec<int8_t, LANES> (&x)[TILE], const vec<int8_t, LANES> (&key)[COLUMNS],
                       bool first, int32_t (&acc)[TILE][COLUMNS]) {
#pragma HLS inline
  for (int o = 0; o < COLUMNS; ++o) {
#pragma HLS unroll
    for (int t = 0; t + 1 < TILE; t += 2) {
#pragma HLS unroll
      int32_t sum0 = first ? 0 : acc[t][o];
      int32_t sum1 = first ? 0 : acc[t + 1][o];
      dot_pair<LANES>(x[t], x[t + 1], key[o].d, sum0, sum1);
      acc[t][o] = sum0;
      acc[t + 1][o] = sum1;
    }
    if (TILE % 2 == 1) {
      int32_t sum = first ? 0 : acc[TILE - 1][o];
      dot<LANES>(x[TILE - 1], key[o].d, sum);
      acc[TILE - 1][o] = sum;
    }
  }
}

// Finished scores come in at the end of a row, which moves up: no place is chosen by index.
template <int TILE, int COLUMNS, int LANES>
inline void append_scores(const int32_t (&acc)[TILE][COLUMNS], int32_t (&row)[TILE][LANES]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      row[t][o] = o + COLUMNS < LANES ? row[t][(o + COLUMNS) % LANES] : acc[t][o % COLUMNS];
    }
  }
}

// The result whose rows leave next. Keys past the end hold what an earlier launch left: they leave
// as zero.
template <int TILE, int LANES>
inline void release_scores(const int32_t (&row)[TILE][LANES], int keys,
                           vec<int32_t, LANES> (&result)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      result[t].d[o] = o < keys ? row[t][o] : 0;
    }
  }
}

// The passes of a tile of `rows` rows.
template <typename C>
inline tile_passes score_passes(int key_blocks, int rows) {
#pragma HLS inline
  const int group = larger(C::head_blocks * (C::lanes / C::columns), rows);
  return passes_of(rows, group, C::head_blocks * rows, key_blocks * group);
}

// The most iterations of a sequence of up to `seq` rows; `busy` of a group multiply.
constexpr int most_scores(int seq, int tile, int heads, int head_blocks, int key_blocks, int busy) {
  return ceil_div(seq, tile) *
         tile_iterations(heads, tile, head_blocks * tile, key_blocks * larger(busy, tile));
}

// Loop SCORES: the tiles of a sequence against its keys and the `past` ones in front of them.
template <typename C, int DEPTH>
inline void score_sequence(hls::stream<vec<int8_t, C::lanes>> &q,
                           const vec<int8_t, C::lanes> (
                               &keys)[C::columns][kept_rows<C>::split][DEPTH],
                           hls::stream<vec<int32_t, C::lanes>> &scores, int seq, int past) {
#pragma HLS inline
  constexpr int parts = C::lanes / C::columns;  // of a key block
  constexpr int busy = C::head_blocks * parts;  // iterations of a group that multiply
  constexpr int split = kept_rows<C>::split;
  vec<int8_t, C::lanes> query[2][C::head_blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = query
#pragma HLS array_partition variable = query complete dim = 3
#pragma HLS bind_storage variable = query type = ram_s2p impl = lutram
  int32_t acc[C::tile][C::columns] = {};
#pragma HLS array_partition variable = acc complete dim = 0
  int32_t made[C::tile][C::lanes] = {};
#pragma HLS array_partition variable = made complete dim = 0
  vec<int32_t, C::lanes> result[C::tile] = {};
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  const int count = past + seq;  // of keys
  const int key_blocks = ceil_div(count, C::lanes);
  const int bank_rows = key_blocks * parts;
  // Behind the keys of a head: to those of the next one, whose first blocks may share a place with
  // its last ones, or back to their beginning.
  const int next_head = (C::head_blocks / split - 1) * bank_rows;
  const int next_place = C::head_blocks / split * bank_rows;
  const int same_head = -bank_rows;
  const int tiles = seq / C::tile;
  const tile_passes full = score_passes<C>(key_blocks, C::tile);
  const tile_passes rest = score_passes<C>(key_blocks, seq - tiles * C::tile);
  const int all = sequence_iterations(C::heads, tiles, full, rest);
  head_walk at = first_pass(tiles != 0 ? full : rest, seq);
  int p = 0;         // channel block of the head that is multiplied
  int left = count;  // keys of the head that are still to come
  int start = 0;     // of these keys in the banks
  int offset = 0;    // of their channel block
  int first = 0;     // channel block of all heads where the head begins
  int block = 0;     // that is multiplied
  shared_head<C::kv_groups> shared;
SCORES:
  for (int i = 0; i < all; ++i) {
#pragma HLS loop_tripcount max = most_scores(C::max_seq, C::tile, C::heads, C::head_blocks, C::key_blocks, busy)
    T2F_PIPELINE(1);
    if (at.taking) {
      query[at.head & 1][at.in][at.in_row] = q.read();
      advance_in(at, C::head_blocks);
    }
    if (at.working && at.place < busy) {
      vec<int8_t, C::lanes> key[C::columns];
#pragma HLS aggregate variable = key
#pragma HLS array_partition variable = key complete
      take_rows<C, DEPTH>(keys, block, start + offset, key);
      score_keys<C::tile, C::columns, C::lanes>(query[(at.head & 1) ^ 1][p], key, p == 0, acc);
      if (p != C::head_blocks - 1) {
        ++p;
        if (block % split == split - 1) offset += bank_rows;
        ++block;
      } else {
        p = 0;
        offset = 0;
        block = first;
        ++start;
        append_scores<C::tile, C::columns, C::lanes>(acc, made);
      }
    }
    if (at.leaving) {
      scores.write(result[at.row]);
      advance_out(at);
    }
    if (at.working && advance_place(at)) {
      release_scores<C::tile, C::lanes>(made, left, result);
      if (left > C::lanes) {
        left -= C::lanes;
      } else {
        left = count;
        if (next_shared(shared)) {
          start += first % split + C::head_blocks % split < split ? next_head : next_place;
          first += C::head_blocks;
          block = first;
        } else {
          start += same_head;
        }
        at.working = false;
      }
    }
    if (advance_pass<C::heads, C::tile>(at, full, rest)) {
      start = 0;
      first = 0;
      block = 0;
    }
  }
}

// The sequences of all steps, with the keys of one in the given banks.
template <typename C, int DEPTH, typename Words>
inline void score_steps(hls::stream<vec<int8_t, C::lanes>> &q,
                        hls::stream<vec<int8_t, C::lanes>> &k, Words &words,
                        vec<int8_t, C::lanes> (&keys)[C::columns][kept_rows<C>::split][DEPTH],
                        hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq, int past) {
#pragma HLS inline
  const int bank_rows = ceil_div(past + seq, C::lanes) * (C::lanes / C::columns);
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
      keep_past<C, DEPTH>(words, keys, bank_rows, past);
      keep_sequence<C, DEPTH>(k, keys, bank_rows, seq, past);
      score_sequence<C, DEPTH>(q, keys, scores, seq, past);
    }
  }
}

template <typename C, typename Words>
inline void scores_in(in_lutram, hls::stream<vec<int8_t, C::lanes>> &q,
                      hls::stream<vec<int8_t, C::lanes>> &k, Words &words,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq,
                      int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> keys[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = keys
#pragma HLS array_partition variable = keys complete dim = 1
#pragma HLS array_partition variable = keys complete dim = 2
#pragma HLS bind_storage variable = keys type = ram_s2p impl = lutram
  score_steps<C, depth>(q, k, words, keys, scores, batch, seq, past);
}

template <typename C, typename Words>
inline void scores_in(in_bram, hls::stream<vec<int8_t, C::lanes>> &q,
                      hls::stream<vec<int8_t, C::lanes>> &k, Words &words,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq,
                      int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> keys[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = keys
#pragma HLS array_partition variable = keys complete dim = 1
#pragma HLS array_partition variable = keys complete dim = 2
#pragma HLS bind_storage variable = keys type = ram_s2p impl = bram
  score_steps<C, depth>(q, k, words, keys, scores, batch, seq, past);
}

template <typename C, typename Words>
inline void scores_in(in_uram, hls::stream<vec<int8_t, C::lanes>> &q,
                      hls::stream<vec<int8_t, C::lanes>> &k, Words &words,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq,
                      int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> keys[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = keys
#pragma HLS array_partition variable = keys complete dim = 1
#pragma HLS array_partition variable = keys complete dim = 2
#pragma HLS bind_storage variable = keys type = ram_s2p impl = uram
  score_steps<C, depth>(q, k, words, keys, scores, batch, seq, past);
}

// Loops, all at II 1. A group makes the scores of a head and key block, `parts` is
// lanes / columns:
//   PAST    once a sequence, with a cache: past * words of a row
//   KEEP    once a sequence: heads / kv_groups * hb * seq iterations
//   SCORES  once a sequence, for every tile: hb * n + (heads - 1) * pass + kb * group + n, where
//           group = max(hb * parts, n) and pass = max(kb * group, hb * n)
// `columns` keys a cycle meet `lanes` channels of the tile's rows. The rows of a group leave
// while the next one runs, which is why a group is not shorter than a tile.
template <typename C>
void attention_scores(hls::stream<vec<int8_t, C::lanes>> &q, hls::stream<vec<int8_t, C::lanes>> &k,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq) {
#pragma HLS inline off
  static_assert(C::lanes % C::columns == 0, "columns divide the lanes");
  static_assert(!C::cached, "with a cache the rows in it are an argument");
  no_words none;
  scores_in<C>(typename C::kept_in(), q, k, none, scores, batch, seq, 0);
}

// With a cache: `words` brings the `past` rows of earlier turns, `k` those behind them.
template <typename C>
void attention_scores(hls::stream<vec<int8_t, C::lanes>> &q, hls::stream<vec<int8_t, C::lanes>> &k,
                      hls::stream<word> &words, hls::stream<vec<int32_t, C::lanes>> &scores,
                      int batch, int seq, int past) {
#pragma HLS inline off
  static_assert(C::lanes % C::columns == 0, "columns divide the lanes");
  scores_in<C>(typename C::kept_in(), q, k, words, scores, batch, seq, past);
}

}  // namespace t2f
#endif
