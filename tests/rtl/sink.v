// SPDX-License-Identifier: Apache-2.0
// Test bench: a process with one pipelined loop, of which `burst` iterations in `period` read a token.
// Prints the cycle and the value of each. FILE.pattern as in source.v.
module sink #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter FILE  = "y"
) (
    input              clk,
    input              rst,
    input  [WIDTH-1:0] data,
    input              empty,
    output             read,
    output reg         done
);
  reg [31:0] pattern[0:3];
  initial $readmemh({FILE, ".pattern"}, pattern);

  wire enter, issue, leave;
  wire [31:0] index;
  integer place, cycle;
  wire wanted = place < pattern[3];

  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(pattern[0]), .depth(DEPTH), .ii(pattern[1]),
      .ready(!wanted || !empty), .advance(1'b1), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  assign read = issue && wanted;

  always @(posedge clk) begin
    if (rst) begin
      done  <= 0;
      place <= 0;
      cycle <= 0;
    end else begin
      cycle <= cycle + 1;
      if (read) $display("token %0d %h", cycle, data);
      if (issue) place <= place + 1 == pattern[2] ? 0 : place + 1;
      if (leave) done <= 1;
    end
  end
endmodule
