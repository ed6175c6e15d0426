# SPDX-License-Identifier: Apache-2.0
"""Layer norm: the template against its reference, the reference against torch; taken and refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.norm_samples import norm_bench, norm_data, norm_rows, value_bits
from tests.stage_bench import RUNS, SHAPES, Library
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Layout
from torch2fpga.lower.layer_norm import NormalizeStage, _quantise
from torch2fpga.lower.ways import WAYS

__all__ = ["cxx_cache"]
_bench = partial(norm_bench, NormalizeStage)
LAYOUTS = (Layout(1, 21), Layout(1, 40), Layout(1, 768))
#: (lanes, tile), layout, element, channels a cycle
CASES = [
    *(
        (SHAPES[(i + j) % len(SHAPES)], layout, element, 16)
        for i, layout in enumerate(LAYOUTS)
        for j, element in enumerate(("int16", "int32"))
    ),
    *(((8, 3), LAYOUTS[i % 2], ("int16", "int32")[i % 2], ways) for i, ways in enumerate(WAYS)),
    *(((16, 4), LAYOUTS[i % 2], ("int32", "int16")[i % 2], ways) for i, ways in enumerate(WAYS)),
]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _constants(bits: int, unit: float, channels: int, eps: float = 1e-5) -> dict[str, Any]:
    return norm_data(_quantise, bits, unit, channels, torch.ones(channels), torch.zeros(channels), eps)


def _cases(bits: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Those of both norms, and rows without variance."""
    top = 2 ** (bits - 1) - 1
    flat = torch.zeros(shape, dtype=torch.int32)
    flat[:, 0] = top
    flat[:, -1] = -top - 1
    return [*norm_rows(bits, shape), flat]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    _, layout, element, _ = CASES[index]
    bits = value_bits(element)
    data = [_constants(bits, unit, layout.channels) for unit in (2.0**-12, 2.0**-4)]
    for x in _cases(bits, (batch, seq, layout.channels)):
        assert library.mismatches(index, [[x], [x.flip(-1)]], batch, seq, data) == 0


@pytest.mark.parametrize("element", ["int16", "int32"])
@pytest.mark.parametrize("channels", [21, 40, 768])
def test_reference_is_close_to_torch(element: str, channels: int) -> None:
    bits = value_bits(element)
    stage = _bench((8, 1), Layout(1, channels), element).stage
    unit = 2.0**-10
    data = _constants(bits, unit, channels)
    for x in norm_rows(bits, (1, 5, channels))[:3]:
        (y,) = stage.reference(data, [x])
        got = y.double() * 2.0**-24 * channels**0.5
        want = nn.functional.layer_norm(x.double() * unit, (channels,), eps=1e-5)
        assert float((got - want).abs().max()) <= 2.0**-14 * float(want.abs().max())


@pytest.mark.gxx
def test_epsilon_matters(library: Library) -> None:
    """A row that hardly varies is not blown up: eps is in units of the input squared."""
    stage = library.benches[0].stage
    x = norm_rows(16, (1, 1, 21))[3]
    small, large = (_constants(16, 2.0**-14, 21, eps) for eps in (1e-12, 1e-2))
    assert library.mismatches(0, [[x], [x]], 1, 1, [small, large]) == 0
    a, b = (int(stage.reference(d, [x])[0].abs().max()) for d in (small, large))
    assert a > 100 * b > 0


def test_fewer_channels_a_cycle_cost_less() -> None:
    found = [_bench((16, 4), LAYOUTS[2], "int16", ways) for ways in WAYS]
    costs = [b.stage.cost(b.design) for b in found]
    assert [c.dsp for c in costs] == sorted({c.dsp for c in costs})
    assert [c.cycles for c in costs] == sorted({c.cycles for c in costs}, reverse=True)


class _Norm(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@pytest.mark.parametrize("shape", [(3, WIDTH), (BATCH, SEQ, WIDTH)])
@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(WIDTH),
        nn.LayerNorm(WIDTH, elementwise_affine=False),
        nn.LayerNorm(WIDTH, bias=False, eps=1e-2),
    ],
    ids=str,
)
def test_taken(norm: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = (rows(*shape),)
    assert histogram(lowered(_Norm(norm), inputs)[0].graph) == {"layer_norm": 1}
    assert float_error(_Norm(norm), inputs) <= 1e-5


def test_norm_over_two_dimensions_is_refused() -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    refused(_Norm(nn.LayerNorm((SEQ, WIDTH))), inputs, "norm", "is not exactly the channels")


def test_norm_over_tokens_is_refused() -> None:
    model = Inside(lambda x: nn.functional.layer_norm(x.transpose(1, 2), (SEQ,)))
    refused(model, (rows(BATCH, SEQ, WIDTH),), "part", "is not exactly the channels")


def test_norm_with_computed_weight_is_refused() -> None:
    model = Inside(lambda x: nn.functional.layer_norm(x, (WIDTH,), x[0]))
    refused(model, (rows(1, WIDTH),), "part", "must be constants")


def test_group_norm_is_refused() -> None:
    model = Inside(lambda x: nn.functional.group_norm(x.transpose(1, 2), 3).transpose(1, 2))
    refused(model, (rows(BATCH, SEQ, WIDTH),), "part", "not supported")
