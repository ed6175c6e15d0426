# SPDX-License-Identifier: Apache-2.0
"""C++ types and operators as libclang gives them, in terms of ranges and fields."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from torch2fpga.emit.checker.storage import OTHER, Type
from torch2fpga.emit.checker.syntax import cindex, kind_name

_SIGNED = {"SCHAR": 8, "CHAR_S": 8, "SHORT": 16, "INT": 32, "LONG": 64, "LONGLONG": 64}
_UNSIGNED = {"BOOL": 1, "UCHAR": 8, "CHAR_U": 8, "USHORT": 16, "UINT": 32, "ULONG": 64, "ULONGLONG": 64}
# CXBinaryOperatorKind
BINARY = {
    3: "mul", 4: "div", 5: "rem", 6: "add", 7: "sub", 8: "shl", 9: "shr",
    11: "lt", 12: "gt", 13: "le", 14: "ge", 15: "eq", 16: "ne",
    17: "and", 18: "xor", 19: "or",
}  # fmt: skip
LOGICAL_AND, LOGICAL_OR, ASSIGN, COMMA = 20, 21, 22, 33
COMPOUND = {
    23: "mul", 24: "div", 25: "rem", 26: "add", 27: "sub", 28: "shl", 29: "shr",
    30: "and", 31: "xor", 32: "or",
}  # fmt: skip
# CXUnaryOperatorKind: whether the old value is the result, and the step
STEPS = {1: (True, 1), 2: (True, -1), 3: (False, 1), 4: (False, -1)}
ADDRESS, DEREFERENCE, PLUS, MINUS, INVERT, NOT = 5, 6, 7, 8, 9, 10


class Types:
    """Types by their spelling, each translated once."""

    def __init__(self) -> None:
        self._known: dict[str, Type] = {}

    def of(self, kind: Any) -> Type:
        """The type behind references and names."""
        kind = kind.get_canonical()
        name = kind.kind.name
        if name in ("LVALUEREFERENCE", "RVALUEREFERENCE"):
            return self.of(kind.get_pointee())
        spelling = kind.spelling
        found = self._known.get(spelling)
        if found is None:
            found = self._translate(kind, name, spelling)
            self._known[spelling] = found
        return found

    def _translate(self, kind: Any, name: str, spelling: str) -> Type:
        if name in _SIGNED:
            half = 1 << (_SIGNED[name] - 1)
            return Type("int", -half, half - 1)
        if name in _UNSIGNED:
            return Type("int", 0, (1 << _UNSIGNED[name]) - 1)
        if name == "CONSTANTARRAY":
            return Type("array", size=kind.element_count, element=self.of(kind.element_type))
        if name in ("INCOMPLETEARRAY", "POINTER"):
            pointee = kind.get_pointee() if name == "POINTER" else kind.element_type
            return Type("pointer", element=self.of(pointee))
        if name == "RECORD":
            plain = spelling.removeprefix("const ")
            if plain.startswith("hls::stream<"):
                return Type("stream", element=self.of(kind.get_template_argument_type(0)))
            members = [c for c in kind.get_fields()]
            return Type("struct", fields=tuple((c.spelling, self.of(c.type)) for c in members))
        return OTHER


def is_reference(kind: Any) -> bool:
    return kind.get_canonical().kind.name in ("LVALUEREFERENCE", "RVALUEREFERENCE")


def binary_kind(cursor: Any) -> int:
    """The number of a binary or assigning operator."""
    return int(cindex().conf.lib.clang_getCursorBinaryOperatorKind(cursor))


def unary_kind(cursor: Any) -> int:
    """The number of a unary operator."""
    return int(cindex().conf.lib.clang_getCursorUnaryOperatorKind(cursor))


@functools.cache
def _evaluators() -> tuple[Any, Any, Any, Any]:
    module = cindex()
    library = module.conf.lib
    evaluate, kind_of = library.clang_Cursor_Evaluate, library.clang_EvalResult_getKind
    value_of, dispose = library.clang_EvalResult_getAsLongLong, library.clang_EvalResult_dispose
    evaluate.restype, evaluate.argtypes = ctypes.c_void_p, [module.Cursor]
    kind_of.restype, kind_of.argtypes = ctypes.c_int, [ctypes.c_void_p]
    value_of.restype, value_of.argtypes = ctypes.c_longlong, [ctypes.c_void_p]
    dispose.restype, dispose.argtypes = None, [ctypes.c_void_p]
    return evaluate, kind_of, value_of, dispose


def evaluated(cursor: Any) -> int | None:
    """The integer that the compiler computes for an expression or const variable, if it can."""
    evaluate, kind_of, value_of, dispose = _evaluators()
    result = evaluate(cursor)
    if not result:
        return None
    try:
        return int(value_of(result)) if kind_of(result) == 1 else None
    finally:
        dispose(result)


def definition(cursor: Any) -> Any | None:
    """The declaration of a called function that has a body (the instance, not its template)."""
    for candidate in (cursor, cursor.get_definition()):
        if candidate is not None and body_of(candidate) is not None:
            return candidate
    return None


def body_of(function: Any) -> Any | None:
    """The compound statement of a function."""
    found = None
    for child in function.get_children():
        if kind_name(child) == "COMPOUND_STMT":
            found = child
    return found
