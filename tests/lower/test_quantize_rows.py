# SPDX-License-Identifier: Apache-2.0
"""Row quantisation: the template against its reference, and what the numbers mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.activation import ZERO_POINTS
from torch2fpga.lower.quantize_rows import QuantizeRowsStage
from torch2fpga.lower.ways import WAYS

__all__ = ["cxx_cache"]
#: layout and zero point; a heads layout fills up three blocks
FORMS = [(Layout(1, 21), 0), (Layout(3, 7), 88), (Layout(1, 40), 88), (Layout(1, 21), 127)]
#: (lanes, tile), layout, zero point, channels a cycle
CASES = [
    *((shape, *form, 16) for shape, form in zip(SHAPES, FORMS, strict=True)),
    *(((8, 3), *FORMS[i % 4], ways) for i, ways in enumerate(WAYS)),
    *(((16, 4), *FORMS[i % 4], ways) for i, ways in enumerate(WAYS)),
]
INDICES = range(len(CASES))


def _bench(shape: tuple[int, int], layout: Layout, zero_point: int, ways: int = 16) -> Bench:
    stage = QuantizeRowsStage(
        "q", "act", "loop", 2, ("x",), ("y", "e"), layout=layout, zero_point=zero_point, ways=ways
    )
    streams = (
        Stream("x", "rows", "int32", layout),
        Stream("y", "rows", "int8", layout),
        Stream("e", "exponents"),
    )
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _values(zero_point: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Rows as an activation gives them: below zero no lower than the zero point allows."""
    generator = torch.Generator().manual_seed(zero_point)
    low = 0 if zero_point == 127 else -2600 if zero_point else -(1 << 14)
    small = torch.randint(low, 1 << 14, shape, generator=generator)
    large = torch.randint(low, 1 << 23, shape, generator=generator)
    large[:, 0] = 0
    spread = small << torch.randint(0, 9, (*shape[:2], 1), generator=generator)
    spread[..., 3] = (1 << 23) - 1
    ones = torch.zeros(shape, dtype=torch.int64)
    ones[..., 0] = 1
    return [v.clamp(min=low).to(torch.int32) for v in (small, large, spread, ones)]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", INDICES)
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    _, layout, zero_point, _ = CASES[index]
    for x in _values(zero_point, (batch, seq, layout.channels)):
        assert library.mismatches(index, [[x], [x.flip(1)]], batch, seq) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("index", INDICES)
def test_every_power_of_two(library: Library, index: int) -> None:
    """The largest value of a row at, below and above every power of two."""
    _, layout, _, _ = CASES[index]
    for around in (-1, 0, 1):
        x = torch.zeros(1, 19, layout.channels, dtype=torch.int32)
        x[0, :, 1] = torch.tensor([max(0, (1 << b) + around) for b in range(5, 24)], dtype=torch.int32)
        assert library.mismatches(index, [[x], [x]], 1, 19) == 0


@pytest.mark.parametrize(("layout", "zero_point"), FORMS)
def test_error_is_half_a_unit_and_nothing_saturates(layout: Layout, zero_point: int) -> None:
    stage = _bench((8, 1), layout, zero_point).stage
    for x in _values(zero_point, (2, 5, layout.channels)):
        y, exponent = stage.reference({}, [x])
        unit = torch.exp2(exponent.double())[..., None]
        assert float(((y + zero_point).double() * unit - x.double()).abs().div(unit).max()) <= 0.5
        finer = (x.double() / (unit / 2) + 0.5).floor() - zero_point
        fits = (finer.abs() <= 127).all(-1)
        assert not bool((fits & (exponent > 0)).any()), "a smaller exponent would have done"


def test_zero_points_fit_int8() -> None:
    assert all(0 <= z <= 127 for z in ZERO_POINTS.values())
