// SPDX-License-Identifier: Apache-2.0
// What t2f/flow.hpp (`concat_channels`) asks a synthesiser for: channels of a, then channels of b, where a
// ends inside a block, so that a block of the tile's rows is held back.
module concat #(
    parameter LANES = 16,
    parameter BITS = 16,
    parameter TILE = 4,
    parameter A_CHANNELS = 21,
    parameter B_CHANNELS = 40,
    parameter STEPS = 2
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
  localparam A_BLOCKS = (A_CHANNELS + LANES - 1) / LANES;
  localparam B_BLOCKS = (B_CHANNELS + LANES - 1) / LANES;
  localparam OUT_BLOCKS = (A_CHANNELS + B_CHANNELS + LANES - 1) / LANES;
  localparam TURN = A_BLOCKS * LANES - A_CHANNELS;
  localparam IN_BLOCKS = A_BLOCKS + B_BLOCKS;
  localparam LAG = TURN > 0;
  localparam BLOCKS = IN_BLOCKS > OUT_BLOCKS + LAG ? IN_BLOCKS : OUT_BLOCKS + LAG;
  localparam FROM = (LANES - TURN) % LANES;

  wire issue;
  wire [31:0] block, t;
  reg [2:0] valid;
  wire advance = !valid[2] || y_ready;
  wire of_a = block < A_BLOCKS;
  wire of_b = !of_a && block < IN_BLOCKS;
  wire there = of_a ? a_valid : !of_b || b_valid;
  assign a_ready = issue && of_a;
  assign b_ready = issue && of_b;
  assign y_valid = valid[2];
  flat_loop #(STEPS * BLOCKS) loop (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .ready(advance && there), .issue(issue)
  );
  token_place #(TILE, BLOCKS) place (
      .clk(clk), .rst(rst), .next(issue), .seq(seq), .block(block), .t(t)
  );

  (* mem2reg *) reg [LANES*BITS-1:0] held[0:TILE-1];
  reg [LANES*BITS-1:0] v1, before2, v2, out;
  reg [31:0] block1, block2, t1;
  reg gives1, gives2;
  integer lane, channel;
  always @(posedge clk) begin
    if (rst) valid <= 0;
    else if (advance) begin
      v1 <= of_a ? a_data : of_b ? b_data : 0;
      gives1 <= issue && block >= LAG && block < OUT_BLOCKS + LAG;
      {block1, t1} <= {block, t};
      before2 <= LAG ? held[t1] : v1;
      v2 <= v1;
      held[t1] <= v1;
      {block2, gives2} <= {block1, gives1};
      for (lane = 0; lane < LANES; lane = lane + 1) begin
        channel = (block2 - LAG) * LANES + lane;
        out[BITS*lane+:BITS] = channel < A_CHANNELS ? before2[BITS*lane+:BITS] :
            channel >= A_CHANNELS + B_CHANNELS ? 0 :
            lane + TURN < LANES ? before2[BITS*((lane+TURN)%LANES)+:BITS] :
            v2[BITS*((lane+TURN)%LANES)+:BITS];
      end
      y_data <= out;
      valid <= {gives2, 2'b00} | (valid[1:0] << 1);
    end
  end
endmodule
