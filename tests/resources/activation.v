// SPDX-License-Identifier: Apache-2.0
// What t2f/elementwise.hpp (`activation`) asks a synthesiser for: for each channel of a cycle a table of
// 1,025 nodes, read at both ends of a segment, and a line between them. TABLE is a file of the node values,
// hexadecimal, TABLE_BITS wide.
module activation #(
    parameter LANES = 2,
    parameter WAYS = 2,
    parameter TABLE_BITS = 19,
    parameter PASSES = 2304,
    parameter TABLE = "table.hex"
) (
    input                     clk,
    input                     rst,
    input      [        31:0] batch,
    input      [        31:0] seq,
    input      [LANES*32-1:0] x_data,
    input                     x_valid,
    output                    x_ready,
    output     [LANES*32-1:0] y_data,
    output                    y_valid,
    input                     y_ready
);
  localparam signed [31:0] LIMIT = 8 << 14;
  localparam DEPTH = 7;
  localparam PARTS = LANES / WAYS;
  wire issue;
  reg [DEPTH-1:0] valid;
  reg [DEPTH-2:0] last;
  reg [3:0] part;
  wire ends = part == PARTS - 1;
  wire advance = !valid[DEPTH-1] || y_ready;
  assign x_ready = issue && part == 0;
  assign y_valid = valid[DEPTH-1];
  flat_loop #(PASSES * PARTS) loop (
      .clk(clk), .rst(rst), .batch(batch), .seq(seq), .ready(advance && (part != 0 || x_valid)), .issue(issue)
  );
  always @(posedge clk)
    if (rst) begin
      valid <= 0;
      part  <= 0;
    end else begin
      if (advance) valid <= {valid[DEPTH-2] && last[DEPTH-2], valid[DEPTH-3:0], issue};
      if (advance) last <= {last[DEPTH-3:0], ends};
      if (issue) part <= ends ? 0 : part + 1;
    end

  wire [WAYS*32-1:0] x0, made;
  take_lanes #(LANES, WAYS, 32) taken (
      .clk(clk), .next(issue), .first(PARTS == 1 || part == 0), .token(x_data), .part(x0)
  );
  put_lanes #(LANES, WAYS, 32) put (
      .clk(clk), .next(advance && valid[DEPTH-2]), .part(made), .token(y_data)
  );
  genvar way;
  generate
    for (way = 0; way < WAYS; way = way + 1) begin : g_way
      (* rom_style = "block" *) reg [TABLE_BITS-1:0] nodes[0:1024];
      initial $readmemh(TABLE, nodes);
      reg signed [31:0] x1, x2, x3, x4, x5, x6;
      reg [17:0] at1;
      reg [10:0] index1, next1;
      reg signed [TABLE_BITS-1:0] low2, high2, low3, low4, low5;
      reg [7:0] fraction2, fraction3;
      reg signed [TABLE_BITS:0] rise3;
      reg signed [TABLE_BITS+8:0] product4, rounded5;
      reg signed [31:0] line6;
      wire [17:0] at = x1[17:0] + LIMIT[17:0];
      always @(posedge clk) if (advance) begin
        x1 <= x0[32*way+:32];
        x2 <= x1;
        fraction2 <= at[7:0];
        low2 <= nodes[at[17:8]];
        high2 <= nodes[at[17:8]+11'd1];
        x3 <= x2;
        low3 <= low2;
        fraction3 <= fraction2;
        rise3 <= high2 - low2;
        x4 <= x3;
        low4 <= low3;
        product4 <= rise3 * $signed({1'b0, fraction3});
        x5 <= x4;
        low5 <= low4;
        rounded5 <= product4 + 128;
        x6 <= x5;
        line6 <= low5 + (rounded5 >>> 8);
      end
      assign made[32*way+:32] = x6 < -LIMIT ? 0 : x6 >= LIMIT ? x6 : line6;
    end
  endgenerate
endmodule
