// SPDX-License-Identifier: Apache-2.0
// Softmax weights of t2f/attention.hpp (`softmax_weights` with a mask). Loops MASK, LOAD and ROWS as there,
// all at II 1, of the given depths, which are at least 1, 1 and 6.
// tables.vh is written from the tables of the stage library.
//
// ROWS: stage 0 counts, 1 has the scores that are visible, 2 their largest, 3 the row's maximum and the
// scores of the head before, 4 the distances, 5 the weights; these are delayed up to ROWS_DEPTH.
module softmax #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter HEADS = 2,
    parameter KEY_BLOCKS = 3,
    parameter MAX_BATCH = 2,
    parameter CAUSAL = 0,
    parameter STEPS = 1,
    parameter MASK_DEPTH = 3,
    parameter LOAD_DEPTH = 3,
    parameter ROWS_DEPTH = 9
) (
    input                 clk,
    input                 rst,
    input  [        31:0] batch,
    input  [        31:0] seq,
    input  [32*LANES-1:0] scores_data,
    input                 scores_empty,
    output                scores_read,
    input  [ 8*LANES-1:0] mask_data,
    input                 mask_empty,
    output                mask_read,
    input  [       511:0] params_data,
    input                 params_empty,
    output                params_read,
    output [ 8*LANES-1:0] weights_data,
    input                 weights_full,
    output                weights_write,
    output                done
);
  `include "tables.vh"
  localparam MASK = 3'd0, LOAD = 3'd1, ROWS = 3'd2;
  localparam HEAD_WORDS = (HEADS + 15) / 16;
  localparam signed [31:0] LOWEST = 32'h80000000;

  // --- which loop ------------------------------------------------------------------
  wire [2:0] state;
  wire [31:0] sequence_index, left, n;
  wire enter, issue, leave;
  walk #(
      .TILE(TILE), .STEPS(STEPS), .STEP_FIRST(LOAD), .TILE_FIRST(ROWS), .LAST(ROWS)
  ) walk (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .leave(leave), .state(state),
      .sequence_index(sequence_index), .left(left), .n(n), .done(done)
  );
  wire [31:0] key_blocks = (seq + LANES - 1) / LANES;
  wire [31:0] count = state == MASK ? batch * key_blocks : state == LOAD ? 1 + HEAD_WORDS :
                      (HEADS + 1) * key_blocks * n;
  wire [31:0] depth = state == MASK ? MASK_DEPTH : state == LOAD ? LOAD_DEPTH : ROWS_DEPTH;
  wire takes;
  wire ready = state == MASK ? !mask_empty : state == LOAD ? !params_empty : !takes || !scores_empty;
  wire out_valid;
  wire [31:0] index;
  wire advance = !(out_valid && weights_full);

  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(count), .depth(depth), .ii(1), .ready(ready),
      .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  assign mask_read = issue && state == MASK;
  assign params_read = issue && state == LOAD;
  assign scores_read = issue && state == ROWS && takes;

  // --- MASK and LOAD -------------------------------------------------------------------
  reg [8*LANES-1:0] valid[0:MAX_BATCH*KEY_BLOCKS-1];
  reg [31:0] shift;
  reg signed [31:0] multiplier[0:16*HEAD_WORDS-1];
  integer h;
  always @(posedge clk) begin
    if (mask_read) valid[index] <= mask_data;
    if (params_read) begin
      if (index == 0) shift <= params_data[31:0];
      else for (h = 0; h < 16; h = h + 1) multiplier[(index-1)*16+h] <= params_data[32*h+:32];
    end
  end

  // --- ROWS, stage 0: counters -------------------------------------------------------------
  integer t, kb, at, head;
  wire rows = issue && state == ROWS;
  assign takes = head < HEADS;
  always @(posedge clk) begin
    if (enter) begin
      t <= 0;
      kb <= 0;
      at <= 0;
      head <= 0;
    end else if (rows) begin
      t  <= t + 1 == n ? 0 : t + 1;
      at <= at + 1;
      if (t + 1 == n) begin
        kb <= kb + 1 == key_blocks ? 0 : kb + 1;
        if (kb + 1 == key_blocks) begin
          at   <= 0;
          head <= head + 1;
        end
      end
    end
  end

  // --- stages 1 and 2: visible scores and the largest of them ------------------------------------
  reg rows1, rows2, takes1, takes2;
  integer kb1, kb2, at1, at2, head1, head2, n2;
  reg signed [31:0] v1[0:LANES-1], v2[0:LANES-1];
  reg signed [31:0] here2, largest;
  integer j, key;
  reg visible;
  wire [31:0] first = seq - left;
  wire [8*LANES-1:0] mask_word = valid[sequence_index*key_blocks+kb];
  always @(posedge clk) begin
    if (rst) {rows1, rows2} <= 0;
    else if (advance) begin
      {rows1, rows2} <= {rows, rows1};
      {takes1, takes2} <= {takes, takes1};
      {kb1, kb2, at1, at2, head1, head2} <= {kb, kb1, at, at1, head, head1};
      for (j = 0; j < LANES; j = j + 1) begin
        key = kb * LANES + j;
        visible = key < seq && (CAUSAL == 0 || key <= first + t) && mask_word[8*j+:8] != 0;
        v1[j] <= visible ? scores_data[32*j+:32] : LOWEST;
      end
      largest = v1[0];
      for (j = 0; j < LANES; j = j + 1) begin
        if (v1[j] > largest) largest = v1[j];
        v2[j] <= v1[j];
      end
      here2 <= largest;
    end
  end

  // --- stage 3: maxima of the tile's rows, each visited in turn at place 0, and what was seen ------
  reg [32*LANES-1:0] seen[0:2*KEY_BLOCKS*TILE-1];  // of two heads
  reg [32*LANES-1:0] seen3, here;
  reg signed [31:0] top[0:TILE-1];      // so far, of the head that comes in
  reg signed [31:0] maximum[0:TILE-1];  // of the head that leaves
  reg signed [31:0] row_top, row_maximum, maximum3, multiplier3;
  reg leaves3;
  integer r;
  always @(posedge clk) begin
    if (rst) begin
      leaves3 <= 0;
      for (r = 0; r < TILE; r = r + 1) begin
        top[r] <= LOWEST;
        maximum[r] <= LOWEST;
      end
    end else if (advance) begin
      leaves3 <= rows2 && head2 > 0;
      seen3 <= seen[(head2&1^1)*KEY_BLOCKS*TILE+at2];
      maximum3 <= maximum[0];
      multiplier3 <= multiplier[head2-1];
      if (rows2) begin
        row_maximum = maximum[0];
        row_top = top[0];
        if (takes2) begin
          for (r = 0; r < LANES; r = r + 1) here[32*r+:32] = v2[r];
          seen[(head2&1)*KEY_BLOCKS*TILE+at2] <= here;
          if (kb2 == 0 || here2 > row_top) row_top = here2;
        end
        for (r = 0; r < TILE; r = r + 1) begin
          top[r] <= r == n - 1 || r + 1 == TILE ? row_top : top[(r+1)%TILE];
          maximum[r] <= r == n - 1 || r + 1 == TILE ? (kb2 + 1 == key_blocks ? row_top : row_maximum) :
              maximum[(r+1)%TILE];
        end
      end
    end
  end

  // --- stages 4 and 5: distance to the maximum, its power of two --------------------------------
  reg leaves4, leaves5;
  reg [LANES-1:0] hidden4;
  reg signed [63:0] distance4[0:LANES-1];
  reg [8*LANES-1:0] weights5;
  reg signed [31:0] score;
  reg signed [63:0] below, power;
  reg [31:0] whole;
  integer k;
  always @(posedge clk) begin
    if (rst) {leaves4, leaves5} <= 0;
    else if (advance) begin
      {leaves4, leaves5} <= {leaves3, leaves4};
      for (k = 0; k < LANES; k = k + 1) begin
        score = seen3[32*k+:32];
        below = {{32{maximum3[31]}}, maximum3} - {{32{score[31]}}, score};
        distance4[k] <= round_shift(below * multiplier3, shift);
        hidden4[k] <= score == LOWEST;
        whole = distance4[k] >>> 8 > 15 ? 15 : distance4[k][39:8];
        power = round_shift({47'd0, exp2_table(distance4[k][7:0])}, 8 + whole);
        weights5[8*k+:8] <= hidden4[k] ? 0 : power[7:0];
      end
    end
  end

  delay #(8 * LANES, ROWS_DEPTH - 6) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(leaves5), .din(weights5),
      .valid_out(out_valid), .dout(weights_data)
  );
  assign weights_write = out_valid && !weights_full;

  // round(value / 2^shift), halves up
  function signed [63:0] round_shift(input signed [63:0] v, input [31:0] by);
    round_shift = (v + (by == 0 ? 64'sd0 : 64'sd1 <<< (by - 1))) >>> by;
  endfunction
endmodule
