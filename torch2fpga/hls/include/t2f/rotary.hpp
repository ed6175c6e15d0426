// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: neighbouring channels 2 i and 2 i + 1 of a head are turned by the
// angle position * frequency[i], positions counted from 0 in every sequence.
//
// Angles are phases in turns with 32 fraction bits, so that whole turns overflow. Sine and cosine
// have 14 fraction bits, products of them and int16 values are exact; 4 bits are then rounded off,
// so that what follows multiplies 27 bits.
//
// Parameter words of a step: one for each block of a head, with a frequency (uint32) for each of
// its pairs.
// Cycles of a step: LOAD of head_blocks, then one flat loop ROTATE over its batch * seq * blocks
// tokens.
#ifndef T2F_ROTARY_HPP
#define T2F_ROTARY_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"

namespace t2f {

// The pairs of a token, turned by their phases.
template <int LANES>
inline vec<int32_t, LANES> turned(const vec<int16_t, LANES> &v, const uint32_t (&phase)[LANES / 2]) {
#pragma HLS inline
  vec<int32_t, LANES> out;
  for (int pair = 0; pair < LANES / 2; ++pair) {
#pragma HLS unroll
    const int32_t sin = sine(phase[pair]);
    const int32_t cos = sine(phase[pair] + (1u << 30));
    const int32_t a = v.d[2 * pair];
    const int32_t b = v.d[2 * pair + 1];
    out.d[2 * pair] = static_cast<int32_t>(round_shift(a * cos - b * sin, 4));
    out.d[2 * pair + 1] = static_cast<int32_t>(round_shift(b * cos + a * sin, 4));
  }
  return out;
}

template <typename C>
inline void rotate_rows(hls::stream<vec<int16_t, C::lanes>> &x, hls::stream<word> &params,
                        hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline
  const int end = past + seq - 1;  // position of a sequence's last row
  uint32_t frequency[C::head_blocks][C::lanes / 2];
#pragma HLS array_partition variable = frequency complete dim = 2
  const int tokens = rows_of(batch, seq) * C::blocks;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  LOAD:
    for (int i = 0; i < C::head_blocks; ++i) {
      T2F_PIPELINE(1);
      const word w = params.read();
      for (int pair = 0; pair < C::lanes / 2; ++pair) {
#pragma HLS unroll
        frequency[i][pair] = static_cast<uint32_t>(int32_at(w, pair));
      }
    }
    token_place at = first_token(seq);
    int within = 0;  // block of the head
  ROTATE:
    for (int i = 0; i < tokens; ++i) {
#pragma HLS loop_tripcount max = C::max_batch * C::max_seq * C::blocks
      T2F_PIPELINE(1);
      const uint32_t position = static_cast<uint32_t>(end - at.behind + at.t);
      uint32_t phase[C::lanes / 2];
#pragma HLS array_partition variable = phase complete
      for (int pair = 0; pair < C::lanes / 2; ++pair) {
#pragma HLS unroll
        phase[pair] = position * frequency[within][pair];
      }
      y.write(turned<C::lanes>(x.read(), phase));
      if (at.t == C::tile - 1 || at.t == at.behind) {
        within = within == C::head_blocks - 1 ? 0 : within + 1;
      }
      advance<C::blocks, C::tile>(at, seq);
    }
  }
}

template <typename C>
void rotary(hls::stream<vec<int16_t, C::lanes>> &x, hls::stream<word> &params,
            hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  rotate_rows<C>(x, params, y, batch, seq, 0);
}

// Positions counted from `past`.
template <typename C>
void rotary(hls::stream<vec<int16_t, C::lanes>> &x, hls::stream<word> &params,
            hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq, int past) {
#pragma HLS inline off
  rotate_rows<C>(x, params, y, batch, seq, past);
}

}  // namespace t2f
#endif
