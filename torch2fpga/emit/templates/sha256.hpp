// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4) of a byte vector as 64 hexadecimal digits.
#ifndef TB_SHA256_HPP
#define TB_SHA256_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

class Sha256 {
 public:
  void block(const unsigned char *bytes) {
    std::uint32_t w[64];
    for (int i = 0; i < 16; ++i) {
      w[i] = std::uint32_t(bytes[4 * i]) << 24 | std::uint32_t(bytes[4 * i + 1]) << 16 |
             std::uint32_t(bytes[4 * i + 2]) << 8 | std::uint32_t(bytes[4 * i + 3]);
    }
    for (int i = 16; i < 64; ++i) {
      const std::uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >> 3);
      const std::uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    std::uint32_t s[8];
    for (int i = 0; i < 8; ++i) s[i] = state_[i];
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t e = turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25);
      const std::uint32_t t1 = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constant(i) + w[i];
      const std::uint32_t a = turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22);
      const std::uint32_t t2 = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      for (int j = 7; j > 0; --j) s[j] = s[j - 1];
      s[4] += t1;
      s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; ++i) state_[i] += s[i];
  }

  std::string digits() const {
    std::string text;
    for (int i = 0; i < 64; ++i) {
      text += "0123456789abcdef"[state_[i / 8] >> (28 - i % 8 * 4) & 15u];
    }
    return text;
  }

 private:
  static std::uint32_t turn(std::uint32_t value, int by) {
    return value >> by | value << (32 - by);
  }
  static std::uint32_t constant(int i) {
    static const std::uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    return k[i];
  }

  std::uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

inline std::string sha256(const std::vector<unsigned char> &bytes) {
  Sha256 sum;
  std::size_t at = 0;
  for (; at + 64 <= bytes.size(); at += 64) sum.block(bytes.data() + at);
  std::vector<unsigned char> last(bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.end());
  last.push_back(0x80);
  while (last.size() % 64 != 56) last.push_back(0);
  const std::uint64_t bits = std::uint64_t(bytes.size()) * 8;
  for (int shift = 56; shift >= 0; shift -= 8) last.push_back((bits >> shift) & 255u);
  for (std::size_t i = 0; i < last.size(); i += 64) sum.block(last.data() + i);
  return sum.digits();
}

}  // namespace bench

#endif
