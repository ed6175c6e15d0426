// SPDX-License-Identifier: Apache-2.0
// Attention in three stages that stream to each other:
//   attention_scores   q, k            -> int32 scores
//   softmax_weights    scores, mask    -> uint8 exp2(score - row maximum), not normalised
//   attention_values   weights, v      -> weighted mean of v, 12 fraction bits
// A row is divided once, by the integer sum of its own weights, so a row depends on
// its own query and its complete key row only.
//
// Streams between them: for sequence, for query tile, for head, for key block, for
// row in the tile: `lanes` keys.
//
// Every loop runs at II 1 and costs its iterations, its depth, and one cycle. Each stage
// states its loops; there kb is ceil(seq / lanes), hb is head_blocks, n the rows of a tile.
#ifndef T2F_ATTENTION_HPP
#define T2F_ATTENTION_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/matmul.hpp"
#include "t2f/tables.hpp"

namespace t2f {

// Loops:
//   KEEP    once a sequence: heads * hb * seq iterations
//   FILL    once a tile: heads * hb * n
//   SCORES  once a tile: heads * kb * max(hb, n) + n
// A group of max(hb, n) iterations makes the scores of one head and key block. Its rows
// leave while the next group runs; the last one's leave in n iterations of their own.
template <typename C>
void attention_scores(hls::stream<vec<int8_t, C::lanes>> &q, hls::stream<vec<int8_t, C::lanes>> &k,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq) {
#pragma HLS inline off
  constexpr int blocks = C::heads * C::head_blocks;
  vec<int8_t, C::lanes> keys[C::lanes][blocks * C::key_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = keys
#pragma HLS array_partition variable = keys complete dim = 1
  vec<int8_t, C::lanes> query[blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = query
#pragma HLS array_partition variable = query complete dim = 2
#pragma HLS bind_storage variable = query type = ram_s2p impl = bram
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, C::lanes>(acc, result);
  const int key_blocks = ceil_div(seq, C::lanes);
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
      keep_rows<blocks, C::key_blocks, C::max_seq, C::tile, C::lanes>(k, keys, seq);
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        fill_tile<blocks, C::tile, C::lanes>(q, query, n);
        const int group = larger(C::head_blocks, n);
        const int work = C::heads * key_blocks * group;
        const int next_head = (C::head_blocks - 1) * key_blocks + 1;
        int p = 0;       // place in the group
        int block = 0;   // first channel block of the head
        int left = seq;  // keys of the head that are still to come
        int start = 0;   // of this group's keys in the banks
        int offset = 0;
        int row = n;     // of the result, the next to leave
      SCORES:
        for (int i = 0; i < work + n; ++i) {
#pragma HLS loop_tripcount max = C::key_blocks * larger(blocks, C::heads * C::tile) + C::tile
          T2F_PIPELINE(1);
          if (p < C::head_blocks && i < work) {
            for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
              const vec<int8_t, C::lanes> key = keys[j][start + offset];
              accumulate_column<C::tile, C::lanes>(query[block + p], key.d, p == 0, j, acc);
            }
            offset += key_blocks;
          }
          if (row < n) {
            scores.write(result[row]);
            ++row;
          }
          if (++p == group) {
            p = 0;
            row = 0;
            offset = 0;
            // Keys past the end hold another sequence's data: they leave as zero.
            copy_sums<C::tile, C::lanes>(acc, left, result);
            if (left > C::lanes) {
              left -= C::lanes;
              ++start;
            } else {
              left = seq;
              block += C::head_blocks;
              start += next_head;
            }
          }
        }
      }
    }
  }
}

// exp2(-distance) with 8 fraction bits of distance, as uint8 (255 at distance 0).
inline uint8_t exp2_weight(int64_t distance) {
#pragma HLS inline
  const int whole = distance >> 8 > 15 ? 15 : static_cast<int>(distance >> 8);
  return static_cast<uint8_t>(round_shift(exp2_table[distance & 255], 8 + whole));
}

// One value a row of a tile, visited in turn: the one to visit is always at 0, and what
// is put in comes back after n visits. No register is chosen by index on the way.
template <int TILE>
inline void put_behind(int32_t (&turn)[TILE], int n, int32_t value) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    turn[t] = t == n - 1 || t + 1 == TILE ? value : turn[(t + 1) % TILE];
  }
}

// Parameter words of a step: {shift, 0 ...}, then ceil(heads / 16) words of one
// multiplier a head: distance = round((maximum - score) * multiplier / 2^shift).
// Loops:
//   LOAD  once a step: 1 + ceil(heads / 16) iterations
//   ROWS  once a tile: (heads + 1) * kb * n
// A group of kb * n iterations takes in a head and finds its maxima, while the weights
// of the head before leave; the last group only lets leave.
template <typename C>
inline void softmax_rows(hls::stream<vec<int32_t, C::lanes>> &scores,
                         const vec<int8_t, C::lanes> (&valid)[C::max_batch][C::key_blocks],
                         hls::stream<word> &params,
                         hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline
  vec<int32_t, C::lanes> seen[2][C::key_blocks * C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = seen
#pragma HLS bind_storage variable = seen type = ram_s2p impl = bram
  int32_t top[C::tile];  // so far, of the head that comes in
#pragma HLS array_partition variable = top complete
  int32_t maximum[C::tile];  // of the head that leaves
#pragma HLS array_partition variable = maximum complete
  int32_t multiplier[ceil_div(C::heads, 16) * 16];
#pragma HLS array_partition variable = multiplier cyclic factor = 16
  const int key_blocks = ceil_div(seq, C::lanes);
  const int32_t lowest = -2147483647 - 1;
  for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
    top[t] = lowest;
    maximum[t] = lowest;
  }
STEP:
  for (int step = 0; step < C::steps; ++step) {
    int shift = 0;
  LOAD:
    for (int i = 0; i < 1 + ceil_div(C::heads, 16); ++i) {
      T2F_PIPELINE(1);
      const word w = params.read();
      if (i == 0) {
        shift = int32_at(w, 0);
      } else {
        for (int h = 0; h < 16; ++h) {
#pragma HLS unroll
          multiplier[(i - 1) * 16 + h] = int32_at(w, h);
        }
      }
    }
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        int t = 0;
        int kb = 0;
        int at = 0;    // in the head
        int head = 0;  // that comes in; the one before leaves
        T2F_LOOP_ENTRY;
      ROWS:
        for (int i = 0; i < (C::heads + 1) * key_blocks * n; ++i) {
#pragma HLS loop_tripcount max = (C::heads + 1) * C::key_blocks * C::tile
          T2F_PIPELINE(1);
          const int32_t row_maximum = maximum[0];
          int32_t row_top = top[0];
          if (head < C::heads) {
            vec<int32_t, C::lanes> v = scores.read();
            for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
              const int key = kb * C::lanes + j;
              const bool visible = key < seq && (!C::causal || key <= first + t) &&
                                   (!C::masked || valid[b][kb].d[j] != 0);
              v.d[j] = visible ? v.d[j] : lowest;
            }
            seen[head & 1][at] = v;
            const int32_t here = reduce_max<int32_t, C::lanes>(v);
            row_top = kb == 0 || here > row_top ? here : row_top;
          }
          put_behind<C::tile>(top, n, row_top);
          put_behind<C::tile>(maximum, n, kb + 1 == key_blocks ? row_top : row_maximum);
          if (head > 0) {
            const vec<int32_t, C::lanes> v = seen[(head & 1) ^ 1][at];
            vec<uint8_t, C::lanes> out;
            for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
              const int64_t below = static_cast<int64_t>(row_maximum) - v.d[j];
              const int64_t distance = round_shift(below * multiplier[head - 1], shift);
              out.d[j] = v.d[j] == lowest ? 0 : exp2_weight(distance);
            }
            weights.write(out);
          }
          ++at;
          if (++t == n) {
            t = 0;
            if (++kb == key_blocks) {
              kb = 0;
              at = 0;
              ++head;
            }
          }
        }
      }
    }
  }
}

// The mask (one byte a key, 0 = padding) comes once per launch and serves all steps.
// Loop MASK, once: batch * kb iterations.
template <typename C>
void softmax_weights(hls::stream<vec<int32_t, C::lanes>> &scores,
                     hls::stream<vec<int8_t, C::lanes>> &mask, hls::stream<word> &params,
                     hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline off
  vec<int8_t, C::lanes> valid[C::max_batch][C::key_blocks];
#pragma HLS aggregate variable = valid
  const int key_blocks = ceil_div(seq, C::lanes);
  int b = 0;
  int kb = 0;
MASK:
  for (int i = 0; i < batch * key_blocks; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::key_blocks
    T2F_PIPELINE(1);
    valid[b][kb] = mask.read();
    if (++kb == key_blocks) {
      kb = 0;
      ++b;
    }
  }
  softmax_rows<C>(scores, valid, params, weights, batch, seq);
}

// Without a padding mask (C::masked is false, so `valid` is never read).
template <typename C>
void softmax_weights(hls::stream<vec<int32_t, C::lanes>> &scores, hls::stream<word> &params,
                     hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline off
  const vec<int8_t, C::lanes> valid[C::max_batch][C::key_blocks] = {};
  softmax_rows<C>(scores, valid, params, weights, batch, seq);
}

// acc[t] = (first ? 0 : acc[t]) + sum_j p[t][j] * value[j]; sum[t] takes up the p[t][j]
template <int TILE, int LANES>
inline void weigh(const vec<uint8_t, LANES> (&p)[TILE], const vec<int8_t, LANES> (&value)[LANES],
                  bool first, int32_t (&acc)[TILE][LANES], uint32_t (&sum)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    int32_t partial[LANES] = {};
#pragma HLS array_partition variable = partial complete
    uint32_t taken = 0;
    for (int j = 0; j < LANES; ++j) {
#pragma HLS unroll
      taken += p[t].d[j];
      for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
        partial[lane] += p[t].d[j] * value[j].d[lane];
      }
    }
    sum[t] = (first ? 0 : sum[t]) + taken;
    for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
      acc[t][lane] = (first ? 0 : acc[t][lane]) + partial[lane];
    }
  }
}

// acc / sum with 12 fraction bits.
template <int LANES>
inline vec<int32_t, LANES> divide_row(const vec<int32_t, LANES> &acc, uint32_t sum) {
#pragma HLS inline
  // A row that sees no key at all gives zero, as torch's attention does.
  const scaled inverse = reciprocal(sum == 0 ? 1 : sum);
  vec<int32_t, LANES> out;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    const int64_t product =
        static_cast<int64_t>(acc.d[lane]) * static_cast<int64_t>(inverse.mantissa);
    // 17 fraction bits and 2^-exponent to 12 fraction bits.
    out.d[lane] = static_cast<int32_t>(round_shift(product, inverse.exponent + 5));
  }
  return out;
}

// Iterations of a pass, as stated below.
constexpr int pass_of(int head_blocks, int key_blocks, int n) {
  return larger(head_blocks * larger(key_blocks, n), key_blocks * n);
}

// Loops:
//   KEEP  once a sequence: heads * hb * seq iterations
//   MEAN  once a tile: kb * n + (heads - 1) * pass + hb * group + n, where
//         group = max(kb, n) and pass = max(hb * group, kb * n)
// A pass takes in the weights of a head (kb * n tokens) while the head before is
// multiplied; the first pass only takes in, the last one only multiplies. A group
// makes one channel block of a head. Its rows leave while the next group runs; the last
// one's leave in n iterations of their own.
template <typename C>
void attention_values(hls::stream<vec<uint8_t, C::lanes>> &weights,
                      hls::stream<vec<int8_t, C::lanes>> &v,
                      hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int blocks = C::heads * C::head_blocks;
  vec<int8_t, C::lanes> values[C::lanes][blocks * C::key_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = values
#pragma HLS array_partition variable = values complete dim = 1
  vec<uint8_t, C::lanes> p[2][C::key_blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = p
#pragma HLS array_partition variable = p complete dim = 3
#pragma HLS bind_storage variable = p type = ram_s2p impl = bram
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  uint32_t sum[C::tile];
#pragma HLS array_partition variable = sum complete
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  uint32_t result_sum[C::tile];
#pragma HLS array_partition variable = result_sum complete
  clear<C::tile, C::lanes>(acc, result);
  for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
    sum[t] = 0;
    result_sum[t] = 0;
  }
  const int key_blocks = ceil_div(seq, C::lanes);
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
      keep_rows<blocks, C::key_blocks, C::max_seq, C::tile, C::lanes>(v, values, seq);
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
        const int tokens = key_blocks * n;
        const int group = larger(key_blocks, n);
        const int work = C::head_blocks * group;
        const int pass = pass_of(C::head_blocks, key_blocks, n);
        const int all = tokens + (C::heads - 1) * pass + work + n;
        int place = 0;               // in the pass
        int length = tokens;         // of the pass
        int head = 0;                // that comes in; the one before is multiplied
        int in = 0;                  // key block and row of its next token
        int t = 0;
        int block = C::head_blocks;  // that is multiplied; head_blocks: none
        int kb = 0;                  // place in the group
        int at = 0;                  // of its values in the banks
        int row = n;                 // of the result, the next to leave
        T2F_LOOP_ENTRY;
      MEAN:
        for (int i = 0; i < all; ++i) {
#pragma HLS loop_tripcount max = (C::heads + 2) * pass_of(C::head_blocks, C::key_blocks, C::tile)
          T2F_PIPELINE(1);
          if (place < tokens && head < C::heads) {
            p[head & 1][in][t] = weights.read();
            if (++t == n) {
              t = 0;
              ++in;
            }
          }
          if (block < C::head_blocks && kb < key_blocks) {
            vec<int8_t, C::lanes> value[C::lanes];
#pragma HLS aggregate variable = value
#pragma HLS array_partition variable = value complete
            for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
              value[j] = values[j][at];
            }
            weigh<C::tile, C::lanes>(p[(head & 1) ^ 1][kb], value, kb == 0, acc, sum);
            ++at;
          }
          if (row < n) {
            y.write(divide_row<C::lanes>(result[row], result_sum[row]));
            ++row;
          }
          if (block < C::head_blocks) {
            if (kb != group - 1) {
              ++kb;
            } else {
              kb = 0;
              ++block;
              row = 0;
              copy_sums<C::tile, C::lanes>(acc, C::lanes, result);
              for (int r = 0; r < C::tile; ++r) {
#pragma HLS unroll
                result_sum[r] = sum[r];
              }
            }
          }
          if (++place == length) {
            place = 0;
            length = pass;
            in = 0;
            block = head < C::heads ? 0 : C::head_blocks;
            ++head;
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
