# SPDX-License-Identifier: Apache-2.0
"""Coordinates of a drawing: nodes in layers, layers in bands, bands in frames, all from top to bottom.

Edges run down through the layers as curves. Edges that go back run at right angles: into the gap
below their source, up along a track left of everything, and in again from above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch2fpga.report import layering

LAYER_GAP = 24.0
NODE_GAP = 18.0
BAND_TOP, BAND_BOTTOM, BAND_GAP = 34.0, 14.0, 8.0
FRAME_TOP, FRAME_BOTTOM, FRAME_GAP = 42.0, 8.0, 20.0
FRAME_PAD, BAND_PAD = 8.0, 16.0
#: distance of parallel tracks; of horizontal pieces in one gap; of tracks to the frames
TRACK, STEP, GUTTER = 14.0, 6.0, 18.0
RADIUS = 7.0
#: width that a passing edge takes, and how straight it wants to be
BEND_WIDTH = 10.0
#: sideways jogs up to this are taken out at the ends of an edge
JOG = 7.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Node:
    """A box to place; nodes are given in the order in which data meets them."""

    key: str
    width: float
    height: float
    frame: int = 0
    band: int = 0


@dataclass(frozen=True)
class Edge:
    """A directed edge between two nodes."""

    key: str
    source: str
    target: str


@dataclass(frozen=True)
class Box:
    """A placed rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Route:
    """The path of an edge (SVG path data).

    Attributes:
        feedback: the edge closes a cycle.
        track: middle of the vertical piece of an edge that goes back, where a label fits.
    """

    path: str
    feedback: bool = False
    track: Point | None = None


@dataclass(frozen=True)
class Drawing:
    """All coordinates. Bands are keyed by (frame, band)."""

    width: float
    height: float
    boxes: Mapping[str, Box]
    routes: Mapping[str, Route]
    frames: Mapping[int, Box]
    bands: Mapping[tuple[int, int], Box]


def draw(nodes: Sequence[Node], edges: Sequence[Edge]) -> Drawing:
    """Place nodes and route edges."""
    return _Drawer(nodes, edges).run()


class _Drawer:
    """State of one drawing. Items are nodes, and the bends of edges that pass a layer."""

    def __init__(self, nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
        self.nodes = {n.key: n for n in nodes}
        self.edges = list(edges)
        pairs = layering.feedback([n.key for n in nodes], [(e.source, e.target) for e in edges])
        self.back = {e.key for e in edges if (e.source, e.target) in pairs}
        self.down_edges = [e for e in edges if self._goes_down(e)]
        self.up_edges = [e for e in edges if not self._goes_down(e)]
        self.layer: dict[str, int] = {}
        self.zone: list[tuple[int, int]] = []  # (frame, band) of each layer
        self.rows: list[list[int]] = []
        self.items: dict[int, str] = {}  # items that are nodes
        self.chains: dict[str, list[int]] = {}  # edge -> items from source to target
        self.x: dict[int, float] = {}
        self.top: list[float] = []
        self.bottom: list[float] = []
        self.boxes: dict[str, Box] = {}
        self.ends: dict[tuple[str, str], float] = {}  # (edge, "out" or "in") -> x

    def _zone(self, key: str) -> tuple[int, int]:
        return self.nodes[key].frame, self.nodes[key].band

    def _goes_down(self, edge: Edge) -> bool:
        return edge.key not in self.back and self._zone(edge.source) <= self._zone(edge.target)

    def run(self) -> Drawing:
        """All steps in order."""
        self._layers()
        inner = self._arrange()
        margin = GUTTER + TRACK * (len(self.up_edges) - 1) + GUTTER if self.up_edges else 1.0
        left = margin + FRAME_PAD + BAND_PAD
        self.x = {item: x + left for item, x in self.x.items()}
        zones, height = self._stack()
        width = inner + 2 * BAND_PAD
        bands = {z: Box(margin + FRAME_PAD, y0, width, y1 - y0) for z, (y0, y1) in zones.items()}
        frames: dict[int, Box] = {}
        for frame in dict.fromkeys(f for f, _ in bands):
            y0 = min(b.y for (f, _), b in bands.items() if f == frame) - FRAME_TOP
            y1 = max(b.bottom for (f, _), b in bands.items() if f == frame) + FRAME_BOTTOM
            frames[frame] = Box(margin, y0, width + 2 * FRAME_PAD, y1 - y0)
        self._boxes()
        self._ends()
        routes = {e.key: self._curve(e) for e in self.down_edges}
        routes.update(self._returns())
        return Drawing(margin + width + 2 * FRAME_PAD + 1, height, self.boxes, routes, frames, bands)

    def _layers(self) -> None:
        start = 0
        for zone in sorted({self._zone(k) for k in self.nodes}):
            members = [k for k in self.nodes if self._zone(k) == zone]
            inside = set(members)
            pairs = [(e.source, e.target) for e in self.down_edges if {e.source, e.target} <= inside]
            found = layering.layers(members, pairs)
            self.layer.update({k: start + v for k, v in found.items()})
            depth = max(found.values()) + 1
            self.zone += [zone] * depth
            start += depth

    def _arrange(self) -> float:
        """Order within layers and horizontal positions; the width they take."""
        self.items = dict(enumerate(self.nodes))
        ids = {key: i for i, key in self.items.items()}
        self.rows = [[] for _ in self.zone]
        for key, i in ids.items():
            self.rows[self.layer[key]].append(i)
        down: dict[int, list[int]] = {i: [] for i in self.items}
        sizes = {i: self.nodes[key].width for i, key in self.items.items()}
        for edge in self.down_edges:
            chain = [ids[edge.source]]
            for level in range(self.layer[edge.source] + 1, self.layer[edge.target]):
                bend = len(sizes)
                sizes[bend], down[bend] = BEND_WIDTH, []
                self.rows[level].append(bend)
                chain.append(bend)
            chain.append(ids[edge.target])
            for a, b in pairwise(chain):
                down[a].append(b)
            self.chains[edge.key] = chain
        self.rows = layering.order(self.rows, down)
        self.x = layering.positions(self.rows, down, sizes, set(sizes) - set(self.items), NODE_GAP)
        return max((self.x[i] + sizes[i] / 2 for i in self.x), default=0.0)

    def _stack(self) -> tuple[dict[tuple[int, int], tuple[float, float]], float]:
        """Vertical positions; top and bottom of each zone, and the whole height."""
        below = Counter(self.layer[e.source] for e in self.up_edges)
        above = Counter(self.layer[e.target] for e in self.up_edges)
        zones: dict[tuple[int, int], tuple[float, float]] = {}
        y, before = 1.0, None
        for i, (row, zone) in enumerate(zip(self.rows, self.zone, strict=True)):
            if before is None or zone[0] != before[0]:
                y += FRAME_TOP if before is None else FRAME_BOTTOM + FRAME_GAP + FRAME_TOP
            elif zone != before:
                y += BAND_GAP
            start = y if zone != before else zones[zone][0]
            y += (BAND_TOP if zone != before else LAYER_GAP - BAND_BOTTOM) + STEP * above[i]
            tall = max((self.nodes[self.items[i]].height for i in row if i in self.items), default=0.0)
            self.top.append(y)
            self.bottom.append(y + tall)
            y += tall + STEP * below[i] + BAND_BOTTOM
            zones[zone] = (start, y)
            before = zone
        return zones, y + FRAME_BOTTOM + 1

    def _boxes(self) -> None:
        for item, key in self.items.items():
            node, level = self.nodes[key], self.layer[key]
            middle = (self.top[level] + self.bottom[level]) / 2
            self.boxes[key] = Box(
                self.x[item] - node.width / 2, middle - node.height / 2, node.width, node.height
            )

    def _ends(self) -> None:
        """Where on a node's lower and upper side each edge meets it."""
        meets: dict[tuple[str, str], list[tuple[float, int, str]]] = {}
        for rank, edge in enumerate(self.edges):
            chain = self.chains.get(edge.key)
            out, into = (self.x[chain[1]], self.x[chain[-2]]) if chain else (-1.0, -1.0)
            meets.setdefault((edge.source, "out"), []).append((out, rank, edge.key))
            meets.setdefault((edge.target, "in"), []).append((into, rank, edge.key))
        for (key, side), found in meets.items():
            box = self.boxes[key]
            step = min(30.0, (box.width - 16) / len(found))
            for i, (_, _, edge_key) in enumerate(sorted(found)):
                offset = (i - (len(found) - 1) / 2) * step
                self.ends[edge_key, side] = box.x + box.width / 2 + offset

    def _curve(self, edge: Edge) -> Route:
        """Down through the layers."""
        chain = self.chains[edge.key]
        xs = [self.x[item] for item in chain]
        xs[0], xs[-1] = self.ends[edge.key, "out"], self.ends[edge.key, "in"]
        if len(xs) == 2 and abs(xs[0] - xs[1]) <= JOG:
            xs[0] = xs[1] = self.ends[edge.key, "in"]
        level = self.layer[edge.source]
        path = [piece("M", xs[0], self.boxes[edge.source].bottom)]
        for i, (a, b) in enumerate(pairwise(xs)):
            y0, y1 = self.bottom[level + i], self.top[level + i + 1]
            middle = (y0 + y1) / 2
            if a != b:
                path += [piece("V", y0), piece("C", a, middle, b, middle, b, y1)]
        path.append(piece("V", self.boxes[edge.target].y))
        return Route("".join(path))

    def _returns(self) -> dict[str, Route]:
        """Edges that go back; the longest runs farthest out."""
        below: Counter[int] = Counter()
        above: Counter[int] = Counter()
        found: dict[str, Route] = {}
        longest = sorted(self.up_edges, key=lambda e: self.layer[e.target] - self.layer[e.source])
        for number, edge in enumerate(longest):
            leave, enter = self.layer[edge.source], self.layer[edge.target]
            y0 = self.bottom[leave] + 9 + STEP * (len(longest) - 1 - below[leave])
            y1 = self.top[enter] - 9 - STEP * (len(longest) - 1 - above[enter])
            below[leave] += 1
            above[enter] += 1
            start, end = self.ends[edge.key, "out"], self.ends[edge.key, "in"]
            track = GUTTER + TRACK * number
            points = [
                (start, self.boxes[edge.source].bottom),
                (start, y0),
                (track, y0),
                (track, y1),
                (end, y1),
                (end, self.boxes[edge.target].y),
            ]
            found[edge.key] = Route(rounded(points), edge.key in self.back, (track, (y0 + y1) / 2))
        return found


def rounded(points: Sequence[Point]) -> str:
    """Path data of a polyline of horizontal and vertical pieces, with rounded corners."""
    path = [piece("M", *points[0])]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        near, far = _toward(corner, before), _toward(corner, after)
        path += [piece("L", *near), piece("Q", *corner, *far)]
    path.append(piece("L", *points[-1]))
    return "".join(path)


def _toward(corner: Point, other: Point) -> Point:
    """The point where a corner's rounding begins, on the way to ``other``."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)
    part = min(RADIUS, length / 2) / length if length else 0.0
    return corner[0] + dx * part, corner[1] + dy * part


def piece(command: str, *numbers: float) -> str:
    """One command of SVG path data."""
    return command + " ".join(map(number_text, numbers))


def number_text(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")
