# SPDX-License-Identifier: Apache-2.0
"""Table activations: the template against its reference, the table against the function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.activation import ActivationStage, activation, table_function
from torch2fpga.lower.ways import WAYS
from torch2fpga.simulate.tables import FUNCTIONS, LIMITS

__all__ = ["cxx_cache"]
KINDS = tuple(FUNCTIONS)
LAYOUT = Layout(1, 21)
#: (lanes, tile), function, channels a cycle
CASES = [
    *((SHAPES[i % len(SHAPES)], kind, 16) for i, kind in enumerate(KINDS)),
    *(((8, 3), KINDS[i % len(KINDS)], ways) for i, ways in enumerate(WAYS)),
    *(((16, 4), KINDS[i % len(KINDS)], ways) for i, ways in enumerate(WAYS)),
]


@pytest.fixture(scope="module")
def library() -> Library:
    streams = (Stream("x", "rows", "int32", LAYOUT), Stream("y", "rows", "int32", LAYOUT))
    benches = []
    for shape, kind, ways in CASES:
        stage = ActivationStage("a", "act", "loop", 2, ("x",), ("y",), layout=LAYOUT, kind=kind, ways=ways)
        benches.append(Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ)))
    return Library(benches)


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    generator = torch.Generator().manual_seed(index)
    shape = (batch, seq, 21)
    near = torch.randint(-18 << 14, 18 << 14, shape, generator=generator, dtype=torch.int32)
    far = torch.randint(-(2**23), 2**23, shape, generator=generator, dtype=torch.int32)
    limit = LIMITS[CASES[index][1]] << 14
    edges = [-(2**31), -limit - 1, -limit, -limit + 1, -1, 0, 1, limit - 1, limit, limit + 1, 2**31 - 1]
    far[0, 0, : len(edges)] = torch.tensor(edges, dtype=torch.int64).to(torch.int32)
    assert library.mismatches(index, [[near], [far]], batch, seq) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_table_is_close_to_the_function(kind: str) -> None:
    """Everywhere in 24 bits; measured: below 1.3e-4 (two units of 2^-14)."""
    x = torch.cat([torch.arange(-17 << 14, 17 << 14, 7), torch.tensor([-(2**23), 2**23 - 1])])
    got = table_function(x, kind).double() * 2.0**-14
    want = activation((x.double() * 2.0**-14).reshape(1, 1, -1), kind).reshape(-1)
    assert float((got - want).abs().max()) <= 1.3e-4


def test_relu_is_exact() -> None:
    x = torch.arange(-9 << 14, 9 << 14, 3)
    assert torch.equal(table_function(x, "relu").long(), x.clamp(min=0))


class _Act(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


@pytest.mark.parametrize(
    "act", [nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Tanh(), nn.ReLU()], ids=str
)
def test_taken(act: nn.Module) -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    assert histogram(lowered(_Act(act), inputs)[0].graph) == {"activation": 1}
    assert float_error(_Act(act), inputs) <= 1e-6


REFUSED = [nn.Mish(), nn.Sigmoid(), nn.ELU(), nn.LeakyReLU(), nn.Hardtanh(), nn.Softmax(-1)]


@pytest.mark.parametrize("act", REFUSED, ids=str)
def test_other_activations_are_refused(act: nn.Module) -> None:
    reason = "softmax outside of attention" if isinstance(act, nn.Softmax) else "not supported"
    refused(_Act(act), (rows(BATCH, SEQ, WIDTH),), "act", reason)


def test_almost_gelu_is_refused() -> None:
    """The tanh form with another constant is another function."""

    def almost(x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.0447 * torch.pow(x, 3.0))))

    refused(Inside(almost), (rows(BATCH, SEQ, WIDTH),), "part", "not supported")
