# SPDX-License-Identifier: Apache-2.0
"""A timed run on the page: its timeline as a picture, and rows for cards and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from torch2fpga.design import PARAMETER_DEALER, PARAMETER_READER, Design
from torch2fpga.report.describe import memory_ports, size_text
from torch2fpga.report.layout import number_text
from torch2fpga.report.template import environment
from torch2fpga.timing.report import StageTime, TimeReport
from torch2fpga.timing.show import BURST, change, intervals, launch_text, milliseconds, rate_of, rate_text
from torch2fpga.timing.states import STATES, Slice, WaitTotal, fitted, longest_waits, totals, waits

#: most slices of the picture; the grid of time is made coarser until they fit
MOST_SLICES = 2500
LEFT, PLOT, RIGHT = 236.0, 700.0, 316.0
ROW, BAR, HEAD, KERNEL = 16.0, 11.0, 44.0, 24.0
NAME_CHARACTERS, WAIT_CHARACTERS = 32, 46
#: width of a stage's bar in the table
SHARE = 180.0
#: rows of the table of waits
LONGEST = 10
#: ticks of the axis of time, about
TICKS = 7


def in_order(design: Design, report: TimeReport) -> list[StageTime]:
    """Processes in the order in which data passes them; a port stands beside the stage it serves."""
    place = {s.name: float(i) for i, s in enumerate(design.stages)}
    kernels = {k.name: i for i, k in enumerate(design.kernels)}
    reader, writer = design.readers(), design.writers()
    for port in memory_ports(design):
        reads = port.direction == "read"
        ends = [(reader if reads else writer).get(name, "") for name in port.streams]
        near = [place[end] for end in ends if end in place] or [0.0]
        name = PARAMETER_READER if port.role == "params" else port.name
        # a port that many stages share stands in front of the first of them
        place[f"{port.kernel}/{name}"] = min(near) - 0.5 if reads else max(near) + 0.5
    for kernel in design.kernels:
        if kernel.parameters is not None:
            first = min(place[s] for s in kernel.stages if design.stage(s).params)
            place[f"{kernel.name}/{PARAMETER_DEALER}"] = first - 0.5

    def key(stage: StageTime) -> tuple[float, float, str]:
        where = place.get(f"{stage.kernel}/{stage.name}", place.get(stage.name, float(len(place))))
        return kernels.get(stage.kernel, len(kernels)), where, stage.name

    return sorted(report.stages, key=key)


def render_timeline(design: Design, report: TimeReport) -> str:
    """The timeline as one SVG element with its own style (light and dark): a row a stage, time on x."""
    return str(environment().get_template("timeline.svg.j2").render(_view(design, report)))


def _view(design: Design, report: TimeReport) -> dict[str, Any]:
    pieces = dict(zip(map(id, report.stages), fitted(report, MOST_SLICES), strict=True))
    longest = longest_waits(report)
    scale = PLOT / max(1, report.cycles)
    rows: list[dict[str, Any]] = []
    heads: list[dict[str, str]] = []
    y, kernel = HEAD, None
    for stage in in_order(design, report):
        if stage.kernel != kernel:
            kernel = stage.kernel
            heads.append({"y": number_text(y + KERNEL - 9), "text": f"kernel {kernel}"})
            y += KERNEL
        rows.append({"y": number_text(y), **_row(stage, pieces[id(stage)], report, longest, scale)})
        y += ROW
    return {
        "width": number_text(LEFT + PLOT + RIGHT),
        "height": number_text(y + 26),
        "left": number_text(LEFT),
        "plot": number_text(PLOT),
        "top": number_text(HEAD),
        "bottom": number_text(y + 4),
        "bar": number_text(BAR),
        "rows": rows,
        "heads": heads,
        "ticks": _ticks(report, scale, y),
        "states": list(STATES.items()),
        "label": f"What each stage does over {report.cycles:,} cycles",
    }


def _row(
    stage: StageTime,
    pieces: Iterable[Slice],
    report: TimeReport,
    longest: Mapping[tuple[str, str, str], WaitTotal],
    scale: float,
) -> dict[str, Any]:
    own = {state: longest.get((stage.kernel, stage.name, state)) for state in ("input", "output", "memory")}
    most = max((w for w in own.values() if w is not None), key=lambda w: w.cycles, default=None)
    cycles = max(1, report.cycles)
    lines = [stage.name + (f" ({stage.path})" if stage.path else "")]
    lines += [f"{STATES[s]}: {n:,} cycles" for s, n in totals(stage, report.cycles).items()]
    lines += [f"{STATES[s]} most: {wait}, {wait.cycles:,} cycles" for s, wait in own.items() if wait]
    text = f"{stage.busy / cycles:.0%} busy"
    if most is not None and most.cycles >= 0.01 * cycles:
        arrow = {"input": "←", "output": "→"}.get(most.state)
        text += f" · {arrow} {most.other or 'nobody'}" if arrow else " · memory"
    return {
        "name": _clip(stage.name, NAME_CHARACTERS),
        "title": "\n".join(lines),
        "text": _clip(text, WAIT_CHARACTERS),
        "slices": [_slice(piece, report, own, scale) for piece in pieces if piece.state != "idle"],
    }


def _slice(
    piece: Slice, report: TimeReport, own: Mapping[str, WaitTotal | None], scale: float
) -> dict[str, str]:
    times = [milliseconds(cycle, report.clock_mhz) for cycle in (piece.begin, piece.end)]
    parts = [f"{word} {n:,}" for word, n in zip(STATES.values(), piece.spent, strict=True) if n]
    lines = [f"cycles {piece.begin:,} to {piece.end:,} ({times[0]} to {times[1]})", ", ".join(parts)]
    wait = own.get(piece.state)
    if wait is not None:
        lines.append(f"mostly for {wait}")
    return {
        "state": piece.state,
        "x": number_text(piece.begin * scale),
        "width": number_text(max(0.2, piece.cycles * scale)),
        "title": "\n".join(lines),
    }


def _ticks(report: TimeReport, scale: float, bottom: float) -> list[dict[str, str]]:
    """Round times on the axis, with the cycles below."""
    whole = report.cycles / report.clock_mhz  # microseconds
    step = next(s for s in _round_steps() if whole / s <= TICKS)
    found = []
    for i in range(int(whole / step) + 1):
        micro = i * step
        cycle = micro * report.clock_mhz
        found.append(
            {
                "x": number_text(LEFT + cycle * scale),
                "time": milliseconds(cycle, report.clock_mhz) if i else "0",
                "cycles": f"{cycle:,.0f}",
                "bottom": number_text(bottom + 18),
            }
        )
    return found


def _round_steps() -> Iterator[float]:
    """1, 2, 5, 10, ... microseconds, from a hundredth of one."""
    for power in count(-2):
        yield from (digit * 10.0**power for digit in (1, 2, 5))


def timing_cards(report: TimeReport) -> list[tuple[str, str, str, str]]:
    """(label, value, note, tone) of the page's cards."""
    mhz = report.clock_mhz
    if report.deadlock is not None:
        return [("timed run", "deadlock", f"at cycle {report.cycles:,}", "bad")]
    size = launch_text(report).replace(" x ", " × ")
    cards = [
        (
            "time of a launch",
            milliseconds(report.cycles, mhz),
            f"{report.cycles:,} cycles at {mhz:g} MHz, {size}; timed, not synthesised",
            "",
        )
    ]
    if report.half_depth is not None and report.double_depth is not None:
        value = f"{change(report.half_depth, report)} to {change(report.double_depth, report)}"
        cards.append(
            ("if depths are wrong", value, "cycles with half and twice the pipeline depths; timed", "")
        )
    if report.interval is not None:
        note = f"{report.interval:,} cycles, {rate_text(report, report.interval)}; timed"
        cards.append(("steady interval", milliseconds(report.interval, mhz), note, ""))
    busiest = max(report.stages, key=lambda s: s.busy, default=None)
    if busiest is not None:
        share = f"{busiest.busy / max(1, report.cycles):.0%}"
        cards.append(
            ("busiest stage", busiest.name, f"{share} of the launch, {busiest.busy:,} cycles; timed", "")
        )
    return cards


def stage_rows(design: Design, report: TimeReport) -> list[dict[str, Any]]:
    """Rows of the table of stages, in the order of the picture."""
    rows = []
    for stage in in_order(design, report):
        spent = totals(stage, report.cycles)
        x, bars = 0.0, []
        for state, cycles in spent.items():
            width = SHARE * cycles / max(1, report.cycles)
            bars.append({"state": state, "x": f"{x:.1f}", "width": f"{width:.1f}"})
            x += width
        rows.append(
            {
                "name": stage.name,
                "kernel": stage.kernel,
                "bars": bars,
                "numbers": list(spent.values()),
                "end": stage.end,
                "ii": intervals(stage),
            }
        )
    return rows


def wait_rows(report: TimeReport) -> list[dict[str, Any]]:
    """The longest waits: who waits for which stream, and who is on its other side."""
    return [
        {
            "stage": wait.stage,
            "state": wait.state,
            "word": STATES[wait.state],
            "stream": wait.stream,
            "other": wait.other,
            "side": "written by" if wait.state == "input" else "read by",
            "cycles": wait.cycles,
            "share": f"{100 * wait.cycles / max(1, report.cycles):.1f} %",
        }
        for wait in waits(report)[:LONGEST]
    ]


def port_notes(report: TimeReport | None) -> dict[tuple[str, str], str]:
    """(kernel, port) -> what the timed run moved, in words."""
    if report is None:
        return {}
    notes = {}
    for port in report.ports:
        gbs, share = rate_of(port)
        speed = "" if port.bytes < BURST else f", {gbs} GB/s ({share} of peak)"
        notes[port.kernel, port.name] = f"{size_text(port.bytes)}{speed}"
    return notes


def timed_view(design: Design, report: TimeReport | None) -> dict[str, Any] | None:
    """Everything that the page's section shows; None without a timed run."""
    if report is None:
        return None
    mhz = report.clock_mhz
    lead = (
        f"The emitted C++ with a clock in every process: {launch_text(report).replace(' x ', ' × ')}, "
        f"{report.cycles:,} cycles, {milliseconds(report.cycles, mhz)} at {mhz:g} MHz. The clock is "
        "planned and pipeline depths are estimates; nothing has been synthesised."
    )
    return {
        "lead": lead,
        "deadlock": str(report.deadlock) if report.deadlock is not None else "",
        "states": list(STATES.items()),
        "stages": stage_rows(design, report),
        "waits": wait_rows(report),
        "share": number_text(SHARE),
    }


def _clip(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
