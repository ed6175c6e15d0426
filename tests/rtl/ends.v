// SPDX-License-Identifier: Apache-2.0
// Test bench: prints when each process was through, and ends the simulation when all are.
module ends (
    input clk,
    input rst,
    input stage,
    input sink,
    input sources
);
  integer cycle;
  reg stage_was, sink_was;
  always @(posedge clk) begin
    if (rst) begin
      cycle <= 0;
      stage_was <= 0;
      sink_was <= 0;
    end else begin
      cycle <= cycle + 1;
      stage_was <= stage;
      sink_was <= sink;
      if (stage && !stage_was) $display("end stage %0d", cycle);
      if (sink && !sink_was) $display("end sink %0d", cycle);
      if (stage && sink && sources && stage_was && sink_was) $finish;
    end
  end
endmodule
