// SPDX-License-Identifier: Apache-2.0
// Test bench of join_rows.v and matmul.v with the FIFO of a tile between them. run.hex holds batch and seq.
module bench_matmul #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter COLUMNS = 8,
    parameter IN_BLOCKS = 2,
    parameter OUT_BLOCKS = 3,
    parameter STEPS = 1,
    parameter JOIN_DEPTH = 2,
    parameter LOAD_DEPTH = 3,
    parameter REDUCE_DEPTH = 9,
    parameter FIFO = 2
) (
    input clk,
    input rst
);
  localparam TILES = IN_BLOCKS > 2 ? IN_BLOCKS : 2;
  reg [31:0] run[0:1];
  initial $readmemh("run.hex", run);

  wire [8*LANES-1:0] x_in, x_out;
  wire [8*LANES*TILE-1:0] tiles_in, tiles_out;
  wire [511:0] w_in, w_out;
  wire [32*LANES-1:0] y_in, y_out;
  wire x_write, x_full, x_read, x_empty, x_done;
  wire tiles_write, tiles_full, tiles_read, tiles_empty;
  wire w_write, w_full, w_read, w_empty, w_done;
  wire y_write, y_full, y_read, y_empty, y_done, done;

  source #(.WIDTH(8 * LANES), .FILE("x")) x (clk, rst, x_in, x_write, x_full, x_done);
  source #(.WIDTH(512), .FILE("w")) w (clk, rst, w_in, w_write, w_full, w_done);
  fifo #(8 * LANES, FIFO) x_fifo (clk, rst, x_in, x_write, x_full, x_out, x_read, x_empty);
  fifo #(512, FIFO) w_fifo (clk, rst, w_in, w_write, w_full, w_out, w_read, w_empty);
  join_rows #(LANES, TILE, IN_BLOCKS, STEPS, JOIN_DEPTH) front (
      .clk(clk), .rst(rst), .batch(run[0]), .seq(run[1]), .x_data(x_out), .x_empty(x_empty), .x_read(x_read),
      .tiles_data(tiles_in), .tiles_full(tiles_full), .tiles_write(tiles_write)
  );
  fifo #(8 * LANES * TILE, TILES) tiles_fifo (
      clk, rst, tiles_in, tiles_write, tiles_full, tiles_out, tiles_read, tiles_empty
  );
  matmul #(LANES, TILE, COLUMNS, IN_BLOCKS, OUT_BLOCKS, STEPS, LOAD_DEPTH, REDUCE_DEPTH) stage (
      .clk(clk), .rst(rst), .batch(run[0]), .seq(run[1]), .tiles_data(tiles_out), .tiles_empty(tiles_empty),
      .tiles_read(tiles_read), .w_data(w_out), .w_empty(w_empty), .w_read(w_read),
      .y_data(y_in), .y_full(y_full), .y_write(y_write), .done(done)
  );
  fifo #(32 * LANES, FIFO) y_fifo (clk, rst, y_in, y_write, y_full, y_out, y_read, y_empty);
  sink #(.WIDTH(32 * LANES), .FILE("y")) y (clk, rst, y_out, y_empty, y_read, y_done);
  ends ends (clk, rst, done, y_done, x_done && w_done);
endmodule
