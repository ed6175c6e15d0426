# SPDX-License-Identifier: Apache-2.0
"""What a build looks like on a terminal and in a log: the check, progress, outcomes, the comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from torch2fpga.build.check import ADVICE, FOUND, Check
from torch2fpga.build.compare import CSYNTH, OURS, ROUTED, Comparison, Figure, LoopFigure
from torch2fpga.build.run import BLOCKED, DONE, FAILED, SKIPPED, STOPPED, Outcome
from torch2fpga.build.steps import Step

MARKS = {FOUND: "[green]found  [/]", ADVICE: "[yellow]note   [/]"}
COLOURS = {DONE: "green", SKIPPED: "dim", FAILED: "bold red", BLOCKED: "yellow", STOPPED: "yellow"}


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def show_check(check: Check, console: Console) -> None:
    """Everything found and everything missing."""
    for finding in check.findings:
        mark = MARKS.get(finding.state, "[bold red]missing[/]")
        console.print(
            f"{mark} {escape(finding.what)}: {escape(finding.text)}", highlight=False, soft_wrap=True
        )


def show_plan(steps: Sequence[Step], why: Mapping[str, str], console: Console) -> None:
    """What would be run, in order, as it would be typed."""
    for step in steps:
        variables = "".join(f"{name}={value} " for name, value in step.env)
        inside = f" (in {step.folder})" if step.folder != "." else ""
        reason = why[step.name]
        console.print(
            f"[bold]{escape(step.name)}[/]: {escape(reason) if reason else 'done before, skipped'}\n"
            f"    {escape(variables + ' '.join(step.command) + inside)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


class Screen:
    """Watches a build: a table of what runs on a terminal, a line for each start and end elsewhere."""

    def __init__(self, console: Console, root: Path) -> None:
        self._console, self._root = console, root
        self._rows: dict[str, tuple[Step, float, str]] = {}
        self._live = Live(console=console, transient=True, refresh_per_second=4, auto_refresh=False)
        self._last = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def begin(self, step: Step, log: Path) -> None:
        """A step starts."""
        self._rows[step.name] = (step, 0.0, "")
        if not self._console.is_terminal:
            self._print(f"start   {step.name} ({self._place(log)})")
        self._refresh(True)

    def progress(self, step: Step, seconds: float, line: str) -> None:
        """It is at work."""
        self._rows[step.name] = (step, seconds, line)
        self._refresh(False)

    def end(self, outcome: Outcome) -> None:
        """It has ended, or does not run."""
        self._rows.pop(outcome.step.name, None)
        self._refresh(True)
        took = f" after {clock(outcome.seconds)}" if outcome.seconds else ""
        log = f" ({self._place(outcome.log)})" if outcome.log is not None else ""
        colour = COLOURS[outcome.state]
        self._print(f"[{colour}]{outcome.state:8}[/]{escape(outcome.step.name + took + log)}")
        for line in outcome.errors:
            self._print(f"        {escape(line)}")

    def _place(self, log: Path) -> str:
        return str(log.relative_to(self._root))

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _refresh(self, now: bool) -> None:
        if not self._console.is_terminal or (not now and time.monotonic() - self._last < 0.5):
            return
        self._last = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for step, seconds, line in self._rows.values():
            table.add_row(step.phase, escape(step.kernel), clock(seconds), escape(line[:100]))
        self._live.update(table, refresh=True)


def number(value: float | None) -> str:
    """A figure, or a dash where nobody says it."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}".rstrip("0")


def notable(figure: Figure) -> bool:
    """Is it worth a row on a terminal: all of kernels and the card, of processes what is off by a tenth."""
    if figure.csynth is None and figure.routed is None:
        return False
    ours, theirs = figure.ours, figure.csynth
    return "/" not in figure.where or (
        ours is not None and theirs is not None and abs(theirs - ours) > max(4, ours / 10)
    )


def surprising(loop: LoopFigure) -> bool:
    """A larger interval than asked for, or far more stages than we think."""
    slower = loop.csynth_ii is not None and loop.csynth_ii > loop.ii
    return slower or (loop.csynth_depth or 0) > max(2 * loop.depth, loop.depth + 8)


def show_comparison(found: Comparison, console: Console, rows: int = 20) -> None:
    """The comparison as tables; what agrees only as a count."""
    for problem in found.problems:
        console.print(f"[bold red]error:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not found.seen:
        console.print("no report of a tool is there yet", highlight=False)
        return
    table = Table(title=f"{escape(found.design)}: ours beside the tools'", title_justify="left")
    table.add_column("where", overflow="fold")
    table.add_column("figure")
    for title in (OURS, CSYNTH, ROUTED):
        table.add_column(title, justify="right")
    for f in filter(notable, found.figures):
        table.add_row(escape(f.where), f.what, number(f.ours), number(f.csynth), number(f.routed))
    console.print(table)
    same = sum(f.csynth is not None and "/" in f.where and not notable(f) for f in found.figures)
    timed = [x for x in found.loops if x.csynth_ii is not None]
    console.print(
        f"DSP of {same} processes within a tenth (or 4) of ours; {len(timed)} of {len(found.loops)} "
        f"pipelined loops were found in the csynth reports; {len(found.slower)} got a larger II than they "
        "asked for",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    far = sorted(filter(surprising, timed), key=lambda x: (-(x.csynth_ii or 0), -(x.csynth_depth or 0)))
    if far:
        console.print(_loops(far[:rows]))
    if len(far) > rows:
        console.print(f"and {len(far) - rows} more, in build/report.html", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)


def _loops(shown: Sequence[LoopFigure]) -> Table:
    """Loops that a reader should look at."""
    table = Table()
    table.add_column("process", overflow="fold")
    table.add_column("loop", overflow="fold")
    for title in ("II asked", f"II {CSYNTH}", f"depth {OURS}", f"depth {CSYNTH}"):
        table.add_column(title, justify="right")
    for x in shown:
        name, place = f"{x.kernel}/{x.process}", f"{x.loop} ({x.place})"
        figures = str(x.ii), number(x.csynth_ii), str(x.depth), number(x.csynth_depth)
        table.add_row(escape(name), escape(place), *figures)
    return table
