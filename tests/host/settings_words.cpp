// SPDX-License-Identifier: Apache-2.0
// Settings words for lines "top_k temperature scale seed" of standard input, as hexadecimal digits.
#include <cinttypes>
#include <cstdio>

#include "settings.hpp"

int main() {
  int top_k = 0;
  double temperature = 0.0;
  double scale = 0.0;
  std::uint64_t seed = 0;
  while (std::scanf("%d %la %la %" SCNu64, &top_k, &temperature, &scale, &seed) == 4) {
    unsigned char word[64];
    host::settings_word(top_k, temperature, scale, seed, word);
    for (const unsigned char byte : word) std::printf("%02x", byte);
    std::printf("\n");
  }
}
