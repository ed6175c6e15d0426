# SPDX-License-Identifier: Apache-2.0
"""Expressions of an instantiated function, turned once into closures over a `Machine`.

libclang's cursors are slow to walk and an unrolled loop meets its body many times, so each
expression is read once.  A place (an lvalue) is a variable's key and a path; a value is a node or
a store.  Float arithmetic is not modelled: its values are opaque.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch2fpga.emit.checker import clang_types as ct
from torch2fpga.emit.checker.machine import Machine, Place
from torch2fpga.emit.checker.operations import AGGREGATE, Node
from torch2fpga.emit.checker.ports import READ, WRITE
from torch2fpga.emit.checker.storage import Selector, Store, Type, Value, Variable, leaves
from torch2fpga.emit.checker.syntax import kind_name

if TYPE_CHECKING:
    from torch2fpga.emit.checker.statements import Functions

Evaluate = Callable[[Machine], Value | None]
Locate = Callable[[Machine], Place]
_INNER = frozenset({"PAREN_EXPR", "UNEXPOSED_EXPR"})
CASTS = frozenset({"UNEXPOSED_EXPR", "CSTYLE_CAST_EXPR", "CXX_STATIC_CAST_EXPR", "CXX_FUNCTIONAL_CAST_EXPR"})
_PLACES = frozenset({"DECL_REF_EXPR", "MEMBER_REF_EXPR", "ARRAY_SUBSCRIPT_EXPR"})


def parts(cursor: Any) -> list[Any]:
    """The operands of an expression: its children without names of types and templates."""
    return [child for child in cursor.get_children() if not kind_name(child).endswith("_REF")]


def plain(cursor: Any) -> Any:
    """The expression inside parentheses and implicit casts."""
    while kind_name(cursor) in _INNER:
        inside = parts(cursor)
        if len(inside) != 1:
            break
        cursor = inside[0]
    return cursor


def site_of(cursor: Any) -> tuple[str, int]:
    """File and line of an expression."""
    location = cursor.location
    return (location.file.name if location.file else "", location.line)


def scalar(machine: Machine, value: Value | None, kind: Type) -> Node:
    """A value as one node."""
    if value is None:
        return machine.graph.make("opaque", (), *kind.range(), extra="undefined")
    return machine.packed(value)


class Expressions:
    """Makes the closures of expressions; calls go through the functions of the unit."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.types = functions.types
        self.known: dict[int, Variable] = {}  # local variables and parameters, by declaration

    def value(self, cursor: Any) -> Evaluate:
        """The closure that gives an expression's value."""
        kind = kind_name(cursor)
        if kind in CASTS:
            return self._cast(cursor)
        if kind == "PAREN_EXPR":
            return self.value(parts(cursor)[0])
        if kind in _PLACES:
            return self._read(cursor)
        if kind == "BINARY_OPERATOR":
            return self._binary(cursor)
        if kind == "COMPOUND_ASSIGNMENT_OPERATOR":
            return self._compound(cursor)
        if kind == "UNARY_OPERATOR":
            return self._unary(cursor)
        if kind == "CONDITIONAL_OPERATOR":
            return self._conditional(cursor)
        if kind == "CALL_EXPR":
            return self._call(cursor)
        if kind == "INIT_LIST_EXPR":
            return self._list(cursor)
        return self._constant(cursor)

    def _constant(self, cursor: Any) -> Evaluate:
        number, kind = ct.evaluated(cursor), self.types.of(cursor.type)
        if number is None:
            return lambda m: m.graph.make("opaque", (), *kind.range(), extra="unknown")
        known = number & kind.hi if kind.kind == "int" and kind.lo == 0 else number
        return lambda m: m.graph.const(known)

    def _cast(self, cursor: Any) -> Evaluate:
        inside = parts(cursor)
        if not inside:
            return self._constant(cursor)
        inner, kind = self.value(inside[-1]), self.types.of(cursor.type)
        if kind.kind != "int":
            return inner
        lo, hi = kind.range()

        def run(m: Machine) -> Value | None:
            value = inner(m)
            return m.graph.convert(value, lo, hi) if isinstance(value, Node) else value

        return run

    # Places.

    def place(self, cursor: Any) -> tuple[Locate, Type]:
        """The closure that gives the place of an lvalue, and the place's type."""
        cursor = plain(cursor)
        kind = kind_name(cursor)
        if kind == "DECL_REF_EXPR":
            variable = self.variable(cursor.referenced)
            whole: Place = (variable.key, ())
            return (lambda m: m.aliases.get(variable.key, whole)), variable.type
        if kind == "MEMBER_REF_EXPR" and parts(cursor):
            base, outer = self.place(parts(cursor)[0])
            name = cursor.spelling

            def member(m: Machine) -> Place:
                key, path = base(m)
                return key, (*path, name)

            return member, outer.at(name)
        if kind == "ARRAY_SUBSCRIPT_EXPR":
            return self._subscript(cursor)
        return self._temporary(cursor)

    def _subscript(self, cursor: Any) -> tuple[Locate, Type]:
        array, position = parts(cursor)
        base, outer = self.place(array)
        index, single = self.value(position), outer.kind == "array" and outer.size == 1

        def element(m: Machine) -> Place:
            key, path = base(m)
            at = scalar(m, index(m), outer)
            known = 0 if single else at.const
            return key, (*path, at if known is None else known)

        return element, outer.element or outer

    def _temporary(self, cursor: Any) -> tuple[Locate, Type]:
        """A value that is no variable, as a variable of its own."""
        value, kind = self.value(cursor), self.types.of(cursor.type)
        variable = Variable(hash(("temporary", cursor.hash)), "", kind, constant=True)

        def run(m: Machine) -> Place:
            m.declare(variable, value(m))
            return variable.key, ()

        return run, kind

    def variable(self, reference: Any) -> Variable:
        """The variable of a declaration; one that is not local is a constant of the unit."""
        key = reference.hash
        if key not in self.known:
            kind = self.types.of(reference.type)
            self.known[key] = Variable(key, reference.spelling, kind, constant=True)
            self.functions.globals[key] = self.known[key]
        return self.known[key]

    def _read(self, cursor: Any) -> Evaluate:
        if kind_name(cursor) == "DECL_REF_EXPR":
            reference = cursor.referenced
            if reference is None or kind_name(reference) not in ("VAR_DECL", "PARM_DECL"):
                return self._constant(cursor)
            if ct.evaluated(cursor) is not None:
                return self._constant(cursor)
        elif kind_name(cursor) == "MEMBER_REF_EXPR" and not parts(cursor):
            return self._constant(cursor)
        where, kind = self.place(cursor)
        if kind_name(cursor) == "DECL_REF_EXPR":
            key = self.variable(cursor.referenced).key
            return lambda m: m.read(key, (), kind)
        if kind_name(cursor) == "ARRAY_SUBSCRIPT_EXPR":
            port = self._port(cursor)
            if port is not None:
                pointer, index = port

                spot = site_of(cursor)

                def load(m: Machine) -> Value | None:
                    m.where = spot
                    return m.access("memory port", pointer(m), READ, tuple(leaves(index(m))))

                return self._typed(load, kind)

        def run(m: Machine) -> Value | None:
            return m.read(*where(m), kind)

        return run

    def _typed(self, access: Evaluate, kind: Type) -> Evaluate:
        """What an access delivers, with the range of its type."""
        if kind.kind != "int":
            return access

        def run(m: Machine) -> Value | None:
            return m.graph.make("field", tuple(leaves(access(m))), *kind.range())

        return run

    def _port(self, cursor: Any) -> tuple[Locate, Evaluate] | None:
        """Pointer and index where a subscript is an access to a memory port."""
        array, position = parts(cursor)
        base = plain(array)
        if self.types.of(base.type).kind != "pointer":
            return None
        if kind_name(base) != "DECL_REF_EXPR":
            return None
        return self.place(base)[0], self.value(position)

    # Operators.

    def _binary(self, cursor: Any) -> Evaluate:
        number = ct.binary_kind(cursor)
        left, right = parts(cursor)
        if number == ct.ASSIGN:
            return self.assignment(left, self.value(right))
        first, second = self.value(left), self.value(right)
        if number == ct.COMMA:

            def both(m: Machine) -> Value | None:
                first(m)
                return second(m)

            return both
        if number in (ct.LOGICAL_AND, ct.LOGICAL_OR):
            return _logical(first, second, decided=int(number == ct.LOGICAL_OR))
        kind = self.types.of(cursor.type)
        op = ct.BINARY.get(number)
        if op is None or kind.kind != "int":
            return lambda m: m.graph.make("opaque", (), *AGGREGATE, extra=cursor.hash)
        lo, hi = kind.range()

        def run(m: Machine) -> Value:
            a = first(m)
            b = second(m)
            if a.__class__ is not Node or b.__class__ is not Node:
                a, b = scalar(m, a, kind), scalar(m, b, kind)
            return m.graph.binary(op, a, b, lo, hi)

        return run

    def _compound(self, cursor: Any) -> Evaluate:
        left, right = parts(cursor)
        second, op = self.value(right), ct.COMPOUND[ct.binary_kind(cursor)]
        kind = self.types.of(cursor.type)
        value = self.value(left)

        def changed(m: Machine) -> Value:
            a, b = scalar(m, value(m), kind), scalar(m, second(m), kind)
            if kind.kind != "int":
                return m.graph.make("opaque", (), *AGGREGATE, extra=cursor.hash)
            return m.graph.binary(op, a, b, *kind.range())

        return self.assignment(left, changed)

    def assignment(self, target: Any, value: Evaluate) -> Evaluate:
        """Write a value to a place or a memory port."""
        inner = plain(target)
        port = self._port(inner) if kind_name(inner) == "ARRAY_SUBSCRIPT_EXPR" else None
        if port is not None:
            pointer, index = port
            spot = site_of(inner)

            def store(m: Machine) -> Value | None:
                result = value(m)
                m.where = spot
                m.access("memory port", pointer(m), WRITE, (*leaves(index(m)), *leaves(result)))
                return result

            return store
        where, kind = self.place(target)

        def run(m: Machine) -> Value | None:
            result = value(m)
            if kind.kind == "int" and isinstance(result, Node):
                result = m.graph.convert(result, *kind.range())
            m.write(*where(m), result)
            return result

        return run

    def _unary(self, cursor: Any) -> Evaluate:
        number, operand = ct.unary_kind(cursor), parts(cursor)[0]
        value, kind = self.value(operand), self.types.of(cursor.type)
        lo, hi = kind.range()
        if number in ct.STEPS:
            old, step = ct.STEPS[number]
            moved = self.assignment(
                operand,
                lambda m: m.graph.binary("add", scalar(m, value(m), kind), m.graph.const(step), lo, hi),
            )

            def run(m: Machine) -> Value | None:
                before = value(m)
                after = moved(m)
                return before if old else after

            return run
        if number == ct.MINUS:
            return lambda m: m.graph.binary("sub", m.graph.const(0), scalar(m, value(m), kind), lo, hi)
        if number == ct.NOT:
            return lambda m: m.graph.negate(m.graph.convert(scalar(m, value(m), kind), 0, 1))
        if number == ct.INVERT:
            return lambda m: m.graph.binary("xor", scalar(m, value(m), kind), m.graph.const(-1), lo, hi)
        return value

    def _conditional(self, cursor: Any) -> Evaluate:
        test, first, second = (self.value(part) for part in parts(cursor))

        def run(m: Machine) -> Value | None:
            condition = scalar(m, test(m), BOOL)
            if condition.const is not None:
                return first(m) if condition.const else second(m)
            return m.choose(condition, first(m), second(m))

        return run

    def _list(self, cursor: Any) -> Evaluate:
        kind = self.types.of(cursor.type)
        items = [self.value(part) for part in parts(cursor)]
        if not items:
            return lambda m: m.graph.const(0)
        if not kind.is_aggregate:
            return items[0]
        names: list[Selector] = [name for name, _ in kind.fields] or list(range(len(items)))

        def run(m: Machine) -> Value | None:
            whole = Store(None)
            whole.write((), m.graph.const(0), 0)
            for name, item in zip(names, items, strict=False):
                whole.write((name,), item(m), 1)
            return whole

        return run

    # Calls.

    def _call(self, cursor: Any) -> Evaluate:
        reference = cursor.referenced
        kind = kind_name(reference) if reference is not None else ""
        inside = parts(cursor)
        if kind == "CONSTRUCTOR" or not cursor.spelling:  # a copy may go without a name
            return self.value(inside[-1]) if inside else lambda m: None
        if cursor.spelling == "operator=" and len(inside) == 3:
            return self.assignment(inside[0], self.value(inside[2]))
        if inside and kind_name(plain(inside[0])) == "MEMBER_REF_EXPR":
            owner = parts(plain(inside[0]))
            if owner and self.types.of(owner[0].type).kind == "stream":
                return self._stream(cursor, cursor.spelling, owner[0], inside[1:])
        if cursor.spelling in ("operator>>", "operator<<") and len(inside) == 3:
            name = "read" if cursor.spelling == "operator>>" else "write"
            return self._stream(cursor, name, inside[0], inside[2:])
        number = ct.evaluated(cursor)
        if number is not None:
            return lambda m: m.graph.const(number)
        return self.functions.call(self, reference, inside[1:], self.types.of(cursor.type))

    def _stream(self, cursor: Any, name: str, owner: Any, arguments: list[Any]) -> Evaluate:
        where, kind = self.place(owner)
        spot, element = site_of(cursor), kind.element or kind
        if name in ("write", "write_nb"):
            value = self.value(arguments[0])

            def put(m: Machine) -> Value | None:
                result = value(m)
                m.where = spot
                return m.access("stream", where(m), WRITE, tuple(leaves(result)))

            return put
        if name not in ("read", "read_nb"):
            return lambda m: m.graph.make("opaque", (), 0, 1, extra=cursor.hash)

        def take(m: Machine) -> Value | None:
            m.where = spot
            return m.access("stream", where(m), READ, ())

        taken = self._typed(take, element)
        return self.assignment(arguments[0], taken) if arguments else taken


BOOL = Type("int", 0, 1)


def _logical(first: Evaluate, second: Evaluate, decided: int) -> Evaluate:
    op = "or" if decided else "and"

    def run(m: Machine) -> Value | None:
        a = scalar(m, first(m), BOOL)
        if a.const is not None:
            return m.graph.const(decided) if bool(a.const) == bool(decided) else second(m)
        b = scalar(m, second(m), BOOL)
        return m.graph.binary(op, a, b, 0, 1)

    return run
