// SPDX-License-Identifier: Apache-2.0
// What t2f/packed.hpp (`dot_pair`) asks a synthesiser for: two rows times COLUMNS columns over LANES channels,
// two products a multiplier, fields that leave chains of 8, and accumulators of 32 bits.
module packed_dot #(
    parameter LANES = 16,
    parameter COLUMNS = 1
) (
    input                        clk,
    input                        first,
    input  [        8*LANES-1:0] x0,
    input  [        8*LANES-1:0] x1,
    input  [8*LANES*COLUMNS-1:0] w,
    output [      32*COLUMNS-1:0] y0,
    output [      32*COLUMNS-1:0] y1
);
  localparam CHAINS = (LANES + 7) / 8;
  reg signed [26:0] packed_x[0:LANES-1];
  integer i;
  reg first1, first2, first3, first4, first5, first6;
  always @(posedge clk) begin
    for (i = 0; i < LANES; i = i + 1)
      packed_x[i] <= {x1[8*i+:8], 18'd0} + {{19{x0[8*i+7]}}, x0[8*i+:8]};
    {first1, first2, first3, first4, first5, first6} <= {first, first1, first2, first3, first4, first5};
  end
  genvar column, lane, chain;
  generate
    for (column = 0; column < COLUMNS; column = column + 1) begin : g_column
      wire signed [47:0] p[0:LANES-1];
      for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
        reg signed [7:0] weight;
        reg signed [44:0] product;
        reg signed [47:0] sum;
        assign p[lane] = sum;
        always @(posedge clk) begin
          weight  <= w[8*(column*LANES+lane)+:8];
          product <= packed_x[lane] * weight;
          if (lane % 8 == 0) sum <= product;
        end
        if (lane % 8 != 0) begin : g_chain
          always @(posedge clk) sum <= p[lane-1] + product;
        end
      end
      reg signed [17:0] low[0:CHAINS-1];
      reg signed [29:0] high[0:CHAINS-1];
      for (chain = 0; chain < CHAINS; chain = chain + 1) begin : g_fields
        localparam END = 8 * chain + 7 < LANES ? 8 * chain + 7 : LANES - 1;
        always @(posedge clk) begin
          low[chain]  <= p[END][17:0];
          high[chain] <= $signed(p[END][47:18]) + $signed({1'b0, p[END][17]});
        end
      end
      reg signed [31:0] sum0, sum1, part0, part1;
      integer c;
      reg signed [31:0] s0, s1;
      always @(posedge clk) begin
        s0 = 0;
        s1 = 0;
        for (c = 0; c < CHAINS; c = c + 1) begin
          s0 = s0 + low[c];
          s1 = s1 + high[c];
        end
        part0 <= s0;
        part1 <= s1;
        sum0 <= (first6 ? 0 : sum0) + part0;
        sum1 <= (first6 ? 0 : sum1) + part1;
      end
      assign y0[32*column+:32] = sum0;
      assign y1[32*column+:32] = sum1;
    end
  endgenerate
endmodule
