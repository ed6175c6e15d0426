# SPDX-License-Identifier: Apache-2.0
"""The libclang front: parsing, a light tree over the cursors, tokens and skipped ranges."""

from __future__ import annotations

import atexit
import bisect
import ctypes
import functools
import importlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch2fpga.errors import MissingTool

FUNCTIONS = frozenset(
    {
        "FUNCTION_DECL",
        "CXX_METHOD",
        "FUNCTION_TEMPLATE",
        "CONSTRUCTOR",
        "DESTRUCTOR",
        "CONVERSION_FUNCTION",
    }
)
LOOPS = frozenset({"FOR_STMT", "WHILE_STMT", "DO_STMT", "CXX_FOR_RANGE_STMT"})
RECORDS = frozenset(
    {
        "CLASS_DECL",
        "STRUCT_DECL",
        "UNION_DECL",
        "CLASS_TEMPLATE",
        "CLASS_TEMPLATE_PARTIAL_SPECIALIZATION",
    }
)
WRAPPERS = frozenset({"UNEXPOSED_EXPR", "PAREN_EXPR", "PACK_EXPANSION_EXPR"})
FIRST_PREPROCESSING_KIND = 500
STANDARD = "-std=c++14"


def cindex() -> Any:
    """The module clang.cindex, imported only when something is checked."""
    try:
        return importlib.import_module("clang.cindex")
    except ImportError as error:
        raise MissingTool("the HLS checker needs libclang: pip install libclang") from error


@functools.cache
def system_include_dirs() -> tuple[str, ...]:
    """Where g++ finds the C++ standard headers, as g++ itself says."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise MissingTool("the HLS checker needs g++ for the C++ standard headers: install g++")
    run = subprocess.run(
        [compiler, "-E", "-x", "c++", "-v", "-"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.strip() for line in run.stderr.splitlines()]
    first = lines.index("#include <...> search starts here:") + 1
    return tuple(lines[first : lines.index("End of search list.", first)])


@functools.cache
def _kind_names() -> dict[int, str]:
    return {kind.value: kind.name for kind in cindex().CursorKind.get_all_kinds()}


def kind_name(cursor: Any) -> str:
    """The kind of a cursor as text; a number where the bindings do not know it."""
    number = cursor._kind_id
    return _kind_names().get(number, str(number))


class Node:
    """A cursor with its parent and children; places are those of the expansion of macros."""

    __slots__ = ("_extent", "_kids", "cursor", "kind", "parent")

    def __init__(self, cursor: Any, parent: Node | None = None) -> None:
        self.cursor = cursor
        self.kind = kind_name(cursor)
        self.parent = parent
        self._kids: list[Node] | None = None
        self._extent: tuple[int, int, int, int] | None = None

    @property
    def children(self) -> list[Node]:
        if self._kids is None:
            self._kids = [Node(child, self) for child in self.cursor.get_children()]
        return self._kids

    @property
    def spelling(self) -> str:
        return str(self.cursor.spelling)

    def _places(self) -> tuple[int, int, int, int]:
        if self._extent is None:
            start, end = self.cursor.extent.start, self.cursor.extent.end
            self._extent = (start.offset, end.offset, start.line, end.line)
        return self._extent

    @property
    def start(self) -> int:
        return self._places()[0]

    @property
    def end(self) -> int:
        return self._places()[1]

    @property
    def line(self) -> int:
        return self._places()[2]

    @property
    def end_line(self) -> int:
        return self._places()[3]

    def walk(self) -> Iterator[Node]:
        """This node and everything below it, parents first."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    def ancestors(self) -> Iterator[Node]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    @property
    def body(self) -> Node | None:
        """The compound statement of a function."""
        for child in reversed(self.children):
            if child.kind == "COMPOUND_STMT":
                return child
        return None


def unwrap(node: Node) -> Node:
    """The expression inside implicit casts, parentheses and copies."""
    while True:
        expressions = [child for child in node.children if not child.kind.endswith("_REF")]
        copy = node.kind == "CALL_EXPR" and kind_name_of_reference(node) == "CONSTRUCTOR"
        if (node.kind in WRAPPERS or copy) and len(expressions) == 1:
            node = expressions[0]
        else:
            return node


def kind_name_of_reference(node: Node) -> str:
    reference = node.cursor.referenced
    return "" if reference is None else kind_name(reference)


def place(cursor: Any) -> tuple[str, int]:
    """A key for a declaration that is the same in every translation unit."""
    location = cursor.location
    return (location.file.name if location.file else "", location.offset)


class Token:
    """A token and its place."""

    __slots__ = ("kind", "line", "offset", "text")

    def __init__(self, raw: Any) -> None:
        location = raw.location
        self.text: str = raw.spelling
        self.kind: str = raw.kind.name
        self.offset: int = location.offset
        self.line: int = location.line


class Unit:
    """One translation unit, and of it the files that are to be checked."""

    def __init__(self, main: Path, include_dirs: Sequence[Path], defines: Sequence[str]) -> None:
        module = cindex()
        arguments = [STANDARD, "-nostdinc", "-nostdinc++", "-Wno-unknown-pragmas"]
        arguments += [f"-D{name}" for name in defines]
        arguments += [part for path in include_dirs for part in ("-I", str(path))]
        arguments += [part for path in system_include_dirs() for part in ("-isystem", path)]
        option = module.TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD
        self.main = str(main)
        self.tu: Any = _index().parse(self.main, args=arguments, options=option)
        self._cache: dict[str, list[Node]] | None = None

    def errors(self) -> Iterator[tuple[str, int, str]]:
        """Diagnostics of severity error: path, line, text."""
        for item in self.tu.diagnostics:
            if item.severity >= 3:
                file = item.location.file
                yield (file.name if file else self.main, item.location.line, item.spelling)

    def _top_level(self) -> dict[str, list[Node]]:
        if self._cache is None:
            self._cache = {}
            for cursor in self.tu.cursor.get_children():
                if cursor._kind_id < FIRST_PREPROCESSING_KIND or cursor._kind_id >= 600:
                    file = cursor.location.file
                    if file is not None:
                        self._cache.setdefault(file.name, []).append(Node(cursor))
        return self._cache

    def paths(self, wanted: Callable[[str], bool]) -> list[str]:
        """Files of this unit, the main one last, that are wanted."""
        names = {str(item.include.name) for item in self.tu.get_includes()} | {self.main}
        return sorted((name for name in names if wanted(name)), key=lambda n: (n == self.main, n))

    def nodes(self, path: str) -> list[Node]:
        """The top-level declarations that stand in a file."""
        return self._top_level().get(path, [])

    def _range(self, path: str, start: int, end: int) -> Any:
        module = cindex()
        file = module.File.from_name(self.tu, path)
        first = module.SourceLocation.from_offset(self.tu, file, start)
        last = module.SourceLocation.from_offset(self.tu, file, end)
        return module.SourceRange.from_locations(first, last)

    def tokens(self, path: str, start: int, end: int) -> Iterator[Token]:
        """The tokens of a file between two offsets, comments left out."""
        if end <= start:
            return
        for raw in self.tu.get_tokens(extent=self._range(path, start, end)):
            token = Token(raw)
            if token.offset >= end:
                return
            if token.kind != "COMMENT":
                yield token

    def skipped(self, path: str) -> Skipped:
        """The parts of a file that the preprocessor left out."""
        module = cindex()
        return Skipped(_skipped_ranges(module, self.tu, module.File.from_name(self.tu, path)))


class Skipped:
    """Offsets that conditional compilation removed."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = sorted(ranges)

    def __contains__(self, offset: int) -> bool:
        index = bisect.bisect_right(self._ranges, (offset, 1 << 62)) - 1
        return index >= 0 and self._ranges[index][0] <= offset < self._ranges[index][1]


@functools.cache
def _index() -> Any:
    index = cindex().Index.create()
    # Its finaliser needs the library, which is gone when the interpreter has cleared its modules.
    atexit.register(_index.cache_clear)
    return index


def _skipped_ranges(module: Any, tu: Any, file: Any) -> list[tuple[int, int]]:
    class RangeList(ctypes.Structure):
        _fields_ = (("count", ctypes.c_uint), ("ranges", ctypes.POINTER(module.SourceRange)))

    library = module.conf.lib
    get, dispose = library.clang_getSkippedRanges, library.clang_disposeSourceRangeList
    get.restype = ctypes.c_void_p
    dispose.argtypes = [ctypes.c_void_p]
    address = get(tu, file)
    if not address:
        return []
    found = ctypes.cast(address, ctypes.POINTER(RangeList)).contents
    pairs = [(found.ranges[i].start.offset, found.ranges[i].end.offset) for i in range(found.count)]
    dispose(address)
    return pairs


def template_of(cursor: Any) -> Any:
    """The template that a specialisation was made from, with its body; else the definition."""
    module = cindex()
    pattern = module.conf.lib.clang_getSpecializedCursorTemplate(cursor)
    if pattern is not None and not pattern.kind.is_invalid():
        cursor = pattern
    return cursor.get_definition() or cursor


def callees(call: Node) -> list[Any]:
    """Definitions (else declarations) that a call may reach; several where it is dependent."""
    reference = call.cursor.referenced
    if reference is None and call.children:
        reference = unwrap(call.children[0]).cursor.referenced
    if reference is None:
        return []
    if kind_name(reference) != "OVERLOADED_DECL_REF":
        return [template_of(reference)]
    library = cindex().conf.lib
    count = library.clang_getNumOverloadedDecls(reference)
    found = [library.clang_getOverloadedDecl(reference, index) for index in range(count)]
    unique = {place(cursor): cursor for cursor in map(template_of, found)}
    return list(unique.values())
