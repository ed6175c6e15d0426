// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic with one rounding rule for the whole project: halves go up
// (add half, then arithmetic shift right).  The same functions are written in
// torch2fpga/simulate/fixed.py; tests hold the two together bit for bit.
#ifndef T2F_FIXED_HPP
#define T2F_FIXED_HPP

#include <cstdint>

#include "t2f/tables.hpp"

namespace t2f {

// round(value / 2^shift), halves up; shift 0 returns the value.
inline int64_t round_shift(int64_t value, int shift) {
#pragma HLS inline
  const int64_t half = shift > 0 ? int64_t(1) << (shift - 1) : 0;
  return (value + half) >> shift;
}

// Clamp to a signed field of `bits` bits; 8-bit fields are symmetric (-127..127).
inline int64_t saturate(int64_t value, int bits) {
#pragma HLS inline
  const int64_t high = (int64_t(1) << (bits - 1)) - 1;
  const int64_t low = bits == 8 ? -high : -high - 1;
  return value > high ? high : (value < low ? low : value);
}

// Index of the highest set bit of a value >= 1.
inline int top_bit(uint64_t value) {
#pragma HLS inline
  int top = 0;
  for (int b = 1; b < 64; ++b) {
#pragma HLS unroll
    if ((value >> b) & 1) top = b;
  }
  return top;
}

// A positive number as mantissa * 2^exponent.
struct scaled {
  uint32_t mantissa;
  int exponent;
};

// 1 / value for value >= 1: mantissa has 17 fraction bits and lies in (2^16, 2^17],
// 1 / value = mantissa * 2^-17 * 2^-exponent.  Table of 512, one Newton step.
inline scaled reciprocal(uint32_t value) {
#pragma HLS inline
  const int top = top_bit(value);
  const uint64_t m = uint64_t(value) << (31 - top);         // U1.31, [1, 2)
  const uint64_t r0 = reciprocal_table[(m >> 22) & 511];    // U0.16
  const uint64_t t = (m >> 15) * r0;                        // U1.32, close to 1
  const uint64_t r1 = (r0 * ((uint64_t(1) << 33) - t)) >> 17;  // U0.31
  const uint32_t rounded = static_cast<uint32_t>((r1 + (1u << 13)) >> 14);
  return scaled{rounded, top};
}

// 1 / sqrt(value) for value >= 1: mantissa has 18 fraction bits and lies in
// (2^17, 2^18], 1 / sqrt(value) = mantissa * 2^-18 * 2^-exponent.  Table of 384,
// two Newton steps.
inline scaled rsqrt(uint64_t value) {
#pragma HLS inline
  const int even = top_bit(value) & ~1;
  // Every intermediate value is spelt in the bits that it has: the products are no wider.
  const uint64_t m =
      static_cast<uint32_t>(even >= 30 ? value >> (even - 30) : value << (30 - even));  // U2.30, [1, 4)
  const uint64_t r0 = rsqrt_table[(m >> 23) - 128];                             // U0.16
  const uint64_t three = uint64_t(3) << 30;
  const uint64_t s0 = (m * (r0 * r0)) >> 32;  // U2.30, close to 1
  const uint64_t r1 = static_cast<uint32_t>((r0 * static_cast<uint32_t>(three - s0)) >> 17);  // U0.30
  const uint64_t square = ((r1 * r1) >> 28) & ((uint64_t(1) << 33) - 1);  // U1.32
  const uint64_t s1 = (m * square) >> 32;                                 // U2.30
  const uint64_t r2 = (r1 * static_cast<uint32_t>(three - s1)) >> 31;     // U0.30
  return scaled{static_cast<uint32_t>((r2 + (1u << 11)) >> 12), even / 2};
}

// sin of a phase in turns: 32 fraction bits, the overflow is a whole turn. 14 fraction bits. A
// quarter turn is 256 segments, and linear between their ends.
inline int32_t sine(uint32_t phase) {
#pragma HLS inline
  const uint32_t at = ((phase + (1u << 11)) >> 12) & ((1u << 20) - 1);
  const uint32_t into = at & ((1u << 18) - 1);
  const uint32_t place = ((at >> 18) & 1) != 0 ? (1u << 18) - into : into;
  const uint32_t index = place >> 10;
  const int32_t fraction = static_cast<int32_t>(place & 1023);
  const int32_t low = static_cast<int32_t>(sine_table[index]);
  const int32_t high = static_cast<int32_t>(sine_table[index + 1]);
  const int64_t between = low + round_shift(static_cast<int64_t>(high - low) * fraction, 10);
  const int32_t quarter = static_cast<int32_t>(round_shift(between, 2));
  return (at >> 19) != 0 ? -quarter : quarter;
}

}  // namespace t2f
#endif
