# SPDX-License-Identifier: Apache-2.0
"""Rules on arrays: constant sizes, wide memories kept wide, no initialised URAM.

Sources: UG1399 2022.2, "Structs" (an internal array of structs becomes one memory per member
unless aggregated) and "Arrays" (sizes are constants); UG573 (URAM has no initial contents).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch2fpga.emit.checker import scopes
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.source import Pragma, Source
from torch2fpga.emit.checker.syntax import (
    FUNCTIONS,
    RECORDS,
    Node,
    kind_name,
    kind_name_of_reference,
    template_of,
)

_ARRAYS = ("CONSTANTARRAY", "DEPENDENTSIZEDARRAY")


def check(source: Source) -> Iterator[Finding]:
    """All array rules on one file."""
    for node in source.nodes:
        if node.kind not in ("VAR_DECL", "FIELD_DECL"):
            continue
        if _is_variable(node):
            message = f"the size of '{node.spelling}' is no constant"
            yield Finding(source.label, node.line, "array-size", message)
        elif node.kind == "VAR_DECL" and any(a.kind in FUNCTIONS for a in node.ancestors()):
            yield from _aggregate(source, node)
    yield from _uram(source)


def _is_variable(node: Node) -> bool:
    kind = node.cursor.type.get_canonical()
    dependent = False
    while kind.kind.name.endswith("ARRAY"):
        if kind.kind.name == "VARIABLEARRAY":
            return True
        dependent = dependent or kind.kind.name == "DEPENDENTSIZEDARRAY"
        kind = kind.element_type.get_canonical()
    # In a template `n + C::size` counts as dependent, whatever n is: look at the expressions.
    return dependent and not all(scopes.is_constant(size) for size in _sizes(node))


def _sizes(node: Node) -> Iterator[Node]:
    """The expressions of a declaration that are no initialiser: sizes, template arguments."""
    for child in node.children:
        made = child.kind == "CALL_EXPR" and kind_name_of_reference(child) == "CONSTRUCTOR"
        if not (made or child.kind == "INIT_LIST_EXPR" or child.kind.endswith(("_REF", "_ATTR"))):
            yield child


def _pragmas_of(source: Source, node: Node) -> list[Pragma]:
    """The pragmas, beside the declaration, that name a local variable."""
    compound = next((a for a in node.ancestors() if a.kind == "COMPOUND_STMT"), None)
    return [p for p in source.pragmas_in(compound) if node.spelling in p.variables()]


def _record(node: Node, kind: Any) -> Any | None:
    """The class definition of an element type, through a template where it is dependent."""
    declaration = kind.get_declaration()
    if kind_name(declaration) in RECORDS:
        found = template_of(declaration)
        return found if kind_name(found) in RECORDS else None
    named = [c for c in node.children if c.kind == "TEMPLATE_REF" and c.spelling in kind.spelling]
    return named[0].cursor.referenced.get_definition() if named else None


def _is_wide(node: Node, kind: Any) -> bool:
    if kind.get_canonical().spelling.startswith(("hls::", "const hls::")):
        return False
    record = _record(node, kind)
    if record is None:
        return False
    return any(
        kind_name(member) == "FIELD_DECL" and member.type.get_canonical().kind.name in _ARRAYS
        for member in record.get_children()
    )


def _aggregate(source: Source, node: Node) -> Iterator[Finding]:
    kind, dimensions = node.cursor.type.get_canonical(), 0
    constant = kind.is_const_qualified()
    while kind.kind.name in _ARRAYS:
        kind, dimensions = kind.element_type, dimensions + 1
        constant = constant or kind.is_const_qualified()
    if dimensions == 0 or constant or not _is_wide(node, kind):
        return
    whole: set[str] = set()
    for pragma in _pragmas_of(source, node):
        if pragma.kind == "aggregate":
            return
        way = pragma.value("type") or ("" if pragma.value("block") is not None else "complete")
        if pragma.kind == "array_partition" and pragma.value("cyclic") is None:
            whole |= {pragma.value("dim") or "1"} if way.lower() == "complete" else set()
    if "0" in whole or {str(d + 1) for d in range(dimensions)} <= whole:
        return
    message = (
        f"'{node.spelling}' is an array of structs with array members: aggregate it, or it becomes "
        "one memory per member"
    )
    yield Finding(source.label, node.line, "aggregate", message)


def _uram(source: Source) -> Iterator[Finding]:
    for pragma, chain, _ in source.pragma_owners:
        impl = (pragma.value("impl") or "").lower()
        if pragma.kind != "bind_storage" or not impl.startswith("uram"):
            continue
        for name in pragma.variables():
            found = scopes.lookup(source, chain, pragma.offset, name)
            if found is None or found.kind != "VAR_DECL":
                continue
            kind = found.cursor.type.get_canonical()
            constant = kind.is_const_qualified()
            while kind.kind.name in _ARRAYS:
                kind = kind.element_type.get_canonical()
                constant = constant or kind.is_const_qualified()
            static = found.cursor.storage_class.name == "STATIC"
            if static or constant:
                message = f"'{name}' is static or const, and URAM cannot be initialised"
                yield Finding(source.label, pragma.line, "uram-static", message)
