// SPDX-License-Identifier: Apache-2.0
// Layer norm without its affine part, t2f/normalize.hpp (`normalize`), in the widths of its C++. Loops LOAD,
// SUM, INVERSE and OUTPUT as there, all at II 1, of the given depths, which are at least 1, 3, 5 and 5. It is
// simulated, and synthesised (tests/resources): products with constants are sums of shifted operands, and the
// table (rsqrt.hex, its values) is a block memory.
/* verilator lint_off WIDTH */
module layer_norm #(
    parameter LANES = 8,
    parameter WAYS = LANES,
    parameter TILE = 3,
    parameter BLOCKS = 2,
    parameter CHANNELS = 13,
    parameter IN_BITS = 16,
    parameter STEPS = 1,
    parameter LOAD_DEPTH = 2,
    parameter SUM_DEPTH = 5,
    parameter INVERSE_DEPTH = 9,
    parameter OUTPUT_DEPTH = 7
) (
    input                       clk,
    input                       rst,
    input  [              31:0] batch,
    input  [              31:0] seq,
    input  [LANES*IN_BITS-1:0] x_data,
    input                       x_empty,
    output                      x_read,
    input  [             511:0] params_data,
    input                       params_empty,
    output                      params_read,
    output [      32*LANES-1:0] y_data,
    input                       y_full,
    output                      y_write,
    output                      done
);
  localparam PARTS = LANES / WAYS;
  localparam MEAN_BITS = IN_BITS < 32 ? IN_BITS + 1 : 32;
  localparam SUM_BITS = IN_BITS + $clog2(CHANNELS + 1);
  localparam LOAD = 3'd0, SUM = 3'd1, INVERSE = 3'd2, OUTPUT = 3'd3;

  // --- which loop ------------------------------------------------------------------
  wire [2:0] state;
  wire [31:0] sequence_index, left, n;
  wire enter, issue, leave;
  walk #(
      .TILE(TILE), .STEPS(STEPS), .STEP_FIRST(LOAD), .TILE_FIRST(SUM), .LAST(OUTPUT)
  ) walk (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .leave(leave), .state(state),
      .sequence_index(sequence_index), .left(left), .n(n), .done(done)
  );
  // Token of the tile, its row, first channel of its block, and part of it in the next iteration of SUM and
  // OUTPUT; INVERSE takes a row at once.
  integer token, t, channel, part;
  wire [31:0] iterations;
  times_constant #(BLOCKS * PARTS) tile (.value(n), .product(iterations));
  wire [31:0] count = state == LOAD ? 1 : state == INVERSE ? n : iterations;
  wire [31:0] depth = state == LOAD ? LOAD_DEPTH : state == SUM ? SUM_DEPTH :
                      state == INVERSE ? INVERSE_DEPTH : OUTPUT_DEPTH;
  wire ready = state == LOAD ? !params_empty : state == SUM ? part != 0 || !x_empty : 1'b1;
  wire y_valid;
  wire [31:0] index;
  wire advance = !(y_valid && y_full);

  pipelined_loop loop (
      .clk(clk), .rst(rst), .run(!done), .count(count), .depth(depth), .ii(1), .ready(ready),
      .advance(advance), .enter(enter), .issue(issue), .leave(leave), .index(index)
  );
  assign params_read = issue && state == LOAD;
  wire sums = issue && state == SUM;
  assign x_read = sums && part == 0;

  always @(posedge clk) begin
    if (enter) begin
      token <= 0;
      t <= 0;
      channel <= 0;
      part <= 0;
    end else if (issue) begin
      if (state != INVERSE && part != PARTS - 1) part <= part + 1;
      else begin
        part  <= 0;
        token <= token + 1;
        t <= t + 1 == n ? 0 : t + 1;
        if (t + 1 == n) channel <= channel + LANES;
      end
    end
  end

  // --- LOAD ----------------------------------------------------------------------------
  reg [63:0] eps;
  reg signed [31:0] mean_multiplier;
  reg [31:0] mean_shift;
  always @(posedge clk) if (params_read) {mean_shift, mean_multiplier, eps} <= params_data[127:0];

  // --- SUM: a part of the token, the sums over its lanes, the sums over its row ----------------
  reg [LANES*IN_BITS-1:0] rows[0:BLOCKS*TILE-1];
  reg signed [63:0] sum[0:TILE-1];
  reg [63:0] squares[0:TILE-1];
  reg sum_valid1, sum_valid2;
  wire [WAYS*IN_BITS-1:0] v0;
  reg [WAYS*IN_BITS-1:0] v1;
  take_lanes #(LANES, WAYS, IN_BITS) taken (
      .clk(clk), .next(sums), .first(PARTS == 1 || part == 0), .token(x_data), .part(v0)
  );
  integer sum_t1, sum_t2;
  reg signed [63:0] lanes2, value, lanes_sum;
  reg [63:0] powers2, powers_sum;
  integer i;
  always @(posedge clk) begin
    if (rst) {sum_valid1, sum_valid2} <= 0;
    else begin
      {sum_valid1, sum_valid2} <= {sums, sum_valid1};
      if (x_read) rows[token] <= x_data;
      v1 <= v0;
      sum_t1 <= t;
      sum_t2 <= sum_t1;
      lanes_sum = 0;
      powers_sum = 0;
      for (i = 0; i < WAYS; i = i + 1) begin
        value = {{64 - IN_BITS{v1[IN_BITS*i+IN_BITS-1]}}, v1[IN_BITS*i+:IN_BITS]};
        lanes_sum = lanes_sum + value;
        powers_sum = powers_sum + value * value;
      end
      lanes2 <= lanes_sum;
      powers2 <= powers_sum;
      if (enter && state == SUM)
        for (i = 0; i < TILE; i = i + 1) begin
          sum[i] <= 0;
          squares[i] <= eps;
        end
      if (sum_valid2) begin
        sum[sum_t2] <= sum[sum_t2] + lanes2;
        squares[sum_t2] <= squares[sum_t2] + powers2;
      end
    end
  end

  // --- INVERSE: mean, squared deviation, then 1 / sqrt: operand and table, two Newton steps ----
  reg signed [31:0] mean[0:TILE-1];
  reg [31:0] mantissa[0:TILE-1];
  reg [31:0] exponent[0:TILE-1];
  reg inv_valid1, inv_valid2, inv_valid3, inv_valid4;
  integer inv_t1, inv_t2, inv_t3, inv_t4, exponent3, exponent4;
  reg signed [31:0] mean1, mean2, mean3, mean4;
  reg signed [SUM_BITS-1:0] row_sum, sum1;
  reg signed [SUM_BITS+1:0] rest;
  reg signed [63:0] scaled_sum;
  reg [63:0] squares1, deviation2, operand, wide, r2;
  reg [31:0] m3, m4, m5, r4, s0, s1, error;
  reg [16:0] r3;
  reg [32:0] square;
  wire signed [MEAN_BITS-1:0] short1 = mean1[MEAN_BITS-1:0];
  wire signed [SUM_BITS+1:0] wide1 = short1, channels_mean;
  times_constant #(CHANNELS, SUM_BITS + 2) share (.value(wide1), .product(channels_mean));
  (* rom_style = "block" *) reg [16:0] roots[0:383];
  initial $readmemh("rsqrt.hex", roots);
  integer top, b;
  always @(posedge clk) begin
    if (rst) {inv_valid1, inv_valid2, inv_valid3, inv_valid4} <= 0;
    else begin
      {inv_valid1, inv_valid2, inv_valid3, inv_valid4} <= {
        issue && state == INVERSE, inv_valid1, inv_valid2, inv_valid3
      };
      {inv_t1, inv_t2, inv_t3, inv_t4} <= {t, inv_t1, inv_t2, inv_t3};
      {mean2, mean3, mean4} <= {mean1, mean2, mean3};

      row_sum = sum[t][SUM_BITS-1:0];
      scaled_sum = round_shift(row_sum * mean_multiplier, mean_shift);
      mean1 <= scaled_sum[31:0];
      sum1 <= row_sum;
      squares1 <= squares[t];

      rest = (sum1 <<< 1) - channels_mean;
      scaled_sum = short1 * rest;
      deviation2 <= squares1 - scaled_sum;

      // The operand as U2.30 in [1, 4), a table's U0.16 for its root.
      operand = deviation2 == 0 ? 1 : deviation2;
      top = 0;
      for (b = 1; b < 64; b = b + 1) if (operand[b]) top = b & ~1;
      wide = top >= 30 ? operand >> (top - 30) : operand << (30 - top);
      m3 = wide[31:0];
      r3 <= roots[m3[31:23]-9'd128];
      m4 <= m3;
      exponent3 <= top >> 1;

      exponent4 <= exponent3;
      wide = {32'd0, m4} * ({17'd0, r3} * r3);
      s0 = wide[63:32];
      error = 32'hc0000000 - s0;
      wide = {32'd0, error} * r3;
      r4 <= wide[48:17];
      m5 <= m4;

      wide = {32'd0, r4} * r4;
      square = wide[60:28];
      wide = {32'd0, m5} * square;
      s1 = wide[63:32];
      error = 32'hc0000000 - s1;
      r2 = ({32'd0, r4} * error) >> 31;
      r2 = (r2 + (1 << 11)) >> 12;
      if (inv_valid4) begin
        mean[inv_t4] <= mean4;
        mantissa[inv_t4] <= r2[31:0];
        exponent[inv_t4] <= exponent4;
      end
    end
  end

  // --- OUTPUT: the token, the difference of a part to the mean, the product, the result ----------
  reg out_valid1, out_valid2, out_valid3, out_valid4, first1, last1, last2, last3;
  reg [LANES*IN_BITS-1:0] out1;
  wire [WAYS*IN_BITS-1:0] part1;
  take_lanes #(LANES, WAYS, IN_BITS) lowest (
      .clk(clk), .next(advance && out_valid1), .first(first1), .token(out1), .part(part1)
  );
  integer out_t1, channel1, channel2, channel3;
  reg [31:0] mantissa2, exponent2, exponent_3;
  reg signed [IN_BITS+1:0] difference2[0:WAYS-1];
  reg signed [63:0] product3[0:WAYS-1];
  reg signed [63:0] result;
  reg [32*WAYS-1:0] made;  // of product3
  wire [32*LANES-1:0] out4;
  put_lanes #(LANES, WAYS, 32) put (.clk(clk), .next(advance && out_valid3), .part(made), .token(out4));
  integer way, lane;
  always @(posedge clk) begin
    if (rst) {out_valid1, out_valid2, out_valid3, out_valid4} <= 0;
    else if (advance) begin
      {out_valid1, out_valid2, out_valid3, out_valid4} <= {
        issue && state == OUTPUT, out_valid1, out_valid2, out_valid3 && last3
      };
      {first1, last1, last2, last3} <= {PARTS == 1 || part == 0, part == PARTS - 1, last1, last2};
      {channel1, channel2, channel3} <= {channel + part * WAYS, channel1, channel2};
      if (state == OUTPUT) out1 <= rows[token];
      out_t1 <= t;
      {mantissa2, exponent2, exponent_3} <= {mantissa[out_t1], exponent[out_t1], exponent2};
      for (way = 0; way < WAYS; way = way + 1) begin
        difference2[way] <= $signed(part1[IN_BITS*way+:IN_BITS]) - mean[out_t1];
        product3[way] <= difference2[way] * $signed(mantissa2[19:0]);
      end
    end
  end
  always @*
    for (lane = 0; lane < WAYS; lane = lane + 1) begin
      result = exponent_3 >= 6 ? round_shift(product3[lane], exponent_3 - 6) :
          product3[lane] << (6 - exponent_3);
      made[32*lane+:32] = channel3 + lane < CHANNELS ? result[31:0] : 0;
    end

  delay #(32 * LANES, OUTPUT_DEPTH - 5) pipeline (
      .clk(clk), .rst(rst), .advance(advance), .valid_in(out_valid4), .din(out4), .valid_out(y_valid),
      .dout(y_data)
  );
  assign y_write = y_valid && !y_full;

  // round(value / 2^shift), halves up
  function signed [63:0] round_shift(input signed [63:0] v, input [31:0] shift);
    round_shift = (v + (shift == 0 ? 64'sd0 : 64'sd1 <<< (shift - 1))) >>> shift;
  endfunction
endmodule
/* verilator lint_on WIDTH */
