// SPDX-License-Identifier: Apache-2.0
// Memory access: one process per port, sequential 512-bit bursts, nothing else.
// Cycles: each loop is flat at one word (or vector) a cycle; only the weights that are read
// again for every tile enter their loop once a tile.
#ifndef T2F_MEMORY_HPP
#define T2F_MEMORY_HPP

#include "t2f/core.hpp"
#include "t2f/sums.hpp"

namespace t2f {

// C::steps * C::words words, in order, once per launch (weights kept on chip for a step).
template <typename C, typename... Sum>
void read_words(const word *memory, hls::stream<word> &out, Sum &...sum) {
#pragma HLS inline off
  uint64_t total = 0;
READ:
  for (int i = 0; i < C::steps * C::words; ++i) {
    T2F_PIPELINE(1);
    const word w = T2F_MEMORY(memory, i);
    add_word(total, w, sum...);
    out.write(w);
  }
  give_sum(total, sum...);
}

// The C::words words of a step again for every tile of rows (weights too large to keep).
template <typename C, typename... Sum>
void read_words_per_tile(const word *memory, hls::stream<word> &out, int batch, int seq, Sum &...sum) {
#pragma HLS inline off
  uint64_t total = 0;
STEP:
  for (int step = 0; step < C::steps; ++step) {
  SEQUENCE:
    for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    TILE:
      for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
        T2F_LOOP_ENTRY;
      READ:
        for (int i = 0; i < C::words; ++i) {
          T2F_PIPELINE(1);
          const word w = T2F_MEMORY(memory, step * C::words + i);
          add_word(total, w, sum...);
          out.write(w);
        }
      }
    }
  }
  give_sum(total, sum...);
}

// The words that hold the vectors of a launch (C::rows_per_vector is 1, or `lanes` for
// masks, where a vector holds one byte of each of `lanes` rows).
template <typename C>
void read_rows(const word *memory, hls::stream<word> &out, int batch, int seq) {
#pragma HLS inline off
  const int rows = rows_of(batch, ceil_div(seq, C::rows_per_vector));
  const int words = ceil_div(rows * C::blocks, C::vectors_per_word);
READ:
  for (int i = 0; i < words; ++i) {
#pragma HLS loop_tripcount max = C::max_words
    T2F_PIPELINE(1);
    out.write(T2F_MEMORY(memory, i));
  }
}

template <typename C>
inline void write_all_rows(hls::stream<word> &in, word *memory, int batch, int seq) {
#pragma HLS inline
  const int rows = rows_of(batch, ceil_div(seq, C::rows_per_vector));
  const int words = ceil_div(rows * C::blocks, C::vectors_per_word);
WRITE:
  for (int i = 0; i < words; ++i) {
#pragma HLS loop_tripcount max = C::max_words
    T2F_PIPELINE(1);
    const word w = in.read();
    T2F_MEMORY(memory, i) = w;
  }
}

template <typename C>
void write_rows(hls::stream<word> &in, word *memory, int batch, int seq) {
#pragma HLS inline off
  write_all_rows<C>(in, memory, batch, seq);
}

// Results, and the sums of what was read for them.
template <typename C, typename... Sums>
void write_rows(hls::stream<word> &in, word *memory, int batch, int seq, word *sums, Sums &...from) {
#pragma HLS inline off
  write_all_rows<C>(in, memory, batch, seq);
  write_sum_words(sums, from...);
}

// Words to vectors.  C::value_t is the element type; elements are little-endian.
// Cycles of a launch: one loop UNPACK of batch * ceil(seq / rows_per_vector) * blocks.
template <typename C>
void unpack(hls::stream<word> &in, hls::stream<vec<typename C::value_t, C::lanes>> &out, int batch,
            int seq) {
#pragma HLS inline off
  const int vectors = rows_of(batch, ceil_div(seq, C::rows_per_vector)) * C::blocks;
  word current;
#pragma HLS array_partition variable = current.d complete
  int part = 0;  // vectors of the word that are out
UNPACK:
  for (int i = 0; i < vectors; ++i) {
#pragma HLS loop_tripcount max = C::max_vectors
    T2F_PIPELINE(1);
    if (part == 0) current = in.read();
    vec<typename C::value_t, C::lanes> v;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      uint32_t bits = 0;
      for (int byte = 0; byte < C::value_bytes; ++byte) {
#pragma HLS unroll
        const int at = (part * C::lanes + lane) * C::value_bytes + byte;
        bits |= static_cast<uint32_t>(static_cast<uint8_t>(current.d[at])) << (8 * byte);
      }
      v.d[lane] = static_cast<typename C::value_t>(bits);
    }
    out.write(v);
    part = part == C::vectors_per_word - 1 ? 0 : part + 1;
  }
}

// Vectors to words; the last word of a launch is filled with zeros.
// Cycles of a launch: one loop PACK of batch * seq * blocks, rounded up to whole words.
template <typename C>
void pack(hls::stream<vec<typename C::value_t, C::lanes>> &in, hls::stream<word> &out, int batch,
          int seq) {
#pragma HLS inline off
  const int used = rows_of(batch, seq) * C::blocks;
  const int vectors = ceil_div(used, C::vectors_per_word) * C::vectors_per_word;
  word current;
#pragma HLS array_partition variable = current.d complete
  int part = 0;  // vectors that are in the word
PACK:
  for (int i = 0; i < vectors; ++i) {
#pragma HLS loop_tripcount max = C::max_vectors
    T2F_PIPELINE(1);
    vec<typename C::value_t, C::lanes> v = {};
    if (i < used) v = in.read();
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      for (int byte = 0; byte < C::value_bytes; ++byte) {
#pragma HLS unroll
        const int at = (part * C::lanes + lane) * C::value_bytes + byte;
        const uint32_t bits = static_cast<uint32_t>(v.d[lane]) >> (8 * byte);
        current.d[at] = static_cast<int8_t>(bits & 255u);
      }
    }
    if (part == C::vectors_per_word - 1) out.write(current);
    part = part == C::vectors_per_word - 1 ? 0 : part + 1;
  }
}

}  // namespace t2f
#endif
