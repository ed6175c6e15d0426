# SPDX-License-Identifier: Apache-2.0
"""When each operation of an iteration is done, and what the next iteration waits for.

Times are as soon as possible: operations are chained in a clock period as long as they fit, and a
register stands where the next one does not.  What the tools restructure is restructured here:

* additions whose sum is used once make a balanced tree (UG1399, "expression_balance"; integers);
* a chain of selects that are used once, so that no condition depends on the chain (a priority
  encoder), makes a tree of two-to-one multiplexers;
* chains of maxima are not balanced: each waits for the one before.

A path between iterations is a lower bound: products count as combinational, a value that comes
around joins a tree in its last addition, and paths count only where the same register or the same
address certainly comes back in the next iteration.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping

from torch2fpga.emit.checker import delays
from torch2fpga.emit.checker.operations import COMPARES, Node

Time = tuple[int, float]  # cycles, and ns into the cycle
Paths = Mapping[int, Time]  # serial of a value of the iteration before -> path to here
ZERO: Time = (0, 0.0)
_NONE: Paths = {}
_WIRES = frozenset(["const", "init", "loop", "opaque", "wire", "field", "not", "pack"])
_FIXED = {
    "stream_read": delays.STREAM_CYCLES,
    "stream_write": delays.STREAM_CYCLES,
    "port_read": 1,  # the adapter's register; the memory's own latency is the run's model
    "port_write": 1,
    "load": delays.LOAD_CYCLES,
    "store": delays.STORE_CYCLES,
    "rom": delays.LOAD_CYCLES,
}


class Schedule:
    """Times of the operations behind some roots at a clock."""

    def __init__(self, roots: Iterable[Node], clock_mhz: float, invariant: frozenset[int]) -> None:
        self.usable = delays.usable_ns(clock_mhz)
        self._invariant = dict.fromkeys(invariant, True)
        self._times: dict[int, Time] = {}
        self._paths: dict[int, Paths] = {}
        self.order = _order(roots)
        for node in self.order:
            node.uses = 0
        for node in self.order:
            for argument in node.args:
                argument.uses += 1
        for node in self.order:
            if node.serial not in self._invariant:
                fixed = bool(node.args) and all(a.serial in self._invariant for a in node.args)
                if node.op in ("const", "opaque") or (fixed and _pure(node)):
                    self._invariant[node.serial] = True
        self._absorbed = set(self._inner())
        for node in self.order:
            self._times[node.serial] = ZERO if node.serial in self._absorbed else self._time(node)

    def _inner(self) -> Iterator[int]:
        """Links of a tree of additions or chain of selects, which its last operation stands for."""
        for node in self.order:
            if node.op in ("add", "select"):
                for item in node.args if node.op == "add" else node.args[1:]:
                    if item.op == node.op and item.uses == 1 and item.serial not in self._invariant:
                        yield item.serial

    def done(self, node: Node) -> Time:
        """When a value is there."""
        return self._times[node.serial]

    def is_invariant(self, node: Node) -> bool:
        """Whether a value is the same in every iteration (the tool computes it ahead)."""
        return node.serial in self._invariant

    def depth(self, roots: Iterable[Node]) -> int:
        """Cycles until the last of these is in its register; at least 1."""
        return max([1, *(cycle + (ns > 0) for cycle, ns in map(self.done, roots))])

    # Times, as soon as possible.

    def _time(self, node: Node) -> Time:
        if node.serial in self._invariant:
            return ZERO
        if node.op == "add":
            return self._tree_time(node)
        if node.op == "select" and self._chain(node)[1]:
            conditions, arms = self._chain(node)
            ready = max(self._times[n.serial] for n in (*conditions, *arms))
            for _ in range(math.ceil(math.log2(len(arms)))):
                ready = self._after(ready, delays.of_width(delays.SELECT, node.width))
            return ready
        ready = max([ZERO, *(self._times[a.serial] for a in node.args)])
        cycles, ns = self.operator(node)
        if not cycles:
            return self._after(ready, ns)
        start, used = ready
        if node.op in _FIXED and isinstance(node.extra, tuple):
            start, used = max((start, used), (node.extra[0], 0.0))  # behind the port's other accesses
        if used + ns > self.usable:
            start += 1
        return start + cycles, 0.0

    def _after(self, ready: Time, ns: float) -> Time:
        cycle, used = ready
        if used + ns <= self.usable:
            return cycle, used + ns
        # An operator slower than the period is cut by the tool into stages.
        stages = math.ceil(ns / self.usable)
        return cycle + stages, ns - (stages - 1) * self.usable

    def _tree_time(self, node: Node) -> Time:
        heap = [(self._times[n.serial], n.width) for n in self._terms(node)]
        heapq.heapify(heap)
        while len(heap) > 1:
            _, first = heapq.heappop(heap)
            ready, second = heapq.heappop(heap)
            width = min(max(first, second) + 1, node.width)
            heapq.heappush(heap, (self._after(ready, delays.of_width(delays.ADD, width)), width))
        return heap[0][0]

    def _terms(self, node: Node) -> list[Node]:
        """What a tree of additions adds up."""
        found, pending = [], list(node.args)
        while pending:
            item = pending.pop()
            if item.op == "add" and item.uses == 1 and item.serial not in self._invariant:
                pending.extend(item.args)
            else:
                found.append(item)
        return found

    def _chain(self, node: Node) -> tuple[list[Node], list[Node]]:
        """Conditions and arms of a chain of selects used once each; no arms if it has one link."""
        conditions: list[Node] = []
        arms: list[Node] = []
        pending = [node]
        while pending:
            item = pending.pop()
            conditions.append(item.args[0])
            for arm in item.args[1:]:
                inner = arm.op == "select" and arm.uses == 1 and arm.serial not in self._invariant
                (pending if inner else arms).append(arm)
        return (conditions, arms) if len(conditions) > 1 else (conditions, [])

    def operator(self, node: Node) -> tuple[int, float]:
        """Cycles (0: combinational) and ns of a node by itself."""
        op = node.op
        if op in _WIRES:
            return 0, 0.0
        if op in _FIXED:
            return _FIXED[op], delays.STORE_NS if op in ("store", "stream_write", "port_write") else 0.0
        widths = [a.width for a in node.args]
        if op == "mul":
            return self._multiply(node)
        if op in ("div", "rem"):
            divisor = node.args[1].const
            if divisor and divisor & (divisor - 1) == 0:
                # A power of two: wires, and an addition where the value can be negative.
                return 0, 0.0 if node.args[0].lo >= 0 else delays.of_width(delays.ADD, widths[0])
            return delays.divide(max(widths), self.usable), 0.0
        if op in ("shl", "shr"):
            fixed = node.args[1].op == "const"
            return 0, 0.0 if fixed else delays.of_width(delays.SHIFT, max(node.width, widths[0]))
        if op in ("and", "or", "xor", "bits"):
            return 0, 0.0 if _is_wiring(node) else delays.of_width(delays.LOGIC, node.width)
        if op in COMPARES:
            return 0, delays.of_width(delays.COMPARE, max(widths))
        if op in ("mux", "pick"):
            inputs = node.extra if isinstance(node.extra, int) else node.extra[-1]
            return 0, delays.mux(inputs)
        rows = {"add": delays.ADD, "sub": delays.ADD, "extreme": delays.MAXIMUM, "select": delays.SELECT}
        return 0, delays.of_width(rows[op], node.width)

    def _multiply(self, node: Node) -> tuple[int, float]:
        a, b = node.args
        for value, factor in ((a, b), (b, a)):
            if factor.const is not None:
                cycles, ns = delays.multiply_constant(value.width, factor.const, self.usable)
                return (cycles, 0.0) if cycles else (0, ns)
        cycles, _ = delays.multiply(a.signed_width, b.signed_width, self.usable)
        return (node.extra if isinstance(node.extra, int) else cycles), 0.0

    # Paths from values of the iteration before.

    def paths(self, node: Node, sources: frozenset[int]) -> Paths:
        """The longest path to a node from each source that reaches it, as a lower bound."""
        if not self._paths:
            for item in self.order:
                self._paths[item.serial] = self._path(item, sources)
        return self._paths.get(node.serial, _NONE)

    def _path(self, node: Node, sources: frozenset[int]) -> Paths:
        if node.serial in self._absorbed:
            return _NONE
        if node.serial in sources:
            return {node.serial: (1, delays.LOAD_NS) if node.op == "load" else ZERO}
        inputs: Iterable[Node] = node.args
        if node.op == "add":
            inputs = self._terms(node)
        elif node.op == "select":
            conditions, arms = self._chain(node)
            inputs = (*conditions, *arms) if arms else node.args
        found: dict[int, Time] = {}
        for argument in inputs:
            for source, path in self._paths[argument.serial].items():
                if source not in found or path > found[source]:
                    found[source] = path
        if not found:
            return _NONE
        return {source: self._extend(node, path) for source, path in found.items()}

    def _extend(self, node: Node, path: Time) -> Time:
        cycles, ns = self.operator(node)
        whole, used = path
        if node.op == "mul" and cycles:
            widths = [a.signed_width for a in node.args]
            return whole, used + delays.multiply(widths[0], widths[1], self.usable)[1]
        if node.op in ("load", "rom"):
            return whole + max(1, math.ceil(used / self.usable)), delays.LOAD_NS
        if cycles:
            return whole + max(0, math.ceil(used / self.usable) - 1) + cycles, 0.0
        return whole, used + ns

    def interval(self, path: Time) -> int:
        """The least interval with which a path comes around."""
        cycles, ns = path
        return max(1, cycles + math.ceil(round(ns / self.usable, 9)))


def _order(roots: Iterable[Node]) -> list[Node]:
    """The roots and everything that they need; arguments first (they were made first)."""
    found: dict[int, Node] = {}
    pending = list(roots)
    while pending:
        node = pending.pop()
        if node.serial not in found:
            found[node.serial] = node
            pending.extend(node.args)
    return [found[serial] for serial in sorted(found)]


def _pure(node: Node) -> bool:
    return node.op not in _FIXED


def _is_wiring(node: Node) -> bool:
    """A mask by a constant, or fields put side by side."""
    if any(a.op == "const" for a in node.args):
        return True
    masks = [a.mask for a in node.args]
    return node.op == "or" and min(masks) >= 0 and masks[0] & masks[1] == 0
