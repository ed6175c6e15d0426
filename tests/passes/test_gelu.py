# SPDX-License-Identifier: Apache-2.0
"""The seven nodes of transformers' NewGELU become one; near misses do not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import histogram, rows
from torch2fpga.capture import capture
from torch2fpga.passes.gelu import RecogniseGelu
from torch2fpga.passes.manager import PassManager

ROOT = math.sqrt(2.0 / math.pi)


class _Model(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _run(function: Callable[[Tensor], Tensor]) -> dict[str, int]:
    x = rows(3, 5)
    module = PassManager([RecogniseGelu()], given=("functional",)).run(capture(_Model(function), (x,)).module)
    assert torch.allclose(module(x)[0], function(x), atol=1e-6)
    return histogram(module.graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: x * 0.5 * (torch.tanh((x + torch.pow(x, 3) * 0.044715) * ROOT) + 1),
    ],
)
def test_recognised(function: Callable[[Tensor], Tensor]) -> None:
    assert _run(function) == {"gelu.default": 1}


@pytest.mark.hf
def test_new_gelu_of_transformers() -> None:
    from transformers.activations import NewGELUActivation

    assert _run(NewGELUActivation()) == {"gelu.default": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.0447 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(0.79 * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 2.0)))),
        lambda x: 0.5 * x * (0.9 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.4 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * (x + 1) * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x, 3.0)))),
        lambda x: 0.5 * x * (1.0 + torch.tanh(ROOT * (x + 0.044715 * torch.pow(x + 1, 3.0)))),
    ],
)
def test_near_misses_are_left(function: Callable[[Tensor], Tensor]) -> None:
    assert "gelu.default" not in _run(function)
