# SPDX-License-Identifier: Apache-2.0
"""Boxes of the floorplan: they fill their area, never overlap, and follow their weights."""

from __future__ import annotations

import itertools
import random

import pytest

from torch2fpga.report.layout import Box
from torch2fpga.report.treemap import ENLARGED, SMALLEST, squarified

AREA = Box(10.0, 20.0, 700.0, 180.0)


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.bottom, b.bottom) - max(a.y, b.y)
    return max(0.0, wide) * max(0.0, high)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 300])
@pytest.mark.parametrize("area", [AREA, Box(0.0, 0.0, 30.0, 400.0)])
def test_boxes_fill_the_area_without_overlap(count: int, area: Box) -> None:
    rng = random.Random(count)
    weights = [rng.choice([0.0, 1e-6, rng.random(), 20 * rng.random()]) for _ in range(count)]
    boxes = squarified(weights, area)
    assert len(boxes) == count
    assert sum(b.width * b.height for b in boxes) == pytest.approx(area.width * area.height)
    for box in boxes:
        assert box.x >= area.x - 1e-6 and box.y >= area.y - 1e-6
        assert box.x + box.width <= area.x + area.width + 1e-6 and box.bottom <= area.bottom + 1e-6
    assert all(overlap(a, b) < 1e-6 for a, b in itertools.combinations(boxes, 2))


def test_areas_follow_the_weights() -> None:
    boxes = squarified([1.0, 6.0, 3.0], AREA)
    areas = [b.width * b.height for b in boxes]
    assert areas == pytest.approx([AREA.width * AREA.height * w / 10 for w in (1, 6, 3)])
    assert squarified([10.0, 60.0, 30.0], AREA) == boxes


def test_the_smallest_are_enlarged_but_not_too_much() -> None:
    whole = AREA.width * AREA.height
    boxes = squarified([1.0, 0.0], AREA)
    assert boxes[1].width * boxes[1].height == pytest.approx(whole * SMALLEST / (1 + SMALLEST))
    crowd = squarified([1.0] + [0.0] * 500, AREA)
    assert crowd[0].width * crowd[0].height >= whole * (1 - ENLARGED) / (1 + ENLARGED)


def test_boxes_are_not_slivers() -> None:
    boxes = squarified([1.0] * 24, AREA)
    assert max(max(b.width / b.height, b.height / b.width) for b in boxes) < 3


def test_nothing_and_only_nothing() -> None:
    assert squarified([], AREA) == []
    same = squarified([0.0, 0.0], AREA)
    assert same[0].width * same[0].height == pytest.approx(same[1].width * same[1].height)
