# SPDX-License-Identifier: Apache-2.0
"""The layered drawing: layers, order, positions, and routes that stay clear of boxes."""

from __future__ import annotations

import random

import pytest

from torch2fpga.report import layering
from torch2fpga.report.layout import Edge, Node, draw


def test_feedback_is_what_goes_back_inside_a_cycle() -> None:
    keys = ["enter", "a", "b", "exit", "out"]
    edges = [("enter", "a"), ("a", "b"), ("enter", "b"), ("b", "exit"), ("exit", "enter"), ("exit", "out")]
    assert layering.feedback(keys, edges) == {("exit", "enter")}
    assert layering.feedback(keys, edges[:4]) == set()
    assert layering.feedback(["b", "a"], [("a", "b")]) == set()  # listed late, but no cycle
    assert layering.feedback(["a"], [("a", "a")]) == {("a", "a")}


def test_layers_are_longest_paths_and_sources_stay_near() -> None:
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("late", "c")]
    assert layering.layers(["a", "b", "c", "late"], edges) == {"a": 0, "b": 1, "c": 2, "late": 1}


def test_order_removes_crossings() -> None:
    down = {0: [5], 1: [4], 2: [3], 3: [], 4: [], 5: []}
    rows = layering.order([[0, 1, 2], [3, 4, 5]], down)
    assert layering.crossings(rows[0], rows[1], down) == 0


@pytest.mark.parametrize("seed", range(5))
def test_spread_keeps_gaps_and_is_closest(seed: int) -> None:
    pick = random.Random(seed)
    wanted = [pick.uniform(0, 10) for _ in range(6)]
    weights = [pick.uniform(0.5, 3) for _ in range(6)]
    gaps = [pick.uniform(0.5, 2) for _ in range(5)]
    found = layering.spread(wanted, weights, gaps)
    assert all(b - a >= g - 1e-9 for a, b, g in zip(found, found[1:], gaps, strict=False))

    def cost(x: list[float]) -> float:
        return sum(w * (a - b) ** 2 for w, a, b in zip(weights, x, wanted, strict=True))

    for _ in range(300):  # no allowed change is better
        other = [v + pick.uniform(-0.1, 0.1) for v in found]
        if all(b - a >= g for a, b, g in zip(other, other[1:], gaps, strict=False)):
            assert cost(other) >= cost(found) - 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_drawing_of_any_graph(seed: int) -> None:
    pick = random.Random(seed)
    count = 30
    nodes = [
        Node(f"n{i}", pick.choice((120.0, 200.0)), pick.choice((20.0, 50.0)), i // 12, (i // 6) % 2)
        for i in range(count)
    ]
    pairs = {(pick.randrange(i), i) for i in range(1, count) for _ in range(pick.choice((1, 1, 2)))}
    pairs |= {(29, 3), (20, 3), (8, 8)}
    edges = [Edge(f"e{a}_{b}", f"n{a}", f"n{b}") for a, b in sorted(pairs)]
    drawing = draw(nodes, edges)
    assert set(drawing.boxes) == {n.key for n in nodes} and set(drawing.routes) == {e.key for e in edges}
    boxes = list(drawing.boxes.values())
    for i, a in enumerate(boxes):
        assert a.x >= 0 and a.x + a.width <= drawing.width and a.bottom <= drawing.height
        for b in boxes[i + 1 :]:
            apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.bottom <= b.y or b.bottom <= a.y
            assert apart, (a, b)
    for node in nodes:
        box, frame = drawing.boxes[node.key], drawing.frames[node.frame]
        band = drawing.bands[node.frame, node.band]
        for outer in (frame, band):
            assert outer.x <= box.x and box.x + box.width <= outer.x + outer.width
            assert outer.y <= box.y and box.bottom <= outer.bottom
    for edge in edges:
        route = drawing.routes[edge.key]
        if route.track is None:
            assert drawing.boxes[edge.source].bottom < drawing.boxes[edge.target].y
    assert drawing.routes["e8_8"].feedback and drawing.routes["e20_3"].track is not None
    assert drawing == draw(nodes, edges)


def test_a_chain_is_straight() -> None:
    nodes = [Node(f"n{i}", 100, 20) for i in range(12)]
    edges = [Edge(f"e{i}", f"n{i}", f"n{i + 1}") for i in range(11)] + [Edge("skip", "n0", "n11")]
    drawing = draw(nodes, edges)
    assert len({round(drawing.boxes[f"n{i}"].x, 1) for i in range(1, 11)}) == 1
