// SPDX-License-Identifier: Apache-2.0
// Sizes and types of every stage and port of sequential_0: the template arguments.
// A comment names the module in the user's model, then the library template.
#ifndef SEQUENTIAL_0_CONFIG_HPP
#define SEQUENTIAL_0_CONFIG_HPP

#include "t2f/core.hpp"
#include "t2f/matmul.hpp"
#include "t2f/memory.hpp"
#include "t2f/requant.hpp"

#include "design.hpp"

// port input_input_in
struct InputInputInConfig : Design {
  static constexpr int blocks = 2;
  static constexpr int vectors_per_word = 8;
  static constexpr int rows_per_vector = 1;
  static constexpr int max_words = 1;
};
// port linear_weights_in
struct LinearWeightsInConfig : Design {
  static constexpr int steps = 1;
  static constexpr int words = 6;
};
// port linear_1_weights_in
struct Linear_1WeightsInConfig : Design {
  static constexpr int steps = 1;
  static constexpr int words = 3;
};
// port output0_out
struct Output0OutConfig : Design {
  static constexpr int blocks = 1;
  static constexpr int vectors_per_word = 2;
  static constexpr int rows_per_vector = 1;
  static constexpr int max_words = 2;
};
// input: unpack
struct InputInputConfig : Design {
  static constexpr int steps = 1;
  using value_t = int8_t;
  static constexpr int value_bytes = 1;
  static constexpr int blocks = 2;
  static constexpr int vectors_per_word = 8;
  static constexpr int rows_per_vector = 1;
  static constexpr int max_vectors = 8;
  static constexpr int max_words = 1;
};
// 0: matmul
struct LinearConfig : Design {
  static constexpr int steps = 1;
  static constexpr int in_blocks = 2;
  static constexpr int out_blocks = 3;
  static constexpr int columns = 8;
  static constexpr bool resident = false;
};
// 0: requant
struct LinearMacRequantConfig : Design {
  static constexpr int steps = 1;
  using in_t = int32_t;
  using out_t = int8_t;
  static constexpr int blocks = 3;
  static constexpr int out_bits = 8;
  static constexpr bool relu = true;
  static constexpr int ways = 8;
  static constexpr int in_bits = 19;
};
// 2: matmul
struct Linear_1Config : Design {
  static constexpr int steps = 1;
  static constexpr int in_blocks = 3;
  static constexpr int out_blocks = 1;
  static constexpr int columns = 8;
  static constexpr bool resident = false;
};
// 2: requant
struct Linear_1WideRequantConfig : Design {
  static constexpr int steps = 1;
  using in_t = int32_t;
  using out_t = int32_t;
  static constexpr int blocks = 1;
  static constexpr int out_bits = 24;
  static constexpr bool relu = false;
  static constexpr int ways = 8;
  static constexpr int in_bits = 20;
};
// output 0: pack
struct Output0Config : Design {
  static constexpr int steps = 1;
  using value_t = int32_t;
  static constexpr int value_bytes = 4;
  static constexpr int blocks = 1;
  static constexpr int vectors_per_word = 2;
  static constexpr int rows_per_vector = 1;
  static constexpr int max_vectors = 4;
  static constexpr int max_words = 2;
};

#endif
