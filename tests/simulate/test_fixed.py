# SPDX-License-Identifier: Apache-2.0
"""The integer functions of the stages: C++ against Python bit for bit, and both against exact
arithmetic."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.tiny import cxx_cache
from torch2fpga.lower.activation import table_function
from torch2fpga.simulate import fixed, tables
from torch2fpga.simulate.build import build_library

__all__ = ["cxx_cache"]
LIMITS = (127, 215, 39, 254)  # both sides of the zero points in use, except 0
SOURCE = """
#include <cstdint>
#include "t2f/attention.hpp"
#include "t2f/elementwise.hpp"
#include "t2f/quantize_rows.hpp"
template <typename K> struct Function { using function = K; };
#define EACH for (long i = 0; i < n; ++i)
#define ARRAYS const int64_t *a, const int64_t *b, int64_t *y, int64_t *z, long n
extern "C" {
void t_round_shift(ARRAYS) { (void)z; EACH y[i] = t2f::round_shift(a[i], static_cast<int>(b[i])); }
void t_saturate(ARRAYS) { (void)z; EACH y[i] = t2f::saturate(a[i], static_cast<int>(b[i])); }
void t_top_bit(ARRAYS) { (void)z; (void)b; EACH y[i] = t2f::top_bit(static_cast<uint64_t>(a[i])); }
void t_reciprocal(ARRAYS) {
  (void)b;
  EACH {
    const t2f::scaled s = t2f::reciprocal(static_cast<uint32_t>(a[i]));
    y[i] = s.mantissa;
    z[i] = s.exponent;
  }
}
void t_rsqrt(ARRAYS) {
  (void)b;
  EACH {
    const t2f::scaled s = t2f::rsqrt(static_cast<uint64_t>(a[i]));
    y[i] = s.mantissa;
    z[i] = s.exponent;
  }
}
void t_exp2_weight(ARRAYS) { (void)z; (void)b; EACH y[i] = t2f::exp2_weight(a[i]); }
"""


def _source() -> str:
    text = SOURCE
    for limit in (*LIMITS, 0):
        text += (
            f"void t_fitting_{limit}(ARRAYS) {{ (void)z; (void)b; "
            f"EACH y[i] = t2f::fitting_exponent<{limit}>(static_cast<uint32_t>(a[i])); }}\n"
        )
    for kind in tables.FUNCTIONS:
        text += (
            f"void t_{kind}(ARRAYS) {{ (void)z; (void)b; "
            f"EACH y[i] = t2f::table_function<t2f::{kind}>(static_cast<int32_t>(a[i])); }}\n"
        )
    return text + "}\n"


class Cxx:
    """The C++ functions on arrays."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(build_library({"functions.cpp": _source()})))

    def __call__(self, name: str, a: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
        arrays: list[NDArray[np.int64]] = [
            np.ascontiguousarray(x.numpy().astype(np.int64)) for x in (a, a if b is None else b)
        ]
        y, z = np.zeros_like(arrays[0]), np.zeros_like(arrays[0])
        pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (*arrays, y, z)]
        getattr(self.library, f"t_{name}")(*pointers, ctypes.c_long(y.size))
        return torch.from_numpy(y), torch.from_numpy(z)


@pytest.fixture(scope="module")
def cxx() -> Cxx:
    return Cxx()


def integers(low: int, high: int) -> st.SearchStrategy[list[int]]:
    """Lists that hold small, large and power-of-two values in [low, high]."""
    near = [s * (1 << b) + o for b in range(64) for o in (-1, 0, 1) for s in (-1, 1)]
    corners = st.sampled_from([v for v in (*near, low, high, 0) if low <= v <= high])
    return st.lists(st.one_of(st.integers(low, high), corners), min_size=1, max_size=60)


def corners(low: int, high: int, seed: int = 0, count: int = 20_000) -> Tensor:
    """Every power of two and its neighbours, and values of every magnitude."""
    near = [s * (1 << b) + o for b in range(63) for o in (-1, 0, 1) for s in (-1, 1)]
    generator = torch.Generator().manual_seed(seed)
    bits = max(abs(low), high).bit_length()
    drawn = torch.randint(0, 2**62, (count,), generator=generator)
    drawn = drawn >> torch.randint(62 - bits, 62, (count,), generator=generator)
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    values = torch.cat([torch.tensor([*near, low, high, 0, 1]), drawn * signs])
    return values[(values >= low) & (values <= high)]


@pytest.mark.gxx
@settings(max_examples=200, deadline=None)
@given(integers(-(2**61), 2**61), st.integers(0, 61))
def test_round_shift(cxx: Cxx, values: list[int], shift: int) -> None:
    a = torch.tensor(values)
    want = [math.floor(Fraction(v, 2**shift) + Fraction(1, 2)) if shift else v for v in values]
    assert fixed.round_shift(a, shift).tolist() == want
    assert fixed.round_shift(a, torch.full_like(a, shift)).tolist() == want
    assert cxx("round_shift", a, torch.full_like(a, shift))[0].tolist() == want


@pytest.mark.gxx
@settings(max_examples=200, deadline=None)
@given(integers(-(2**63), 2**63 - 1), st.sampled_from([8, 16, 24, 32]))
def test_saturate(cxx: Cxx, values: list[int], bits: int) -> None:
    a = torch.tensor(values)
    high = 2 ** (bits - 1) - 1
    low = -high if bits == 8 else -high - 1
    want = [min(max(v, low), high) for v in values]
    assert fixed.limits(bits) == (low, high)
    assert fixed.saturate(a, bits).tolist() == want
    assert cxx("saturate", a, torch.full_like(a, bits))[0].tolist() == want


@pytest.mark.gxx
def test_top_bit(cxx: Cxx) -> None:
    values = corners(0, 2**63 - 1)
    want = [max(v.bit_length() - 1, 0) for v in values.tolist()]
    assert fixed.top_bit(values).tolist() == want
    assert cxx("top_bit", values)[0].tolist() == want


@pytest.mark.gxx
def test_reciprocal(cxx: Cxx) -> None:
    """Relative error below 2^-15; measured over all mantissas of 16 bits: 1.8e-5 (2^-15.8)."""
    values = torch.cat([corners(1, 2**32 - 1), torch.arange(1, 2**16)])
    mantissa, exponent = fixed.reciprocal(values)
    got = cxx("reciprocal", values)
    assert torch.equal(got[0], mantissa) and torch.equal(got[1], exponent)
    assert int(mantissa.min()) >= 2**16 and int(mantissa.max()) <= 2**17
    error = values.double() * mantissa.double() * torch.exp2(-17.0 - exponent.double()) - 1
    assert 0 < float(error.abs().max()) < 2.0**-15


@pytest.mark.gxx
def test_rsqrt(cxx: Cxx) -> None:
    """Relative error below 2^-17 over all magnitudes of 63 bits."""
    values = torch.cat([corners(1, 2**63 - 1), torch.arange(1, 2**16)])
    mantissa, exponent = fixed.rsqrt(values)
    got = cxx("rsqrt", values)
    assert torch.equal(got[0], mantissa) and torch.equal(got[1], exponent)
    assert int(mantissa.min()) >= 2**17 and int(mantissa.max()) <= 2**18
    error = values.double().sqrt() * mantissa.double() * torch.exp2(-18.0 - exponent.double()) - 1
    assert float(error.abs().max()) < 2.0**-17


@pytest.mark.gxx
@settings(max_examples=100, deadline=None)
@given(integers(1, 2**32 - 1))
def test_reciprocal_of_any_value(cxx: Cxx, values: list[int]) -> None:
    a = torch.tensor(values)
    mantissa, exponent = fixed.reciprocal(a)
    assert [t.tolist() for t in cxx("reciprocal", a)] == [mantissa.tolist(), exponent.tolist()]


@pytest.mark.gxx
@settings(max_examples=100, deadline=None)
@given(integers(1, 2**63 - 1))
def test_rsqrt_of_any_value(cxx: Cxx, values: list[int]) -> None:
    a = torch.tensor(values)
    mantissa, exponent = fixed.rsqrt(a)
    assert [t.tolist() for t in cxx("rsqrt", a)] == [mantissa.tolist(), exponent.tolist()]


def _fitting(magnitude: int, limit: int) -> int:
    return next(e for e in range(64) if (magnitude + (1 << e >> 1)) >> e <= limit)


@pytest.mark.gxx
@pytest.mark.parametrize("limit", LIMITS)
def test_fitting_exponent(cxx: Cxx, limit: int) -> None:
    values = torch.cat([corners(0, 2**31, count=3000), torch.arange(0, 4096)])
    want = [_fitting(v, limit) for v in values.tolist()]
    assert cxx(f"fitting_{limit}", values)[0].tolist() == want
    assert fixed.fitting_exponent(values, limit).tolist() == want


@pytest.mark.gxx
def test_fitting_exponent_of_nothing(cxx: Cxx) -> None:
    """No room below the zero point of ReLU: only 0 comes, and it fits at once."""
    zero = torch.zeros(1, dtype=torch.int64)
    assert cxx("fitting_0", zero)[0].tolist() == [0]
    assert fixed.fitting_exponent(zero, 0).tolist() == [0]


@pytest.mark.gxx
def test_exp2_weight(cxx: Cxx) -> None:
    """The formula of the softmax reference, and never more than one unit from the real value."""
    values = torch.cat([torch.arange(0, 6000), corners(0, 2**50)])
    got = cxx("exp2_weight", values)[0]
    table = torch.tensor(tables.exp2_table())
    want = fixed.round_shift(table[values & 255], 8 + (values >> 8).clamp(max=15))
    assert torch.equal(got, want)
    assert got[0] == 255 and int(got[-1]) == 0
    real = 255 * torch.exp2(-values.double() / 256)
    assert float((got - real).abs().max()) <= 0.51
    assert bool((got[:6000].diff() <= 0).all())


@pytest.mark.gxx
@pytest.mark.parametrize("kind", tables.FUNCTIONS)
def test_table_function(cxx: Cxx, kind: str) -> None:
    limit = 8 << 14
    values = torch.cat([torch.arange(-limit - 300, limit + 300, 5), corners(-(2**31), 2**31 - 1)])
    assert torch.equal(cxx(kind, values)[0], table_function(values, kind).long())


def test_high_product_is_exact() -> None:
    a, b = corners(0, 2**33 - 1, 1, 500), corners(0, 2**33 - 1, 2, 500)
    size = min(len(a), len(b))
    want = [(x * y) >> 32 for x, y in zip(a[:size].tolist(), b[:size].tolist(), strict=True)]
    assert fixed._high_product(a[:size], b[:size]).tolist() == want
