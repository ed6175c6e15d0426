// SPDX-License-Identifier: Apache-2.0
// Linear layers with int4 weights: int8 activations, int32 accumulators.
//
// A weight is q * m: q is int4, m an integer of 1 to 127 that 32, 64 or 128 input channels of an output
// channel share (a group). The array adds up q * x over a group in 48-bit sums that hold two output
// channels (packed4.hpp); where a group ends, both leave, are multiplied by m and added to the
// int32 accumulators. Everything else is as in matmul.hpp: join_rows in front, parts of an output
// block, the places of a part and when its rows leave.
//
// Weights come in beats of columns * lanes / 2 bytes, in memory order: for output block, for part, for
// eight groups of the input: a beat of scales (for group, for column: m), then the beats of the groups'
// input blocks, each for pair of columns, for lane a byte with the weights of both
// (torch2fpga.plan.packing.packed_bytes). Groups count input blocks of a part; the last one may be short.
//
// Loops, all at II 1. `words` is columns * lanes / 128, beats = in_blocks + ceil(in_blocks / (8 *
// group_blocks)):
//   LOAD    once a step, or once a launch where the weights of all steps are kept:
//           out_blocks * parts * beats * words iterations a step
//   REDUCE  once a sequence: tiles * out_blocks * parts * places + seq; places = max(in_blocks, tile), in
//           matmul4_streamed max(beats, tile): a beat of scales takes a place of its own there
#ifndef T2F_MATMUL4_HPP
#define T2F_MATMUL4_HPP

#include "t2f/core.hpp"
#include "t2f/matmul.hpp"
#include "t2f/packed4.hpp"

namespace t2f {

// Groups that share a beat of scales: it holds a byte for each of their columns.
constexpr int scale_groups = 8;

// 48-bit sums of two output channels over a group.
template <typename C>
using group_sum = w4a8_sum<C::group_blocks * C::lanes>;

// acc[t][o] += m[o] * sum over the group, where the group ends; else only its sum goes on.
template <typename C, int COLUMNS>
inline void accumulate_group(const vec<int8_t, C::lanes> (&x)[C::tile],
                             const word (&w)[COLUMNS * C::lanes / 128],
                             const int8_t (&scale)[scale_groups * COLUMNS], bool first, bool ends,
                             group_sum<C> (&sum)[C::tile][COLUMNS / 2],
                             int32_t (&acc)[C::tile][COLUMNS]) {
#pragma HLS inline
  for (int pair = 0; pair < COLUMNS / 2; ++pair) {
#pragma HLS unroll
    int8_t packed[C::lanes];
#pragma HLS array_partition variable = packed complete
    for (int i = 0; i < C::lanes; ++i) {
#pragma HLS unroll
      packed[i] = w[(pair * C::lanes + i) / 64].d[(pair * C::lanes + i) % 64];
    }
    for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
      accumulate_w4a8<C::lanes>(x[t], packed, sum[t][pair]);
      if (ends) {
        int32_t low = 0;
        int32_t high = 0;
        drain_w4a8(sum[t][pair], low, high);
        acc[t][2 * pair] = (first ? 0 : acc[t][2 * pair]) + low * scale[2 * pair];
        acc[t][2 * pair + 1] = (first ? 0 : acc[t][2 * pair + 1]) + high * scale[2 * pair + 1];
      }
    }
  }
}

// A beat of scales, as it comes from memory.
template <int COLUMNS>
inline void take_scales(const word (&beat)[COLUMNS / 8], int8_t (&scale)[scale_groups * COLUMNS]) {
#pragma HLS inline
  for (int i = 0; i < scale_groups * COLUMNS; ++i) {
#pragma HLS unroll
    scale[i] = beat[i / 64].d[i % 64];
  }
}

// The scales of the next group move to the front (registers need no choice by index then).
template <int COLUMNS>
inline void next_scales(int8_t (&scale)[scale_groups * COLUMNS]) {
#pragma HLS inline
  for (int i = 0; i < (scale_groups - 1) * COLUMNS; ++i) {
#pragma HLS unroll
    scale[i] = scale[i + COLUMNS];
  }
}

// Registers as after a reset.
template <typename C, int COLUMNS>
inline void clear_groups(group_sum<C> (&sum)[C::tile][COLUMNS / 2],
                         int8_t (&scale)[scale_groups * COLUMNS]) {
#pragma HLS inline
  for (int t = 0; t < C::tile; ++t) {
#pragma HLS unroll
    for (int pair = 0; pair < COLUMNS / 2; ++pair) {
#pragma HLS unroll
      sum[t][pair].p = 0;
    }
  }
  for (int i = 0; i < scale_groups * COLUMNS; ++i) {
#pragma HLS unroll
    scale[i] = 0;
  }
}

// Where a walk over the beats of a part stands.
struct beat_place {
  bool scales;   // a beat of scales
  int block;     // of the part: the block of this beat, or the next one
  int of_beats;  // blocks since the last beat of scales
};

inline beat_place first_beat() {
#pragma HLS inline
  return beat_place{true, 0, 0};
}

template <typename C>
inline bool group_ends(int block, int of_beats) {
#pragma HLS inline
  return block == C::in_blocks - 1 || of_beats % C::group_blocks == C::group_blocks - 1;
}

// Blocks since the last beat of scales, at the next block.
template <typename C>
inline int next_of_beats(int block, int of_beats) {
#pragma HLS inline
  const bool last = block == C::in_blocks - 1 || of_beats == scale_groups * C::group_blocks - 1;
  return last ? 0 : of_beats + 1;
}

template <typename C>
inline void advance_beat(beat_place &at) {
#pragma HLS inline
  if (at.scales) {
    at.scales = false;
  } else {
    at.of_beats = next_of_beats<C>(at.block, at.of_beats);
    at.scales = at.of_beats == 0;
    at.block = at.block == C::in_blocks - 1 ? 0 : at.block + 1;
  }
}

// Weights and scales are loaded once: those of a step while all its rows pass, or (C::resident) those
// of all steps for the whole launch. Weights lie in URAM as they are packed, scales beside them.
template <typename C>
void matmul4(hls::stream<tile_block<C::tile, C::lanes>> &tiles, hls::stream<word> &weights,
             hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  static_assert(C::lanes == 2 * scale_groups, "a beat holds the scales of eight groups");
  constexpr int parts = C::lanes / C::columns;
  constexpr int places = larger(C::in_blocks, C::tile);
  constexpr int part_words = C::columns * C::lanes / 128;
  constexpr int step_parts = C::out_blocks * parts * C::in_blocks;
  constexpr int step_scales =
      C::out_blocks * parts * ceil_div(C::in_blocks, scale_groups * C::group_blocks);
  constexpr int together = C::resident ? C::steps : 1;  // steps whose weights are kept at once
  word kept[together * step_parts][part_words];
#pragma HLS aggregate variable = kept
#pragma HLS array_partition variable = kept complete dim = 2
#pragma HLS bind_storage variable = kept type = ram_s2p impl = uram
  word scales[together * step_scales][part_words];
#pragma HLS aggregate variable = scales
#pragma HLS array_partition variable = scales complete dim = 2
#pragma HLS bind_storage variable = scales type = ram_s2p impl = bram
  tile_block<C::tile, C::lanes> tile[C::in_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = tile
#pragma HLS bind_storage variable = tile type = ram_s2p impl = bram
  int8_t scale[scale_groups * C::columns];
#pragma HLS array_partition variable = scale complete
  group_sum<C> sum[C::tile][C::columns / 2];
#pragma HLS array_partition variable = sum complete dim = 0
  int32_t acc[C::tile][C::columns];
#pragma HLS array_partition variable = acc complete dim = 0
  vec<int32_t, C::lanes> result[C::tile];
#pragma HLS aggregate variable = result
#pragma HLS array_partition variable = result complete
  clear<C::tile, C::columns, C::lanes>(acc, result);
  clear_groups<C, C::columns>(sum, scale);
  const int length = ceil_div(seq, C::tile) * (C::out_blocks * parts * places) + seq;
PASS:
  for (int pass = 0; pass < C::steps / together; ++pass) {
    int into = 0;
    int into_scales = 0;
    int word_of_part = 0;
    beat_place beat = first_beat();
  LOAD:
    for (int i = 0; i < together * (step_parts + step_scales) * part_words; ++i) {
      T2F_PIPELINE(1);
      const word w = weights.read();
      if (beat.scales) {
        scales[into_scales][word_of_part] = w;
      } else {
        kept[into][word_of_part] = w;
      }
      if (++word_of_part == part_words) {
        word_of_part = 0;
        if (beat.scales) {
          ++into_scales;
        } else {
          ++into;
        }
        advance_beat<C>(beat);
      }
    }
  STEP:
    for (int step = 0; step < together; ++step) {
    SEQUENCE:
      for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
        array_place at = first_place<places, C::tile>(seq);
        int from = step * step_parts;
        int from_scales = step * step_scales;
        int of_beats = 0;
        T2F_LOOP_ENTRY;
      REDUCE:
        for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::out_blocks * parts * places + C::max_seq
          T2F_PIPELINE(1);
          const bool leaves = at.block == C::out_blocks;
          if (!leaves && at.p < C::in_blocks) {
            const tile_block<C::tile, C::lanes> x =
                block_at<C::tile, C::lanes>(at, tiles, tile[at.p]);
            if (of_beats == 0) {
              take_scales<C::columns>(scales[from_scales], scale);
              ++from_scales;
            }
            const bool ends = group_ends<C>(at.p, of_beats);
            accumulate_group<C, C::columns>(x.row, kept[from], scale, at.p < C::group_blocks, ends,
                                            sum, acc);
            if (ends) next_scales<C::columns>(scale);
            of_beats = next_of_beats<C>(at.p, of_beats);
            ++from;
          }
          if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
          if (leaves) {
            from = step * step_parts;
            from_scales = step * step_scales;
          } else if (at.p == places - 1) {
            move_in<C::tile, C::columns, C::lanes>(acc, result);
          }
          advance_array<places, parts, C::out_blocks, C::tile>(at);
        }
      }
    }
  }
}

// Weights arrive again for every tile, one 512-bit word a cycle: 128 / lanes columns. The port sets the
// pace, and a word of scales takes a cycle in which nothing is multiplied.
template <typename C>
void matmul4_streamed(hls::stream<tile_block<C::tile, C::lanes>> &tiles,
                      hls::stream<word> &weights, hls::stream<vec<int32_t, C::lanes>> &y, int batch,
                      int seq) {
#pragma HLS inline off
  static_assert(C::lanes == 2 * scale_groups, "a beat holds the scales of eight groups");
  constexpr int columns = 128 / C::lanes;
  constexpr int parts = C::lanes / columns;
  constexpr int beats = C::in_blocks + ceil_div(C::in_blocks, scale_groups * C::group_blocks);
  constexpr int places = larger(beats, C::tile);
  tile_block<C::tile, C::lanes> tile[C::in_blocks] T2F_UNWRITTEN;
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
  const int length = ceil_div(seq, C::tile) * (C::out_blocks * parts * places) + seq;
SEQUENCE:
  for (int s = 0; s < C::steps * batch; ++s) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch
    array_place at = first_place<places, C::tile>(seq);
    beat_place beat = first_beat();
    T2F_LOOP_ENTRY;
  REDUCE:
    for (int i = 0; i < length; ++i) {
#pragma HLS loop_tripcount max = ceil_div(C::max_seq, C::tile) * C::out_blocks * parts * places + C::max_seq
      T2F_PIPELINE(1);
      const bool leaves = at.block == C::out_blocks;
      if (!leaves && at.p < beats) {
        const word w[1] = {weights.read()};
        if (beat.scales) {
          take_scales<columns>(w, scale);
        } else {
          const tile_block<C::tile, C::lanes> x =
              block_at<C::tile, C::lanes>(at, tiles, tile[beat.block]);
          const bool ends = group_ends<C>(beat.block, beat.of_beats);
          accumulate_group<C, columns>(x.row, w, scale, beat.block < C::group_blocks, ends, sum, acc);
          if (ends) next_scales<columns>(scale);
        }
        advance_beat<C>(beat);
      }
      if (at.block != 0 && at.part == 0 && at.p < at.rows) y.write(result[at.p]);
      if (!leaves && at.p == places - 1) move_in<C::tile, columns, C::lanes>(acc, result);
      advance_array<places, parts, C::out_blocks, C::tile>(at);
    }
  }
}

}  // namespace t2f
#endif
