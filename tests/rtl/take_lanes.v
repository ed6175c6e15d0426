// SPDX-License-Identifier: Apache-2.0
// `take_lanes` of t2f/ways.hpp: a token is taken in parts of WAYS lanes, the others move down behind them.
// `first` is a constant where there is one part only: a compiler sees that from the number that starts at 0, a
// synthesiser does not.
module take_lanes #(
    parameter LANES = 8,
    parameter WAYS  = 2,
    parameter BITS  = 16
) (
    input                   clk,
    input                   next,   // the part is taken
    input                   first,  // it is the first of `token`
    input  [LANES*BITS-1:0] token,
    output [ WAYS*BITS-1:0] part
);
  reg  [  LANES*BITS-1:0] held;
  wire [  LANES*BITS-1:0] now = first ? token : held;
  wire [2*LANES*BITS-1:0] twice = {now, now};
  assign part = now[WAYS*BITS-1:0];
  always @(posedge clk) if (next) held <= twice[WAYS*BITS+:LANES*BITS];
endmodule
