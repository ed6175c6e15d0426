# SPDX-License-Identifier: Apache-2.0
"""Several products in one DSP48E2: the recipes as data, and an integer model of each.

A DSP48E2 multiplies a signed 27-bit operand A by a signed 18-bit operand B and adds the product
to a 48-bit P (UG579). Two values that lie far enough apart in an operand give products that lie
apart in P, as fields. A negative field borrows one from the field above it; the extraction gives it
back. P may add up products until the sum of a field no longer fits between its neighbours: the
limit of the chain. Then all fields leave for wider accumulators.

The two int8 products are those of WP486 and the four int4 products are laid out as in WP521;
`t2f/packed.hpp` and `t2f/packed4.hpp` are the same recipes as hardware. Two wrong ones are public:
W4A8 at shift 23 does not fit 27 bits, and a 13-bit shift with a zero-extended low nibble and no
borrow gets 56,000 of 65,536 products wrong. tests/plan/test_packing.py shows both.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from torch2fpga.design import ceil_div

#: widths of a DSP48E2: operands A and B, accumulator P (UG579)
A_BITS, B_BITS, P_BITS = 27, 18, 48

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Operand:
    """The values that one operand of the multiplier holds, all from the same range.

    Attributes:
        holds: ``weights`` or ``activations``.
        least, greatest: range of a value.
        shifts: the bit at which each value is added, the lowest first.
        bits: width of the operand.
    """

    holds: str
    least: int
    greatest: int
    shifts: tuple[int, ...]
    bits: int

    @property
    def fits(self) -> bool:
        """Whether every choice of values fits the operand's width."""
        unit, top = sum(1 << shift for shift in self.shifts), 1 << (self.bits - 1)
        return self.least * unit >= -top and self.greatest * unit < top

    def pack(self, values: ArrayLike) -> Integers:
        """The operand as the multiplier sees it: what does not fit wraps around.

        Args:
            values: integers of shape (..., number of shifts).

        Returns:
            Operands of shape (...).

        Raises:
            ValueError: a value is out of range, or the last axis does not match the shifts.
        """
        array = np.asarray(values, np.int64)
        if array.shape[-1:] != (len(self.shifts),):
            raise ValueError(f"{len(self.shifts)} {self.holds} an operand, not shape {array.shape}")
        if array.size and (array.min() < self.least or array.max() > self.greatest):
            raise ValueError(
                f"{self.holds} lie in {self.least}..{self.greatest}, not {array.min()}..{array.max()}"
            )
        return _wrapped((array << np.array(self.shifts)).sum(axis=-1), self.bits)


@dataclass(frozen=True)
class Recipe:
    """How products share a multiplier.

    Attributes:
        name: as users write the precision; a suffix tells ranges apart.
        a, b: the operands. The product of value i of A and value j of B is a field of P that
            starts at bit ``a.shifts[i] + b.shifts[j]``.
    """

    name: str
    a: Operand
    b: Operand

    @property
    def products(self) -> int:
        """Products of one multiplier."""
        return len(self.a.shifts) * len(self.b.shifts)

    @property
    def starts(self) -> tuple[int, ...]:
        """First bit of each field: those of A's first value, then those of its second."""
        return tuple(a + b for a in self.a.shifts for b in self.b.shifts)

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of each field: up to the next one, the last up to the top of P."""
        starts = (*self.starts, P_BITS)
        return tuple(high - low for low, high in pairwise(starts))

    @property
    def chain(self) -> int:
        """Products that P adds up exactly whatever the operands are; 0 if an operand overflows."""
        if not (self.a.fits and self.b.fits):
            return 0
        corners = [x * y for x in (self.a.least, self.a.greatest) for y in (self.b.least, self.b.greatest)]
        top = 1 << (min(self.widths) - 1)
        return min(top // -min(corners), (top - 1) // max(corners))

    def drains(self, length: int) -> int:
        """How often the fields of P leave in a sum over ``length`` input channels.

        Raises:
            ValueError: not even one product is exact.
        """
        if self.chain == 0:
            raise ValueError(f"the operands of {self.name} overflow, or a product its field")
        return ceil_div(length, self.chain)

    def multiply(self, a: ArrayLike, b: ArrayLike) -> Integers:
        """P after a chain of products, as the slice has it.

        Args:
            a: values of A, shape (..., length of the chain, values).
            b: values of B, likewise.

        Returns:
            Accumulators of shape (...), in 48 bits.
        """
        return _wrapped((self.a.pack(a) * self.b.pack(b)).sum(axis=-1), P_BITS)

    def extract(self, p: ArrayLike) -> Integers:
        """The fields of P, shape (...) -> (..., values of A, values of B).

        The lowest field comes first. What is above it gets its borrow back, then it is the turn
        of the next one.
        """
        rest, fields = np.asarray(p, np.int64), []
        for width in self.widths:
            fields.append(_wrapped(rest, width))
            rest = (rest >> width) + ((rest >> (width - 1)) & 1)
        return np.stack(fields, axis=-1).reshape(*rest.shape, len(self.a.shifts), len(self.b.shifts))


def _wrapped(values: Integers, bits: int) -> Integers:
    """The lowest bits as a signed number."""
    sign = 1 << (bits - 1)
    return ((values & ((1 << bits) - 1)) ^ sign) - sign


def _activations(least: int, greatest: int, *shifts: int, bits: int) -> Operand:
    return Operand("activations", least, greatest, shifts, bits)


def _weights(least: int, greatest: int, *shifts: int, bits: int) -> Operand:
    return Operand("weights", least, greatest, shifts, bits)


#: two rows share a weight of -127 to 127, as the quantiser makes them: chains of 8
W8A8 = Recipe(
    "w8a8",
    _activations(-128, 127, 0, 18, bits=A_BITS),
    _weights(-127, 127, 0, bits=B_BITS),
)
#: the same with weights down to -128: chains of 7
W8A8_FULL = Recipe(
    "w8a8-full",
    _activations(-128, 127, 0, 18, bits=A_BITS),
    _weights(-128, 127, 0, bits=B_BITS),
)
#: the weights of attention (uint8, two rows) share a value: chains of 4
U8A8 = Recipe(
    "u8a8",
    _activations(0, 255, 0, 18, bits=A_BITS),
    _weights(-128, 127, 0, bits=B_BITS),
)
#: two neighbouring output channels share an activation: chains of 2,047
W4A8 = Recipe(
    "w4a8",
    _weights(-8, 7, 0, 22, bits=A_BITS),
    _activations(-128, 127, 0, bits=B_BITS),
)
#: two output channels by two rows: chains of 15
W4A4 = Recipe(
    "w4a4",
    _weights(-8, 7, 0, 22, bits=A_BITS),
    _activations(-8, 7, 0, 11, bits=B_BITS),
)
#: the same with activations of 0 to 15: chains of 8
W4A4_UNSIGNED = Recipe(
    "w4a4-unsigned",
    _weights(-8, 7, 0, 22, bits=A_BITS),
    _activations(0, 15, 0, 11, bits=B_BITS),
)

#: by name
RECIPES = MappingProxyType({r.name: r for r in (W8A8, W8A8_FULL, U8A8, W4A8, W4A4, W4A4_UNSIGNED)})


def recipe_of(precision: str) -> Recipe:
    """The recipe of a precision.

    Raises:
        ValueError: there is none; the text lists those there are.
    """
    if precision not in RECIPES:
        raise ValueError(f"no packing of precision {precision!r}; there are {', '.join(RECIPES)}")
    return RECIPES[precision]


def products_per_dsp(precision: str) -> int:
    """Products of one DSP48E2 a cycle; ValueError as in `recipe_of`."""
    return recipe_of(precision).products


def dsps(macs: int, precision: str) -> int:
    """DSP48E2 slices for ``macs`` products a cycle, full ones and one for what remains.

    An array whose rows or columns are odd leaves more of them half used: count the pairs there.
    """
    if macs < 0:
        raise ValueError(f"products a cycle are at least 0, not {macs}")
    return ceil_div(macs, products_per_dsp(precision))


def packed_bytes(weights: ArrayLike) -> NDArray[np.int8]:
    """int4 weights of two neighbouring channels in a byte: ``16 * w1 + w0`` modulo 256.

    The high nibble holds w1 less the borrow of a negative w0, as operand A does, so that the
    kernel spends no adder on it (`weight_operand` in `t2f/packed4.hpp`).

    Args:
        weights: int4 values of shape (..., 2), (w0, w1) last.

    Returns:
        Bytes of shape (...).

    Raises:
        ValueError: a weight is outside -8..7, or they are not pairs.
    """
    array = np.asarray(weights)
    if not np.issubdtype(array.dtype, np.integer) or array.shape[-1:] != (2,):
        raise ValueError(f"pairs of integers are packed, not {array.dtype} of shape {array.shape}")
    if array.size and (array.min() < -8 or array.max() > 7):
        raise ValueError(f"int4 weights lie in -8..7, not {array.min()}..{array.max()}")
    wide = array.astype(np.int64)
    return ((16 * wide[..., 1] + wide[..., 0]) & 255).astype(np.uint8).view(np.int8)
