# SPDX-License-Identifier: Apache-2.0
"""Views move no data: those that keep rows and channels are taken, those that mix them refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import BATCH, HEADS, SEQ, WIDTH, Inside, float_error, histogram, lowered, refused, rows

INPUTS = (rows(BATCH, SEQ, WIDTH),)
Function = Callable[[Tensor], Tensor]
HEADED = (BATCH, SEQ, HEADS, WIDTH // HEADS)

TAKEN: list[Function] = [
    lambda x: x.reshape(HEADED),
    lambda x: x.reshape(HEADED).transpose(1, 2),
    lambda x: x.reshape(HEADED).permute(2, 3, 0, 1),
    lambda x: x.reshape(BATCH * SEQ, WIDTH),
    lambda x: x.reshape(BATCH, SEQ * 3, WIDTH // 3),
    lambda x: x.reshape(BATCH * SEQ, WIDTH).reshape(BATCH, SEQ, WIDTH),
    lambda x: x.transpose(0, 1),
    lambda x: x.unsqueeze(1).squeeze(1),
    lambda x: x.unsqueeze(0),
    lambda x: x.unsqueeze(-1),
    lambda x: x.flatten(0, 1),
    lambda x: x.flatten(),
    lambda x: x.unflatten(2, (HEADS, -1)).transpose(-1, -2).flatten(0, 1),
    lambda x: x.clone().contiguous(),
    lambda x: x.squeeze(1),
]


@pytest.mark.parametrize("function", TAKEN)
def test_taken_without_hardware(function: Function) -> None:
    assert histogram(lowered(Inside(function), INPUTS)[0].graph) == {"linear": 1}
    assert float_error(Inside(function), INPUTS) <= 1e-5


@pytest.mark.parametrize("shape", [(1, SEQ, WIDTH), (BATCH, 1, WIDTH), (1, 1, WIDTH)])
def test_sizes_of_one(shape: tuple[int, ...]) -> None:
    """A dimension of one row or one sequence is no other dimension."""

    def back(x: Tensor) -> Tensor:
        return x.reshape(*shape[:2], HEADS, -1).transpose(1, 2).transpose(1, 2).reshape(shape)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(back(self.first(x))).squeeze(0)

    assert float_error(Model(), (rows(*shape),)) <= 1e-5


def test_views_that_end_wrong_are_refused_where_they_are_used() -> None:
    """Heads as rows: the next linear would contract over a part of the channels."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH // HEADS, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).reshape(HEADED))

    refused(Model(), INPUTS, "last", "is not exactly the channels")


def test_reordered_channels_are_refused() -> None:
    """Head-major back to one dimension in the other order: the same size, other channels."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).reshape(HEADED).transpose(2, 3).reshape(BATCH, SEQ, WIDTH))

    refused(Model(), INPUTS, "last", "is not exactly the channels")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x.reshape(BATCH, WIDTH, SEQ), "mixes rows and channels"),
        (lambda x: x.expand(3, BATCH, SEQ, WIDTH), "broadcasts"),
        (lambda x: x.double(), "float64"),
        (lambda x: x.to(torch.bfloat16), "bfloat16"),
        (lambda x: x.flip(1), "not supported"),
        (lambda x: torch.roll(x, 1, 1), "not supported"),
        (lambda x: x.repeat(1, 1, 2), "not supported"),
        (lambda x: x.mean(1), "not supported"),
    ],
)
def test_refused(function: Function, reason: str) -> None:
    refused(Inside(function), INPUTS, "part", reason)
