# SPDX-License-Identifier: Apache-2.0
"""Hygiene: no weights in source, sizes, characters, includes.  Rules of this project."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import PurePosixPath

from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.source import Source
from torch2fpga.emit.checker.syntax import Node

MAX_BYTES = 1_000_000
MAX_INITIALISERS = 4096
MAX_BODY_LINES = 400
#: of a dataflow region, which is a list: a line a port, a stream, and a call for every stage
MAX_REGION_LINES = 2000
CXX_SUFFIXES = (".cpp", ".hpp", ".h", ".cc", ".c")
SYSTEM_HEADERS = frozenset({"<cstdint>", "<hls_stream.h>"})


def check_text(label: str, text: str) -> Iterator[Finding]:
    """What is checked of every emitted text file."""
    if label.endswith(CXX_SUFFIXES) and len(text.encode()) > MAX_BYTES:
        message = f"{len(text.encode())} bytes, more than {MAX_BYTES}"
        yield Finding(label, 1, "file-size", message)
    if text.isascii():
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.isascii():
            odd = next(character for character in line if ord(character) > 127)
            yield Finding(label, number, "non-ascii", f"character U+{ord(odd):04X}")


def check(source: Source, project: Container[str], roots: Container[str] = ()) -> Iterator[Finding]:
    """Initialisers, function lengths and includes of one parsed file."""
    for include in source.includes:
        if not _is_allowed(include.target, source.label, project, roots):
            message = f"#include {include.target} is not allowed in synthesised code"
            yield Finding(source.label, include.line, "include", message)
    for node in source.nodes:
        if node.kind == "INIT_LIST_EXPR" and (node.parent is None or node.parent.kind != node.kind):
            count = _leaves(node)
            if count > MAX_INITIALISERS:
                message = f"{count} initialisers: weights do not belong in source"
                yield Finding(source.label, node.line, "initialiser-size", message)
    regions = {
        compound.start
        for pragma, _, compound in source.pragma_owners
        if pragma.kind == "dataflow" and compound is not None
    }
    for function in source.functions:
        body = function.body
        length = 0 if body is None else body.end_line - body.line + 1
        most = MAX_REGION_LINES if body is not None and body.start in regions else MAX_BODY_LINES
        if length > most:
            message = f"'{function.spelling}' is {length} lines, more than {most}"
            yield Finding(source.label, function.line, "function-length", message)


def _leaves(node: Node) -> int:
    return sum(
        _leaves(child) if child.kind == "INIT_LIST_EXPR" else 1
        for child in node.children
        if not child.kind.endswith("_REF")
    )


def _is_allowed(target: str, label: str, project: Container[str], roots: Container[str]) -> bool:
    if target in SYSTEM_HEADERS:
        return True
    match = re.fullmatch(r'"([\w./\-]+)"', target)
    if match is None:
        return False
    name = match.group(1)
    if re.fullmatch(r"t2f/\w+\.hpp", name):
        return True
    here = PurePosixPath(label).parent
    parts: list[str] = []
    for part in (*here.parts, *PurePosixPath(name).parts):
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts) in project or name in project or name in roots
