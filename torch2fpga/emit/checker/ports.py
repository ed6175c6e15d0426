# SPDX-License-Identifier: Apache-2.0
"""How often an iteration uses each stream, memory port and bank of a local array.

Of the arms of a branch only one is taken, so the fuller one counts.  Equal addresses are one
access.  An access whose bank is not known needs a port of every bank, since the tool must be
ready for each.  Constant tables are read-only memories that the tool copies as often as it reads
them, and count nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch2fpga.emit.checker.operations import Graph, Node
from torch2fpga.emit.checker.storage import Memory, Selector

READ, WRITE = "read", "write"
Bank = tuple[object, ...]  # a coordinate for each cut dimension, ANY where it is not known
ANY = "*"


@dataclass(frozen=True)
class Bound:
    """A lower bound of the initiation interval and what causes it."""

    interval: int
    reason: str


@dataclass
class Accesses:
    """What one path through an iteration accesses."""

    parent: Accesses | None = None
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    arrays: dict[tuple[str, Memory], set[tuple[Bank, object, str]]] = field(default_factory=dict)

    def port(self, kind: str, name: str, direction: str) -> int:
        """Count an access to a stream or memory port; how many came before it."""
        before = self._count(key := (kind, name, direction))
        self.counts[key] += 1
        return before

    def _count(self, key: tuple[str, str, str]) -> int:
        above = self.parent._count(key) if self.parent is not None else 0
        return self.counts[key] + above

    def array(self, name: str, memory: Memory, access: tuple[Bank, object, str]) -> None:
        """Count an access to a local memory, unless it is one that was counted before."""
        if not self._has(name, memory, access):
            self.arrays.setdefault((name, memory), set()).add(access)

    def _has(self, name: str, memory: Memory, access: tuple[Bank, object, str]) -> bool:
        if access in self.arrays.get((name, memory), ()):
            return True
        return self.parent is not None and self.parent._has(name, memory, access)

    def arm(self) -> Accesses:
        """A branch of this path."""
        return Accesses(self)

    def join(self, first: Accesses, second: Accesses) -> None:
        """Add the fuller arm of a branch."""
        for port in {**first.counts, **second.counts}:
            self.counts[port] += max(first.counts[port], second.counts[port])
        for key in {**first.arrays, **second.arrays}:
            fuller = max(first.arrays.get(key, set()), second.arrays.get(key, set()), key=len)
            self.arrays.setdefault(key, set()).update(fuller)

    def bounds(self) -> Iterator[Bound]:
        """What each stream, port and bank asks of the interval."""
        for (kind, name, direction), count in sorted(self.counts.items()):
            if count > 1:
                yield Bound(count, f"{count} {direction}s of {kind} '{name}' an iteration")
        for (name, memory), accesses in sorted(self.arrays.items(), key=lambda item: item[0][0]):
            yield from _bank_bounds(name, memory, accesses)


def _bank_bounds(name: str, memory: Memory, accesses: set[tuple[Bank, object, str]]) -> Iterator[Bound]:
    worst = Bound(1, "")
    for bank in {access[0] for access in accesses}:
        inside = [a for a in accesses if _meets(a[0], bank)]
        reads = sum(direction == READ for _, _, direction in inside)
        writes = len(inside) - reads
        most_reads, most_writes, most = memory.ports
        interval = max(_ratio(reads, most_reads), _ratio(writes, most_writes), _ratio(reads + writes, most))
        if interval > worst.interval:
            reason = f"{reads} reads and {writes} writes of one bank of array '{name}' ({memory.kind})"
            worst = Bound(interval, reason)
    if worst.interval > 1:
        yield worst


def _meets(bank: Bank, other: Bank) -> bool:
    """Whether an access to `bank` needs a port of `other`."""
    return all(a in (ANY, b) for a, b in zip(bank, other, strict=False))


def _ratio(count: int, ports: float) -> int:
    return math.ceil(count / ports) if ports else (1 if count else 0)


def locate(graph: Graph, memory: Memory, indices: tuple[Selector, ...]) -> tuple[Bank, object]:
    """The bank and the address (equal for equal addresses) of an access."""
    bank: list[object] = []
    address: list[object] = []
    for index, size, (how, factor, wide) in zip(indices, memory.sizes, memory.cuts, strict=False):
        terms, rest = graph.linear(index) if isinstance(index, Node) else ((), index)
        if not isinstance(rest, int):
            continue
        fixed = not terms
        if how == "complete" or size == 1:
            coordinate: object = rest if fixed else (0 if size == 1 else ANY)
            word: object = 0 if fixed or wide else (terms, rest)
        elif how == "cyclic":
            aligned = all(weight % factor == 0 for _, weight in terms)
            coordinate = rest % factor if aligned else ANY
            word = (terms, rest // factor) if aligned else (terms, rest)
        elif how == "block":
            length = math.ceil(size / factor)
            coordinate = rest // length if fixed else ANY
            word = (terms, rest % length if fixed else rest)
        else:
            coordinate, word = 0, (terms, rest)
        bank.append(0 if wide else coordinate)
        address.append(word)
    return tuple(bank), tuple(address)
