// SPDX-License-Identifier: Apache-2.0
// Embedding tables in HBM: one process gathers rows (by token id or by position),
// one adds the rows of up to three tables.  Table elements are int16, a row starts
// at a word.
// A table that no memory channel holds lies in several: gather_part reads at each, merge_rows puts
// the rows in order.
// Cycles: gather_rows enters, for every row, ID of 1 and READ of row_words (a burst that can
// start only when the id is known); read_positions READ of seq * row_words for every
// sequence (read_positions_from: of one); embed_sum, for every tile of n rows, FILL of n * row_words (all tables side by
// side) and DRAIN of blocks * n.
#ifndef T2F_EMBED_HPP
#define T2F_EMBED_HPP

#include "t2f/core.hpp"
#include "t2f/gather.hpp"

namespace t2f {

// Token ids as they lie in memory.
template <typename C>
void read_ids(const int32_t *memory, hls::stream<int32_t> &ids, int batch, int seq) {
#pragma HLS inline off
READ:
  for (int i = 0; i < rows_of(batch, seq); ++i) {
#pragma HLS loop_tripcount max = C::max_rows
    T2F_PIPELINE(1);
    ids.write(T2F_MEMORY(memory, i));
  }
}

// The row of every id; the host has checked that ids lie inside the table.
template <typename C>
void gather_rows(const word *table, hls::stream<int32_t> &ids, hls::stream<word> &rows, int batch,
                 int seq) {
#pragma HLS inline off
ROW:
  for (int i = 0; i < rows_of(batch, seq); ++i) {
#pragma HLS loop_tripcount max = C::max_rows
    int64_t base = 0;
  ID:
    for (int j = 0; j < 1; ++j) {
      T2F_PIPELINE(1);
      base = static_cast<int64_t>(ids.read()) * C::row_words;
    }
  READ:
    for (int w = 0; w < C::row_words; ++w) {
      T2F_PIPELINE(1);
      rows.write(T2F_MEMORY(table, base + w));
    }
  }
}

// The same for a part of a table, the C::rows rows from C::first on: rows of other ids are left to
// the ports that have them.
template <typename C>
void gather_part(const word *table, hls::stream<int32_t> &ids, hls::stream<word> &rows, int batch,
                 int seq) {
#pragma HLS inline off
ROW:
  for (int i = 0; i < rows_of(batch, seq); ++i) {
#pragma HLS loop_tripcount max = C::max_rows
    int place = 0;
  ID:
    for (int j = 0; j < 1; ++j) {
      T2F_PIPELINE(1);
      place = ids.read() - C::first;
    }
    const int words = place >= 0 && place < C::rows ? C::row_words : 0;
    const int64_t base = static_cast<int64_t>(place) * C::row_words;
  READ:
    for (int w = 0; w < words; ++w) {
#pragma HLS loop_tripcount max = C::row_words
      T2F_PIPELINE(1);
      rows.write(T2F_MEMORY(table, base + w));
    }
  }
}

// Every row from the part of the table that has it.
template <typename C, typename... Parts>
void merge_rows(hls::stream<int32_t> &ids, hls::stream<word> &rows, int batch, int seq,
                Parts &...parts) {
#pragma HLS inline off
  constexpr int count = sizeof...(Parts);
ROW:
  for (int i = 0; i < rows_of(batch, seq); ++i) {
#pragma HLS loop_tripcount max = C::max_rows
    int part = 0;
  ID:
    for (int j = 0; j < 1; ++j) {
      T2F_PIPELINE(1);
      const int id = ids.read();
      part = 0;
      for (int k = 1; k < count; ++k) {
#pragma HLS unroll
        if (id >= k * C::part_rows) part = k;
      }
    }
  COPY:
    for (int w = 0; w < C::row_words; ++w) {
      T2F_PIPELINE(1);
      rows.write(read_from(part, parts...));
    }
  }
}

// Rows 0 .. seq - 1 for every sequence (positions).
template <typename C>
void read_positions(const word *table, hls::stream<word> &rows, int batch, int seq) {
#pragma HLS inline off
SEQUENCE:
  for (int b = 0; b < batch; ++b) {
#pragma HLS loop_tripcount max = C::max_batch
    T2F_LOOP_ENTRY;
  READ:
    for (int i = 0; i < seq * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::max_row_words
      T2F_PIPELINE(1);
      rows.write(T2F_MEMORY(table, i));
    }
  }
}

// Rows past .. past + seq - 1 of a sequence that goes on.
template <typename C>
void read_positions_from(const word *table, hls::stream<word> &rows, int seq, int past) {
#pragma HLS inline off
  const int first = past * C::row_words;
READ:
  for (int i = 0; i < seq * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::max_row_words
    T2F_PIPELINE(1);
    rows.write(T2F_MEMORY(table, first + i));
  }
}

// The i-th little-endian int16 of a memory word.
inline int32_t int16_at(const word &w, int i) {
#pragma HLS inline
  const uint32_t bits = static_cast<uint32_t>(static_cast<uint8_t>(w.d[2 * i])) |
                        static_cast<uint32_t>(static_cast<uint8_t>(w.d[2 * i + 1])) << 8;
  return static_cast<int16_t>(bits);
}

// The next word of a tile whose rows come one behind the other: row t, word w.
template <int ROW_WORDS>
inline void next_word(int &t, int &w) {
#pragma HLS inline
  if (++w == ROW_WORDS) {
    w = 0;
    ++t;
  }
}

// The sums of the n rows of a tile, block by block.
template <typename C, int TABLES>
inline void drain_sums(const word (&rows)[TABLES][C::tile][C::row_words],
                       hls::stream<vec<int32_t, C::lanes>> &y, int n) {
#pragma HLS inline
  constexpr int blocks_per_word = 32 / C::lanes;
  int t = 0;
  int part = 0;  // block in the word
  int w = 0;     // word of the row
DRAIN:
  for (int i = 0; i < C::blocks * n; ++i) {
#pragma HLS loop_tripcount max = C::blocks * C::tile
    T2F_PIPELINE(1);
    vec<int32_t, C::lanes> out;
    for (int lane = 0; lane < C::lanes; ++lane) {
#pragma HLS unroll
      int32_t sum = 0;
      for (int table = 0; table < TABLES; ++table) {
#pragma HLS unroll
        sum += int16_at(rows[table][t][w], part * C::lanes + lane);
      }
      out.d[lane] = sum;
    }
    y.write(out);
    if (++t == n) {
      t = 0;
      if (++part == blocks_per_word) {
        part = 0;
        ++w;
      }
    }
  }
}

template <typename C>
void embed_sum(hls::stream<word> &a, hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  word rows[1][C::tile][C::row_words];
#pragma HLS aggregate variable = rows
SEQUENCE:
  for (int s = 0; s < batch; ++s) {
#pragma HLS loop_tripcount max = C::max_batch
  TILE:
    for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
      const int n = tile_rows(seq, first, C::tile);
      int t = 0;
      int w = 0;
    FILL:
      for (int i = 0; i < n * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::tile * C::row_words
        T2F_PIPELINE(1);
        rows[0][t][w] = a.read();
        next_word<C::row_words>(t, w);
      }
      drain_sums<C, 1>(rows, y, n);
    }
  }
}

template <typename C>
void embed_sum(hls::stream<word> &a, hls::stream<word> &b, hls::stream<vec<int32_t, C::lanes>> &y,
               int batch, int seq) {
#pragma HLS inline off
  word rows[2][C::tile][C::row_words];
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 1
SEQUENCE:
  for (int s = 0; s < batch; ++s) {
#pragma HLS loop_tripcount max = C::max_batch
  TILE:
    for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
      const int n = tile_rows(seq, first, C::tile);
      int t = 0;
      int w = 0;
    FILL:
      for (int i = 0; i < n * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::tile * C::row_words
        T2F_PIPELINE(1);
        rows[0][t][w] = a.read();
        rows[1][t][w] = b.read();
        next_word<C::row_words>(t, w);
      }
      drain_sums<C, 2>(rows, y, n);
    }
  }
}

template <typename C>
void embed_sum(hls::stream<word> &a, hls::stream<word> &b, hls::stream<word> &c,
               hls::stream<vec<int32_t, C::lanes>> &y, int batch, int seq) {
#pragma HLS inline off
  word rows[3][C::tile][C::row_words];
#pragma HLS aggregate variable = rows
#pragma HLS array_partition variable = rows complete dim = 1
SEQUENCE:
  for (int s = 0; s < batch; ++s) {
#pragma HLS loop_tripcount max = C::max_batch
  TILE:
    for (int first = 0; first < seq; first += C::tile) {
#pragma HLS loop_tripcount max = C::max_seq
      const int n = tile_rows(seq, first, C::tile);
      int t = 0;
      int w = 0;
    FILL:
      for (int i = 0; i < n * C::row_words; ++i) {
#pragma HLS loop_tripcount max = C::tile * C::row_words
        T2F_PIPELINE(1);
        rows[0][t][w] = a.read();
        rows[1][t][w] = b.read();
        rows[2][t][w] = c.read();
        next_word<C::row_words>(t, w);
      }
      drain_sums<C, 3>(rows, y, n);
    }
  }
}

}  // namespace t2f
#endif
