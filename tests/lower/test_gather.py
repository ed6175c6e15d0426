# SPDX-License-Identifier: Apache-2.0
"""Gather: channel blocks of several arrays in turn, against its reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, Bench, Library
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.gather import GatherStage, blocks_of

__all__ = ["cxx_cache"]
#: (lanes, tile), output, inputs, one row: blocks that divide and do not, heads with gaps, as many
#: inputs as blocks and as there may be
CASES = (
    ((8, 3), Layout(1, 40), 2, False),
    ((16, 4), Layout(1, 112), 3, False),
    ((16, 2), Layout(1, 80), 5, False),
    ((16, 4), Layout(5, 24), 3, False),
    ((8, 1), Layout(3, 7), 3, False),
    ((8, 8), Layout(1, 150), 16, False),
    ((16, 4), Layout(1, 50), 2, True),
)


def _bench(shape: tuple[int, int], layout: Layout, inputs: int, one_row: bool) -> Bench:
    names = tuple(f"x{i}" for i in range(inputs))
    stage = GatherStage(
        "g", "", "loop", 2, names, ("y",), one_row=one_row, layout=layout, lanes=shape[0]
    )  # fmt: skip
    taken, _ = stage.carried()
    streams = [Stream(n, "rows", "int32", t.layout, one_row) for n, t in zip(names, taken, strict=True)]
    return Bench(
        stage, (*streams, Stream("y", "rows", "int32", layout, one_row)), Shape(*shape, MAX_BATCH, MAX_SEQ)
    )


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _blocks(y: Tensor, layout: Layout, lanes: int) -> list[Tensor]:
    """The channel blocks of rows, filled up with zeros behind every group, by plain loops."""
    found = []
    for group in range(layout.groups):
        for first in range(0, layout.size, lanes):
            channels = range(
                group * layout.size + first, group * layout.size + min(first + lanes, layout.size)
            )
            block = torch.zeros(*y.shape[:2], lanes, dtype=y.dtype)
            for lane, channel in enumerate(channels):
                block[..., lane] = y[..., channel]
            found.append(block)
    return found


def _inputs(index: int, batch: int, seq: int) -> tuple[Tensor, list[Tensor]]:
    """Random rows, and what each input carries of them."""
    (lanes, _), layout, inputs, one_row = CASES[index]
    rows = 1 if one_row else seq
    generator = torch.Generator().manual_seed(index)
    y = torch.randint(-(2**31), 2**31, (batch, rows, layout.channels), generator=generator)
    blocks = _blocks(y, layout, lanes)
    return y, [torch.cat(blocks[i::inputs], -1) for i in range(inputs)]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_stage_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    steps = [_inputs(index, batch, seq) for _ in range(2)]
    stage = library.benches[index].stage
    for y, xs in steps:
        assert torch.equal(stage.reference({}, xs)[0], y)
    rows = 1 if stage.one_row else seq
    assert library.mismatches(index, [xs for _, xs in steps], batch, rows) == 0


@pytest.mark.gxx
def test_one_wrong_value_is_seen(library: Library) -> None:
    _, xs = _inputs(1, 1, 3)
    stage = library.benches[1].stage
    wrong = [xs[0], xs[2], xs[1]]
    assert not torch.equal(stage.reference({}, xs)[0], stage.reference({}, wrong)[0])


def test_blocks_in_turn() -> None:
    assert blocks_of(7, 3) == [3, 2, 2]
    assert blocks_of(16, 16) == [1] * 16
    assert all(sum(blocks_of(b, n)) == b for b in range(1, 40) for n in range(1, b + 1))


def test_cycles_by_hand() -> None:
    """Two steps, two sequences of 11 rows, 7 blocks."""
    bench = _bench(*CASES[1])
    depths = {"GATHER": 5}
    want = 2 * 2 * 11 * 7 - 1 + 5 + 2
    assert bench.stage.cycles(bench.design, 2, 11, depths.__getitem__) == want
    assert (
        replace(bench.stage, one_row=True).cycles(bench.design, 2, 11, depths.__getitem__)
        == 2 * 2 * 7 - 1 + 7
    )


@pytest.mark.parametrize(("layout", "inputs"), [(Layout(1, 40), 1), (Layout(1, 40), 4), (Layout(1, 400), 17)])
def test_impossible_counts_are_refused(layout: Layout, inputs: int) -> None:
    with pytest.raises(DesignError, match="2 to 16"):
        _bench((16, 4), layout, inputs, False)
