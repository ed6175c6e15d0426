# SPDX-License-Identifier: Apache-2.0
"""Row selection, channel slices and joins: templates against references; taken and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import (
    BATCH,
    HEADS,
    SEQ,
    WIDTH,
    Inside,
    compile_model,
    cxx_cache,
    float_error,
    histogram,
    lowered,
    refused,
    rows,
)
from torch2fpga.design import Layout, Shape, Stage, Stream
from torch2fpga.errors import InputError
from torch2fpga.lower.rows import ConcatStage, SelectRowStage, SliceStage

__all__ = ["cxx_cache"]
INPUTS = (rows(BATCH, SEQ, WIDTH),)
Function = Callable[[Tensor], Tensor]
#: start and size: at a block's edge, inside a block, over two edges, the last channel
SLICES = ((0, 7), (7, 7), (8, 13), (5, 16), (20, 1))
JOINS = ((21, 40), (8, 13), (7, 9), (16, 5))


def _slice(start: int, size: int) -> tuple[Stage, tuple[Stream, ...]]:
    stage = SliceStage(
        "s", "", "loop", 2, ("x",), ("y",), layout_in=Layout(1, 21), layout=Layout(1, size), start=start
    )
    return stage, (Stream("x", "rows", "int16", Layout(1, 21)), Stream("y", "rows", "int16", Layout(1, size)))


def _join(a: int, b: int) -> tuple[Stage, tuple[Stream, ...]]:
    layouts = Layout(1, a), Layout(1, b)
    stage = ConcatStage(
        "j", "", "loop", 2, ("a", "b"), ("y",), layout_a=layouts[0], layout_b=layouts[1], element="int32"
    )
    names = zip("aby", (*layouts, Layout(1, a + b)), strict=True)
    return stage, tuple(Stream(n, "rows", "int32", layout) for n, layout in names)


def _row(row: int) -> tuple[Stage, tuple[Stream, ...]]:
    layout = Layout(1, 21)
    stage = SelectRowStage("r", "", "loop", 2, ("x",), ("y",), layout=layout, row=row)
    return stage, (Stream("x", "rows", "int16", layout), Stream("y", "rows", "int16", layout, one_row=True))


ROWS = (0, 4, 18, -1, -4)
STAGES = [*(_slice(*s) for s in SLICES), *(_join(*j) for j in JOINS), *(_row(r) for r in ROWS)]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(
        [
            Bench(stage, streams, Shape(*SHAPES[i % len(SHAPES)], MAX_BATCH, MAX_SEQ))
            for i, (stage, streams) in enumerate(STAGES)
        ]
    )


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(STAGES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    stage = library.benches[index].stage
    if isinstance(stage, SelectRowStage) and stage.row >= seq:
        seq = stage.row + 1
    if isinstance(stage, SelectRowStage) and -stage.row > seq:
        seq = -stage.row
    generator = torch.Generator().manual_seed(index)
    widths = [s.layout.channels for s in library.benches[index].streams if s.name in stage.inputs]
    steps = [
        [torch.randint(-9000, 9000, (batch, seq, w), generator=generator, dtype=torch.int32) for w in widths]
        for _ in range(2)
    ]
    assert library.mismatches(index, steps, batch, seq) == 0


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x[:, 0], "select_row"),
        (lambda x: x[:, 3], "select_row"),
        (lambda x: x[:, 2:3], "select_row"),
        (lambda x: x[:, -1], "select_row"),
        (lambda x: x[:, -1:], "select_row"),
        (lambda x: x[:, -9:1], "select_row"),
        (lambda x: torch.tanh(x)[..., 3:10], "slice_channels"),
        (lambda x: torch.tanh(x)[..., -4:], "slice_channels"),
        (lambda x: torch.tanh(x).split([5, 16], -1)[1], "slice_channels"),
        (lambda x: torch.tanh(x).chunk(3, -1)[1], "slice_channels"),
        (lambda x: torch.tanh(x).reshape(BATCH, SEQ, HEADS, 7).permute(2, 0, 1, 3)[1], "slice_channels"),
        (lambda x: torch.cat((x, torch.tanh(x)), -1), "concat_channels"),
        (lambda x: torch.cat((x, torch.tanh(x), x), 2), "concat_channels"),
    ],
)
def test_taken(function: Function, operator: str) -> None:
    assert operator in histogram(lowered(Inside(function), INPUTS)[0].graph)
    assert float_error(Inside(function), INPUTS) <= 1e-5


def test_slice_behind_a_fused_relu() -> None:
    assert float_error(Inside(lambda x: torch.relu(x)[..., 3:10]), INPUTS) <= 1e-5


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x[0], "neither tokens nor heads"),
        (lambda x: x[..., 4], ""),
        (lambda x: x[:, 1:3], "only channels, or one token, can be sliced"),
        (lambda x: x[:, ::2], "only channels, or one token, can be sliced"),
        (lambda x: x[..., ::2], "only channels, or one token, can be sliced"),
        (lambda x: torch.cat((x, x), 1), "only channels can be joined"),
        (lambda x: torch.cat((x, x), 0), "only channels can be joined"),
        (lambda x: torch.stack((x, x), 1), "not supported"),
        (lambda x: x.split(2, 1)[0], "splits something other than channels"),
        (lambda x: x[:, torch.tensor([0, 2])], "not supported"),
    ],
)
def test_refused(function: Function, reason: str) -> None:
    refused(Inside(function), INPUTS, "part", reason)


@pytest.mark.gxx
def test_a_row_counted_from_the_end_is_the_last_of_every_length() -> None:
    model = Inside(lambda x: torch.tanh(x)[:, -1])
    made = compile_model(model, INPUTS)
    for seq in (1, SEQ - 2, SEQ):
        x = rows(BATCH, seq, WIDTH)
        assert made.verify(x).bit_exact
        with torch.no_grad():
            expected = model(x)
        assert torch.allclose(made(x), expected, atol=0.1)
    third = compile_model(Inside(lambda x: torch.tanh(x)[:, -3]), INPUTS)
    with pytest.raises(InputError, match="takes row 2"):
        third(rows(BATCH, 2, WIDTH))
