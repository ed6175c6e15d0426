# SPDX-License-Identifier: Apache-2.0
"""Order of a layered drawing: feedback edges, layers by longest path, few crossings, positions.

The four steps of Sugiyama, Tagawa and Toda (1981): cycles are cut, nodes get layers, layers get an
order by barycentres, and coordinates follow (here by isotonic regression, which is exact for a
given order).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

#: sweeps over all layers; orders and positions settle well before
SWEEPS = 12
POSITION_SWEEPS = 120
STRAIGHTEN_ROUNDS = 100


def components(keys: Sequence[K], targets: Mapping[K, Sequence[K]]) -> dict[K, int]:
    """Strongly connected component of each node (Kosaraju, without recursion)."""
    sources: dict[K, list[K]] = {k: [] for k in keys}
    for key in keys:
        for target in targets.get(key, ()):
            sources[target].append(key)
    finished: list[K] = []
    seen: set[K] = set()
    for key in keys:
        _visit(key, targets, seen, finished.append)
    number: dict[K, int] = {}
    seen = set()
    for key in reversed(finished):
        if key not in seen:
            members: list[K] = []
            _visit(key, sources, seen, members.append)
            number.update(dict.fromkeys(members, len(number)))
    return number


def _visit(start: K, targets: Mapping[K, Sequence[K]], seen: set[K], leave: Callable[[K], None]) -> None:
    """Depth first from ``start``; ``leave`` is called for a node when all behind it are done."""
    if start in seen:
        return
    seen.add(start)
    stack = [(start, iter(targets.get(start, ())))]
    while stack:
        key, rest = stack[-1]
        following = next((t for t in rest if t not in seen), None)
        if following is None:
            stack.pop()
            leave(key)
        else:
            seen.add(following)
            stack.append((following, iter(targets.get(following, ()))))


def feedback(keys: Sequence[K], edges: Iterable[tuple[K, K]]) -> set[tuple[K, K]]:
    """Edges that close a cycle: within one component, and not forward in the given order."""
    pairs = list(edges)
    targets: dict[K, list[K]] = {k: [] for k in keys}
    for source, target in pairs:
        targets[source].append(target)
    number = components(keys, targets)
    place = {k: i for i, k in enumerate(keys)}
    return {(s, t) for s, t in pairs if number[s] == number[t] and place[s] >= place[t]}


def layers(keys: Sequence[K], edges: Iterable[tuple[K, K]]) -> dict[K, int]:
    """Longest-path layers of an acyclic graph; sources move down to just before their readers."""
    pairs = list(edges)
    targets: dict[K, list[K]] = {k: [] for k in keys}
    waits = dict.fromkeys(keys, 0)
    for source, target in pairs:
        targets[source].append(target)
        waits[target] += 1
    inner = {t for _, t in pairs}
    layer = dict.fromkeys(keys, 0)
    ready = [k for k in keys if not waits[k]]
    for key in ready:  # grows while it is walked
        for target in targets[key]:
            layer[target] = max(layer[target], layer[key] + 1)
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    for key in keys:
        if key not in inner and targets[key]:
            layer[key] = min(layer[t] for t in targets[key]) - 1
    return layer


def crossings(upper: Sequence[int], lower: Sequence[int], down: Mapping[int, Sequence[int]]) -> int:
    """Crossings between two neighbouring layers."""
    place = {item: i for i, item in enumerate(lower)}
    ends = [place[t] for item in upper for t in sorted(down[item], key=lambda t: place[t])]
    return sum(b < a for i, a in enumerate(ends) for b in ends[i + 1 :])


def order(rows: list[list[int]], down: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """The rows reordered by barycentre sweeps; the best order seen wins."""
    up: dict[int, list[int]] = {item: [] for row in rows for item in row}
    for item, targets in down.items():
        for target in targets:
            up[target].append(item)

    def total(candidate: list[list[int]]) -> int:
        return sum(crossings(a, b, down) for a, b in pairwise(candidate))

    best, best_count = rows, total(rows)
    current = [list(row) for row in rows]
    for sweep in range(SWEEPS):
        if best_count == 0:
            break
        links, span = (up, range(1, len(rows))) if sweep % 2 == 0 else (down, range(len(rows) - 2, -1, -1))
        for i in span:
            _sort_row(current, i, links, i - 1 if sweep % 2 == 0 else i + 1)
        count = total(current)
        if count < best_count:
            best, best_count = [list(row) for row in current], count
    return best


def _sort_row(rows: list[list[int]], at: int, links: Mapping[int, Sequence[int]], fixed: int) -> None:
    """Sort one row by the mean place of its neighbours in the fixed row."""
    place = {item: i for i, item in enumerate(rows[fixed])}
    keys: dict[int, float] = {}
    for i, item in enumerate(rows[at]):
        near = [place[n] for n in links[item] if n in place]
        keys[item] = sum(near) / len(near) if near else float(i)
    rows[at].sort(key=keys.__getitem__)


def spread(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Positions closest to the wanted ones (weighted squares) with ``gaps[i]`` between i and i + 1."""
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, mass, size = value - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            left, left_mass, left_size = blocks.pop()
            mean = (left * left_mass + mean * mass) / (left_mass + mass)
            mass, size = left_mass + mass, left_size + size
        blocks.append((mean, mass, size))
    means = [mean for mean, _, size in blocks for _ in range(size)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def positions(
    rows: Sequence[Sequence[int]],
    down: Mapping[int, Sequence[int]],
    width: Mapping[int, float],
    bends: Collection[int],
    gap: float,
) -> dict[int, float]:
    """Centre of every item, so that edges run as straight down as the order allows.

    Args:
        bends: items that are bends of a passing edge, which want to be straight most of all.
    """
    near = _pulls(rows, down, bends)
    mass = {item: sum(pull for _, pull, _ in found) or 1.0 for item, found in near.items()}
    x: dict[int, float] = {}
    for row in rows:
        at = 0.0
        for item in row:
            x[item] = at + width[item] / 2
            at += width[item] + gap
    for sweep in range(POSITION_SWEEPS):
        forward = sweep % 2 == 0
        one_sided = sweep < POSITION_SWEEPS // 4
        for row in rows if forward else list(reversed(rows)):
            wanted = []
            for item in row:
                look = [n for n in near[item] if not one_sided or n[2] == forward] or near[item]
                total = sum(pull for _, pull, _ in look)
                wanted.append(sum(pull * x[n] for n, pull, _ in look) / total if look else x[item])
            gaps = [(width[a] + width[b]) / 2 + gap for a, b in pairwise(row)]
            x.update(zip(row, spread(wanted, [mass[i] for i in row], gaps), strict=True))
    _straighten(rows, near, width, gap, x)
    left = min((x[i] - width[i] / 2 for i in x), default=0.0)
    return {item: value - left for item, value in x.items()}


def _straighten(
    rows: Sequence[Sequence[int]],
    near: Mapping[int, Sequence[tuple[int, float, bool]]],
    width: Mapping[int, float],
    gap: float,
    x: dict[int, float],
) -> None:
    """Bring chains of strong pulls onto one line: projections onto "straight" and "apart" in turn."""
    chain: dict[int, list[int]] = {}
    for row in rows:
        for item in row:
            above = next((n for n, pull, up in near[item] if up and pull > 1), None)
            members = chain[above] if above is not None else []
            members.append(item)
            chain[item] = members
    for _ in range(STRAIGHTEN_ROUNDS):
        mean = {i: sum(x[m] for m in chain[i]) / len(chain[i]) for i in x}
        for row in rows:
            gaps = [(width[a] + width[b]) / 2 + gap for a, b in pairwise(row)]
            x.update(zip(row, spread([mean[i] for i in row], [1.0] * len(row), gaps), strict=True))


def _pulls(
    rows: Sequence[Sequence[int]], down: Mapping[int, Sequence[int]], bends: Collection[int]
) -> dict[int, list[tuple[int, float, bool]]]:
    """item -> (neighbour, how strongly it pulls, is it above)."""
    inputs = Counter(t for targets in down.values() for t in targets)
    near: dict[int, list[tuple[int, float, bool]]] = {item: [] for row in rows for item in row}
    for item, targets in down.items():
        for target in targets:
            single = len(targets) == 1 and inputs[target] == 1
            pull = 8.0 if item in bends and target in bends else (4.0 if single else 1.0)
            near[item].append((target, pull, False))
            near[target].append((item, pull, True))
    return near
