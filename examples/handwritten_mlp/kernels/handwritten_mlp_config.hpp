// SPDX-License-Identifier: Apache-2.0
// Sizes and types of every process of the kernel: the template arguments of the library.
//
//   x (20 int8) -> linear 20 x 36 -> ReLU, int8 -> linear 36 x 10 -> int16 scores
//
// None of the sizes is a multiple of the 16 lanes: rows are filled up with zeros.
#ifndef HANDWRITTEN_MLP_CONFIG_HPP
#define HANDWRITTEN_MLP_CONFIG_HPP

#include "t2f/core.hpp"
#include "t2f/matmul.hpp"
#include "t2f/memory.hpp"
#include "t2f/requant.hpp"

struct Mlp {
  static constexpr int lanes = 16;     // channels a token
  static constexpr int tile = 4;       // rows that share a pass over the weights
  static constexpr int max_batch = 3;  // sequences a launch
  static constexpr int max_seq = 8;    // rows a sequence
  static constexpr int steps = 1;      // no layer loop
  static constexpr int max_rows = max_batch * max_seq;
};

using vec8 = t2f::vec<int8_t, Mlp::lanes>;
using vec16 = t2f::vec<int16_t, Mlp::lanes>;
using vec32 = t2f::vec<int32_t, Mlp::lanes>;
using block8 = t2f::tile_block<Mlp::tile, Mlp::lanes>;

// Inputs and outputs of the kernel: what unpack, pack and their ports share.
template <typename T, int CHANNELS>
struct Rows : Mlp {
  using value_t = T;
  static constexpr int value_bytes = sizeof(T);
  static constexpr int blocks = t2f::ceil_div(CHANNELS, lanes);
  static constexpr int vectors_per_word = 64 / (value_bytes * lanes);
  static constexpr int rows_per_vector = 1;
  static constexpr int max_words = t2f::ceil_div(max_rows * blocks, vectors_per_word);
  static constexpr int max_vectors = max_words * vectors_per_word;
};

template <int IN, int OUT>
struct Linear : Mlp {
  static constexpr int in_blocks = t2f::ceil_div(IN, lanes);
  static constexpr int out_blocks = t2f::ceil_div(OUT, lanes);
  static constexpr int columns = lanes;     // output channels a cycle
  static constexpr bool resident = false;   // weights of one step at a time
  // Weights: lanes x lanes bytes for every pair of blocks.
  static constexpr int words = in_blocks * out_blocks * lanes * lanes / 64;
};

template <int CHANNELS, typename OUT_T, int OUT_BITS, bool RELU>
struct Requant : Mlp {
  using in_t = int32_t;
  using out_t = OUT_T;
  static constexpr int blocks = t2f::ceil_div(CHANNELS, lanes);
  static constexpr int out_bits = OUT_BITS;
  static constexpr bool relu = RELU;
  static constexpr int ways = lanes;        // channels a cycle
  static constexpr int in_bits = 32;        // of a value that is multiplied
  // Parameters: a header, then multipliers and biases of every block.
  static constexpr int words = 1 + 2 * blocks;
};

struct InputRows : Rows<int8_t, 20> {};
struct Hidden : Linear<20, 36> {};
struct HiddenFormat : Requant<36, int8_t, 8, true> {};
struct Scores : Linear<36, 10> {};
struct ScoresFormat : Requant<10, int16_t, 16, false> {};
struct OutputRows : Rows<int16_t, 10> {};

#endif
