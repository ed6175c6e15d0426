# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding: the template against its reference, integers against cosines, taken and refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.loop_count import CountingLibrary, odd_depth, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench
from tests.tiny import BATCH, SEQ, Inside, cxx_cache, float_error, lowered, refused, rows, seeded
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.attention import attention
from torch2fpga.lower.rotary import RotaryStage, frequencies_of, rotary
from torch2fpga.passes.rotary import neighbours
from torch2fpga.passes.values import Refused
from torch2fpga.simulate.fixed import sine

__all__ = ["cxx_cache", "seeded"]
#: heads smaller than a token, of a few tokens with and without a gap
LAYOUTS = (Layout(3, 6), Layout(2, 20), Layout(5, 16), Layout(1, 64))
#: radians a position
BASE = 10000.0


def _frequencies(half: int) -> Tensor:
    return BASE ** -(torch.arange(half) / half)


def _data(size: int, seed: int = 0) -> dict[str, Tensor]:
    """Those of a model, and (seed) frequencies of all sizes up to a whole turn."""
    turns = _frequencies(size // 2).double() / (2 * math.pi)
    steps = (turns * 2.0**32 + 0.5).floor().long()
    if seed:
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randint(0, 2**32, steps.shape, generator=generator)
    return {"frequencies": steps}


def _bench(shape: tuple[int, int], layout: Layout) -> Bench:
    stage = RotaryStage("r", "rotary", "loop", 2, ("x",), ("y",), "p", layout=layout)
    streams = (Stream("x", "rows", "int16", layout), Stream("y", "rows", "int32", layout))
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> CountingLibrary:
    return CountingLibrary([_bench(shape, layout) for shape, layout in zip(SHAPES, LAYOUTS, strict=True)])


def _values(layout: Layout, batch: int, seq: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, seq, layout.channels)
    x = torch.randint(-(2**15), 2**15, shape, generator=generator, dtype=torch.int32)
    return [x, torch.full_like(x, -(2**15)), torch.full_like(x, 2**15 - 1)]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(4))
def test_template_equals_reference(library: CountingLibrary, index: int, batch: int, seq: int) -> None:
    layout = LAYOUTS[index]
    data = [_data(layout.size), _data(layout.size, seed=7)]
    for x in _values(layout, batch, seq):
        assert library.mismatches(index, [[x], [x.flip(1)]], batch, seq, data) == 0


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), [*RUNS, (1, 4), (2, 7)])
@pytest.mark.parametrize("index", range(4))
def test_cycles_are_those_of_every_loop_entry(
    library: CountingLibrary, index: int, batch: int, seq: int
) -> None:
    bench = library.benches[index]
    entries = library.entries(index, batch, seq)
    assert bench.stage.cycles(bench.design, batch, seq, odd_depth) == total_cycles(entries, odd_depth)
    assert [e.label for e in entries] == ["LOAD", "ROTATE"] * 2 and {e.ii for e in entries} == {1}


def test_sine_is_within_a_unit() -> None:
    """Everywhere in a turn, and exact at its quarters; measured: 0.76 units of 2^-14."""
    phase = torch.cat([torch.arange(0, 2**32, 99_991), torch.tensor([0, 2**30, 2**31, 3 * 2**30, 2**32 - 1])])
    want = torch.sin(phase.double() * (2 * math.pi / 2**32)) * 2**14
    assert float((sine(phase).double() - want).abs().max()) <= 0.8
    assert sine(torch.tensor([0, 2**30, 2**31, 3 * 2**30, 2**32])).tolist() == [0, 2**14, 0, -(2**14), 0]


@pytest.mark.parametrize("seq", [5, 4096])
def test_reference_is_close_to_the_function(seq: int) -> None:
    """Also at positions whose phase has gone round hundreds of times."""
    layout = Layout(2, 20)
    stage = _bench((8, 1), layout).stage
    (x, *_) = _values(layout, 1, seq)
    (y,) = stage.reference(_data(layout.size), [x])
    angle = torch.arange(seq, dtype=torch.float64)[:, None, None] * _frequencies(10).double()
    a, b = x.double().reshape(1, seq, 2, 10, 2).unbind(-1)
    want = torch.stack((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
    # Up to 0.8 units of 2^-14 in sine and in cosine, of values up to 2^15.
    assert float((y.double() / 1024 - want.reshape(x.shape)).abs().max()) <= 2**15 * 2.0**-14 * 1.6
    assert int(y.abs().max()) < 2 ** (stage.result_bits() - 1)


@pytest.mark.parametrize("paired", [False, True])
def test_pairs_are_the_halves_in_another_order(paired: bool) -> None:
    x, order = rows(2, 5, 18), neighbours(18, 3)
    assert order.tolist()[:6] == [0, 3, 1, 4, 2, 5] and sorted(order.tolist()) == list(range(18))
    f = _frequencies(3)
    halves, pairs = rotary(x, f, 3, 1.5), rotary(x[..., order], f, 3, 1.5, paired=True)
    assert torch.equal(halves[..., order], pairs)


def _tables(size: int, seq: int, amplitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """As transformers makes them: everything in float32."""
    angle = torch.arange(seq).float()[:, None] * _frequencies(size // 2)
    both = torch.cat((angle, angle), -1)
    return both.cos() * amplitude, both.sin() * amplitude


@pytest.mark.parametrize(("size", "seq", "amplitude"), [(6, 2, 1.0), (64, 19, 1.0), (128, 8192, 1.2)])
def test_frequencies_come_back_from_tables(size: int, seq: int, amplitude: float) -> None:
    found, level = frequencies_of(*_tables(size, seq, amplitude))
    assert float((found / _frequencies(size // 2) - 1).abs().max()) <= 2.0**-22
    assert math.isclose(level, amplitude, rel_tol=1e-6)


def test_one_position_is_not_turned() -> None:
    found, level = frequencies_of(*_tables(6, 1))
    assert found.tolist() == [0.0] * 3 and level == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.roll(1, 0), "not position times frequency"),
        (lambda t: t[1:], "not position times frequency"),
        (lambda t: -t, "not position times frequency"),
        (lambda t: torch.cat((t[:, :3], t[:, 3:] * 1.5), 1), "different angles"),
        (lambda t: t * torch.linspace(1, 1.01, len(t))[:, None], "not position times frequency"),
    ],
)
def test_other_tables_are_refused(change: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        frequencies_of(*(change(t) for t in _tables(6, 19)))


class _Attention(nn.Module):
    """Attention whose query and key a function turns."""

    def __init__(self, turn: Callable[[Tensor, Tensor, Tensor], Tensor], split: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(18, 18, bias=i > 0) for i in range(3))
        self.packed = nn.Linear(18, 54)
        self.turn, self.split = turn, split
        self.cos, self.sin = _tables(6, SEQ)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.packed(x).chunk(3, -1) if self.split else [m(x) for m in (self.q, self.k, self.v)]
        q, k, v = (p.reshape(*x.shape[:2], 3, -1).transpose(1, 2) for p in parts)
        q, k = (self.turn(p, self.cos, self.sin) for p in (q, k))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).reshape(x.shape)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., :3], x[..., 3:]
    return x * cos + torch.cat((-b, a), -1) * sin


X = (rows(BATCH, SEQ, 18),)


@pytest.mark.parametrize("split", [False, True])
def test_taken(split: bool) -> None:
    """From three linear layers and from a packed one."""
    model = _Attention(_turn, split)
    module, _ = lowered(model, X)
    found = [n for n in module.graph.nodes if n.target is rotary]
    assert [n.kwargs["paired"] for n in found] == [True, True]
    (node,) = [n for n in module.graph.nodes if n.target is attention]
    assert list(node.args[:2]) == found
    assert float_error(model, X) <= 1e-5


@pytest.mark.parametrize(
    ("turn", "count"),
    [
        (lambda x, c, s: _turn(torch.tanh(x), c, s), 2),
        (lambda x, c, s: _turn(_turn(x, c, s), c, s), 4),
    ],
)
def test_what_cannot_be_paired_is_refused(turn: Callable[..., Tensor], count: int) -> None:
    from torch2fpga import UnsupportedModel, compile

    with pytest.raises(UnsupportedModel, match="other than the output of a linear layer") as error:
        compile(_Attention(turn).eval(), X)
    assert len(error.value.refusals) == count


@pytest.mark.parametrize(
    "turn",
    [
        lambda x, c, s: x * c + torch.cat((x[..., 3:], x[..., :3]), -1) * s,
        lambda x, c, s: x * c + torch.cat((-x[..., 2:], x[..., :2]), -1) * s,
        lambda x, c, s: x * c - torch.cat((-x[..., 3:], x[..., :3]), -1) * s,
    ],
    ids=["not negated", "other halves", "difference"],
)
def test_almost_a_rotation_is_refused(turn: Callable[..., Tensor]) -> None:
    from torch2fpga import UnsupportedModel, compile

    with pytest.raises(UnsupportedModel):
        compile(_Attention(turn).eval(), X)


def test_rotation_that_is_no_query_is_refused() -> None:
    cos, sin = (t[:, None].expand(SEQ, 3, 6) for t in _tables(6, SEQ))
    model = Inside(lambda x: _turn(x.unflatten(-1, (3, 6)), cos, sin).flatten(-2), 18)
    refused(model, (rows(BATCH, SEQ, 18),), "part", "not only query or key")


def test_positions_from_an_input_are_refused() -> None:
    class _Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = _Attention(_turn)

        def forward(self, x: Tensor, positions: Tensor) -> Tensor:
            angle = positions.float()[:, None, :, None] * _frequencies(3)
            both = torch.cat((angle, angle), -1)
            self.inner.cos, self.inner.sin = both.cos(), both.sin()
            return self.inner(x)

    from torch2fpga import UnsupportedModel, compile

    positions = torch.arange(SEQ).repeat(BATCH, 1)
    with pytest.raises(UnsupportedModel, match="depend on an input"):
        compile(_Positions().eval(), (X[0], positions))
