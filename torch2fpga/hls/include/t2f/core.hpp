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

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace t2f
#endif
