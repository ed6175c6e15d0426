# SPDX-License-Identifier: Apache-2.0
"""Rolling: repeated blocks are found once, and only where they are the same and a chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import (
    BATCH,
    SEQ,
    WIDTH,
    bert,
    compile_model,
    cxx_cache,
    distilbert,
    encoder,
    exact,
    gpt2,
    ids,
    lowered,
    padding,
    rows,
    seeded,
)
from torch2fpga.lower.plumbing import LoopExitStage
from torch2fpga.passes.roll import Loop

__all__ = ["cxx_cache", "seeded"]

X = (rows(BATCH, SEQ, WIDTH),)


def _loop(model: nn.Module, inputs: object) -> Loop | None:
    return lowered(model, inputs)[0].meta["loop"]  # type: ignore[arg-type]


@pytest.mark.hf
@pytest.mark.parametrize(
    ("make", "prefix"),
    [(bert, "encoder.layer"), (gpt2, "transformer.h"), (distilbert, "transformer.layer")],
)
def test_transformers_layers(make: Callable[..., nn.Module], prefix: str) -> None:
    loop = _loop(make(), {"input_ids": ids(), "attention_mask": padding()})
    assert loop is not None and (loop.prefix, loop.steps) == (prefix, 2)
    assert len(loop.carried) == 1
    assert len({len(i) for i in loop.instances}) == 1


@pytest.mark.parametrize("layers", [2, 4])
def test_encoder_layers(layers: int) -> None:
    loop = _loop(encoder(layers, batch_first=True), X)
    assert loop is not None and (loop.prefix, loop.steps) == ("layers", layers)


@pytest.mark.parametrize("options", [{"batch_first": True}, {"batch_first": True, "norm_first": True}])
def test_the_design_does_not_grow_with_the_layers(options: dict[str, bool]) -> None:
    two, four = (compile_model(encoder(n, **options), X).design for n in (2, 4))
    assert [s.name for s in two.stages] == [s.name for s in four.stages]
    assert (two.steps, four.steps) == (2, 4)
    assert {s.steps for s in four.stages if s.group == "loop"} == {4}


def test_one_layer_is_no_loop() -> None:
    assert _loop(encoder(1, batch_first=True), X) is None


class _Layers(nn.Module):
    """Blocks in a row, one after the other."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def _linear(width: int = WIDTH, act: nn.Module | None = None, bias: bool = True) -> nn.Module:
    layers = [nn.Linear(WIDTH, width, bias=bias), act or nn.ReLU(), nn.Linear(width, WIDTH)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    "other",
    [
        _linear(8),
        _linear(act=nn.Tanh()),
        _linear(bias=False),
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)),
    ],
    ids=["width", "activation", "bias", "norm"],
)
def test_blocks_that_differ_are_not_rolled(other: nn.Module) -> None:
    assert _loop(_Layers(_linear(), _linear()), X) is not None
    loop = _loop(_Layers(_linear(), other), X)
    assert loop is None or loop.prefix != "blocks"


def test_norms_with_another_epsilon_are_not_rolled() -> None:
    model = encoder(2, batch_first=True)
    model.layers[1].norm1.eps = 1e-3
    loop = _loop(model, X)
    assert loop is None or loop.prefix != "layers"


class _Mixed(nn.Module):
    """Uses its two equal layers in ways that are no chain."""

    def __init__(self, wiring: Callable[[nn.ModuleList, Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_linear() for _ in range(2))
        self.wiring = wiring

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.wiring(self.layers, x)


WIRINGS: dict[str, Callable[[nn.ModuleList, Tensor], Tensor | tuple[Tensor, ...]]] = {
    "parallel": lambda f, x: f[0](x) + f[1](x),
    "outputs of both": lambda f, x: (f[0](x), f[1](f[0](x))),
    "first twice": lambda f, x: f[1](f[0](x)) + f[0](x),
    "something between": lambda f, x: f[1](torch.tanh(f[0](x))),
    "backwards": lambda f, x: f[0](f[1](x)),
    "three uses": lambda f, x: f[0](f[1](f[0](x))),
}


@pytest.mark.parametrize("name", WIRINGS)
def test_what_is_no_chain_is_not_rolled(name: str) -> None:
    assert _loop(_Mixed(WIRINGS[name]), X) is None


def test_a_skip_over_the_loop_is_rolled() -> None:
    loop = _loop(_Mixed(lambda f, x: f[1](f[0](x)) + x), X)
    assert loop is not None and loop.steps == 2


def _norms(count: int) -> nn.Module:
    return nn.Sequential(*(nn.LayerNorm(WIDTH) for _ in range(count)))


class _Skip(nn.Module):
    """A residual around repeated blocks: the last sum is another one than between the blocks."""

    def __init__(self, inner: nn.Module, before: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.before = inner, before or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x) + x
        return self.inner(y) + y


@pytest.mark.gxx
@pytest.mark.parametrize(
    "inner", [lambda: _norms(2), lambda: encoder(2, batch_first=True)], ids=["norms", "post-norm"]
)
def test_the_residual_of_a_loop_has_one_width(inner: Callable[[], nn.Module]) -> None:
    """Sums before and behind the loop want 24 bits of what enters and leaves it."""
    made = compile_model(_Skip(inner(), nn.Linear(WIDTH, WIDTH)), X)
    assert made.design.steps == 2
    wide = {s.element for n, s in made.design.streams.items() if n.endswith(("_wide_back", "_wide_entered"))}
    assert wide == {"int32"}
    exact(made, X)


class _Grow(nn.Module):
    """Twice the channels, without a weight that would tell two of them apart."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, torch.tanh(x)), -1)


class _Between(nn.Module):
    def __init__(self, inner: nn.Module, width: int = WIDTH) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(WIDTH, WIDTH), inner, nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(torch.tanh(self.first(x))))


def _norm_behind() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))


@pytest.mark.gxx
@pytest.mark.parametrize(
    "model",
    [
        lambda: _Between(_Layers(_Grow(), _Grow()), 4 * WIDTH),
        lambda: _Between(_Layers(_norm_behind(), _norm_behind())),
    ],
    ids=["width", "row exponents enter"],
)
def test_layers_between_which_tokens_differ_are_not_rolled(model: Callable[[], nn.Module]) -> None:
    made = compile_model(model(), X)
    assert made.design.steps == 1
    exact(made, X)


def _activation_behind() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU())


@pytest.mark.gxx
@pytest.mark.parametrize(
    "inner",
    [
        lambda: nn.Sequential(nn.ReLU(), nn.ReLU()),
        lambda: nn.Sequential(nn.GELU(), nn.GELU(), nn.GELU()),
        lambda: nn.Sequential(_activation_behind(), _activation_behind()),
    ],
    ids=["relu", "gelu", "blocks"],
)
def test_row_exponents_leave_the_loop(inner: Callable[[], nn.Module]) -> None:
    """Only the last layer's value feeds a linear layer: its exponents leave with its rows."""
    made = compile_model(_Between(inner()), X)
    assert made.design.steps == len(list(inner().children()))
    kinds = {s.like.kind for s in made.design.stages if isinstance(s, LoopExitStage)}
    assert "exponents" in kinds
    exact(made, X)


def test_one_row_a_sequence_goes_round() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _Layers(_norm_behind(), _norm_behind())

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x[:, 0])

    design = compile_model(Pooled(), X).design
    assert design.steps == 2
    assert all(s.one_row for s in design.stages if s.group == "loop")
