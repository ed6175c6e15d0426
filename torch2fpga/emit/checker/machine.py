# SPDX-License-Identifier: Apache-2.0
"""Running the statements of a process symbolically: variables, branches, accesses.

Outside of pipelined loops nothing is scheduled: variables that are not const are unknown there,
and accesses to streams and memory ports are reported.  Inside, one iteration is run with every
loop unrolled; what it reads from before is a source, what it leaves is compared with that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch2fpga.emit.checker.operations import AGGREGATE, Graph, Node
from torch2fpga.emit.checker.ports import READ, WRITE, Accesses, locate
from torch2fpga.emit.checker.storage import (
    OTHER,
    Path,
    Reader,
    Store,
    Type,
    Value,
    Variable,
    leaves,
)

Place = tuple[int, Path]
Action = Callable[["Machine"], None]


@dataclass
class Iteration:
    """What running one iteration of a pipelined loop collects."""

    outer: frozenset[int]  # variables that live longer than an iteration
    accesses: Accesses = field(default_factory=Accesses)
    sinks: list[Node] = field(default_factory=list)
    sources: dict[int, tuple[Node, int, Path]] = field(default_factory=dict)


class Machine:
    """The state of a symbolic run."""

    def __init__(self, outside: Callable[[str, str, int], None], globals_: Mapping[int, Variable]) -> None:
        self.graph = Graph()
        self.reader = Reader(self.graph, self._missing, self._in_memory)
        self.stores: dict[int, Store] = {}
        self.aliases: dict[int, Place] = {}
        self.iteration: Iteration | None = None
        self.conditions: tuple[Node, ...] = ()
        self.returns: list[tuple[tuple[Node, ...], Value | None]] = []
        self.where = ("", 0)  # file and line of the access that is met
        self._globals = globals_
        self._outside = outside
        self._layer: dict[int, Store] | None = None
        self._stamp = 0
        self._quiet = False

    # Variables.

    def declare(self, variable: Variable, value: Value | None) -> None:
        """A fresh variable; outside of an iteration only constants keep their value."""
        store = Store(variable)
        self.aliases.pop(variable.key, None)
        self.stores[variable.key] = store
        if self._layer is not None:
            self._layer[variable.key] = store
        if value is not None and (self.iteration is not None or variable.constant):
            self._put(store, (), value)

    def alias(self, key: int, place: Place) -> None:
        """Let a reference stand for a place."""
        self.aliases[key] = self.resolve(*place)

    def resolve(self, key: int, path: Path) -> Place:
        """A place of a variable that is no reference."""
        found = self.aliases.get(key)
        return (found[0], found[1] + path) if found is not None else (key, path)

    def read(self, key: int, path: Path, kind: Type) -> Value | None:
        """The value of a place."""
        if key in self.aliases:
            key, path = self.resolve(key, path)
        store = self.stores.get(key)
        if store is not None and not path:
            found = store.entries.get(path)
            if found is not None and len(store.entries) == 1:
                return found[1]
        if store is None and key in self._globals:
            store = self.stores[key] = Store(self._globals[key])
        if store is None:
            return self.graph.make("opaque", (), *kind.range(), extra=(key, len(path)))
        return self.reader.read(store, path, kind)

    def write(self, key: int, path: Path, value: Value | None) -> None:
        """Assign a place; an access where it lies in a memory that outlives the iteration."""
        key, path = self.resolve(key, path)
        store = self.stores.get(key)
        if store is None or self.iteration is None:
            return
        variable = store.variable
        if variable is not None and self._in_memory(variable, path):
            memory, indices, _ = variable.split(path)
            if memory is not None:
                bank, address = locate(self.graph, memory, indices)
                self.iteration.accesses.array(variable.name, memory, (bank, address, WRITE))
                nodes = (*(i for i in indices if isinstance(i, Node)), *leaves(value))
                self.sink("store", nodes, 0)
        self._put(self._own(key, store), path, value)

    def _in_memory(self, variable: Variable, path: Path) -> bool:
        """Whether a place lies in a memory; arrays of one iteration are wires."""
        if self.iteration is None or variable.key not in self.iteration.outer:
            return False
        memory, _, _ = variable.split(path)
        return memory is not None and not memory.registers

    def _own(self, key: int, store: Store) -> Store:
        if self._layer is not None and self._layer.get(key) is not store:
            store = Store(store.variable, store)
            self.stores[key] = self._layer[key] = store
        return store

    def _put(self, store: Store, path: Path, value: Value | None) -> None:
        self._stamp += 1
        store.write(path, value, self._stamp)

    def _missing(self, variable: Variable, path: Path, kind: Type) -> Value | None:
        """The value that a place had before this iteration."""
        names = tuple(s.serial if isinstance(s, Node) else s for s in path)
        nodes = tuple(s for s in path if isinstance(s, Node))
        key = variable.key
        if variable.constant:
            op = "rom" if nodes else "opaque"
            return self.graph.make(op, nodes, *kind.range(), extra=(0, key, names))
        if self.iteration is None:
            return self.graph.make("opaque", (), *kind.range(), extra=(key, names))
        if key not in self.iteration.outer:
            return None  # not initialised
        memory, indices, length = variable.split(path)
        if memory is None or memory.registers:
            if not nodes:
                made = self.graph.make("init", (), *kind.range(), extra=(key, names))
            else:
                state = self.graph.make("init", (), *AGGREGATE, extra=(key, ()))
                inputs = _inputs(variable.type, path)
                made = self.graph.make("pick", (state, *nodes), *kind.range(), extra=(names, inputs))
            self._source(made, key, path)
            return made
        whole = variable.type
        for selector in path[:length]:
            whole = whole.at(selector)
        nodes = tuple(s for s in path[:length] if isinstance(s, Node))
        made = self.graph.make("load", nodes, *whole.range(), extra=(0, key, names[:length]))
        if not self._quiet:
            bank, address = locate(self.graph, memory, indices)
            self.iteration.accesses.array(variable.name, memory, (bank, address, READ))
        self._source(made, key, path[:length])
        return self.reader.extract(made, path[length:], kind)

    def _source(self, node: Node, key: int, path: Path) -> None:
        if self.iteration is not None and not self._quiet:
            self.iteration.sources.setdefault(node.serial, (node, key, path))

    def final(self, key: int, path: Path, kind: Type) -> Value | None:
        """The value that the iteration leaves at a place, without counting an access."""
        self._quiet = True
        try:
            return self.read(key, path, kind)
        finally:
            self._quiet = False

    # Streams and memory ports.

    def access(self, kind: str, place: Place, direction: str, values: tuple[Node, ...]) -> Node:
        """Use a stream or port once; the node of the access."""
        key, path = self.resolve(*place)
        store = self.stores.get(key)
        name = store.variable.name if store is not None and store.variable is not None else "?"
        name += "".join(f"[{s}]" for s in path if isinstance(s, int))
        if self.iteration is None:
            self._outside(f"{direction} of {kind} '{name}'", *self.where)
            return self.graph.make("opaque", (), *AGGREGATE, extra=("access", key))
        before = self.iteration.accesses.port(kind, name, direction)
        return self.sink(f"{'stream' if kind == 'stream' else 'port'}_{direction}", values, before)

    def sink(self, op: str, values: tuple[Node, ...], before: int) -> Node:
        """An operation with an effect: under the conditions of its branch."""
        args = (*values, *self.conditions)
        made = self.graph.make(op, args, *AGGREGATE, extra=(before, self._stamp))
        self._stamp += 1
        if self.iteration is not None:
            self.iteration.sinks.append(made)
        return made

    # Branches.

    def branch(self, condition: Node, first: Action, second: Action | None) -> None:
        """Both arms of a branch, and what is left of them; one arm where the condition is known."""
        if condition.const is not None:
            chosen = first if condition.const else second
            if chosen is not None:
                chosen(self)
            return
        outer = self.iteration.accesses if self.iteration is not None else None
        layers, accesses = [], []
        arms = ((condition, first), (self.graph.negate(condition), second))
        for taken, action in arms:
            if outer is not None and self.iteration is not None:
                self.iteration.accesses = outer.arm()
                accesses.append(self.iteration.accesses)
            layers.append(self.layered(taken, action))
        if outer is not None and self.iteration is not None:
            self.iteration.accesses = outer
            outer.join(*accesses)
        self._merge(condition, *layers)

    def layered(self, condition: Node | None, action: Action | None) -> dict[int, Store]:
        """Run an action on copies of the variables; the copies that it changed."""
        saved_layer, saved_conditions = self._layer, self.conditions
        self._layer = {}
        if condition is not None:
            self.conditions = (*saved_conditions, condition)
        if action is not None:
            action(self)
        layer = self._layer
        self._layer, self.conditions = saved_layer, saved_conditions
        for key, store in layer.items():
            if store.base is not None:
                self.stores[key] = store.base
        return layer

    def _merge(self, condition: Node, first: dict[int, Store], second: dict[int, Store]) -> None:
        for key in {**first, **second}:
            stores = [layer.get(key) for layer in (first, second)]
            bases = [store.base for store in stores if store is not None]
            if any(base is None for base in bases):
                continue  # declared in the arm
            base = bases[0]
            if base is None or base is not self.stores.get(key):
                continue
            paths = {p: s for store in stores if store for p, (s, _) in store.entries.items()}
            for path in sorted(paths, key=lambda p: paths[p]):
                values = [self._arm_value(store or base, path) for store in stores]
                self._put(self._own(key, self.stores[key]), path, self.choose(condition, *values))

    def _arm_value(self, store: Store, path: Path) -> Value | None:
        kind = store.variable.type if store.variable is not None else OTHER
        for selector in path:
            kind = kind.at(selector)
        self._quiet = True
        try:
            return self.reader.read(store, path, kind)
        finally:
            self._quiet = False

    def choose(self, condition: Node, first: Value | None, second: Value | None) -> Value | None:
        """`condition ? first : second` of scalars or whole structs."""
        if condition.const is not None:
            return first if condition.const else second
        if first is None or second is None:
            return second if first is None else first
        a, b = self.packed(first), self.packed(second)
        return self.graph.select(condition, a, b)

    def packed(self, value: Value) -> Node:
        """One node for a value."""
        if isinstance(value, Node):
            return value
        return self.graph.make("pack", tuple(dict.fromkeys(leaves(value))), *AGGREGATE)


def _inputs(kind: Type, path: Path) -> int:
    count = 1
    for selector in path:
        if isinstance(selector, Node):
            count *= max(1, kind.size)
        kind = kind.at(selector)
    return count
