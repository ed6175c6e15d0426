// SPDX-License-Identifier: Apache-2.0
// The word of settings that a sampler takes, as torch2fpga makes it (lower/sample.py).
#ifndef HOST_SETTINGS_HPP
#define HOST_SETTINGS_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace host {

// 64 bytes: top k, multiplier, shift, the two halves of the seed.
// scale: real value of one unit of the logits.
inline void settings_word(int top_k, double temperature, double scale, std::uint64_t seed,
                          unsigned char *to) {
  const int bits = 17;
  const int most_shift = 46;
  const double log2_e = 1.4426950408889634;
  // Distances are in 1/256 of a power of two; beyond the largest multiplier the weight is 0 either way.
  const double unit =
      std::min(scale / temperature * log2_e * 256.0, static_cast<double>((1 << bits) - 1));
  int shift = most_shift;
  if (unit > 0) {
    shift = std::min(shift, bits - 1 - static_cast<int>(std::floor(std::log2(unit))));
    if (std::ldexp(unit, shift) >= (1 << bits) - 0.5) --shift;
  }
  const double factor = std::floor(std::ldexp(unit, shift) + 0.5);
  const std::uint32_t words[5] = {
      static_cast<std::uint32_t>(top_k), static_cast<std::uint32_t>(factor),
      static_cast<std::uint32_t>(shift), static_cast<std::uint32_t>(seed),
      static_cast<std::uint32_t>(seed >> 32)};
  std::memset(to, 0, 64);
  std::memcpy(to, words, sizeof words);
}

}  // namespace host

#endif
