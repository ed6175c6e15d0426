# SPDX-License-Identifier: Apache-2.0
"""The operations of one iteration as a graph: values with ranges, constants folded, equals shared.

The graph is what the HLS tool schedules: one node an operation, calls inlined, loops unrolled,
common subexpressions merged, constants and unreachable arms gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: range that stands for a whole struct or array (its width only chooses a row of delays)
AGGREGATE = (0, (1 << 32) - 1)
COMPARES = frozenset(["lt", "gt", "le", "ge", "eq", "ne"])
_FLIPPED = {"gt": "lt", "ge": "le"}
_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << (b & 63),
    "shr": lambda a, b: a >> (b & 63),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
}
Linear = tuple[tuple[tuple[int, int], ...], int]


class Node:
    """One operation; `lo` and `hi` bound its value, `extra` is what it names."""

    __slots__ = ("args", "extra", "hi", "linear", "lo", "mask", "op", "serial", "uses", "width")

    def __init__(self, op: str, args: tuple[Node, ...], lo: int, hi: int, extra: Any, serial: int) -> None:
        self.op, self.args, self.lo, self.hi = op, args, lo, hi
        self.extra, self.serial, self.uses = extra, serial, 0
        #: bits that the value needs, its sign included where it can be negative
        bits = hi.bit_length()
        self.width = max(1, bits) if lo >= 0 else max(bits, (-lo - 1).bit_length()) + 1
        #: bits that may be set, of values that are never negative
        self.mask = -1 if lo < 0 else (1 << bits) - 1
        self.linear: Linear | None = None

    @property
    def const(self) -> int | None:
        """The value where it is known."""
        return self.lo if self.op == "const" else None

    @property
    def signed_width(self) -> int:
        """Bits as a signed operand."""
        return self.width + (self.lo >= 0)


class Graph:
    """Makes nodes, each only once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Node] = {}
        self._by_serial: list[Node] = []

    def make(self, op: str, args: tuple[Node, ...] = (), lo: int = 0, hi: int = 0, extra: Any = None) -> Node:
        """The node of this operation on these arguments."""
        key = (op, tuple([a.serial for a in args]), lo, hi, extra)
        node = self._known.get(key)
        if node is None:
            node = Node(op, args, lo, hi, extra, len(self._by_serial))
            self._by_serial.append(node)
            self._known[key] = node
        return node

    def states(self, keys: frozenset[int]) -> frozenset[int]:
        """The serials of the values that these variables had before the iteration."""
        return frozenset(n.serial for n in self._by_serial if n.op == "init" and n.extra[0] in keys)

    def const(self, value: int) -> Node:
        """A known value."""
        return self.make("const", (), value, value)

    def convert(self, node: Node, lo: int, hi: int) -> Node:
        """To a type of this range; a value that fits stays what it is."""
        if lo <= node.lo and node.hi <= hi:
            return node
        if node.op == "const":
            span = hi - lo + 1
            return self.const((node.lo - lo) % span + lo)
        if hi == 1 and lo == 0:
            return self.compare("ne", node, self.const(0))
        return self.make("wire", (node,), lo, hi)

    def binary(self, op: str, a: Node, b: Node, lo: int, hi: int) -> Node:
        """An arithmetic operation of a type with the range [lo, hi]."""
        if op in COMPARES:
            return self.compare(op, a, b)
        if a.op == "const" and b.op == "const":
            folded = _fold(op, a.lo, b.lo)
            if folded is not None:
                return self.convert(self.const(folded), lo, hi)
        simple = self._simplify(op, a, b, lo, hi)
        if simple is not None:
            return simple
        low, high = _range(op, a, b)
        if low < lo or high > hi:
            # Signed overflow does not happen; unsigned values wrap.
            low, high = (max(low, lo), min(high, hi)) if lo < 0 else (lo, hi)
            if low > high:
                low, high = lo, hi
        node = self.make(op, (a, b), low, high)
        if node.mask >= 0:
            node.mask &= _mask(op, a, b)
        return node

    def _simplify(self, op: str, a: Node, b: Node, lo: int, hi: int) -> Node | None:
        left, right = a.const, b.const
        if right == 0 and op in ("add", "sub", "shl", "shr", "or", "xor"):
            return self.convert(a, lo, hi)
        if left == 0 and op in ("add", "or", "xor"):
            return self.convert(b, lo, hi)
        if op in ("mul", "and") and 0 in (left, right):
            return self.const(0)
        if op == "mul":
            if right == 1 or left == 1:
                return self.convert(a if right == 1 else b, lo, hi)
            # x * (1 << e) is a shift: the tool's own simplification
            for value, power in ((a, b), (b, a)):
                if power.op == "shl" and power.args[0].const == 1:
                    return self.binary("shl", value, power.args[1], lo, hi)
        if op == "rem" and right and a.lo >= 0 and a.hi < right:
            return a
        if op == "div" and right and a.lo >= 0 and a.hi < right:
            return self.const(0)
        if op == "div" and right == 1:
            return a
        if op == "rem" and right == 1:
            return self.const(0)
        return None

    def compare(self, op: str, a: Node, b: Node) -> Node:
        """A comparison; known where the ranges decide it."""
        if op in _FLIPPED:
            return self.compare(_FLIPPED[op], b, a)
        if a is b:
            return self.const(int(op in ("le", "eq")))
        apart = a.hi < b.lo or b.hi < a.lo
        known = {
            "lt": True if a.hi < b.lo else (False if a.lo >= b.hi else None),
            "le": True if a.hi <= b.lo else (False if a.lo > b.hi else None),
            "eq": False if apart else (True if a.lo == a.hi == b.lo == b.hi else None),
            "ne": True if apart else (False if a.lo == a.hi == b.lo == b.hi else None),
        }[op]
        if known is not None:
            return self.const(int(known))
        if op == "ne" and b.const == 0 and a.lo == 0 and a.hi == 1:
            return a
        return self.make(op, (a, b), 0, 1)

    def negate(self, condition: Node) -> Node:
        """The logical complement: free, in the table of what takes it."""
        if condition.const is not None:
            return self.const(int(condition.const == 0))
        if condition.op == "not":
            return condition.args[0]
        return self.make("not", (condition,), 0, 1)

    def select(self, condition: Node, a: Node, b: Node) -> Node:
        """`condition ? a : b`."""
        if condition.const is not None:
            return a if condition.const else b
        if a is b:
            return a
        if condition.op == "not":
            return self.select(condition.args[0], b, a)
        for added, kept, flip in ((a, b, False), (b, a, True)):
            # c ? k + x : k is k + (c ? x : 0), as the tool's optimiser has it
            if added.op == "add" and kept in added.args:
                other = added.args[1] if added.args[0] is kept else added.args[0]
                zero = self.const(0)
                inner = self.select(condition, zero, other) if flip else self.select(condition, other, zero)
                return self.make("add", (kept, inner), min(a.lo, b.lo), max(a.hi, b.hi))
        lo, hi = min(a.lo, b.lo), max(a.hi, b.hi)
        if condition.op in ("lt", "le") and {a, b} == set(condition.args):
            larger = a is condition.args[1]
            bounds = (max(a.lo, b.lo), hi) if larger else (lo, min(a.hi, b.hi))
            return self.make("extreme", (a, b), *bounds, extra=larger)
        if condition.op in ("lt", "le"):
            lo, hi = _clamped(condition, a, b)
        return self.make("select", (condition, a, b), lo, hi)

    def linear(self, node: Node) -> Linear:
        """The value as a sum of multiples of other nodes (by serial) and a constant."""
        if node.linear is None:
            node.linear = self._linear(node)
        return node.linear

    def _linear(self, node: Node) -> Linear:
        if node.op == "const":
            return (), node.lo
        if node.op in ("add", "sub"):
            sign = 1 if node.op == "add" else -1
            (a, p), (b, q) = map(self.linear, node.args)
            terms = dict(a)
            for serial, factor in b:
                terms[serial] = terms.get(serial, 0) + sign * factor
            return tuple(sorted((s, f) for s, f in terms.items() if f)), p + sign * q
        factor, value = _constant_factor(node)
        if value is not None:
            terms_of, rest = self.linear(value)
            return tuple((s, f * factor) for s, f in terms_of), rest * factor
        return ((node.serial, 1),), 0


def _constant_factor(node: Node) -> tuple[int, Node | None]:
    if node.op == "mul":
        for factor, value in (node.args, node.args[::-1]):
            if factor.op == "const":
                return factor.lo, value
    if node.op == "shl" and node.args[1].op == "const":
        return 1 << node.args[1].lo, node.args[0]
    return 1, None


def _fold(op: str, a: int, b: int) -> int | None:
    if op in ("div", "rem"):
        if b == 0:
            return None
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if op == "div" else a - quotient * b
    return _FOLD[op](a, b)


def _range(op: str, a: Node, b: Node) -> tuple[int, int]:
    if op == "add":
        return a.lo + b.lo, a.hi + b.hi
    if op == "sub":
        return a.lo - b.hi, a.hi - b.lo
    if op == "mul":
        corners = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
        return min(corners), max(corners)
    if op == "shl":
        least, most = (max(0, min(63, n)) for n in (b.lo, b.hi))
        corners = [a.lo << least, a.lo << most, a.hi << least, a.hi << most]
        return min(corners), max(corners)
    if op == "shr":
        least, most = (max(0, min(63, n)) for n in (b.lo, b.hi))
        corners = [a.lo >> least, a.lo >> most, a.hi >> least, a.hi >> most]
        return min(corners), max(corners)
    if op == "and" and (a.lo >= 0 or b.lo >= 0):
        tops = [n.hi for n in (a, b) if n.lo >= 0]
        return 0, min(tops)
    if op in ("or", "xor", "and") and a.lo >= 0 and b.lo >= 0:
        return 0, (1 << max(a.hi.bit_length(), b.hi.bit_length())) - 1
    if op == "rem" and b.lo > 0:
        return (0 if a.lo >= 0 else 1 - b.hi), min(b.hi - 1, max(a.hi, 0))
    width = max(a.signed_width, b.signed_width)
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def _mask(op: str, a: Node, b: Node) -> int:
    if op == "shl" and b.op == "const" and a.mask >= 0:
        return a.mask << b.lo
    if op == "shr" and b.op == "const" and a.mask >= 0:
        return a.mask >> b.lo
    if op in ("or", "xor") and a.mask >= 0 and b.mask >= 0:
        return a.mask | b.mask
    if op == "and":
        return a.mask & b.mask if a.mask >= 0 and b.mask >= 0 else max(a.mask, b.mask)
    return -1


def _clamped(condition: Node, a: Node, b: Node) -> tuple[int, int]:
    """The range of a select by a comparison with a constant, as in `x < c ? c : x`."""
    small, large = condition.args
    if large.const is not None:  # x < c in arm a, x >= c in arm b
        arms = (_bounded(a, small, None, large.lo), _bounded(b, small, large.lo, None))
    elif small.const is not None:  # c < x in arm a, x <= c in arm b
        arms = (_bounded(a, large, small.lo, None), _bounded(b, large, None, small.lo))
    else:
        arms = ((a.lo, a.hi), (b.lo, b.hi))
    return min(arms[0][0], arms[1][0]), max(arms[0][1], arms[1][1])


def _bounded(arm: Node, value: Node, least: int | None, most: int | None) -> tuple[int, int]:
    """The range of an arm where `value` lies in [least, most]."""
    lo, hi = arm.lo, arm.hi
    if arm is value:
        lo, hi = max(lo, lo if least is None else least), min(hi, hi if most is None else most)
    elif arm.op == "extreme" and value in arm.args:
        other = arm.args[1] if arm.args[0] is value else arm.args[0]
        hi = min(hi, hi if most is None else max(most, other.hi))
        lo = max(lo, lo if least is None else min(least, other.lo))
    return (lo, hi) if lo <= hi else (arm.lo, arm.hi)
