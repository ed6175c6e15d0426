// SPDX-License-Identifier: Apache-2.0
// Attention, third stage: the weighted mean of the values.
#ifndef T2F_ATTENTION_VALUES_HPP
#define T2F_ATTENTION_VALUES_HPP

#include "t2f/attention_common.hpp"
#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/packed.hpp"

namespace t2f {

// One channel of the values: acc[t] = (first ? 0 : acc[t]) + sum_j p[t][j] * value[j], two
// rows a multiplier.
template <int TILE, int COLUMNS, int LANES>
inline void weigh_channel(const uint8_t (&p)[TILE][COLUMNS], const int8_t (&value)[COLUMNS],
                          bool first, int lane, int32_t (&acc)[TILE][LANES]) {
#pragma HLS inline
  for (int t = 0; t + 1 < TILE; t += 2) {
#pragma HLS unroll
    int32_t sum0 = first ? 0 : acc[t][lane];
    int32_t sum1 = first ? 0 : acc[t + 1][lane];
    weigh_pair<COLUMNS>(p[t], p[t + 1], value, sum0, sum1);
    acc[t][lane] = sum0;
    acc[t + 1][lane] = sum1;
  }
  if (TILE % 2 == 1) {
    int32_t sum = first ? 0 : acc[TILE - 1][lane];
    weigh_one<COLUMNS>(p[TILE - 1], value, sum);
    acc[TILE - 1][lane] = sum;
  }
}

// COLUMNS keys of a block, from key `start` on, with all channels of their values; sum[t] takes
// up the weights.
template <int TILE, int COLUMNS, int LANES>
inline void weigh(const vec<uint8_t, LANES> (&weights)[TILE], int start,
                  const vec<int8_t, LANES> (&value)[COLUMNS], bool first,
                  int32_t (&acc)[TILE][LANES], uint32_t (&sum)[TILE]) {
#pragma HLS inline
  uint8_t p[TILE][COLUMNS];
#pragma HLS array_partition variable = p complete dim = 0
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    uint32_t taken = 0;
    for (int j = 0; j < COLUMNS; ++j) {
#pragma HLS unroll
      p[t][j] = weights[t].d[start + j];
      taken += p[t][j];
    }
    sum[t] = (first ? 0 : sum[t]) + taken;
  }
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    int8_t channel[COLUMNS];
#pragma HLS array_partition variable = channel complete
    for (int j = 0; j < COLUMNS; ++j) {
#pragma HLS unroll
      channel[j] = value[j].d[lane];
    }
    weigh_channel<TILE, COLUMNS, LANES>(p, channel, first, lane, acc);
  }
}

// The finished sums become the result whose rows leave next.
template <int TILE, int LANES>
inline void release_means(const int32_t (&acc)[TILE][LANES], const uint32_t (&sum)[TILE],
                          vec<int32_t, LANES> (&result)[TILE], uint32_t (&result_sum)[TILE]) {
#pragma HLS inline
  for (int t = 0; t < TILE; ++t) {
#pragma HLS unroll
    result_sum[t] = sum[t];
    for (int o = 0; o < LANES; ++o) {
#pragma HLS unroll
      result[t].d[o] = acc[t][o];
    }
  }
}

// acc * mantissa, which lies in (2^16, 2^17]. What is above 2^16 has 17 bits and, up to `keys`
// of 2,056, the sum has 27 with its sign: one multiplier a lane. More keys take a wide product.
template <int KEYS>
inline int64_t times_mantissa(int32_t acc, uint32_t mantissa) {
#pragma HLS inline
  if (KEYS > longest_chain(27, -128 * 255, 127 * 255)) {
    return static_cast<int64_t>(acc) * static_cast<int64_t>(mantissa);
  }
  const int32_t above = static_cast<int32_t>(mantissa) - (1 << 16);
  return static_cast<int64_t>(acc) * (1 << 16) + slice_product(acc, above);
}

// acc / sum with 12 fraction bits, for sums over up to KEYS keys.
template <int LANES, int KEYS>
inline vec<int32_t, LANES> divide_row(const vec<int32_t, LANES> &acc, uint32_t sum) {
#pragma HLS inline
  // A row that sees no key at all gives zero, as torch's attention does.
  const scaled inverse = reciprocal(sum == 0 ? 1 : sum);
  vec<int32_t, LANES> out;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    const int64_t product = times_mantissa<KEYS>(acc.d[lane], inverse.mantissa);
    // 17 fraction bits and 2^-exponent to 12 fraction bits.
    out.d[lane] = static_cast<int32_t>(round_shift(product, inverse.exponent + 5));
  }
  return out;
}

// The passes of a tile of `rows` rows.
template <typename C>
inline tile_passes mean_passes(int key_blocks, int rows) {
#pragma HLS inline
  const int group = larger(key_blocks * (C::lanes / C::columns), rows);
  return passes_of(rows, group, key_blocks * rows, C::head_blocks * group);
}

// The most iterations of a sequence of up to `seq` rows; a key block takes `parts`.
constexpr int most_means(int seq, int tile, int heads, int head_blocks, int key_blocks, int parts) {
  return ceil_div(seq, tile) * tile_iterations(heads, tile, key_blocks * tile,
                                               head_blocks * larger(key_blocks * parts, tile));
}

// Loop MEAN: the tiles of a sequence over its values and the `past` ones in front of them.
template <typename C, int DEPTH>
inline void mean_sequence(hls::stream<vec<uint8_t, C::lanes>> &weights,
                          const vec<int8_t, C::lanes> (
                              &values)[C::columns][kept_rows<C>::split][DEPTH],
                          hls::stream<vec<int32_t, C::lanes>> &y, int seq, int past) {
#pragma HLS inline
  constexpr uint32_t parts = C::lanes / C::columns;  // of a key block
  constexpr int split = kept_rows<C>::split;
  vec<uint8_t, C::lanes> p[2][C::key_blocks][C::tile] T2F_UNWRITTEN;
#pragma HLS aggregate variable = p
#pragma HLS array_partition variable = p complete dim = 3
#pragma HLS bind_storage variable = p type = ram_s2p impl = lutram
  int32_t acc[C::tile][C::lanes] = {};
#pragma HLS array_partition variable = acc complete dim = 0
  uint32_t sum[C::tile] = {};
#pragma HLS array_partition variable = sum complete
  vec<int32_t, C::lanes> result[C::tile] = {};
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  uint32_t result_sum[C::tile] = {};
#pragma HLS array_partition variable = result_sum complete
  const int key_blocks = ceil_div(past + seq, C::lanes);
  const uint32_t bank_rows = static_cast<uint32_t>(key_blocks) * parts;
  const int tiles = seq / C::tile;
  const tile_passes full = mean_passes<C>(key_blocks, C::tile);
  const tile_passes rest = mean_passes<C>(key_blocks, seq - tiles * C::tile);
  const int all = sequence_iterations(C::heads, tiles, full, rest);
  head_walk at = first_pass(tiles != 0 ? full : rest, seq);
  int block = 0;   // of the head that is multiplied
  int from = 0;    // place of its values in the banks
  int number = 0;  // of the block, counted over all heads
  int head_from = 0;    // both where the head begins
  int head_number = 0;
  shared_head<C::kv_groups> shared;
MEAN:
  for (int i = 0; i < all; ++i) {
#pragma HLS loop_tripcount max = most_means(C::max_seq, C::tile, C::heads, C::head_blocks, C::key_blocks, parts)
    T2F_PIPELINE(1);
    if (at.taking) {
      p[at.head & 1][at.in][at.in_row] = weights.read();
      advance_in(at, key_blocks);
    }
    if (at.working && at.place < bank_rows) {
      vec<int8_t, C::lanes> value[C::columns];
#pragma HLS aggregate variable = value
#pragma HLS array_partition variable = value complete
      take_rows<C, DEPTH>(values, number, from, value);
      weigh<C::tile, C::columns, C::lanes>(p[(at.head & 1) ^ 1][at.place / parts],
                                           at.place % parts * C::columns, value, at.place == 0, acc,
                                           sum);
      ++from;
    }
    if (at.leaving) {
      y.write(divide_row<C::lanes, C::key_blocks * C::lanes>(result[at.row], result_sum[at.row]));
      advance_out(at);
    }
    if (at.working && advance_place(at)) {
      release_means<C::tile, C::lanes>(acc, sum, result, result_sum);
      // The next block may lie beside this one.
      if (number % split != split - 1) from -= static_cast<int>(bank_rows);
      ++number;
      if (block != C::head_blocks - 1) {
        ++block;
      } else {
        block = 0;
        if (next_shared(shared)) {
          head_from = from;
          head_number = number;
        } else {
          from = head_from;
          number = head_number;
        }
        at.working = false;
      }
    }
    if (advance_pass<C::heads, C::tile>(at, full, rest)) {
      from = 0;
      number = 0;
      head_from = 0;
      head_number = 0;
    }
  }
}

// The sequences of all steps, with the values of one in the given banks.
template <typename C, int DEPTH, typename Words>
inline void mean_steps(hls::stream<vec<uint8_t, C::lanes>> &weights,
                       hls::stream<vec<int8_t, C::lanes>> &v, Words &words,
                       vec<int8_t, C::lanes> (&values)[C::columns][kept_rows<C>::split][DEPTH],
                       hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline
  const int bank_rows = ceil_div(past + seq, C::lanes) * (C::lanes / C::columns);
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
      keep_past<C, DEPTH>(words, values, bank_rows, past);
      keep_sequence<C, DEPTH>(v, values, bank_rows, seq, past);
      mean_sequence<C, DEPTH>(weights, values, y, seq, past);
    }
  }
}

template <typename C, typename Words>
inline void means_in(in_lutram, hls::stream<vec<uint8_t, C::lanes>> &weights,
                     hls::stream<vec<int8_t, C::lanes>> &v, Words &words,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> values[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = values
#pragma HLS array_partition variable = values complete dim = 1
#pragma HLS array_partition variable = values complete dim = 2
#pragma HLS bind_storage variable = values type = ram_s2p impl = lutram
  mean_steps<C, depth>(weights, v, words, values, y, batch, seq, past);
}

template <typename C, typename Words>
inline void means_in(in_bram, hls::stream<vec<uint8_t, C::lanes>> &weights,
                     hls::stream<vec<int8_t, C::lanes>> &v, Words &words,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> values[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = values
#pragma HLS array_partition variable = values complete dim = 1
#pragma HLS array_partition variable = values complete dim = 2
#pragma HLS bind_storage variable = values type = ram_s2p impl = bram
  mean_steps<C, depth>(weights, v, words, values, y, batch, seq, past);
}

template <typename C, typename Words>
inline void means_in(in_uram, hls::stream<vec<uint8_t, C::lanes>> &weights,
                     hls::stream<vec<int8_t, C::lanes>> &v, Words &words,
                     hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline
  constexpr int depth = kept_rows<C>::depth;
  vec<int8_t, C::lanes> values[C::columns][kept_rows<C>::split][depth] T2F_UNWRITTEN;
#pragma HLS aggregate variable = values
#pragma HLS array_partition variable = values complete dim = 1
#pragma HLS array_partition variable = values complete dim = 2
#pragma HLS bind_storage variable = values type = ram_s2p impl = uram
  mean_steps<C, depth>(weights, v, words, values, y, batch, seq, past);
}

// Loops, all at II 1. A group makes a channel block of a head, `parts` is lanes / columns:
//   PAST  once a sequence, with a cache: past * words of a row
//   KEEP  once a sequence: heads / kv_groups * hb * seq iterations
//   MEAN  once a sequence, for every tile: kb * n + (heads - 1) * pass + hb * group + n, where
//         group = max(kb * parts, n) and pass = max(hb * group, kb * n)
// `columns` keys a cycle meet `lanes` channels for every row of the tile. The rows of a group
// leave while the next one runs, which is why a group is not shorter than a tile.
template <typename C>
void attention_values(hls::stream<vec<uint8_t, C::lanes>> &weights,
                      hls::stream<vec<int8_t, C::lanes>> &v,
                      hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  static_assert(C::lanes % C::columns == 0, "columns divide the lanes");
  static_assert(!C::cached, "with a cache the rows in it are an argument");
  no_words none;
  means_in<C>(typename C::kept_in(), weights, v, none, y, batch, seq, 0);
}

// With a cache: `words` brings the `past` rows of earlier turns, `v` those behind them.
template <typename C>
void attention_values(hls::stream<vec<uint8_t, C::lanes>> &weights,
                      hls::stream<vec<int8_t, C::lanes>> &v, hls::stream<word> &words,
                      hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline off
  static_assert(C::lanes % C::columns == 0, "columns divide the lanes");
  means_in<C>(typename C::kept_in(), weights, v, words, y, batch, seq, past);
}

}  // namespace t2f
#endif
