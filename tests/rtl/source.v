// SPDX-License-Identifier: Apache-2.0
// Test bench: a process with one pipelined loop, of which `burst` iterations in `period` write a token.
// FILE.pattern holds the number of iterations, II, period and burst; FILE.hex the tokens.
module source #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter TOKENS = 1 << 14,  // as many as there may be
    parameter FILE = "x"
) (
    input              clk,
    input              rst,
    output [WIDTH-1:0] data,
    output             write,
    input              full,
    output reg         done
);
  reg [31:0] pattern[0:3];
  reg [WIDTH-1:0] tokens[0:TOKENS-1];
  initial begin
    $readmemh({FILE, ".pattern"}, pattern);
    $readmemh({FILE, ".hex"}, tokens);
  end

  wire enter, issue, leave, valid;
  wire [31:0] index;
  wire advance = !(valid && full);
  integer at, place;
  wire wanted = place < pattern[3];

  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(pattern[0]), .depth(DEPTH), .ii(pattern[1]), .ready(1'b1),
      .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  delay #(WIDTH, DEPTH - 1) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(issue && wanted), .din(tokens[at]),
      .valid_out(valid), .dout(data)
  );
  assign write = valid && !full;

  always @(posedge clk) begin
    if (rst) begin
      done <= 0;
      at <= 0;
      place <= 0;
    end else begin
      if (issue) begin
        if (wanted) at <= at + 1;
        place <= place + 1 == pattern[2] ? 0 : place + 1;
      end
      if (leave) done <= 1;
    end
  end
endmodule
