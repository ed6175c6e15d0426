# SPDX-License-Identifier: Apache-2.0
"""Whole models whose stages work on fewer channels a cycle than a token has: bit-exact, as fast as the
formulas say, and accepted by the checker at an interval of one cycle."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from tests.timing.test_closed_forms import compare
from tests.tiny import Inputs, bert, compile_model, cxx_cache, gpt2, ids, padding, run
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import project_files
from torch2fpga.lower.ways import WaysStage
from torch2fpga.timing.depths import pipelined_loops

__all__ = ["cxx_cache"]
pytestmark = pytest.mark.gxx
SEQ = 9
LOOPS = {"LOAD", "ROW", "SUM", "INVERSE", "OUTPUT", "ACTIVATE", "FILL", "DRAIN"}


@lru_cache
def _model(lanes: int) -> tuple[CompiledModel, Inputs]:
    """A layer with table activation and rows that carry exponents behind it."""
    inputs: Inputs = {"input_ids": ids(2, SEQ)}
    if lanes == 16:
        inputs = {**inputs, "attention_mask": padding(2, SEQ)}
        return compile_model(bert(layers=2), inputs, lanes=16, tile=4), inputs
    return compile_model(gpt2(2), inputs, lanes=8, tile=3), inputs


def _with_ways(model: CompiledModel, ways: int) -> CompiledModel:
    stages = tuple(replace(s, ways=ways) if isinstance(s, WaysStage) else s for s in model.design.stages)
    parts = (model.data, model.interface, model.output, model.board, model.origin)
    return CompiledModel(replace(model.design, stages=stages), *parts)


@pytest.mark.parametrize(("ways", "lanes"), [(1, 8), (2, 16), (4, 8), (8, 16)])
def test_models_are_exact_and_as_fast_as_the_formulas_say(ways: int, lanes: int) -> None:
    model, inputs = _model(lanes)
    model = _with_ways(model, ways)
    kinds = {s.template for s in model.design.stages if isinstance(s, WaysStage)}
    assert {"requant", "requant_scaled", "normalize", "activation", "quantize_rows"} <= kinds
    assert run(model.verify, inputs).bit_exact
    for batch, seq in ((2, SEQ), (1, 1)):
        assert compare(model, batch, seq) > 5


@pytest.mark.parametrize("ways", [1, 4, 16])
def test_the_checker_finds_an_interval_of_one(ways: int) -> None:
    model = _with_ways(_model(16)[0], ways)
    names = {s.name for s in model.design.stages if isinstance(s, WaysStage)}
    names |= {f"{name}_exponents" for name in names}
    loops = [loop for loop in pipelined_loops(model.design, 300) if loop.process in names]
    assert {loop.label for loop in loops} == LOOPS
    assert {(loop.ii, loop.minimum_ii) for loop in loops} == {(1, 1)}
    assert check_project(project_files(model), include_dirs=[]) == []
