// SPDX-License-Identifier: Apache-2.0
// Checksums of what a launch reads: a reader of constants adds up its words and gives the sum at its
// end, and the process that writes the results writes the sums of all readers behind them. A host
// that knows the sums of its images sees by them when the card's memory changed.
//
// A word is folded by exclusive or of its sixteen numbers (any change within one of them shows), and
// added modulo 2^32 - 1: modulo 2^32 the upper bits of words that are read an even number of times
// would be lost, while a power of two times less than 2^32 - 1 readings is never a multiple of it. The
// total is kept in 64 bits and folded at the end. Words that changed places are not seen.
//
// Cycles: SUM (a reader) of 1 iteration, SUMS (the writer) of the readers; with words for results
// filled up to sixteen.
#ifndef T2F_SUMS_HPP
#define T2F_SUMS_HPP

#include "t2f/core.hpp"
#include "t2f/gather.hpp"

namespace t2f {

inline uint32_t folded(const word &w) {
#pragma HLS inline
  uint32_t sum = 0;
  for (int number = 0; number < 16; ++number) {
#pragma HLS unroll
    uint32_t bits = 0;
    for (int byte = 0; byte < 4; ++byte) {
#pragma HLS unroll
      const int at = number * 4 + byte;
      bits |= static_cast<uint32_t>(static_cast<uint8_t>(w.d[at])) << (8 * byte);
    }
    sum ^= bits;
  }
  return sum;
}

// A reader is called with the stream that gets its sum, or without one: then it adds up nothing.
inline void add_word(uint64_t &, const word &) {
#pragma HLS inline
}

inline void add_word(uint64_t &total, const word &w, hls::stream<int32_t> &) {
#pragma HLS inline
  total += folded(w);
}

inline void give_sum(uint64_t) {
#pragma HLS inline
}

inline void give_sum(uint64_t total, hls::stream<int32_t> &sum) {
#pragma HLS inline
  const uint64_t once = (total & 0xffffffffu) + (total >> 32);
  const uint64_t twice = (once & 0xffffffffu) + (once >> 32);
SUM:
  for (int i = 0; i < 1; ++i) {
    T2F_PIPELINE(1);
    sum.write(static_cast<int32_t>(static_cast<uint32_t>(twice)));
  }
}

// The sums of a turn where results are numbers.
template <typename... Sums>
inline void write_sums_of_turn(int32_t *memory, int turn, Sums &...from) {
#pragma HLS inline
  constexpr int count = sizeof...(Sums);
SUMS:
  for (int i = 0; i < count; ++i) {
    T2F_PIPELINE(1);
    const int32_t sum = read_from(i, from...);
    T2F_MEMORY(memory, turn * count + i) = sum;
  }
}

// The sums of a launch where results are words, sixteen of them in each.
template <typename... Sums>
inline void write_sum_words(word *memory, Sums &...from) {
#pragma HLS inline
  constexpr int count = sizeof...(Sums);
  word current = {};
#pragma HLS array_partition variable = current.d complete
  int part = 0;
SUMS:
  for (int i = 0; i < ceil_div(count, 16) * 16; ++i) {
    T2F_PIPELINE(1);
    int32_t sum = 0;
    if (i < count) sum = read_from(i, from...);
    const uint32_t bits = static_cast<uint32_t>(sum);
    for (int at = 0; at < 64; ++at) {
#pragma HLS unroll
      if (part == at / 4) current.d[at] = static_cast<int8_t>((bits >> (8 * (at % 4))) & 255u);
    }
    if (part == 15) T2F_MEMORY(memory, i / 16) = current;
    part = part == 15 ? 0 : part + 1;
  }
}

}  // namespace t2f
#endif
