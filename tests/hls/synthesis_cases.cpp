// SPDX-License-Identifier: Apache-2.0
//
// Stages whose code differs for synthesis, on random and corner values. Built twice, plain and
// with __SYNTHESIS__; what the two print must be the same bytes.
//
//   synthesis_cases run         results of all cases as int32
//   synthesis_cases products    every pair of products against plain ones; prints what differs
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "t2f/attention.hpp"
#include "t2f/matmul4.hpp"

#if defined(__SYNTHESIS__) && !defined(T2F_AP_INT)
#error "ap_int.h was not found: this would test the plain path twice"
#endif

namespace {

using Results = std::vector<int32_t>;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}

  // One in four is an extreme value. Weights and keys never hold -128: the quantiser is symmetric.
  int8_t value(bool symmetric) {
    static const int corners[] = {-127, 127, -127, 127, -1, 1, 0, -128};
    const uint32_t bits = next();
    if (bits % 4 == 0) return static_cast<int8_t>(corners[bits / 4 % (symmetric ? 7 : 8)]);
    const int low = symmetric ? -127 : -128;
    return static_cast<int8_t>(low + static_cast<int>(bits / 4 % static_cast<uint32_t>(128 - low)));
  }

 private:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  uint64_t state_;
};

template <int N>
t2f::vec<int8_t, N> token(Random &random, bool symmetric) {
  t2f::vec<int8_t, N> v;
  for (int i = 0; i < N; ++i) v.d[i] = random.value(symmetric);
  return v;
}

// All lanes at one extreme: the largest sums that the packed fields must hold.
template <int N>
t2f::vec<int8_t, N> full(int value) {
  t2f::vec<int8_t, N> v;
  for (int i = 0; i < N; ++i) v.d[i] = static_cast<int8_t>(value);
  return v;
}

template <typename T, int N>
void take(hls::stream<t2f::vec<T, N>> &stream, Results &results) {
  while (!stream.empty()) {
    const t2f::vec<T, N> v = stream.read();
    for (int i = 0; i < N; ++i) results.push_back(static_cast<int32_t>(v.d[i]));
  }
}

template <int LANES, int TILE, int COLUMNS = LANES>
struct Sizes {
  static constexpr int lanes = LANES;
  static constexpr int tile = TILE;
  static constexpr int max_batch = 2;
  static constexpr int max_seq = 7;
  static constexpr int steps = 2;
  static constexpr int in_blocks = 3;
  static constexpr int out_blocks = 2;
  static constexpr int columns = COLUMNS;
  static constexpr bool resident = TILE == 2;
  static constexpr int heads = 3;
  static constexpr int kv_groups = 1;
  static constexpr bool cached = false;
  using kept_in = t2f::in_bram;
  static constexpr int head_blocks = 2;
  static constexpr int key_blocks = t2f::ceil_div(max_seq, LANES);
};

// `extreme` 0: random; else all activations and weights at the extremes.
template <typename C>
void run_matmul(bool streamed, int extreme, Results &results) {
  Random random(static_cast<uint64_t>(C::lanes * 100 + C::tile * 10 + extreme));
  hls::stream<t2f::vec<int8_t, C::lanes>> x("x");
  hls::stream<t2f::word> weights("weights");
  hls::stream<t2f::vec<int32_t, C::lanes>> y("y");
  const int batch = 2;
  const int seq = 7;
  const int tiles = batch * t2f::ceil_div(seq, C::tile);
  for (int i = 0; i < C::steps * batch * seq * C::in_blocks; ++i) {
    x.write(extreme == 0 ? token<C::lanes>(random, false) : full<C::lanes>(extreme < 2 ? -128 : 127));
  }
  const int words = C::in_blocks * C::out_blocks * C::lanes * C::lanes / 64;
  for (int i = 0; i < C::steps * words * (streamed ? tiles : 1); ++i) {
    weights.write(extreme == 0 ? token<64>(random, true) : full<64>(extreme % 2 == 0 ? -127 : 127));
  }
  hls::stream<t2f::tile_block<C::tile, C::lanes>> rows("rows");
  t2f::join_rows<C>(x, rows, batch, seq);
  if (streamed) {
    t2f::matmul_streamed<C>(rows, weights, y, batch, seq);
  } else {
    t2f::matmul<C>(rows, weights, y, batch, seq);
  }
  take(y, results);
}

// Sizes with a group of two blocks and one that is short.
template <int TILE, int COLUMNS>
struct Int4Sizes : Sizes<16, TILE, COLUMNS> {
  static constexpr int group_blocks = 2;
};

// int4 weights: any byte holds two of them; scales are as large as they can be at the extremes.
template <typename C>
void run_matmul4(bool streamed, int extreme, Results &results) {
  Random random(static_cast<uint64_t>(C::columns * 100 + C::tile * 10 + extreme));
  hls::stream<t2f::vec<int8_t, C::lanes>> x("x");
  hls::stream<t2f::word> weights("weights");
  hls::stream<t2f::vec<int32_t, C::lanes>> y("y");
  const int batch = 2;
  const int seq = 7;
  for (int i = 0; i < C::steps * batch * seq * C::in_blocks; ++i) {
    x.write(extreme == 0 ? token<C::lanes>(random, false) : full<C::lanes>(extreme < 2 ? -128 : 127));
  }
  const int columns = streamed ? 8 : C::columns;
  const int words = columns / 8;  // of a beat; one of scales, then one for every block
  const int passes = streamed ? batch * t2f::ceil_div(seq, C::tile) : 1;
  for (int i = 0; i < C::steps * passes * C::out_blocks * (C::lanes / columns); ++i) {
    for (int j = 0; j < words * (1 + C::in_blocks); ++j) {
      // 0x78: weights of -8 below and -8 above (less the borrow); 0x77: 7 and 7.
      const int value = j < words ? 127 : extreme % 2 == 0 ? 0x78 : 0x77;
      weights.write(extreme == 0 ? token<64>(random, false) : full<64>(value));
    }
  }
  hls::stream<t2f::tile_block<C::tile, C::lanes>> rows("rows");
  t2f::join_rows<C>(x, rows, batch, seq);
  if (streamed) {
    t2f::matmul4_streamed<C>(rows, weights, y, batch, seq);
  } else {
    t2f::matmul4<C>(rows, weights, y, batch, seq);
  }
  take(y, results);
}

template <typename C>
void run_all4(Results &results) {
  for (int extreme = 0; extreme < 4; ++extreme) run_matmul4<C>(false, extreme, results);
  run_matmul4<C>(true, 0, results);
}

template <typename C>
void run_scores(Results &results) {
  Random random(static_cast<uint64_t>(7 + C::lanes + C::tile));
  hls::stream<t2f::vec<int8_t, C::lanes>> q("q");
  hls::stream<t2f::vec<int8_t, C::lanes>> k("k");
  hls::stream<t2f::vec<int32_t, C::lanes>> scores("scores");
  for (int i = 0; i < C::steps * 2 * 7 * C::heads * C::head_blocks; ++i) {
    q.write(token<C::lanes>(random, false));
    k.write(token<C::lanes>(random, true));
  }
  t2f::attention_scores<C>(q, k, scores, 2, 7);
  take(scores, results);
}

template <typename C>
void run_all(Results &results) {
  for (int extreme = 0; extreme < 4; ++extreme) run_matmul<C>(false, extreme, results);
  run_matmul<C>(true, 0, results);
  run_scores<C>(results);
}

// --- every operand value of the two-product packing ---------------------------------

struct Count {
  long compared = 0;
  long different = 0;

  template <int N>
  void check(const t2f::vec<int8_t, N> &x0, const t2f::vec<int8_t, N> &x1, const int8_t (&w)[N]) {
    int32_t sum0 = 1000;
    int32_t sum1 = -1000;
    t2f::dot_pair<N>(x0, x1, w, sum0, sum1);
    int32_t want0 = 1000;
    int32_t want1 = -1000;
    for (int i = 0; i < N; ++i) {
      want0 += x0.d[i] * w[i];
      want1 += x1.d[i] * w[i];
    }
    ++compared;
    if (sum0 != want0 || sum1 != want1) ++different;
  }
};

template <int N>
void products(Count &count, int step0, int step1) {
  for (int a0 = -128; a0 < 128; a0 += step0) {
    for (int a1 = -128; a1 < 128; a1 += step1) {
      for (int b = -127; b < 128; ++b) {
        // One product in one lane, the same one in all lanes, and one against the others.
        t2f::vec<int8_t, N> x0 = full<N>(0);
        t2f::vec<int8_t, N> x1 = full<N>(0);
        int8_t w[N];
        std::memset(w, b, sizeof(w));
        const int lane = (a0 + a1 + b + 1024) % N;
        x0.d[lane] = static_cast<int8_t>(a0);
        x1.d[lane] = static_cast<int8_t>(a1);
        count.check<N>(x0, x1, w);
        count.check<N>(full<N>(a0), full<N>(a1), w);
        x0 = full<N>(b < 0 ? -128 : 127);
        x1 = full<N>(b < 0 ? 127 : -128);
        x0.d[lane] = static_cast<int8_t>(a0);
        x1.d[lane] = static_cast<int8_t>(a1);
        count.check<N>(x0, x1, w);
      }
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc > 1 && std::strcmp(argv[1], "products") == 0) {
    // Steps of 5 and 17 meet both ends (-128 + 255) and every residue.
    Count count;
    products<8>(count, 5, 17);
    products<8>(count, 17, 5);
    products<16>(count, 51, 51);
    std::printf("%ld compared, %ld different\n", count.compared, count.different);
    return count.different == 0 ? 0 : 1;
  }
  Results results;
  run_all<Sizes<8, 4>>(results);
  run_all<Sizes<8, 3>>(results);
  run_all<Sizes<16, 1>>(results);
  run_all<Sizes<16, 2>>(results);
  run_all<Sizes<16, 3, 4>>(results);
  run_all<Sizes<16, 4, 8>>(results);
  run_all4<Int4Sizes<1, 8>>(results);
  run_all4<Int4Sizes<3, 16>>(results);
  return std::fwrite(results.data(), sizeof(int32_t), results.size(), stdout) == results.size() ? 0 : 1;
}
