// SPDX-License-Identifier: Apache-2.0
// What t2f/requant.hpp (`requant`, `requant_scaled`) asks a synthesiser for, in the widths of its C++:
// VALUE_BITS times 18 bits, a bias shifted to 64 bits, round, saturate. Every line of the C++ is a pipeline
// stage of its own. The parameters of each of the channels of a cycle lie in memories of their own.
module requant #(
    parameter LANES = 4,
    parameter WAYS = 4,
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
    output     [LANES*OUT_BITS-1:0] y_data,
    output                          y_valid,
    input                           y_ready
);
  localparam PARTS = LANES / WAYS;
  localparam ENTRIES = BLOCKS * PARTS;
  localparam DEPTH = SCALED ? 9 : 8;
  localparam signed [63:0] HIGH = (64'sd1 <<< (OUT_BITS - 1)) - 1;
  localparam signed [63:0] LOW = OUT_BITS == 8 ? -HIGH : -HIGH - 1;
  localparam HEAD = 2'd0, MULTIPLIERS = 2'd1, BIASES = 2'd2, OFFSETS = 2'd3;

  // --- the two loops ---------------------------------------------------------------------
  reg loading;
  reg [31:0] index, iterations, rows;
  reg [3:0] part;
  wire [31:0] product;
  times_constant #(ENTRIES) count (.value(rows), .product(product));
  reg [DEPTH-1:0] valid;
  reg [DEPTH-2:0] last;
  wire advance = !valid[DEPTH-1] || y_ready;
  wire [31:0] block, t;
  wire brings = block == 0 && part == 0;  // a row's exponent
  wire takes = !loading && advance && (part != 0 || x_valid) && (!SCALED || !brings || exponent_valid);
  wire ends = part == PARTS - 1;
  assign x_ready = takes && part == 0;
  assign exponent_ready = takes && brings;
  assign y_valid = valid[DEPTH-1];

  token_place #(TILE, BLOCKS) place (
      .clk(clk), .rst(loading), .next(takes && ends), .seq(seq), .block(block), .t(t)
  );

  // A word of parameters, a part of it an iteration: multipliers and biases by turns, then offsets.
  // It starts when the other loop has drained.
  reg [1:0] kind;
  reg [31:0] first;  // entry of the block
  reg [3:0] word_part;
  wire load = loading && valid[DEPTH-2:0] == 0 && (word_part != 0 || params_valid);
  wire [31:0] entry = first + word_part;
  wire [32*WAYS-1:0] values;
  take_lanes #(16, WAYS, 32) words (
      .clk(clk), .next(load), .first(PARTS == 1 || word_part == 0), .token(params_data), .part(values)
  );
  assign params_ready = load && word_part == 0;

  always @(posedge clk) begin
    rows <= batch[15:0] * seq[15:0];
    iterations <= product;
    if (rst) begin
      loading <= 1;
      index <= 0;
      valid <= 0;
      part <= 0;
      kind <= HEAD;
      first <= 0;
      word_part <= 0;
    end else begin
      if (advance) begin
        valid <= {valid[DEPTH-2] && last[DEPTH-2], valid[DEPTH-3:0], takes};
        last  <= {last[DEPTH-3:0], ends};
      end
      if (load) begin
        index <= index == (SCALED ? 3 : 2) * ENTRIES ? 0 : index + 1;
        if (index == (SCALED ? 3 : 2) * ENTRIES) loading <= 0;
        if (kind != HEAD && word_part != PARTS - 1) word_part <= word_part + 1;
        else begin
          word_part <= 0;
          if (kind[1]) first <= first == ENTRIES - PARTS ? 0 : first + PARTS;
          case (kind)
            HEAD: kind <= MULTIPLIERS;
            MULTIPLIERS: kind <= BIASES;
            default: kind <= kind == OFFSETS || first == ENTRIES - PARTS ? OFFSETS : MULTIPLIERS;
          endcase
        end
      end else if (takes) begin
        index <= index + 1 == iterations ? 0 : index + 1;
        if (index + 1 == iterations) loading <= 1;
        part <= ends ? 0 : part + 1;
      end
      if (!loading) kind <= HEAD;
    end
  end

  reg [31:0] entry1, entry2, entry3;
  reg [5:0] shift, bias_shift;
  reg [63:0] half;
  always @(posedge clk) begin
    if (load && kind == HEAD) begin
      shift <= params_data[5:0];
      bias_shift <= params_data[37:32];
    end
    half <= shift == 0 ? 0 : 64'd1 << (shift - 1);
  end

  // A row's exponent is kept for the blocks behind the first.
  reg [5:0] kept[0:TILE-1];
  reg [5:0] e1, e2, e3, e4;
  always @(posedge clk) if (takes && SCALED) begin
    if (brings) kept[t] <= exponent_data[5:0];
    e1 <= brings ? exponent_data[5:0] : kept[t];
  end

  // --- channels of a cycle -------------------------------------------------------------------
  wire [IN_BITS*WAYS-1:0] x0;
  take_lanes #(LANES, WAYS, IN_BITS) taken (
      .clk(clk), .next(takes), .first(PARTS == 1 || part == 0), .token(x_data), .part(x0)
  );
  wire [31:0] entry0 = block * PARTS + part;
  wire [OUT_BITS*WAYS-1:0] made;
  put_lanes #(LANES, WAYS, OUT_BITS) put (
      .clk(clk), .next(advance && valid[DEPTH-2]), .part(made), .token(y_data)
  );
  genvar way;
  generate
    for (way = 0; way < WAYS; way = way + 1) begin : g_way
      reg signed [17:0] multiplier[0:ENTRIES-1];
      reg signed [31:0] bias[0:ENTRIES-1];
      wire signed [31:0] value = values[32*way+:32];
      reg signed [VALUE_BITS-1:0] x1, x2;
      reg signed [17:0] m2;
      reg signed [31:0] b4;
      reg signed [63:0] p3, p4, p5, bias5, biased6, rounded7, shifted8;
      assign made[OUT_BITS*way+:OUT_BITS] =
          shifted8 > HIGH ? HIGH : shifted8 < LOW ? LOW : shifted8[OUT_BITS-1:0];
      always @(posedge clk) begin
        if (load && kind == MULTIPLIERS) multiplier[entry] <= value[17:0];
        if (load && kind == BIASES) bias[entry] <= value;
        if (advance) begin
          x1 <= x0[IN_BITS*way+:VALUE_BITS];
          m2 <= multiplier[entry1];
          p3 <= x2 * m2;
          b4 <= bias[SCALED ? entry3 : entry2];
          p4 <= p3;
          bias5 <= {{32{b4[31]}}, b4} << bias_shift;
          biased6 <= p5 + bias5;
          rounded7 <= biased6 + half;
          shifted8 <= rounded7 >>> shift;
        end
      end
      if (SCALED) begin : g_scaled
        reg signed [31:0] offset[0:ENTRIES-1];
        reg signed [31:0] o1;
        always @(posedge clk) begin
          if (load && kind == OFFSETS) offset[entry] <= value;
          if (advance) begin
            o1 <= offset[entry0];
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
    {entry1, entry2, entry3} <= {entry0, entry1, entry2};
  end
endmodule
