# SPDX-License-Identifier: Apache-2.0
"""A plan's floorplan as a picture: regions bottom up with their stages, wires between them, memory below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.design import Design, Stage
from torch2fpga.plan.plan import Array
from torch2fpga.plan.summary import TITLES, PlanReport, RegionUse, StageUse
from torch2fpga.plan.tables import of
from torch2fpga.plan.wires import BoundaryUse
from torch2fpga.report.channel_map import role_class, role_word, used_channels
from torch2fpga.report.describe import count_text, family, size_text
from torch2fpga.report.figure import clipped, family_legend
from torch2fpga.report.layout import Box, number_text
from torch2fpga.report.template import environment
from torch2fpga.report.treemap import SMALLEST, squarified

FRAME, GAP, BARS, TRACK, LABEL = 740.0, 22.0, 430.0, 200.0, 58.0
WIDTH = FRAME + GAP + BARS
#: heights: of a region's title, of the least area for its stages, of a boundary and of the memory
HEAD, LEAST, BOUNDARY, MEMORY = 26.0, 180.0, 64.0, 46.0
LEGEND = 26.0
#: from this many stages in a region on, all regions are drawn higher, by so much a stage
CROWD, HIGHER = 24, 4.0
#: header of a part, and the least width and height of one that has it
PART, PART_WIDTH, PART_HEIGHT = 13.0, 46.0, 40.0
#: width of a character of a box's name, its line's height, and the fewest characters that say something
CHARACTER, LINE, FEWEST = 6.2, 12.0, 5
#: a bar is amber from this share of its cap on
NEAR = 0.9


def arrays_of(report: PlanReport) -> dict[str, tuple[str, Array]]:
    """stage -> (name before it was split into copies, its array)."""
    return {
        use.name: (name, array)
        for name, array in report.plan.arrays.items()
        for use in copies_of(report, name)
    }


def copies_of(report: PlanReport, array: str) -> list[StageUse]:
    """The stages that make up an array of the plan."""
    return [s for s in report.stages if s.products and of(s.name, array)]


def part_of(stage: Stage) -> str:
    """The part of a layer that a stage belongs to: the module behind the repeated block's index, or the
    first module of its path."""
    names = stage.path.split(".")
    if "*" in names:
        return next(iter(names[names.index("*") + 1 :]), "layer")
    return names[0] or stage.group


def render_floorplan(design: Design, report: PlanReport, board: Board) -> str:
    """The floorplan as one SVG element with its own style (light and dark).

    Area of a box: its share of the DSPs of its region, or of the LUTs for stages without DSP; boxes fill
    the region, and the smallest are enlarged.
    """
    return str(environment().get_template("floorplan.svg.j2").render(_view(design, report, board)))


class _Floor:
    """What the boxes are drawn from."""

    def __init__(self, design: Design, report: PlanReport) -> None:
        self.stages = {s.name: s for s in design.stages}
        self.costs = {s.name: s.cost(design) for s in design.stages}
        self.arrays = arrays_of(report)

    def weight(self, use: StageUse, region: RegionUse) -> float:
        """Share of a region that a stage takes of the resource that its box stands for."""
        cost = self.costs[use.name]
        key = "dsp" if cost.dsp else "lut"
        have = region.resources[key][1]
        return getattr(cost, key) / have if have else 0.0

    def parts(self, stages: Sequence[StageUse], region: RegionUse, area: Box) -> list[dict[str, Any]]:
        """Boxes of the parts of a layer, each with the boxes of its stages."""
        members: dict[str, list[StageUse]] = {}
        for use in stages:
            members.setdefault(part_of(self.stages[use.name]), []).append(use)
        weights = {name: [self.weight(u, region) for u in uses] for name, uses in members.items()}
        floor = SMALLEST * sum(map(sum, weights.values()))
        # a part is large enough for its enlarged boxes
        sums = [sum(max(floor, w) for w in found) for found in weights.values()]
        views = []
        for (name, uses), outer in zip(members.items(), squarified(sums, area), strict=True):
            head = PART if outer.width >= PART_WIDTH and outer.height >= PART_HEIGHT else 0.0
            rest = Box(outer.x + 1, outer.y + 1 + head, outer.width - 2, outer.height - 2 - head)
            inner = squarified(weights[name], rest)
            views.append(
                {
                    **_rectangle(outer, 0.0),
                    "name": name,
                    "text": _fitted(name, outer.width - 8) if head else "",
                    "stages": [self.box(u, name, b) for u, b in zip(uses, inner, strict=True)],
                }
            )
        return views

    def box(self, use: StageUse, part: str, box: Box) -> dict[str, Any]:
        """A stage's box: its name where there is room, everything else in its title."""
        cost = self.costs[use.name]
        short = use.name.removeprefix(f"{part}_")
        own = use.name if short.isdigit() else short
        lines = [_fitted(own, box.width - 8)] if box.height >= LINE + 4 else []
        figure = f"{cost.dsp:,} DSP" if cost.dsp else f"{cost.lut:,} LUT"
        if lines and lines[0] and box.height >= 2 * LINE + 4 and len(figure) * CHARACTER <= box.width - 8:
            lines.append(figure)
        return {
            **_rectangle(box, 0.6),
            "name": use.name,
            "family": family(self.stages[use.name]),
            "lines": [line for line in lines if line],
            "title": "\n".join(
                [
                    use.path or "(top)",
                    use.name,
                    *self.array_lines(use),
                    f"{cost.dsp:,} DSP, {cost.lut:,} LUT, {cost.ff:,} FF, {cost.bram18:,} BRAM18, "
                    f"{cost.uram:,} URAM (modelled)",
                    f"busy {use.busy:,} cycles, {use.share:.1%} of the pacing stage (modelled)",
                ]
            ),
        }

    def array_lines(self, use: StageUse) -> list[str]:
        """Copies, columns and products of a stage that has an array."""
        if use.name not in self.arrays:
            return []
        name, array = self.arrays[use.name]
        kept = f", weights {array.weights}" if array.weights else ""
        return [
            f"{_copies(array, name)}, {count_text(array.columns, 'column')} each{kept}",
            f"{use.products:,} products a cycle",
        ]


def _view(design: Design, report: PlanReport, board: Board) -> dict[str, Any]:
    inside = {r.slr: [s for s in report.stages if s.slr == r.slr] for r in report.regions}
    most = max((len(stages) for stages in inside.values()), default=0)
    height = LEAST + HIGHER * max(0, most - CROWD)
    floor = _Floor(design, report)
    boundaries = {b.boundary: b for b in report.boundaries}
    families, behind = family_legend()
    regions, strips = [], []
    y = LEGEND
    for region in sorted(report.regions, key=lambda r: -r.slr):
        stages, top = inside[region.slr], y + HEAD
        regions.append(
            {
                "y": number_text(y + 17),
                "top": number_text(top),
                "middle": number_text(top + height / 2),
                "title": _region_title(region, len(stages)),
                "parts": floor.parts(stages, region, Box(0.0, top, FRAME, height)),
                "bars": _bars(region, top, height),
            }
        )
        y = top + height
        if region.slr - 1 in boundaries:
            strips.append(_strip(boundaries[region.slr - 1], y))
            y += BOUNDARY
    return {
        "width": number_text(WIDTH),
        "height": number_text(y + MEMORY),
        "frame": number_text(FRAME),
        "region_height": number_text(height),
        "label": f"Floorplan: {count_text(len(report.stages), 'stage')} on {report.title}",
        "regions": regions,
        "strips": strips,
        "memory": _memory(report, board, y),
        "families": families,
        "cap": behind,
    }


def _copies(array: Array, name: str) -> str:
    return f"one of {array.copies} copies of {name}" if array.copies > 1 else f"1 copy of {name}"


def _region_title(region: RegionUse, count: int) -> str:
    kernel = f"kernel {region.kernel}" if region.kernel else "no kernel"
    return f"SLR{region.slr} · {kernel} · {count_text(count, 'stage')}"


def _bars(region: RegionUse, top: float, height: float) -> list[dict[str, Any]]:
    """Resources used against what there is, with a line at the cap; bars are cut off at all there is."""
    left, step = FRAME + GAP, height / max(1, len(region.resources))
    views = []
    for i, (name, (used, have, cap)) in enumerate(region.resources.items()):
        share = used / have if have else float(used > 0)
        x = left + LABEL
        views.append(
            {
                "label": TITLES[name],
                "x": number_text(left),
                "y": number_text(top + step * (i + 0.5) - 6),
                "track": number_text(x),
                "length": number_text(TRACK),
                "used": number_text(TRACK * min(1.0, share)),
                "cap": number_text(x + TRACK * cap),
                "tone": "over" if share > cap else ("near" if share > NEAR * cap else "well"),
                "end": number_text(x + TRACK + 8),
                "text": f"{used:,} of {have:,}",
                "note": f"{share:.1%}, cap {cap:.0%}" + (": over" if share > cap else ""),
            }
        )
    return views


def _strip(use: BoundaryUse, y: float) -> dict[str, Any]:
    """Wires over a boundary: a track of all that there are, with marks."""
    scale = FRAME / max(use.available, use.wires, use.budget, 1)
    marks = (("prudent", use.prudent), ("budget", use.budget), ("available", use.available))
    tone = "over" if use.wires > use.budget else ("near" if use.wires > use.prudent else "well")
    return {
        "text": str(use),
        "y": number_text(y + 22),
        "track": number_text(y + 30),
        "length": number_text(FRAME),
        "used": number_text(use.wires * scale),
        "tone": tone,
        "marks": [
            {
                "x": number_text(number * scale),
                "text": f"{word} {number:,}",
                # the two budgets lie side by side: one text ends at its mark, the other begins there
                "anchor": "start" if word == "budget" else "end",
                "dx": 4 if word == "budget" else -4,
            }
            for word, number in marks
        ],
    }


def _memory(report: PlanReport, board: Board, y: float) -> dict[str, Any]:
    """The channels in a row under the regions."""
    step = FRAME / max(1, board.hbm_channels)
    used = used_channels(report)
    cells = []
    for number in range(board.hbm_channels):
        port = used.get(number)
        said = f"{port.port}: {role_word(port.role)}, {size_text(port.moved)} a launch" if port else "free"
        cells.append(
            {
                "x": number_text(step * number + 1),
                "width": number_text(step - 2),
                "middle": number_text(step * (number + 0.5)),
                "role": role_class(port.role) if port else "free",
                "number": number,
                "title": f"HBM[{number}], {said}",
            }
        )
    return {
        "y": number_text(y + 12),
        "text": f"HBM at SLR{board.memory_slr}: {len(used)} of {board.hbm_channels} channels used",
        "cells": cells,
    }


def _rectangle(box: Box, inset: float) -> dict[str, str]:
    return {
        "x": number_text(box.x + inset),
        "y": number_text(box.y + inset),
        "width": number_text(max(0.5, box.width - 2 * inset)),
        "height": number_text(max(0.5, box.height - 2 * inset)),
    }


def _fitted(text: str, room: float) -> str:
    """A text cut to a width; empty where too little of it would be left."""
    fits = int(room / CHARACTER)
    return clipped(text, fits) if fits >= min(FEWEST, len(text)) else ""
