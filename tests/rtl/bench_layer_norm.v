// SPDX-License-Identifier: Apache-2.0
// Test bench of layer_norm.v. run.hex holds batch and seq.
module bench_layer_norm #(
    parameter LANES = 8,
    parameter WAYS = 8,
    parameter TILE = 3,
    parameter BLOCKS = 2,
    parameter CHANNELS = 13,
    parameter IN_BITS = 16,
    parameter STEPS = 1,
    parameter LOAD_DEPTH = 2,
    parameter SUM_DEPTH = 5,
    parameter INVERSE_DEPTH = 9,
    parameter OUTPUT_DEPTH = 7,
    parameter FIFO = 2
) (
    input clk,
    input rst
);
  reg [31:0] run[0:1];
  initial $readmemh("run.hex", run);

  wire [LANES*IN_BITS-1:0] x_in, x_out;
  wire [511:0] params_in, params_out;
  wire [32*LANES-1:0] y_in, y_out;
  wire x_write, x_full, x_read, x_empty, x_done;
  wire params_write, params_full, params_read, params_empty, params_done;
  wire y_write, y_full, y_read, y_empty, y_done, done;

  source #(.WIDTH(LANES * IN_BITS), .FILE("x")) x (clk, rst, x_in, x_write, x_full, x_done);
  source #(.WIDTH(512), .FILE("params")) params (
      clk, rst, params_in, params_write, params_full, params_done
  );
  fifo #(LANES * IN_BITS, FIFO) x_fifo (clk, rst, x_in, x_write, x_full, x_out, x_read, x_empty);
  fifo #(512, FIFO) params_fifo (
      clk, rst, params_in, params_write, params_full, params_out, params_read, params_empty
  );
  layer_norm #(
      LANES, WAYS, TILE, BLOCKS, CHANNELS, IN_BITS, STEPS, LOAD_DEPTH, SUM_DEPTH, INVERSE_DEPTH, OUTPUT_DEPTH
  ) stage (
      .clk(clk), .rst(rst), .batch(run[0]), .seq(run[1]), .x_data(x_out), .x_empty(x_empty), .x_read(x_read),
      .params_data(params_out), .params_empty(params_empty), .params_read(params_read),
      .y_data(y_in), .y_full(y_full), .y_write(y_write), .done(done)
  );
  fifo #(32 * LANES, FIFO) y_fifo (clk, rst, y_in, y_write, y_full, y_out, y_read, y_empty);
  sink #(.WIDTH(32 * LANES), .FILE("y")) y (clk, rst, y_out, y_empty, y_read, y_done);
  ends ends (clk, rst, done, y_done, x_done && params_done);
endmodule
