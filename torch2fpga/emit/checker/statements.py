# SPDX-License-Identifier: Apache-2.0
"""Statements and calls of instantiated functions, turned once into closures over a `Machine`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch2fpga.emit.checker import clang_types as ct
from torch2fpga.emit.checker.directives import Directives
from torch2fpga.emit.checker.expressions import BOOL, Evaluate, Expressions, parts, plain, scalar
from torch2fpga.emit.checker.machine import Action, Machine
from torch2fpga.emit.checker.operations import Node
from torch2fpga.emit.checker.storage import Directive, Type, Value, Variable
from torch2fpga.emit.checker.syntax import LOOPS, kind_name

PIPELINE, ENTRY = "t2f_pipeline", "t2f_loop_entry"
MOST_ITERATIONS = 1 << 14  # of a loop that is unrolled


@dataclass(frozen=True)
class Loop:
    """A loop that is not unrolled."""

    cursor: Any
    label: str
    function: str
    trips: int | None  # None where the bounds are not constant
    pipeline: Any | None  # the T2F_PIPELINE statement
    interval: int
    perfect: bool  # the body is nothing but one loop
    variable: Variable | None
    body: Action


Visit = Callable[[Machine, Loop], None]
Mark = Callable[[Machine], None]


@dataclass
class Hooks:
    """What the caller does at loops and at T2F_LOOP_ENTRY outside of iterations."""

    loop: Visit
    entry: Mark


@dataclass(frozen=True)
class _Function:
    parameters: tuple[tuple[Variable, bool], ...]
    body: Action


class Functions:
    """The functions of one translation unit, each instance read once."""

    def __init__(self, hooks: Hooks, directives: Directives) -> None:
        self.types = ct.Types()
        self.hooks = hooks
        self.directives = directives
        self.globals: dict[int, Variable] = {}
        self._known: dict[int, _Function | None] = {}

    def function(self, cursor: Any) -> _Function | None:
        """A function with a body, or None."""
        key = cursor.hash
        if key not in self._known:
            self._known[key] = None  # recursion is refused elsewhere
            found = ct.definition(cursor)
            if found is not None:
                self._known[key] = self._read(found)
        return self._known[key]

    def _read(self, cursor: Any) -> _Function:
        statements = Statements(self, cursor.spelling)
        names = []
        for child in cursor.get_children():
            if kind_name(child) == "PARM_DECL":
                variable = statements.declared(child)
                names.append((variable, ct.is_reference(child.type) or variable.type.kind == "pointer"))
        return _Function(tuple(names), statements.run(ct.body_of(cursor)))

    def enter(self, machine: Machine, cursor: Any) -> None:
        """Run a process: its parameters are streams, ports and unknown scalars."""
        function = self.function(cursor)
        if function is None:
            return
        for variable, _ in function.parameters:
            machine.declare(variable, None)
        function.body(machine)

    def call(self, caller: Expressions, cursor: Any, arguments: list[Any], kind: Type) -> Evaluate:
        """A call, as if its body stood there; opaque where there is none."""
        function = self.function(cursor) if cursor is not None else None
        if function is None:
            values = [caller.value(argument) for argument in arguments]

            def unknown(m: Machine) -> Value | None:
                for value in values:
                    value(m)
                return m.graph.make("opaque", (), *kind.range(), extra="call")

            return unknown
        bind = [
            self._binding(caller, variable, reference, argument)
            for (variable, reference), argument in zip(function.parameters, arguments, strict=False)
        ]

        def run(m: Machine) -> Value | None:
            for action in bind:
                action(m)
            saved, outer = m.returns, m.conditions
            m.returns = []
            function.body(m)
            result = _returned(m, len(outer))
            m.returns = saved
            return result

        return run

    def _binding(self, caller: Expressions, variable: Variable, reference: bool, argument: Any) -> Action:
        inner = plain(argument)
        array = variable.type.kind == "pointer" or reference
        if array and kind_name(inner) in ("DECL_REF_EXPR", "MEMBER_REF_EXPR", "ARRAY_SUBSCRIPT_EXPR"):
            where, _ = caller.place(inner)
            return lambda m: m.alias(variable.key, where(m))
        value = caller.value(argument)

        def declare(m: Machine) -> None:
            m.declare(variable, value(m))

        return declare


def _returned(machine: Machine, outer: int) -> Value | None:
    result: Value | None = None
    for conditions, value in reversed(machine.returns):
        inside = conditions[outer:]
        if not inside or result is None:
            result = value
            continue
        condition: Node = inside[0]
        for other in inside[1:]:
            condition = machine.graph.binary("and", condition, other, 0, 1)
        result = machine.choose(condition, value, result)
    return result


class Statements:
    """Makes the closures of the statements of one function."""

    def __init__(self, functions: Functions, name: str) -> None:
        self.functions = functions
        self.name = name
        self.expressions = Expressions(functions)
        self._scope_end = 0

    def declared(self, cursor: Any) -> Variable:
        """The variable of a declaration."""
        types = self.functions.types
        kind = types.of(cursor.type)
        plain_type = cursor.type.get_canonical()
        constant = plain_type.is_const_qualified()
        while plain_type.kind.name == "CONSTANTARRAY":
            plain_type = plain_type.element_type.get_canonical()
            constant = constant or plain_type.is_const_qualified()
        directives: tuple[Directive, ...] = ()
        if kind.is_aggregate:
            directives = self.functions.directives.of_variable(cursor, self._scope_end)
        variable = Variable(cursor.hash, cursor.spelling, kind, directives, constant)
        self.expressions.known[variable.key] = variable
        return variable

    def run(self, cursor: Any) -> Action:
        """The closure of a statement."""
        kind = kind_name(cursor)
        if kind == "COMPOUND_STMT":
            outer, self._scope_end = self._scope_end, cursor.extent.end.offset
            actions = [self.run(child) for child in cursor.get_children()]
            self._scope_end = outer
            return _sequence(actions)
        if kind == "LABEL_STMT":
            inner = [c for c in cursor.get_children() if not kind_name(c).endswith("_REF")][-1]
            if kind_name(inner) in LOOPS:
                return self._loop(inner, cursor.spelling)
            return self.run(inner)
        if kind in LOOPS:
            return self._loop(cursor, "")
        if kind == "DECL_STMT":
            declarations = [c for c in cursor.get_children() if kind_name(c) == "VAR_DECL"]
            return _sequence([self._declaration(child) for child in declarations])
        if kind == "IF_STMT":
            return self._if(cursor)
        if kind == "RETURN_STMT":
            return self._return(cursor)
        if kind == "CALL_EXPR" and cursor.spelling == PIPELINE:
            return _nothing
        if kind == "CALL_EXPR" and cursor.spelling == ENTRY:
            return lambda m: None if m.iteration else self.functions.hooks.entry(m)
        if kind in ("NULL_STMT", "BREAK_STMT", "CONTINUE_STMT"):
            return _nothing
        value = self.expressions.value(cursor)

        def evaluate(m: Machine) -> None:
            value(m)

        return evaluate

    def _declaration(self, cursor: Any) -> Action:
        variable = self.declared(cursor)
        known = ct.evaluated(cursor) if variable.constant and variable.type.kind == "int" else None
        if known is not None:
            return lambda m: m.declare(variable, m.graph.const(known))
        value = self._initial(cursor, variable)
        latency = self.functions.directives.latency(cursor, self._scope_end)
        kind = variable.type
        if value is None:
            return lambda m: m.declare(variable, None)
        if ct.is_reference(cursor.type):
            where, _ = self.expressions.place(parts(cursor)[-1])
            return lambda m: m.alias(variable.key, where(m))
        given = value

        def declare(m: Machine) -> None:
            result = given(m)
            if isinstance(result, Node) and kind.kind == "int":
                result = m.graph.convert(result, *kind.range())
                if latency is not None and result.op == "mul":
                    result = m.graph.make("mul", result.args, result.lo, result.hi, extra=latency)
            m.declare(variable, result)

        return declare

    def _initial(self, cursor: Any, variable: Variable) -> Evaluate | None:
        """The initialiser; array sizes and template arguments stand before it in the tree."""
        children = parts(cursor)
        if not children:
            return None
        last = children[-1]
        if variable.type.is_aggregate:
            made = kind_name(last) in ("INIT_LIST_EXPR", "CALL_EXPR", "UNEXPOSED_EXPR")
            other = kind_name(last) == "UNEXPOSED_EXPR" and not self._same(last, variable)
            if other or not made:
                return None
        return self.expressions.value(last)

    def _same(self, cursor: Any, variable: Variable) -> bool:
        return self.functions.types.of(cursor.type) == variable.type

    def _if(self, cursor: Any) -> Action:
        children = list(cursor.get_children())
        test = self.expressions.value(children[0])
        first = self.run(children[1])
        second = self.run(children[2]) if len(children) > 2 else None

        def run(m: Machine) -> None:
            condition = m.graph.convert(scalar(m, test(m), BOOL), 0, 1)
            m.branch(condition, first, second)

        return run

    def _return(self, cursor: Any) -> Action:
        inside = parts(cursor)
        value = self.expressions.value(inside[0]) if inside else None

        def run(m: Machine) -> None:
            m.returns.append((m.conditions, value(m) if value is not None else None))

        return run

    # Loops.

    def _loop(self, cursor: Any, label: str) -> Action:
        children = list(cursor.get_children())
        body = children[-1] if kind_name(cursor) != "DO_STMT" else children[0]
        heads = children[:-1] if kind_name(cursor) == "FOR_STMT" else []
        declared = [c for c in heads if kind_name(c) == "DECL_STMT"]
        variable_cursor = next((v for d in declared for v in d.get_children()), None)
        rest = [c for c in heads if kind_name(c) != "DECL_STMT"]
        start = self.run(declared[0]) if declared else _nothing
        variable = self.expressions.known.get(variable_cursor.hash) if variable_cursor else None
        test = self.expressions.value(rest[0]) if rest else None
        step = self.expressions.value(rest[-1]) if len(rest) > 1 else None
        inside = self.run(body)
        pipeline = _pipeline(body)
        unrolled = self.functions.directives.unrolled(body)

        def repeat(m: Machine) -> None:
            _unroll(m, start, test, step, inside)

        trips = self._trips(rest, variable_cursor)
        loop = Loop(
            cursor, label, self.name, trips, pipeline, _interval(pipeline), _perfect(body), variable, inside
        )
        limit = self._limit(rest)

        def visit(m: Machine) -> None:
            if m.iteration is not None:
                repeat(m)
                return
            start(m)
            if variable is not None:
                bound = limit(m)
                ranges = (0, max(0, bound)) if bound is not None else (0, (1 << 31) - 1)
                op = "loop" if pipeline is not None else "opaque"
                constant = Variable(variable.key, variable.name, variable.type, (), constant=True)
                m.declare(constant, m.graph.make(op, (), *ranges, extra=cursor.hash))
            if unrolled:
                inside(m)
            else:
                self.functions.hooks.loop(m, loop)

        return visit

    def _limit(self, rest: list[Any]) -> Callable[[Machine], int | None]:
        """The largest value of a loop variable that counts up to a bound."""
        if not rest or kind_name(rest[0]) != "BINARY_OPERATOR":
            return lambda m: None
        op = ct.BINARY.get(ct.binary_kind(rest[0]))
        if op not in ("lt", "le", "ne"):
            return lambda m: None
        value = self.expressions.value(parts(rest[0])[1])
        less = 0 if op == "le" else 1

        def run(m: Machine) -> int | None:
            bound = value(m)
            return bound.hi - less if isinstance(bound, Node) else None

        return run

    def _trips(self, rest: list[Any], variable: Any | None) -> int | None:
        """How often a loop of constant bounds runs."""
        if len(rest) != 2 or variable is None or kind_name(rest[0]) != "BINARY_OPERATOR":
            return None
        op = ct.BINARY.get(ct.binary_kind(rest[0]))
        first = ct.evaluated(parts(variable)[-1]) if parts(variable) else None
        last = ct.evaluated(parts(rest[0])[1])
        step: int | None = 1
        if kind_name(rest[1]) == "COMPOUND_ASSIGNMENT_OPERATOR":
            step = ct.evaluated(parts(rest[1])[1])
        if first is None or last is None or not step or op not in ("lt", "le", "ne"):
            return None
        return max(0, math.ceil((last + (op == "le") - first) / step))


def _unroll(m: Machine, start: Action, test: Evaluate | None, step: Evaluate | None, inside: Action) -> None:
    start(m)
    for _ in range(MOST_ITERATIONS):
        condition = test(m) if test is not None else None
        if isinstance(condition, Node) and condition.const == 0:
            return
        inside(m)
        if not isinstance(condition, Node) or condition.const is None:
            return  # the bound is not constant: the tool does not unroll it
        if step is not None:
            step(m)


def _sequence(actions: list[Action]) -> Action:
    if len(actions) == 1:
        return actions[0]

    def run(m: Machine) -> None:
        for action in actions:
            action(m)

    return run


def _nothing(m: Machine) -> None:
    """An empty statement."""


def _pipeline(body: Any) -> Any | None:
    """The T2F_PIPELINE that a loop's body begins with."""
    first = next(iter(body.get_children()), None)
    if first is not None and kind_name(first) == "CALL_EXPR" and first.spelling == PIPELINE:
        return first
    return None


def _interval(pipeline: Any | None) -> int:
    number = ct.evaluated(parts(pipeline)[-1]) if pipeline is not None else None
    return 1 if number is None else number


def _perfect(body: Any) -> bool:
    inside = [c for c in body.get_children() if kind_name(c) != "NULL_STMT"]
    if kind_name(body) in LOOPS:
        return True
    while len(inside) == 1 and kind_name(inside[0]) == "LABEL_STMT":
        inside = [c for c in inside[0].get_children() if not kind_name(c).endswith("_REF")]
    return len(inside) == 1 and kind_name(inside[0]) in LOOPS
