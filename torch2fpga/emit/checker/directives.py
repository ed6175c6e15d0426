# SPDX-License-Identifier: Apache-2.0
"""The pragmas of variables and loops of instantiated functions, found by their place in the text."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from torch2fpga.emit.checker.source import Pragma, make_pragma
from torch2fpga.emit.checker.storage import Directive
from torch2fpga.emit.checker.syntax import Unit

_PRAGMA = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+(HLS)\b((?:[^\n\\]|\\[^\n]|\\\r?\n)*)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*|\d\w*|::|->|\S")
_OF_VARIABLES = frozenset(["array_partition", "array_reshape", "aggregate", "bind_storage"])


@functools.lru_cache(maxsize=64)
def _scan(text: str) -> tuple[Pragma, ...]:
    found = []
    for match in _PRAGMA.finditer(text):
        words = _WORD.findall(match[2].replace("\\\n", " ").split("//")[0])
        found.append(make_pragma(match[1], words, match.start(1), text.count("\n", 0, match.start()) + 1))
    return tuple(found)


class Directives:
    """The pragmas of the files of one unit."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._files: dict[str, list[Pragma]] = {}

    def _between(self, cursor: Any, start: int, end: int) -> list[Pragma]:
        file = cursor.location.file
        if file is None:
            return []
        if file.name not in self._files:
            # One byte a character, so that libclang's offsets are indices.
            text = Path(file.name).read_bytes().decode("latin-1")
            skipped = self._unit.skipped(file.name)
            self._files[file.name] = [p for p in _scan(text) if p.offset not in skipped]
        return [p for p in self._files[file.name] if start <= p.offset < end]

    def of_variable(self, cursor: Any, scope_end: int) -> tuple[Directive, ...]:
        """What pragmas say about an array or struct, from its declaration to its scope's end."""
        found = []
        for pragma in self._between(cursor, cursor.extent.end.offset, scope_end):
            if pragma.kind not in _OF_VARIABLES:
                continue
            for name in pragma.variables():
                head, *members = name.replace("->", ".").split(".")
                if head == cursor.spelling:
                    found.append(_directive(pragma, tuple(members)))
        return tuple(found)

    def latency(self, cursor: Any, scope_end: int) -> int | None:
        """The latency that bind_op gives to the product that a variable is initialised with."""
        for pragma in self._between(cursor, cursor.extent.end.offset, scope_end):
            if pragma.kind == "bind_op" and cursor.spelling in pragma.variables():
                text = pragma.value("latency") or ""
                if (pragma.value("op") or "").lower() == "mul" and text.isdigit():
                    return int(text)
        return None

    def unrolled(self, body: Any) -> bool:
        """Whether a loop's body begins with an unroll pragma."""
        first = next(iter(body.get_children()), body)
        end = first.extent.start.offset if first is not body else body.extent.end.offset
        inside = self._between(body, body.extent.start.offset, end)
        return any(pragma.kind == "unroll" for pragma in inside)


def _directive(pragma: Pragma, members: tuple[str, ...]) -> Directive:
    options = {a.name: a.text for a in pragma.arguments}
    factor, dim = options.get("factor", ""), options.get("dim", "1")
    if factor and not factor.isdigit():
        # An expression: not evaluated here. As many banks as can be, so that no bound is too high.
        options = {k: v for k, v in options.items() if k not in ("cyclic", "block", "type")}
        factor = ""
    return Directive(pragma.kind, members, options, int(factor or 0), int(dim) if dim.isdigit() else 1)
