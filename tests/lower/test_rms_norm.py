# SPDX-License-Identifier: Apache-2.0
"""RMS norm: the template against its reference, the reference against torch; taken and refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.loop_count import CountingLibrary, odd_depth, total_cycles
from tests.norm_samples import norm_bench, norm_data, norm_rows, value_bits
from tests.stage_bench import RUNS, SHAPES
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Layout
from torch2fpga.lower.rms_norm import RmsNormStage, _quantise, rms_norm

__all__ = ["cxx_cache"]
_bench = partial(norm_bench, RmsNormStage)
#: whole rows, and heads that do and do not fill their tokens
LAYOUTS = (Layout(1, 21), Layout(3, 14), Layout(2, 20), Layout(1, 256))
WAYS = (16, 4, 1, 2)
CASES = [
    (SHAPES[(i + j) % len(SHAPES)], layout, element, WAYS[(i + 2 * j) % 4])
    for i, layout in enumerate(LAYOUTS)
    for j, element in enumerate(("int16", "int32"))
]


@pytest.fixture(scope="module")
def library() -> CountingLibrary:
    return CountingLibrary([_bench(*case) for case in CASES])


def _constants(bits: int, unit: float, layout: Layout, eps: float = 1e-6) -> dict[str, Any]:
    ones = torch.ones(layout.size)
    return norm_data(_quantise, bits, unit, layout.channels, ones, eps, heads=layout.groups)


def _cases(bits: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Those of both norms, and nothing at all."""
    return [*norm_rows(bits, shape), torch.zeros(shape, dtype=torch.int32)]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: CountingLibrary, index: int, batch: int, seq: int) -> None:
    _, layout, element, _ = CASES[index]
    bits = value_bits(element)
    data = [_constants(bits, unit, layout) for unit in (2.0**-12, 2.0**-4)]
    data[1]["eps"] = 0  # a row of zeros has no root to divide by
    for x in _cases(bits, (batch, seq, layout.channels)):
        assert library.mismatches(index, [[x], [x.flip(-1)]], batch, seq, data) == 0


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), [*RUNS, (1, 4), (2, 7)])
@pytest.mark.parametrize("index", range(len(CASES)))
def test_cycles_are_those_of_every_loop_entry(
    library: CountingLibrary, index: int, batch: int, seq: int
) -> None:
    bench = library.benches[index]
    entries = library.entries(index, batch, seq)
    front, main = ([e for e in entries if (e.label == "SUM") == is_front] for is_front in (True, False))
    assert bench.stage.front_cycles(bench.design, batch, seq, odd_depth) == total_cycles(front, odd_depth)
    assert bench.stage.cycles(bench.design, batch, seq, odd_depth) == total_cycles(main, odd_depth)
    # No tile and no head has a loop of its own, and every loop takes an iteration a cycle.
    assert [e.label for e in main] == ["LOAD", "SCALE"] * 2 and len(front) == 1
    assert {e.ii for e in entries} == {1}


@pytest.mark.parametrize("element", ["int16", "int32"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_reference_is_close_to_torch(element: str, layout: Layout) -> None:
    bits, unit = value_bits(element), 2.0**-16  # eps is thousands of units: its rounding does not show
    stage = _bench((8, 1), layout, element).stage
    data = _constants(bits, unit, layout)
    for x in norm_rows(bits, (1, 5, layout.channels))[:3]:
        (y,) = stage.reference(data, [x])
        got = y.double() * 2.0**-24 * layout.size**0.5
        want = rms_norm(x.double() * unit, torch.ones(layout.size), 1e-6, layout.groups)
        assert float((got - want).abs().max()) <= 2.0**-15 * float(want.abs().max())
        assert int(y.abs().max()) < 2 ** (stage.result_bits() - 1)


@pytest.mark.parametrize("ways", [16, 1])
def test_a_tile_waits_between_the_two_processes(ways: int) -> None:
    """The FIFO holds the blocks of a head for the rows of a tile, not the whole row."""
    bench = _bench((16, 4), Layout(3, 40), "int16", ways)
    front = bench.stage.front(bench.design)
    assert front is not None and 4 * 3 < front.depth <= 4 * 3 + 32
    assert front.token_bytes == 32 and [f.token_bytes for f in front.fifos] == [32, 8]


def test_epsilon_matters() -> None:
    """A row that is almost zero is not blown up: eps is in units of the input squared."""
    stage = _bench((8, 1), LAYOUTS[0], "int16").stage
    x = norm_rows(16, (1, 1, 21))[3]
    small, large = (_constants(16, 2.0**-14, LAYOUTS[0], eps) for eps in (1e-12, 1e-2))
    a, b = (int(stage.reference(d, [x])[0].abs().max()) for d in (small, large))
    assert a > 100 * b > 0


class _Norm(nn.Module):
    """Norm in the form of transformers' LlamaRMSNorm, over the last dimension."""

    def __init__(self, width: int = WIDTH, weight: bool = True, square: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, width)) if weight else None
        self.square = square

    def forward(self, x: Tensor) -> Tensor:
        power = x * x if self.square else x.pow(2)
        y = x * torch.rsqrt(power.mean(-1, keepdim=True) + 1e-6)
        return y if self.weight is None else self.weight * y


class _Outer(nn.Module):
    def __init__(self, norm: nn.Module, heads: int = 1) -> None:
        super().__init__()
        self.norm, self.heads = norm, heads

    def forward(self, x: Tensor) -> Tensor:
        if self.heads == 1:
            return self.norm(x)
        return self.norm(x.unflatten(-1, (self.heads, -1))).flatten(-2)


@pytest.mark.parametrize("shape", [(3, WIDTH), (BATCH, SEQ, WIDTH)])
@pytest.mark.parametrize(
    "norm",
    [_Norm(), _Norm(weight=False), _Norm(square=True), nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH, eps=1e-2)],
    ids=["written out", "no weight", "x * x", "nn", "nn with eps"],
)
def test_taken(norm: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = (rows(*shape),)
    assert histogram(lowered(_Outer(norm), inputs)[0].graph) == {"rms_norm": 1}
    assert float_error(_Outer(norm), inputs) <= 1e-5


@pytest.mark.parametrize("norm", [_Norm(7), nn.RMSNorm(7)], ids=["written out", "nn"])
def test_taken_over_heads(norm: nn.Module) -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    module = lowered(_Outer(norm, 3), inputs)[0]
    (node,) = [n for n in module.graph.nodes if n.target is rms_norm]
    assert node.kwargs["heads"] == 3
    assert float_error(_Outer(norm, 3), inputs) <= 1e-5


def test_norm_over_two_dimensions_is_refused() -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    refused(_Outer(nn.RMSNorm((SEQ, WIDTH))), inputs, "norm", "not exactly the channels")


def test_norm_over_tokens_is_refused() -> None:
    model = Inside(lambda x: nn.functional.rms_norm(x.transpose(1, 2), (SEQ,)))
    refused(model, (rows(BATCH, SEQ, WIDTH),), "part", "not exactly the channels")


def test_norm_with_computed_weight_is_refused() -> None:
    model = Inside(lambda x: nn.functional.rms_norm(x, (WIDTH,), x[0]))
    refused(model, (rows(1, WIDTH),), "part", "must be a constant")


@pytest.mark.parametrize(
    "almost",
    [
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1) + 1e-6)[..., None],
        lambda x: x * torch.rsqrt(x.pow(4).mean(-1, keepdim=True) + 1e-6),
        lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
        lambda x: x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + 1e-6),
        lambda x: x * torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    ],
    ids=["mean dropped", "fourth power", "over tokens", "of another value", "no inverse"],
)
def test_what_only_looks_like_it_is_refused(almost: Any) -> None:
    from torch2fpga import UnsupportedModel, compile

    with pytest.raises(UnsupportedModel, match="not supported"):
        compile(Inside(almost).eval(), (rows(BATCH, SEQ, WIDTH),))
