# SPDX-License-Identifier: Apache-2.0
"""Busy cycles of every stage of a plan as a picture, beside those of a timed run where there is one."""

from __future__ import annotations

from typing import Any

from torch2fpga.design import Design
from torch2fpga.plan.summary import PlanReport, StageUse
from torch2fpga.report.describe import GROUPS, family
from torch2fpga.report.figure import clipped, family_legend
from torch2fpga.report.layout import number_text
from torch2fpga.report.roofline import comparable
from torch2fpga.report.template import environment
from torch2fpga.timing.report import TimeReport

LEFT, PLOT, RIGHT = 270.0, 690.0, 236.0
ROW, HEAD, GROUP = 18.0, 48.0, 24.0
NAME_CHARACTERS = 38
#: ticks of the axis, in shares of the pacing stage
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def render_stage_bars(design: Design, report: PlanReport, timing: TimeReport | None = None) -> str:
    """A bar a stage as one SVG element with its own style (light and dark), in the order of the data.

    100 % is the pacing stage's busy cycles as modelled. A timed run is drawn where it is one of the
    plan's launch.
    """
    return str(environment().get_template("stage_bars.svg.j2").render(_view(design, report, timing)))


def _view(design: Design, report: PlanReport, timing: TimeReport | None) -> dict[str, Any]:
    timed = {s.name: s.busy for s in timing.stages} if timing and comparable(report, timing) else {}
    pace = max((s.busy for s in report.stages), default=0)
    most = max([pace, *(timed.get(s.name, 0) for s in report.stages), 1])
    scale = PLOT / most
    stages = {s.name: s for s in design.stages}
    groups = list(GROUPS)
    order = {
        s.name: (groups.index(s.group) if s.group in GROUPS else len(groups), i)
        for i, s in enumerate(design.stages)
    }
    families, behind = family_legend()
    rows: list[dict[str, Any]] = []
    heads: list[dict[str, str]] = []
    y, group = HEAD, None
    for use in sorted(report.stages, key=lambda s: order[s.name]):
        stage = stages[use.name]
        if stage.group != group:
            group = stage.group
            heads.append({"y": number_text(y + GROUP - 8), "text": GROUPS.get(group, group)})
            y += GROUP
        row = _row(use, timed.get(use.name), pace, scale)
        rows.append({"y": number_text(y), "family": family(stage), **row})
        y += ROW
    return {
        "width": number_text(LEFT + PLOT + RIGHT),
        "height": number_text(y + 24),
        "left": number_text(LEFT),
        "plot": number_text(PLOT),
        "end": number_text(LEFT + PLOT + 10),
        "top": number_text(HEAD),
        "bottom": number_text(y + 4),
        "rows": rows,
        "heads": heads,
        "timed": bool(timed),
        "families": families,
        "behind": behind,
        "ticks": [
            {
                "x": number_text(LEFT + part * pace * scale),
                "text": f"{part:.0%}",
                "cycles": f"{part * pace:,.0f}",
            }
            for part in TICKS
        ]
        if pace
        else [],
        "label": f"Busy cycles of {len(rows)} stages; 100 % are {pace:,} cycles",
    }


def _row(use: StageUse, timed: int | None, pace: int, scale: float) -> dict[str, Any]:
    text = f"{use.busy:,}"
    lines = [use.name + (f" ({use.path})" if use.path else ""), f"modelled: {use.busy:,} cycles busy"]
    lines[-1] += f", {use.share:.1%} of the pacing stage"
    if timed is not None:
        text += f" · timed {timed:,}"
        lines.append(f"timed: {timed:,} cycles busy" + (f", {timed / pace:.1%}" if pace else ""))
        if use.busy:
            lines[-1] += f", {timed / use.busy - 1:+.1%} against the model"
    return {
        "name": clipped(use.name, NAME_CHARACTERS),
        "title": "\n".join(lines),
        "text": f"{use.share:.0%} · {text}",
        "length": number_text(use.busy * scale),
        "timed": None if timed is None else number_text(timed * scale),
        "pace": use.busy == pace and pace > 0,
    }
