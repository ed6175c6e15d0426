# SPDX-License-Identifier: Apache-2.0
"""Elementwise products: the template against its reference, gates in both orders, taken and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.loop_count import CountingLibrary, odd_depth, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench
from tests.tiny import (
    BATCH,
    HIDDEN,
    SEQ,
    WIDTH,
    Inside,
    compile_model,
    cxx_cache,
    exact,
    float_error,
    histogram,
    lowered,
    refused,
    rows,
    seeded,
)
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.multiply import IDENTITY, PRODUCT_SHIFT, MultiplyStage, multiply, product_scale

__all__ = ["cxx_cache", "seeded"]
LAYOUTS = (Layout(1, 21), Layout(3, 7))
KINDS = (IDENTITY, "silu", "gelu_tanh", "relu")
#: (lanes, tile), layout, function, channels a cycle
CASES = [
    (shape, LAYOUTS[(i + w) % 2], KINDS[(i + w) % 4], ways)
    for i, shape in enumerate(SHAPES)
    for w, ways in enumerate((16, 4, 1))
]


def _bench(shape: tuple[int, int], layout: Layout, kind: str, ways: int) -> Bench:
    stage = MultiplyStage("m", "mul", "loop", 2, ("a", "b"), ("y",), layout=layout, kind=kind, ways=ways)
    elements = {"a": "int32", "b": "int16", "y": "int32"}
    streams = tuple(Stream(n, "rows", e, layout) for n, e in elements.items())
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> CountingLibrary:
    return CountingLibrary([_bench(*case) for case in CASES])


def _operands(seed: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Values of all sizes; every pair of ends of the two ranges, and ties of the rounding."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-(2**23), 2**23, shape, generator=generator)
    a >>= torch.randint(0, 23, shape, generator=generator)
    b = torch.randint(-(2**15), 2**15, shape, generator=generator)
    ends = [(x, y) for x in (-(2**23), 2**23 - 1, 128, -128) for y in (-(2**15), 2**15 - 1, 1, -1)]
    a[0, 0, : len(ends)] = torch.tensor([x for x, _ in ends])
    b[0, 0, : len(ends)] = torch.tensor([y for _, y in ends])
    return [a.to(torch.int32), b.to(torch.int32)]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: CountingLibrary, index: int, batch: int, seq: int) -> None:
    steps = [_operands(2 * index + s, (batch, seq, 21)) for s in range(2)]
    assert library.mismatches(index, steps, batch, seq) == 0


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_cycles_are_one_flat_loop(library: CountingLibrary, index: int, batch: int, seq: int) -> None:
    bench, entries = library.benches[index], library.entries(index, batch, seq)
    assert bench.stage.cycles(bench.design, batch, seq, odd_depth) == total_cycles(entries, odd_depth)
    assert [(e.label, e.ii) for e in entries] == [("MULTIPLY", 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_close_to_the_function(kind: str) -> None:
    stage = _bench((8, 1), LAYOUTS[0], kind, 16).stage
    a, b = _operands(5, (1, 5, 21))
    unit = torch.full((21,), 2.0**-12, dtype=torch.float64)
    got = stage.reference({}, [a, b])[0].double() * product_scale(unit)
    want = multiply(a.double() * 2.0**-14, b.double() * unit, kind)
    # The table is within 1.3e-4, the product rounds half a unit.
    allowed = 1.3e-4 * (b.double() * unit).abs() + product_scale(unit) / 2
    assert bool(((got - want).abs() <= allowed).all())
    assert PRODUCT_SHIFT + 30 == 23 + 15, "the largest product leaves int32 none to spare"


class _Gate(nn.Module):
    def __init__(self, combine: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.combine(self.gate(x), self.up(x)))


GATES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "swiglu": (lambda g, u: nn.functional.silu(g) * u, "silu"),
    "swiglu_turned": (lambda g, u: u * nn.functional.silu(g), "silu"),
    "geglu": (lambda g, u: nn.functional.gelu(g) * u, "gelu"),
    "bilinear": (lambda g, u: g * u, IDENTITY),
    "two_functions": (lambda g, u: torch.tanh(g) * nn.functional.silu(u), "tanh"),
}
X = (rows(BATCH, SEQ, WIDTH),)


@pytest.mark.parametrize("name", GATES)
def test_taken(name: str) -> None:
    combine, kind = GATES[name]
    module, _ = lowered(_Gate(combine), X)
    (node,) = [n for n in module.graph.nodes if n.target is multiply]
    assert node.kwargs["kind"] == kind
    assert histogram(module.graph).get("activation", 0) == (name == "two_functions")
    assert float_error(_Gate(combine), X) <= 1e-6


def test_a_function_that_is_also_used_elsewhere_stays() -> None:
    class _Both(_Gate):
        def forward(self, x: Tensor) -> Tensor:
            g = nn.functional.silu(self.gate(x))
            return self.down(g * self.up(x)) + self.down(g)

    module, _ = lowered(_Both(torch.mul), X)
    assert {k: v for k, v in histogram(module.graph).items() if k in ("activation", "multiply")} == {
        "activation": 1,
        "multiply": 1,
    }
    assert float_error(_Both(torch.mul), X) <= 1e-6


@pytest.mark.gxx
@pytest.mark.parametrize("name", ["swiglu", "bilinear", "two_functions"])
def test_models_are_exact(name: str) -> None:
    model = _Gate(GATES[name][0]).eval()
    exact(compile_model(model, X), X, cosine=0.9995)


@pytest.mark.gxx
def test_a_value_times_itself() -> None:
    model = Inside(lambda x: x * x).eval()
    exact(compile_model(model, X), X, cosine=0.9995)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x * torch.arange(1.0, WIDTH + 1), "not the model's data"),
        (lambda x: x * x[:, :1], "arranged differently"),
        (lambda x: x * x.flip(1), "not supported"),
    ],
)
def test_other_products_are_refused(function: Callable[[Tensor], Tensor], reason: str) -> None:
    refused(Inside(function), X, "part", reason)
