# SPDX-License-Identifier: Apache-2.0
"""FIFO depths: the planned ones run, smaller ones deadlock and say where."""

from __future__ import annotations

import dataclasses

import pytest

import torch2fpga
from tests.tiny import (
    WIDTH,
    compile_model,
    compiled,
    cxx_cache,
    encoder,
    named,
    rows,
    run,
    seeded,
)
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design, ceil_div
from torch2fpga.lower.plumbing import LoopEnterStage
from torch2fpga.plan.fifo import MINIMUM, size_fifos, storage_of

__all__ = ["cxx_cache", "seeded"]


def _with_depth(design: Design, name: str, depth: int) -> Design:
    stream = dataclasses.replace(design.streams[name], depth=depth)
    return dataclasses.replace(design, streams={**design.streams, name: stream})


def _residual(design: Design) -> str:
    """The stream that goes around a branch to the first add."""
    add = next(s for s in design.stages if s.template == "add")
    return max(add.inputs, key=lambda n: design.streams[n].depth)


def _rebuilt(made: CompiledModel, design: Design) -> CompiledModel:
    return CompiledModel(design, made.data, made.interface, made.output, made.board, made.origin)


@pytest.mark.gxx
def test_a_short_residual_deadlocks_and_names_the_stream() -> None:
    """Attention waits for all keys of a sequence; the rows beside it have to wait somewhere."""
    inputs = (rows(2, 19, WIDTH),)
    made = compile_model(encoder(1, batch_first=True), inputs)
    name = _residual(made.design)
    assert made.design.streams[name].depth > 2
    assert run(made.verify, inputs).bit_exact
    short = _rebuilt(made, _with_depth(made.design, name, 2))
    for call in (short, short.verify):
        with pytest.raises(torch2fpga.SimulationError) as error:
            run(call, inputs)
        assert "deadlock" in str(error.value) and name in str(error.value)
    assert run(made.verify, inputs).bit_exact  # the other library is not disturbed


@pytest.mark.parametrize("name", named("bert", "gpt2", "encoder", "encoder_swapped_pre"))
def test_the_feedback_holds_a_launch(name: str) -> None:
    design = compiled(name).design
    shape = design.shape
    enters = [s for s in design.stages if isinstance(s, LoopEnterStage)]
    assert enters
    for stage in enters:
        back = design.streams[stage.inputs[1]]
        rows = shape.max_batch * ceil_div(shape.max_seq, shape.tile) * shape.tile
        assert back.depth >= rows * back.layout.blocks(shape.lanes)


@pytest.mark.parametrize("name", named("bert_long", "gpt2_long"))
def test_residuals_hold_a_sequence(name: str) -> None:
    """Attention takes in all keys of a sequence before its first row comes out."""
    design = compiled(name).design
    stream = design.streams[_residual(design)]
    assert stream.depth >= design.shape.max_seq * stream.layout.blocks(design.shape.lanes)


def test_planning_again_changes_nothing() -> None:
    design = compiled("encoder").design
    assert size_fifos(design) == design


def test_every_depth_is_set() -> None:
    design = compiled("encoder").design
    rows = [s for s in design.streams.values() if s.kind in ("rows", "exponents") and not s.link]
    assert rows and all(s.depth >= MINIMUM for s in rows)


@pytest.mark.parametrize(
    ("depth", "size", "storage"),
    [(2, 64, "srl"), (32, 64, "srl"), (33, 1, "srl"), (33, 64, "bram"), (512, 64, "bram"), (513, 64, "uram")],
)
def test_storage(depth: int, size: int, storage: str) -> None:
    assert storage_of(depth, size) == storage
