# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic of the stages on torch tensors: the same as ``t2f/fixed.hpp``, bit for bit.

All functions take and give int64 tensors. Rounding: halves up, everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch2fpga.simulate import tables


def round_shift(value: Tensor, shift: Tensor | int) -> Tensor:
    """round(value / 2^shift), halves up."""
    if isinstance(shift, int):
        return value if shift == 0 else (value + (1 << (shift - 1))) >> shift
    half = torch.where(shift > 0, torch.ones_like(shift) << (shift - 1).clamp(min=0), 0)
    return (value + half) >> shift


def limits(bits: int) -> tuple[int, int]:
    """Lowest and highest value of a signed field; 8-bit fields are symmetric."""
    high = (1 << (bits - 1)) - 1
    return (-high if bits == 8 else -high - 1), high


def saturate(value: Tensor, bits: int) -> Tensor:
    """Clamp to a signed field of ``bits`` bits."""
    low, high = limits(bits)
    return value.clamp(low, high)


def top_bit(value: Tensor) -> Tensor:
    """Index of the highest set bit of positive int64 values (0 for 0 and 1)."""
    top = torch.zeros_like(value)
    rest = value.clone()
    for step in (32, 16, 8, 4, 2, 1):
        big = (rest >> step) > 0
        top = torch.where(big, top + step, top)
        rest = torch.where(big, rest >> step, rest)
    return top


def _lookup(table: tuple[int, ...], index: Tensor) -> Tensor:
    return torch.tensor(table, dtype=torch.int64)[index]


def reciprocal(value: Tensor) -> tuple[Tensor, Tensor]:
    """(mantissa with 17 fraction bits, exponent) of 1/value, value >= 1 and below 2^32."""
    top = top_bit(value)
    m = value << (31 - top)
    r0 = _lookup(tables.reciprocal_table(), (m >> 22) & 511)
    t = (m >> 15) * r0
    r1 = (r0 * ((1 << 33) - t)) >> 17
    return (r1 + (1 << 13)) >> 14, top


def _high_product(a: Tensor, b: Tensor) -> Tensor:
    """(a * b) >> 32 for a, b below 2^33: exact although the product needs more than 63 bits."""
    a_high, a_low = a >> 16, a & 0xFFFF
    return (a_high * b + ((a_low * b) >> 16)) >> 16


def rsqrt(value: Tensor) -> tuple[Tensor, Tensor]:
    """(mantissa with 18 fraction bits, exponent) of 1/sqrt(value), value >= 1."""
    even = top_bit(value) & ~1
    m = torch.where(even >= 30, value >> (even - 30).clamp(min=0), value << (30 - even).clamp(min=0))
    r0 = _lookup(tables.rsqrt_table(), (m >> 23) - 128)
    three = 3 << 30
    s0 = _high_product(m, r0 * r0)
    r1 = (r0 * (three - s0)) >> 17
    s1 = _high_product(m, (r1 * r1) >> 28)
    r2 = (r1 * (three - s1)) >> 31
    return (r2 + (1 << 11)) >> 12, even // 2


def sine(phase: Tensor) -> Tensor:
    """sin of a phase in turns (32 fraction bits, whole turns do not count), 14 fraction bits."""
    at = ((phase + (1 << 11)) >> 12) & ((1 << 20) - 1)
    place = at & ((1 << 18) - 1)
    place = torch.where((at >> 18) & 1 == 1, (1 << 18) - place, place)
    index, fraction = place >> 10, place & 1023
    low = _lookup(tables.sine_table(), index)
    high = _lookup(tables.sine_table(), index + 1)
    quarter = round_shift(low + round_shift((high - low) * fraction, 10), 2)
    return torch.where(at >> 19 == 1, -quarter, quarter)


def fitting_exponent(magnitude: Tensor, limit: int) -> Tensor:
    """Smallest e >= 0 with round(magnitude / 2^e) <= limit."""
    e = (top_bit(magnitude) - max(limit.bit_length() - 1, 0)).clamp(min=0)
    return torch.where(round_shift(magnitude, e) > limit, e + 1, e)
