# SPDX-License-Identifier: Apache-2.0
"""Random models with forks and joins: depths, values, monotony and memory traffic of the timed run.

Streamed weights, embeddings, masks and the layer loop do not come up at random; fixed models at
the end add them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.tiny import Inputs, arguments, build, compile_model, cxx_cache, named, rows, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.simulate.functional import FunctionalRun
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.timed import Settings, TimedResult, TimedRun, link_latencies, port_settings
from torch2fpga.simulate.verify import compare_taps, recorded_streams

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.gxx

#: a model: an operation and the models in front of it; ("x",) is the input
Recipe = tuple[Any, ...]
KINDS = ("linear", "norm", "attend", "heads", "gelu", "relu", "add", "add", "cat")
CLOCK = 250.0
BATCH, SEQ = 2, 19


class _Plain(FunctionalRun):
    flags: ClassVar[tuple[str, ...]] = ("-O0",)


class _Timed(TimedRun):
    flags: ClassVar[tuple[str, ...]] = ("-DT2F_TIMED", "-O0")


class _Attend(nn.Module):
    """Self-attention with two heads of seven channels: all keys are taken in before the first query.

    Without ``out`` its heads go on as they are, with a gap behind each.
    """

    def __init__(self, width: int, out: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, 14) for _ in range(3))
        self.out = nn.Linear(14, 14) if out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        heads = [part(x).view(*x.shape[:2], 2, 7).transpose(1, 2) for part in (self.q, self.k, self.v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2)
        return self.out(mixed.reshape(*x.shape[:2], 14))


class _Graph(nn.Module):
    """Builds the modules of a recipe; equal parts of it are one value that forks."""

    def __init__(self, recipe: Recipe, width: int) -> None:
        super().__init__()
        self.recipe, self.parts = recipe, nn.ModuleDict()
        self.names: dict[Recipe, str] = {}
        self.widths: dict[Recipe, int] = {("x",): width}
        self._make(recipe)

    def _make(self, recipe: Recipe) -> None:
        if recipe in self.widths:
            return
        kind, *before = recipe
        sources = [b for b in before if isinstance(b, tuple)]
        for source in sources:
            self._make(source)
        width = self.widths[sources[0]]
        made: nn.Module | None = None
        if kind == "linear":
            made, width = nn.Linear(width, before[1]), before[1]
        elif kind in ("attend", "heads"):
            made, width = _Attend(width, kind == "attend"), 14
        elif kind == "norm":
            made = nn.LayerNorm(width)
        elif kind == "gelu":
            made = nn.GELU()
        elif kind == "relu":
            made = nn.ReLU()
        elif kind == "add" and self.widths[sources[1]] != width:
            made = nn.Linear(self.widths[sources[1]], width)  # the second value is made to fit
        elif kind == "cat":
            width += self.widths[sources[1]]
        self.widths[recipe] = width
        if made is not None:
            self.names[recipe] = f"{kind}{len(self.parts)}"
            self.parts[self.names[recipe]] = made

    def forward(self, x: Tensor) -> Tensor:
        values: dict[Recipe, Tensor] = {("x",): x}
        return self._value(self.recipe, values)

    def _value(self, recipe: Recipe, values: dict[Recipe, Tensor]) -> Tensor:
        if recipe not in values:
            kind, *before = recipe
            sources = [self._value(b, values) for b in before if isinstance(b, tuple)]
            part = self.parts[self.names[recipe]] if recipe in self.names else None
            if kind == "add":
                values[recipe] = sources[0] + (sources[1] if part is None else part(sources[1]))
            elif kind == "cat":
                values[recipe] = torch.cat(sources, -1)
            else:
                assert part is not None
                values[recipe] = part(sources[0])
        return values[recipe]


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Values are made one by one from those before, so branches part, nest and join again."""
    values: list[Recipe] = [("linear", ("x",), draw(st.sampled_from([20, 33, 40])))]
    for _ in range(draw(st.integers(3, 7))):
        source = draw(st.sampled_from(values[-3:]))
        kind = draw(st.sampled_from(KINDS))
        if kind == "linear":
            values.append((kind, source, draw(st.sampled_from([9, 33, 40]))))
        elif kind in ("add", "cat"):
            values.append((kind, source, draw(st.sampled_from(values))))
        else:  # the same twice in a row is a layer loop
            values.append((kind, source))
    joined = values[-1]
    for loose in values[:-1]:
        if not any(loose in later for later in values):
            joined = ("add", joined, loose)
    return ("linear", joined, 4)


def _inputs(inputs: Inputs, batch: int, seq: int) -> tuple[Tensor, ...] | dict[str, Tensor]:
    """The first rows of the inputs."""
    if isinstance(inputs, dict):
        return {name: value[:batch, :seq] for name, value in inputs.items()}
    return tuple(value[:batch, :seq] for value in inputs)


def _bound(made: CompiledModel, inputs: Inputs) -> dict[str, Tensor]:
    args, kwargs = arguments(inputs)
    return dict(made.interface.bind(args, kwargs, made.design))


def _settings(made: CompiledModel, **more: Any) -> Settings:
    return Settings(
        latencies=link_latencies(made.design, made.board),
        ports=port_settings(made.design, made.board, CLOCK),
        **more,
    )


def _time(
    made: CompiledModel, timed: TimedRun, bound: dict[str, Tensor], taps: tuple[str, ...] = (), **more: Any
) -> TimedResult:
    batch, seq = next(iter(bound.values())).shape[:2]
    return timed.time(made.buffers(bound), Launch(batch, seq), _settings(made, **more), taps)


def _bytes(result: TimedResult) -> dict[tuple[str, str], int]:
    return {tuple(p["name"].split("/")): p["bytes"] for p in result.report["ports"]}


def _agree(made: CompiledModel, plain: FunctionalRun, timed: TimedRun, inputs: Inputs) -> TimedResult:
    """Timed run, functional run and reference have the same tokens on every stream; traffic is as planned."""
    bound = _bound(made, inputs)
    batch, seq = next(iter(bound.values())).shape[:2]
    streams = recorded_streams(made.design)
    result = _time(made, timed, bound, streams)
    assert result.message == "" and result.report["deadlock"] is None
    want = plain.run(made.buffers(bound), batch, seq, streams)
    assert streams and all(result.taps[s].tobytes() == want.taps[s].tobytes() for s in streams)
    assert all(result.buffers[p].tobytes() == want.buffers[p].tobytes() for p in want.buffers)
    _, trace = made._reference(bound, keep=True)
    compared = compare_taps(made.design, trace, result.taps)
    assert all(wrong == 0 for wrong, _ in compared.values())
    assert sum(total for _, total in compared.values()) > 0
    assert _bytes(result) == bytes_moved(made.design, batch, seq)
    return result


def _deeper_is_not_slower(
    made: CompiledModel, timed: TimedRun, inputs: Inputs, name: str, depths: list[int]
) -> None:
    bound = _bound(made, inputs)
    found = [_time(made, timed, bound, fifos={name: depth}) for depth in sorted(depths)]
    ends = [int(f.report["cycles"]) for f in found if not f.message]
    assert not found[-1].message, "the planned depth runs"
    assert [bool(f.message) for f in found] == sorted((bool(f.message) for f in found), reverse=True)
    assert ends == sorted(ends, reverse=True)


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data(), recipes(), st.sampled_from([3, 8, 11]), st.sampled_from([(8, 1), (8, 5), (16, 8)]))
def test_random_graphs(data: st.DataObject, recipe: Recipe, width: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    inputs = (rows(BATCH, SEQ, width),)
    made = compile_model(_Graph(recipe, width).eval(), inputs, lanes=shape[0], tile=shape[1])
    plain, timed = _Plain(made.design), _Timed(made.design)
    for batch, seq in ((1, 1), (1, 11), (BATCH, SEQ)):
        _agree(made, plain, timed, _inputs(inputs, batch, seq))
    names = sorted(n for n, s in made.design.streams.items() if s.depth > 1)
    for name in data.draw(st.lists(st.sampled_from(names), min_size=3, max_size=3, unique=True)):
        planned = made.design.streams[name].depth
        _deeper_is_not_slower(made, timed, inputs, name, [1, 2, 3, planned // 2 + 1, planned, 2 * planned])


def test_a_value_joined_to_itself_holds_back_a_tile() -> None:
    """The join takes a tile of its first input, 8 rows of 5 tokens, before it touches the second."""
    value = ("relu", ("linear", ("x",), 40))
    inputs = (rows(BATCH, SEQ, 11),)
    made = compile_model(_Graph(("linear", ("cat", value, value), 4), 11).eval(), inputs, lanes=8, tile=8)
    bound = _bound(made, inputs)
    timed = _Timed(made.design)
    assert _time(made, timed, bound).message == ""
    (join,) = [s for s in made.design.stages if s.template == "concat_channels"]
    second = join.inputs[1]
    assert made.design.streams[second].depth >= 8 * 5
    failed = _time(made, timed, bound, fifos={second: 16})
    assert f"/{second} (full, 16 of 16 tokens)" in failed.message


# -- what random graphs do not have ---------------------------------------------------------------


class _Pooled(nn.Module):
    """One row of every sequence, and all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(11, 9), nn.Linear(9, 5), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.b(torch.tanh(self.a(x[:, 0]))), self.c(x)


def _check(made: CompiledModel, inputs: Inputs, sizes: tuple[tuple[int, int], ...]) -> None:
    """Values and traffic at three sizes, and the deepest FIFO a fourth, half and twice as deep."""
    plain, timed = _Plain(made.design), _Timed(made.design)
    for batch, seq in sizes:
        _agree(made, plain, timed, _inputs(inputs, batch, seq))
    name = max(made.design.streams, key=lambda n: made.design.streams[n].depth)
    planned = made.design.streams[name].depth
    _deeper_is_not_slower(made, timed, inputs, name, [planned // 4, planned // 2, planned, 2 * planned])


@pytest.mark.parametrize("name", named("bert", "gpt2_mask"))
def test_tables_masks_and_the_layer_loop(name: str) -> None:
    """Ids, gathered rows, positions, masks, weights of several layers, kernels with links between."""
    model, inputs = build(name)
    made = compile_model(model, inputs, lanes=8, tile=4)
    assert {"ids", "table", "mask", "weights", "output"} <= {p.role for p in made.design.ports}
    assert len(made.design.kernels) > 1
    _check(made, inputs, ((1, 1), (1, 3), (2, 5)))


def test_weights_that_are_read_for_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nineteen rows in tiles of three are seven tiles a sequence; a row select has one of its own."""
    monkeypatch.setattr("torch2fpga.lower.linear.KEEP_BYTES", 0)
    inputs = (rows(BATCH, SEQ, 11),)
    made = compile_model(_Pooled(), inputs, lanes=8, tile=3)
    streamed = [p for p in made.design.ports if p.template == "read_words_per_tile"]
    assert sorted(bool(p.config["one_row"]) for p in streamed) == [False, True, True]
    _check(made, inputs, ((1, 1), (1, 5), (BATCH, SEQ)))
    (full,) = [p for p in streamed if not p.config["one_row"]]
    words = full.config["words"]
    assert bytes_moved(made.design, 2, 19)[full.kernel, full.name] == 2 * 7 * words * 64
    assert bytes_moved(made.design, 1, 1)[full.kernel, full.name] == words * 64
