// SPDX-License-Identifier: Apache-2.0
// A token and its valid bit, STAGES registers later: what is left of a pipeline's depth behind the
// stages that compute (synthesis may move logic in between them).
module delay #(
    parameter WIDTH  = 8,
    parameter STAGES = 1
) (
    input              clk,
    input              rst,
    input              advance,
    input              valid_in,
    input  [WIDTH-1:0] din,
    output             valid_out,
    output [WIDTH-1:0] dout
);
  generate
    if (STAGES == 0) begin : g_wires
      assign valid_out = valid_in;
      assign dout = din;
    end else begin : g_registers
      reg [WIDTH-1:0] stages[0:STAGES-1];
      reg [STAGES-1:0] valid;
      integer i;
      assign valid_out = valid[STAGES-1];
      assign dout = stages[STAGES-1];
      always @(posedge clk) begin
        if (rst) valid <= 0;
        else if (advance) begin
          stages[0] <= din;
          valid[0]  <= valid_in;
          for (i = 1; i < STAGES; i = i + 1) begin
            stages[i] <= stages[i-1];
            valid[i]  <= valid[i-1];
          end
        end
      end
    end
  endgenerate
endmodule
