# SPDX-License-Identifier: Apache-2.0
"""What a stage does when, and what it waits for: the base of traces, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch2fpga.timing.report import StageTime, StreamTime, TimeReport

#: state -> what a reader sees; the order decides between states of equal length
STATES: dict[str, str] = {
    "busy": "busy",
    "memory": "waits for memory",
    "output": "waits for output",
    "input": "waits for input",
    "idle": "idle",
}
#: order of ``StageTime.lost``
LOST = ("input", "output", "memory")


@dataclass(frozen=True)
class Slice:
    """A piece of a stage's time in which one state takes the most cycles of every bucket.

    Attributes:
        begin, end: cycles from the start of the launch.
        spent: state -> cycles, all states of ``STATES`` in that order; they sum to the length.
    """

    state: str
    begin: int
    end: int
    spent: tuple[int, ...]

    @property
    def cycles(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class WaitTotal:
    """What one stage waited for in all.

    Attributes:
        state: ``input``, ``output`` or ``memory``.
        stream: the stream ("" for memory).
        other: who writes it (``input``) or reads it (``output``).
        cycles: over the whole run.
    """

    stage: str
    kernel: str
    state: str
    stream: str
    other: str
    cycles: int

    def __str__(self) -> str:
        if self.state == "memory":
            return "its memory port"
        return f"{self.stream} {'from' if self.state == 'input' else 'to'} {self.other or 'nobody'}"


def totals(stage: StageTime, cycles: int) -> dict[str, int]:
    """State -> cycles of a stage over a run of that many."""
    return {
        "busy": stage.busy,
        "memory": stage.stalled_memory,
        "output": stage.stalled_output,
        "input": stage.stalled_input,
        "idle": cycles - (stage.end - stage.begin),
    }


def slices(report: TimeReport, stage: StageTime, group: int = 1) -> list[Slice]:
    """A stage's run from cycle 0 to the end without gaps, ``group`` buckets of the timeline taken as one.

    A bucket has the state that takes the most of it; neighbours with the same state are one slice.
    """
    width = report.bucket * group
    pieces = [_idle(0, stage.begin)]
    for number in range(stage.begin // width, -(-stage.end // width)):
        begin, end = max(stage.begin, number * width), min(stage.end, (number + 1) * width)
        rows = stage.lost[number * group : (number + 1) * group]
        lost = dict(zip(LOST, map(sum, zip(*rows, strict=True)), strict=True)) if rows else {}
        spent = {"busy": end - begin - sum(lost.values()), "idle": 0, **dict.fromkeys(LOST, 0), **lost}
        state = max(STATES, key=lambda name: spent[name])
        pieces.append(Slice(state, begin, end, tuple(spent[name] for name in STATES)))
    return _merged([*pieces, _idle(stage.end, report.cycles)])


def _idle(begin: int, end: int) -> Slice:
    return Slice("idle", begin, end, tuple(end - begin if name == "idle" else 0 for name in STATES))


def _merged(pieces: Iterable[Slice]) -> list[Slice]:
    found: list[Slice] = []
    for piece in pieces:
        if piece.cycles <= 0:
            continue
        if found and found[-1].state == piece.state:
            spent = tuple(a + b for a, b in zip(found[-1].spent, piece.spent, strict=True))
            found[-1] = replace(found[-1], end=piece.end, spent=spent)
        else:
            found.append(piece)
    return found


def fitted(report: TimeReport, most: int) -> list[list[Slice]]:
    """Slices of every stage, in the finest grid in which they are at most ``most`` together.

    With more stages than that the coarsest grid (the whole run) is taken.
    """
    group = 1
    while True:
        found = [slices(report, stage, group) for stage in report.stages]
        if sum(map(len, found)) <= most or report.bucket * group >= report.cycles:
            return found
        group *= 2


def waits(report: TimeReport) -> list[WaitTotal]:
    """Everything that a stage waited for, longest first."""
    found = []
    for s in report.streams:
        sides = (
            ("input", s.reader, s.reader_kernel, s.writer, s.stalled_reads),
            ("output", s.writer, s.writer_kernel, s.reader, s.stalled_writes),
        )
        for state, stage_name, kernel, other, cycles in sides:
            if cycles:
                found.append(WaitTotal(stage_name, kernel, state, s.name, other, cycles))
    for stage in report.stages:
        if stage.stalled_memory:
            found.append(WaitTotal(stage.name, stage.kernel, "memory", "", "", stage.stalled_memory))
    return sorted(found, key=lambda w: (-w.cycles, w.kernel, w.stage, w.stream))


def longest_waits(report: TimeReport) -> dict[tuple[str, str, str], WaitTotal]:
    """(kernel, stage, state) -> what it waited for most in that state."""
    found: dict[tuple[str, str, str], WaitTotal] = {}
    for wait in waits(report):
        found.setdefault((wait.kernel, wait.stage, wait.state), wait)
    return found


def tight_streams(report: TimeReport) -> list[StreamTime]:
    """FIFOs that were full at some time or held their writer up; the worst first."""
    found = [s for s in report.streams if s.high_water >= s.depth or s.stalled_writes]
    return sorted(found, key=lambda s: (-s.stalled_writes, -s.stalled_reads, s.name))
