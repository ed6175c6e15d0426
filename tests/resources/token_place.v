// SPDX-License-Identifier: Apache-2.0
// `token_place` and `advance` of t2f/core.hpp: channel block and row in the tile of the next token.
module token_place #(
    parameter TILE = 4,
    parameter BLOCKS = 48
) (
    input             clk,
    input             rst,
    input             next,
    input      [31:0] seq,
    output reg [31:0] block,
    output reg [31:0] t,
    output reg [31:0] behind
);
  always @(posedge clk) begin
    if (rst) begin
      block <= 0;
      t <= 0;
      behind <= seq - 1;
    end else if (next) begin
      if (t != TILE - 1 && t != behind) t <= t + 1;
      else begin
        t <= 0;
        if (block != BLOCKS - 1) block <= block + 1;
        else begin
          block  <= 0;
          behind <= behind >= TILE ? behind - TILE : seq - 1;
        end
      end
    end
  end
endmodule
