# SPDX-License-Identifier: Apache-2.0
"""Attention whose heads of queries share heads of keys and values, and sliding windows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.loop_count import CountingLibrary, odd_depth, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.attention import ScoresStage, SoftmaxStage, ValuesStage, attention
from torch2fpga.lower.attention_arrays import KeyedArray

__all__ = ["cxx_cache"]
#: (lanes, tile), heads of queries and head size, queries a head of keys, keys a cycle
ARRAYS = (
    ((8, 3), Layout(4, 7), 2, 16),
    ((16, 4), Layout(6, 24), 3, 4),
    ((16, 2), Layout(3, 13), 3, 1),
    ((8, 1), Layout(6, 20), 2, 2),
)
#: (lanes, tile), window of a step (the other one has none), with a mask of an input
WINDOWS = ((SHAPES[0], 1, False), (SHAPES[1], 3, True), (SHAPES[2], 7, False), (SHAPES[3], 18, True),
           (SHAPES[0], 0, True))  # fmt: skip
HEADS = Layout(3, 7)


def _array(
    kind: type[KeyedArray], shape: tuple[int, int], layout: Layout, shared: int, columns: int
) -> Bench:
    kept = Layout(layout.groups // shared, layout.size)
    scores = kind is ScoresStage
    names = (("q", "k"), ("s",)) if scores else (("w", "v"), ("y",))
    stage = kind("a", "", "loop", 2, *names, layout=layout, columns=columns, kv_groups=shared)
    streams = (
        Stream("q", "rows", "int8", layout),
        Stream("k", "rows", "int8", kept),
        Stream("s", "scores", "int32", layout),
        Stream("w", "scores", "uint8", layout),
        Stream("v", "rows", "int8", kept),
        Stream("y", "rows", "int32", layout),
    )
    used = {n for part in names for n in part}
    return Bench(stage, tuple(s for s in streams if s.name in used), Shape(*shape, MAX_BATCH, MAX_SEQ))


def _softmax(shape: tuple[int, int], window: int, masked: bool) -> Bench:
    inputs = ("s", "m") if masked else ("s",)
    stage = SoftmaxStage(
        "sm",
        "",
        "loop",
        2,
        inputs,
        ("w",),
        "p",
        layout=HEADS,
        causal=True,
        masked=masked,
        windowed=window > 0,
    )
    streams = (
        Stream("s", "scores", "int32", HEADS),
        Stream("m", "mask"),
        Stream("w", "scores", "uint8", HEADS),
    )
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


BENCHES = [
    *(_array(ScoresStage, *case) for case in ARRAYS),
    *(_array(ValuesStage, *case) for case in ARRAYS),
    *(_softmax(*case) for case in WINDOWS),
]


@pytest.fixture(scope="module")
def library() -> CountingLibrary:
    return CountingLibrary(BENCHES)


def _draw(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)


def _inputs(bench: Bench, batch: int, seq: int, seed: int) -> list[Tensor]:
    stage = bench.stage
    if isinstance(stage, SoftmaxStage):
        top = 127 * 127 * 7
        scores = _draw(-top >> seed, (top >> seed) + 1, batch, HEADS.groups, seq, seq, seed=seed)
        mask = _draw(0, 2, batch, seq, seed=3)
        return [scores, mask] if stage.masked else [scores]
    assert isinstance(stage, KeyedArray)
    kept = _draw(-127, 128, batch, seq, stage.kept_layout.channels, seed=seed)
    if isinstance(stage, ScoresStage):
        return [_draw(-127, 128, batch, seq, stage.layout.channels, seed=seed + 1), kept]
    return [_draw(0, 256, batch, stage.layout.groups, seq, seq, seed=seed + 1), kept]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), [*RUNS, (1, 8)])
@pytest.mark.parametrize("index", range(len(BENCHES)))
def test_template_equals_reference(library: CountingLibrary, index: int, batch: int, seq: int) -> None:
    bench = library.benches[index]
    steps = [_inputs(bench, batch, seq, 5 * s) for s in range(2)]
    data = None
    if isinstance(bench.stage, SoftmaxStage):
        windows = (WINDOWS[index - 2 * len(ARRAYS)][1], 0)
        data = [
            {"m": _draw(1, 2**17, HEADS.groups, seed=s).long(), "shift": 17 + s, "window": windows[s]}
            for s in range(2)
        ]
    assert library.mismatches(index, steps, batch, seq, data) == 0


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(2 * len(ARRAYS)))
def test_cycles_are_those_of_every_loop_entry(
    library: CountingLibrary, index: int, batch: int, seq: int
) -> None:
    bench, entries = library.benches[index], library.entries(index, batch, seq)
    assert bench.stage.cycles(bench.design, batch, seq, odd_depth) == total_cycles(entries, odd_depth)
    assert [e.label for e in entries][1::2] == ["SCORES" if index < len(ARRAYS) else "MEAN"] * (2 * batch)


def test_shared_heads_are_kept_once() -> None:
    """Banks and the time to fill them shrink with the heads, the products do not."""
    for kind in (ScoresStage, ValuesStage):
        own, shared = (_array(kind, (16, 4), Layout(32, 64), n, 4) for n in (1, 8))
        assert isinstance(own.stage, KeyedArray) and isinstance(shared.stage, KeyedArray)
        assert own.stage.bank_depth(own.design) == 8 * shared.stage.bank_depth(shared.design)
        depth = {"KEEP": 10, "SCORES": 10, "MEAN": 10}.__getitem__
        less = own.stage.cycles(own.design, 1, 16, depth) - shared.stage.cycles(shared.design, 1, 16, depth)
        assert less == 2 * (32 - 4) * 4 * 16
        a, b = own.stage.cost(own.design), shared.stage.cost(shared.design)
        assert a.dsp == b.dsp and (a.uram, a.bram18, a.lut) > (b.uram, b.bram18, b.lut)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(DesignError, match="4 heads cannot share keys in groups of 3"):
        _array(ScoresStage, (8, 1), Layout(4, 7), 3, 16)


@pytest.mark.parametrize("shared", [1, 2, 6])
@pytest.mark.parametrize("window", [0, 1, 4])
def test_function_equals_repeated_heads(shared: int, window: int) -> None:
    q, k, v = (torch.randn(2, 5, 6 * 4 // n) for n in (1, shared, shared))

    def repeated(x: Tensor) -> Tensor:
        return x.reshape(2, 5, -1, 4).repeat_interleave(shared, 2).flatten(2)

    near = (torch.arange(5)[:, None] - torch.arange(5)) < (window or 5)
    scores = torch.einsum("bqhs,bkhs->bhqk", *(x.reshape(2, 5, 6, 4) for x in (q, repeated(k))))
    scores = scores.masked_fill(~near.tril(), -torch.inf).softmax(-1)
    want = torch.einsum("bhqk,bkhs->bqhs", scores, repeated(v).reshape(2, 5, 6, 4)).flatten(2)
    got = attention(q, k, v, None, 6, True, 1.0, shared, window)
    assert torch.allclose(got, want, atol=1e-5)


def test_keys_outside_the_window_do_not_matter() -> None:
    stage = _softmax((8, 1), 3, False).stage
    data = {"m": torch.full((3,), 1000), "shift": 10, "window": 3}
    scores = _draw(-900, 900, 1, 3, 9, 9)
    other = scores.clone()
    rows, keys = torch.arange(9)[:, None], torch.arange(9)
    hidden = (keys > rows) | (keys + 3 <= rows)
    other[..., hidden] = 2**30
    (a,), (b,) = (stage.reference(data, [s]) for s in (scores, other))
    assert torch.equal(a, b) and bool((a[..., hidden] == 0).all()) and int(a.amax(-1).min()) == 255
