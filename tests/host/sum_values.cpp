// SPDX-License-Identifier: Apache-2.0
// Sums that the host expects, for lines "tile_words tile batch rows bytes" of standard input, each followed
// by that many bytes as hexadecimal digits.
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "sums.hpp"

int main() {
  host::Sum sum = {0, 0, 0};
  int batch = 0;
  int rows = 0;
  std::size_t bytes = 0;
  while (std::scanf("%zu %d %d %d %zu", &sum.tile_words, &sum.tile, &batch, &rows, &bytes) == 5) {
    std::vector<unsigned char> image(bytes);
    for (unsigned char &byte : image) {
      unsigned int value = 0;
      if (std::scanf(" %2x", &value) != 1) return 1;
      byte = static_cast<unsigned char>(value);
    }
    const host::Added added = host::add_up(sum, image.data(), image.size());
    std::printf("%" PRIu32 "\n", host::expected_sum(sum, added, batch, rows));
  }
}
