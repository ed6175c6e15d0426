# SPDX-License-Identifier: Apache-2.0
"""Products with scalars: folded into the linear before or the attention scores, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.tiny import BATCH, SEQ, WIDTH, Inside, float_error, histogram, lowered, refused, rows

INPUTS = (rows(BATCH, SEQ, WIDTH),)
Function = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 0.25,
        lambda x: 3 * x,
        lambda x: x / 7.0,
        lambda x: x * torch.tensor(-2.0),
        lambda x: x * 0.5 * 3.0,
        lambda x: x * 0,
    ],
)
def test_folds_into_the_linear(function: Function) -> None:
    model = Inside(function)
    assert histogram(lowered(model, INPUTS)[0].graph) == {"linear": 1}
    assert float_error(model, INPUTS) <= 1e-5


def test_the_unscaled_value_stays_right() -> None:
    """The linear has another reader: scaling must not change what that one sees."""
    assert float_error(Inside(lambda x: x * 0.25 + x), INPUTS) <= 1e-5
    reason = "other than attention scores or the output of a linear"
    refused(Inside(lambda x: torch.relu(x) + x * 0.25), INPUTS, "part", reason)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.relu(x) * 2.0, "other than attention scores or the output of a linear"),
        (lambda x: 2.0 / x, "not supported"),
        (lambda x: x / torch.relu(x), "divides by something other than a nonzero scalar"),
        (lambda x: x / 0.0, "divides by something other than a nonzero scalar"),
        (lambda x: x**2, "not supported"),
        (lambda x: x * torch.arange(1.0, WIDTH + 1), "an elementwise product of something that is not"),
        (lambda x: torch.sqrt(x), "not supported"),
        (lambda x: x % 2, "not supported"),
        (lambda x: x // 2, "not supported"),
        (lambda x: torch.div(x, 2.0, rounding_mode="floor"), "not supported"),
    ],
)
def test_refused(function: Function, reason: str) -> None:
    refused(Inside(function), INPUTS, "part", reason)
