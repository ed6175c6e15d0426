// SPDX-License-Identifier: Apache-2.0
// A product with a constant as the sum of its shifted operand, a term for each bit of the constant.
module times_constant #(
    parameter FACTOR = 1
) (
    input      [31:0] value,
    output reg [31:0] product
);
  integer i;
  always @* begin
    product = 0;
    for (i = 0; i < 31; i = i + 1) if ((FACTOR >> i) & 1) product = product + (value << i);
  end
endmodule
