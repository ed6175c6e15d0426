// SPDX-License-Identifier: Apache-2.0
// Which of its loops a stage is in: those of a step once a step, those of a tile for every tile of every
// sequence. Loops are numbered in their order; behind the last tile of the last step comes LAST + 1.
module walk #(
    parameter TILE = 1,
    parameter STEPS = 1,
    parameter STEP_FIRST = 0,  // first loop of a step
    parameter TILE_FIRST = 1,  // first loop of a tile
    parameter LAST = 1         // last loop of a tile
) (
    input             clk,
    input             rst,
    input      [31:0] batch,
    input      [31:0] seq,
    input             leave,     // the loop is left
    output reg [ 2:0] state,
    output reg [31:0] sequence_index,
    output reg [31:0] left,      // rows of the sequence from this tile on
    output     [31:0] n,         // rows of the tile
    output            done
);
  reg [31:0] step;
  assign n = left < TILE ? left : TILE;
  assign done = state == LAST + 1;

  always @(posedge clk) begin
    if (rst) begin
      state <= 0;
      step <= 0;
      sequence_index <= 0;
      left <= seq;
    end else if (leave) begin
      if (state != LAST) state <= state + 1;
      else if (left > TILE) begin
        left  <= left - TILE;
        state <= TILE_FIRST;
      end else begin
        left <= seq;
        if (sequence_index + 1 != batch) begin
          sequence_index <= sequence_index + 1;
          state <= TILE_FIRST;
        end else begin
          sequence_index <= 0;
          step <= step + 1;
          state <= step + 1 == STEPS ? LAST + 1 : STEP_FIRST;
        end
      end
    end
  end
endmodule
