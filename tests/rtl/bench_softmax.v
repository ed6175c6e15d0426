// SPDX-License-Identifier: Apache-2.0
// Test bench of softmax.v. run.hex holds batch and seq.
module bench_softmax #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter HEADS = 2,
    parameter KEY_BLOCKS = 3,
    parameter MAX_BATCH = 2,
    parameter CAUSAL = 0,
    parameter STEPS = 1,
    parameter MASK_DEPTH = 3,
    parameter LOAD_DEPTH = 3,
    parameter ROWS_DEPTH = 9,
    parameter FIFO = 2
) (
    input clk,
    input rst
);
  reg [31:0] run[0:1];
  initial $readmemh("run.hex", run);

  wire [32*LANES-1:0] scores_in, scores_out;
  wire [8*LANES-1:0] mask_in, mask_out, y_in, y_out;
  wire [511:0] params_in, params_out;
  wire scores_write, scores_full, scores_read, scores_empty, scores_done;
  wire mask_write, mask_full, mask_read, mask_empty, mask_done;
  wire params_write, params_full, params_read, params_empty, params_done;
  wire y_write, y_full, y_read, y_empty, y_done, done;

  source #(.WIDTH(32 * LANES), .FILE("scores")) scores (
      clk, rst, scores_in, scores_write, scores_full, scores_done
  );
  source #(.WIDTH(8 * LANES), .FILE("mask")) mask (
      clk, rst, mask_in, mask_write, mask_full, mask_done
  );
  source #(.WIDTH(512), .FILE("params")) params (
      clk, rst, params_in, params_write, params_full, params_done
  );
  fifo #(32 * LANES, FIFO) scores_fifo (
      clk, rst, scores_in, scores_write, scores_full, scores_out, scores_read, scores_empty
  );
  fifo #(8 * LANES, FIFO) mask_fifo (clk, rst, mask_in, mask_write, mask_full, mask_out, mask_read, mask_empty);
  fifo #(512, FIFO) params_fifo (
      clk, rst, params_in, params_write, params_full, params_out, params_read, params_empty
  );
  softmax #(
      LANES, TILE, HEADS, KEY_BLOCKS, MAX_BATCH, CAUSAL, STEPS, MASK_DEPTH, LOAD_DEPTH, ROWS_DEPTH
  ) stage (
      .clk(clk), .rst(rst), .batch(run[0]), .seq(run[1]),
      .scores_data(scores_out), .scores_empty(scores_empty), .scores_read(scores_read),
      .mask_data(mask_out), .mask_empty(mask_empty), .mask_read(mask_read),
      .params_data(params_out), .params_empty(params_empty), .params_read(params_read),
      .weights_data(y_in), .weights_full(y_full), .weights_write(y_write), .done(done)
  );
  fifo #(8 * LANES, FIFO) y_fifo (clk, rst, y_in, y_write, y_full, y_out, y_read, y_empty);
  sink #(.WIDTH(8 * LANES), .FILE("y")) y (clk, rst, y_out, y_empty, y_read, y_done);
  ends ends (clk, rst, done, y_done, scores_done && mask_done && params_done);
endmodule
