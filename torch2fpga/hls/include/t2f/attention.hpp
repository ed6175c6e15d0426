// SPDX-License-Identifier: Apache-2.0
// Attention in three stages that stream to each other:
//   attention_scores   q, k            -> int32 scores
//   softmax_weights    scores, mask    -> uint8 exp2(score - row maximum), not normalised
//   attention_values   weights, v      -> weighted mean of v, 12 fraction bits
// A row is divided once, by the integer sum of its own weights, so a row depends on
// its own query and its complete key row only.
//
// Streams between them: for sequence, for query tile, for head, for key block, for
// row in the tile: `lanes` keys.
//
// Every loop runs at II 1 and costs its iterations, its depth, and one cycle. Each stage
// states its loops; there kb is ceil(seq / lanes), hb is head_blocks, n the rows of a tile.
#ifndef T2F_ATTENTION_HPP
#define T2F_ATTENTION_HPP

#include "t2f/attention_scores.hpp"
#include "t2f/attention_softmax.hpp"
#include "t2f/attention_values.hpp"

#endif
