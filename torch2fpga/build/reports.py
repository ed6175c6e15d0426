# SPDX-License-Identifier: Apache-2.0
"""What Vitis HLS reports about a kernel: ``csynth.xml`` (``text_report`` reads the text beside it).

The formats are those of reports in public repositories (2022.1 and 2023.1): the XML has the top's
figures under ``PerformanceEstimates`` and ``AreaEstimates``, every module under ``ModuleInformation``
and who instantiates whom under ``RTLDesignHierarchy``; loops are elements with their own names as tags,
an outer loop that is not pipelined holds its inner ones. Traps that others found in it: an area that a
module does not use may be left out, a latency or trip count may be ``undef``, ``?``, ``-`` or a range.
What is not understood is refused with its file and line; no number is invented.
"""

from __future__ import annotations

import re
import xml.parsers.expat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch2fpga.build import BuildError

#: tag of a resource -> field of ``Estimate``
RESOURCES = {"DSP": "dsp", "LUT": "lut", "FF": "ff", "BRAM_18K": "bram18", "URAM": "uram"}
#: largest report that is read
LARGEST = 512 << 20
_UNKNOWN = ("undef", "?", "-", "")


@dataclass(frozen=True)
class LoopReport:
    """One loop of a module; None where the tool does not know, or the loop is not pipelined.

    Attributes:
        trips: least and most iterations.
        depth: latency of an iteration of a pipelined loop.
    """

    name: str
    ii: int | None
    depth: int | None
    trips: tuple[int, int] | None


@dataclass(frozen=True)
class ModuleReport:
    """One RTL module: its own loops, what it takes (all that it holds included)."""

    name: str
    loops: tuple[LoopReport, ...]
    resources: Mapping[str, int]


@dataclass(frozen=True)
class KernelReport:
    """C synthesis of one kernel (a tool's estimate).

    Attributes:
        version: release of the tool.
        target_ns, uncertainty_ns, estimated_ns: clock period asked for, margin taken off it, estimate;
            None where the report does not say.
        children: module -> modules that it instantiates.
    """

    file: Path
    kernel: str
    version: str
    part: str
    target_ns: float | None
    uncertainty_ns: float | None
    estimated_ns: float | None
    resources: Mapping[str, int]
    available: Mapping[str, int]
    modules: Mapping[str, ModuleReport]
    children: Mapping[str, tuple[str, ...]]

    @property
    def estimated_mhz(self) -> float | None:
        """Clock that the tool expects."""
        return 1000 / self.estimated_ns if self.estimated_ns else None

    def below(self, module: str) -> tuple[ModuleReport, ...]:
        """A module and everything in it."""
        found: dict[str, ModuleReport] = {}
        pending = [module]
        while pending:
            name = pending.pop()
            if name not in found and name in self.modules:
                found[name] = self.modules[name]
                pending += self.children.get(name, ())
        return tuple(found.values())


@dataclass
class Node:
    """An element of the report that remembers its line."""

    tag: str
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)


def not_understood(file: Path, line: int, why: str) -> BuildError:
    """The error for a report that does not have the known form."""
    return BuildError(f"{file}:{line}: report not understood: {why}")


def read_text(file: Path) -> str:
    """A report as text.

    Raises:
        BuildError: if it is missing, too large or not text.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise BuildError(f"{file} is larger than {LARGEST >> 20} MiB: no report")
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BuildError(f"{file} cannot be read: {error}") from error


def parse_xml(file: Path) -> Node:
    """The element tree of a report, with lines; entities are refused.

    Raises:
        BuildError: with the line, if it is no well-formed XML.
    """
    text = read_text(file)
    top = Node("", 0)
    stack = [top]
    parser = xml.parsers.expat.ParserCreate()

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        node = Node(tag, parser.CurrentLineNumber)
        stack[-1].children.append(node)
        stack.append(node)

    def end(tag: str) -> None:
        stack.pop()

    def data(piece: str) -> None:
        stack[-1].text += piece

    def declaration(*arguments: object) -> None:
        raise not_understood(file, parser.CurrentLineNumber, "it declares entities")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = data, declaration
    try:
        parser.Parse(text, True)
    except xml.parsers.expat.ExpatError as error:
        raise not_understood(
            file, error.lineno, f"no XML ({xml.parsers.expat.ErrorString(error.code)})"
        ) from error
    return top.children[0]


class _Reader:
    """Strict access to the nodes of one file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def one(self, node: Node, path: str) -> Node:
        """The one element at a path."""
        for tag in path.split("/"):
            found = [c for c in node.children if c.tag == tag]
            if len(found) != 1:
                raise not_understood(
                    self.file, node.line, f"<{node.tag}> has {len(found)} <{tag}>, expected one"
                )
            node = found[0]
        return node

    def maybe(self, node: Node, path: str) -> Node | None:
        """The element at a path, or None."""
        for tag in path.split("/"):
            found = [c for c in node.children if c.tag == tag]
            if not found:
                return None
            node = self.one(node, tag)
        return node

    def text(self, node: Node, path: str) -> str:
        return self.one(node, path).text.strip()

    def number(self, node: Node) -> int:
        text = node.text.strip()
        if not re.fullmatch(r"\d{1,18}", text):
            raise not_understood(self.file, node.line, f"<{node.tag}> is {text!r}, expected a count")
        return int(text)

    def decimal(self, node: Node, path: str) -> float:
        found = self.one(node, path)
        text = found.text.strip()
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
            raise not_understood(self.file, found.line, f"<{found.tag}> is {text!r}, expected nanoseconds")
        return float(text)

    def known(self, node: Node | None) -> int | None:
        """A count, or None where the tool does not know it."""
        if node is None or (node.text.strip() in _UNKNOWN and not node.children):
            return None
        return self.number(node)

    def span(self, node: Node | None) -> tuple[int, int] | None:
        """A count or a range (``<range><min/><max/></range>``, or ``1 ~ 512`` in text)."""
        if node is None:
            return None
        if node.children:
            inner = self.one(node, "range")
            low, high = (self.known(self.one(inner, end)) for end in ("min", "max"))
            return (low, high) if low is not None and high is not None else None
        match = re.fullmatch(r"(\d{1,18}) ~ (\d{1,18})", node.text.strip())
        if match:
            return int(match[1]), int(match[2])
        value = self.known(node)
        return None if value is None else (value, value)

    def resources(self, node: Node) -> dict[str, int]:
        """Counts by field; a resource that is left out is not used."""
        found = {c.tag: c for c in node.children if c.tag in RESOURCES}
        if not found:
            raise not_understood(self.file, node.line, f"<{node.tag}> names no resource")
        return {name: self.number(found[tag]) if tag in found else 0 for tag, name in RESOURCES.items()}

    def loops(self, node: Node | None) -> Iterator[LoopReport]:
        """Loops under ``SummaryOfLoopLatency``, inner ones too."""
        for item in node.children if node is not None else []:
            if not any(c.tag in ("TripCount", "Latency") for c in item.children):
                continue
            name = self.maybe(item, "Name")
            ii = self.known(self.maybe(item, "PipelineII"))
            depth = self.known(self.maybe(item, "PipelineDepth")) if ii is not None else None
            trips = self.span(self.maybe(item, "TripCount"))
            yield LoopReport(name.text.strip() if name is not None else item.tag, ii, depth, trips)
            yield from self.loops(item)


def read_csynth(file: Path, kernel: str) -> KernelReport:
    """The report of a kernel's C synthesis.

    Raises:
        BuildError: if it is not there, is about another kernel, or is not understood (with the line).
    """
    root, read = parse_xml(file), _Reader(file)
    if root.tag != "profile":
        raise not_understood(file, root.line, f"<{root.tag}>, expected <profile>")
    user, performance = read.one(root, "UserAssignments"), read.one(root, "PerformanceEstimates")
    top = read.text(user, "TopModelName")
    if top != kernel:
        line = read.one(user, "TopModelName").line
        raise not_understood(file, line, f"it is about {top!r}, expected {kernel!r}")
    own = ModuleReport(
        top,
        tuple(read.loops(read.maybe(performance, "SummaryOfLoopLatency"))),
        read.resources(read.one(root, "AreaEstimates/Resources")),
    )
    information = read.maybe(root, "ModuleInformation")
    modules = [_module(read, m) for m in (information.children if information else []) if m.tag == "Module"]
    return KernelReport(
        file=file,
        kernel=top,
        version=read.text(root, "ReportVersion/Version"),
        part=read.text(user, "Part"),
        target_ns=read.decimal(user, "TargetClockPeriod"),
        uncertainty_ns=read.decimal(user, "ClockUncertainty"),
        estimated_ns=read.decimal(performance, "SummaryOfTimingAnalysis/EstimatedClockPeriod"),
        resources=own.resources,
        available=read.resources(read.one(root, "AreaEstimates/AvailableResources")),
        modules={top: own} | {m.name: m for m in modules},
        children=_children(read, read.maybe(root, "RTLDesignHierarchy/TopModule")),
    )


def _module(read: _Reader, node: Node) -> ModuleReport:
    loops = read.maybe(node, "PerformanceEstimates/SummaryOfLoopLatency")
    return ModuleReport(
        read.text(node, "Name"),
        tuple(read.loops(loops)),
        read.resources(read.one(node, "AreaEstimates/Resources")),
    )


def _children(read: _Reader, top: Node | None) -> dict[str, tuple[str, ...]]:
    """Module -> modules in it, from the tree of instances."""
    found: dict[str, tuple[str, ...]] = {}
    pending: Sequence[Node] = [top] if top is not None else []
    while pending:
        node, *pending = pending
        listed = read.maybe(node, "InstancesList")
        inside = [c for c in listed.children if c.tag == "Instance"] if listed is not None else []
        name = read.text(node, "ModuleName")
        names = tuple(read.text(c, "ModuleName") for c in inside)
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), *names)))
        pending = [*inside, *pending]
    return found
