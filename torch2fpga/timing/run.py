# SPDX-License-Identifier: Apache-2.0
"""``CompiledModel.time``: timed runs of one design on one set of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torch2fpga.boards import Board
from torch2fpga.design import Design
from torch2fpga.emit.ports import all_ports, port_bytes
from torch2fpga.errors import SimulationError
from torch2fpga.simulate.functional import Bytes, aligned
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.timed import (
    Settings,
    TimedResult,
    TimedRun,
    check_fifos,
    link_latencies,
    port_settings,
)
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
    return settings_of(model.design, model.board, clock_mhz, loops)


def settings_of(design: Design, board: Board, clock_mhz: float, loops: Sequence[PipelinedLoop]) -> Settings:
    """Depths, links and memory ports as a run's settings."""
    return Settings(
        depths=depth_settings(loops),
        latencies=link_latencies(design, board),
        ports=port_settings(design, board, clock_mhz),
    )


def run_timed(model: CompiledModel, inputs: Mapping[str, Tensor], settings: Settings) -> TimedResult:
    """One timed run.

    Raises:
        SimulationError: if it fails for another reason than a deadlock.
    """
    return _run(model, model.buffers(inputs), launch_of(inputs), settings)


def launch_of(inputs: Mapping[str, Tensor]) -> Launch:
    """The launch of a call with these inputs."""
    batch, seq = next(iter(inputs.values())).shape[:2]
    return Launch(int(batch), int(seq))


def _run(
    model: CompiledModel, buffers: Mapping[str, Bytes], launch: Launch, settings: Settings
) -> TimedResult:
    result = model.timed.time(buffers, launch, settings)
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


def time_model(model: CompiledModel, inputs: Mapping[str, Tensor], **options: Any) -> TimeReport:
    """See ``CompiledModel.time``."""

    def finish(result: TimedResult) -> Any:
        return model.finish(result.buffers, inputs)

    return time_launch(model, model.buffers(inputs), launch_of(inputs), finish, **options)


def time_generation(
    model: CompiledModel, input_ids: Tensor | None, tokens: int, context: int, **options: Any
) -> TimeReport:
    """See ``CompiledModel.time_generation``."""
    from torch2fpga.runtime.generation import Session

    ids = torch.zeros(1, 1, dtype=torch.int64) if input_ids is None else input_ids
    (ids,) = model.interface.bind((ids,), {}, model.design).values()
    session = Session(model)
    session.past = context
    launch = Launch(int(ids.shape[0]), int(ids.shape[1]), context, tokens)
    launch.check(model.design)

    def finish(result: TimedResult) -> list[int]:
        return session.tokens(result.buffers, tokens)

    return time_launch(model, session.buffers(ids), launch, finish, **options)


def time_design(design: Design, board: Board, launch: Launch) -> TimeReport:
    """A timed run of a design without constants: all memory holds zeros, which takes the same time.

    Raises:
        InputError: for a launch that the design was not made for.
        SimulationError: if the run fails, or nothing can go on.
    """
    if design.turns:
        launch.check(design)
    clock = float(board.clock_mhz)
    loops = pipelined_loops(design, clock)
    settings = settings_of(design, board, clock, loops)
    buffers = {
        f"{kernel.name}_{port.name}" if port.role == "params" else port.name: aligned(
            np.zeros(port_bytes(port), dtype=np.uint8)
        )
        for kernel, port in all_ports(design)
    }
    result = TimedRun(design).time(buffers, launch, settings)
    if result.message:
        raise SimulationError(result.message)
    labels = {site(loop): loop.label for loop in loops}
    return build_report(result.report, design, board, clock, launch, labels, "")


def time_launch(
    model: CompiledModel,
    buffers: Mapping[str, Bytes],
    launch: Launch,
    finish: Callable[[TimedResult], Any],
    *,
    clock_mhz: float | None = None,
    fifos: Mapping[str, int] | None = None,
    spread: bool = True,
    interval: bool = True,
    cycle_limit: int | None = None,
    progress: Progress | None = None,
) -> TimeReport:
    """Timed runs of one launch.

    Args:
        finish: makes the report's output of what the launch left.
    """
    say = progress or (lambda _text, _done: None)
    clock = float(clock_mhz or model.board.clock_mhz)
    check_fifos(fifos or (), tuple(model.design.streams))  # before anything takes long
    say("analysing loops", 0.0)
    loops = pipelined_loops(model.design, clock)
    settings = replace(timed_settings(model, clock, loops), fifos=dict(fifos or {}))
    if cycle_limit is not None:
        settings = replace(settings, cycle_limit=cycle_limit)
    say("timed run", 0.2)
    result = _run(model, buffers, launch, settings)
    labels = {site(loop): loop.label for loop in loops}
    report = build_report(result.report, model.design, model.board, clock, launch, labels, result.message)
    if report.deadlock is not None:
        return report
    found: dict[str, Any] = {"output": finish(result)}
    if spread:
        for key, percent, done in (("half_depth", 50, 0.4), ("double_depth", 200, 0.55)):
            say(f"timed run at {percent} % of the pipeline depths", done)
            found[key] = cycles_of(_run(model, buffers, launch, replace(settings, depth_percent=percent)))
    if interval:
        say("launches back to back", 0.7)
        many = _run(model, buffers, launch, replace(settings, launches=LAUNCHES))
        found["interval"] = _interval(cycles_of(many), many.report)
    say("done", 1.0)
    return replace(report, **found)


def _interval(cycles: int, report: Mapping[str, Any]) -> int:
    """Cycles between the ends of the last two launches."""
    before = max(p["ends"][-2] for p in report["processes"] if p["leaf"])
    return cycles - int(before)
