// SPDX-License-Identifier: Apache-2.0
// Attention, second stage: scores and a mask to uint8 weights, not normalised.
#ifndef T2F_ATTENTION_SOFTMAX_HPP
#define T2F_ATTENTION_SOFTMAX_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/tables.hpp"

namespace t2f {

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

// Parameter words of a step: {shift, window, 0 ...}, then ceil(heads / 16) words of one
// multiplier a head: distance = round((maximum - score) * multiplier / 2^shift). A window of
// 0 is all keys; where no step has one (C::windowed is false) it is not looked at.
// Loops:
//   LOAD  once a step: 1 + ceil(heads / 16) iterations
//   ROWS  once a tile: (heads + 1) * kb * n
// A group of kb * n iterations takes in a head and finds its maxima, while the weights
// of the head before leave; the last group only lets leave.
template <typename C>
inline void softmax_rows(hls::stream<vec<int32_t, C::lanes>> &scores,
                         const vec<int8_t, C::lanes> (&valid)[C::max_batch][C::key_blocks],
                         hls::stream<word> &params,
                         hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq,
                         int past) {
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
  const int keys = past + seq;
  const int key_blocks = ceil_div(keys, C::lanes);
  const int32_t lowest = -2147483647 - 1;
  for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
    top[t] = lowest;
    maximum[t] = lowest;
  }
STEP:
  for (int step = 0; step < C::steps; ++step) {
    int shift = 0;
    int window = 0;
  LOAD:
    for (int i = 0; i < 1 + ceil_div(C::heads, 16); ++i) {
      T2F_PIPELINE(1);
      const word w = params.read();
      if (i == 0) {
        shift = int32_at(w, 0);
        window = C::windowed ? int32_at(w, 1) : 0;
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
        const int query = past + first;  // place of the tile's first row among the keys
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
              const bool near = !C::windowed || window == 0 || key + window > query + t;
              const bool visible = key < keys && (!C::causal || key <= query + t) && near &&
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
  const int masks = rows_of(batch, key_blocks);
  int b = 0;
  int kb = 0;
MASK:
  for (int i = 0; i < masks; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::key_blocks
    T2F_PIPELINE(1);
    valid[b][kb] = mask.read();
    if (++kb == key_blocks) {
      kb = 0;
      ++b;
    }
  }
  softmax_rows<C>(scores, valid, params, weights, batch, seq, 0);
}

// Without a padding mask (C::masked is false, so `valid` is never read).
template <typename C>
void softmax_weights(hls::stream<vec<int32_t, C::lanes>> &scores, hls::stream<word> &params,
                     hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq) {
#pragma HLS inline off
  const vec<int8_t, C::lanes> valid[C::max_batch][C::key_blocks] = {};
  softmax_rows<C>(scores, valid, params, weights, batch, seq, 0);
}

// With a cache: a row sees the `past` keys of earlier launches too.
template <typename C>
void softmax_weights(hls::stream<vec<int32_t, C::lanes>> &scores, hls::stream<word> &params,
                     hls::stream<vec<uint8_t, C::lanes>> &weights, int batch, int seq, int past) {
#pragma HLS inline off
  const vec<int8_t, C::lanes> valid[C::max_batch][C::key_blocks] = {};
  softmax_rows<C>(scores, valid, params, weights, batch, seq, past);
}

}  // namespace t2f
#endif
