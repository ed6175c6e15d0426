// SPDX-License-Identifier: Apache-2.0
// RMS norm without its weight, over each group of channels (a row, or a head of it):
//   y = x / sqrt(sum(x^2) + channels * eps), 24 fraction bits.
// The weight, sqrt(channels) and the output format are the multipliers of the requant stages
// behind it, one for each format that is wanted.
//
// Two processes and two FIFOs between them:
//   row_squares  passes the tokens on and sums their squares
//   rms_norm     holds the tokens of a group back until its sum is known
// While a group leaves, the next one comes in, and none waits for another.
//
// Parameter word of a step: {eps_low, eps_high, 0 ...}; eps is channels * eps in units of x^2
// (int64). `ways` channels are worked on a cycle, a token takes parts = lanes / ways iterations.
// Cycles: SUM, one flat loop a launch over its steps * batch * seq * blocks tokens, parts
// iterations each; in the other process LOAD of 1 and SCALE of batch * seq * blocks * parts a step.
#ifndef T2F_RMS_NORM_HPP
#define T2F_RMS_NORM_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/normalize.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// The block of a group behind `within`, where a token is the last of a tile's rows.
template <int GROUP_BLOCKS, int TILE>
inline int next_within(const token_place &at, int within) {
#pragma HLS inline
  if (at.t != TILE - 1 && at.t != at.behind) return within;
  return within == GROUP_BLOCKS - 1 ? 0 : within + 1;
}

// Every token as it is, and the sum of the squares of a group behind its last token. Lanes that
// only fill up a group's last block are zero.
template <typename C>
void row_squares(hls::stream<vec<typename C::in_t, C::lanes>> &x,
                 hls::stream<vec<typename C::in_t, C::lanes>> &held, hls::stream<uint64_t> &sums,
                 int batch, int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
  uint64_t squares[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = squares complete
  const int iterations = rows_of(batch, seq) * (C::steps * C::blocks * parts);
  token_place at = first_token(seq);
  int within = 0;  // block of the group
  int part = 0;
SUM:
  for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::steps * C::max_batch * C::max_seq * C::blocks * parts
    T2F_PIPELINE(1);
    if (part == 0) {
      v = x.read();
      held.write(v);
    }
    const vec<typename C::in_t, C::ways> lowest =
        take_lanes<C::ways, typename C::in_t, C::lanes>(v);
    vec<uint64_t, C::ways> powers;
    for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
      const int64_t value = lowest.d[way];
      powers.d[way] = static_cast<uint64_t>(value * value);
    }
    const bool first = within == 0 && part == 0;
    const uint64_t total = reduce_sum<uint64_t, C::ways>(powers) + (first ? 0 : squares[at.t]);
    squares[at.t] = total;
    if (part != parts - 1) {
      ++part;
    } else {
      if (within == C::group_blocks - 1) sums.write(total);
      part = 0;
      within = next_within<C::group_blocks, C::tile>(at, within);
      advance<C::blocks, C::tile>(at, seq);
    }
  }
}

inline void load_rms_norm(hls::stream<word> &params, uint64_t &eps) {
#pragma HLS inline
LOAD:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    const word w = params.read();
    eps = (static_cast<uint64_t>(static_cast<uint32_t>(int32_at(w, 1))) << 32) |
          static_cast<uint32_t>(int32_at(w, 0));
  }
}

template <typename C>
void rms_norm(hls::stream<vec<typename C::in_t, C::lanes>> &held, hls::stream<uint64_t> &sums,
              hls::stream<word> &params, hls::stream<vec<int32_t, C::lanes>> &y, int batch,
              int seq) {
#pragma HLS inline off
  constexpr int parts = C::lanes / C::ways;
  vec<typename C::in_t, C::lanes> v T2F_UNWRITTEN;
  vec<int32_t, C::lanes> out T2F_UNWRITTEN;
  scaled inverses[C::tile] T2F_UNWRITTEN;
#pragma HLS array_partition variable = inverses complete
  const int iterations = rows_of(batch, seq) * (C::blocks * parts);
STEP:
  for (int step = 0; step < C::steps; ++step) {
    uint64_t eps = 0;
    load_rms_norm(params, eps);
    token_place at = first_token(seq);
    int within = 0;  // block of the group
    int part = 0;
  SCALE:
    for (int i = 0; i < iterations; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks * parts
      T2F_PIPELINE(1);
      // A group's sum comes with its first token and is kept for the others.
      scaled inverse;
      if (within == 0 && part == 0) {
        const uint64_t total = sums.read() + eps;
        inverse = rsqrt(total == 0 ? 1 : total);
        inverses[at.t] = inverse;
      } else {
        inverse = inverses[at.t];
      }
      if (part == 0) v = held.read();
      const vec<typename C::in_t, C::ways> lowest =
          take_lanes<C::ways, typename C::in_t, C::lanes>(v);
      vec<int32_t, C::ways> made;
      for (int way = 0; way < C::ways; ++way) {
#pragma HLS unroll
        made.d[way] = normalized<input_bits<C>>(lowest.d[way], inverse);
      }
      put_lanes<C::ways, int32_t, C::lanes>(made, out);
      if (part != parts - 1) {
        ++part;
      } else {
        y.write(out);
        part = 0;
        within = next_within<C::group_blocks, C::tile>(at, within);
        advance<C::blocks, C::tile>(at, seq);
      }
    }
  }
}

}  // namespace t2f
#endif
