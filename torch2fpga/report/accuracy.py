# SPDX-License-Identifier: Apache-2.0
"""Accuracy by stage: rows of a table, and the chart of cosines in the order of execution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch2fpga.design import Design
from torch2fpga.report.describe import GROUPS, cosine_text, family
from torch2fpga.simulate.verify import StageResult

WIDTH, HEIGHT = 1000.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 8.0, 10.0, 26.0
#: cosines are drawn by their number of nines, at most this many
MOST_NINES = 7.0


def nines(cosine: float) -> float:
    """How many nines: 0.99 is 2. Anything that is not a number has none."""
    if not math.isfinite(cosine):
        return 0.0
    return min(MOST_NINES, max(0.0, -math.log10(max(1.0 - cosine, 10.0**-MOST_NINES))))


def level(result: StageResult, cosine: float) -> str:
    """Colour class of one use."""
    return f"n{min(4, int(nines(cosine) + 1e-9))}" if result.equal else "broken"


def accuracy_rows(results: Sequence[StageResult]) -> list[dict[str, Any]]:
    """Rows of the table."""
    rows = []
    for result in results:
        cosines = [use.cosine for use in result.steps]
        worst = min(range(len(cosines)), key=lambda i: nines(cosines[i]), default=None)
        cells = [
            {
                "level": level(result, use.cosine),
                "title": f"step {i}: cosine {cosine_text(use.cosine)}, largest error {use.max_error:.3g}",
            }
            for i, use in enumerate(result.steps)
        ]
        rows.append(
            {
                "name": result.name,
                "path": result.path or "(top)",
                "equal": result.equal,
                "mismatches": result.mismatches,
                "compared": result.compared,
                "mean": cosine_text(sum(cosines) / len(cosines) if cosines else None),
                "worst": cosine_text(None if worst is None else cosines[worst]),
                "worst_step": worst if len(cosines) > 1 else None,
                "error": "–" if result.max_error is None else f"{result.max_error:.3g}",
                "cells": cells,
            }
        )
    return rows


@dataclass(frozen=True)
class _Dot:
    """One use of a stage, ordered as executed: before the loop, layer by layer, after it."""

    group: int
    layer: int
    index: int
    cosine: float
    result: StageResult


def _dots(design: Design, results: Sequence[StageResult]) -> list[_Dot]:
    groups = list(GROUPS)
    place = {s.name: i for i, s in enumerate(design.stages)}
    found = []
    for result in results:
        index = place.get(result.name, len(place))
        stage = design.stages[index] if index < len(place) else None
        group = groups.index(stage.group) if stage is not None and stage.group in groups else 1
        steps = stage.steps if stage is not None else 1
        for i, use in enumerate(result.steps):
            found.append(_Dot(group, i % steps, index, use.cosine, result))
    return sorted(found, key=lambda d: (d.group, d.layer, d.index))


def chart(design: Design, results: Sequence[StageResult]) -> dict[str, Any] | None:
    """Dots of every use that has a cosine, in the order of execution; None without any."""
    dots = _dots(design, results)
    if not dots:
        return None
    heights = [nines(d.cosine) for d in dots]
    lowest = min(3.0, math.floor(min(heights)))
    highest = max(lowest + 2, math.ceil(max(heights)))
    step = (WIDTH - LEFT - RIGHT) / len(dots)

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (highest - value) / (highest - lowest)

    views = [
        {
            "x": f"{LEFT + step * (i + 0.5):.1f}",
            "y": f"{y_of(height):.1f}",
            "broken": not dot.result.equal,
            "family": family(design.stages[dot.index]) if dot.index < len(design.stages) else "move",
            "title": f"{dot.result.name}, step {dot.layer}: {cosine_text(dot.cosine)}"
            + ("" if dot.result.equal else ", not equal to the reference"),
        }
        for i, (dot, height) in enumerate(zip(dots, heights, strict=True))
    ]
    ticks = [
        {"y": f"{y_of(n):.1f}", "text": "≈ 1" if n >= MOST_NINES else f"{1 - 10.0**-n:.{n}f}"}
        for n in range(int(lowest), int(highest) + 1)
    ]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "base": HEIGHT - BOTTOM,
        "dots": views,
        "line": " ".join(f"{d['x']},{d['y']}" for d in views),
        "ticks": ticks,
        "parts": _parts([(d.group, d.layer) for d in dots], step, design.steps),
    }


def _parts(keys: Sequence[tuple[int, int]], step: float, steps: int) -> list[dict[str, Any]]:
    """Pieces of the horizontal axis: before, each layer, after."""
    parts: list[dict[str, Any]] = []
    start = 0
    for (group, layer), members in groupby(keys):
        count = len(list(members))
        text = {0: "before", 2: "after"}.get(group, f"layer {layer}") if steps > 1 else ""
        width = step * count
        short = text.removeprefix("layer ") if len(text) * 6 > width else text
        parts.append(
            {
                "x": f"{LEFT + step * start:.1f}",
                "width": f"{width:.1f}",
                "middle": f"{LEFT + step * start + width / 2:.1f}",
                "text": short if len(short) * 6 <= width else "",
                "odd": len(parts) % 2 == 1,
            }
        )
        start += count
    return parts
