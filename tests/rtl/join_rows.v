// SPDX-License-Identifier: Apache-2.0
// The process in front of the multiplier array (`join_rows` in t2f/matmul.hpp): a channel block of all rows of a
// tile side by side. One loop JOIN at II 1, of a depth that is at least 2.
module join_rows #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter IN_BLOCKS = 2,
    parameter STEPS = 1,
    parameter JOIN_DEPTH = 2
) (
    input                     clk,
    input                     rst,
    input  [            31:0] batch,
    input  [            31:0] seq,
    input  [     8*LANES-1:0] x_data,
    input                     x_empty,
    output                    x_read,
    output [8*LANES*TILE-1:0] tiles_data,  // row t from bit 8 * LANES * t
    input                     tiles_full,
    output                    tiles_write
);
  reg done;
  wire enter, issue, leave, tiles_valid;
  wire [31:0] index;
  wire advance = !(tiles_valid && tiles_full);
  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(STEPS * batch * seq * IN_BLOCKS), .depth(JOIN_DEPTH), .ii(1),
      .ready(!x_empty), .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  assign x_read = issue;

  integer behind, block, t;  // rows behind the tile's first one, channel block, row of the tile
  wire ends = t == TILE - 1 || t == behind;
  reg [8*LANES-1:0] held[0:TILE-1];
  reg valid1;
  reg [8*LANES*TILE-1:0] out1;
  integer i;

  always @(posedge clk) begin
    if (rst) begin
      done <= 0;
      valid1 <= 0;
    end else begin
      if (leave) done <= 1;
      if (enter) begin
        behind <= seq - 1;
        block <= 0;
        t <= 0;
      end
      if (issue) begin
        held[t] <= x_data;
        t <= ends ? 0 : t + 1;
        if (ends) begin
          block <= block == IN_BLOCKS - 1 ? 0 : block + 1;
          if (block == IN_BLOCKS - 1) behind <= behind >= TILE ? behind - TILE : seq - 1;
        end
      end
      if (advance) begin
        valid1 <= issue && ends;
        for (i = 0; i < TILE; i = i + 1) out1[8*LANES*i+:8*LANES] <= i == t ? x_data : held[i];
      end
    end
  end

  delay #(8 * LANES * TILE, JOIN_DEPTH - 2) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(valid1), .din(out1), .valid_out(tiles_valid),
      .dout(tiles_data)
  );
  assign tiles_write = tiles_valid && !tiles_full;
endmodule
