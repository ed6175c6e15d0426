# SPDX-License-Identifier: Apache-2.0
"""Reports of timed runs: every cycle is accounted for, once; deadlocks are complete."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests import tiny
from tests.timed_samples import BUCKET, CYCLES, raw_run, report_of, sample
from tests.tiny import cxx_cache, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import PARAMETER_DEALER
from torch2fpga.timing.inputs import random_inputs
from torch2fpga.timing.report import TimeReport
from torch2fpga.timing.states import STATES, fitted, longest_waits, slices, tight_streams, totals, waits

__all__ = ["cxx_cache", "seeded"]


def check_accounts(report: TimeReport) -> None:
    """Busy, waits and idle are the run; the timeline and the streams add up to the waits."""
    for stage in report.stages:
        assert stage.busy >= 0
        assert sum(totals(stage, report.cycles).values()) == report.cycles
        lost = [sum(row[i] for row in stage.lost) for i in range(3)]
        assert lost == [stage.stalled_input, stage.stalled_output, stage.stalled_memory]
    for stage in report.stages:
        own = [s for s in report.streams if s.reader == stage.name]
        if sum(other.name == stage.name for other in report.stages) == 1:
            assert sum(s.stalled_reads for s in own) == stage.stalled_input


def check_slices(report: TimeReport, pieces: list[Any]) -> None:
    """Without gap or overlap from 0 to the end, neighbours differ, and every cycle is in one state."""
    assert pieces[0].begin == 0 and pieces[-1].end == report.cycles
    for before, after in itertools.pairwise(pieces):
        assert before.end == after.begin and before.state != after.state
    for piece in pieces:
        assert sum(piece.spent) == piece.cycles > 0 and min(piece.spent) >= 0


@pytest.mark.parametrize("seed", range(3))
def test_slices_cover_the_run(seed: int) -> None:
    _, report = sample(seed=seed)
    check_accounts(report)
    for stage in report.stages:
        for group in (1, 3, 64, 1024):
            pieces = slices(report, stage, group)
            check_slices(report, pieces)
            spent = [sum(p.spent[i] for p in pieces) for i in range(len(STATES))]
            assert spent == list(totals(stage, report.cycles).values())


def test_a_slice_has_the_state_that_takes_most() -> None:
    model = tiny.compiled("mlp3d")
    raw = raw_run(model)
    first = raw["processes"][0]
    first |= {"ends": [3 * BUCKET], "lost": [[9, 0, 0], [0, 0, 0], [1, 2, 10]]}
    first |= {"input": 10, "output": 2, "memory": 10}
    report = report_of(model, raw)
    found = slices(report, report.stages[0])
    assert [(p.state, p.begin, p.end) for p in found] == [
        ("input", 0, BUCKET), ("busy", BUCKET, 2 * BUCKET), ("memory", 2 * BUCKET, 3 * BUCKET),
        ("idle", 3 * BUCKET, CYCLES),
    ]  # fmt: skip
    assert found[2].spent == (3, 10, 2, 1, 0)
    coarse = slices(report, report.stages[0], 4)
    assert [(p.state, p.end) for p in coarse] == [("busy", 3 * BUCKET), ("idle", CYCLES)]


def test_the_grid_gets_coarser_until_slices_fit() -> None:
    _, report = sample()
    fine = sum(map(len, fitted(report, 10**6)))
    few = sum(map(len, fitted(report, fine // 4)))
    assert 0 < few <= fine // 4
    assert sum(map(len, fitted(report, 1))) <= 2 * len(report.stages)


def test_waits_name_stream_and_other_side() -> None:
    model, report = sample()
    found = waits(report)
    assert [w.cycles for w in found] == sorted((w.cycles for w in found), reverse=True)
    writers = model.design.writers()
    seen = 0
    for wait in found:
        if wait.state == "input" and wait.stream in writers:
            assert wait.other == writers[wait.stream]
            assert str(wait) == f"{wait.stream} from {wait.other}"
            seen += 1
    assert seen > 3
    for (kernel, stage, state), wait in longest_waits(report).items():
        same = [w for w in found if (w.kernel, w.stage, w.state) == (kernel, stage, state)]
        assert wait.cycles == max(w.cycles for w in same)


def test_names_that_two_kernels_use_are_told_apart() -> None:
    """Every kernel but the first has a process deal_parameters."""
    _, report = sample("encoder")
    several = {s.kernel for s in report.stages if s.name == PARAMETER_DEALER}
    assert len(several) > 1
    for wait in waits(report):
        if wait.stage == PARAMETER_DEALER and wait.state == "output":
            (reader,) = (s.kernel for s in report.stages if s.name == wait.other)
            assert wait.kernel == reader
        elif wait.stage == PARAMETER_DEALER and wait.state == "input":
            assert wait.stream == f"{wait.kernel}_parameters"


def test_tight_streams_are_full_or_hold_their_writer_up() -> None:
    _, report = sample()
    tight = tight_streams(report)
    assert tight and tight[0].stalled_writes == max(s.stalled_writes for s in report.streams)
    others = [s for s in report.streams if s not in tight]
    assert others and all(s.high_water < s.depth and not s.stalled_writes for s in others)


def test_json_is_plain_and_complete() -> None:
    _, report = sample()
    data = json.loads(json.dumps(report.to_json()))
    assert data["basis"] == "timed" and data["cycles"] == CYCLES and "output" not in data
    assert data["seconds"] == pytest.approx(CYCLES / 250e6)
    assert len(data["stages"]) == len(report.stages) and data["stages"][0]["loops"][0]["ii"] == 1


def test_texts() -> None:
    _, report = sample()
    assert repr(report) == f"<TimeReport {CYCLES:,} cycles, 0.02001 ms at 250 MHz (timed), 2 x 5 rows>"
    text = str(report)
    assert "not synthesised" in text and "busiest stage" in text and "memory ports" in text
    assert max(map(len, text.splitlines())) <= 128


def deadlocked(model: CompiledModel) -> TimeReport:
    """A run in which FIFOs of a residual branch are far too short."""
    fifos = {n: 4 for n, s in model.design.streams.items() if s.depth > 4}
    return model.time(**random_inputs(model), fifos=fifos, spread=False, interval=False)


@pytest.mark.gxx
def test_a_deadlock_is_complete() -> None:
    model = tiny.compiled("encoder")
    report = deadlocked(model)
    assert report.deadlock is not None and report.output is None
    ring = report.deadlock.cycle
    assert {w.side for w in ring} == {"read", "write"}
    for wait, after in zip(ring, (*ring[1:], ring[0]), strict=True):
        assert wait.peer == after.stage
    assert all(w.peer for w in report.deadlock.waits), "the design knows both ends of every stream"
    for wait in report.deadlock.waits:
        stages = [s for s in report.stages if s.name == wait.stage and s.end == report.cycles]
        state = "input" if wait.side == "read" else "output"
        last = [slices(report, s)[-1] for s in stages]
        if report.cycles - wait.cycle > 2 * report.bucket:
            assert state in [piece.state for piece in last], wait
    for stage in report.stages:
        assert sum(totals(stage, report.cycles).values()) == report.cycles and stage.busy >= 0
        check_slices(report, slices(report, stage))
    text = str(report)
    assert "wait cycle:" in text and all(str(w) in text for w in report.deadlock.waits)


@pytest.mark.gxx
@pytest.mark.parametrize("name", ["mlp3d", "encoder"])
def test_accounts_of_a_real_run(name: str) -> None:
    model = tiny.compiled(name)
    report = model.time(**random_inputs(model), spread=False, interval=False)
    assert report.deadlock is None
    check_accounts(report)
    for stage in report.stages:
        check_slices(report, slices(report, stage))
    assert max(s.end for s in report.stages) <= report.cycles
