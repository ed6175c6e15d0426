// SPDX-License-Identifier: Apache-2.0
// The multiplier array of t2f/matmul.hpp (`matmul`): int8 rows times weights that are kept for a step.
// Loops LOAD, FILL and REDUCE as there, all at II 1, of the given depths.
//
// REDUCE: stage 0 counts, 1 has rows and weights, 2 the dot products, 3 the sums; a row that leaves is there
// behind 3, and delayed up to REDUCE_DEPTH, which is at least 4.
module matmul #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter IN_BLOCKS = 2,
    parameter OUT_BLOCKS = 3,
    parameter STEPS = 1,
    parameter LOAD_DEPTH = 3,
    parameter FILL_DEPTH = 3,
    parameter REDUCE_DEPTH = 9
) (
    input                 clk,
    input                 rst,
    input  [        31:0] batch,
    input  [        31:0] seq,
    input  [ 8*LANES-1:0] x_data,
    input                 x_empty,
    output                x_read,
    input  [       511:0] w_data,
    input                 w_empty,
    output                w_read,
    output [32*LANES-1:0] y_data,
    input                 y_full,
    output                y_write,
    output                done
);
  localparam WORDS = LANES * LANES / 64;
  localparam GROUP = IN_BLOCKS > TILE ? IN_BLOCKS : TILE;
  localparam LOAD = 3'd0, FILL = 3'd1, REDUCE = 3'd2;

  // --- which loop ------------------------------------------------------------------
  wire [2:0] state;
  wire [31:0] sequence_index, left, n;
  wire enter, issue, leave;
  walk #(
      .TILE(TILE), .STEPS(STEPS), .STEP_FIRST(LOAD), .TILE_FIRST(FILL), .LAST(REDUCE)
  ) walk (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .leave(leave), .state(state),
      .sequence_index(sequence_index), .left(left), .n(n), .done(done)
  );
  wire [31:0] work = OUT_BLOCKS * GROUP;
  wire [31:0] count = state == LOAD ? OUT_BLOCKS * IN_BLOCKS * WORDS : state == FILL ? IN_BLOCKS * n : work + n;
  wire [31:0] depth = state == LOAD ? LOAD_DEPTH : state == FILL ? FILL_DEPTH : REDUCE_DEPTH;
  wire ready = state == LOAD ? !w_empty : state == FILL ? !x_empty : 1'b1;
  wire y_valid;
  wire [31:0] index;
  wire advance = !(y_valid && y_full);

  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(count), .depth(depth), .ii(1), .ready(ready),
      .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  assign w_read = issue && state == LOAD;
  assign x_read = issue && state == FILL;

  // --- LOAD and FILL -----------------------------------------------------------------
  reg [511:0] kept[0:WORDS*OUT_BLOCKS*IN_BLOCKS-1];
  reg [8*LANES-1:0] rows[0:TILE*IN_BLOCKS-1];  // row t of block p at t * IN_BLOCKS + p
  integer fill_t, fill_block;
  always @(posedge clk) begin
    if (w_read) kept[index] <= w_data;
    if (enter) begin
      fill_t <= 0;
      fill_block <= 0;
    end
    if (x_read) begin
      rows[fill_t*IN_BLOCKS+fill_block] <= x_data;
      fill_t <= fill_t + 1 == n ? 0 : fill_t + 1;
      if (fill_t + 1 == n) fill_block <= fill_block + 1;
    end
  end

  // --- REDUCE, stage 0: counters -------------------------------------------------------
  integer p, block, row;  // place in the group, block of weights, next row of the result to leave
  wire reduce = issue && state == REDUCE;
  wire works = p < IN_BLOCKS && index < work;
  wire leaves = row < n;
  wire last = p == GROUP - 1;
  always @(posedge clk) begin
    if (enter) begin
      p <= 0;
      block <= 0;
      row <= n;
    end else if (reduce) begin
      p <= last ? 0 : p + 1;
      if (works) block <= block + 1;
      row <= last ? 0 : leaves ? row + 1 : row;
    end
  end

  // --- stages 1 to 3 -------------------------------------------------------------------
  reg works1, works2, first1, first2, leaves1, leaves2, leaves3, last1, last2;
  integer row1, row2;
  reg [8*LANES-1:0] x1[0:TILE-1];
  reg [8*LANES*LANES-1:0] w1;
  reg signed [31:0] dot2[0:TILE*LANES-1];
  reg signed [31:0] acc[0:TILE*LANES-1];
  reg signed [31:0] result[0:TILE*LANES-1];
  reg [32*LANES-1:0] y3;
  reg signed [31:0] sum;
  reg signed [7:0] a, b;
  integer t, o, i;

  always @(posedge clk) begin
    if (rst) begin
      {works1, works2, last1, last2, leaves1, leaves2, leaves3} <= 0;
    end else if (advance) begin
      works1 <= reduce && works;
      leaves1 <= reduce && leaves;
      last1 <= reduce && last;
      first1 <= p == 0;
      row1 <= row;
      {works2, leaves2, last2, first2} <= {works1, leaves1, last1, first1};
      row2 <= row1;
      leaves3 <= leaves2;

      if (reduce && works) begin
        for (t = 0; t < TILE; t = t + 1) x1[t] <= rows[t*IN_BLOCKS+p];
        for (i = 0; i < WORDS; i = i + 1) w1[512*i+:512] <= kept[block*WORDS+i];
      end

      if (works1)
        for (t = 0; t < TILE; t = t + 1)
        for (o = 0; o < LANES; o = o + 1) begin
          sum = 0;
          for (i = 0; i < LANES; i = i + 1) begin
            a = x1[t][8*i+:8];
            b = w1[8*(o*LANES+i)+:8];
            sum = sum + a * b;
          end
          dot2[t*LANES+o] <= sum;
        end

      // A row leaves as it was before this iteration's sums become the result.
      for (o = 0; o < LANES; o = o + 1) y3[32*o+:32] <= result[row2*LANES+o];
      for (o = 0; o < TILE * LANES; o = o + 1) begin
        sum = works2 ? (first2 ? 0 : acc[o]) + dot2[o] : acc[o];
        acc[o] <= sum;
        if (last2) result[o] <= sum;
      end
    end
  end

  delay #(32 * LANES, REDUCE_DEPTH - 4) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(leaves3), .din(y3), .valid_out(y_valid), .dout(y_data)
  );
  assign y_write = y_valid && !y_full;
endmodule
