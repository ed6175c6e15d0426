# SPDX-License-Identifier: Apache-2.0
"""Delay of the operators on the U280's fabric, by operand width.

Every figure is a row of the measurements of the PandA-bambu project with Vivado on
xcu280-fsvh2892-2L-e (its device file of November 2022), rounded as published there.  A width
between two rows takes the wider row.  Combinational delays in ns; "cycles" counts from the start
to the registered result.

What is no row of that table says how it is composed.  Constant shifts, masks and concatenations
are wires: 0 ns.
"""

from __future__ import annotations

import math

WIDTHS = (8, 16, 32, 64)
ADD = (0.71, 0.72, 0.81, 0.93)  # row "add, subtract"
MAXIMUM = (0.92, 0.99, 1.02, 1.16)  # row "max (min alike)"
COMPARE = (0.56, 0.66, 0.66, 0.79)  # row "compare less-than"
LOGIC = (0.37, 0.41, 0.32, 0.37)  # row "and"
SHIFT = (0.59, 0.67, 1.02, 1.10)  # row "shift left or right by a variable"
SELECT = (0.57, 0.76, 0.77, 1.20)  # row "select (2:1)"
# Row "mux, 16-bit": inputs -> ns.  The measured 16 to 1 is faster (0.57) than the 10 to 1; the
# slower figure is taken for both, so that more inputs never cost less.
MUX = ((4, 0.49), (10, 0.78), (16, 0.78), (32, 1.02), (63, 1.05))

LOAD_CYCLES, LOAD_NS = 2, 1.54  # row "block RAM, load", first figures
STORE_CYCLES, STORE_NS = 1, 1.54  # row "block RAM, store", first figures
STREAM_CYCLES = 1  # a FIFO's read or write is one state of the process
# Rows "divide 16/16" and "divide 32/32": (cycles, slowest stage).
DIVIDE_16 = ((8, 2.01), (16, 1.36), (17, 1.33))
DIVIDE_32 = ((16, 3.05), (17, 2.97), (32, 2.29), (33, 2.28))

#: cycles and combinational ns of a product of signed operands of at most these widths
MULTIPLY_8 = (3, 1.25)  # row "multiply 8x8->8", three stages as in a DSP slice
MULTIPLY_DSP = (3, 2.38)  # row "multiply 16x16", also 27x18: one DSP48E2 slice
MULTIPLY_32 = (5, 3.41)  # row "multiply 32x32"

UNCERTAINTY = 0.27  # of the clock period, the default of the HLS tool


def usable_ns(clock_mhz: float) -> float:
    """The part of a clock period that logic may fill, in ns.

    Raises:
        ValueError: the clock is not positive.
    """
    if clock_mhz <= 0:
        raise ValueError(f"a clock of {clock_mhz} MHz")
    return 1000.0 / clock_mhz * (1 - UNCERTAINTY)


def of_width(row: tuple[float, ...], width: int) -> float:
    """The figure of the first column that is wide enough (64 for everything wider)."""
    for column, figure in zip(WIDTHS, row, strict=True):
        if width <= column:
            return figure
    return row[-1]


def mux(inputs: int) -> float:
    """A multiplexer by a variable index; above 63 inputs one of multiplexers of 63, in ns."""
    if inputs <= 1:
        return 0.0
    for count, figure in MUX:
        if inputs <= count:
            return figure
    return MUX[-1][1] + mux(math.ceil(inputs / MUX[-1][0]))


def multiply(a: int, b: int, usable: float) -> tuple[int, float]:
    """Cycles of a pipelined product, and its delay in ns where it is not pipelined.

    Wider than 32 bits: the 32x32 products of the halves, then their sum as a balanced tree of
    64-bit additions.
    """
    wide, narrow = max(a, b), min(a, b)
    if wide <= 8:
        return MULTIPLY_8
    if wide <= 27 and narrow <= 18:
        return MULTIPLY_DSP
    if wide <= 32:
        return MULTIPLY_32
    parts = math.ceil(wide / 32) * math.ceil(narrow / 32)
    levels = max(1, math.ceil(math.log2(parts)))
    rest = levels * ADD[-1]
    return MULTIPLY_32[0] + math.ceil(rest / usable), MULTIPLY_32[1] + rest


def multiply_constant(width: int, factor: int, usable: float) -> tuple[int, float]:
    """A product with a constant: additions of shifted copies, or a multiplier if it takes over 4."""
    digits = signed_digits(factor)
    if digits <= 1:
        return (0, 0.0)
    if digits <= 4:
        return (0, math.ceil(math.log2(digits)) * of_width(ADD, width + factor.bit_length()))
    return multiply(width, factor.bit_length() + 1, usable)


def signed_digits(value: int) -> int:
    """Digits other than 0 in the non-adjacent form of a number."""
    value = abs(value)
    return bin(value ^ (3 * value)).count("1")


def divide(width: int, usable: float) -> int:
    """Cycles of a divider: the fewest whose slowest stage fits; 64 bits cost two of 32."""
    if width > 32:
        return 2 * divide(32, usable)
    rows = DIVIDE_16 if width <= 16 else DIVIDE_32
    return next((cycles for cycles, ns in rows if ns <= usable), rows[-1][0])
