# SPDX-License-Identifier: Apache-2.0
"""Masks are classified by what they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import (
    BATCH,
    HEADS,
    SEQ,
    WIDTH,
    float_error,
    lowered,
    padding,
    refused,
    rows,
    seeded,
)
from torch2fpga.lower.attention import attention

__all__ = ["seeded"]

TRIL = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
LOW = torch.finfo(torch.float32).min


class Attention(nn.Module):
    """Self-attention over a mask that a function makes (of a padding mask, where one is given)."""

    def __init__(self, mask: Callable[..., Any], **options: Any) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mask, self.options = mask, options

    def forward(self, x: Tensor, *padding: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)

        y = nn.functional.scaled_dot_product_attention(
            split(self.q(x)), split(self.k(x)), split(self.v(x)), self.mask(*padding), **self.options
        )
        return y.transpose(1, 2).reshape(x.shape)


def _kind(model: nn.Module, *inputs: Tensor) -> tuple[bool, bool]:
    """(masked by an input, causal) of the only attention."""
    module, _ = lowered(model, inputs)
    (node,) = [n for n in module.graph.nodes if n.target is attention]
    assert float_error(model, inputs) <= 1e-5
    return node.args[3] is not None, node.kwargs["causal"]


X = rows(BATCH, SEQ, WIDTH)


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        (lambda: None, False),
        (lambda: torch.ones(SEQ, SEQ, dtype=torch.bool), False),
        (lambda: torch.zeros(1, 1, SEQ, SEQ), False),
        (lambda: TRIL.clone(), True),
        (lambda: TRIL[None, None].expand(BATCH, HEADS, SEQ, SEQ).clone(), True),
        (lambda: torch.where(TRIL, 0.0, LOW), True),
        (lambda: torch.where(TRIL, 0.0, -torch.inf)[None], True),
    ],
)
def test_constants(mask: Callable[[], Any], causal: bool) -> None:
    assert _kind(Attention(mask), X) == (False, causal)


@pytest.mark.parametrize("size", [1, 3, SEQ - 1])
@pytest.mark.parametrize("padded", [False, True])
def test_windows(size: int, padded: bool) -> None:
    """A causal query that sees so many keys, itself included; a window of all of them is none."""
    window = TRIL & ~TRIL.tril(-size)
    mask = (lambda m: (m != 0)[:, None, None, :] & window) if padded else (lambda: window.clone())
    model, inputs = Attention(mask), (X, padding()) if padded else (X,)
    module, _ = lowered(model, inputs)
    (node,) = [n for n in module.graph.nodes if n.target is attention]
    assert (node.kwargs["causal"], node.kwargs["window"]) == (True, size)
    assert float_error(model, inputs) <= 1e-5


def test_causal_flag() -> None:
    assert _kind(Attention(lambda: None, is_causal=True), X) == (False, True)


@pytest.mark.parametrize("scale", [None, 0.7, 1.0])
def test_scale(scale: float | None) -> None:
    assert _kind(Attention(lambda: None, scale=scale), X) == (False, False)


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        (lambda m: (m != 0)[:, None, None, :], False),
        (lambda m: (m > 0)[:, None, None, :].expand(BATCH, 1, SEQ, SEQ), False),
        (lambda m: (1.0 - m[:, None, None, :].float()) * LOW, False),
        (lambda m: (m != 0)[:, None, None, :] & TRIL, True),
    ],
)
def test_padding(mask: Callable[[Tensor], Tensor], causal: bool) -> None:
    assert _kind(Attention(mask), X, padding()) == (True, causal)


WINDOW = TRIL & ~torch.ones(SEQ, SEQ, dtype=torch.bool).tril(-3)
REFUSED: list[tuple[Callable[..., Any], str, bool]] = [
    (lambda: WINDOW | WINDOW.t(), "neither padding nor causal", False),
    (lambda: WINDOW.tril(-1), "neither padding nor causal", False),
    (lambda: TRIL.t().clone(), "neither padding nor causal", False),
    (lambda: rows(SEQ, SEQ), "a position bias", False),
    (lambda: rows(1, HEADS, SEQ, SEQ), "a position bias", False),
    (lambda: torch.stack([TRIL, ~TRIL | TRIL])[:, None].clone(), "differs between sequences or heads", False),
    (lambda m: (m == 0)[:, None, None, :], "mask", True),
    (lambda m: (m != 0)[:, None, :, None].expand(BATCH, 1, SEQ, SEQ), "mask", True),
    (lambda m: (m != 0)[:, None, None, :] & (WINDOW | WINDOW.t()), "neither padding nor causal", True),
    (lambda m: (m > 1)[:, None, None, :], "mask", True),
    (lambda m: m[:, None, None, :].float() * 0.5, "a position bias", True),
    (lambda m: (m.cumsum(1) > 1)[:, None, None, :], "mask", True),
]


@pytest.mark.parametrize(("mask", "reason", "padded"), REFUSED)
def test_refused(mask: Callable[..., Any], reason: str, padded: bool) -> None:
    inputs = (X, padding()) if padded else (X,)
    refused(Attention(mask), inputs, "", reason)


def test_a_mask_from_the_data_is_refused() -> None:
    class Model(Attention):
        def forward(self, x: Tensor, *padding: Tensor) -> Tensor:
            self.mask = lambda: self.q(x)[:, None, :, :SEQ]
            return super().forward(x)

    refused(Model(lambda: None), (X,), "", "mask")


def test_a_mask_of_another_input_size_is_refused() -> None:
    refused(Attention(lambda m: (m[:1] != 0)[:, None, None, :]), (X, padding()), "", "mask")


def test_dropout_is_refused() -> None:
    refused(Attention(lambda: None, dropout_p=0.1), (X,), "", "dropout is active")


class _Cross(Attention):
    """Queries and keys from what a function makes of the inputs."""

    def __init__(self, sources: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__(lambda: None)
        self.sources = sources

    def forward(self, *inputs: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.reshape(*y.shape[:2], HEADS, -1).transpose(1, 2)

        queries, keys = self.sources(*inputs)
        y = nn.functional.scaled_dot_product_attention(
            split(self.q(queries)), split(self.k(keys)), split(self.v(keys))
        )
        return y.transpose(1, 2).reshape(queries.shape)


def test_cross_attention_is_refused() -> None:
    refused(_Cross(lambda x, y: (x, y)), (X, rows(BATCH, SEQ + 2, WIDTH)), "", "inputs disagree")


@pytest.mark.parametrize("tokens", [slice(0, 1), slice(3, 4)])
def test_attention_from_one_token_is_refused(tokens: slice) -> None:
    refused(_Cross(lambda x: (x[:, tokens], x)), (X,), "", "cross-attention")


def test_attention_to_one_token_is_refused() -> None:
    refused(_Cross(lambda x: (x, x[:, :1])), (X,), "", "cross-attention")


def test_keys_of_an_equally_long_input_are_right() -> None:
    assert float_error(_Cross(lambda x, y: (x, y)), (X, X.flip(1))) <= 1e-5


@pytest.mark.parametrize("swap", [("q", "k"), ("q", "v"), ("k", "v")])
def test_shared_projections_are_right_or_refused(swap: tuple[str, str]) -> None:
    import torch2fpga
    from tests.tiny import compile_model

    model = Attention(lambda: None)
    setattr(model, swap[0], getattr(model, swap[1]))
    with pytest.raises(torch2fpga.CompileError, match="must be different tensors"):
        # The same linear twice is two nodes; the same value twice is one.
        compile_model(_SameValue(model, swap), (X,))


class _SameValue(nn.Module):
    def __init__(self, model: Attention, swap: tuple[str, str]) -> None:
        super().__init__()
        self.model, self.swap = model, swap

    def forward(self, x: Tensor) -> Tensor:
        made = {n: getattr(self.model, n)(x) for n in "qkv"}
        made[self.swap[0]] = made[self.swap[1]]
        heads = [made[n].reshape(*x.shape[:2], HEADS, -1).transpose(1, 2) for n in "qkv"]
        return nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(x.shape)
