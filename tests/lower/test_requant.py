# SPDX-License-Identifier: Apache-2.0
"""Requantisation: the template against its reference, the multiplier's precision and limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.lower.requant import MAX_SHIFT, MULTIPLIER_BITS, RequantStage, multiplier
from torch2fpga.lower.ways import WAYS
from torch2fpga.simulate.fixed import limits

__all__ = ["cxx_cache"]
#: in, out, bits, relu, scaled
FORMATS = (
    ("int32", "int8", 8, False, False),
    ("int32", "int8", 8, True, False),
    ("int32", "int16", 16, False, False),
    ("int16", "int32", 24, False, False),
    ("int8", "int16", 16, True, False),
    ("int32", "int32", 24, False, True),
    ("int32", "int8", 8, False, True),
)
LAYOUT = Layout(3, 7)
#: (lanes, tile), format, channels a cycle, width of the values (0: that of the element)
CASES = [
    *((SHAPES[i % len(SHAPES)], form, 16, 0) for i, form in enumerate(FORMATS)),
    *(((8, 3), FORMATS[i % 7], ways, 27) for i, ways in enumerate(WAYS)),
    *(((16, 4), FORMATS[(i + 5) % 7], ways, 27) for i, ways in enumerate(WAYS)),
]


def _bench(
    shape: tuple[int, int], form: tuple[str, str, int, bool, bool], ways: int, value_bits: int
) -> Bench:
    in_element, out_element, bits, relu, scaled = form
    inputs = ("x", "e") if scaled else ("x",)
    stage = RequantStage(
        "r", "fc", "loop", 3, inputs, ("y",), "p", layout=LAYOUT, in_element=in_element,
        out_element=out_element, bits=bits, relu=relu, scaled=scaled, ways=ways, value_bits=value_bits,
    )  # fmt: skip
    streams = (
        Stream("x", "rows", in_element, LAYOUT),
        Stream("e", "exponents"),
        Stream("y", "rows", out_element, LAYOUT),
    )
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _data(generator: torch.Generator, scaled: bool) -> dict[str, Any]:
    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (LAYOUT.channels,), generator=generator)

    return {
        "m": draw(-(2**17), 2**17),
        "b": draw(-(2**30), 2**30),
        "shift": int(draw(14, MAX_SHIFT)[0]),
        "bias_shift": int(draw(0, 12)[0]),
        **({"offset": draw(-(2**20), 2**20)} if scaled else {}),
    }


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    in_element, _, _, _, scaled = CASES[index][1]
    generator = torch.Generator().manual_seed(index)
    high = {"int8": 2**7, "int16": 2**15, "int32": 2**26}[in_element]
    inputs = []
    for _ in range(3):
        x = torch.randint(-high, high, (batch, seq, LAYOUT.channels), generator=generator, dtype=torch.int32)
        x[:, 0, :2] = torch.tensor([-high, high - 1])
        exponents = torch.randint(0, 15, (batch, seq), generator=generator, dtype=torch.int32)
        inputs.append([x, exponents] if scaled else [x])
    data = [_data(generator, scaled) for _ in range(3)]
    assert library.mismatches(index, inputs, batch, seq, data) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("index", range(len(CASES)))
def test_halves_and_saturation(library: Library, index: int) -> None:
    """A multiplier of one with shift 1: every odd value is a half; large ones saturate."""
    _, _, bits, relu, scaled = CASES[index][1]
    x = torch.arange(-10, 11, dtype=torch.int32).reshape(1, 1, 21)
    nothing = torch.zeros(21, dtype=torch.int64)
    ones = {"m": nothing + 1, "b": nothing, "offset": nothing}
    big = {**ones, "b": torch.where(torch.arange(21) % 2 == 0, 2**30, -(2**30))}
    data = [{**ones, "shift": 1, "bias_shift": 0}, {**big, "shift": 1, "bias_shift": 0}]
    data.append(data[0])
    inputs = [[x, torch.zeros(1, 1, dtype=torch.int32)] if scaled else [x]] * 3
    assert library.mismatches(index, inputs, 1, 1, data) == 0
    stage = library.benches[index].stage
    halves = stage.reference(data[0], inputs[0])[0].flatten().tolist()
    want = [math.floor(v / 2 + 0.5) for v in range(-10, 11)]
    assert halves == [max(w, 0) if relu else w for w in want]
    low, high = limits(bits)
    edges = stage.reference(data[1], inputs[1])[0].flatten().tolist()
    assert set(edges) == {0 if relu else low, high}


@pytest.mark.gxx
def test_values_wider_than_said_are_cut(library: Library) -> None:
    """The product is as wide as its operands are said to be, and no wider: 27 bits here."""
    index = next(i for i, c in enumerate(CASES) if c[3] == 27 and c[1][0] == "int32" and not c[1][4])
    x = torch.full((1, 1, LAYOUT.channels), 2**26, dtype=torch.int32)
    nothing = torch.zeros(LAYOUT.channels, dtype=torch.int64)
    data = [{"m": nothing + 1, "b": nothing, "shift": 24, "bias_shift": 0}] * 3
    assert library.mismatches(index, [[x - 1]] * 3, 1, 1, data) == 0
    assert library.mismatches(index, [[x]] * 3, 1, 1, data) > 0


def test_other_widths_are_errors() -> None:
    with pytest.raises(DesignError, match="r: a stage works on"):
        RequantStage("r", "", "loop", 1, ("x",), ("y",), "p", ways=3)


def test_fewer_channels_a_cycle_cost_less() -> None:
    found = [_bench((16, 4), FORMATS[2], ways, 27) for ways in WAYS]
    costs = [b.stage.cost(b.design) for b in found]
    assert [c.dsp for c in costs] == sorted({c.dsp for c in costs})
    assert [c.cycles for c in costs] == sorted({c.cycles for c in costs}, reverse=True)


@settings(deadline=None)
@given(st.lists(st.floats(1e-9, 2.0**16 - 1), min_size=1, max_size=8), st.floats(-1e5, 1e5))
def test_multiplier_is_close(ratios: list[float], offset: float) -> None:
    """The largest factor keeps 16 bits; the bias is right to half a unit of 2^-(shift - bias_shift)."""
    ratio = torch.tensor(ratios, dtype=torch.float64)
    found = multiplier(ratio, torch.full_like(ratio, offset), "here")
    assert int(found.m.abs().max()) < 2**MULTIPLIER_BITS
    assert 0 <= found.bias_shift <= found.shift <= MAX_SHIFT
    top = float(ratio.max())
    assert abs(int(found.m.max()) * 2.0**-found.shift - top) <= max(
        top * 2.0**-MULTIPLIER_BITS, 2.0**-MAX_SHIFT
    )
    unit = 2.0 ** (found.bias_shift - found.shift)
    assert abs(int(found.b[0]) * unit - offset) <= unit / 2
    assert abs(int(found.b[0])) <= 2**30


@pytest.mark.parametrize(
    "ratio",
    [
        2.0**17,
        math.nan,
        math.inf,
    ],
)
def test_factors_out_of_range_are_errors(ratio: float) -> None:
    with pytest.raises(CompileError, match="encoder\\.fc: a scale factor"):
        multiplier(torch.tensor([ratio]), torch.zeros(1), "encoder.fc")


def test_too_large_a_bias_is_an_error() -> None:
    with pytest.raises(CompileError, match="encoder\\.fc: a bias of"):
        multiplier(torch.tensor([2.0**15]), torch.tensor([2.0**40]), "encoder.fc")


@pytest.mark.parametrize(
    "bits",
    [
        8,
        16,
        24,
    ],
)
@pytest.mark.parametrize("fraction", [-0.999, 0.25, 0.999])
def test_zero_factors_leave_the_bias(bits: int, fraction: float) -> None:
    """Weights that are all zero: the result is the bias alone, whatever its size."""
    offset = torch.tensor([fraction * 2.0 ** (bits - 1)], dtype=torch.float64)
    stage = RequantStage("r", "", "before", 1, ("x",), ("y",), "p", out_element="int32", bits=bits)
    for ratio in (0.0, 1e-30):
        data = multiplier(torch.tensor([ratio], dtype=torch.float64), offset, "fc").data()
        (y,) = stage.reference(data, [torch.zeros(1, 1, 1, dtype=torch.int32)])
        assert abs(float(y) - float(offset)) <= 1
