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
// Cycles per query tile: heads * key_blocks * (head_blocks + ...) as stated at each.
#ifndef T2F_ATTENTION_HPP
#define T2F_ATTENTION_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/matmul.hpp"
#include "t2f/tables.hpp"

namespace t2f {

// All keys of a sequence are kept, one bank for each of `lanes` consecutive keys.
// Cycles per tile: heads * (head_blocks * tile + key_blocks * (head_blocks + tile)).
template <typename C>
void attention_scores(hls::stream<vec<int8_t, C::lanes>> &q, hls::stream<vec<int8_t, C::lanes>> &k,
                      hls::stream<vec<int32_t, C::lanes>> &scores, int batch, int seq) {
#pragma HLS inline off
  constexpr int blocks = C::heads * C::head_blocks;
  vec<int8_t, C::lanes> keys[C::lanes][blocks * C::key_blocks];
#pragma HLS aggregate variable = keys
#pragma HLS array_partition variable = keys complete dim = 1
  vec<int8_t, C::lanes> query[C::head_blocks][C::tile];
#pragma HLS aggregate variable = query
#pragma HLS array_partition variable = query complete dim = 2
  int32_t acc[C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 0
  for (int hb = 0; hb < C::head_blocks; ++hb) {
    T2F_PIPELINE(1);
    for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
      query[hb][t] = vec<int8_t, C::lanes>{};
    }
  }
  for (int i = 0; i < blocks * C::key_blocks; ++i) {
    T2F_PIPELINE(1);
    for (int bank = 0; bank < C::lanes; ++bank) {
#pragma HLS unroll
      keys[bank][i] = vec<int8_t, C::lanes>{};
    }
  }
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    KEY_TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      KEY_BLOCK:
        for (int block = 0; block < blocks; ++block) {
        KEY_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const int s = first + t;
            keys[s % C::lanes][block * C::key_blocks + s / C::lanes] = k.read();
          }
        }
      }
      const int key_blocks = ceil_div(seq, C::lanes);
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      HEAD:
        for (int head = 0; head < C::heads; ++head) {
          fill_tile<C::head_blocks, C::tile, C::lanes>(q, query, n);
        KEYS:
          for (int kb = 0; kb < key_blocks; ++kb) {
#pragma HLS loop_tripcount max = C::key_blocks
            clear<C::tile, C::lanes>(acc);
          REDUCE:
            for (int hb = 0; hb < C::head_blocks; ++hb) {
              T2F_PIPELINE(1);
              const int at = (head * C::head_blocks + hb) * C::key_blocks + kb;
              for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
                const vec<int8_t, C::lanes> key = keys[j][at];
                for (int t = 0; t + 1 < C::tile; t += 2) {
#pragma HLS unroll
                  dot_pair<C::lanes>(query[hb][t], query[hb][t + 1], key.d, acc[t][j],
                                     acc[t + 1][j]);
                }
                if (C::tile % 2 == 1) {
                  dot<C::lanes>(query[hb][C::tile - 1], key.d, acc[C::tile - 1][j]);
                }
              }
            }
            // Keys past the end hold another sequence's data: they leave as zero.
            for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
              for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
                if (kb * C::lanes + j >= seq) acc[t][j] = 0;
              }
            }
            drain<C::tile, C::lanes>(acc, scores, n);
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

// Parameter words of a step: {shift, 0 ...}, then ceil(heads / 16) words of one
// multiplier a head: distance = round((maximum - score) * multiplier / 2^shift).
// Cycles per tile: heads * 2 * key_blocks * tile (maximum, output).
template <typename C>
inline void softmax_rows(hls::stream<vec<int32_t, C::lanes>> &scores,
                         const vec<int8_t, C::lanes> (&valid)[C::max_batch][C::key_blocks],
                         hls::stream<word> &params,
                         hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline
  vec<int32_t, C::lanes> row[C::key_blocks][C::tile];
#pragma HLS aggregate variable = row
  int32_t largest[C::tile];
#pragma HLS array_partition variable = largest complete
  int32_t multiplier[ceil_div(C::heads, 16) * 16];
#pragma HLS array_partition variable = multiplier cyclic factor = 16
  const int key_blocks = ceil_div(seq, C::lanes);
  const int32_t lowest = -2147483647 - 1;
STEP:
  for (int step = 0; step < C::steps; ++step) {
    const int shift = int32_at(params.read(), 0);
  LOAD:
    for (int i = 0; i < ceil_div(C::heads, 16); ++i) {
      T2F_PIPELINE(1);
      const word w = params.read();
      for (int h = 0; h < 16; ++h) {
#pragma HLS unroll
        multiplier[i * 16 + h] = int32_at(w, h);
      }
    }
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      HEAD:
        for (int head = 0; head < C::heads; ++head) {
          for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
            largest[t] = lowest;
          }
        MAXIMUM:
          for (int kb = 0; kb < key_blocks; ++kb) {
#pragma HLS loop_tripcount max = C::key_blocks
          MAXIMUM_ROW:
            for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
              T2F_PIPELINE(1);
              vec<int32_t, C::lanes> v = scores.read();
              int32_t top = largest[t];
              for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
                const int key = kb * C::lanes + j;
                const bool seen = key < seq && (!C::causal || key <= first + t) &&
                                  (!C::masked || valid[b][kb].d[j] != 0);
                v.d[j] = seen ? v.d[j] : lowest;
                top = v.d[j] > top ? v.d[j] : top;
              }
              largest[t] = top;
              row[kb][t] = v;
            }
          }
        OUTPUT:
          for (int kb = 0; kb < key_blocks; ++kb) {
#pragma HLS loop_tripcount max = C::key_blocks
          OUTPUT_ROW:
            for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
              T2F_PIPELINE(1);
              vec<uint8_t, C::lanes> out;
              for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
                const int32_t score = row[kb][t].d[j];
                const int64_t below = static_cast<int64_t>(largest[t]) - score;
                const int64_t distance = round_shift(below * multiplier[head], shift);
                out.d[j] = score == lowest ? 0 : exp2_weight(distance);
              }
              weights.write(out);
            }
          }
        }
      }
    }
  }
}

// The mask (one byte a key, 0 = padding) comes once per launch and serves all steps.
template <typename C>
void softmax_weights(hls::stream<vec<int32_t, C::lanes>> &scores,
                     hls::stream<vec<int8_t, C::lanes>> &mask, hls::stream<word> &params,
                     hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline off
  vec<int8_t, C::lanes> valid[C::max_batch][C::key_blocks];
#pragma HLS aggregate variable = valid
MASK:
  for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
  MASK_ROW:
    for (int kb = 0; kb < ceil_div(seq, C::lanes); ++kb) {
#pragma HLS loop_tripcount max = C::key_blocks
      T2F_PIPELINE(1);
      valid[b][kb] = mask.read();
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

// All values of a sequence are kept, one bank for each of `lanes` consecutive keys.
// Cycles per tile: heads * (key_blocks * (tile + head_blocks) + tile * head_blocks).
template <typename C>
void attention_values(hls::stream<vec<uint8_t, C::lanes>> &weights,
                      hls::stream<vec<int8_t, C::lanes>> &v,
                      hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  constexpr int blocks = C::heads * C::head_blocks;
  vec<int8_t, C::lanes> values[C::lanes][blocks * C::key_blocks];
#pragma HLS aggregate variable = values
#pragma HLS array_partition variable = values complete dim = 1
  vec<uint8_t, C::lanes> p[C::tile];
#pragma HLS aggregate variable = p
#pragma HLS array_partition variable = p complete
  int32_t acc[C::head_blocks][C::tile][C::lanes];
#pragma HLS array_partition variable = acc complete dim = 2
#pragma HLS array_partition variable = acc complete dim = 3
  uint32_t sum[C::tile];
#pragma HLS array_partition variable = sum complete
  for (int i = 0; i < blocks * C::key_blocks; ++i) {
    T2F_PIPELINE(1);
    for (int bank = 0; bank < C::lanes; ++bank) {
#pragma HLS unroll
      values[bank][i] = vec<int8_t, C::lanes>{};
    }
  }
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    VALUE_TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      VALUE_BLOCK:
        for (int block = 0; block < blocks; ++block) {
        VALUE_ROW:
          for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
            T2F_PIPELINE(1);
            const int s = first + t;
            values[s % C::lanes][block * C::key_blocks + s / C::lanes] = v.read();
          }
        }
      }
      const int key_blocks = ceil_div(seq, C::lanes);
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        const int n = tile_rows(seq, first, C::tile);
      HEAD:
        for (int head = 0; head < C::heads; ++head) {
          for (int hb = 0; hb < C::head_blocks; ++hb) {
            T2F_PIPELINE(1);
            clear<C::tile, C::lanes>(acc[hb]);
          }
          for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
            sum[t] = 0;
            p[t] = vec<uint8_t, C::lanes>{};
          }
        KEYS:
          for (int kb = 0; kb < key_blocks; ++kb) {
#pragma HLS loop_tripcount max = C::key_blocks
          FILL:
            for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
              T2F_PIPELINE(1);
              p[t] = weights.read();
              uint32_t partial = 0;
              for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
                partial += p[t].d[j];
              }
              sum[t] += partial;
            }
          REDUCE:
            for (int hb = 0; hb < C::head_blocks; ++hb) {
              T2F_PIPELINE(1);
              const int at = (head * C::head_blocks + hb) * C::key_blocks + kb;
              for (int j = 0; j < C::lanes; ++j) {
#pragma HLS unroll
                const vec<int8_t, C::lanes> value = values[j][at];
                for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
                  for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
                    acc[hb][t][lane] += p[t].d[j] * value.d[lane];
                  }
                }
              }
            }
          }
        OUTPUT:
          for (int hb = 0; hb < C::head_blocks; ++hb) {
          OUTPUT_ROW:
            for (int t = 0; t < n; ++t) {
#pragma HLS loop_tripcount max = C::tile
              T2F_PIPELINE(1);
              // A row that sees no key at all gives zero, as torch's attention does.
              const scaled inverse = reciprocal(sum[t] == 0 ? 1 : sum[t]);
              vec<int32_t, C::lanes> out;
              for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
                const int64_t product =
                    static_cast<int64_t>(acc[hb][t][lane]) * static_cast<int64_t>(inverse.mantissa);
                // 17 fraction bits and 2^-exponent to 12 fraction bits.
                out.d[lane] = static_cast<int32_t>(round_shift(product, inverse.exponent + 5));
              }
              y.write(out);
            }
          }
        }
      }
    }
  }
}

}  // namespace t2f
#endif
