# SPDX-License-Identifier: Apache-2.0
"""The trace: the format that viewers need, every stage over the whole run, small, always the same."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.timed_samples import CLOCK, CYCLES, sample
from torch2fpga.errors import CompileError
from torch2fpga.timing import trace as module
from torch2fpga.timing.states import STATES
from torch2fpga.timing.trace import trace, write_trace

Event = dict[str, Any]


def parts(data: dict[str, Any]) -> tuple[list[Event], dict[tuple[int, int], list[Event]]]:
    """Metadata events, and complete events by (process, thread)."""
    names = [e for e in data["traceEvents"] if e["ph"] == "M"]
    threads: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in data["traceEvents"]:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append(event)
    assert len(names) + sum(map(len, threads.values())) == len(data["traceEvents"])
    return names, threads


@pytest.mark.parametrize("name", ["mlp3d", "encoder"])
def test_every_stage_is_there_over_the_whole_run(name: str, tmp_path: Path) -> None:
    _, report = sample(name)
    data = json.loads(write_trace(report, tmp_path / "t.json").read_text())
    names, threads = parts(data)
    order = [e["ts"] for e in data["traceEvents"] if e["ph"] == "X"]
    assert order == sorted(order)
    whole = CYCLES / CLOCK
    for events in threads.values():
        assert events[0]["ts"] == 0
        for before, after in itertools.pairwise(events):
            assert before["ts"] + before["dur"] == pytest.approx(after["ts"], abs=1e-6)
            assert before["args"]["end"] == after["args"]["begin"]
        assert sum(e["dur"] for e in events) == pytest.approx(whole, abs=1e-5)
        assert sum(n for e in events for k, n in e["args"].items() if k.startswith("cycles ")) == CYCLES
    called = {(e["pid"], e["tid"]): e["args"]["name"] for e in names if e["name"] == "thread_name"}
    kernels = {e["pid"]: e["args"]["name"] for e in names if e["name"] == "process_name"}
    assert set(called) == set(threads)
    found = sorted((kernels[pid], stage) for (pid, _), stage in called.items())
    assert found == sorted((f"kernel {s.kernel}", s.name) for s in report.stages)


def test_events_say_for_whom_a_stage_waits() -> None:
    _, report = sample()
    names, threads = parts(trace(report))
    called = {e["tid"]: e["args"]["name"] for e in names if e["name"] == "thread_name"}
    seen = 0
    for (_, thread), events in threads.items():
        own = [s for s in report.streams if s.reader == called[thread] and s.stalled_reads]
        for event in events:
            assert event["name"] in STATES.values()
            if event["name"] == STATES["input"]:
                stream, _, writer = event["args"]["mostly for"].partition(" from ")
                assert (stream, writer) in [(s.name, s.writer) for s in own]
                seen += 1
            if event["name"] in (STATES["busy"], STATES["idle"]):
                assert "mostly for" not in event["args"]
    assert seen > 10


def test_the_trace_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = sample("encoder")
    fine = trace(report)["traceEvents"]
    assert len([e for e in fine if e["ph"] == "X"]) <= module.MOST_EVENTS
    monkeypatch.setattr(module, "MOST_EVENTS", 200)
    coarse = [e for e in trace(report)["traceEvents"] if e["ph"] == "X"]
    assert len(report.stages) <= len(coarse) <= 200 < len(fine)
    assert {e["tid"] for e in coarse} == {e["tid"] for e in fine if e["ph"] == "X"}


def test_the_trace_is_the_same_every_time(tmp_path: Path) -> None:
    one = write_trace(sample()[1], tmp_path / "one.json").read_bytes()
    assert one == write_trace(sample()[1], tmp_path / "two.json").read_bytes()
    assert one != write_trace(sample(seed=1)[1], tmp_path / "two.json").read_bytes()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="cannot write the trace"):
        write_trace(sample()[1], tmp_path)
