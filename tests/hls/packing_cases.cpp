// SPDX-License-Identifier: Apache-2.0
//
// The packing recipes against plain products. Each line of output is
//   NAME compared different
//
//   packing_cases emulated   every operand value, the slice's 27-, 18- and 48-bit words as int64
//   packing_cases spelled    the library's functions, built plain or with ap_int
//   packing_cases beyond     chains one longer than allowed (ap_int build only)
//   packing_cases bytes      the weights of every byte: byte, w0, w1
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "t2f/packed4.hpp"

#if defined(__SYNTHESIS__) && !defined(T2F_AP_INT)
#error "ap_int.h was not found: this would test the plain path twice"
#endif

namespace {

struct Count {
  explicit Count(const char *title) : name(title) {}
  ~Count() { std::printf("%s %ld %ld\n", name, compared, different); }
  void check(bool same) {
    ++compared;
    different += same ? 0 : 1;
  }
  const char *name;
  long compared = 0;
  long different = 0;
};

class Random {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  // One in four is an end of the range.
  int between(int least, int greatest) {
    const uint32_t bits = next();
    if (bits % 4 == 0) return bits / 4 % 2 == 0 ? least : greatest;
    return least + static_cast<int>(bits / 4 % static_cast<uint32_t>(greatest - least + 1));
  }

 private:
  uint64_t state_ = 20240229;
};

int8_t packed_byte(int w0, int w1) { return static_cast<int8_t>(static_cast<uint8_t>(16 * w1 + w0)); }

template <int N>
void fill(int value, t2f::vec<int8_t, N> &v) {
  std::memset(v.d, value, N);
}

// --- all operand values, with the slice's words emulated -------------------------------

template <int BITS>
int64_t wrapped(int64_t value) {
  return static_cast<int64_t>(static_cast<uint64_t>(value) << (64 - BITS)) >> (64 - BITS);
}

template <int BITS>
int64_t take(int64_t &p) {
  const int64_t field = wrapped<BITS>(p);
  p = (p - field) >> BITS;
  return field;
}

// P of `chain` equal products
int64_t slice(int64_t a, int64_t b, int chain) {
  return wrapped<48>(wrapped<48>(wrapped<27>(a) * wrapped<18>(b)) * chain);
}

void emulated_w8a8(const char *name, int least_weight, int chain) {
  Count count(name);
  for (int x0 = -128; x0 < 128; ++x0) {
    for (int x1 = -128; x1 < 128; ++x1) {
      for (int w = least_weight; w < 128; ++w) {
        int64_t p = slice(x1 * (1 << 18) + x0, w, chain);
        const int64_t low = take<18>(p);
        count.check(low == x0 * w * chain && wrapped<30>(p) == x1 * w * chain);
      }
    }
  }
}

void emulated_u8a8(const char *name, int chain) {
  Count count(name);
  for (int p0 = 0; p0 < 256; ++p0) {
    for (int p1 = 0; p1 < 256; ++p1) {
      for (int v = -128; v < 128; ++v) {
        int64_t p = slice(p1 * (1 << 18) + p0, v, chain);
        const int64_t low = take<18>(p);
        count.check(low == p0 * v * chain && wrapped<30>(p) == p1 * v * chain);
      }
    }
  }
}

void emulated_w4a8(const char *name, int chain) {
  Count count(name);
  for (int w0 = -8; w0 < 8; ++w0) {
    for (int w1 = -8; w1 < 8; ++w1) {
      for (int x = -128; x < 128; ++x) {
        int64_t p = slice(w1 * (1 << 22) + w0, x, chain);
        const int64_t low = take<22>(p);
        count.check(low == w0 * x * chain && wrapped<26>(p) == w1 * x * chain);
      }
    }
  }
}

void emulated_w4a4(const char *name, int least, int chain) {
  Count count(name);
  for (int w = 0; w < 256; ++w) {
    const int w0 = w % 16 - 8;
    const int w1 = w / 16 - 8;
    for (int x = 0; x < 256; ++x) {
      const int x0 = x % 16 + least;
      const int x1 = x / 16 + least;
      int64_t p = slice(w1 * (1 << 22) + w0, x1 * (1 << 11) + x0, chain);
      bool same = take<11>(p) == w0 * x0 * chain;
      same = take<11>(p) == w0 * x1 * chain && same;
      same = take<11>(p) == w1 * x0 * chain && same;
      count.check(wrapped<15>(p) == w1 * x1 * chain && same);
    }
  }
}

void emulated() {
  for (const int chain : {1, 7, 8}) {
    char name[64];
    std::snprintf(name, sizeof(name), "w8a8-full/%d", chain);
    emulated_w8a8(name, -128, chain);
  }
  emulated_w8a8("w8a8/8", -127, 8);
  emulated_w8a8("w8a8/9", -127, 9);
  emulated_u8a8("u8a8/1", 1);
  emulated_u8a8("u8a8/4", 4);
  emulated_u8a8("u8a8/5", 5);
  for (const int chain : {1, 127, 2047, 2048}) {
    char name[64];
    std::snprintf(name, sizeof(name), "w4a8/%d", chain);
    emulated_w4a8(name, chain);
  }
  emulated_w4a4("w4a4/1", -8, 1);
  emulated_w4a4("w4a4/15", -8, 15);
  emulated_w4a4("w4a4/16", -8, 16);
  emulated_w4a4("w4a4-unsigned/1", 0, 1);
  emulated_w4a4("w4a4-unsigned/8", 0, 8);
  emulated_w4a4("w4a4-unsigned/9", 0, 9);
}

// --- the library's functions -----------------------------------------------------------

// Random lanes and, in every fourth, all lanes at one pair of corners.
template <int N, int CHAIN, int LEAST>
void spelled_pair(const char *name) {
  Count count(name);
  Random random;
  for (int round = 0; round < 100000; ++round) {
    t2f::vec<int8_t, N> x0;
    t2f::vec<int8_t, N> x1;
    int8_t w[N];
    for (int i = 0; i < N; ++i) {
      x0.d[i] = static_cast<int8_t>(random.between(-128, 127));
      x1.d[i] = static_cast<int8_t>(random.between(-128, 127));
      w[i] = static_cast<int8_t>(random.between(LEAST, 127));
    }
    if (round % 4 == 0) {
      fill<N>(round & 4 ? -128 : 127, x0);
      fill<N>(round & 8 ? -128 : 127, x1);
      std::memset(w, round & 16 ? LEAST : 127, N);
    }
    int32_t sum0 = 5;
    int32_t sum1 = -7;
    t2f::dot_pair<N, CHAIN, LEAST>(x0, x1, w, sum0, sum1);
    for (int i = 0; i < N; ++i) {
      sum0 -= x0.d[i] * w[i];
      sum1 -= x1.d[i] * w[i];
    }
    count.check(sum0 == 5 && sum1 == -7);
  }
}

// All 2^24 pairs of products.
void spelled_all_pairs() {
  Count count("w8a8-full/all");
  for (int number = 0; number < 1 << 24; ++number) {
    const t2f::vec<int8_t, 1> x0 = {{static_cast<int8_t>(number)}};
    const t2f::vec<int8_t, 1> x1 = {{static_cast<int8_t>(number >> 8)}};
    const int8_t w[1] = {static_cast<int8_t>(number >> 16)};
    int32_t sum0 = 0;
    int32_t sum1 = 0;
    t2f::dot_pair<1, 7, -128>(x0, x1, w, sum0, sum1);
    count.check(sum0 == x0.d[0] * w[0] && sum1 == x1.d[0] * w[0]);
  }
}

// The same for weights of attention and values: random keys and, in every fourth round, all keys
// at one pair of corners. An odd number of keys leaves a chain short.
template <int N, int CHAIN>
void spelled_weights(const char *name) {
  Count count(name);
  Random random;
  for (int round = 0; round < 100000; ++round) {
    uint8_t p0[N];
    uint8_t p1[N];
    int8_t v[N];
    for (int i = 0; i < N; ++i) {
      p0[i] = static_cast<uint8_t>(random.between(0, 255));
      p1[i] = static_cast<uint8_t>(random.between(0, 255));
      v[i] = static_cast<int8_t>(random.between(-128, 127));
    }
    if (round % 4 == 0) {
      std::memset(p0, round & 4 ? 0 : 255, N);
      std::memset(p1, round & 8 ? 0 : 255, N);
      std::memset(v, round & 16 ? -128 : 127, N);
    }
    int32_t sum0 = 5;
    int32_t sum1 = -7;
    int32_t sum = 11;
    t2f::weigh_pair<N, CHAIN>(p0, p1, v, sum0, sum1);
    t2f::weigh_one<N>(p0, v, sum);
    for (int i = 0; i < N; ++i) {
      sum -= p0[i] * v[i];
      sum0 -= p0[i] * v[i];
      sum1 -= p1[i] * v[i];
    }
    count.check(sum == 11 && sum0 == 5 && sum1 == -7);
  }
}

// All 2^24 pairs of products of them.
void spelled_all_weights() {
  Count count("u8a8/all");
  for (int number = 0; number < 1 << 24; ++number) {
    const uint8_t p0[1] = {static_cast<uint8_t>(number)};
    const uint8_t p1[1] = {static_cast<uint8_t>(number >> 8)};
    const int8_t v[1] = {static_cast<int8_t>(number >> 16)};
    int32_t sum0 = 0;
    int32_t sum1 = 0;
    t2f::weigh_pair<1>(p0, p1, v, sum0, sum1);
    count.check(sum0 == p0[0] * v[0] && sum1 == p1[0] * v[0]);
  }
}

// One wide product: the ends of both operands against each other and against random ones.
void spelled_slice() {
  Count count("slice");
  Random random;
  const int wide = (1 << 26) - 1;
  const int narrow = (1 << 17) - 1;
  for (int number = 0; number < 100000; ++number) {
    const int a = number < 4 ? (number & 1 ? wide : -wide - 1) : random.between(-wide - 1, wide);
    const int b = number < 4 ? (number & 2 ? narrow : -narrow - 1) : random.between(-narrow - 1, narrow);
    count.check(t2f::slice_product(a, b) == static_cast<int64_t>(a) * b);
  }
}

// Every product in one lane, against random products in the others.
template <int N>
void spelled_w4a8() {
  Count count("w4a8");
  Random random;
  for (int number = 0; number < 1 << 16; ++number) {
    t2f::vec<int8_t, N> x;
    int8_t w[N];
    int32_t want0 = 0;
    int32_t want1 = 0;
    for (int i = 0; i < N; ++i) {
      const bool all = i == number % N;
      const int w0 = all ? number % 16 - 8 : random.between(-8, 7);
      const int w1 = all ? number / 16 % 16 - 8 : random.between(-8, 7);
      x.d[i] = static_cast<int8_t>(all ? number / 256 - 128 : random.between(-128, 127));
      w[i] = packed_byte(w0, w1);
      want0 += w0 * x.d[i];
      want1 += w1 * x.d[i];
    }
    t2f::w4a8_sum<t2f::w4a8_chain> sum = {0};
    int32_t sum0 = 5;
    int32_t sum1 = -7;
    t2f::accumulate_w4a8<N>(x, w, sum);
    t2f::drain_w4a8(sum, sum0, sum1);
    count.check(sum0 == want0 + 5 && sum1 == want1 - 7 && sum.p == 0);
  }
}

// Chains of `length` products, equal ones at the corners or random ones. What the fields hold
// when a chain is too long is the same on both paths, so it is printed.
void spelled_chain(const char *name, int length, bool print) {
  Count count(name);
  Random random;
  for (int number = 0; number < 16; ++number) {
    const bool equal = number < 8;
    t2f::w4a8_sum<t2f::w4a8_chain> sum = {0};
    int32_t want0 = 0;
    int32_t want1 = 0;
    for (int i = 0; i < length; ++i) {
      t2f::vec<int8_t, 1> x;
      const int w0 = equal ? (number & 1 ? -8 : 7) : random.between(-8, 7);
      const int w1 = equal ? (number & 2 ? -8 : 7) : random.between(-8, 7);
      x.d[0] = static_cast<int8_t>(equal ? (number & 4 ? -128 : 127) : random.between(-128, 127));
      const int8_t w[1] = {packed_byte(w0, w1)};
      want0 += w0 * x.d[0];
      want1 += w1 * x.d[0];
      t2f::accumulate_w4a8<1>(x, w, sum);
    }
    int32_t sum0 = 0;
    int32_t sum1 = 0;
    t2f::drain_w4a8(sum, sum0, sum1);
    count.check(sum0 == want0 && sum1 == want1);
    if (print) std::printf("field %d %d\n", sum0, sum1);
  }
}

// All quadruples: in every lane at once, or in one lane against random ones.
template <int N, int CHAIN, bool SIGNED>
void spelled_quad(const char *name) {
  Count count(name);
  Random random;
  const int least = SIGNED ? -8 : 0;
  for (int number = 0; number < 1 << 17; ++number) {
    t2f::vec<int8_t, N> x0;
    t2f::vec<int8_t, N> x1;
    int8_t w[N];
    int32_t want[2][2] = {{1, 2}, {3, 4}};
    for (int i = 0; i < N; ++i) {
      const bool chosen = number < 1 << 16 || i == number % N;
      const int bits = chosen ? number & 0xffff : static_cast<int>(random.next() & 0xffff);
      const int w0 = bits % 16 - 8;
      const int w1 = bits / 16 % 16 - 8;
      x0.d[i] = static_cast<int8_t>(bits / 256 % 16 + least);
      x1.d[i] = static_cast<int8_t>(bits / 4096 + least);
      w[i] = packed_byte(w0, w1);
      want[0][0] += w0 * x0.d[i];
      want[0][1] += w0 * x1.d[i];
      want[1][0] += w1 * x0.d[i];
      want[1][1] += w1 * x1.d[i];
    }
    int32_t sum[2][2] = {{1, 2}, {3, 4}};
    t2f::dot_quad<N, CHAIN, SIGNED>(x0, x1, w, sum);
    count.check(std::memcmp(sum, want, sizeof(sum)) == 0);
  }
}

void spelled() {
  spelled_all_pairs();
  spelled_pair<8, 8, -127>("w8a8/8");
  spelled_pair<16, 8, -127>("w8a8/16");
  spelled_pair<8, 7, -128>("w8a8-full/8");
  spelled_pair<16, 7, -128>("w8a8-full/16");
  spelled_all_weights();
  spelled_weights<4, 4>("u8a8/4");
  spelled_weights<7, 4>("u8a8/7");
  spelled_weights<16, 4>("u8a8/16");
  spelled_weights<8, 3>("u8a8/short");
  spelled_slice();
  spelled_w4a8<8>();
  spelled_chain("w4a8/2047", 2047, false);
  spelled_chain("w4a8/2048", 2048, true);
  spelled_quad<16, 15, true>("w4a4");
  spelled_quad<16, 8, false>("w4a4-unsigned");
}

// --- one product more than a chain may have ---------------------------------------------

#ifdef T2F_AP_INT
template <int CHAIN>
void beyond_w4a4(const char *name, int least) {
  Count count(name);
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const int w[2] = {bits % 16 - 8, bits / 16 % 16 - 8};
    const int x[2] = {bits / 256 % 16 + least, bits / 4096 + least};
    ap_int<48> p = 0;
    for (int i = 0; i < CHAIN; ++i) {
      t2f::accumulate_packed(t2f::weight_operand(packed_byte(w[0], w[1])), x[1] * (1 << 11) + x[0], p);
    }
    const ap_int<37> from1 = t2f::fields_above<11>(p);
    const ap_int<26> from2 = t2f::fields_above<11>(from1);
    const ap_int<15> from3 = t2f::fields_above<11>(from2);
    count.check(t2f::lowest_field<11>(p) == w[0] * x[0] * CHAIN &&
                t2f::lowest_field<11>(from1) == w[0] * x[1] * CHAIN &&
                t2f::lowest_field<11>(from2) == w[1] * x[0] * CHAIN &&
                from3.to_int() == w[1] * x[1] * CHAIN);
  }
}

// x1 has no part in it: a field that overflows is the low one.
template <int CHAIN>
void beyond_w8a8(const char *name, int least_weight) {
  Count count(name);
  for (int x = -128; x < 128; ++x) {
    for (int w = least_weight; w < 128; ++w) {
      ap_int<48> p = 0;
      const int a = 93 * (1 << 18) + x;
      for (int i = 0; i < CHAIN; ++i) t2f::accumulate_packed(a, w, p);
      count.check(t2f::lowest_field<18>(p) == x * w * CHAIN &&
                  t2f::fields_above<18>(p).to_int() == 93 * w * CHAIN);
    }
  }
}

template <int CHAIN>
void beyond_u8a8(const char *name) {
  Count count(name);
  for (int x = 0; x < 256; ++x) {
    for (int v = -128; v < 128; ++v) {
      ap_int<48> p = 0;
      const int a = 93 * (1 << 18) + x;
      for (int i = 0; i < CHAIN; ++i) t2f::accumulate_packed(a, v, p);
      count.check(t2f::lowest_field<18>(p) == x * v * CHAIN &&
                  t2f::fields_above<18>(p).to_int() == 93 * v * CHAIN);
    }
  }
}

void beyond() {
  beyond_u8a8<4>("u8a8/4");
  beyond_u8a8<5>("u8a8/5");
  beyond_w8a8<8>("w8a8/8", -127);
  beyond_w8a8<9>("w8a8/9", -127);
  beyond_w8a8<7>("w8a8-full/7", -128);
  beyond_w8a8<8>("w8a8-full/8", -128);
  beyond_w4a4<16>("w4a4/16", -8);
  beyond_w4a4<9>("w4a4-unsigned/9", 0);
}
#endif

void bytes() {
  for (int byte = -128; byte < 128; ++byte) {
    const int8_t packed = static_cast<int8_t>(byte);
    std::printf("%d %d %d\n", byte, t2f::low_weight(packed), t2f::high_weight(packed));
  }
}

}  // namespace

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (std::strcmp(mode, "emulated") == 0) emulated();
  if (std::strcmp(mode, "spelled") == 0) spelled();
#ifdef T2F_AP_INT
  if (std::strcmp(mode, "beyond") == 0) beyond();
#endif
  if (std::strcmp(mode, "bytes") == 0) bytes();
  return 0;
}
