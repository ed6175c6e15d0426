# SPDX-License-Identifier: Apache-2.0
"""Rectangles whose areas follow weights, as close to squares as they can be.

Bruls, Huizing and van Wijk, "Squarified treemaps", 2000: boxes are laid along the shorter side of what
is left, and a row ends where one more box would make its worst box longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch2fpga.report.layout import Box

#: the smallest box has this share of the area, so that it can be seen and pointed at
SMALLEST = 0.008
#: but all boxes that are enlarged together take at most this share
ENLARGED = 0.5


def squarified(weights: Sequence[float], area: Box) -> list[Box]:
    """A box for every weight, in the order given; together they fill ``area`` without overlap.

    Boxes follow the weights in any unit; the smallest are enlarged (``SMALLEST``).
    """
    if not weights:
        return []
    scale = area.width * area.height
    sizes = [share * scale for share in _shares(weights)]
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    placed: dict[int, Box] = {}
    while order:
        count = _row_length([sizes[i] for i in order], min(area.width, area.height))
        row, order = order[:count], order[count:]
        boxes, area = _row([sizes[i] for i in row], area)
        placed.update(zip(row, boxes, strict=True))
    return [placed[i] for i in range(len(sizes))]


def _shares(weights: Sequence[float]) -> list[float]:
    """Shares that add up to 1, none below the floor."""
    least = min(SMALLEST, ENLARGED / len(weights))
    total = sum(weights)
    shares = [max(least, w / total) if total > 0 else 1.0 for w in weights]
    return [s / sum(shares) for s in shares]


def _row_length(sizes: Sequence[float], side: float) -> int:
    """How many of the largest boxes go into the next row."""
    count = 1
    while count < len(sizes) and _worst(sizes[: count + 1], side) <= _worst(sizes[:count], side):
        count += 1
    return count


def _worst(sizes: Sequence[float], side: float) -> float:
    """The largest ratio of sides in a row (sizes descend)."""
    depth = sum(sizes) / side
    return max(sizes[0] / depth**2, depth**2 / sizes[-1])


def _row(sizes: Sequence[float], area: Box) -> tuple[list[Box], Box]:
    """Boxes of a row, and what is left behind it."""
    total, boxes = sum(sizes), []
    if area.width >= area.height:
        depth, y = total / area.height, area.y
        for size in sizes:
            boxes.append(Box(area.x, y, depth, size / depth))
            y += size / depth
        return boxes, Box(area.x + depth, area.y, max(0.0, area.width - depth), area.height)
    depth, x = total / area.width, area.x
    for size in sizes:
        boxes.append(Box(x, area.y, size / depth, depth))
        x += size / depth
    return boxes, Box(area.x, area.y + depth, area.width, max(0.0, area.height - depth))
