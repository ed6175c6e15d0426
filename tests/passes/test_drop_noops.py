# SPDX-License-Identifier: Apache-2.0
"""No-ops go, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import histogram, rows
from torch2fpga.capture import capture
from torch2fpga.errors import DesignError
from torch2fpga.passes.drop_noops import DropNoops
from torch2fpga.passes.manager import PassManager

X = rows(2, 5, 21)


class _Model(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _before_and_after(function: Callable[[Tensor], Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """Histograms; the values must stay the same."""
    module = capture(_Model(function), (X,)).module
    before = histogram(module.graph)
    module = PassManager([DropNoops()], given=("functional",)).run(module)
    assert torch.equal(module(X)[0], function(X))
    return before, histogram(module.graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x.clone()),
        lambda x: torch.relu(x.contiguous()),
        lambda x: torch.relu(x.to(torch.float32)),
        lambda x: torch.relu(x.reshape(2, 5, 21)),
        lambda x: torch.relu(x.expand(2, 5, 21)),
        lambda x: torch.relu(x[:, :]),
        lambda x: torch.relu(nn.functional.dropout(x, 0.3, False)),
        lambda x: torch.relu(x.detach().clone().view(2, 5, 21)),
    ],
)
def test_dropped(function: Callable[[Tensor], Tensor]) -> None:
    assert _before_and_after(function)[1] == {"relu.default": 1}


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        (lambda x: x.reshape(2, 105), "reshape.default"),
        (lambda x: x.to(torch.float64), "to.dtype"),
        (lambda x: x[:, :3], "slice.Tensor"),
        (lambda x: x.unsqueeze(0).expand(3, 2, 5, 21), "expand.default"),
        (lambda x: x.transpose(0, 1), "transpose.int"),
    ],
)
def test_kept(function: Callable[[Tensor], Tensor], kept: str) -> None:
    before, after = _before_and_after(lambda x: torch.relu(function(x)))
    assert kept in after or (kept == "to.dtype" and "_to_copy.default" in after), (before, after)


def test_copy_before_a_view_may_go() -> None:
    """The view becomes a reshape: on what is not contiguous any more a view would fail."""
    before, after = _before_and_after(lambda x: x.transpose(1, 2).contiguous().view(2, 105))
    assert before["view.default"] == 1
    assert after == {"transpose.int": 1, "reshape.default": 1}


def test_active_dropout_stays() -> None:
    module = capture(_Model(lambda x: nn.functional.dropout(x, 0.3, True)), (X,)).module
    PassManager([DropNoops()], given=("functional",)).run(module)
    assert {"dropout.default", "native_dropout.default"} & set(histogram(module.graph))


def test_left_views_are_a_defect() -> None:
    module = capture(_Model(lambda x: x.view(2, 105)), (X,)).module
    with pytest.raises(DesignError, match="drop_noops left"):
        DropNoops().verify(module)
