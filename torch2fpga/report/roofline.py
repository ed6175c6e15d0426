# SPDX-License-Identifier: Apache-2.0
"""The roofline of a plan as a picture: products a cycle against products per byte, both logarithmic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch2fpga.plan.summary import PlanReport
from torch2fpga.report.layout import number_text
from torch2fpga.report.template import environment
from torch2fpga.timing.report import TimeReport

LEFT, PLOT, TOP, HIGH, KEY = 76.0, 640.0, 12.0, 330.0, 400.0
#: the plot goes this factor beyond what it has to show, before it is widened to whole decades
BEYOND = 2.0


@dataclass(frozen=True)
class Point:
    """Where a design sits.

    Attributes:
        how: ``modelled`` or ``timed``.
        intensity: products per byte that passes a memory port.
        reached: useful products a cycle of the launch.
    """

    how: str
    intensity: float
    reached: float


def comparable(report: PlanReport, timing: TimeReport | None) -> bool:
    """Is a timed run one of the launch that the plan is about?"""
    return (
        timing is not None
        and timing.deadlock is None
        and timing.cycles > 0
        and (timing.batch, timing.seq) == (report.batch, report.seq)
    )


def points(report: PlanReport, timing: TimeReport | None = None) -> list[Point]:
    """The design as modelled, and as timed where a run of the same size is at hand."""
    roof = report.roofline
    found = [Point("modelled", roof.intensity, roof.reached)]
    if timing is not None and comparable(report, timing):
        moved = sum(p.bytes for p in timing.ports)
        found.append(Point("timed", report.macs / moved if moved else 0.0, report.macs / timing.cycles))
    return [p for p in found if p.intensity > 0 and p.reached > 0]


def render_roofline(report: PlanReport, timing: TimeReport | None = None) -> str:
    """The roofline as one SVG element with its own style (light and dark).

    A design without products, or without memory traffic, has no place in it: the picture says so.
    """
    return str(environment().get_template("roofline.svg.j2").render(_view(report, timing)))


@dataclass(frozen=True)
class _Axis:
    """Decades onto a length."""

    low: int
    high: int
    start: float
    length: float

    def at(self, value: float) -> float:
        return self.start + self.length * (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[dict[str, str]]:
        return [
            {"at": number_text(self.at(10.0**n)), "text": _power(n)} for n in range(self.low, self.high + 1)
        ]


def _axis(values: list[float], start: float, length: float) -> _Axis:
    """Whole decades around positive values."""
    low = math.floor(math.log10(min(values) / BEYOND))
    high = math.ceil(math.log10(max(values) * BEYOND))
    return _Axis(low, max(high, low + 1), start, length)


def _power(n: int) -> str:
    return f"{10**n:,}" if n >= 0 else f"{10.0**n:g}"


def _view(report: PlanReport, timing: TimeReport | None) -> dict[str, Any]:
    roof, found = report.roofline, points(report, timing)
    view = {
        "width": number_text(LEFT + PLOT + KEY),
        "height": number_text(TOP + HIGH + 46),
        "left": number_text(LEFT),
        "right": number_text(LEFT + PLOT),
        "top": number_text(TOP),
        "bottom": number_text(TOP + HIGH),
        "label": "Roofline: products a cycle against products per byte of memory traffic",
        "key": number_text(LEFT + PLOT + 24),
        "drawn": bool(found) and roof.memory > 0 and roof.arrays > 0,
    }
    if not view["drawn"]:
        return view
    slope = roof.memory / roof.intensity  # bytes a cycle
    ceilings = [c for c in (roof.card, roof.arrays) if c > 0]
    across = [p.intensity for p in found] + [c / slope for c in ceilings]
    x = _axis(across, LEFT, PLOT)
    y = _axis([p.reached for p in found] + ceilings, TOP + HIGH, -HIGH)
    return {
        **view,
        "across": x.ticks(),
        "up": y.ticks(),
        "memory": _memory_path(slope, max(ceilings), x, y),
        "card": _ceiling_path(roof.card, slope, x, y),
        "arrays": _ceiling_path(roof.arrays, slope, x, y),
        "points": [
            {
                "how": p.how,
                "x": number_text(x.at(p.intensity)),
                "y": number_text(y.at(p.reached)),
                "title": f"{p.how}: {p.reached:,.0f} products a cycle, {p.intensity:,.1f} products a byte",
            }
            for p in found
        ],
        "entries": _entries(report, slope, found, timing),
    }


def _memory_path(slope: float, top: float, x: _Axis, y: _Axis) -> str:
    """The line y = slope * x, from the edge of the plot to the highest ceiling."""
    low = max(10.0**x.low, 10.0**y.low / slope)
    return _line(x.at(low), y.at(slope * low), x.at(top / slope), y.at(top))


def _ceiling_path(value: float, slope: float, x: _Axis, y: _Axis) -> str:
    """A level line from the memory's slope to the right edge; none without a value."""
    return _line(x.at(value / slope), y.at(value), x.at(10.0**x.high), y.at(value)) if value > 0 else ""


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return f"M{number_text(x0)} {number_text(y0)}L{number_text(x1)} {number_text(y1)}"


def _entries(
    report: PlanReport, slope: float, found: list[Point], timing: TimeReport | None
) -> list[dict[str, str]]:
    """The key: what each line and point is, with its figures."""
    roof = report.roofline
    under = min(roof.arrays, roof.memory)
    bound = "arrays" if roof.arrays <= roof.memory else "memory"
    rows = [
        ("card", "ceiling of the card under its caps", f"{roof.card:,.0f} products a cycle"),
        ("arrays", "ceiling of the plan's arrays", f"{roof.arrays:,.0f} products a cycle"),
        (
            "memory",
            "what memory feeds",
            f"{slope:,.0f} bytes a cycle: {roof.memory:,.0f} products a cycle here",
        ),
    ]
    for p in found:
        text = f"{p.reached:,.0f} products a cycle, {p.reached / under:.0%} of the roof ({bound})"
        rows.append((p.how, f"this design, {p.how}", text))
    views = [{"kind": kind, "name": name, "text": text} for kind, name, text in rows]
    if timing is not None and not comparable(report, timing):
        text = f"{timing.batch:,} × {timing.seq:,}, the plan is for {report.batch:,} × {report.seq:,}"
        views.append({"kind": "none", "name": "the timed run is not of this launch", "text": text})
    return views
