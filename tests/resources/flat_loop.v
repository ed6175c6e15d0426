// SPDX-License-Identifier: Apache-2.0
// One pipelined loop over the PASSES * batch * seq tokens of a launch, whose number is computed when the
// stage starts: batch and seq have at most 16 bits (`rows_of` of t2f/core.hpp).
module flat_loop #(
    parameter PASSES = 1
) (
    input        clk,
    input        rst,
    input [31:0] batch,
    input [31:0] seq,
    input        ready,
    output       issue,
    output reg [31:0] index
);
  reg [31:0] rows, tokens;
  wire [31:0] product;
  times_constant #(PASSES) count (.value(rows), .product(product));
  reg [1:0] started;
  reg done;
  assign issue = started[1] && !done && ready;
  always @(posedge clk) begin
    rows <= batch[15:0] * seq[15:0];
    tokens <= product;
    if (rst) begin
      started <= 0;
      done <= 0;
      index <= 0;
    end else begin
      started <= {started[0], 1'b1};
      if (issue) begin
        index <= index + 1;
        if (index + 1 == tokens) done <= 1;
      end
    end
  end
endmodule
