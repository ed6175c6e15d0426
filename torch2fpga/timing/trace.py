# SPDX-License-Identifier: Apache-2.0
"""A timed run in the trace event format that Perfetto (ui.perfetto.dev) and chrome://tracing show.

A process a kernel, a thread a stage, times in microseconds of the planned clock. Format: "Trace Event
Format" by the Chromium authors; complete events (``X``) and metadata events (``M``) only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch2fpga.errors import CompileError
from torch2fpga.timing.report import StageTime, TimeReport
from torch2fpga.timing.states import STATES, Slice, WaitTotal, fitted, longest_waits

#: most events of stages; the grid of time is made coarser until they fit
MOST_EVENTS = 4000
#: digits behind the point of a microsecond: a picosecond
DIGITS = 6


def trace(report: TimeReport) -> dict[str, Any]:
    """The trace as plain data; the same report gives the same trace.

    An event is a time in which one state takes the most of a stage: ``busy``, a wait, or ``idle``.
    Its ``args`` say how many cycles each state really took, and which stream the stage waited for
    most (over the run; the timeline does not tell streams apart).
    """
    kernels = list(dict.fromkeys(stage.kernel for stage in report.stages))
    longest = longest_waits(report)
    names: list[dict[str, Any]] = []
    for number, kernel in enumerate(kernels, 1):
        names += _named("process", number, 0, f"kernel {kernel}", number)
    events: list[dict[str, Any]] = []
    for thread, (stage, pieces) in enumerate(zip(report.stages, fitted(report, MOST_EVENTS), strict=True), 1):
        process = kernels.index(stage.kernel) + 1
        names += _named("thread", process, thread, stage.name, thread)
        for piece in pieces:
            wait = longest.get((stage.kernel, stage.name, piece.state))
            events.append(_event(piece, process, thread, report.clock_mhz, stage, wait))
    events.sort(key=lambda event: (event["ts"], event["tid"]))
    return {
        "traceEvents": [*names, *events],
        "displayTimeUnit": "ns",
        "otherData": {
            "basis": "timed: emitted C++ with a clock in every process; not synthesised, no card",
            "cycles": report.cycles,
            "clock_mhz": report.clock_mhz,
            "batch": report.batch,
            "seq": report.seq,
        },
    }


def write_trace(report: TimeReport, path: Path) -> Path:
    """Write the trace as JSON.

    Raises:
        CompileError: if the place cannot be written.
    """
    try:
        path.write_text(json.dumps(trace(report), separators=(",", ":")) + "\n", encoding="utf-8")
    except OSError as error:
        raise CompileError(f"cannot write the trace to {path}: {error}") from error
    return path


def _named(kind: str, process: int, thread: int, name: str, place: int) -> list[dict[str, Any]]:
    where = {"ph": "M", "pid": process, "tid": thread}
    return [
        {"name": f"{kind}_name", **where, "args": {"name": name}},
        {"name": f"{kind}_sort_index", **where, "args": {"sort_index": place}},
    ]


def _event(
    piece: Slice, process: int, thread: int, clock_mhz: float, stage: StageTime, wait: WaitTotal | None
) -> dict[str, Any]:
    begin, end = (round(cycle / clock_mhz, DIGITS) for cycle in (piece.begin, piece.end))
    args: dict[str, Any] = {"begin": piece.begin, "end": piece.end, **_spent(piece.spent)}
    if wait is not None:
        args["mostly for"] = str(wait)
    if stage.path:
        args["module"] = stage.path
    return {
        "name": STATES[piece.state], "cat": "timed", "ph": "X", "pid": process, "tid": thread,
        "ts": begin, "dur": round(end - begin, DIGITS), "args": args,
    }  # fmt: skip


def _spent(spent: Sequence[int]) -> dict[str, int]:
    return {f"cycles {word}": n for word, n in zip(STATES.values(), spent, strict=True) if n}
