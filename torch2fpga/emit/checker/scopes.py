# SPDX-License-Identifier: Apache-2.0
"""Which declaration a name means at a place, and whether an expression is a constant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch2fpga.emit.checker.source import Source
from torch2fpga.emit.checker.syntax import FUNCTIONS, RECORDS, Node, callees, kind_name, template_of

TEMPLATE_TYPES = frozenset({"TEMPLATE_TYPE_PARAMETER", "TEMPLATE_TEMPLATE_PARAMETER"})
_TYPES = RECORDS | frozenset({"TYPEDEF_DECL", "TYPE_ALIAS_DECL", "TYPE_ALIAS_TEMPLATE_DECL"})
_LITERALS = frozenset({"INTEGER_LITERAL", "CHARACTER_LITERAL", "CXX_BOOL_LITERAL_EXPR", "CXX_UNARY_EXPR"})
_THROUGH = frozenset(
    {
        "UNEXPOSED_EXPR",
        "PAREN_EXPR",
        "BINARY_OPERATOR",
        "UNARY_OPERATOR",
        "CONDITIONAL_OPERATOR",
        "CSTYLE_CAST_EXPR",
        "CXX_STATIC_CAST_EXPR",
        "CXX_FUNCTIONAL_CAST_EXPR",
        "INIT_LIST_EXPR",
    }
)
_KEYWORDS = frozenset(
    [
        "sizeof",
        "true",
        "false",
        "int",
        "unsigned",
        "signed",
        "long",
        "short",
        "char",
        "bool",
        "const",
        "static_cast",
    ]
)
_WORD = re.compile(r"[A-Za-z_]\w*$")
_DECLARING = ("_DECL", "_PARAMETER", "_TEMPLATE", "_METHOD", "NAMESPACE", "_SPECIALIZATION")


def _declarations(node: Node, before: int) -> Iterator[Node]:
    """What one enclosing node declares ahead of an offset."""
    children: Sequence[Node] = node.children
    if node.kind in RECORDS:
        before = node.end
    for child in children:
        if child.kind == "DECL_STMT":
            yield from (item for item in child.children if item.start < before)
        elif child.start < before and child.kind not in ("COMPOUND_STMT", "LINKAGE_SPEC"):
            yield child
            if child.kind == "ENUM_DECL":
                yield from child.children


def _members(cursor: Any) -> Iterator[Node]:
    definition = template_of(cursor)
    if kind_name(definition) in RECORDS:
        for child in Node(definition).children:
            yield child
            if child.kind == "CXX_BASE_SPECIFIER" and child.cursor.referenced is not None:
                base = child.cursor.referenced
                yield from _members(base)


def _scoped_names(source: Source, name: str) -> Iterator[Node]:
    for path in source.unit.paths(lambda _: True):
        if path.startswith("/usr/"):
            continue
        pending = list(source.unit.nodes(path))
        while pending:
            node = pending.pop()
            if node.kind in ("NAMESPACE", "LINKAGE_SPEC", "ENUM_DECL"):
                pending.extend(node.children)
            if node.kind.endswith(_DECLARING) and node.spelling == name:
                yield node


def local(chain: Sequence[Node], offset: int, name: str) -> Node | None:
    """A local variable, parameter, template parameter or member that is visible at an offset."""
    for node in reversed(chain):
        if node.kind in ("NAMESPACE", "LINKAGE_SPEC"):
            continue
        for item in _declarations(node, offset):
            if item.kind.endswith(_DECLARING) and item.spelling == name:
                return item
        if node.kind in FUNCTIONS and node.cursor.semantic_parent is not None:
            for item in _members(node.cursor.semantic_parent):
                if item.spelling == name:
                    return item
    return None


def lookup(source: Source, chain: Sequence[Node], offset: int, name: str) -> Node | None:
    """As `local`, then names of namespace scope in this unit (the standard library left out)."""
    return local(chain, offset, name) or next(_scoped_names(source, name), None)


def resolve_variable(source: Source, chain: list[Node], offset: int, text: str) -> str:
    """Empty where `variable=text` names something in scope, else what is wrong."""
    parts = [part for part in re.split(r"->|\.", text.strip("&*")) if part]
    parts = [re.sub(r"\[.*\]$", "", part) for part in parts]
    if parts and parts[0] == "this":
        parts = parts[1:]
    if not parts or not all(_WORD.match(part) for part in parts):
        return f"'{text}' is not a variable"
    found = local(chain, offset, parts[0])
    if found is None or found.kind not in ("VAR_DECL", "PARM_DECL", "FIELD_DECL"):
        return f"'{parts[0]}' is no variable in scope here"
    for part in parts[1:]:
        kind = found.cursor.type
        while kind.kind.name in ("LVALUEREFERENCE", "POINTER"):
            kind = kind.get_pointee()
        members = list(_members(kind.get_canonical().get_declaration()))
        if not members:
            return ""
        named = [item for item in members if item.spelling == part]
        if not named:
            return f"'{found.spelling}' has no member '{part}'"
        found = named[0]
    return ""


def integer_problem(source: Source, chain: list[Node], offset: int, words: Sequence[str]) -> str:
    """Empty where the words are an integer constant expression, else what is wrong."""
    skip = False
    for at, word in enumerate(words):
        if skip or not _WORD.match(word) or word in _KEYWORDS:
            if re.match(r"[\d.]*\.|\d+[eE]|\"|'", word):
                return f"'{word}' is not an integer"
            skip = word in ("::", ".")
            continue
        found = lookup(source, chain, offset, word)
        if found is None:
            return f"'{word}' is not declared here"
        following = words[at + 1] if at + 1 < len(words) else ""
        if following == "::":
            name = words[at + 2] if at + 2 < len(words) else ""
            problem = _qualified_problem(source, found, word, name)
            if problem:
                return problem
        elif not _is_constant(found):
            return f"'{word}' is not a compile-time constant"
    return ""


def _qualified_problem(source: Source, found: Node, head: str, name: str) -> str:
    if found.kind in TEMPLATE_TYPES:
        return ""
    if found.kind == "NAMESPACE":
        known = any(item.spelling == name for item in _scoped_names(source, name))
        return "" if known else f"'{head}::{name}' is not declared"
    if found.kind not in _TYPES:
        return f"'{head}' is neither a type nor a namespace"
    declaration = found.cursor.type.get_canonical().get_declaration()
    record = declaration if kind_name(declaration) in RECORDS else found.cursor
    members = [item for item in _members(record) if item.spelling == name]
    if not members:
        return f"'{head}' has no member '{name}'"
    return "" if _is_constant(members[0]) else f"'{head}::{name}' is not a compile-time constant"


def _is_constant(node: Node) -> bool:
    if node.kind in ("TEMPLATE_NON_TYPE_PARAMETER", "ENUM_CONSTANT_DECL"):
        return True
    if node.kind in FUNCTIONS:
        return is_constexpr(node.cursor)
    if node.kind != "VAR_DECL":
        return False
    return constant_variable(node.cursor)


def constant_variable(cursor: Any) -> bool:
    """A const variable whose value the compiler knows."""
    kind = cursor.type
    while kind.kind.name in ("CONSTANTARRAY", "DEPENDENTSIZEDARRAY", "INCOMPLETEARRAY"):
        kind = kind.element_type
    if not kind.is_const_qualified():
        return False
    value = [child for child in Node(cursor).children if not child.kind.endswith("_REF")]
    return bool(value) and is_constant(value[-1])


def is_constexpr(cursor: Any) -> bool:
    """Whether a function is declared constexpr."""
    for token in cursor.get_tokens():
        if token.spelling == "constexpr":
            return True
        if token.spelling in ("(", "{"):
            # A template's parameter list has no parenthesis before the declaration itself.
            return False
    return False


def is_constant(node: Node) -> bool:
    """Whether an expression is known when the code is synthesised (dependent ones count)."""
    if node.kind in _LITERALS:
        return True
    children = [child for child in node.children if not child.kind.endswith("_REF")]
    if node.kind in _THROUGH:
        return bool(children or node.kind == "INIT_LIST_EXPR") and all(map(is_constant, children))
    if node.kind == "CALL_EXPR":
        called = callees(node)
        arguments = children[1:] if called and len(children) > 1 else children
        return bool(called) and all(map(is_constexpr, called)) and all(map(is_constant, arguments))
    if node.kind in ("DECL_REF_EXPR", "MEMBER_REF_EXPR"):
        reference = node.cursor.referenced
        if reference is None:
            kinds = {child.kind for child in node.children}
            return bool(kinds & {"TYPE_REF", "TEMPLATE_REF"}) and not children
        return _is_constant(Node(reference))
    return node.kind == "SIZE_OF_PACK_EXPR"
