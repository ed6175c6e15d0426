# SPDX-License-Identifier: Apache-2.0
"""A timed run on the terminal: summary, stages, FIFOs, memory ports, a deadlock; and FIFOs cut by
timed runs.

Nothing here needs torch, so that ``torch2fpga time --help`` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from torch2fpga.timing.states import STATES, longest_waits, tight_streams, totals

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.timing.fifos import FifoReport
    from torch2fpga.timing.report import Deadlock, PortTime, StageTime, TimeReport

#: state -> (character, colour) of the bars; the characters differ where there are no colours
BARS = {
    "busy": ("█", "blue"),
    "memory": ("▒", "magenta"),
    "output": ("▓", "red"),
    "input": ("░", "yellow"),
    "idle": ("·", "bright_black"),
}
#: characters of a bar
BAR = 24
#: columns of ``text``
WIDTH = 128
#: rows of a table unless a caller says otherwise
ROWS = 15
#: rows of the table of cut FIFOs
CUT_ROWS = 8
#: depths that are compared: attribute of ``FifoSize`` -> title
DEPTHS = {"whole_tensor": "whole tensors", "computed": "computed", "depth": "after timed runs"}
#: ``FifoSize.storage`` -> title
STORAGE = {"srl": "SRL", "bram": "BRAM", "uram": "URAM"}
#: bytes from which on a rate means something: a burst of the memory ports
BURST = 2048
#: an interval counts as another than the declared one from this share on
OFF = 0.005
NOT_SYNTHESISED = "not synthesised, no card"

HELP = """Run MODEL's C++ with a clock in every process: cycles, stalls, FIFOs, memory ports.

MODEL is what the other commands take, or a folder that `compile --save` wrote. Inputs are random but the
same every time; all tokens count. Nothing needs Vitis or a card, and the figures are called [bold]timed[/]:
they come from running the emitted code under the clock rules of docs/timed-run.md, not from hardware.

[bold]cycles[/]: of one launch, from its start to the end of the last stage. The estimated part is how deep
each pipeline is; [bold]half/twice depth[/] repeats the run with all depths halved and doubled.

[bold]steady interval[/]: cycles from one result to the next when launches follow each other.

[bold]busy, waits, idle[/]: what a stage does with its time: it works; it waits for tokens (input), for space
behind it (output) or for its memory port; it is through. The stage that is busiest sets the pace.

[bold]II[/]: cycles from one iteration of a stage's longest loop to the next; declared → with stalls.

[bold]FIFOs[/]: those that were full at some time. A writer that waits is a FIFO that could be deeper:
try it with --fifo NAME=DEPTH, which builds nothing again.

[bold]memory ports[/]: bytes moved, GB/s from first to last beat, share of the peak of its HBM channel.

Modelled: loops, their intervals and depths, FIFOs and their depths, links between kernels, HBM access.
Not modelled: the clock that routing reaches, transfers from the host, refresh of the memory, contention of
two ports (each has a channel of its own).

A deadlock is printed with every wait; the exit status is then 1."""


def parse_fifos(values: Iterable[str]) -> dict[str, int]:
    """``NAME=DEPTH`` items as a mapping.

    Raises:
        ValueError: an item is of another form, its depth is below 1, or a name comes twice.
    """
    found: dict[str, int] = {}
    for value in values:
        name, sign, number = (part.strip() for part in value.partition("="))
        if not (sign and name and number.isascii() and number.isdecimal() and int(number) > 0):
            raise ValueError(f"{value!r} is not NAME=DEPTH with a depth of at least 1")
        if name in found:
            raise ValueError(f"stream {name} is given twice")
        found[name] = int(number)
    return found


def milliseconds(cycles: float, clock_mhz: float) -> str:
    """Cycles as milliseconds (or microseconds) with four digits."""
    micro = cycles / clock_mhz
    return f"{micro:.4g} µs" if micro < 1000 else f"{micro / 1000:,.4g} ms"


def rate_text(report: TimeReport, cycles: int) -> str:
    """Sequences (or generated tokens) a second at one launch every ``cycles``."""
    if report.turns:
        return f"{report.turns * report.clock_mhz * 1e6 / cycles:,.4g} tokens/s"
    rate = report.batch * report.clock_mhz * 1e6 / cycles
    return f"{rate:,.0f} sequences/s" if rate >= 1000 else f"{rate:.4g} sequences/s"


def launch_text(report: TimeReport) -> str:
    """What the launch worked on."""
    if not report.turns:
        return f"{report.batch} x {report.seq} rows (sequences x tokens)"
    rows = "1 token" if report.seq == 1 else f"{report.seq:,} tokens"
    made = "1 token" if report.turns == 1 else f"{report.turns:,} tokens"
    return f"{rows} behind {report.past:,} in the cache, {made} generated"


def change(cycles: int, report: TimeReport) -> str:
    """The difference to the report's cycles in per cent."""
    return f"{100 * (cycles / report.cycles - 1):+.1f} %"


def summary(report: TimeReport) -> Table:
    """The figures of the whole run."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    mhz = report.clock_mhz
    table.add_row(
        "basis", f"timed: the emitted C++ under a clock of {mhz:g} MHz (planned; {NOT_SYNTHESISED})"
    )
    table.add_row("launch", launch_text(report))
    table.add_row("cycles", f"{report.cycles:,}, {milliseconds(report.cycles, mhz)}")
    for word, cycles in (("half depth", report.half_depth), ("twice depth", report.double_depth)):
        if cycles is not None:
            text = f"{cycles:,}, {milliseconds(cycles, mhz)}, {change(cycles, report)}"
            table.add_row(word, text)
    if report.interval is not None:
        pace = f"{report.interval:,}, {milliseconds(report.interval, mhz)}"
        table.add_row("steady interval", f"{pace}, {rate_text(report, report.interval)}")
    else:
        table.add_row("one by one", f"{rate_text(report, report.cycles)} (no launches back to back)")
    busiest = max(report.stages, key=lambda s: s.busy, default=None)
    if busiest is not None:
        share = busiest.busy / max(1, report.cycles)
        table.add_row(
            "busiest stage", f"{escape(busiest.name)}, {busiest.busy:,} cycles ({share:.0%} of the run)"
        )
    return table


def bar(spent: dict[str, int], cycles: int) -> Text:
    """A bar of ``BAR`` characters; every state has its share, rounded so that they fill it."""
    parts = [spent[state] * BAR / max(1, cycles) for state in STATES]
    sizes = [int(part) for part in parts]
    left = BAR - sum(sizes)
    for i in sorted(range(len(parts)), key=lambda i: sizes[i] - parts[i])[:left]:
        sizes[i] += 1
    text = Text()
    for state, size in zip(STATES, sizes, strict=True):
        text.append(BARS[state][0] * size, BARS[state][1])
    return text


def _legend() -> Text:
    text = Text()
    for state, (character, colour) in BARS.items():
        text.append(character * 2, colour)
        text.append(f" {STATES[state]}  ")
    return text


def intervals(stage: StageTime) -> str:
    """II of a stage's longest loop: declared, and with stalls where that differs."""
    loop = max(stage.loops, key=lambda one: one.iterations * one.ii_achieved, default=None)
    if loop is None:
        return "–"
    if loop.ii_achieved <= loop.ii * (1 + OFF):
        return str(loop.ii)
    return f"{loop.ii} → {loop.ii_achieved:.3g}"


def _limited(table: Table, count: int, limit: int, thing: str) -> Table:
    if count > limit:
        table.caption = f"{count - limit} more {thing}"
        table.caption_justify = "left"
    return table


def _table(title: str, texts: Sequence[str], numbers: Sequence[str], last: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name)  # the column that gives way on a narrow terminal
    return table


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def stage_table(report: TimeReport, limit: int) -> RenderableType:
    """Stages by busy cycles: bar, shares, interval, and the stream that each waits for most."""
    table = _table(
        "stages, busiest first", ["stage", "of the run"], ["busy", "cycles", "II"], ["waits most for"]
    )
    longest = longest_waits(report)
    for stage in sorted(report.stages, key=lambda s: (-s.busy, s.name))[:limit]:
        spent = totals(stage, report.cycles)
        kinds = [longest.get((stage.kernel, stage.name, state)) for state in ("input", "output", "memory")]
        wait = max((w for w in kinds if w is not None), key=lambda w: w.cycles, default=None)
        table.add_row(
            escape(stage.name),
            bar(spent, report.cycles),
            f"{stage.busy / max(1, report.cycles):.0%}",
            f"{stage.busy:,}",
            intervals(stage),
            _one_line("–" if wait is None else f"{wait.cycles:,}: {wait}"),
        )
    return Group(_limited(table, len(report.stages), limit, "stages"), _legend())


def fifo_table(report: TimeReport, limit: int) -> Table | None:
    """FIFOs that were full or held their writer up; None if there is none."""
    found = tight_streams(report)
    if not found:
        return None
    numbers = ["depth", "most held", "tokens", "writer waited", "reader waited"]
    table = _table("FIFOs that were full, by their writer's wait", ["stream"], numbers, ["writer → reader"])
    for s in found[:limit]:
        counts = (s.depth, s.high_water, s.tokens, s.stalled_writes, s.stalled_reads)
        table.add_row(escape(s.name), *(f"{n:,}" for n in counts), _one_line(f"{s.writer} → {s.reader}"))
    return _limited(table, len(found), limit, "FIFOs that were full")


def port_table(report: TimeReport) -> Table | None:
    """Memory ports; None if there is none."""
    if not report.ports:
        return None
    table = _table(
        "memory ports", ["port", "channel"], ["bytes", "transactions", "busy", "GB/s", "of peak"]
    )  # fmt: skip
    for p in report.ports:
        table.add_row(
            escape(f"{p.kernel}/{p.name}"),
            f"HBM[{p.channel}]",
            f"{p.bytes:,}",
            f"{p.transactions:,}",
            f"{p.busy / max(1, report.cycles):.0%}",
            *rate_of(p),
        )
    return table


def rate_of(port: PortTime) -> tuple[str, str]:
    """GB/s and its share of the channel's peak; nothing for less than a burst."""
    if port.bytes < BURST:
        return "–", "–"
    return f"{port.gbs:.3g}", f"{port.gbs / port.peak_gbs:.0%}"


def deadlock_text(deadlock: Deadlock) -> str:
    """Every wait, the cycle that they close, and what could be tried."""
    full = [w for w in deadlock.cycle if w.side == "write"]
    lines = [str(deadlock)]
    if full:
        tries = " ".join(f"--fifo {w.stream}={2 * w.depth}" for w in full)
        lines.append(f"full streams in the cycle; deeper ones may end it: {tries}")
    return "\n".join(lines)


def _print(console: Console, parts: Iterable[RenderableType | None]) -> None:
    """The parts that there are, a blank line between them."""
    for number, part in enumerate(p for p in parts if p is not None):
        if number:
            console.print()
        console.print(part)


def show(report: TimeReport, console: Console, limit: int = ROWS) -> None:
    """Print a run that ended: summary and tables of at most ``limit`` rows; else its deadlock."""
    if report.deadlock is not None:
        head = f"stopped at cycle {report.cycles:,} of a timed run ({NOT_SYNTHESISED})"
        console.print(
            f"{head}\n{deadlock_text(report.deadlock)}", markup=False, highlight=False, soft_wrap=True
        )
        return
    parts = [summary(report), stage_table(report, limit), fifo_table(report, limit), port_table(report)]
    _print(console, parts)


def text(report: TimeReport, limit: int = ROWS) -> str:
    """The same as plain text."""
    return _plain(lambda console: show(report, console, limit))


def _plain(draw: Callable[[Console], None]) -> str:
    stream = StringIO()
    draw(Console(file=stream, width=WIDTH, color_system=None, force_terminal=False))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def cut_summary(report: FifoReport) -> Group:
    """What all FIFOs take at each choice of depths, and how that was found."""
    allowed = f"at most {report.loss:.3g} of the cycles lost" if report.loss else "no cycle lost"
    found = f"from {report.runs} timed runs at {len(report.cycles)} sizes, {allowed}"
    basis = f"cycles timed, memory modelled ({NOT_SYNTHESISED})"
    table = _table("FIFOs", ["depths"], ["KiB", "of whole", "LUT (SRL)", "BRAM18", "URAM"])
    whole = max(1, report.bytes("whole_tensor"))
    for which, title in DEPTHS.items():
        cost, size = report.cost(which), report.bytes(which)
        counts = (f"{n:,}" for n in (cost.lut, cost.bram18, cost.uram))
        table.add_row(title, f"{size / 1024:,.1f}", f"{size / whole:.0%}", *counts)
    return Group(table, Text(f"{len(report.streams)} FIFOs; {found}; {basis}"))


def cut_cycles(report: FifoReport) -> Table:
    """Cycles of a launch before and after, at each size that was timed."""
    table = _table("cycles of a launch", ["sequences x tokens"], ["computed depths", "new depths", "change"])
    for (batch, seq), (before, after) in report.cycles.items():
        lost = f"{100 * (after / before - 1):+.2f} %" if after != before else "none"
        table.add_row(f"{batch} x {seq}", f"{before:,}", f"{after:,}", lost)
    return table


def cut_depths(report: FifoReport, limit: int) -> Table | None:
    """FIFOs with their depths in tokens, those that lost most bytes first; None if none was cut."""
    cut = [s for s in report.streams if s.depth < s.computed]
    if not cut:
        return None
    cut.sort(key=lambda s: ((s.depth - s.computed) * s.token_bytes, s.name))
    title = "FIFOs that were cut most, depths in tokens"
    table = _table(title, ["stream"], ["bytes", "whole", "computed", "held", "new"], ["kept in"])
    for s in cut[:limit]:
        counts = (s.token_bytes, s.whole_tensor, s.computed, s.held, s.depth)
        table.add_row(escape(s.name), *(f"{n:,}" for n in counts), STORAGE[s.storage])
    return _limited(table, len(cut), limit, "FIFOs that were cut")


def show_cut(report: FifoReport, console: Console, limit: int = CUT_ROWS) -> None:
    """Print what cutting the FIFOs saved and cost; at most ``limit`` FIFOs by name."""
    parts: list[RenderableType | None] = [cut_summary(report), cut_cycles(report), cut_depths(report, limit)]
    _print(console, parts)


def cut_text(report: FifoReport, limit: int = CUT_ROWS) -> str:
    """The same as plain text."""
    return _plain(lambda console: show_cut(report, console, limit))


def written(compiled: CompiledModel, report: TimeReport, targets: Mapping[str, Path]) -> list[str]:
    """Write what was asked for (``json``, ``trace``, ``report`` -> path); a line about each file."""
    from torch2fpga.timing.trace import write_trace

    lines = []
    for kind, path in targets.items():
        if kind == "json":
            path.write_text(json.dumps(report.to_json()) + "\n", encoding="utf-8")
        elif kind == "trace":
            write_trace(report, path)
        else:
            path = compiled.report(path, timing=report)
        lines.append(f"{kind}: {path}")
    return lines
