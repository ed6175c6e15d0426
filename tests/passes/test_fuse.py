# SPDX-License-Identifier: Apache-2.0
"""Fusions: packed linears are split, ReLU goes into the linear before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import (
    BATCH,
    SEQ,
    WIDTH,
    Inside,
    build,
    float_error,
    histogram,
    lowered,
    rows,
    seeded,
)
from torch2fpga.lower.linear import linear
from torch2fpga.lower.rows import slice_channels

__all__ = ["seeded"]

INPUTS = (rows(BATCH, SEQ, WIDTH),)


class _Packed(nn.Module):
    """Three slices of one linear, of different sizes."""

    def __init__(self, also: Callable[[Tensor], Tensor] | None = None, bias: bool = True) -> None:
        super().__init__()
        self.packed, self.also = nn.Linear(WIDTH, 40, bias=bias), also

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.packed(x)
        parts = y.split([7, 13, 20], -1)
        return (*parts, self.also(y)) if self.also else parts


@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_is_split(bias: bool) -> None:
    module, _ = lowered(_Packed(bias=bias), INPUTS)
    assert histogram(module.graph) == {"linear": 3}
    assert [n.meta["path"] for n in module.graph.nodes if n.target is linear] == ["packed"] * 3
    assert float_error(_Packed(bias=bias), INPUTS) <= 1e-5


def test_a_linear_that_is_also_used_whole_is_kept() -> None:
    model = _Packed(also=lambda y: y)
    assert histogram(lowered(model, INPUTS)[0].graph) == {"linear": 1, "slice_channels": 3}
    assert float_error(model, INPUTS) <= 1e-5


def test_unused_parts_cost_nothing() -> None:
    module, _ = lowered(Inside(lambda x: x.split([7, 14], -1)[0]), INPUTS)
    (node,) = [n for n in module.graph.nodes if n.target is linear]
    assert module.get_buffer(str(node.args[1].target)).shape == (7, WIDTH)


def test_gpt2_has_no_slices_left() -> None:
    pytest.importorskip("transformers")
    module, _ = lowered(*build("gpt2"))
    assert not [n for n in module.graph.nodes if n.target is slice_channels]


def test_relu_goes_into_the_linear() -> None:
    module, _ = lowered(Inside(torch.relu), INPUTS)
    (node,) = [n for n in module.graph.nodes if n.op == "call_function"]
    assert node.target is linear and node.kwargs["relu"] is True
    assert float_error(Inside(torch.relu), INPUTS) <= 1e-5


@pytest.mark.parametrize("function", [lambda x: torch.relu(x) + x, lambda x: torch.relu(torch.tanh(x))])
def test_relu_of_something_else_stays(function: Callable[[Tensor], Tensor]) -> None:
    assert histogram(lowered(Inside(function), INPUTS)[0].graph)["activation"] >= 1
    assert float_error(Inside(function), INPUTS) <= 1e-5


def test_two_relus_behind_one_linear() -> None:
    assert float_error(Inside(lambda x: torch.relu(x) + torch.relu(x)), INPUTS) <= 1e-5
    assert float_error(Inside(lambda x: torch.relu(torch.relu(x))), INPUTS) <= 1e-5
