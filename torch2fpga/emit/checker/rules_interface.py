# SPDX-License-Identifier: Apache-2.0
"""Rules on the ports of a top function, and the description of a kernel that linking needs.

Source: UG1399 2022.2, "Interfaces of the HLS Design" and "AXI4 Master Interface" (one bundle per
pointer, else bursts from two processes meet). Pointers may share a bundle here if one process, and no
other, writes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch2fpga.emit.checker.directions import Directions, arguments_of, is_stream_type
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.rules_pragmas import read
from torch2fpga.emit.checker.source import Source
from torch2fpga.emit.checker.syntax import Node, unwrap

POINTER, STREAM, SCALAR, OTHER = "pointer", "stream", "scalar", "other"
_SCALARS = frozenset(
    [
        "BOOL",
        "CHAR_U",
        "UCHAR",
        "USHORT",
        "UINT",
        "ULONG",
        "ULONGLONG",
        "CHAR_S",
        "SCHAR",
        "SHORT",
        "INT",
        "LONG",
        "LONGLONG",
        "ENUM",
    ]
)
_WANTED = {
    POINTER: {"m_axi": 1, "s_axilite": 1},
    STREAM: {"axis": 1},
    SCALAR: {"s_axilite": 1},
    "return": {"s_axilite": 1},
}


@dataclass(frozen=True)
class Port:
    """A parameter of a kernel: `directions` and `token` are for streams only, `bundle` for pointers."""

    name: str
    form: str
    line: int
    directions: frozenset[str] = frozenset()
    token: str = ""
    bundle: str = ""


@dataclass(frozen=True)
class Kernel:
    """A top function as the linker sees it."""

    name: str
    path: str
    line: int
    ports: tuple[Port, ...]

    def port(self, name: str) -> Port | None:
        return next((port for port in self.ports if port.name == name), None)


def _form(kind: Any) -> str:
    if is_stream_type(kind) and kind.kind.name == "LVALUEREFERENCE":
        return STREAM
    canonical = kind.get_canonical().kind.name
    if canonical in ("POINTER", "INCOMPLETEARRAY"):
        return POINTER
    return SCALAR if canonical in _SCALARS else OTHER


def kernel_of(source: Source, top: Node, directions: Directions) -> Kernel:
    """Describe a top function."""
    ports = []
    names = [node for node in top.children if node.kind == "PARM_DECL"]
    bundles = _bundles(source, top)
    for index, item in enumerate(names):
        kind = item.cursor.type
        form = _form(kind)
        ways: frozenset[str] = frozenset()
        token = ""
        if form == STREAM:
            ways = directions.of(top.cursor, index)
            token = kind.get_pointee().get_canonical().get_template_argument_type(0).spelling
        ports.append(Port(item.spelling, form, item.line, ways, token, bundles.get(item.spelling, "")))
    return Kernel(top.spelling, source.label, top.line, tuple(ports))


def _bundles(source: Source, top: Node) -> dict[str, str]:
    """pointer -> bundle, as the pragmas say."""
    found: dict[str, str] = {}
    for pragma in source.pragmas_in(top.body):
        options, problems = read(pragma) if pragma.kind == "interface" else ({}, [])
        if options and not problems and options["mode"] == "m_axi":
            found[options["port"].lstrip("&*")] = options["bundle"]
    return found


def _written_by(top: Node) -> dict[str, list[int]]:
    """pointer to what is not constant -> lines of the calls that it is handed to."""
    constant = {
        node.spelling: "const" in node.cursor.type.get_pointee().spelling.split()
        for node in top.children
        if node.kind == "PARM_DECL" and _form(node.cursor.type) == POINTER
    }
    found: dict[str, list[int]] = {name: [] for name, kept in constant.items() if not kept}
    for statement in top.body.children if top.body is not None else []:
        call = unwrap(statement)
        for argument in arguments_of(call) if call.kind == "CALL_EXPR" else []:
            name = unwrap(argument).spelling
            if name in found:
                found[name].append(call.start)
    return found


def check(source: Source, top: Node, kernel: Kernel) -> Iterator[Finding]:
    """Every port has exactly the interfaces that its type asks for, and a bundle of its own."""
    given: dict[str, dict[str, int]] = {}
    bundles: dict[str, str] = {}
    users = _written_by(top)
    for pragma in source.pragmas_in(top.body):
        options, problems = read(pragma) if pragma.kind == "interface" else ({}, [])
        if not options or problems:
            continue
        port, mode = options["port"].lstrip("&*"), options["mode"]
        modes = given.setdefault(port, {})
        modes[mode] = modes.get(mode, 0) + 1
        if mode == "m_axi":
            bundle = options["bundle"]
            other = bundles.setdefault(bundle, port)
            if other != port and not (len(users.get(port, [])) == 1 and users[port] == users.get(other)):
                message = f"'{port}' shares bundle {bundle} with '{other}'"
                yield Finding(source.label, pragma.line, "interface-bundle", message)
    for item in kernel.ports:
        if item.form == OTHER:
            message = f"'{item.name}' is neither a pointer, a stream by reference nor an integer"
            yield Finding(source.label, item.line, "interface-port", message)
            continue
        yield from _modes(source, item.name, item.line, item.form, given.get(item.name, {}))
    yield from _modes(source, "return", kernel.line, "return", given.get("return", {}))
    if top.cursor.result_type.kind.name != "VOID":
        yield Finding(source.label, kernel.line, "interface-port", "a top function returns void")


def _modes(source: Source, name: str, line: int, form: str, given: dict[str, int]) -> Iterator[Finding]:
    wanted = _WANTED[form]
    what = f"port={name}" if form == "return" else f"{form} '{name}'"
    for mode, count in wanted.items():
        if given.get(mode, 0) != count:
            message = f"{what} has {given.get(mode, 0)} {mode} interfaces, not {count}"
            yield Finding(source.label, line, "interface-port", message)
    for mode in given:
        if mode not in wanted and not (form == "return" and mode.startswith("ap_ctrl")):
            yield Finding(source.label, line, "interface-port", f"{mode} does not fit {what}")
