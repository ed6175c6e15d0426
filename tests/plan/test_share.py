# SPDX-License-Identifier: Apache-2.0
"""Designs whose layers share lanes: bits, clocks and traffic, the emitted project, plans and saved models."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.emit.projects import bench, make, renew_sums, write
from tests.tiny import (
    WORDS,
    bert,
    build,
    compile_model,
    compiled,
    cxx_cache,
    ids,
    padding,
    rotating,
    run,
    seeded,
)
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.emit import testbench
from torch2fpga.emit.check import check_project
from torch2fpga.emit.golden import golden_run
from torch2fpga.emit.ports import all_ports
from torch2fpga.emit.project import project_files
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.lower.lanes import LanesDealStage, LanesPart, LaneStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.linear4 import Int4MatmulStage
from torch2fpga.plan.plan import Plan, load_plan
from torch2fpga.plan.share import dealt_sums, lane_limit, mark_shared, members, share_lanes
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.runtime.generation import verify_generation
from torch2fpga.timing.depths import depths_of, pipelined_loops

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.hf
ROWS, LENGTH = 7, 29


def _text(rows: int, seed: int = 3) -> Tensor:
    return torch.randint(WORDS, (1, rows), generator=torch.Generator().manual_seed(seed))


def _generating(model: nn.Module, **options: Any) -> CompiledModel:
    samples = [{"input_ids": _text(20, seed)} for seed in range(8)]
    inputs = {"input_ids": _text(ROWS)}
    return torch2fpga.compile(
        model.eval(), inputs, generate=True, max_length=LENGTH, calibration=samples, **options
    )


def _gpt2(layers: int) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    sizes = {"n_layer": layers, "n_embd": 36, "n_head": 3, "vocab_size": WORDS, "n_positions": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))


#: what a plan says nothing about; two lanes of three blocks, three steps; int4, gates and grouped heads;
#: words of 8 channels, a tile of one row, without text generation
MODELS: dict[str, Callable[[], CompiledModel]] = {
    "chosen": lambda: _generating(_gpt2(2), tile=2),
    "int8": lambda: _generating(_gpt2(3), tile=3, plan={"lanes": 2}),
    "int4": lambda: _generating(rotating("Llama"), tile=2, plan={"lanes": 2}, precision="w4a8"),
    "narrow": lambda: _generating(_gpt2(2), lanes=8, plan={"lanes": 5}),
    "encoder": lambda: compile_model(
        bert(), {"input_ids": ids(1), "attention_mask": padding(1)}, plan={"lanes": 2}, tile=2
    ),
}


@lru_cache
def shared(name: str) -> CompiledModel:
    """A model of ``MODELS``, compiled once a process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]()


every_model = pytest.mark.parametrize("name", MODELS)
GENERATING = ("chosen", "int8", "int4", "narrow")


def lanes_of(design: Design) -> list[LaneStage]:
    """The lanes of a design."""
    return [s for s in design.stages if isinstance(s, LaneStage)]


# -- structure ------------------------------------------------------------------------------------


@every_model
def test_layers_are_logic_and_lanes_do_their_work(name: str) -> None:
    model = shared(name)
    design = model.design
    assert not any(isinstance(s, MatmulStage) for s in design.stages)
    layers = members(design)
    assert len(layers) == sum(isinstance(s, MatmulStage) for s in design.logic) > 4
    made = lanes_of(design)
    assert [lane.number for lane in made] == list(range(model.plan.plan.lanes))
    select = next(s for s in design.stages if s.name == "lanes_select")
    assert select.inputs == tuple(layer.inputs[0] for layer in layers)
    own = [sum(lane.own_blocks()[use] for lane in made) for use in range(len(layers))]
    assert own == [layer.layout_out.blocks(design.shape.lanes) for layer in layers]
    # the sums of all go to the next kernel; what it does not deal out goes on to the one behind it
    deals = [s for s in design.stages if isinstance(s, LanesDealStage)]
    links = ["lanes_sums", *(s.inputs[0] for s in deals[1:])]
    assert len(deals) == 2 and [s.inputs[0] for s in deals] == links
    assert all(design.streams[n].link and design.streams[n].kind == "sums" for n in links)
    near = [[s.outputs[slot] for s in deals if (slot := s.slots[use]) >= 0] for use in range(len(layers))]
    assert all(sum(n not in links for n in names) == 1 for names in near)
    assert all((len(names) == 2) == (links[1] in names) for names in near)
    ports = [p for p in design.ports if p.role == "weights"]
    assert [p.binding for p in ports] == [lane.name for lane in made]


def test_the_plan_takes_the_ports_that_are_left() -> None:
    """No more than the narrowest layer has blocks: 36 channels are three."""
    model = shared("chosen")
    assert model.plan.plan.lanes == lane_limit(_unshared(model)) == 3
    assert sum(p.role == "weights" for p in model.design.ports) == 3


def _unshared(model: CompiledModel) -> Design:
    """The layers of a model with an array each, before kernels are cut."""
    stages = tuple(replace(s, lanes=0) if isinstance(s, MatmulStage) else s for s in model.design.logic)
    return replace(model.design, stages=stages, logic=(), kernels=(), ports=())


@every_model
def test_images_have_the_ports_sizes(name: str) -> None:
    model = shared(name)
    weights = [p for _, p in all_ports(model.design) if p.role == "weights"]
    assert [len(model.images[p.name]) for p in weights] == [64 * p.words for p in weights]
    # all lanes together hold the layers' images, a part each
    layers = members(model.design)
    whole = sum(layer.weight_words(model.design) * layer.steps for layer in layers)
    assert sum(p.words for p in weights) == whole


# -- bits, clocks, traffic ------------------------------------------------------------------------


@pytest.mark.gxx
@pytest.mark.parametrize("name", GENERATING)
def test_every_stream_equals_the_reference(name: str) -> None:
    splits = [(3, 4, 2), (17,)] if name == "int8" else [(3, 4, 2)]
    for split in splits:
        report = verify_generation(shared(name), _text(ROWS), split)
        assert report.bit_exact, str(report)
        assert len(report.tokens) == sum(split) and report.compared > 10_000


@pytest.mark.gxx
def test_a_model_that_does_not_generate() -> None:
    model = shared("encoder")
    inputs = {"input_ids": ids(1), "attention_mask": padding(1)}
    report = run(model.verify, inputs)
    assert report.bit_exact, str(report)


@pytest.mark.gxx
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_every_stage_takes_what_its_formula_says(name: str) -> None:
    model = shared(name)
    loops = pipelined_loops(model.design, U280.clock_mhz)
    parts = [s for s in model.design.stages if isinstance(s, LanesPart)]
    for context, rows, tokens in ((0, ROWS, 3), (16, 1, 2), (11, 3, 1)):
        report = model.time_generation(
            _text(rows),
            tokens=tokens,
            context=context,
            clock_mhz=U280.clock_mhz,
            spread=False,
            interval=False,
        )
        work = [(context, rows), *((context + rows + i, 1) for i in range(tokens - 1))]
        for stage in parts:
            depth = depths_of(loops, stage.name)
            want = sum(stage.turn_cycles(model.design, n, past, depth) for past, n in work)
            assert report.stage(stage.name).busy == want, stage.name
        moved = bytes_moved(model.design, 1, rows, context, tokens)
        assert {(p.kernel, p.name): p.bytes for p in report.ports} == moved


# -- the emitted project --------------------------------------------------------------------------


@pytest.mark.needs("clang")
@pytest.mark.parametrize("name", ["chosen", "int4"])
def test_the_checker_finds_nothing(name: str) -> None:
    assert check_project(project_files(shared(name)), include_dirs=[]) == []


@pytest.mark.gxx
def test_the_test_bench_passes_and_sees_wrong_sums(tmp_path_factory: pytest.TempPathFactory) -> None:
    project = write(shared("chosen"), tmp_path_factory, "lanes")
    printed = make(project, "csim_gxx")
    assert re.search(r"^(\d+) passed, 0 failed$", printed, re.MULTILINE)
    kernel = shared("chosen").design.kernels[0].name
    assert re.search(rf"^kernel {kernel} +ok", printed, re.MULTILINE)
    tested = set(re.findall(r"^stage +(\w+) +ok", printed, re.MULTILINE))
    left_out = {s.name for s in shared("chosen").design.stages} - tested
    assert left_out == {"lanes_select", "lanes_gather", "lane_0", "lane_1", "lane_2"}
    # two layers' sums change places in what the next kernel is given, and in what this one gives
    file = project / "golden" / "lanes_sums.bin"
    sums = file.read_bytes()
    file.write_bytes(sums[64:128] + sums[:64] + sums[128:])
    renew_sums(project)
    failed = set(re.findall(r"^(?:kernel|stage) +(\w+) +FAIL", bench(project).stdout, re.MULTILINE))
    following = shared("chosen").design.kernels[1].name
    assert failed == {kernel, following, f"lanes_deal_{following}"}


@every_model
def test_sums_over_links_are_the_layers_outputs_in_turn(name: str) -> None:
    """Token by token, by plain loops over turns, steps and layers."""
    model = shared(name)
    design, golden = model.design, golden_run(model)
    layers = {layer.outputs[0]: layer for layer in members(design)}
    turns = [golden.seq, *[1] * (golden.turns - 1)]
    for link, uses in dealt_sums(design).items():
        (deal,) = [s for s in design.stages if isinstance(s, LanesDealStage) and s.inputs == (link,)]
        steps = [sum(step == n for _, step in uses) for n in range(design.steps)]
        assert steps[1:] == steps[1:2] * (design.steps - 1)
        tokens = 0
        for rows, (stream, _) in itertools.product(turns, uses):
            layer = layers[stream.name]
            tokens += (1 if layer.one_row else rows) * layer.layout_out.blocks(design.shape.lanes)
        assert len(golden.files[golden.sources[link]]) == tokens * design.shape.lanes * 4
        assert deal.inputs == (link,)


def test_inner_stages_of_lanes_have_no_test_of_their_own() -> None:
    model = shared("chosen")
    golden = golden_run(model)
    alone = {s.name for s in model.design.stages if testbench.tested_alone(model.design, s, golden)}
    kernel = model.design.kernels[1].name
    assert "lane_0" not in alone and "lanes_gather" not in alone and f"lanes_deal_{kernel}" in alone


# -- plans and saved models -----------------------------------------------------------------------


def test_a_plan_comes_back(tmp_path: Path) -> None:
    plan = shared("int8").plan.plan
    assert isinstance(plan, Plan) and plan.lanes == 2
    assert "lanes = 2" in plan.to_toml()
    assert load_plan(plan.save(tmp_path / "plan.toml")) == plan
    again = _generating(_gpt2(3), tile=3, plan=tmp_path / "plan.toml")
    assert again.design == shared("int8").design


@pytest.mark.parametrize("value", [-1, 33, True, "all"])
def test_impossible_numbers_of_lanes_are_refused(value: Any) -> None:
    with pytest.raises(CompileError, match=r"lanes is .* allowed is a whole number from 0 to 32"):
        load_plan({"lanes": value})


def test_a_simple_plan_has_no_lanes() -> None:
    model = _generating(_gpt2(2), tile=2, plan="simple")
    assert not lanes_of(model.design) and not model.design.logic


@pytest.mark.gxx
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_saved_models_come_back(name: str, tmp_path: Path) -> None:
    model = shared(name)
    model.save(tmp_path / "model")
    again = torch2fpga.load(tmp_path / "model")
    assert again.design == model.design and again.images == model.images
    assert project_files(again) == project_files(model)
    prompt = _text(4)
    assert torch.equal(again.generate(prompt, max_new_tokens=5), model.generate(prompt, max_new_tokens=5))


# -- what cannot share ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plan", "why"),
    [
        ("mlp2d", {"lanes": 1}, "no layer loop.*linear stands in front of the layer loop"),
        ("bert", {"lanes": 2}, "one sequence a launch, not 2: compile with one"),
        (
            "gpt2",
            {"lanes": 2},
            "lm_head works on all rows: lanes take all rows in the layer loop, one row behind",
        ),
        ("bert", {"lanes": 4}, r"4 lanes are more than the channel blocks that layers make \(.* 3"),
        ("bert", {"lanes": 2, "slr": {"pooler_dense": 1}}, "they lie in SLR0, SLR1: all of them belong"),
    ],
)
def test_layers_that_cannot_share_are_refused(name: str, plan: dict[str, Any], why: str) -> None:
    model, inputs = build(name)
    with pytest.raises(DesignError, match=f"(?s)lanes = 0 gives each an array of its own.*{why}"):
        compile_model(model, inputs, plan=plan)


def test_layers_in_another_region_are_refused() -> None:
    """All of them in one kernel, but not where the memory is."""
    plan = {"lanes": 2, "slr": {s.name: 1 for s in members(shared("encoder").design)}}
    inputs = {"input_ids": ids(1), "attention_mask": padding(1)}
    with pytest.raises(
        DesignError, match="they lie in SLR1: all of them belong in the SLR beside the memory"
    ):
        compile_model(bert(), inputs, plan=plan)


def test_formats_of_weights_are_not_mixed() -> None:
    design = mark_shared(compiled("bert").design, 2)
    stages = list(design.stages)
    at, layer = next((i, s) for i, s in enumerate(stages) if isinstance(s, MatmulStage) and s.group == "loop")
    values = {f.name: getattr(layer, f.name) for f in fields(layer)}
    stages[at] = Int4MatmulStage(**values)
    with pytest.raises(DesignError, match="one format of weights"):
        share_lanes(replace(design, stages=tuple(stages)))


def test_sums_must_leave_the_kernel() -> None:
    """Stages behind the layers in the lanes' own kernel would close a cycle in it."""
    model, inputs = bert(), {"input_ids": ids(1), "attention_mask": padding(1)}
    names = {s.name for s in shared("encoder").design.stages}
    requant = next(n for n in names if "query" in n and n.endswith("requant"))
    plan = {"lanes": 2, "slr": {requant: 0}}
    with pytest.raises(DesignError, match=r"must be read outside of kernel .*: .* other SLRs than SLR0"):
        compile_model(model, inputs, plan=plan)


def test_without_lanes_nothing_changes() -> None:
    design = compiled("bert").design
    assert share_lanes(design) is design


def test_a_model_of_one_layer_generates_without_lanes() -> None:
    """Nothing repeats in it, so no layers take turns; it is laid out by the simple rules."""
    made = _generating(_gpt2(1))
    assert made.design.steps == 1 and not made.design.logic
    report = verify_generation(made, _text(ROWS), (1, 4))
    assert report.bit_exact, str(report)
