// SPDX-License-Identifier: Apache-2.0
// A stream's FIFO: shift registers where it is shallow (STYLE "srl"), else a memory with two pointers and a
// register behind it that holds the oldest token (STYLE "block" or "ultra").
module stream_fifo #(
    parameter WIDTH = 128,
    parameter DEPTH = 16,
    parameter STYLE = "srl"
) (
    input                  clk,
    input                  rst,
    input      [WIDTH-1:0] din,
    input                  write,
    output                 full,
    output     [WIDTH-1:0] dout,
    input                  read,
    output                 empty
);
  localparam BITS = $clog2(DEPTH);
  generate
    if (STYLE == "srl") begin : g_srl
      reg [BITS:0] held;
      wire [BITS-1:0] oldest = held - 1;
      assign full = held == DEPTH;
      assign empty = held == 0;
      always @(posedge clk)
        if (rst) held <= 0;
        else held <= held + write - read;
      genvar i;
      for (i = 0; i < WIDTH; i = i + 1) begin : g_bit
        reg [DEPTH-1:0] slots;
        assign dout[i] = slots[oldest];
        always @(posedge clk) if (write) slots <= {slots[DEPTH-2:0], din[i]};
      end
    end else begin : g_memory
      (* ram_style = STYLE *) reg [WIDTH-1:0] slots[0:DEPTH-1];
      reg [WIDTH-1:0] out;
      reg [BITS-1:0] head, tail;
      reg [BITS:0] held;  // in the memory
      reg valid;
      wire take = held != 0 && (!valid || read);
      assign full = held == DEPTH;
      assign empty = !valid;
      assign dout = out;
      always @(posedge clk) begin
        if (write) slots[tail] <= din;
        if (take) out <= slots[head];
        if (rst) begin
          head <= 0;
          tail <= 0;
          held <= 0;
          valid <= 0;
        end else begin
          if (write) tail <= tail == DEPTH - 1 ? 0 : tail + 1;
          if (take) head <= head == DEPTH - 1 ? 0 : head + 1;
          held <= held + write - take;
          if (take) valid <= 1;
          else if (read) valid <= 0;
        end
      end
    end
  endgenerate
endmodule
