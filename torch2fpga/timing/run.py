# SPDX-License-Identifier: Apache-2.0
"""``CompiledModel.time``: timed runs of one design on one set of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch2fpga.errors import SimulationError
from torch2fpga.simulate.timed import Settings, TimedResult, check_fifos, link_latencies, port_settings
from torch2fpga.timing.depths import depth_settings, pipelined_loops, site
from torch2fpga.timing.report import TimeReport, build_report

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.emit.checker.schedule import PipelinedLoop

#: launches of the run that measures the steady interval: the first fills the pipeline
LAUNCHES = 3

Progress = Callable[[str, float], None]


def timed_settings(
    model: CompiledModel, clock_mhz: float, loops: Sequence[PipelinedLoop] | None = None
) -> Settings:
    """What the clock has to know about a design on its board; ``loops``, where they are at hand."""
    loops = loops if loops is not None else pipelined_loops(model.design, clock_mhz)
    return Settings(
        depths=depth_settings(loops),
        latencies=link_latencies(model.design, model.board),
        ports=port_settings(model.design, model.board, clock_mhz),
    )


def run_timed(model: CompiledModel, inputs: Mapping[str, Tensor], settings: Settings) -> TimedResult:
    """One timed run.

    Raises:
        SimulationError: if it fails for another reason than a deadlock.
    """
    batch, seq = next(iter(inputs.values())).shape[:2]
    result = model.timed.time(model.buffers(inputs), int(batch), int(seq), settings)
    if result.message and not result.report.get("deadlock"):
        raise SimulationError(result.message)
    return result


def cycles_of(result: TimedResult) -> int:
    """Cycles of a run that has to end.

    Raises:
        SimulationError: after a deadlock.
    """
    if result.message:
        raise SimulationError(result.message)
    return int(result.report["cycles"])


def time_model(
    model: CompiledModel,
    inputs: Mapping[str, Tensor],
    *,
    clock_mhz: float | None = None,
    fifos: Mapping[str, int] | None = None,
    spread: bool = True,
    interval: bool = True,
    cycle_limit: int | None = None,
    progress: Progress | None = None,
) -> TimeReport:
    """See ``CompiledModel.time``."""
    say = progress or (lambda _text, _done: None)
    clock = float(clock_mhz or model.board.clock_mhz)
    check_fifos(fifos or (), tuple(model.design.streams))  # before anything takes long
    say("analysing loops", 0.0)
    loops = pipelined_loops(model.design, clock)
    settings = replace(timed_settings(model, clock, loops), fifos=dict(fifos or {}))
    if cycle_limit is not None:
        settings = replace(settings, cycle_limit=cycle_limit)
    say("timed run", 0.2)
    result = run_timed(model, inputs, settings)
    batch, seq = next(iter(inputs.values())).shape[:2]
    labels = {site(loop): loop.label for loop in loops}
    report = build_report(
        result.report, model.design, model.board, clock, (int(batch), int(seq)), labels, result.message,
    )  # fmt: skip
    if report.deadlock is not None:
        return report
    found: dict[str, Any] = {"output": model.finish(result.buffers, inputs)}
    if spread:
        for key, percent, done in (("half_depth", 50, 0.4), ("double_depth", 200, 0.55)):
            say(f"timed run at {percent} % of the pipeline depths", done)
            found[key] = cycles_of(run_timed(model, inputs, replace(settings, depth_percent=percent)))
    if interval:
        say("launches back to back", 0.7)
        many = run_timed(model, inputs, replace(settings, launches=LAUNCHES))
        found["interval"] = _interval(cycles_of(many), many.report)
    say("done", 1.0)
    return replace(report, **found)


def _interval(cycles: int, report: Mapping[str, Any]) -> int:
    """Cycles between the ends of the last two launches."""
    before = max(p["ends"][-2] for p in report["processes"] if p["leaf"])
    return cycles - int(before)
