// SPDX-License-Identifier: Apache-2.0
// What kernels add up of the images that they read, and what it must be.
#ifndef HOST_SUMS_HPP
#define HOST_SUMS_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tables.hpp"

namespace host {

class Memory;

// Of an image: its part that is read again for every tile of rows, and the rest.
struct Added {
  std::uint64_t tile = 0;
  std::uint64_t once = 0;
};

inline Added add_up(const Sum &sum, const unsigned char *image, std::size_t bytes) {
  Added added;
  for (std::size_t at = 0; at < bytes; at += 64) {
    // A port gives whole words; no image ends within one, but nothing behind it would be read here.
    std::uint32_t numbers[16] = {};
    std::memcpy(numbers, image + at, bytes - at < 64 ? bytes - at : 64);
    std::uint32_t word = 0;
    for (const std::uint32_t number : numbers) word ^= number;
    (at / 64 < sum.tile_words ? added.tile : added.once) += word;
  }
  return added;
}

// What a turn gives whose sequences have that many rows: the total modulo 2^32 - 1, where a total that is
// not 0 gives 2^32 - 1 for 0 (a kernel folds its 64 bits). Modulo 2^32 a change of an upper bit would be
// lost where a word is read an even number of times.
inline std::uint32_t expected_sum(const Sum &sum, const Added &added, int batch, int rows) {
  constexpr std::uint64_t modulus = 0xffffffff;
  const std::uint64_t tiles = static_cast<std::uint64_t>((rows + sum.tile - 1) / sum.tile);
  const std::uint64_t times = static_cast<std::uint64_t>(batch) * tiles;
  const std::uint64_t left = added.tile % modulus * (times % modulus) % modulus + added.once % modulus;
  const bool none = added.once == 0 && (added.tile == 0 || times == 0);
  const std::uint64_t value = left % modulus;
  return static_cast<std::uint32_t>(value == 0 && !none ? modulus : value);
}

// Makes sums on the device ones that were not written: all, or those of a launch. Does nothing where the
// design has none. Throws DeviceError.
void clear_sums(Memory &memory);
void clear_sums(Memory &memory, const Numbers &numbers);

// Brings the sums of a launch to the host and compares them; `launch` is its number for the text. Does
// nothing where the design has none. Throws DeviceError with every port of the first turn that is wrong.
void check_sums(Memory &memory, const Numbers &numbers, std::int64_t launch);

}  // namespace host

#endif
