// SPDX-License-Identifier: Apache-2.0
// Stages that work on fewer channels a cycle than a token has.
//
// With `ways` channels a cycle a token takes parts = lanes / ways iterations: it is read at
// its first part, and every part takes the lowest `ways` lanes and moves the others down.
// Results move in from the top, and leave as a token at the last part. Registers move
// instead of being chosen from: no multiplexer grows with the lanes.
//
// Also the widths that values are known to have, so that a product takes the multiplier that
// it needs and not that of its C++ type.
#ifndef T2F_WAYS_HPP
#define T2F_WAYS_HPP

#include "t2f/core.hpp"
#include "t2f/packed.hpp"

namespace t2f {

// The lowest WAYS lanes; the others move down behind them.
template <int WAYS, typename T, int LANES>
inline vec<T, WAYS> take_lanes(vec<T, LANES> &token) {
#pragma HLS inline
  vec<T, WAYS> lowest T2F_UNWRITTEN;
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    if (lane < WAYS) lowest.d[lane % WAYS] = token.d[lane];
    token.d[lane] = token.d[(lane + WAYS) % LANES];
  }
  return lowest;
}

// WAYS lanes move in at the top: after LANES / WAYS calls the first ones are at the bottom.
template <int WAYS, typename T, int LANES>
inline void put_lanes(const vec<T, WAYS> &part, vec<T, LANES> &token) {
#pragma HLS inline
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    token.d[lane] =
        lane + WAYS < LANES ? token.d[(lane + WAYS) % LANES] : part.d[(lane + WAYS) % LANES % WAYS];
  }
}

// A value of which it is known that it fits a signed field of BITS bits. Compiled with g++ the
// bits above are lost as they would be in hardware.
template <int BITS>
inline int64_t narrowed(int64_t value) {
#pragma HLS inline
  static_assert(BITS > 0 && BITS <= 64, "a field of an int64");
#ifdef T2F_AP_INT
  return ap_int<BITS>(value).to_int64();
#else
  return static_cast<int64_t>(static_cast<uint64_t>(value) << (64 - BITS)) >> (64 - BITS);
#endif
}

}  // namespace t2f
#endif
