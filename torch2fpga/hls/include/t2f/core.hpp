// SPDX-License-Identifier: Apache-2.0
// Words, vectors and loop helpers shared by every stage of the library.
//
// Token order of every row stream: for sequence, for tile of rows, for channel
// block, for row in the tile.  A token is one vector of `lanes` channels of one
// row.  With tile = 1 this is plain row-major order.
#ifndef T2F_CORE_HPP
#define T2F_CORE_HPP

#include <cstdint>

#include <hls_stream.h>

#include "t2f/dataflow.hpp"

// What a memory holds before it is first written never leaves a stage. C++ wants it to be
// defined all the same; hardware does not spend a cycle on it.
#ifdef __SYNTHESIS__
#define T2F_UNWRITTEN
#else
#define T2F_UNWRITTEN = {}
#endif

namespace t2f {

// A token: N elements side by side.  Aligned to its size so that g++ keeps it in
// one vector register and Vitis aggregates it into one word (first lane at the
// least significant bits, UG1399 "Structs in the Interface").
template <typename T, int N>
struct alignas(sizeof(T) * N < 64 ? sizeof(T) * N : 64) vec {
  static_assert((N & (N - 1)) == 0, "lanes are a power of two");
  T d[N];
};

// What a 512-bit memory port moves per beat.
using word = vec<int8_t, 64>;

// The i-th little-endian int32 of a memory word.
inline int32_t int32_at(const word &w, int i) {
#pragma HLS inline
  uint32_t value = 0;
  for (int byte = 0; byte < 4; ++byte) {
#pragma HLS unroll
    value |= static_cast<uint32_t>(static_cast<uint8_t>(w.d[4 * i + byte])) << (8 * byte);
  }
  return static_cast<int32_t>(value);
}

// Rows of the tile that starts at row `first` of a sequence of `seq` rows.
inline int tile_rows(int seq, int first, int tile) {
#pragma HLS inline
  const int left = seq - first;
  return left < tile ? left : tile;
}

// Rows of a launch. Both numbers have at most 16 bits (the compiled sizes do), so that one DSP slice
// multiplies them, and not three.
inline int rows_of(int batch, int seq) {
#pragma HLS inline
  return static_cast<int>(uint32_t(static_cast<uint16_t>(batch)) * static_cast<uint16_t>(seq));
}

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

constexpr int larger(int a, int b) { return a > b ? a : b; }

// Index of the highest set bit of a constant (a loop: the HLS tools take no recursion).
constexpr int floor_log2(int value) {
  int top = 0;
  for (int bit = 1; bit < 31; ++bit) {
    if (value >> bit != 0) top = bit;
  }
  return top;
}

// Where a token lies in the order above. A loop over all tokens of a step stays one flat
// loop, which the tools pipeline without a drain for every tile, and carries this along.
struct token_place {
  int behind;  // rows of the sequence behind the first row of the tile
  int block;
  int t;  // row in the tile
};

inline token_place first_token(int seq) {
#pragma HLS inline
  return token_place{seq - 1, 0, 0};
}

// The place of the next token; a sequence follows the last one. Every test is one comparison
// with a register, so that the whole step closes in a cycle.
template <int BLOCKS, int TILE>
inline void advance(token_place &at, int seq) {
#pragma HLS inline
  if (at.t != TILE - 1 && at.t != at.behind) {
    ++at.t;
  } else {
    at.t = 0;
    if (at.block != BLOCKS - 1) {
      ++at.block;
    } else {
      at.block = 0;
      at.behind = at.behind >= TILE ? at.behind - TILE : seq - 1;
    }
  }
}

// The largest lane. Compared in pairs, log2(N) levels deep: what is carried through a loop
// behind it is one comparison, not a chain of N.
template <typename T, int N>
inline T reduce_max(vec<T, N> v) {
#pragma HLS inline
  constexpr int levels = floor_log2(N);
  for (int level = 0; level < levels; ++level) {
#pragma HLS unroll
    const int half = N >> (level + 1);
    for (int i = 0; i < N / 2; ++i) {
#pragma HLS unroll
      if (i < half) v.d[i] = v.d[i] > v.d[i + half] ? v.d[i] : v.d[i + half];
    }
  }
  return v.d[0];
}

// The sum of the lanes, in pairs likewise.
template <typename T, int N>
inline T reduce_sum(vec<T, N> v) {
#pragma HLS inline
  constexpr int levels = floor_log2(N);
  for (int level = 0; level < levels; ++level) {
#pragma HLS unroll
    const int half = N >> (level + 1);
    for (int i = 0; i < N / 2; ++i) {
#pragma HLS unroll
      if (i < half) v.d[i] += v.d[i + half];
    }
  }
  return v.d[0];
}

}  // namespace t2f
#endif
