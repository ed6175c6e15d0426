// SPDX-License-Identifier: Apache-2.0
// Control of a stage's pipelined loops, one at a time: a cycle to enter a loop, an iteration every
// `ii` cycles once its tokens are there, `depth` cycles from the issue of an iteration until
// the next one could see all it did, and a cycle to leave. An iteration that is issued in cycle t leaves
// the last stage of its pipeline in t + depth - 1.
//
// While the iteration in the last stage waits for space in an output, nothing moves (`advance`).
// Without tokens only the issue waits; iterations under way go on (a flushable pipeline).
module pipelined_loop (
    input             clk,
    input             rst,
    input             run,      // there is a loop to enter
    input      [31:0] count,    // its iterations, at least 1
    input      [31:0] depth,
    input      [31:0] ii,
    input             ready,    // what the next iteration reads is there
    input             advance,
    output            enter,
    output            issue,
    output            leave,
    output reg [31:0] index     // of the next iteration
);
  localparam ENTER = 2'd0, ISSUE = 2'd1, DRAIN = 2'd2, LEAVE = 2'd3;
  reg [1:0] state;
  reg [31:0] wait_issue;  // cycles until the next issue may be
  reg [31:0] wait_drain;

  assign enter = state == ENTER && run;
  assign issue = state == ISSUE && advance && wait_issue == 0 && ready;
  assign leave = state == LEAVE;

  always @(posedge clk) begin
    if (rst) state <= ENTER;
    else
      case (state)
        ENTER:
        if (run) begin
          state <= ISSUE;
          index <= 0;
          wait_issue <= 0;
        end
        ISSUE:
        if (issue) begin
          index <= index + 1;
          wait_issue <= ii - 1;
          wait_drain <= depth - 1;
          if (index + 1 == count) state <= depth == 1 ? LEAVE : DRAIN;
        end else if (advance && wait_issue != 0) wait_issue <= wait_issue - 1;
        DRAIN:
        if (advance) begin
          wait_drain <= wait_drain - 1;
          if (wait_drain == 1) state <= LEAVE;
        end
        LEAVE: state <= ENTER;
      endcase
  end
endmodule
