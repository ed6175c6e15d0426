// SPDX-License-Identifier: Apache-2.0
// A product with a constant as the sum of its shifted operand, a term for each bit of the constant.
module times_constant #(
    parameter FACTOR = 1,
    parameter WIDTH = 32
) (
    input      [WIDTH-1:0] value,
    output reg [WIDTH-1:0] product
);
  integer i;
  always @* begin
    product = 0;
    for (i = 0; i < 31; i = i + 1) if (FACTOR[i]) product = product + (value << i);
  end
endmodule
