# SPDX-License-Identifier: Apache-2.0
"""What variables hold in one iteration, and which memory an array becomes.

A variable is a tree of structs and arrays; a place in it is a path of member names, constant
indices and index nodes.  What was written stays as entries in order, so that a read finds the
newest entry that covers its place, with a multiplexer where an index is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from torch2fpga.emit.checker.operations import AGGREGATE, Graph, Node

Selector = int | str | Node
Path = tuple[Selector, ...]
Value = Union[Node, "Store"]
REGISTER_BITS = 512  # a struct of at most a memory word is kept as one register


@dataclass(frozen=True)
class Type:
    """A C++ type as far as hardware goes."""

    kind: str  # int, struct, array, pointer, stream, other
    lo: int = 0
    hi: int = 0
    size: int = 0
    element: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()

    @property
    def is_aggregate(self) -> bool:
        return self.kind in ("struct", "array")

    def range(self) -> tuple[int, int]:
        return (self.lo, self.hi) if self.kind == "int" else AGGREGATE

    def bits(self) -> int:
        if self.kind == "int":
            return (self.hi - self.lo).bit_length()
        if self.kind == "array" and self.element is not None:
            return self.size * self.element.bits()
        return sum(kind.bits() for _, kind in self.fields)

    def at(self, selector: Selector) -> Type:
        if isinstance(selector, str):
            return dict(self.fields).get(selector, OTHER)
        return self.element or OTHER


OTHER = Type("other")
INT = Type("int", -(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True)
class Directive:
    """A pragma on a variable: kind, member path behind the name, options with their numbers."""

    kind: str
    members: tuple[str, ...]
    options: Mapping[str, str]
    factor: int = 0
    dim: int = 1


@dataclass(frozen=True)
class Memory:
    """One memory: how each dimension is cut into banks, and the ports of a bank.

    `cuts` has for each dimension "" (uncut), "complete", "cyclic" or "block" with its factor, and
    whether that is a reshape (wider words, not more banks).
    """

    sizes: tuple[int, ...]
    cuts: tuple[tuple[str, int, bool], ...]
    ports: tuple[float, float, float]  # reads, writes, both together
    kind: str

    @property
    def registers(self) -> bool:
        """Whether every element stands by itself."""
        cut = zip(self.sizes, self.cuts, strict=True)
        return all(size == 1 or (how == "complete" and not wide) for size, (how, _, wide) in cut)


_MANY = float("inf")
# UG1399 2022.2, "pragma HLS bind_storage": what each type can do in a cycle.
PORTS = {
    "ram_1p": (1, 1, 1),
    "ram_2p": (2, 1, 2),
    "ram_s2p": (1, 1, 2),
    "ram_t2p": (2, 2, 2),
    "ram_1wnr": (_MANY, 1, _MANY),
    "rom_1p": (1, 0, 1),
    "rom_2p": (2, 0, 2),
    "rom_np": (_MANY, 0, _MANY),
}


@dataclass
class Variable:
    """A declared variable and the pragmas that name it."""

    key: int
    name: str
    type: Type
    directives: tuple[Directive, ...] = ()
    constant: bool = False
    _memories: dict[tuple[str, ...], Memory] = field(default_factory=dict)

    @property
    def aggregated(self) -> bool:
        return any(d.kind == "aggregate" for d in self.directives)

    def split(self, path: Path) -> tuple[Memory | None, tuple[Selector, ...], int]:
        """The memory that a place lies in, its indices there, and the length of that prefix.

        None for the memory where the variable is no array and no wide struct.
        """
        members: list[str] = []
        indices: list[Selector] = []
        sizes: list[int] = []
        kind, length = self.type, 0
        if kind.kind == "struct" and not self.directives and kind.bits() <= REGISTER_BITS:
            return None, (), 0
        for length, selector in enumerate(path, start=1):
            if isinstance(selector, str):
                if self.aggregated and indices:
                    length -= 1
                    break
                members.append(selector)
            else:
                indices.append(selector)
                sizes.append(kind.size)
            kind = kind.at(selector)
        if not indices:
            return None, (), 0
        return self._memory(tuple(members), tuple(sizes)), tuple(indices), length

    def _memory(self, members: tuple[str, ...], sizes: tuple[int, ...]) -> Memory:
        found = self._memories.get(members)
        if found is None or len(found.sizes) < len(sizes):
            found = self._classify(members, sizes)
            self._memories[members] = found
        return found

    def _classify(self, members: tuple[str, ...], sizes: tuple[int, ...]) -> Memory:
        cuts = [("", 1, False)] * len(sizes)
        ports, kind = PORTS["ram_t2p"], "memory of two ports"
        for item in self.directives:
            if item.members != members[: len(item.members)]:
                continue
            if item.kind in ("array_partition", "array_reshape"):
                dims = range(len(sizes)) if item.dim == 0 else [item.dim - 1]
                how = _way(item.options)
                for dim in dims:
                    if dim < len(sizes):
                        cuts[dim] = (how, item.factor or 1, item.kind == "array_reshape")
            elif item.kind == "bind_storage":
                kind = item.options.get("type", "").lower()
                ports = PORTS.get(kind, ports)
        return Memory(sizes, tuple(cuts), ports, kind)


def _way(options: Mapping[str, str]) -> str:
    for name in ("cyclic", "block"):
        if name in options or options.get("type", "").lower() == name:
            return name
    return "complete"


class Store:
    """The entries of one variable, or a struct or array value by itself."""

    __slots__ = ("base", "entries", "indexed", "variable")

    def __init__(self, variable: Variable | None, base: Store | None = None) -> None:
        self.variable, self.base = variable, base
        self.entries: dict[Path, tuple[int, Value | None]] = {}
        self.indexed = False

    def layers(self) -> Iterator[Store]:
        layer: Store | None = self
        while layer is not None:
            yield layer
            layer = layer.base

    def write(self, path: Path, value: Value | None, stamp: int) -> None:
        self.entries[path] = (stamp, value)
        self.indexed = self.indexed or any(isinstance(s, Node) for s in path)

    def covering(self, path: Path) -> tuple[int, int, Value | None] | None:
        """The newest entry of this layer at a place or around it: stamp, prefix length, value."""
        best: tuple[int, int, Value | None] | None = None
        entries = self.entries
        if entries:
            for length in range(len(path) + 1):
                found = entries.get(path[:length])
                if found is not None and (best is None or found[0] > best[0]):
                    best = (found[0], length, found[1])
        return best


def leaves(value: Value | None) -> Iterator[Node]:
    """The nodes that a value consists of."""
    if isinstance(value, Node):
        yield value
    elif value is not None:
        for layer in value.layers():
            for _, item in layer.entries.values():
                yield from leaves(item)


class Reader:
    """Reads places of stores; what no entry covers is asked of `missing`."""

    def __init__(
        self,
        graph: Graph,
        missing: Callable[[Variable, Path, Type], Value | None],
        in_memory: Callable[[Variable, Path], bool],
    ) -> None:
        self.graph, self.missing, self.in_memory = graph, missing, in_memory

    def read(self, store: Store, path: Path, kind: Type) -> Value | None:
        """The value of a place; None where nothing was ever written to it."""
        if kind.is_aggregate:
            return self._whole(store, path, kind)
        return self._scalar(store, path, kind)

    def extract(self, value: Value | None, rest: Path, kind: Type) -> Value | None:
        """A part of a struct or array value."""
        if not rest or value is None:
            return value
        if isinstance(value, Store):
            return self.read(value, rest, kind)
        if value.op == "const":
            return value
        indices = tuple(s for s in rest if isinstance(s, Node))
        names = tuple(s.serial if isinstance(s, Node) else s for s in rest)
        op = "pick" if indices else "field"
        return self.graph.make(op, (value, *indices), *kind.range(), extra=(names, _inputs(indices)))

    def _scalar(self, store: Store, path: Path, kind: Type) -> Value | None:
        newer: list[tuple[int, Path, Value | None]] = []
        value: Value | None = None
        open_index = False
        for selector in path:
            open_index = open_index or selector.__class__ is Node
        layer: Store | None = store
        while layer is not None:
            best = layer.covering(path)
            if layer.indexed or (open_index and layer.entries):
                after = best[0] if best else -1
                for place, (stamp, item) in layer.entries.items():
                    if stamp > after and self._may_alias(place, path) and place != path[: len(place)]:
                        newer.append((stamp, place, item))
            if best is not None:
                value = self.extract(best[2], path[best[1] :], kind) if best[1] < len(path) else best[2]
                break
            layer = layer.base
        else:
            if store.variable is not None:
                value = self.missing(store.variable, path, kind)
        if newer and not (store.variable is not None and self.in_memory(store.variable, path)):
            value = self._merge(value, newer, path, kind)
        return value

    def _may_alias(self, place: Path, path: Path) -> bool:
        for a, b in zip(place, path, strict=False):
            if a is b or a == b:
                continue
            if isinstance(a, Node) or isinstance(b, Node):
                terms_a, rest_a = self._linear(a)
                terms_b, rest_b = self._linear(b)
                if terms_a == terms_b and rest_a != rest_b:
                    return False
                continue
            return False
        return len(place) <= len(path)

    def _linear(self, selector: Selector) -> Any:
        return self.graph.linear(selector) if isinstance(selector, Node) else ((), selector)

    def _merge(
        self, value: Value | None, newer: list[tuple[int, Path, Value | None]], path: Path, kind: Type
    ) -> Node:
        graph = self.graph
        newer.sort(key=lambda item: item[0])
        values = [self.extract(item, path[len(place) :], kind) for _, place, item in newer]
        nodes = [node for item in (value, *values) for node in leaves(item)]
        indices = [s for s in path if isinstance(s, Node)]
        if len(newer) > 1 and indices:
            return graph.make("mux", (*indices, *nodes), *kind.range(), extra=len(nodes))
        result = next(leaves(value), graph.const(0))
        for (_, place, _), item in zip(newer, values, strict=True):
            differ = [(a, b) for a, b in zip(place, path, strict=False) if a is not b and a != b]
            pairs = [(_node(graph, a), _node(graph, b)) for a, b in differ]
            condition = graph.compare("eq", *pairs[0])
            for a, b in pairs[1:]:
                condition = graph.binary("and", condition, graph.compare("eq", a, b), 0, 1)
            result = graph.select(condition, next(leaves(item), graph.const(0)), result)
        return result

    def _whole(self, store: Store, path: Path, kind: Type) -> Value | None:
        whole = Store(None)
        length = len(path)
        for layer in store.layers():
            for place, (stamp, item) in layer.entries.items():
                if place[:length] == path and place[length:] not in whole.entries:
                    whole.write(place[length:], item, stamp)
            best = layer.covering(path[:length])
            if best is not None:
                if () not in whole.entries:
                    whole.write((), self.extract(best[2], path[best[1] :], kind), best[0])
                break
        else:
            if store.variable is not None:
                base = self.missing(store.variable, path, kind)
                if base is not None:
                    whole.write((), base, -1)
        top = whole.entries.get(())
        if top is not None and all(stamp <= top[0] for stamp, _ in whole.entries.values()):
            return top[1]
        return whole if whole.entries else None


def _node(graph: Graph, selector: Selector) -> Node:
    if isinstance(selector, Node):
        return selector
    return graph.const(selector if isinstance(selector, int) else 0)


def _inputs(indices: tuple[Node, ...]) -> int:
    """Inputs of a multiplexer by these indices."""
    count = 1
    for node in indices:
        count *= max(1, min(node.hi, 63) - max(node.lo, 0) + 1)
    return count
