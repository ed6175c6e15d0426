# SPDX-License-Identifier: Apache-2.0
"""Attention: the three templates against their references, the references against torch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.loop_count import CountingLibrary, odd_depth, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import cxx_cache
from torch2fpga.costs import multiplier_array
from torch2fpga.design import Layout, Shape, Stage, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.attention import (
    ScoresStage,
    SoftmaxStage,
    ValuesStage,
    attention,
)
from torch2fpga.lower.attention_arrays import (
    COLUMNS,
    KeyedArray,
    merge_heads,
    split_heads,
    weighing_array,
)
from torch2fpga.lower.requant import multiplier

__all__ = ["cxx_cache"]
#: heads and head size; the second is more than one block at 8 lanes
LAYOUTS = (Layout(3, 7), Layout(2, 13))
MODES = ((False, False), (True, False), (False, True), (True, True))


def _scores(layout: Layout, columns: int = 16) -> tuple[Stage, tuple[Stream, ...]]:
    rows = [Stream(n, "rows", "int8", layout) for n in "qk"]
    stage = ScoresStage("qk", "", "loop", 2, ("q", "k"), ("s",), layout=layout, columns=columns)
    return stage, (*rows, Stream("s", "scores", "int32", layout))


def _softmax(layout: Layout, causal: bool, masked: bool) -> tuple[Stage, tuple[Stream, ...]]:
    inputs = ("s", "m") if masked else ("s",)
    stage = SoftmaxStage(
        "sm", "", "loop", 2, inputs, ("w",), "p", layout=layout, causal=causal, masked=masked
    )
    scores = Stream("s", "scores", "int32", layout)
    return stage, (scores, Stream("m", "mask"), Stream("w", "scores", "uint8", layout))


def _values(layout: Layout, columns: int = 16) -> tuple[Stage, tuple[Stream, ...]]:
    stage = ValuesStage("pv", "", "loop", 2, ("w", "v"), ("y",), layout=layout, columns=columns)
    weights, values = Stream("w", "scores", "uint8", layout), Stream("v", "rows", "int8", layout)
    return stage, (weights, values, Stream("y", "rows", "int32", layout))


#: (lanes, tile) and a layout: a head's blocks, a tile's rows and a sequence's key blocks in every order
SIZES = (
    ((8, 1), LAYOUTS[0]),
    ((8, 3), LAYOUTS[1]),
    ((16, 2), LAYOUTS[1]),
    ((16, 4), LAYOUTS[0]),
    ((8, 1), LAYOUTS[1]),
    ((8, 5), LAYOUTS[1]),
    ((8, 4), Layout(2, 35)),
)
#: index of the first stage of each kind in the library
SCORES, VALUES, SOFTMAX = 0, len(SIZES), 2 * len(SIZES)
STAGES = [
    *((_scores(layout), shape) for shape, layout in SIZES),
    *((_values(layout), shape) for shape, layout in SIZES),
    *((_softmax(LAYOUTS[i % 2], *mode), SHAPES[(i + 1) % 4]) for i, mode in enumerate(MODES)),
]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(
        [Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ)) for (stage, streams), shape in STAGES]
    )


def _draw(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("size", range(len(SIZES)))
def test_scores(library: Library, size: int, batch: int, seq: int) -> None:
    index, width = SCORES + size, SIZES[size][1].channels
    steps = [[_draw(-127, 128, batch, seq, width, seed=2 * s + i) for i in range(2)] for s in range(2)]
    assert library.mismatches(index, steps, batch, seq) == 0
    edge = torch.full((batch, seq, width), -127, dtype=torch.int32)
    assert library.mismatches(index, [[edge, edge], [edge, -edge]], batch, seq) == 0


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("size", range(len(SIZES)))
def test_values(library: Library, size: int, batch: int, seq: int) -> None:
    index, layout = VALUES + size, SIZES[size][1]
    weights = _draw(0, 256, batch, layout.groups, seq, seq)
    weights[:, 0, 0] = 0  # a row that sees nothing
    weights[:, 1] = 255
    values = _draw(-127, 128, batch, seq, layout.channels, seed=1)
    edge = torch.full_like(values, -127)
    assert library.mismatches(index, [[weights, values], [weights, edge]], batch, seq) == 0
    (mean,) = library.benches[index].stage.reference({}, [weights, edge])
    heads = split_heads(mean, layout)
    assert heads[:, 0, 0].unique().tolist() == [0]
    assert float((heads[:, 1] / 4096 + 127).abs().max()) < 127 * 2.0**-15


def _data(layout: Layout, seed: int) -> dict[str, object]:
    m = _draw(1, 2**17, layout.groups, seed=seed).long()
    return {"m": m, "shift": 17 + seed, "window": 0}


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("mode", range(4))
def test_softmax(library: Library, mode: int, batch: int, seq: int) -> None:
    index, layout, (_, masked) = SOFTMAX + mode, LAYOUTS[mode % 2], MODES[mode]
    mask = _draw(0, 2, batch, seq, seed=3)
    mask[0, 0] = 1
    if batch > 1:
        mask[1] = 0  # a sequence of padding only
    top = 127 * 127 * 13
    steps = []
    for seed in range(2):
        scores = _draw(-top >> (8 * seed), (top >> (8 * seed)) + 1, batch, layout.groups, seq, seq, seed=seed)
        scores[:, 0, 0] = top
        steps.append([scores, mask] if masked else [scores])
    data = [_data(layout, seed) for seed in range(2)]
    assert library.mismatches(index, steps, batch, seq, data) == 0


#: pipeline depth of each loop, so that none can stand for another
DEPTHS = {"KEEP": 10, "SCORES": 30, "MASK": 40, "LOAD": 50, "ROWS": 60, "MEAN": 70}


@pytest.mark.parametrize(
    ("stage", "once", "step", "sequence"),
    [
        # 11 rows in tiles of 5, 5 and 1; 2 key blocks; 2 heads of 2 blocks (iterations by hand).
        # Scores: heads come in 10, 10, 2; groups of 5, 5, 2; passes of 10, 10, 4.
        (_scores(LAYOUTS[1]), {}, {}, {"KEEP": [44], "SCORES": [2 * (10 + 10 + 10 + 5) + 2 + 4 + 4 + 1]}),
        (_values(LAYOUTS[1]), {}, {}, {"KEEP": [44], "MEAN": [2 * 35 + 11]}),
        # 2 keys a cycle: scores have groups of 8, passes of 16; values groups and blocks of 8
        (
            _scores(LAYOUTS[1], 2),
            {},
            {},
            {"KEEP": [44], "SCORES": [2 * (10 + 16 + 16 + 5) + 2 + 16 + 16 + 1]},
        ),
        (_values(LAYOUTS[1], 2), {}, {}, {"KEEP": [44], "MEAN": [2 * (10 + 16 + 16 + 5) + 2 + 16 + 16 + 1]}),
        (_softmax(LAYOUTS[1], False, True), {"MASK": [4]}, {"LOAD": [2]}, {"ROWS": [30, 30, 6]}),
        (_softmax(LAYOUTS[1], True, False), {}, {"LOAD": [2]}, {"ROWS": [30, 30, 6]}),
    ],
)
def test_cycles_are_those_of_every_loop_entry(
    stage: tuple[Stage, tuple[Stream, ...]],
    once: dict[str, list[int]],
    step: dict[str, list[int]],
    sequence: dict[str, list[int]],
) -> None:
    def total(loops: dict[str, list[int]]) -> int:
        return sum(i - 1 + DEPTHS[label] + 2 for label, counts in loops.items() for i in counts)

    bench = Bench(*stage, Shape(8, 5, MAX_BATCH, MAX_SEQ))
    want = total(once) + bench.stage.steps * (total(step) + 2 * total(sequence))
    assert bench.stage.cycles(bench.design, 2, 11, DEPTHS.__getitem__) == want


#: every number of columns with tiles that are and are not multiples of two, one head and several, and
#: head sizes that do and do not fill their tokens; banks in LUTs and in block RAM
GRID = tuple(
    (columns, tile, layout)
    for columns in COLUMNS
    for tile, layout in ((1, Layout(3, 24)), (3, Layout(1, 64)), (4, Layout(3, 64)), (8, Layout(1, 24)))
)
ARRAYS = [
    Bench(stage, streams, Shape(16, tile, 2, 64))
    for columns, tile, layout in GRID
    for stage, streams in (_scores(layout, columns), _values(layout, columns))
]
#: banks that only URAM is deep enough for, and sums too wide for one multiplier
DEEP = [
    Bench(*_scores(Layout(3, 64), 1), Shape(16, 2, 1, 160)),
    Bench(*_values(Layout(1, 16), 1), Shape(16, 2, 1, 2064)),
]


@pytest.fixture(scope="module")
def arrays() -> CountingLibrary:
    return CountingLibrary([*ARRAYS, *DEEP])


def _tokens(stage: Stage, batch: int, seq: int, seed: int) -> list[Tensor]:
    """Inputs of a step: a query and keys, or weights and values; all ends of their ranges occur."""
    assert isinstance(stage, ScoresStage | ValuesStage)
    layout = stage.layout
    right = _draw(-127, 128, batch, seq, layout.channels, seed=seed)
    if isinstance(stage, ScoresStage):
        return [_draw(-128, 128, batch, seq, layout.channels, seed=seed + 1), right]
    weights = _draw(0, 256, batch, layout.groups, seq, seq, seed=seed + 1)
    weights[:, :, seq // 2] = 255
    right[0] = torch.where(right[0] < 0, -128, 127)
    return [weights, right]


@pytest.mark.gxx
@pytest.mark.parametrize("seq", [1, 5, 33, 64])
@pytest.mark.parametrize("index", range(len(ARRAYS)), ids=lambda i: f"{ARRAYS[i].stage.name}-{GRID[i // 2]}")
def test_every_number_of_columns(arrays: CountingLibrary, index: int, seq: int) -> None:
    bench = arrays.benches[index]
    steps = [_tokens(bench.stage, 2, seq, 10 * s) for s in range(2)]
    assert arrays.mismatches(index, steps, 2, seq) == 0
    entries = arrays.entries(index, 2, seq)
    assert bench.stage.cycles(bench.design, 2, seq, odd_depth) == total_cycles(entries, odd_depth)
    # A sequence has two loops, and no tile one of its own.
    assert [e.label for e in entries] == ["KEEP", "SCORES" if index % 2 == 0 else "MEAN"] * 4


@pytest.mark.gxx
def test_storage_follows_the_size(arrays: CountingLibrary) -> None:
    found = {b.stage.storage(b.design) for b in arrays.benches if isinstance(b.stage, KeyedArray)}
    assert found == {"lutram", "bram", "uram"}
    for index in range(len(ARRAYS), len(arrays.benches)):
        bench = arrays.benches[index]
        assert isinstance(bench.stage, KeyedArray) and bench.stage.storage(bench.design) == "uram"
        steps = [_tokens(bench.stage, 1, 70, s) for s in range(2)]
        assert arrays.mismatches(index, steps, 1, 70) == 0


@pytest.mark.parametrize("seq", [128, 512])
def test_columns_of_a_real_size_are_busy(seq: int) -> None:
    """BERT-base, tiles of 4, 4 keys a cycle: products over products a cycle, and the memory of the keys."""
    shape, layout = Shape(16, 4, 1, seq), Layout(12, 64)
    for stage, streams in (_scores(layout, 4), _values(layout, 4)):
        bench = Bench(replace(stage, steps=1), streams, shape)
        assert isinstance(bench.stage, KeyedArray)
        needed = seq * seq * 768 // (4 * 4 * 16)
        taken = bench.stage.cycles(bench.design, 1, seq, lambda label: 30) - 48 * seq
        assert needed < taken < 1.05 * needed
        cost = bench.stage.cost(bench.design)
        array = 2 * 4 * 16  # two rows a multiplier
        assert array <= cost.dsp < array + 40
        assert bench.stage.storage(bench.design) == "uram"
        assert cost.uram == 4 * 2 * -(-48 * seq // 4 // 4096)


def test_columns_that_do_not_divide_a_token_are_refused() -> None:
    with pytest.raises(DesignError, match="columns must be one of 1, 2, 4, 8, 16, not 6"):
        _scores(LAYOUTS[0], 6)
    narrow = Bench(*_values(LAYOUTS[0], 16), Shape(8, 4, 1, 8))
    assert narrow.stage.config(narrow.design)["columns"] == 8


def test_multipliers_follow_the_columns() -> None:
    """Two rows share one, the odd row of a tile has its own."""
    for columns in COLUMNS:
        for tile, pairs in ((1, 1), (2, 1), (3, 2), (8, 4)):
            scores, values = multiplier_array(tile, columns, 16).dsp, weighing_array(tile, columns, 16).dsp
            assert scores == values == pairs * columns * 16


def test_heads_are_split_and_merged_in_order() -> None:
    x = torch.arange(2 * 5 * 21).reshape(2, 5, 21)
    split = split_heads(x, LAYOUTS[0])
    assert split.shape == (2, 3, 5, 7) and split[1, 2, 4, 6] == x[1, 4, 20]
    assert torch.equal(merge_heads(split), x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_chain_is_close_to_torch(causal: bool, masked: bool) -> None:
    """Scores, softmax and values in integers against float attention on the same integers."""
    layout, unit, scale = LAYOUTS[0], 1 / 40, 7**-0.5
    q, k, v = (_draw(-127, 128, 2, 19, 21, seed=s) for s in range(3))
    mask = torch.ones(2, 19, dtype=torch.int64)
    mask[1, 11:] = 0
    ratio = torch.full((3,), unit * unit * scale * math.log2(math.e) * 256, dtype=torch.float64)
    m = multiplier(ratio, torch.zeros(3), "")
    (scores,) = _scores(layout)[0].reference({}, [q, k])
    softmax = _softmax(layout, causal, masked)[0]
    inputs = [scores, mask] if masked else [scores]
    (weights,) = softmax.reference({"m": m.m, "shift": m.shift, "window": 0}, inputs)
    (mean,) = _values(layout)[0].reference({}, [weights, v])
    floats = [t.double() * unit for t in (q, k)]
    want = attention(*floats, v.double(), mask if masked else None, 3, causal, scale)
    assert float((mean.double() / 4096 - want).abs().max()) <= 2.0  # of +-127; measured 1.3


def test_a_mask_hides_its_keys_altogether() -> None:
    """What lies behind the mask cannot matter, however large it is."""
    layout = LAYOUTS[0]
    softmax = _softmax(layout, False, True)[0]
    mask = torch.tensor([[1, 1, 0]])
    scores = _draw(-900, 900, 1, 3, 3, 3)
    other = scores.clone()
    other[..., 2] = 2**30
    data = _data(layout, 0)
    (a,), (b,) = (softmax.reference(data, [s, mask]) for s in (scores, other))
    assert torch.equal(a, b) and bool((a[..., 2] == 0).all()) and int(a.amax(-1).min()) == 255
