# SPDX-License-Identifier: Apache-2.0
"""Arrays rewritten in whole designs: same values on every stream, cycles as the formulas say, no deadlock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from tests.timing.test_closed_forms import compare
from tests.tiny import Inputs, build, compile_model, cxx_cache, exact, run, same, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import project_files
from torch2fpga.errors import DesignError
from torch2fpga.lower.builder import Builder, Lowered
from torch2fpga.lower.gather import GatherStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.persist import load, save
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.partition import partition
from torch2fpga.plan.split import Constants, Data, set_columns, set_keep, split_linear
from torch2fpga.verifier import verify_design

__all__ = ["cxx_cache", "seeded"]

Rewrite = Callable[[Design, Data], tuple[Design, Data]]


@dataclass(frozen=True)
class _Parts:
    """A compiled model and what it was made from."""

    model: CompiledModel
    lowered: Lowered
    inputs: Inputs

    def again(self, rewrite: Rewrite) -> CompiledModel:
        """The model with its design rewritten before it is cut into kernels."""
        design, data = rewrite(self.lowered.design, self.lowered.data)
        m = self.model
        cut = size_fifos(partition(design, count=2 if design.steps > 1 else 1))
        verify_design(cut)
        constants = {name: list(steps) for name, steps in data.items()}
        return CompiledModel(cut, constants, m.interface, m.output, m.board, m.origin)


@lru_cache
def parts(name: str, lanes: int, tile: int) -> _Parts:
    model, inputs = build(name)
    found: list[Lowered] = []
    lower = Builder.run

    def kept(builder: Builder) -> Lowered:
        found.append(lower(builder))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "run", kept)
        compiled = compile_model(model, inputs, lanes=lanes, tile=tile)
    return _Parts(compiled, found[-1], inputs)


def linears(design: Design) -> list[MatmulStage]:
    return [s for s in design.stages if isinstance(s, MatmulStage)]


def split_all(copies: int, keep: str = "", columns: int = 0) -> Rewrite:
    """Every linear layer in up to so many copies."""

    def rewrite(design: Design, data: Data) -> tuple[Design, Data]:
        lanes = design.shape.lanes
        for stage in linears(design):
            if keep:
                design = set_keep(design, stage.name, keep)
            if columns:
                design = set_columns(design, stage.name, columns)
            blocks = stage.layout_out.blocks(lanes)
            design, data = split_linear(design, data, stage.name, min(copies, blocks))
        return design, data

    return rewrite


@pytest.mark.gxx
@pytest.mark.parametrize(
    ("name", "lanes", "tile", "rewrite"),
    [
        ("mlp3d", 8, 3, split_all(3)),
        ("mlp3d", 16, 4, split_all(2, "", 4)),
        ("encoder", 8, 4, split_all(2, "resident")),
        ("encoder", 16, 2, split_all(2, "streamed")),
        pytest.param("gpt2", 8, 4, split_all(5, "resident"), marks=pytest.mark.hf),
        pytest.param("bert_long", 8, 4, split_all(3), marks=pytest.mark.hf),
        pytest.param("bert_long", 16, 8, split_all(2, "resident", 8), marks=pytest.mark.hf),
    ],
)
def test_split_models_compute_the_same(name: str, lanes: int, tile: int, rewrite: Rewrite) -> None:
    """Bit exact at every stage, output equal to the unsplit model's, cycles equal to the formulas."""
    made = parts(name, lanes, tile)
    model = made.again(rewrite)
    assert any(isinstance(s, GatherStage) for s in model.design.stages)
    exact(model, made.inputs)
    assert same(run(model, made.inputs), run(made.model, made.inputs))
    s = model.design.shape
    for batch, seq in ((s.max_batch, s.max_seq), (1, 1)):
        assert compare(model, batch, seq) > len(linears(model.design))


@pytest.mark.gxx
def test_original_streams_survive() -> None:
    """Formats and exponents are kept by stream name, and the port of a copy is its own."""
    made = parts("encoder", 8, 4)
    before = made.lowered.design
    after, _ = split_all(3)(before, made.lowered.data)
    weights = {s.inputs[1] for s in linears(before)}
    assert set(before.streams) - weights <= set(after.streams)
    for name in set(before.streams) - weights:
        assert after.streams[name] == before.streams[name]
    assert len(linears(after)) > len(linears(before))
    for stage in linears(after):
        (port,) = [p for p in after.ports if p.binding == stage.name]
        assert port.streams == (stage.inputs[1],) and port.role == "weights"
        assert port.words == stage.weight_words(after) * stage.steps


def test_the_given_design_and_data_are_not_changed() -> None:
    made = parts("mlp3d", 8, 3)
    design, data = made.lowered.design, {k: list(v) for k, v in made.lowered.data.items()}
    names = [s.name for s in design.stages]
    split_all(2)(design, data)
    assert [s.name for s in design.stages] == names and set(data) == set(made.lowered.data)


def test_weights_go_round_the_copies() -> None:
    """Block b of the outputs is block b // n of copy b % n; what fills up blocks is zero."""
    made = parts("mlp3d", 8, 3)
    stage = linears(made.lowered.design)[1]
    design, data = split_linear(made.lowered.design, made.lowered.data, stage.name, 3)
    whole = made.lowered.data[stage.name][0]["weight"]
    assert whole.shape[0] == 40
    for i in range(3):
        rows = [c for b in range(i, 5, 3) for c in range(8 * b, 8 * b + 8)]
        assert torch.equal(data[f"{stage.name}_array{i}"][0]["weight"], whole[rows])
    assert stage.name not in data and design.stage(f"{stage.name}_gather").outputs == stage.outputs


def test_a_layer_without_weights_is_split_too() -> None:
    made = parts("mlp3d", 8, 3)
    name = linears(made.lowered.design)[0].name
    design, data = split_linear(made.lowered.design, {}, name, 2)
    assert f"{name}_array1" in {s.name for s in design.stages} and f"{name}_array1" not in data


def test_one_copy_is_the_layer_itself() -> None:
    made = parts("mlp3d", 8, 3)
    design, data = split_linear(
        made.lowered.design, made.lowered.data, linears(made.lowered.design)[0].name, 1
    )
    assert design is made.lowered.design and data == made.lowered.data


@pytest.mark.parametrize("copies", range(2, 6))
def test_forks_have_at_most_three_outputs(copies: int) -> None:
    made = parts("mlp3d", 8, 3)
    name = linears(made.lowered.design)[1].name
    design, _ = split_linear(made.lowered.design, made.lowered.data, name, copies)
    forks = [s for s in design.stages if s.name.startswith(f"{name}_fork")]
    assert sum(len(f.outputs) - 1 for f in forks) == copies - 1
    assert all(2 <= len(f.outputs) <= 3 for f in forks) and len(forks) == -(-(copies - 1) // 2)


@pytest.mark.gxx
def test_emitted_project_of_split_arrays_is_clean(tmp_path: Path) -> None:
    """The checker has no findings, and the model comes back from disk."""
    made = parts("mlp3d", 8, 3)
    model = made.again(split_all(5))
    assert check_project(project_files(model), include_dirs=[]) == []
    again = load(save(model, tmp_path / "model"))
    assert again.design == model.design


def test_what_cannot_be_rewritten_is_refused() -> None:
    made = parts("mlp3d", 8, 3)
    design, data = made.lowered.design, made.lowered.data
    stage = linears(design)[0]
    other = next(s for s in design.stages if not isinstance(s, MatmulStage))
    for copies in (0, 4, 17):
        with pytest.raises(DesignError, match="1 to 3 arrays"):
            split_linear(design, data, stage.name, copies)
    with pytest.raises(DesignError, match="there is no stage"):
        split_linear(design, data, "nothing", 2)
    with pytest.raises(DesignError, match="is no linear layer"):
        set_keep(design, other.name, "step")
    with pytest.raises(DesignError, match="has no multiplier array"):
        set_columns(design, other.name, 8)
    with pytest.raises(DesignError, match="divide the 8 lanes"):
        set_columns(design, stage.name, 16)
    with pytest.raises(DesignError, match="no 64-byte word"):
        set_columns(design, stage.name, 4)
    with pytest.raises(DesignError, match="before kernels are cut"):
        split_linear(made.model.design, data, stage.name, 2)
    twice, constants = split_linear(design, data, stage.name, 2)
    again: Constants = {**constants, stage.name: []}
    with pytest.raises(DesignError, match="there is no stage"):
        split_linear(twice, again, stage.name, 2)
