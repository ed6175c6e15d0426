# SPDX-License-Identifier: Apache-2.0
"""Reports of timed runs that nobody ran: made up, but consistent as a real one is."""

from __future__ import annotations

import random
from typing import Any

from tests import tiny
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.kernel import _calls
from torch2fpga.emit.ports import all_ports
from torch2fpga.simulate.launch import Launch
from torch2fpga.timing.report import TimeReport, build_report

CLOCK = 250.0
CYCLES = 5003
BUCKET = 16


def _lost(rng: random.Random, end: int) -> list[list[int]]:
    """Cycles lost in each bucket of a process that runs from 0 to ``end``; phases of a few buckets."""
    rows: list[list[int]] = []
    mood = 0
    for begin in range(0, end, BUCKET):
        length = min(BUCKET, end - begin)
        if rng.random() < 0.1:
            mood = rng.randrange(4)
        row = [0, 0, 0]
        if mood < 3:
            row[mood] = rng.randint(length // 2, length)
            row[(mood + 1) % 3] = rng.randint(0, length - row[mood])
        rows.append(row)
    while rows and not any(rows[-1]):
        rows.pop()
    return rows


def raw_run(model: CompiledModel, seed: int = 0) -> dict[str, Any]:
    """What the simulation would print about one launch."""
    design, rng = model.design, random.Random(seed)
    processes, streams = [], {n: [0, 0] for n in design.streams}
    uses: dict[str, list[str]] = {n: ["", ""] for n in design.streams}
    for kernel in design.kernels:
        for call in _calls(design, kernel):
            path = f"{kernel.name}/{call.name}"
            end = rng.randint(CYCLES // 2, CYCLES)
            lost = _lost(rng, end)
            sums = [sum(row[i] for row in lost) for i in range(3)]
            ends = _ends(model, call.name, [a for a in call.arguments if a in design.streams])
            for column in (0, 1):
                for stream in ends[column]:
                    uses[stream][1 - column] = path
                if ends[column]:
                    streams[ends[column][0]][column] = sums[column]
                else:  # nothing to wait for
                    for row in lost:
                        row[column] = 0
                    sums[column] = 0
            loop = {"file": "x.hpp", "line": 7, "ii": 1, "depth": 9, "latency": 0, "entries": 2,
                    "iterations": 50, "input": sums[0], "output": sums[1], "memory": sums[2]}  # fmt: skip
            processes.append(
                {"path": path, "leaf": True, "begins": [0], "ends": [end], "loops": [loop], "lost": lost,
                 "input": sums[0], "output": sums[1], "memory": sums[2]}
            )  # fmt: skip
        ending = {
            "path": kernel.name,
            "leaf": False,
            "begins": [0],
            "ends": [CYCLES],
            "loops": [],
            "lost": [],
        }
        processes.append({**ending, "input": 0, "output": 0, "memory": 0})
    return {
        "cycles": CYCLES,
        "bucket": BUCKET,
        "processes": processes,
        "streams": [
            {"key": f"k/{n}", "depth": design.streams[n].depth, "high_water": 1 + i % design.streams[n].depth,
             "written": 40, "read": 40, "writer": uses[n][0], "reader": uses[n][1],
             "stalled_reads": waits[0], "stalled_writes": waits[1]}
            for i, (n, waits) in enumerate(streams.items())
        ],
        "ports": [
            {"name": f"{k.name}/{p.name}", "bytes": 64 * (i + 1) * 20, "transactions": 3, "busy": 30 * i,
             "first": 10, "last": 10 + 100 * (i + 1)}
            for i, (k, p) in enumerate(all_ports(design))
        ],
        "deadlock": None,
    }  # fmt: skip


def _ends(model: CompiledModel, name: str, streams: list[str]) -> tuple[list[str], list[str]]:
    """Streams that a process reads, and that it writes."""
    read, written = model.design.readers(), model.design.writers()
    params = {s.params for s in model.design.stages if s.params}
    writes = [s for s in streams if written.get(s) == name or (s in params and name == "read_parameters")]
    return [s for s in streams if s not in writes and read.get(s) == name], writes


def report_of(model: CompiledModel, raw: dict[str, Any], message: str = "") -> TimeReport:
    """The report of a run."""
    return build_report(raw, model.design, model.board, CLOCK, Launch(2, 5), {}, message)


def sample(name: str = "mlp3d", seed: int = 0) -> tuple[CompiledModel, TimeReport]:
    """A compiled model and a report about it."""
    model = tiny.compiled(name)
    return model, report_of(model, raw_run(model, seed))
