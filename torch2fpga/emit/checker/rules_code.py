# SPDX-License-Identifier: Apache-2.0
"""Rules on what the C++ itself may hold on the synthesis path.

Sources: UG1399 2022.2, "Unsupported C/C++ Constructs" (system calls, dynamic memory, pointers to
functions, recursion) and "Variable Loop Bounds"; UG1399 "pragma HLS loop_tripcount"; no URAM
initialisation (UG573).  No floating point and no static state are rules of this project.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.scopes import is_constant
from torch2fpga.emit.checker.source import Source
from torch2fpga.emit.checker.syntax import FUNCTIONS, Node, callees, cindex, place

_FLOATS = re.compile(r"\b(float|double|half|__fp16|_Float16)\b")
_HEAP = re.compile(
    r"\bstd::(?:__\w+::)?(vector|basic_string|string|deque|list|forward_list|(?:unordered_)?"
    r"(?:multi)?(?:map|set)|queue|stack|function|unique_ptr|shared_ptr)\b"
)
_ALLOCATORS = frozenset(["malloc", "calloc", "realloc", "free", "alloca", "aligned_alloc", "strdup"])
_TYPED = frozenset({"VAR_DECL", "PARM_DECL", "FIELD_DECL", "TYPEDEF_DECL", "TYPE_ALIAS_DECL"})
_CASTS = frozenset({"CSTYLE_CAST_EXPR", "CXX_STATIC_CAST_EXPR", "CXX_FUNCTIONAL_CAST_EXPR"})
_STATEMENTS = {
    "GOTO_STMT": ("goto", "goto"),
    "INDIRECT_GOTO_STMT": ("goto", "goto"),
    "CXX_TRY_STMT": ("exception", "try"),
    "CXX_THROW_EXPR": ("exception", "throw"),
    "CXX_NEW_EXPR": ("dynamic-memory", "new"),
    "CXX_DELETE_EXPR": ("dynamic-memory", "delete"),
    "WHILE_STMT": ("loop-bound", "while loop: write a for loop with a bound"),
    "DO_STMT": ("loop-bound", "do loop: write a for loop with a bound"),
    "FLOATING_LITERAL": ("floating-point", "floating point literal"),
}


def check(source: Source) -> Iterator[Finding]:
    """All rules on constructs, then loops and recursion."""
    for node in source.nodes:
        for rule, message in _construct(node):
            yield Finding(source.label, node.line, rule, message)
        if node.kind == "FOR_STMT":
            yield from _loop(source, node)
        elif node.kind == "CXX_FOR_RANGE_STMT" and not _has_tripcount(source, node):
            message = "a range loop needs loop_tripcount max= directly in its body"
            yield Finding(source.label, node.line, "loop-bound", message)
    yield from _recursion(source)


def _construct(node: Node) -> Iterator[tuple[str, str]]:
    if node.kind in _STATEMENTS:
        yield _STATEMENTS[node.kind]
    elif node.kind in _TYPED or node.kind in _CASTS or node.kind in FUNCTIONS:
        yield from _types(node)
    elif node.kind == "CALL_EXPR":
        if node.spelling in _ALLOCATORS:
            yield ("dynamic-memory", f"call of {node.spelling}")
    elif node.kind == "CXX_BASE_SPECIFIER" and _is_virtual_base(node):
        yield ("virtual", "virtual base class")
    if node.kind in ("CXX_METHOD", "DESTRUCTOR") and node.cursor.is_virtual_method():
        yield ("virtual", f"'{node.spelling}' is virtual")
    if node.kind == "VAR_DECL":
        yield from _storage(node)


def _is_virtual_base(node: Node) -> bool:
    return bool(cindex().conf.lib.clang_isVirtualBase(node.cursor))


def _element(kind: Any) -> Any:
    kind = kind.get_canonical()
    while kind.kind.name.endswith("ARRAY"):
        kind = kind.element_type.get_canonical()
    return kind


def _is_function_pointer(kind: Any) -> bool:
    kind = _element(kind)
    if kind.kind.name in ("POINTER", "LVALUEREFERENCE", "MEMBERPOINTER"):
        return str(kind.get_pointee().get_canonical().kind.name).startswith("FUNCTION")
    return False


def _types(node: Node) -> Iterator[tuple[str, str]]:
    kind = node.cursor.result_type if node.kind in FUNCTIONS else node.cursor.type
    spelled = f"{kind.spelling} {kind.get_canonical().spelling}"
    found = _FLOATS.search(spelled)
    if found:
        yield ("floating-point", f"'{node.spelling or 'cast'}' is of type {found.group(1)}")
    heap = _HEAP.search(spelled)
    if heap:
        yield ("dynamic-memory", f"'{node.spelling}' is a std::{heap.group(1)}")
    if _is_function_pointer(kind):
        yield ("function-pointer", f"'{node.spelling}' is a pointer to a function")


def _storage(node: Node) -> Iterator[tuple[str, str]]:
    global_scope = not any(a.kind in FUNCTIONS or a.kind == "LAMBDA_EXPR" for a in node.ancestors())
    static = node.cursor.storage_class.name == "STATIC"
    if not (static or global_scope):
        return
    kind = node.cursor.type.get_canonical()
    constant = kind.is_const_qualified() or _element(kind).is_const_qualified()
    if not constant:
        what = "array" if kind.kind.name.endswith("ARRAY") else "variable"
        yield ("static-array", f"{what} '{node.spelling}' keeps state across calls: not const")


def _has_tripcount(source: Source, loop: Node) -> bool:
    body = loop.children[-1] if loop.children else None
    if body is None or body.kind != "COMPOUND_STMT":
        return False
    return any(p.kind == "loop_tripcount" for p in source.pragmas_in(body))


def _loop(source: Source, loop: Node) -> Iterator[Finding]:
    parts = _header(source, loop)
    condition = parts[1]
    if condition is None or is_constant(condition):
        message = "loop without a condition that ends it"
        yield Finding(source.label, loop.line, "loop-bound", message)
        return
    if not _is_counted(parts) and not _has_tripcount(source, loop):
        message = "the bound is no compile-time constant: loop_tripcount max= directly in the body"
        yield Finding(source.label, loop.line, "loop-bound", message)


def _header(source: Source, loop: Node) -> list[Node | None]:
    """Initialisation, condition, step; libclang leaves absent ones out, so places decide."""
    *heads, body = loop.children
    semicolons: list[int] = []
    depth = 0
    for token in source.unit.tokens(source.path, loop.start, body.start):
        depth += (token.text in ("(", "{", "[")) - (token.text in (")", "}", "]"))
        if token.text == ";" and depth == 1:
            semicolons.append(token.offset)
    parts: list[Node | None] = [None, None, None]
    for node in heads:
        parts[sum(node.start > offset for offset in semicolons)] = node
    return parts


def _is_counted(parts: list[Node | None]) -> bool:
    """A counter from a constant to a constant by a constant."""
    first, condition, step = parts
    if first is None or condition is None or step is None:
        return False
    if first.kind != "DECL_STMT" or len(first.children) != 1:
        return False
    counter = first.children[0]
    value = [child for child in counter.children if not child.kind.endswith("_REF")]
    if not value or not is_constant(value[-1]) or condition.kind != "BINARY_OPERATOR":
        return False
    if step.kind not in ("UNARY_OPERATOR", "COMPOUND_ASSIGNMENT_OPERATOR", "BINARY_OPERATOR"):
        return False
    wanted = place(counter.cursor)
    return all(_constant_but(child, wanted) for child in (*condition.children, *step.children))


def _constant_but(node: Node, counter: tuple[str, int]) -> bool:
    """A constant expression once the counter itself is taken as one."""
    if node.kind == "DECL_REF_EXPR":
        reference = node.cursor.referenced
        if reference is not None and place(reference) == counter:
            return True
    children = [child for child in node.children if not child.kind.endswith("_REF")]
    if children and node.kind in ("UNEXPOSED_EXPR", "PAREN_EXPR", "BINARY_OPERATOR"):
        return all(_constant_but(child, counter) for child in children)
    return is_constant(node)


def _calls(function: Node) -> Iterator[tuple[str, int]]:
    """Definitions that a function calls; other instances of its own template do not count."""
    own = place(function.cursor)
    for node in function.walk():
        if node.kind != "CALL_EXPR":
            continue
        found = callees(node)
        for cursor in found:
            target = place(cursor)
            if target == own and (len(found) > 1 or _names_instance(node)):
                continue
            yield target


def _names_instance(call: Node) -> bool:
    callee = call.children[0] if call.children else call
    return any(token.spelling == "<" for token in callee.cursor.get_tokens())


def _recursion(source: Source) -> Iterator[Finding]:
    graph: dict[tuple[str, int], set[tuple[str, int]]] = {}
    owners = {place(node.cursor): node for node in source.functions}
    for key, node in owners.items():
        graph[key] = set(_calls(node))
    for key, node in owners.items():
        pending, seen = list(graph[key]), set()
        while pending:
            step = pending.pop()
            if step not in seen:
                seen.add(step)
                pending.extend(graph.get(step, ()))
        if key in seen:
            message = f"'{node.spelling}' calls itself, directly or through others"
            yield Finding(source.label, node.line, "recursion", message)
