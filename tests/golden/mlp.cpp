// SPDX-License-Identifier: Apache-2.0
// Kernel sequential_0 (SLR0), written by torch2fpga.
#include "sequential_0_config.hpp"

// Parameters of every step, in the order in which the stages take them: one burst.
// Cycles of a launch: one loop READ of 10 words.
static void read_parameters(
    const t2f::word *memory, hls::stream<t2f::word> &linear_mac_params,
    hls::stream<t2f::word> &linear_1_wide_params) {
#pragma HLS inline off
READ:
  for (int i = 0; i < 10; ++i) {
    T2F_PIPELINE(1);
    const t2f::word w = T2F_MEMORY(memory, i);
    if (i < 7) {
      linear_mac_params.write(w);
    } else {
      linear_1_wide_params.write(w);
    }
  }
}

extern "C" void sequential_0(
    const t2f::word *input_input_in, const t2f::word *linear_weights_in,
    const t2f::word *linear_1_weights_in, t2f::word *output0_out, const t2f::word *parameters,
    int batch, int seq) {
#pragma HLS INTERFACE m_axi port=input_input_in offset=slave bundle=gmem_input_input_in depth=1 latency=64 num_read_outstanding=16 max_read_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=linear_weights_in offset=slave bundle=gmem_linear_weights_in depth=6 latency=64 num_read_outstanding=16 max_read_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=linear_1_weights_in offset=slave bundle=gmem_linear_1_weights_in depth=3 latency=64 num_read_outstanding=16 max_read_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=output0_out offset=slave bundle=gmem_output0_out depth=2 latency=64 num_write_outstanding=16 max_write_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=parameters offset=slave bundle=gmem_parameters depth=10 latency=64 num_read_outstanding=16 max_read_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE s_axilite port=input_input_in
#pragma HLS INTERFACE s_axilite port=linear_weights_in
#pragma HLS INTERFACE s_axilite port=linear_1_weights_in
#pragma HLS INTERFACE s_axilite port=output0_out
#pragma HLS INTERFACE s_axilite port=parameters
#pragma HLS INTERFACE s_axilite port=batch
#pragma HLS INTERFACE s_axilite port=seq
#pragma HLS INTERFACE s_axilite port=return
#pragma HLS dataflow
  hls::stream<t2f::word, 2> input_input_words("input_input_words");
  hls::stream<t2f::word, 8> linear_weights("linear_weights");
  hls::stream<t2f::word, 8> linear_1_weights("linear_1_weights");
  hls::stream<t2f::word, 2> output0_words("output0_words");
  hls::stream<t2f::vec<int8_t, 8>, 16> input_input_rows("input_input_rows");
  hls::stream<t2f::vec<int32_t, 8>, 16> linear_acc("linear_acc");
  hls::stream<t2f::word, 8> linear_mac_params("linear_mac_params");
  hls::stream<t2f::vec<int8_t, 8>, 16> linear_mac("linear_mac");
  hls::stream<t2f::vec<int32_t, 8>, 16> linear_1_acc("linear_1_acc");
  hls::stream<t2f::word, 8> linear_1_wide_params("linear_1_wide_params");
  hls::stream<t2f::vec<int32_t, 8>, 16> linear_1_wide("linear_1_wide");
  hls::stream<t2f::tile_block<4, 8>, 2> linear_tiles("linear_tiles");
  hls::stream<t2f::tile_block<4, 8>, 3> linear_1_tiles("linear_1_tiles");

  T2F_PROCESS("input_input_in", t2f::read_rows<InputInputInConfig>(
      input_input_in, input_input_words, batch, seq));
  T2F_PROCESS("linear_weights_in", t2f::read_words<LinearWeightsInConfig>(
      linear_weights_in, linear_weights));
  T2F_PROCESS("linear_1_weights_in", t2f::read_words<Linear_1WeightsInConfig>(
      linear_1_weights_in, linear_1_weights));
  T2F_PROCESS("read_parameters", read_parameters(
      parameters, linear_mac_params, linear_1_wide_params));
  // input
  T2F_PROCESS("input_input", t2f::unpack<InputInputConfig>(
      input_input_words, input_input_rows, batch, seq));
  // 0
  T2F_PROCESS("linear_join", t2f::join_rows<LinearConfig>(
      input_input_rows, linear_tiles, batch, seq));
  // 0
  T2F_PROCESS("linear", t2f::matmul<LinearConfig>(
      linear_tiles, linear_weights, linear_acc, batch, seq));
  // 0
  T2F_PROCESS("linear_mac_requant", t2f::requant<LinearMacRequantConfig>(
      linear_acc, linear_mac_params, linear_mac, batch, seq));
  // 2
  T2F_PROCESS("linear_1_join", t2f::join_rows<Linear_1Config>(
      linear_mac, linear_1_tiles, batch, seq));
  // 2
  T2F_PROCESS("linear_1", t2f::matmul<Linear_1Config>(
      linear_1_tiles, linear_1_weights, linear_1_acc, batch, seq));
  // 2
  T2F_PROCESS("linear_1_wide_requant", t2f::requant<Linear_1WideRequantConfig>(
      linear_1_acc, linear_1_wide_params, linear_1_wide, batch, seq));
  // output 0
  T2F_PROCESS("output0", t2f::pack<Output0Config>(linear_1_wide, output0_words, batch, seq));
  T2F_PROCESS("output0_out", t2f::write_rows<Output0OutConfig>(
      output0_words, output0_out, batch, seq));
  T2F_DATAFLOW_END;
}
