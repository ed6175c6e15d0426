# SPDX-License-Identifier: Apache-2.0
"""Rules on pipelined loops: an interval that can be reached, and loops that a clock can follow.

Sources: UG1399 2022.2, "pragma HLS pipeline" and "Optimizing Array Accesses"; the bounds are those
of `torch2fpga.emit.checker.schedule`.  The other two rules are what the timed run takes for
granted (see the head of t2f/dataflow.hpp).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.schedule import DEFINES, UnitAnalysis
from torch2fpga.emit.checker.source import PROCESS_MACRO
from torch2fpga.emit.checker.syntax import Unit


def check(main: Path, dirs: Sequence[Path], label_of: Callable[[str], str]) -> Iterator[Finding]:
    """All schedule rules on the processes of one kernel source."""
    if PROCESS_MACRO not in main.read_text(encoding="utf-8"):
        return
    unit = Unit(main, dirs, DEFINES)
    if any(True for _ in unit.errors()):
        return  # the parse rule says so
    analysis = UnitAnalysis(unit)
    for place, loop in analysis.run():
        if loop.minimum_ii > loop.ii:
            message = (
                f"loop {loop.label} of process '{loop.process}' cannot start every {loop.ii} cycles, only "
                f"every {loop.minimum_ii}: {loop.reason}"
            )
            yield Finding(label_of(place), loop.line, "schedule-interval", message)
    for problem in sorted(analysis.problems):
        yield Finding(label_of(problem.file), problem.line, problem.rule, problem.message)
