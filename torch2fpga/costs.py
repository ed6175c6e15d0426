# SPDX-License-Identifier: Apache-2.0
"""What operators and memories cost on the fabric: pure functions of operand widths.

The unit of every function is an ``Estimate`` without cycles. LUT figures are those of operators
characterised with the vendor's tools on the U280 (PandA-bambu, xcu280-2Lfsvh2892-VVD.xml, restated in
docs/resources.md), written as the structure that they follow: an adder is a LUT a bit, a barrel
shifter half a LUT a bit for every bit of its amount, and so on. DSP figures follow the shape of a
DSP48E2 (27 x 18 signed, UG579), memories that of RAMB18E2 (UG573), URAM288 (UG974) and of the LUT
memories (UG574). Flip-flops are the register behind an operator; a stage adds those of its pipeline.

Widths are what the C++ says, not what the values need: a synthesiser sees no more than that.
"""

from __future__ import annotations

from torch2fpga.design import Estimate, ceil_div

#: (width, depth) of a RAMB18 as simple dual port (UG573): the cheapest shape counts
BRAM18_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: a URAM288 has one shape (UG974)
URAM_SHAPE = (72, 4096)
#: bits that one LUT keeps as a shift register (SRL32)
SRL = 32
#: deepest memory that is kept in LUTs: 64 x 1 in each (UG574)
LUTRAM_DEPTH = 64

#: a DSP48E2 multiplies 27 by 18 bits; larger products are cut into limbs of 17 unsigned bits, the shift
#: of the cascade from one slice to the next (UG579)
DSP_A, DSP_B, DSP_LIMB = 27, 18, 17


def times(count: int, cost: Estimate) -> Estimate:
    """``count`` of the same."""
    return Estimate(
        count * cost.dsp, count * cost.lut, count * cost.ff, count * cost.bram18, count * cost.uram
    )


def total(*costs: Estimate) -> Estimate:
    """All of them together."""
    result = Estimate()
    for cost in costs:
        result = result + cost
    return result


# -- operators ------------------------------------------------------------------------------


def register(bits: int, stages: int = 1) -> Estimate:
    """``bits`` kept for ``stages`` cycles."""
    return Estimate(ff=bits * stages)


def add(bits: int) -> Estimate:
    """Sum or difference of two operands (34 LUTs at 32 bits: one a bit and two)."""
    return Estimate(lut=bits + 2, ff=bits)


def adder_tree(operands: int, bits: int) -> Estimate:
    """Sum of ``operands`` in pairs; a level is a bit wider than the one before."""
    result, level = Estimate(), bits
    while operands > 1:
        level += 1
        result += times(operands // 2, add(level))
        operands = ceil_div(operands, 2)
    return result


def compare(bits: int) -> Estimate:
    """Less-than or equality (18 LUTs at 32 bits: two bits in each)."""
    return Estimate(lut=ceil_div(bits, 2) + 2)


def select(bits: int, ways: int = 2) -> Estimate:
    """One of ``ways`` operands: a LUT takes four data inputs (19 LUTs at 16 bits, four ways; 74 at 16)."""
    return Estimate(lut=bits * max(1, ceil_div(ways - 1, 3)))


def larger(bits: int) -> Estimate:
    """Maximum or minimum: a comparison and a choice (45 LUTs at 32 bits)."""
    return compare(bits) + select(bits) + register(bits)


def maximum_tree(operands: int, bits: int) -> Estimate:
    """Maximum of ``operands`` in pairs."""
    return times(operands - 1, larger(bits))


def shift(bits: int, amounts: int) -> Estimate:
    """By a variable of ``amounts`` possible values: a LUT holds two levels (90 to 93 LUTs at 32 x 32)."""
    levels = (amounts - 1).bit_length()
    return Estimate(lut=ceil_div(bits * levels, 2), ff=bits)


def saturate(bits: int, to: int) -> Estimate:
    """Clamp to a narrower field: do the bits above it agree, then a choice of three for each bit (a
    saturating sum of 32 bits is 26 LUTs above the sum)."""
    return Estimate(lut=to + 2 * ceil_div(max(bits - to, 1), 5), ff=to)


def top_bit(bits: int) -> Estimate:
    """Position of the highest set bit: a tree of choices, a LUT and a half a bit."""
    return Estimate(lut=ceil_div(3 * bits, 2), ff=bits.bit_length())


def limbs(bits: int) -> int:
    """Limbs of a signed operand of a product too large for one slice."""
    return ceil_div(max(bits - 1, 1), DSP_LIMB)


def multiply(a: int, b: int, out: int | None = None) -> Estimate:
    """Product of signed operands of ``a`` and ``b`` bits, its lowest ``out`` bits (all by default).

    Up to 8 x 8 it is made of LUTs (37, as the vendor's synthesis does without a directive); up to
    27 x 18 it is one slice; beyond, one for each pair of limbs that reaches the result: three at
    32 x 32 -> 32, four at 32 x 32 -> 64, ten at 64 x 64 -> 64.
    """
    wide, narrow = max(a, b), min(a, b)
    out = a + b if out is None else out
    if wide <= 8:
        return Estimate(lut=37, ff=out)
    if wide <= DSP_A and narrow <= DSP_B:
        return Estimate(dsp=1)
    pairs = sum(1 for i in range(limbs(wide)) for j in range(limbs(narrow)) if (i + j) * DSP_LIMB < out)
    # Partial sums that the cascade does not add: 49 LUTs at 32 x 32 -> 64, 17 at -> 32.
    return Estimate(dsp=pairs, lut=max(0, out - DSP_LIMB + 2), ff=2 * out)


def multiply_constant(bits: int, factor: int, out: int | None = None) -> Estimate:
    """Product with a constant: shifts and at most one sum, else a multiplier."""
    digits = _signed_digits(factor)
    if digits <= 2:
        return add(out or bits + factor.bit_length()) if digits == 2 else Estimate()
    return multiply(bits, factor.bit_length() + 1, out)


def _signed_digits(value: int) -> int:
    """Nonzero digits of the shortest form with digits -1, 0 and 1."""
    count = 0
    while value:
        if value & 1:
            count += 1
            value -= 2 - (value & 3)
        value >>= 1
    return count


def round_shift(bits: int, amounts: int = 64) -> Estimate:
    """``t2f::round_shift`` by a variable: add half, shift (half itself is shared by the lanes)."""
    return add(bits) + shift(bits, amounts)


# -- memories ---------------------------------------------------------------------------------


def bram(depth: int, width: int) -> Estimate:
    """A simple dual port memory in RAMB18: the shape that takes the fewest."""
    return Estimate(bram18=min(ceil_div(width, w) * ceil_div(depth, d) for w, d in BRAM18_SHAPES))


def uram(depth: int, width: int) -> Estimate:
    """A memory in URAM288, deeper ones cascaded."""
    return Estimate(uram=ceil_div(width, URAM_SHAPE[0]) * ceil_div(depth, URAM_SHAPE[1]))


def lutram(depth: int, width: int) -> Estimate:
    """A simple dual port memory in LUTs: eight keep 14 bits of 32 words, or 7 bits of 64 (UG574)."""
    per_eight = 14 if depth <= 32 else 7
    return Estimate(lut=8 * ceil_div(width, per_eight) * ceil_div(depth, 64), ff=width)


def memory(depth: int, width: int) -> Estimate:
    """Where the tools put a memory that nothing is said about."""
    return lutram(depth, width) if depth <= LUTRAM_DEPTH else bram(depth, width)


def table(depth: int, width: int, readers: int) -> Estimate:
    """A constant table that ``readers`` look into in the same cycle: two to a copy, in true dual port
    blocks (18 bits of 1,024 words and narrower, UG573)."""
    shapes = [(w, d) for w, d in BRAM18_SHAPES if w <= 18]
    copy = min(ceil_div(width, w) * ceil_div(depth, d) for w, d in shapes)
    return Estimate(bram18=copy * ceil_div(readers, 2))


def registers(entries: int, bits: int, readers: int = 1) -> Estimate:
    """``entries`` registers of ``bits``, each reader chooses one of them by its number."""
    choice = times(readers, select(bits, entries)) if entries > 1 else Estimate()
    return choice + register(entries * bits)


# -- control ----------------------------------------------------------------------------------


def counter(bits: int) -> Estimate:
    """A register that counts up and starts again."""
    return add(bits) + compare(bits)


def loop(depth: int = 12) -> Estimate:
    """One pipelined loop: its 32-bit counter, its end, and a valid bit for every stage."""
    return counter(32) + Estimate(lut=20, ff=depth + 4)


def port(bits: int) -> Estimate:
    """One end of a stream: handshake, and the register that a token is read into or written from."""
    return Estimate(lut=10, ff=bits)


def row_walk() -> Estimate:
    """Sequences and tiles around a stage's loops: two counters, rows of the tile."""
    return times(2, counter(32)) + add(32) + larger(32) + Estimate(lut=30, ff=8)


def place(tile: int, blocks: int) -> Estimate:
    """``t2f::token_place``: row, block and what is left of the sequence."""
    small = counter(max(1, (tile - 1).bit_length())) + counter(max(1, (blocks - 1).bit_length()))
    return small + compare(32) + compare(32) + add(32) + select(32)


def launch_size(factor: int) -> Estimate:
    """``factor * rows_of(batch, seq)``, which every flat loop computes at its start."""
    return multiply(17, 17, 32) + multiply_constant(32, factor, 32)


# -- arithmetic shared by stages ----------------------------------------------------------------


def requantize(bits: int, out: int, scaled: bool = False) -> Estimate:
    """One channel of ``requantized`` in requant.hpp on a value of ``bits`` bits: the product with 18 bits
    in 64 bits, the exponent's shift, the shifted bias, round, saturate."""
    steps = multiply(bits, 18) + shift(64, 64) + add(64) + round_shift(64) + saturate(64, out)
    return steps + (shift(64, 64) + add(bits) if scaled else Estimate())


def reciprocal() -> Estimate:
    """``t2f::reciprocal``: table of 512, one Newton step, in the widths that the C++ says."""
    products = multiply(49, 18, 64) + multiply(18, 64, 64)
    return total(top_bit(32), shift(64, 32), table(512, 17, 1), products, times(2, add(64)), register(64, 4))


def rsqrt() -> Estimate:
    """``t2f::rsqrt``: table of 384, two Newton steps, likewise."""
    first = multiply(18, 18, 34) + multiply(33, 34, 64) + multiply(18, 33, 51)
    second = multiply(33, 33, 64) + multiply(33, 34, 64) + multiply(33, 33, 64)
    shifts = times(2, shift(64, 64)) + top_bit(64)
    return total(shifts, table(384, 17, 1), first, second, times(3, add(64)), register(64, 8))


# -- multiplier arrays --------------------------------------------------------------------------

#: products that one accumulator field holds (packed.hpp, w8a8_chain)
CHAIN = 8


def packed_dot(lanes: int) -> Estimate:
    """Two rows times one column over ``lanes`` channels (``t2f::dot_pair``), added to their int32 sums.

    A slice makes both products and its cascade adds up chains of 8. The fields of a chain leave through a
    30-bit correction of the borrow; chains are added in pairs, then to the sums.
    """
    chains = ceil_div(lanes, CHAIN)
    fields = times(chains, add(30)) + times(chains - 1, add(19) + add(31))
    return Estimate(dsp=lanes) + fields + times(2, add(32))


def multiplier_array(rows: int, columns: int, lanes: int) -> Estimate:
    """``rows * lanes * columns`` int8 products a cycle and their sums: pairs of rows share multipliers.

    The operand (x1 << 18) + x0 is made once for all columns. The odd row of an odd number has slices of
    its own.
    """
    pairs, odd = divmod(rows, 2)
    pack = times(pairs * lanes, add(9) + register(27))
    single = Estimate(dsp=lanes) + add(32)
    return total(pack, times(pairs * columns, packed_dot(lanes)), times(odd * columns, single))


def matmul_cost(
    rows: int,
    columns: int,
    lanes: int,
    in_blocks: int,
    out_blocks: int,
    *,
    buffers: int = 1,
    steps_kept: int = 1,
    streamed: bool = False,
) -> Estimate:
    """One array of a linear layer.

    Args:
        rows: of a tile.
        columns: output channels a cycle.
        lanes: input channels a cycle.
        in_blocks, out_blocks: channel blocks of ``lanes`` of the input, and those that this array makes.
        buffers: tiles of rows that are kept (2 where one fills while the other is reduced).
        steps_kept: steps whose weights lie in URAM at the same time (2 where the next one loads).
        streamed: weights are not kept, they pass.
    """
    weights_width, turns = lanes * columns * 8, ceil_div(lanes, columns)
    words = ceil_div(weights_width, 512)
    if streamed:
        kept = register(weights_width)
    else:
        depth = steps_kept * out_blocks * in_blocks * turns
        kept = times(words, uram(depth, min(512, weights_width)))
    x = times(rows, bram(buffers * in_blocks, lanes * 8))
    result = registers(rows, lanes * 32) + register(rows * columns * 32)
    control = times(2 if streamed else 3, loop()) + row_walk() + times(4, counter(16))
    ends = port(lanes * 8) + port(512) + port(lanes * 32)
    return total(multiplier_array(rows, columns, lanes), kept, x, result, control, ends)
