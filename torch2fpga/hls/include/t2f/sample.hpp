// SPDX-License-Identifier: Apache-2.0
// The next token from one row of logits: the largest one, or a draw from the k largest.
//
// The row is kept on chip while it streams through (URAM: a block an address), and of every
// `group_blocks` blocks the best logit. The k best leave in order, largest first and the smallest id
// first among equals: the best of the group maxima, then that group once more without what has
// left. What has left needs no mark, because it is all that stands before the last one in this
// order. That is groups + group_blocks cycles each, about twice the root of the blocks; the largest logit
// alone is known when the row has passed.
// Cycles: TAKE of `blocks`; with k above 1 also k times PICK of groups and SCAN of `group_blocks`, then
// WEIGH of k, ROUND of 10 (II 8) and CHOOSE of k, where groups = ceil(blocks / `group_blocks`).
#ifndef T2F_SAMPLE_HPP
#define T2F_SAMPLE_HPP

#include "t2f/core.hpp"
#include "t2f/fixed.hpp"
#include "t2f/tables.hpp"
#include "t2f/ways.hpp"

namespace t2f {

// A logit and its id in the vocabulary; none where the id is negative.
struct candidate {
  int32_t value;
  int32_t id;
};

inline candidate no_candidate() {
#pragma HLS inline
  return candidate{-2147483647 - 1, -1};
}

inline candidate one_of(bool later_wins, const candidate &first, const candidate &later) {
#pragma HLS inline
  return candidate{later_wins ? later.value : first.value, later_wins ? later.id : first.id};
}

// The better of two: the larger one, and the first of equals. `later` has the larger id.
inline candidate better(const candidate &first, const candidate &later) {
#pragma HLS inline
  return one_of(later.id >= 0 && (first.id < 0 || later.value > first.value), first, later);
}

// The best of a block of logits among those that stand behind `last` in the order (all of them
// where `last` is none). Lanes that only fill up the last block are no candidates. Neighbours are
// compared first, so that the left one always has the smaller ids.
template <int VOCABULARY, typename T, int LANES>
inline candidate best_of_block(const vec<T, LANES> &v, int block, const candidate &last) {
#pragma HLS inline
  constexpr int levels = floor_log2(LANES);
  candidate at[LANES];
#pragma HLS array_partition variable = at complete
  for (int lane = 0; lane < LANES; ++lane) {
#pragma HLS unroll
    const int32_t value = v.d[lane];
    const int32_t id = block * LANES + lane;
    const bool behind = last.id < 0 || value < last.value || (value == last.value && id > last.id);
    at[lane] = candidate{value, behind && id < VOCABULARY ? id : -1};
  }
  for (int level = 0; level < levels; ++level) {
#pragma HLS unroll
    for (int i = 0; i < LANES / 2; ++i) {
#pragma HLS unroll
      if (i < LANES >> (level + 1)) at[i] = better(at[2 * i], at[2 * i + 1]);
    }
  }
  return at[0];
}

// 2^(-distance) with 8 fraction bits of distance, as an unsigned number of 24 bits.
inline uint32_t draw_weight(int64_t distance) {
#pragma HLS inline
  const int whole = distance >> 8 > 31 ? 31 : static_cast<int>(distance >> 8);
  const uint32_t fraction = static_cast<uint32_t>(exp2_table[distance & 255]) << 8;
  return static_cast<uint32_t>(round_shift(fraction, whole));
}

// The first 32 bits that Philox4x32-10 makes of a counter (position, 0, 0, 0) and a key: Salmon,
// Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11). A round needs the
// products of the one before, so it starts every 8 cycles, and both products share a multiplier.
inline uint32_t philox(uint32_t position, uint32_t key_low, uint32_t key_high) {
#pragma HLS inline
  uint32_t c0 = position;
  uint32_t c1 = 0;
  uint32_t c2 = 0;
  uint32_t c3 = 0;
ROUND:
  for (int round = 0; round < 10; ++round) {
    T2F_PIPELINE(8);
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0;
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key_low;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key_high;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return c0;
}

// The best k logits of a row, in order; `top_values` and `top_ids` are the best of each of its groups.
template <typename C, int GROUPS, int MOST>
inline void extract(const vec<typename C::value_t, C::lanes> (&row)[GROUPS * C::group_blocks],
                    int32_t (&top_values)[GROUPS], int32_t (&top_ids)[GROUPS], int k,
                    int32_t (&values)[MOST], int32_t (&ids)[MOST]) {
#pragma HLS inline
EXTRACT:
  for (int i = 0; i < k; ++i) {
#pragma HLS loop_tripcount max = MOST
    candidate picked = no_candidate();
  PICK:
    for (int g = 0; g < GROUPS; ++g) {
      T2F_PIPELINE(1);
      picked = better(picked, candidate{top_values[g], top_ids[g]});
      if (g == GROUPS - 1) {
        values[i] = picked.value;
        ids[i] = picked.id;
      }
    }
    const int from = static_cast<int>(static_cast<uint32_t>(picked.id) / (C::lanes * C::group_blocks));
    candidate left = no_candidate();
  SCAN:
    for (int j = 0; j < C::group_blocks; ++j) {
      T2F_PIPELINE(1);
      const int block = from * C::group_blocks + j;
      left = better(left, best_of_block<C::vocabulary>(row[block], block, picked));
      if (j == C::group_blocks - 1) {
        top_values[from] = left.value;
        top_ids[from] = left.id;
      }
    }
  }
}

// A draw among the first k of some candidates in order, each with the weight 2^(-distance).
template <int MOST>
inline void choose(const int32_t (&values)[MOST], const int32_t (&ids)[MOST], int k, int64_t multiplier,
                   int shift, uint32_t random, hls::stream<int32_t> &token) {
#pragma HLS inline
  uint32_t sums[MOST] T2F_UNWRITTEN;  // of the weights up to each; at most 64 * 2^24
  uint32_t largest = 0;               // the bits of an int32: differences are below 2^32
  uint32_t total = 0;
WEIGH:
  for (int i = 0; i < k; ++i) {
#pragma HLS loop_tripcount max = MOST
    T2F_PIPELINE(1);
    const uint32_t value = static_cast<uint32_t>(values[i]);
    if (i == 0) largest = value;
    const uint32_t below = largest - value;
    total += draw_weight(round_shift(static_cast<int64_t>(below) * multiplier, shift));
    sums[i] = total;
  }
  const uint32_t drawn = static_cast<uint32_t>((uint64_t(random) * total) >> 32);  // below total
  uint32_t before = 0;
  int32_t chosen = 0;
CHOOSE:
  for (int i = 0; i < k; ++i) {
#pragma HLS loop_tripcount max = MOST
    T2F_PIPELINE(1);
    // The last one that the sum before has not gone past is the first whose own sum has.
    if (before <= drawn) chosen = ids[i];
    before = sums[i];
    if (i == k - 1) token.write(chosen);
  }
}

// One row of logits, one word of settings and one token a launch.
// The word (int32): {k, multiplier (17 bits), shift, low and high half of the seed, 0 ...}; k is cut
// to `max_top_k` and to the vocabulary, and below 2 it is the largest logit that is taken.
// distance = round((largest - logit) * multiplier / 2^shift).
template <typename C>
void sample_token(hls::stream<vec<typename C::value_t, C::lanes>> &logits, hls::stream<word> &settings,
                  hls::stream<int32_t> &token, int past, int seq) {
#pragma HLS inline off
  constexpr int groups = ceil_div(C::blocks, C::group_blocks);
  static_assert((C::group_blocks & (C::group_blocks - 1)) == 0,
                "a block's group is its upper bits");
  static_assert(C::max_top_k <= 64, "the sum of the weights has 32 bits");
  constexpr int most = C::max_top_k < C::vocabulary ? C::max_top_k : C::vocabulary;
  vec<typename C::value_t, C::lanes> row[groups * C::group_blocks] T2F_UNWRITTEN;
#pragma HLS aggregate variable = row
#pragma HLS bind_storage variable = row type = ram_s2p impl = uram
  int32_t top_values[groups] T2F_UNWRITTEN;  // the best of each group that has not left
  int32_t top_ids[groups] T2F_UNWRITTEN;
  candidate best = no_candidate();
  candidate of_group = no_candidate();
  int k = 1;
  int64_t multiplier = 0;
  int shift = 0;
  uint32_t seed_low = 0;
  uint32_t seed_high = 0;
TAKE:
  for (int block = 0; block < C::blocks; ++block) {
    T2F_PIPELINE(1);
    if (block == 0) {
      const word w = settings.read();
      k = int32_at(w, 0) < 1 ? 1 : (int32_at(w, 0) > most ? most : int32_at(w, 0));
      multiplier = narrowed<18>(int32_at(w, 1));
      shift = int32_at(w, 2) & 63;
      seed_low = static_cast<uint32_t>(int32_at(w, 3));
      seed_high = static_cast<uint32_t>(int32_at(w, 4));
    }
    const vec<typename C::value_t, C::lanes> v = logits.read();
    row[block] = v;
    const candidate here = best_of_block<C::vocabulary>(v, block, no_candidate());
    // Every block has a logit: what comes around is one comparison, not `better` with its tests.
    const int in_group = block & (C::group_blocks - 1);
    of_group = one_of(in_group == 0 || here.value > of_group.value, of_group, here);
    best = one_of(block == 0 || here.value > best.value, best, here);
    if (in_group == C::group_blocks - 1 || block == C::blocks - 1) {
      top_values[block / C::group_blocks] = of_group.value;
      top_ids[block / C::group_blocks] = of_group.id;
    }
    if (block == C::blocks - 1 && k == 1) token.write(best.id);
  }
  if (k > 1) {
    int32_t values[most] T2F_UNWRITTEN;  // the best of all, in order
    int32_t ids[most] T2F_UNWRITTEN;
    extract<C, groups, most>(row, top_values, top_ids, k, values, ids);
    const uint32_t position = static_cast<uint32_t>(past) + static_cast<uint32_t>(seq);
    const uint32_t random = philox(position, seed_low, seed_high);
    choose<most>(values, ids, k, multiplier, shift, random, token);
  }
}

}  // namespace t2f
#endif
