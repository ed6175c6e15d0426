// SPDX-License-Identifier: Apache-2.0
// A two-layer perceptron: four stages, their memory ports, and the streams between them.
#include "handwritten_mlp_config.hpp"

extern "C" void handwritten_mlp(const t2f::word *input, const t2f::word *hidden_weights,
                                const t2f::word *hidden_params, const t2f::word *scores_weights,
                                const t2f::word *scores_params, t2f::word *output, int batch,
                                int seq) {
#pragma HLS INTERFACE m_axi port=input offset=slave bundle=gmem_input depth=12 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=hidden_weights offset=slave bundle=gmem_hidden_weights depth=24 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=hidden_params offset=slave bundle=gmem_hidden_params depth=7 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=scores_weights offset=slave bundle=gmem_scores_weights depth=12 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=scores_params offset=slave bundle=gmem_scores_params depth=3 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=output offset=slave bundle=gmem_output depth=12 max_widen_bitwidth=512
#pragma HLS INTERFACE s_axilite port=input
#pragma HLS INTERFACE s_axilite port=hidden_weights
#pragma HLS INTERFACE s_axilite port=hidden_params
#pragma HLS INTERFACE s_axilite port=scores_weights
#pragma HLS INTERFACE s_axilite port=scores_params
#pragma HLS INTERFACE s_axilite port=output
#pragma HLS INTERFACE s_axilite port=batch
#pragma HLS INTERFACE s_axilite port=seq
#pragma HLS INTERFACE s_axilite port=return
#pragma HLS dataflow
  hls::stream<t2f::word, 8> input_words("input_words");
  hls::stream<t2f::word, 8> w1("w1");
  hls::stream<t2f::word, 8> p1("p1");
  hls::stream<t2f::word, 8> w2("w2");
  hls::stream<t2f::word, 8> p2("p2");
  // Data streams: a tile of rows, so that a stage may fill one while the next drains it.
  hls::stream<vec8, 8> x("x");
  hls::stream<vec32, 12> hidden_acc("hidden_acc");
  hls::stream<vec8, 12> hidden("hidden");
  hls::stream<vec32, 4> scores_acc("scores_acc");
  hls::stream<vec16, 4> scores("scores");
  // Rows of a tile side by side: the next tile comes together while one is multiplied.
  hls::stream<block8, 2> x_tiles("x_tiles");
  hls::stream<block8, 3> hidden_tiles("hidden_tiles");
  hls::stream<t2f::word, 8> output_words("output_words");

  T2F_PROCESS("read_input", t2f::read_rows<InputRows>(input, input_words, batch, seq));
  T2F_PROCESS("read_w1", t2f::read_words<Hidden>(hidden_weights, w1));
  T2F_PROCESS("read_p1", t2f::read_words<HiddenFormat>(hidden_params, p1));
  T2F_PROCESS("read_w2", t2f::read_words<Scores>(scores_weights, w2));
  T2F_PROCESS("read_p2", t2f::read_words<ScoresFormat>(scores_params, p2));
  T2F_PROCESS("unpack", t2f::unpack<InputRows>(input_words, x, batch, seq));
  T2F_PROCESS("join_x", t2f::join_rows<Hidden>(x, x_tiles, batch, seq));
  T2F_PROCESS("hidden", t2f::matmul<Hidden>(x_tiles, w1, hidden_acc, batch, seq));
  T2F_PROCESS("relu", t2f::requant<HiddenFormat>(hidden_acc, p1, hidden, batch, seq));
  T2F_PROCESS("join_hidden", t2f::join_rows<Scores>(hidden, hidden_tiles, batch, seq));
  T2F_PROCESS("scores", t2f::matmul<Scores>(hidden_tiles, w2, scores_acc, batch, seq));
  T2F_PROCESS("format", t2f::requant<ScoresFormat>(scores_acc, p2, scores, batch, seq));
  T2F_PROCESS("pack", t2f::pack<OutputRows>(scores, output_words, batch, seq));
  T2F_PROCESS("write_output", t2f::write_rows<OutputRows>(output_words, output, batch, seq));
  T2F_DATAFLOW_END;
}
