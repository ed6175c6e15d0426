# SPDX-License-Identifier: Apache-2.0
"""Residual add: the template against its reference; sums that are taken, folded and refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.add import AddStage

__all__ = ["cxx_cache"]
LAYOUT = Layout(1, 21)
FORMATS = (("int16", 16), ("int32", 24), ("int16", 16), ("int32", 24))
INPUTS = (rows(BATCH, SEQ, WIDTH),)


@pytest.fixture(scope="module")
def library() -> Library:
    benches = []
    for shape, (element, bits) in zip(SHAPES, FORMATS, strict=True):
        stage = AddStage("s", "add", "loop", 2, ("a", "b"), ("y",), layout=LAYOUT, element=element, bits=bits)
        streams = tuple(Stream(n, "rows", element, LAYOUT) for n in "aby")
        benches.append(Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ)))
    return Library(benches)


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(FORMATS)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    top = 2 ** (FORMATS[index][1] - 1)
    generator = torch.Generator().manual_seed(index)
    a, b = (
        torch.randint(-top, top, (batch, seq, 21), generator=generator, dtype=torch.int32) for _ in range(2)
    )
    a[0, 0, :4] = torch.tensor([-top, top - 1, -top, top - 1])
    b[0, 0, :4] = torch.tensor([-top, top - 1, top - 1, -top])
    assert library.mismatches(index, [[a, b], [b, b]], batch, seq) == 0
    (y,) = library.benches[index].stage.reference({}, [a, b])
    assert y[0, 0, :4].tolist() == [-top, top - 1, -1, -1]


class _Rows(nn.Module):
    """A constant row a token is added."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.rows = nn.Parameter(rows(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.rows


def test_residual_is_taken() -> None:
    model = Inside(lambda x: x + torch.relu(x))
    assert histogram(lowered(model, INPUTS)[0].graph) == {"linear": 1, "activation": 1, "add": 1}
    assert float_error(model, INPUTS) <= 1e-5


@pytest.mark.parametrize("shape", [(WIDTH,), (1, WIDTH), (SEQ, WIDTH), (1, SEQ, WIDTH), (BATCH, 1, WIDTH)])
def test_constant_rows(shape: tuple[int, ...]) -> None:
    if shape[0] == BATCH:  # differs between sequences
        refused(_Rows(*shape), INPUTS, "", "adds a constant of shape")
    else:
        assert float_error(_Rows(*shape), INPUTS) <= 1e-5


def test_add_with_itself_is_right() -> None:
    assert float_error(Inside(lambda x: x + x), INPUTS) <= 1e-5


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.add(x, torch.relu(x), alpha=2), "alpha other than 1"),
        (lambda x: x + 1.5, "not the model's data"),
        (lambda x: x + x.transpose(0, 1).reshape(x.shape), ""),
        (lambda x: x - torch.relu(x), "not supported"),
        (lambda x: 2 - x, "not supported"),
        (lambda x: x.sum(-1, keepdim=True) + x, "not supported"),
    ],
)
def test_refused(function: object, reason: str) -> None:
    refused(Inside(function), INPUTS, "part", reason)  # type: ignore[arg-type]


def test_batch_and_tokens_exchanged_is_refused() -> None:
    """Equal sizes: a transposed operand must not pass for the straight one."""
    refused(Inside(lambda x: x + x.transpose(0, 1)), (rows(5, 5, WIDTH),), "part", "arranged differently")


def test_broadcast_row_is_refused() -> None:
    refused(Inside(lambda x: x + x[:, :1]), INPUTS, "part", "arranged differently")
