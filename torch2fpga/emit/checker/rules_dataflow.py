# SPDX-License-Identifier: Apache-2.0
"""Rules on dataflow regions: canonical body, one writer and one reader, no feedback.

Source: UG1399 2022.2, "Canonical Body" and "Limitations of Control-Driven Task-Level Parallelism".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch2fpga.emit.checker import scopes
from torch2fpga.emit.checker.directions import (
    READ,
    UNKNOWN,
    WRITE,
    Directions,
    arguments_of,
    is_stream_type,
)
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.source import END_MACRO, PROCESS_MACRO, Source
from torch2fpga.emit.checker.syntax import (
    LOOPS,
    Node,
    callees,
    kind_name,
    kind_name_of_reference,
    place,
    unwrap,
)

_VALUES = frozenset({"INTEGER_LITERAL", "CXX_BOOL_LITERAL_EXPR", "CHARACTER_LITERAL", "STRING_LITERAL"})
_ARRAYS = ("CONSTANTARRAY", "DEPENDENTSIZEDARRAY")


@dataclass(frozen=True)
class Use:
    """A stream, array or pointer handed to the call number `call`."""

    call: int
    line: int
    directions: frozenset[str]


def check(source: Source, directions: Directions) -> Iterator[Finding]:
    """All dataflow rules on one file."""
    entries = {node.start for node in source.entries}
    for pragma, _, compound in source.pragma_owners:
        if pragma.kind == "dataflow" and compound is not None and compound.parent is not None:
            region = _Region(source, compound, directions)
            yield from region.check()
            owner = compound.parent
            if owner.kind in LOOPS:
                yield from _loop_alone(source, owner)
            if owner.start in entries:
                yield from _macros(source, compound)


def _loop_alone(source: Source, loop: Node) -> Iterator[Finding]:
    siblings = loop.parent.children if loop.parent is not None else []
    others = [node for node in siblings if node is not loop and node.kind != "DECL_STMT"]
    if others or loop.kind != "FOR_STMT":
        message = "a dataflow loop is a for loop and the only statement of its function"
        yield Finding(source.label, loop.line, "dataflow-form", message)


def _statements(compound: Node) -> list[Node]:
    return [unwrap(node) for node in compound.children]


def _macros(source: Source, compound: Node) -> Iterator[Finding]:
    names: set[str] = set()
    for node in _statements(compound):
        if node.kind != "CALL_EXPR":
            continue
        if source.macro_at(node.start) != PROCESS_MACRO:
            message = f"'{node.spelling}' is called without {PROCESS_MACRO}"
            yield Finding(source.label, node.line, "dataflow-process", message)
            continue
        tokens = source.unit.tokens(source.path, node.start, compound.end)
        name = next((t.text for t in tokens if t.kind == "LITERAL" or t.text == ","), ",")
        if not name.startswith('"') or name in names:
            message = f"the name of a process is a string of its own, not {name}"
            yield Finding(source.label, node.line, "dataflow-process", message)
        names.add(name)
    ends = [t for t in source.macros if t.text == END_MACRO and t.offset < compound.end]
    rest = source.data[ends[-1].offset + len(END_MACRO) : compound.end] if ends else b"x"
    if rest.translate(None, b" \t\r\n;") != b"}":
        message = f"the body does not end with {END_MACRO}"
        yield Finding(source.label, compound.end_line, "dataflow-process", message)


class _Region:
    def __init__(self, source: Source, compound: Node, directions: Directions) -> None:
        self.source = source
        self.compound = compound
        self.directions = directions
        self.uses: dict[tuple[str, int, str], list[Use]] = {}
        self.calls = 0

    def _finding(self, node: Node, rule: str, message: str) -> Finding:
        return Finding(self.source.label, node.line, rule, message)

    def check(self) -> Iterator[Finding]:
        variables: list[Node] = []
        for node in _statements(self.compound):
            if node.kind == "NULL_STMT":
                continue
            if node.kind == "DECL_STMT":
                for item in node.children:
                    if item.kind == "VAR_DECL":
                        variables.append(item)
                        yield from self._variable(item)
            elif node.kind == "CALL_EXPR" and kind_name_of_reference(node) != "CONSTRUCTOR":
                yield from self._call(node)
            else:
                message = f"a dataflow body holds declarations and calls only, not {node.kind}"
                yield self._finding(node, "dataflow-form", message)
        owner = self.compound.parent
        while owner is not None and owner.kind in (*LOOPS, "COMPOUND_STMT"):
            owner = owner.parent
        names = [n for n in owner.children if n.kind == "PARM_DECL"] if owner is not None else []
        for item in variables:
            yield from self._local_channel(item)
        for item in names:
            yield from self._parameter(item)

    def _variable(self, item: Node) -> Iterator[Finding]:
        kind = item.cursor.type
        if item.cursor.storage_class.name == "STATIC":
            yield self._finding(item, "dataflow-form", f"'{item.spelling}' is static")
        if is_stream_type(kind):
            if not self._has_depth(item):
                message = f"stream '{item.spelling}' states no depth"
                yield self._finding(item, "dataflow-depth", message)
            return
        values = [c for c in item.children if not c.kind.endswith("_REF")]
        starts = [c for c in values if kind.kind.name not in _ARRAYS or c.kind == "INIT_LIST_EXPR"]
        made = [c for c in starts if not (c.kind == "CALL_EXPR" and not c.children)]
        if kind.kind.name == "RECORD":
            made = [c for c in made if c.kind != "INTEGER_LITERAL"]
        if made and not scopes.constant_variable(item.cursor):
            message = f"'{item.spelling}' is computed inside the region"
            yield self._finding(item, "dataflow-form", message)

    def _has_depth(self, item: Node) -> bool:
        for pragma in self.source.pragmas_in(self.compound):
            if pragma.kind == "stream" and item.spelling in pragma.variables():
                return pragma.value("depth") is not None
        depth = 0
        for token in self.source.unit.tokens(self.source.path, item.start, item.end):
            depth += token.text.count("<") - token.text.count(">")
            if token.text == "," and depth == 1:
                return True
        return False

    def _call(self, call: Node) -> Iterator[Finding]:
        self.calls += 1
        if call.cursor.type.kind.name not in ("VOID", "DEPENDENT"):
            message = f"'{call.spelling}' does not return void"
            yield self._finding(call, "dataflow-form", message)
        elif call.cursor.type.kind.name == "DEPENDENT":
            for function in callees(call):
                if function.result_type.kind.name != "VOID":
                    yield self._finding(call, "dataflow-form", "a callee does not return void")
        for index, argument in enumerate(arguments_of(call)):
            value = unwrap(argument)
            key = self._key(value)
            if key is None:
                if value.kind not in _VALUES and not scopes.is_constant(value):
                    message = f"argument {index + 1} of '{call.spelling}' is computed in the region"
                    yield self._finding(call, "dataflow-argument", message)
                continue
            found: frozenset[str] = frozenset()
            if is_stream_type(value.cursor.type):
                found = self.directions.of_argument(call, index)
            self.uses.setdefault(key, []).append(Use(self.calls, call.line, found))

    def _key(self, value: Node) -> tuple[str, int, str] | None:
        element = ""
        if value.kind == "ARRAY_SUBSCRIPT_EXPR" and len(value.children) == 2:
            if not scopes.is_constant(value.children[1]):
                return None
            element = "".join(t.spelling for t in value.children[1].cursor.get_tokens())
            value = unwrap(value.children[0])
        reference = value.cursor.referenced if value.kind == "DECL_REF_EXPR" else None
        if reference is None or kind_name(reference) not in ("VAR_DECL", "PARM_DECL"):
            return None
        return (*place(reference), element)

    def _uses_of(self, item: Node) -> list[tuple[str, list[Use]]]:
        start = place(item.cursor)
        found = [(key[2], uses) for key, uses in self.uses.items() if key[:2] == start]
        return sorted(found) or [("", [])]

    def _local_channel(self, item: Node) -> Iterator[Finding]:
        kind = item.cursor.type
        if is_stream_type(kind):
            for element, uses in self._uses_of(item):
                label = item.spelling + (f"[{element}]" if element else "")
                yield from self._stream(item, label, uses)
        elif kind.kind.name in _ARRAYS and not scopes.constant_variable(item.cursor):
            count = sum(len(uses) for _, uses in self._uses_of(item))
            if count != 2:
                message = f"array '{item.spelling}' is handed to {count} calls, not to two"
                yield self._finding(item, "dataflow-channel", message)

    def _stream(self, item: Node, label: str, uses: list[Use]) -> Iterator[Finding]:
        if len(uses) != 2 or uses[0].call == uses[1].call:
            message = f"stream '{label}' is handed to {len(uses)} calls, not to two"
            yield self._finding(item, "dataflow-channel", message)
            return
        unknown = [use for use in uses if len(use.directions) != 1 or UNKNOWN in use.directions]
        if unknown:
            yield self._unclear(unknown[0], label)
            return
        writers = [use for use in uses if WRITE in use.directions]
        readers = [use for use in uses if READ in use.directions]
        if len(writers) != 1 or len(readers) != 1:
            message = f"stream '{label}' has {len(writers)} writers and {len(readers)} readers"
            yield self._finding(item, "dataflow-channel", message)
        elif writers[0].call > readers[0].call:
            message = f"stream '{label}' is read before the call that writes it (feedback)"
            yield Finding(self.source.label, readers[0].line, "dataflow-feedback", message)

    def _unclear(self, use: Use, label: str) -> Finding:
        if not use.directions:
            what = "is neither read nor written by its callee"
        elif UNKNOWN in use.directions:
            what = "direction unknown: the callee's body does not show it"
        else:
            what = "is both read and written by one callee"
        message = f"stream '{label}': {what}"
        return Finding(self.source.label, use.line, "dataflow-direction", message)

    def _parameter(self, item: Node) -> Iterator[Finding]:
        kind = item.cursor.type
        stream = is_stream_type(kind)
        pointer = kind.kind.name == "POINTER"
        if not stream and not pointer:
            return
        for element, uses in self._uses_of(item):
            label = item.spelling + (f"[{element}]" if element else "")
            if len(uses) != 1:
                message = f"'{label}' is handed to {len(uses)} calls, not to one"
                yield self._finding(item, "dataflow-channel", message)
            elif stream and (len(uses[0].directions) != 1 or UNKNOWN in uses[0].directions):
                yield self._unclear(uses[0], label)
