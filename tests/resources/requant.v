// SPDX-License-Identifier: Apache-2.0
// What t2f/requant.hpp (`requant`, `requant_scaled`, all lanes a cycle) asks a synthesiser for, in the widths
// of its C++: VALUE_BITS times 18 bits, a bias shifted to 64 bits, round, saturate. Every line of the C++ is a
// pipeline stage of its own. A lane's parameters lie in memories of its own.
module requant #(
    parameter LANES = 4,
    parameter TILE = 4,
    parameter BLOCKS = 48,
    parameter IN_BITS = 32,
    parameter VALUE_BITS = 25,
    parameter OUT_BITS = 8,
    parameter SCALED = 0
) (
    input                           clk,
    input                           rst,
    input      [              31:0] batch,
    input      [              31:0] seq,
    input      [ LANES*IN_BITS-1:0] x_data,
    input                           x_valid,
    output                          x_ready,
    input      [               7:0] exponent_data,
    input                           exponent_valid,
    output                          exponent_ready,
    input      [             511:0] params_data,
    input                           params_valid,
    output                          params_ready,
    output reg [LANES*OUT_BITS-1:0] y_data,
    output                          y_valid,
    input                           y_ready
);
  localparam WORDS = 1 + (SCALED ? 3 : 2) * BLOCKS;
  localparam DEPTH = SCALED ? 9 : 8;
  localparam signed [63:0] HIGH = (64'sd1 <<< (OUT_BITS - 1)) - 1;
  localparam signed [63:0] LOW = OUT_BITS == 8 ? -HIGH : -HIGH - 1;

  // --- the two loops ---------------------------------------------------------------------
  reg loading;
  reg [31:0] index, tokens, rows;
  wire [31:0] product;
  times_constant #(BLOCKS) count (.value(rows), .product(product));
  reg [DEPTH-1:0] valid;
  wire advance = !valid[DEPTH-1] || y_ready;
  wire first_block;
  wire takes = !loading && advance && x_valid && (!SCALED || !first_block || exponent_valid);
  assign params_ready = loading;
  assign x_ready = takes;
  assign exponent_ready = takes && first_block;
  assign y_valid = valid[DEPTH-1];
  wire load = loading && params_valid;

  wire [31:0] block, t;
  token_place #(TILE, BLOCKS) place (
      .clk(clk), .rst(loading), .next(takes), .seq(seq), .block(block), .t(t)
  );
  assign first_block = block == 0;

  always @(posedge clk) begin
    rows <= batch * seq;
    tokens <= product;
    if (rst) begin
      loading <= 1;
      index <= 0;
      valid <= 0;
    end else begin
      if (advance) valid <= {valid[DEPTH-2:0], takes};
      if (load) begin
        index <= index + 1 == WORDS ? 0 : index + 1;
        if (index + 1 == WORDS) loading <= 0;
      end else if (takes) begin
        index <= index + 1 == tokens ? 0 : index + 1;
        if (index + 1 == tokens) loading <= 1;
      end
    end
  end

  reg [31:0] block1, block2, block3;
  reg [5:0] shift, bias_shift;
  reg [63:0] half;
  always @(posedge clk) begin
    if (load && index == 0) begin
      shift <= params_data[5:0];
      bias_shift <= params_data[37:32];
    end
    half <= shift == 0 ? 0 : 64'd1 << (shift - 1);
  end

  // A row's exponent is kept for the blocks behind the first.
  reg [5:0] kept[0:TILE-1];
  reg [5:0] e1, e2, e3, e4;
  always @(posedge clk) if (takes && SCALED) begin
    if (first_block) kept[t] <= exponent_data[5:0];
    e1 <= first_block ? exponent_data[5:0] : kept[t];
  end

  // --- lanes -------------------------------------------------------------------------------
  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      reg signed [17:0] multiplier[0:BLOCKS-1];
      reg signed [31:0] bias[0:BLOCKS-1];
      wire signed [31:0] value = params_data[32*lane+:32];
      reg signed [VALUE_BITS-1:0] x1, x2;
      reg signed [17:0] m2;
      reg signed [31:0] b4;
      reg signed [63:0] p3, p4, p5, bias5, biased6, rounded7, shifted8;
      reg signed [OUT_BITS-1:0] clamped;
      wire [31:0] kind = SCALED ? (index > 2 * BLOCKS ? 2 : ~index[0]) : ~index[0];
      wire [31:0] at = (index - 1) >> 1;
      always @(posedge clk) begin
        if (load && index != 0 && index <= 2 * BLOCKS) begin
          if (index[0]) multiplier[at] <= value[17:0];
          else bias[at] <= value;
        end
        if (advance) begin
          x1 <= x_data[IN_BITS*lane+:VALUE_BITS];
          m2 <= multiplier[block1];
          p3 <= x2 * m2;
          b4 <= bias[SCALED ? block3 : block2];
          p4 <= p3;
          bias5 <= {{32{b4[31]}}, b4} << bias_shift;
          biased6 <= p5 + bias5;
          rounded7 <= biased6 + half;
          shifted8 <= rounded7 >>> shift;
          clamped = shifted8 > HIGH ? HIGH : shifted8 < LOW ? LOW : shifted8[OUT_BITS-1:0];
          y_data[OUT_BITS*lane+:OUT_BITS] <= clamped;
        end
      end
      if (SCALED) begin : g_scaled
        reg signed [31:0] offset[0:BLOCKS-1];
        reg signed [31:0] o1;
        always @(posedge clk) begin
          if (load && index > 2 * BLOCKS) offset[index-2*BLOCKS-1] <= value;
          if (advance) begin
            o1 <= offset[block];
            x2 <= x1 + o1;
            p5 <= p4 << e4;
          end
        end
      end else begin : g_static
        always @(posedge clk) if (advance) begin
          x2 <= x1;
          p5 <= p3;
        end
      end
    end
  endgenerate
  // Parameters are read as late as they are needed.
  always @(posedge clk) if (advance) begin
    {e2, e3, e4} <= {e1, e2, e3};
    {block1, block2, block3} <= {block, block1, block2};
  end
endmodule
