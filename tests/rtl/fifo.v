// SPDX-License-Identifier: Apache-2.0
// A FIFO of DEPTH tokens. What is written in a cycle can be read in the next; a slot that is
// read can be written in the next. The oldest token is on `dout` without being asked for.
module fifo #(
    parameter WIDTH = 8,
    parameter DEPTH = 2
) (
    input              clk,
    input              rst,
    input  [WIDTH-1:0] din,
    input              write,
    output             full,
    output [WIDTH-1:0] dout,
    input              read,
    output             empty
);
  reg [WIDTH-1:0] slots[0:DEPTH-1];
  integer head, tail, held;

  assign full  = held == DEPTH;
  assign empty = held == 0;
  assign dout  = slots[head];

  always @(posedge clk) begin
    if (rst) begin
      head <= 0;
      tail <= 0;
      held <= 0;
    end else begin
      if (write) begin
        slots[tail] <= din;
        tail <= tail == DEPTH - 1 ? 0 : tail + 1;
      end
      if (read) head <= head == DEPTH - 1 ? 0 : head + 1;
      held <= held + (write ? 1 : 0) - (read ? 1 : 0);
      if ((write && full) || (read && empty)) $fatal(1, "%m: write when full or read when empty");
    end
  end
endmodule
