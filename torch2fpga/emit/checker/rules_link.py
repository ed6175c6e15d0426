# SPDX-License-Identifier: Apache-2.0
"""Rules on link.cfg: it must agree with the kernels, argument for argument.

Sources: UG1393 2022.2, "Linking the Kernels"; the U280 has 32 HBM pseudo-channels, two DDR banks,
three SLRs, and room for 32 AXI masters of the user's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch2fpga.emit.checker.directions import READ, WRITE
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.rules_interface import POINTER, STREAM, Kernel

FILE = "link.cfg"
MAX_MASTERS = 32
_BANKS = {"HBM": 32, "DDR": 2, "PLRAM": 6}
_SECTIONS = {"", "connectivity", "vivado", "advanced", "profile", "debug", "clock"}
_KEYS = {
    "": {"platform", "kernel_frequency", "save-temps", "debug", "optimize", "target", "temp_dir"},
    "connectivity": {"nk", "slr", "sp", "stream_connect"},
}


@dataclass(frozen=True)
class _Line:
    number: int
    section: str
    key: str
    value: str


class _Config:
    def __init__(self, text: str, kernels: Sequence[Kernel]) -> None:
        self.kernels = {kernel.name: kernel for kernel in kernels}
        self.instances = {f"{kernel.name}_1": kernel for kernel in kernels}
        self.lines: list[_Line] = []
        self.broken: list[Finding] = []
        self._read(text)

    def _read(self, text: str) -> None:
        section = ""
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            header = re.fullmatch(r"\[(\w+)\]", line)
            key, _, value = (part.strip() for part in line.partition("="))
            if header and header.group(1) in _SECTIONS:
                section = header.group(1)
            elif header or not value or "#" in value:
                self.broken.append(_bad(number, f"cannot read '{line}'"))
            elif section in _KEYS and key not in _KEYS[section]:
                self.broken.append(_bad(number, f"unknown key '{key}' in section '{section}'"))
            else:
                self.lines.append(_Line(number, section, key, value))

    def of(self, key: str) -> list[_Line]:
        section = "connectivity" if key in _KEYS["connectivity"] else ""
        return [line for line in self.lines if line.key == key and line.section == section]


def _bad(line: int, message: str, rule: str = "link-config") -> Finding:
    return Finding(FILE, line, rule, message)


def check(text: str, kernels: Sequence[Kernel]) -> Iterator[Finding]:
    """Check link.cfg against all kernels of the project."""
    config = _Config(text, kernels)
    yield from config.broken
    for key in ("platform", "kernel_frequency"):
        if len(config.of(key)) != 1:
            yield _bad(1, f"'{key}=' stands {len(config.of(key))} times, not once")
    yield from _instances(config)
    yield from _memory(config)
    yield from _streams(config)


def _instances(config: _Config) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for line in config.of("nk"):
        match = re.fullmatch(r"(\w+):1:(\w+)", line.value)
        if not match or match.group(2) != f"{match.group(1)}_1":
            yield _bad(line.number, f"nk={line.value}: write nk=<kernel>:1:<kernel>_1")
        elif match.group(1) not in config.kernels:
            yield _bad(line.number, f"nk: there is no kernel '{match.group(1)}'")
        else:
            seen[match.group(1)] = seen.get(match.group(1), 0) + 1
    for name in config.kernels:
        if seen.get(name, 0) != 1:
            yield _bad(1, f"kernel '{name}' has {seen.get(name, 0)} nk lines, not one")
    placed: set[str] = set()
    for line in config.of("slr"):
        match = re.fullmatch(r"(\w+):SLR[0-2]", line.value)
        if not match or match.group(1) not in config.instances or match.group(1) in placed:
            yield _bad(line.number, f"slr={line.value}: one known instance, once, on SLR0 to SLR2")
        else:
            placed.add(match.group(1))


def _memory(config: _Config) -> Iterator[Finding]:
    wanted = {
        f"{instance}.{port.name}": 0
        for instance, kernel in config.instances.items()
        for port in kernel.ports
        if port.form == POINTER
    }
    for line in config.of("sp"):
        match = re.fullmatch(r"(\w+\.\w+):(\w+)\[(\d+)\]", line.value)
        if not match:
            message = f"sp={line.value}: write <instance>.<argument>:HBM[n], one channel, no range"
            yield _bad(line.number, message, "link-port")
            continue
        target, bank, number = match.group(1), match.group(2), int(match.group(3))
        if number >= _BANKS.get(bank, 0):
            yield _bad(line.number, f"sp: there is no {bank}[{number}]", "link-port")
        if target not in wanted:
            yield _bad(line.number, f"sp: '{target}' is no pointer argument", "link-port")
        else:
            wanted[target] += 1
    for target, count in wanted.items():
        if count != 1:
            yield _bad(1, f"'{target}' has {count} sp lines, not one", "link-port")
    masters = {
        (instance, port.bundle or port.name)
        for instance, kernel in config.instances.items()
        for port in kernel.ports
        if port.form == POINTER
    }
    if len(masters) > MAX_MASTERS:
        message = f"{len(masters)} m_axi masters, the card has {MAX_MASTERS}"
        yield _bad(1, message, "link-masters")


def _end(config: _Config, text: str, way: str) -> tuple[str, str]:
    """The token type of one end of a connection, or what is wrong with it."""
    instance, _, name = text.partition(".")
    kernel = config.instances.get(instance)
    port = kernel.port(name) if kernel else None
    if port is None or port.form != STREAM:
        return "", f"'{text}' is no stream argument"
    if port.directions != {way}:
        return "", f"'{text}' is no {'output' if way == WRITE else 'input'}"
    return port.token, ""


def _streams(config: _Config) -> Iterator[Finding]:
    wanted = {
        f"{instance}.{port.name}": 0
        for instance, kernel in config.instances.items()
        for port in kernel.ports
        if port.form == STREAM
    }
    for line in config.of("stream_connect"):
        match = re.fullmatch(r"(\w+\.\w+):(\w+\.\w+)(?::(\d+))?", line.value)
        if not match:
            message = f"stream_connect={line.value}: write k0_1.out:k1_1.in:depth"
            yield _bad(line.number, message, "link-stream")
            continue
        tokens = []
        for text, way in ((match.group(1), WRITE), (match.group(2), READ)):
            token, problem = _end(config, text, way)
            tokens.append(token)
            if problem:
                yield _bad(line.number, f"stream_connect: {problem}", "link-stream")
            if text in wanted:
                wanted[text] += 1
        if all(tokens) and tokens[0] != tokens[1]:
            message = f"stream_connect joins {tokens[0]} to {tokens[1]}"
            yield _bad(line.number, message, "link-stream")
    for target, count in wanted.items():
        if count != 1:
            yield _bad(1, f"stream '{target}' is connected {count} times, not once", "link-stream")
