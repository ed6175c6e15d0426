// SPDX-License-Identifier: Apache-2.0
// What t2f/elementwise.hpp (`add`) asks a synthesiser for: y = saturate(a + b), one token a cycle.
module add #(
    parameter LANES = 16,
    parameter BITS = 16,
    parameter PASSES = 576
) (
    input                       clk,
    input                       rst,
    input      [          31:0] batch,
    input      [          31:0] seq,
    input      [LANES*BITS-1:0] a_data,
    input                       a_valid,
    output                      a_ready,
    input      [LANES*BITS-1:0] b_data,
    input                       b_valid,
    output                      b_ready,
    output reg [LANES*BITS-1:0] y_data,
    output                      y_valid,
    input                       y_ready
);
  localparam signed [BITS:0] HIGH = (1 << (BITS - 1)) - 1;
  localparam signed [BITS:0] LOW = -HIGH - 1;
  wire issue;
  reg [2:0] valid;
  wire advance = !valid[2] || y_ready;
  assign a_ready = issue;
  assign b_ready = issue;
  assign y_valid = valid[2];
  flat_loop #(PASSES) loop (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .ready(advance && a_valid && b_valid), .issue(issue)
  );
  always @(posedge clk)
    if (rst) valid <= 0;
    else if (advance) valid <= {valid[1:0], issue};

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      reg signed [BITS-1:0] a, b;
      reg signed [BITS:0] sum;
      always @(posedge clk) if (advance) begin
        a <= a_data[BITS*lane+:BITS];
        b <= b_data[BITS*lane+:BITS];
        sum <= a + b;
        y_data[BITS*lane+:BITS] <= sum > HIGH ? HIGH[BITS-1:0] : sum < LOW ? LOW[BITS-1:0] : sum[BITS-1:0];
      end
    end
  endgenerate
endmodule
