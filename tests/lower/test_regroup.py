# SPDX-License-Identifier: Apache-2.0
"""Gaps between groups of channels: the two templates, and every way in which attention heads meet
rows without gaps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import BATCH, compile_model, cxx_cache, exact, rows, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.regroup import RegroupStage
from torch2fpga.persist import load
from torch2fpga.timing.depths import pipelined_loops

__all__ = ["cxx_cache", "seeded"]
#: heads and head size: below a token and above, a group in one token of the row and in three
GROUPS = ((2, 7), (3, 7), (7, 2), (5, 3), (3, 13), (2, 20), (9, 1), (3, 9), (2, 33), (4, 12))
SIDES = [(Layout(*g), Layout(*g).closed) for g in GROUPS]
SIDES += [(closed, grouped) for grouped, closed in SIDES]
WIDTH, HEADS, SIZE, SEQ = 14, 2, 7, 11
INPUTS = (rows(BATCH, SEQ, WIDTH),)


def _bench(index: int) -> Bench:
    before, after = SIDES[index]
    element = ("int8", "int16", "int32")[index % 3]
    stage = RegroupStage("g", "", "loop", 2, ("x",), ("y",), layout_in=before, layout=after, element=element)
    streams = Stream("x", "rows", element, before), Stream("y", "rows", element, after)
    return Bench(stage, streams, Shape(*SHAPES[(index + index // 10) % len(SHAPES)], MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(i) for i in range(len(SIDES))])


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(SIDES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    bench = library.benches[index]
    verify = (bench.stage.carried()[0][0].layout, bench.stage.carried()[1][0].layout)
    assert verify == SIDES[index]
    generator = torch.Generator().manual_seed(index)
    channels = SIDES[index][0].channels
    steps = [
        [torch.randint(-127, 128, (batch, seq, channels), generator=generator, dtype=torch.int32)]
        for _ in range(2)
    ]
    assert library.mismatches(index, steps, batch, seq) == 0


def test_layouts_are_told_apart_by_their_tokens() -> None:
    assert Layout(2, 8).in_tokens(8) == Layout(1, 16).in_tokens(8) == Layout(1, 16)
    assert Layout(2, 8).in_tokens(16) != Layout(1, 16).in_tokens(16)
    assert Layout(2, 7).in_tokens(8) != Layout(7, 2).in_tokens(8) != Layout(1, 14).in_tokens(8)


class Attend(nn.Module):
    """Attention over its query, key and value; no linear layer behind it."""

    def __init__(self, heads: int = HEADS, change: Callable[[int, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.heads, self.change = heads, change or (lambda number, value: value)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.change(i, part(x)) for i, part in enumerate((self.q, self.k, self.v))]
        shape = (*x.shape[:2], self.heads, WIDTH // self.heads)
        heads = [part.reshape(shape).transpose(1, 2) for part in parts]
        mixed = nn.functional.scaled_dot_product_attention(*heads)
        return mixed.transpose(1, 2).reshape(x.shape)


class Model(nn.Module):
    """A function of the input and of the modules that it is given."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def _regroups(made: CompiledModel) -> list[str]:
    return [s.template for s in made.design.stages if isinstance(s, RegroupStage)]


def _compiled(model: nn.Module, lanes: int = 8) -> CompiledModel:
    return compile_model(model, INPUTS, lanes=lanes, tile=3)


CLOSE, OPEN = "close_groups", "open_groups"
#: what stands behind (or in front of) attention, and the stages that it takes
BEHIND: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "residual": (lambda: Model(lambda x, a: x + a(x), Attend()), [CLOSE]),
    "join": (lambda: Model(lambda x, a: torch.cat((a(x), x), -1), Attend()), [CLOSE]),
    "slice": (lambda: Model(lambda x, a: a(x)[..., 3:12], Attend()), [CLOSE]),
    "norm": (lambda: Model(lambda x, a, n: n(a(x)), Attend(), nn.LayerNorm(WIDTH)), [CLOSE]),
    "table": (lambda: Model(lambda x, a: x + gelu(a(x)), Attend()), [CLOSE]),
    "row": (lambda: Model(lambda x, a: a(x)[:, 0] + x[:, 3], Attend()), [CLOSE]),
    "other heads": (lambda: Model(lambda x, a, b: a(x) + b(x), Attend(), Attend(7)), [CLOSE, CLOSE]),
    "same heads": (lambda: Model(lambda x, a, b: a(x) + b(x), Attend(), Attend()), []),
    "linear": (lambda: Model(lambda x, a, f: f(gelu(a(x))), Attend(), nn.Linear(WIDTH, 5)), []),
    "output": (lambda: Attend(), []),
    "norm of query and key": (
        lambda: Attend(change=lambda i, h: layer_norm(h, (WIDTH,)) if i < 2 else h), [OPEN, OPEN],
    ),
    "table before the values": (lambda: Attend(change=lambda i, h: gelu(h) if i == 2 else h), [OPEN]),
    "query that goes on": (
        lambda: Model(lambda x, a: (lambda y: a(y) + y)(a.q(x)), Attend(change=lambda i, h: h)), [CLOSE],
    ),
}  # fmt: skip


@pytest.mark.gxx
@pytest.mark.parametrize("name", BEHIND)
def test_heads_meet_other_rows(name: str) -> None:
    """Seven channels in tokens of eight: as many tokens with and without gaps."""
    make, stages = BEHIND[name]
    made = _compiled(make())
    assert _regroups(made) == stages
    exact(made, INPUTS)


def test_heads_of_whole_tokens_have_no_gaps() -> None:
    class Wide(Attend):
        def forward(self, x: Tensor) -> Tensor:
            parts = (torch.cat((part(x), x[..., :2]), -1) for part in (self.q, self.k, self.v))
            heads = [part.reshape(*x.shape[:2], 2, 8).transpose(1, 2) for part in parts]
            mixed = nn.functional.scaled_dot_product_attention(*heads)
            return mixed.transpose(1, 2).reshape(*x.shape[:2], 16) + heads[0].transpose(1, 2).flatten(2)

    assert _regroups(_compiled(Wide())) == []
    assert _regroups(_compiled(Wide(), lanes=16)).count(OPEN) == 3


@pytest.mark.gxx
def test_a_layer_loop_takes_its_first_layout() -> None:
    """The input has no gaps, what comes back has."""
    model = nn.Sequential(*(Model(lambda x, a: a(x), Attend()) for _ in range(3)))
    made = _compiled(model)
    assert made.design.steps == 3 and _regroups(made) == [CLOSE]
    exact(made, INPUTS)


@pytest.mark.parametrize(("lanes", "clock"), [(8, 250.0), (16, 300.0)])
def test_a_token_a_cycle(lanes: int, clock: float) -> None:
    """The checker derives the interval from the source: what the loop carries closes in a cycle."""
    change = BEHIND["table before the values"][0]
    made = _compiled(Model(lambda x, a: x + a(x), change()), lanes)
    loops = [p for p in pipelined_loops(made.design, clock) if p.label in ("CLOSE", "OPEN")]
    assert len(loops) == 2 and all((p.ii, p.minimum_ii, p.reason) == (1, 1, "") for p in loops)


def test_a_design_with_regroups_is_saved(tmp_path: Path) -> None:
    made = _compiled(Model(lambda x, a: x + a(x), Attend()))
    made.save(tmp_path / "saved")
    assert load(tmp_path / "saved").design == made.design
