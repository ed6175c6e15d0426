# SPDX-License-Identifier: Apache-2.0
"""Closed forms of the stages' cycles against the loops that their templates enter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.loop_count import CountingLibrary, lines_by_label, odd_depth, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench
from tests.tiny import cxx_cache
from torch2fpga.design import LOOP_OVERHEAD, Layout, Shape, Stage, Stream, pipelined, tiled
from torch2fpga.lower.activation import ActivationStage
from torch2fpga.lower.add import AddStage
from torch2fpga.lower.embedding import EmbedStage
from torch2fpga.lower.layer_norm import NormalizeStage
from torch2fpga.lower.plumbing import (
    ForkStage,
    LoopEnterStage,
    LoopExitStage,
    PackStage,
    RelayStage,
    UnpackStage,
)
from torch2fpga.lower.quantize_rows import QuantizeRowsStage
from torch2fpga.lower.regroup import RegroupStage
from torch2fpga.lower.requant import RequantStage
from torch2fpga.lower.rows import ConcatStage, SelectRowStage, SliceStage
from torch2fpga.lower.ways import WAYS

__all__ = ["cxx_cache"]
HEADS = Layout(3, 7)
ROW = Layout(1, 21)
LIKE = Stream("x", "rows", "int16", HEADS)
X, Y = ("x",), ("y",)


def _slice(start: int, size: int) -> Stage:
    return SliceStage("s", "", "loop", 2, X, Y, layout_in=ROW, layout=Layout(1, size), start=start)


def _join(a: int, b: int) -> Stage:
    return ConcatStage("j", "", "loop", 2, ("a", "b"), Y, layout_a=Layout(1, a), layout_b=Layout(1, b))


def _regroup(before: Layout, after: Layout) -> Stage:
    return RegroupStage("g", "", "loop", 2, X, Y, layout_in=before, layout=after)


def _embed(tables: int, width: int) -> Stage:
    names = tuple(f"t{i}" for i in range(tables))
    return EmbedStage("e", "", "before", 1, names, Y, layout=Layout(1, width), ids=names)


STAGES: dict[str, Stage] = {
    "add": AddStage("s", "", "loop", 2, ("a", "b"), Y, layout=ROW),
    **{
        f"{name}_by_{ways}": stage
        for ways in WAYS
        for name, stage in (
            ("requant", RequantStage("r", "", "loop", 3, X, Y, "p", layout=HEADS, ways=ways)),
            (
                "requant_scaled",
                RequantStage("r", "", "loop", 2, ("x", "e"), Y, "p", layout=HEADS, scaled=True, ways=ways),
            ),
            (
                "quantize_rows",
                QuantizeRowsStage("q", "", "loop", 3, X, ("y", "e"), layout=HEADS, ways=ways),
            ),
            ("normalize", NormalizeStage("n", "", "loop", 3, X, Y, "p", layout=Layout(1, 40), ways=ways)),
            ("activation", ActivationStage("a", "", "loop", 2, X, Y, layout=ROW, ways=ways)),
        )
    },
    "select_row": SelectRowStage("r", "", "loop", 2, X, Y, layout=ROW),
    "slice_aligned": _slice(8, 13),
    "slice_turned": _slice(5, 16),
    "slice_short": _slice(0, 7),
    "slice_last_channel": _slice(20, 1),
    "concat_aligned": _join(16, 5),
    "concat_turned": _join(7, 9),
    "concat_longer": _join(21, 40),
    "close_groups": _regroup(HEADS, ROW),
    "close_groups_lag": _regroup(Layout(3, 11), Layout(1, 33)),
    "close_groups_wide": _regroup(Layout(2, 20), Layout(1, 40)),
    "open_groups": _regroup(ROW, HEADS),
    "open_groups_wide": _regroup(Layout(1, 39), Layout(3, 13)),
    "embed_one": _embed(1, 21),
    "embed_two": _embed(2, 40),
    "embed_three": _embed(3, 70),
    "fork": ForkStage("f", "", "loop", 3, X, ("a", "b"), like=LIKE),
    "fork_three": ForkStage("f", "", "loop", 3, X, ("a", "b", "c"), like=LIKE),
    "relay": RelayStage("r", "", "loop", 3, X, Y, like=LIKE, uses=2),
    "relay_scores": RelayStage(
        "r", "", "loop", 3, X, Y, like=replace(LIKE, kind="scores", layout=HEADS), uses=2
    ),
    "relay_mask": RelayStage("r", "", "before", 1, X, Y, like=replace(LIKE, kind="mask")),
    "loop_enter": LoopEnterStage("e", "", "loop", 3, ("x", "back"), Y, like=LIKE),
    "loop_exit": LoopExitStage("o", "", "loop", 3, X, ("back", "y"), like=LIKE),
    "loop_back": LoopExitStage("o", "", "loop", 3, X, ("back",), like=LIKE, mode="back"),
    "loop_last": LoopExitStage("o", "", "loop", 3, X, Y, like=LIKE, mode="last"),
    "pack": PackStage("p", "", "after", 1, ("v",), ("w",), layout=HEADS, element="int16"),
    "unpack": UnpackStage("p", "", "before", 1, ("w",), ("v",), layout=HEADS, element="int8"),
    "unpack_mask": UnpackStage("m", "", "before", 1, ("w",), ("v",), mask=True),
}
NAMES = tuple(STAGES)
TILED = (*(f"normalize_by_{ways}" for ways in WAYS), "embed_one", "embed_two", "embed_three")
#: stages with a process in front, which enters a loop of its own
FRONTED = tuple(f"quantize_rows_by_{ways}" for ways in WAYS)


def _stream(stage: Stage, name: str) -> Stream:
    """A stream of the type that the stage's template wants there."""
    if name == "w" or (isinstance(stage, EmbedStage) and name != "y"):
        return Stream(name, "words")
    if name == "e":
        return Stream(name, "exponents")
    taken = name in stage.inputs
    element = getattr(stage, "element", "int32")
    if isinstance(stage, RequantStage):
        element = stage.in_element if taken else stage.out_element
    elif isinstance(stage, QuantizeRowsStage):
        element = "int32" if taken else "int8"
    elif isinstance(stage, NormalizeStage) and not taken:
        element = "int32"
    elif hasattr(stage, "like"):
        element = LIKE.element
    return Stream(name, "rows", element, ROW)


def _bench(stage: Stage, shape: tuple[int, int]) -> Bench:
    names = dict.fromkeys((*stage.inputs, *stage.outputs))
    return Bench(stage, tuple(_stream(stage, n) for n in names), Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> CountingLibrary:
    return CountingLibrary([_bench(s, SHAPES[i % len(SHAPES)]) for i, s in enumerate(STAGES.values())])


def _closed(bench: Bench, batch: int, seq: int) -> int:
    """Closed forms of all processes of a stage (labels, and so depths, are different ones)."""
    stage = bench.stage
    found = stage.cycles(bench.design, batch, seq, odd_depth)
    return found + stage.front_cycles(bench.design, batch, seq, odd_depth)


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_is_the_sum_over_the_loops(
    library: CountingLibrary, name: str, batch: int, seq: int
) -> None:
    bench = library.benches[NAMES.index(name)]
    entries = library.entries(NAMES.index(name), batch, seq)
    assert _closed(bench, batch, seq) == total_cycles(entries, odd_depth)
    assert all(len(lines) == 1 for lines in lines_by_label(entries).values()), "labels are distinct"
    assert {e.ii for e in entries} == {1}


@pytest.mark.gxx
def test_closed_forms_hold_at_the_other_number_of_lanes() -> None:
    """Stages that work on some channels a cycle, each at the lanes that it has not in the other tests."""
    names = [name for name in NAMES if "_by_" in name]
    at = [SHAPES[(NAMES.index(name) + 2) % len(SHAPES)] for name in names]
    library = CountingLibrary([_bench(STAGES[n], shape) for n, shape in zip(names, at, strict=True)])
    for index, bench in enumerate(library.benches):
        entries = library.entries(index, 2, 7)
        assert _closed(bench, 2, 7) == total_cycles(entries, odd_depth), (names[index], at[index])


@pytest.mark.gxx
@pytest.mark.parametrize("name", (*TILED, *FRONTED))
def test_a_last_tile_that_is_not_full(library: CountingLibrary, name: str) -> None:
    """Every length from less than a tile to several tiles."""
    bench = library.benches[NAMES.index(name)]
    for seq in range(1, 10):
        entries = library.entries(NAMES.index(name), 1, seq)
        assert _closed(bench, 1, seq) == total_cycles(entries, odd_depth)


@pytest.mark.gxx
@pytest.mark.parametrize(
    "name", ["requant_by_4", "quantize_rows_by_2", "normalize_by_8", "add", "fork", "pack"]
)
def test_one_row_stages_are_called_with_one_row(library: CountingLibrary, name: str) -> None:
    bench = library.benches[NAMES.index(name)]
    stage = replace(bench.stage, one_row=True)
    assert stage.runtime_arguments() == ["batch", "1"]
    entries = library.entries(NAMES.index(name), 2, 1)
    assert _closed(replace(bench, stage=stage), 2, 5) == total_cycles(entries, odd_depth)


@pytest.mark.gxx
def test_whole_launch_stages_enter_one_loop(library: CountingLibrary) -> None:
    """No drain between tiles, sequences or steps."""
    loaded = {name for name in NAMES if name.startswith("requant")}
    counts = {name: len(library.entries(i, 2, 19)) for i, name in enumerate(NAMES)}
    assert {n for n, c in counts.items() if c == 1} == set(NAMES) - {*loaded, *TILED, *FRONTED}
    assert {counts[name] for name in FRONTED} == {2}
    assert {counts[name] for name in loaded} == {3 * 2, 2 * 2}


@pytest.mark.gxx
def test_the_count_sees_a_loop_that_is_entered_again(library: CountingLibrary) -> None:
    """The bench itself: a depth that one cycle is added to shows once for every entry."""
    index = NAMES.index("normalize_by_2")
    entries = library.entries(index, 2, 19)
    tiles = 3 * 2 * -(-19 // library.benches[index].shape.tile)
    deeper = total_cycles(entries, lambda label: odd_depth(label) + (label == "OUTPUT"))
    assert deeper - total_cycles(entries, odd_depth) == tiles


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 19])
def test_tiled_is_the_sum_over_the_tiles(rows: int) -> None:
    sizes = [min(4, rows - first) for first in range(0, rows, 4)]
    assert tiled(rows, 4, 6, 11) == sum(pipelined(6 * n, 11) for n in sizes)
    assert pipelined(1, 11) == 11 + LOOP_OVERHEAD


@pytest.mark.parametrize("name", NAMES)
def test_modelled_cost_is_the_largest_launch(name: str) -> None:
    bench = _bench(STAGES[name], (8, 3))
    largest = bench.stage.cycles(bench.design, MAX_BATCH, MAX_SEQ, lambda label: 12)
    assert bench.stage.cost(bench.design).cycles == largest
