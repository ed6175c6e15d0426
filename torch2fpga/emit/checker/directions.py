# SPDX-License-Identifier: Apache-2.0
"""Whether a function reads or writes a stream parameter, from its body or its template's body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch2fpga.emit.checker.syntax import WRAPPERS, Node, callees, cindex, kind_name, place

READ, WRITE, UNKNOWN = "read", "write", "unknown"
_READERS = frozenset({"read", "read_nb", "empty", "operator>>"})
_WRITERS = frozenset({"write", "write_nb", "full", "operator<<"})
_SHIFTS = {8: WRITE, 9: READ}  # CXBinaryOperator_Shl, _Shr


def is_stream_type(kind: Any) -> bool:
    """hls::stream, or a reference or array of it; dependent arguments included."""
    kind = kind.get_canonical()
    while kind.kind.name in ("LVALUEREFERENCE", "CONSTANTARRAY", "DEPENDENTSIZEDARRAY"):
        is_reference = kind.kind.name == "LVALUEREFERENCE"
        kind = (kind.get_pointee() if is_reference else kind.element_type).get_canonical()
    name = str(kind.spelling).removeprefix("const ")
    return name.startswith(("hls::stream<", "stream<"))


def parameters(function: Any) -> list[Any]:
    """The parameter cursors of a function or function template."""
    return [child for child in function.get_children() if kind_name(child) == "PARM_DECL"]


def arguments_of(call: Node) -> list[Node]:
    """The argument expressions of a call (not of an overloaded operator)."""
    shown = [child for child in call.children if not child.kind.endswith("_REF")]
    return shown[1:]


def member_name(reference: Node) -> str:
    """The member a MEMBER_REF_EXPR names; libclang leaves dependent ones empty, tokens do not."""
    if reference.spelling:
        return reference.spelling
    names = [t.spelling for t in reference.cursor.get_tokens() if t.kind.name == "IDENTIFIER"]
    return names[-1] if names else ""


@dataclass
class Directions:
    """Directions found so far, shared by every unit of a project."""

    known: dict[tuple[tuple[str, int], int], frozenset[str]] = field(default_factory=dict)

    def of(self, function: Any, index: int) -> frozenset[str]:
        """What a function does with its parameter `index`: read, write, both, nothing, unknown."""
        key = (place(function), index)
        if key not in self.known:
            self.known[key] = frozenset()  # a cycle adds nothing
            self.known[key] = frozenset(self._derive(function, index))
        return self.known[key]

    def of_argument(self, call: Node, index: int) -> frozenset[str]:
        """What the callee of a call does with the argument `index`."""
        found: set[str] = set()
        count = len(arguments_of(call))
        for function in callees(call):
            names = parameters(function)
            packed = bool(names) and "..." in names[-1].type.spelling
            if not packed and len(names) < count:
                continue
            found |= self.of(function, min(index, len(names) - 1))
        return frozenset(found) if callees(call) else frozenset({UNKNOWN})

    def _derive(self, function: Any, index: int) -> Iterator[str]:
        names = parameters(function)
        root = Node(function)
        if index >= len(names) or root.body is None:
            yield UNKNOWN
            return
        wanted = place(names[index])
        for node in root.body.walk():
            if node.kind == "DECL_REF_EXPR":
                reference = node.cursor.referenced
                if reference is not None and place(reference) == wanted:
                    yield from self._use(node)

    def _use(self, node: Node) -> Iterator[str]:
        parent = node.parent
        while parent is not None and (
            parent.kind in WRAPPERS or (parent.kind == "ARRAY_SUBSCRIPT_EXPR" and parent.children[0] is node)
        ):
            node, parent = parent, parent.parent
        if parent is None:
            yield UNKNOWN
        elif parent.kind == "MEMBER_REF_EXPR":
            yield _of_member(member_name(parent))
        elif parent.kind == "BINARY_OPERATOR" and parent.children[0] is node:
            operator = cindex().conf.lib.clang_getCursorBinaryOperatorKind(parent.cursor)
            yield _SHIFTS.get(operator, UNKNOWN)
        elif parent.kind == "CALL_EXPR" and parent.spelling in ("operator<<", "operator>>"):
            yield _of_member(parent.spelling) if parent.children[0] is node else UNKNOWN
        elif parent.kind == "CALL_EXPR" and node in arguments_of(parent):
            yield from self.of_argument(parent, arguments_of(parent).index(node))
        else:
            yield UNKNOWN


def _of_member(name: str) -> str:
    if name in _READERS:
        return READ
    return WRITE if name in _WRITERS else UNKNOWN
