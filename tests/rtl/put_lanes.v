// SPDX-License-Identifier: Apache-2.0
// `put_lanes` of t2f/ways.hpp: parts of WAYS lanes move into a token from the top.
module put_lanes #(
    parameter LANES = 8,
    parameter WAYS  = 2,
    parameter BITS  = 16
) (
    input                       clk,
    input                       next,
    input      [ WAYS*BITS-1:0] part,
    output reg [LANES*BITS-1:0] token
);
  wire [(LANES+WAYS)*BITS-1:0] moved = {part, token};
  always @(posedge clk) if (next) token <= moved[WAYS*BITS+:LANES*BITS];
endmodule
