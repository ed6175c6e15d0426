# SPDX-License-Identifier: Apache-2.0
"""The timed run against formulas: every stage against its closed form, whole models against the
analytical estimate."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from tests.timing.models import long_bert, timed
from tests.tiny import (
    LONG,
    Inputs,
    bert,
    compile_model,
    compiled,
    cxx_cache,
    ids,
    padding,
    rows,
    run,
    seeded,
)
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import project_files
from torch2fpga.lower.attention import ScoresStage, SoftmaxStage, ValuesStage
from torch2fpga.plan.latency import estimate_latency
from torch2fpga.timing.depths import depths_of, pipelined_loops
from torch2fpga.timing.report import StageTime

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.gxx
#: (model, lanes, tile) whose sources other tests compile too
CASES = [("bert", 8, 4), ("bert", 16, 3), ("gpt2_mask", 8, 4), ("mlp3d", 16, 2)]


def own_cycles(stage: StageTime) -> int:
    """From start to end without waiting for others: what the closed form says."""
    return stage.end - stage.begin - stage.stalled_input - stage.stalled_output - stage.stalled_memory


def compare(model: CompiledModel, batch: int, seq: int) -> int:
    design, report = model.design, timed(model, batch, seq)
    loops = pipelined_loops(design, report.clock_mhz)
    seen = 0
    for stage in design.stages:
        kernel = next(k.name for k in design.kernels if stage.name in k.stages)
        found = next(s for s in report.stages if (s.kernel, s.name) == (kernel, stage.name))
        want = stage.cycles(design, batch, seq, depths_of(loops, stage.name))
        assert own_cycles(found) == want, f"{stage.name}: timed {own_cycles(found)}, formula {want}"
        seen += 1
        front = stage.front(design)
        if front is not None:
            found = next(s for s in report.stages if (s.kernel, s.name) == (kernel, front.name))
            want = stage.front_cycles(design, batch, seq, depths_of(loops, front.name))
            assert own_cycles(found) == want, f"{front.name}: timed {own_cycles(found)}, formula {want}"
    return seen


@pytest.mark.parametrize(("name", "lanes", "tile"), CASES)
def test_every_stage_takes_what_its_formula_says(name: str, lanes: int, tile: int) -> None:
    model = compiled(name, lanes, tile)
    assert compare(model, model.design.shape.max_batch, model.design.shape.max_seq) > 5


@pytest.mark.parametrize(("batch", "seq"), [(1, 1), (1, 4), (2, 5), (3, 18), (3, LONG)])
def test_formulas_hold_at_every_length(batch: int, seq: int) -> None:
    kinds = {s.template for s in long_bert().design.stages}
    assert {"matmul", "normalize", "softmax_weights", "attention_scores", "attention_values"} <= kinds
    assert compare(long_bert(), batch, seq) > 40


class _Attention(nn.Module):
    """Self-attention alone: a token sees those before it, or all."""

    def __init__(self, size: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal, width = heads, causal, size * heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        heads = (*x.shape[:2], self.heads, -1)
        parts = [part(x).view(heads).transpose(1, 2) for part in (self.q, self.k, self.v)]
        mixed = nn.functional.scaled_dot_product_attention(*parts, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


@lru_cache
def _attention(mode: str, size: int, heads: int, tile: int, seq: int) -> tuple[CompiledModel, Inputs]:
    """Attention that is masked (in a model of one layer, whose input the mask is), causal or neither."""
    if mode == "masked":
        inputs: Inputs = {"input_ids": ids(2, seq), "attention_mask": padding(2, seq)}
        model = bert(1, hidden_size=heads * size, num_attention_heads=heads)
    else:
        inputs = (rows(2, seq, heads * size),)
        model = _Attention(size, heads, mode == "causal")
    made = compile_model(model, inputs, lanes=16, tile=tile)
    (softmax,) = [s for s in made.design.stages if isinstance(s, SoftmaxStage)]
    assert (softmax.causal, softmax.masked) == (mode == "causal", mode == "masked")
    return made, inputs


def _with_columns(model: CompiledModel, columns: int) -> CompiledModel:
    """The same model with other arrays in its attention."""
    stages = tuple(
        replace(s, columns=columns) if isinstance(s, ScoresStage | ValuesStage) else s
        for s in model.design.stages
    )
    parts = (model.data, model.interface, model.output, model.board, model.origin)
    return CompiledModel(replace(model.design, stages=stages), *parts)


@pytest.mark.parametrize(
    ("columns", "mode", "size", "heads", "tile", "seq"),
    [
        (1, "masked", 24, 3, 3, 33),
        (2, "causal", 64, 1, 8, 33),
        (4, "neither", 64, 3, 4, 64),
        (8, "causal", 24, 3, 1, 5),
        (16, "masked", 24, 1, 8, 64),
    ],
)
def test_attention_with_any_number_of_columns(
    columns: int, mode: str, size: int, heads: int, tile: int, seq: int
) -> None:
    """Equal to the reference, and as fast as the formulas say."""
    model, inputs = _attention(mode, size, heads, tile, seq)
    model = _with_columns(model, columns)
    assert run(model.verify, inputs).bit_exact
    for batch, length in ((2, seq), (1, 1), (2, 5)):
        assert compare(model, batch, length) > 5


@pytest.mark.parametrize("columns", [1, 4, 16])
def test_the_checker_accepts_any_number_of_columns(columns: int) -> None:
    model = _with_columns(_attention("neither", 64, 3, 4, 64)[0], columns)
    arrays = [
        loop
        for loop in pipelined_loops(model.design, 300)
        if loop.label in ("SCORES", "MEAN", "KEEP") and loop.process.endswith(("_qk", "_pv"))
    ]
    assert len(arrays) == 4 and {(loop.ii, loop.minimum_ii) for loop in arrays} == {(1, 1)}
    assert check_project(project_files(model), include_dirs=[]) == []


def test_a_wrong_formula_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2fpga.lower.layer_norm import NormalizeStage

    right = NormalizeStage.cycles
    monkeypatch.setattr(NormalizeStage, "cycles", lambda *a: right(*a) + 1)
    with pytest.raises(AssertionError, match="layernorm: timed"):
        compare(long_bert(), 1, 4)


@pytest.mark.parametrize(("batch", "seq"), [(1, LONG), (3, LONG)])
def test_the_estimate_is_near_the_timed_run(batch: int, seq: int) -> None:
    """Tiny layers are mostly pipeline depth, so it has to be known here; at the sizes of real models
    the benchmark holds the estimate to the same bound without knowing it."""
    model = long_bert()
    report = timed(model, batch, seq)
    loops = pipelined_loops(model.design, report.clock_mhz)
    estimate = estimate_latency(
        model.design, model.board, batch, seq, depth_of=lambda stage, label: depths_of(loops, stage)(label)
    )
    error = estimate.cycles / report.cycles - 1
    assert abs(error) < 0.1, f"timed {report.cycles}, estimate {estimate.cycles}"
    assert estimate.pace in {s.name for s in model.design.stages}


def test_the_estimate_grows_with_the_work() -> None:
    model = long_bert()
    sizes = [(1, 1), (1, 8), (1, LONG), (2, LONG), (3, LONG)]
    found = [estimate_latency(model.design, model.board, *size).cycles for size in sizes]
    assert found == sorted(found) and len(set(found)) == len(found)
    slow = estimate_latency(model.design, model.board, 3, LONG, clock_mhz=2000).cycles
    assert slow > found[-1]  # the same memory is slower in cycles of a faster clock


def test_times_do_not_depend_on_values() -> None:
    model = long_bert()
    random = {
        "input_ids": torch.randint(0, 100, (3, LONG), generator=torch.Generator().manual_seed(3)),
        "attention_mask": padding(3, LONG),
    }
    blank = timed(model, 3, LONG)
    other = model.time(**random, spread=False, interval=False)
    assert other.cycles == blank.cycles
    assert [own_cycles(s) for s in other.stages] == [own_cycles(s) for s in blank.stages]
