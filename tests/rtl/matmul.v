// SPDX-License-Identifier: Apache-2.0
// The multiplier array of t2f/matmul.hpp (`matmul`): tiles of int8 rows times weights that are kept for a step.
// Loops LOAD, once a step, and REDUCE, once a sequence, as there, both at II 1, of the given depths.
//
// REDUCE: stage 0 counts, 1 has a tile's channel block and weights, 2 the dot products, 3 the sums; a row that
// leaves is there behind 3, and delayed up to REDUCE_DEPTH, which is at least 4.
module matmul #(
    parameter LANES = 8,
    parameter TILE = 3,
    parameter COLUMNS = 8,
    parameter IN_BLOCKS = 2,
    parameter OUT_BLOCKS = 3,
    parameter STEPS = 1,
    parameter LOAD_DEPTH = 3,
    parameter REDUCE_DEPTH = 9
) (
    input                     clk,
    input                     rst,
    input  [            31:0] batch,
    input  [            31:0] seq,
    input  [8*LANES*TILE-1:0] tiles_data,
    input                     tiles_empty,
    output                    tiles_read,
    input  [           511:0] w_data,
    input                     w_empty,
    output                    w_read,
    output [    32*LANES-1:0] y_data,
    input                     y_full,
    output                    y_write,
    output                    done
);
  localparam WORDS = COLUMNS * LANES / 64;
  localparam PARTS = LANES / COLUMNS;
  localparam PLACES = IN_BLOCKS > TILE ? IN_BLOCKS : TILE;
  localparam LOAD = 3'd0, REDUCE = 3'd1;

  // --- which loop: a sequence is one entry of REDUCE, as if it were one tile ------------
  wire [2:0] state;
  wire [31:0] sequence_index, sequence_left, sequence_rows;
  wire enter, issue, leave;
  walk #(
      .TILE(32'h3fffffff), .STEPS(STEPS), .STEP_FIRST(LOAD), .TILE_FIRST(REDUCE), .LAST(REDUCE)
  ) walk (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .leave(leave), .state(state),
      .sequence_index(sequence_index), .left(sequence_left), .n(sequence_rows), .done(done)
  );
  wire [31:0] tiles = (seq + TILE - 1) / TILE;
  wire [31:0] count = state == LOAD ? OUT_BLOCKS * PARTS * IN_BLOCKS * WORDS
                                    : tiles * (OUT_BLOCKS * PARTS * PLACES) + seq;
  wire [31:0] depth = state == LOAD ? LOAD_DEPTH : REDUCE_DEPTH;

  // --- REDUCE, stage 0: counters -------------------------------------------------------
  integer left, rows;          // of the sequence from the tile on, of the tile
  integer block, part, p, ends;  // output block, part of it, place in the part, its last place
  integer word;                // of weights, columns * lanes bytes wide
  wire leaving = block == OUT_BLOCKS;
  wire works = !leaving && p < IN_BLOCKS;
  wire takes = works && block == 0 && part == 0;
  wire leaves = block != 0 && part == 0 && p < rows;
  wire moves = !leaving && p == PLACES - 1;

  wire ready = state == LOAD ? !w_empty : !takes || !tiles_empty;
  wire y_valid;
  wire [31:0] index;
  wire advance = !(y_valid && y_full);
  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(count), .depth(depth), .ii(1), .ready(ready),
      .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  wire reduce = issue && state == REDUCE;
  assign w_read = issue && state == LOAD;
  assign tiles_read = reduce && takes;

  always @(posedge clk) begin
    if (enter) begin
      left <= seq;
      rows <= seq < TILE ? seq : TILE;
      block <= 0;
      part <= 0;
      p <= 0;
      ends <= PLACES - 1;
      word <= 0;
    end else if (reduce) begin
      if (works) word <= word + 1;
      if (p != ends) p <= p + 1;
      else begin
        p <= 0;
        if (leaving) begin
          block <= 0;
          word <= 0;
          ends <= PLACES - 1;
          left <= left - TILE;
          rows <= left < 2 * TILE ? left - TILE : TILE;
        end else if (part != PARTS - 1) part <= part + 1;
        else begin
          part  <= 0;
          block <= block + 1;
          if (block == OUT_BLOCKS - 1) ends <= rows - 1;
        end
      end
    end
  end

  // --- memories --------------------------------------------------------------------------
  reg [511:0] kept[0:WORDS*OUT_BLOCKS*PARTS*IN_BLOCKS-1];
  reg [8*LANES*TILE-1:0] tile[0:IN_BLOCKS-1];
  always @(posedge clk) begin
    if (w_read) kept[index] <= w_data;
    if (tiles_read) tile[p] <= tiles_data;
  end

  // --- stages 1 to 3 -------------------------------------------------------------------
  reg works1, works2, first1, first2, leaves1, leaves2, leaves3, moves1, moves2;
  integer row1, row2;
  reg [8*LANES*TILE-1:0] x1;
  reg [8*COLUMNS*LANES-1:0] w1;
  reg signed [31:0] dot2[0:TILE*COLUMNS-1];
  reg signed [31:0] acc[0:TILE*COLUMNS-1];
  reg [32*LANES-1:0] result[0:TILE-1];
  reg [32*LANES-1:0] y3;
  reg [32*COLUMNS-1:0] sums;
  reg [32*(LANES+COLUMNS)-1:0] moved;
  reg signed [31:0] sum;
  reg signed [7:0] a, b;
  integer t, o, i;

  always @(posedge clk) begin
    if (rst) begin
      {works1, works2, moves1, moves2, leaves1, leaves2, leaves3} <= 0;
    end else if (advance) begin
      works1 <= reduce && works;
      leaves1 <= reduce && leaves;
      moves1 <= reduce && moves;
      first1 <= p == 0;
      row1 <= p;
      {works2, leaves2, moves2, first2} <= {works1, leaves1, moves1, first1};
      row2 <= row1;
      leaves3 <= leaves2;

      if (reduce && works) begin
        x1 <= takes ? tiles_data : tile[p];
        for (i = 0; i < WORDS; i = i + 1) w1[512*i+:512] <= kept[word*WORDS+i];
      end

      if (works1)
        for (t = 0; t < TILE; t = t + 1)
        for (o = 0; o < COLUMNS; o = o + 1) begin
          sum = 0;
          for (i = 0; i < LANES; i = i + 1) begin
            a = x1[8*(t*LANES+i)+:8];
            b = w1[8*(o*LANES+i)+:8];
            sum = sum + a * b;
          end
          dot2[t*COLUMNS+o] <= sum;
        end

      // A row leaves as it was before this iteration's sums move in behind those of the parts before.
      if (leaves2) y3 <= result[row2];
      for (t = 0; t < TILE; t = t + 1) begin
        for (o = 0; o < COLUMNS; o = o + 1) begin
          sum = works2 ? (first2 ? 0 : acc[t*COLUMNS+o]) + dot2[t*COLUMNS+o] : acc[t*COLUMNS+o];
          acc[t*COLUMNS+o] <= sum;
          sums[32*o+:32] = sum;
        end
        moved = {sums, result[t]};
        if (moves2) result[t] <= moved[32*COLUMNS+:32*LANES];
      end
    end
  end

  delay #(32 * LANES, REDUCE_DEPTH - 4) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(leaves3), .din(y3), .valid_out(y_valid), .dout(y_data)
  );
  assign y_write = y_valid && !y_full;
endmodule
