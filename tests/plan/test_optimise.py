# SPDX-License-Identifier: Apache-2.0
"""The optimiser on small models: limits are kept, wishes are followed, and nothing else is computed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import torch2fpga
from tests.tiny import build, compile_model, cxx_cache, named, run
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.project import project_files
from torch2fpga.errors import CompileError
from torch2fpga.plan.plan import Array
from torch2fpga.plan.resources import design_cost, problems
from torch2fpga.timing.inputs import random_inputs

__all__ = ["cxx_cache"]
#: a model with several layers and lengths that nothing divides
NAME = "bert_long"
#: a model that is compiled in a fraction of the time, where neither layers nor size matter
SMALL = "mlp3d"


def plan_model(name: str = NAME, plan: Any = None, **options: Any) -> CompiledModel:
    """A tiny model through the optimiser."""
    return compile_model(*build(name), plan=plan, **{"lanes": 16, "tile": None, **options})


@lru_cache
def planned(name: str = NAME) -> CompiledModel:
    return plan_model(name)


@lru_cache
def half() -> CompiledModel:
    """The model on half of what the caps leave."""
    return plan_model(budget=0.5)


@lru_cache
def limited() -> CompiledModel:
    """The model with fewer multipliers than it would take."""
    return plan_model(plan={"multipliers": 1500})


def shares(model: CompiledModel, budget: float) -> list[str]:
    """Caps that are exceeded, of a share of the card."""
    caps = U280.caps
    less = {n: getattr(caps, n) * budget for n in ("lut", "ff", "bram", "uram", "dsp", "mean")}
    board = replace(U280, caps=replace(caps, **less))
    return problems(design_cost(model.design, board), board)


@pytest.mark.gxx
@pytest.mark.parametrize("name", named("bert_long", "gpt2", "encoder_pre", "mlp3d"))
def test_planned_models_compute_the_same(name: str) -> None:
    model, (_, inputs) = planned(name), build(name)
    assert run(model.verify, inputs).bit_exact
    report = model.time(**random_inputs(model, *model_size(model)), spread=False, interval=False)
    assert report.deadlock is None
    assert model.plan.macs <= model.plan.products * report.cycles


def model_size(model: CompiledModel) -> tuple[int, int]:
    return model.design.shape.max_batch, model.design.shape.max_seq


def test_plans_keep_to_the_caps_and_the_wires() -> None:
    model = planned()
    assert shares(model, 1.0) == []
    assert all(b.wires <= b.budget for b in model.plan.boundaries)
    used = [c.channel for c in model.plan.channels]
    assert len(set(used)) == len(used) <= U280.masters


def test_arrays_share_what_the_layers_work() -> None:
    """Wider layers get more products a cycle, and a limit on all of them is kept."""
    free, tight = planned(), limited()
    assert tight.plan.products <= 1500 < free.plan.products
    assert free.plan.cycles < tight.plan.cycles


def test_a_budget_is_a_share_of_the_caps() -> None:
    model = half()
    assert shares(model, 0.5) == []
    assert shares(planned(), 0.1)  # the check can fail
    assert model.plan.plan.budget == 0.5


def test_the_same_model_gives_the_same_plan_and_text() -> None:
    again = plan_model()
    assert again.plan.to_json() == planned().plan.to_json()
    assert again.plan.to_toml() == planned().plan.to_toml()
    assert project_files(again) == project_files(planned())


def test_a_plan_that_was_written_out_gives_the_same_design(tmp_path: Path) -> None:
    path = planned().plan.save(tmp_path / "plan.toml")
    again = plan_model(plan=path)
    assert again.design == planned().design
    assert again.origin.plan == planned().origin.plan


def linear(model: CompiledModel) -> str:
    return next(n for n, a in model.origin.plan.arrays.items() if a.weights)


@pytest.mark.gxx
def test_an_edited_plan_is_followed(tmp_path: Path) -> None:
    name = linear(planned())
    array = {"copies": 2, "columns": 8, "ports": 1}
    wish = {"tile": 2, "arrays": {name: array}, "slr": {f"{name}_array1": 2}}
    model = plan_model(plan=wish)
    assert model.origin.plan.arrays[name] == Array(2, 8, "step", 1)
    assert model.origin.plan.tile == model.design.shape.tile == 2
    assert next(s for s in model.plan.stages if s.name == f"{name}_array1").slr == 2
    assert run(model.verify, build(NAME)[1]).bit_exact


@pytest.mark.gxx
def test_weights_of_all_layers_on_the_chip() -> None:
    model = plan_model(plan={"weights": "resident"})
    assert {a.weights for a in model.origin.plan.arrays.values() if a.weights} == {"resident"}
    assert run(model.verify, build(NAME)[1]).bit_exact


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        ({"arrays": {"nothing": {"copies": 2}}}, "the plan's table arrays names nothing; there are "),
        ({"ways": {"nothing": 2}}, "the plan's table ways names nothing; there are "),
        ({"slr": {"nothing": 2}}, "the plan's table slr names nothing; there are "),
        ({"channels": {"nothing": 2}}, "nothing"),
    ],
)
def test_unknown_names_list_those_there_are(plan: dict[str, Any], text: str) -> None:
    with pytest.raises(CompileError) as error:
        plan_model(SMALL, plan=plan)
    assert text in str(error.value)


def test_impossible_arrays_say_what_is_possible() -> None:
    name = linear(planned())
    with pytest.raises(CompileError) as error:
        plan_model(plan={"arrays": {name: {"copies": 16}}})
    assert f"16 copies of any columns with any ports for {name}" in str(error.value)
    assert "may be 1 x 4, 1 x 8, 1 x 16, 2 x 4" in str(error.value)


def test_a_model_that_does_not_fit_says_what_is_missing() -> None:
    with pytest.raises(CompileError) as error:
        plan_model(budget=0.02)
    text = str(error.value)
    assert "does not fit 2% of the AMD Alveo U280" in text
    assert "at least" in text and "the caps leave" in text
    assert "budget=1.0" in text


def test_what_binds_is_named() -> None:
    model = limited()
    assert [g.name for g in model.plan.binding] == ["products"]
    assert "products a cycle" in str(model.plan)
    assert "10 % more would save" in str(model.plan)
    text = str(planned().plan)
    for word in ("modelled", "not synthesised", "SLR0-SLR1", "What binds", linear(planned())):
        assert word in text


def test_throughput_balances_the_launch() -> None:
    quick, busy = half(), plan_model(objective="throughput", budget=0.5)
    assert quick.plan.plan.objective == "latency" and busy.plan.plan.objective == "throughput"
    pace = [max(s.busy for s in m.plan.stages) for m in (quick, busy)]
    assert pace[1] <= pace[0]


def test_the_plan_s_clock_reaches_the_project(tmp_path: Path) -> None:
    model = plan_model(SMALL, clock_mhz=225)
    files = project_files(model)
    (link,) = [text for name, text in files.items() if name.endswith("link.cfg")]
    assert "kernel_frequency=225\n" in link
    assert model.board.clock_mhz == 225 != U280.clock_mhz
    model.save(tmp_path / "saved")
    assert torch2fpga.load(tmp_path / "saved").board.clock_mhz == 225
