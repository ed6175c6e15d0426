# SPDX-License-Identifier: Apache-2.0
"""Interval and depth of every pipelined loop of emitted kernels, from the syntax tree.

The bound of the interval is a lower one: no schedule of the tools can be faster.  The depth is an
estimate of the iteration's latency with the delays of the U280's fabric.  Both follow what the
tools do to a pipelined loop: calls are inlined, inner loops unrolled, constants folded, what does
not change in the loop computed ahead of it.

Limits: one iteration is looked at, so a place that may or may not come back in the next iteration
(an index that is no constant of the loop) bounds nothing; cycles through several variables are not
searched; the simulation's own `dot_pair` is read, not the one of packed DSP slices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch2fpga.emit.checker import vendor
from torch2fpga.emit.checker.dependences import Schedule
from torch2fpga.emit.checker.directives import Directives
from torch2fpga.emit.checker.expressions import plain
from torch2fpga.emit.checker.machine import Iteration, Machine
from torch2fpga.emit.checker.operations import Node
from torch2fpga.emit.checker.ports import Bound
from torch2fpga.emit.checker.statements import Functions, Hooks, Loop
from torch2fpga.emit.checker.storage import Path as PlacePath
from torch2fpga.emit.checker.storage import Store, leaves
from torch2fpga.emit.checker.syntax import Unit, kind_name

DEFINES = ("__SYNTHESIS__", "T2F_ANALYSIS")
PROCESS = "t2f_process"
CLOCK_MHZ = 250.0
Site = tuple[str, int]  # file and line of a T2F_PIPELINE


@dataclass(frozen=True, order=True)
class PipelinedLoop:
    """What is known of a pipelined loop in one process.

    Attributes:
        path: kernel function and process, "kernel/process".
        process: name of the process.
        function: the function that holds the loop.
        file: base name of its file.
        line: of the T2F_PIPELINE statement.
        label: the loop's C++ label, or "line N".
        ii: declared initiation interval, cycles.
        minimum_ii: no interval below this one can be reached, cycles.
        reason: what bounds the interval; empty where it is 1.
        depth: estimated latency of an iteration, cycles.
    """

    path: str
    process: str
    function: str
    file: str
    line: int
    label: str
    ii: int
    minimum_ii: int
    reason: str
    depth: int


@dataclass(frozen=True, order=True)
class Problem:
    """What the clock of a timed run could not see, or must not meet."""

    file: str
    line: int
    rule: str
    message: str


@dataclass
class _Frame:
    """A loop around others: the pipelined loops in it in order, None for a T2F_LOOP_ENTRY."""

    loop: Loop | None
    sites: list[Site | None] = field(default_factory=list)
    constant: bool = False  # one pipelined loop, and all bounds inside of this loop are constant


def analyse(
    files: Mapping[str, str],
    kernels: Sequence[str],
    include_dirs: Sequence[Path],
    clock_mhz: float = CLOCK_MHZ,
) -> tuple[PipelinedLoop, ...]:
    """The pipelined loops of some kernels' processes.

    Args:
        files: path inside the project -> text (kernels and the headers beside them).
        kernels: the paths of the kernels' sources among them.
        include_dirs: where "t2f/..." is found.
        clock_mhz: of the kernels.

    Returns:
        One entry for each process and loop, in the order of kernels, processes and lines.

    Raises:
        ValueError: the clock is not positive, or a source has errors.
    """
    found: list[PipelinedLoop] = []
    with tempfile.TemporaryDirectory(prefix="t2f_schedule_") as folder:
        root = Path(folder).resolve()
        for label, text in {**files, f".standard/{vendor.NAME}": vendor.HEADER}.items():
            path = root / label
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        folders = dict.fromkeys((root / label).parent for label in kernels)
        dirs = [root / ".standard", root, *folders, *(Path(d).resolve() for d in include_dirs)]
        for label in kernels:
            unit = Unit(root / label, dirs, DEFINES)
            for _, line, text in unit.errors():
                raise ValueError(f"{label}:{line}: {text}")
            found.extend(loop for _, loop in UnitAnalysis(unit, clock_mhz).run())
    return tuple(found)


class UnitAnalysis:
    """All processes of one translation unit, each function instance looked at once."""

    def __init__(self, unit: Unit, clock_mhz: float = CLOCK_MHZ) -> None:
        self.problems: set[Problem] = set()
        self._unit = unit
        self._clock = clock_mhz
        self._functions = Functions(Hooks(self._loop, self._entry), Directives(unit))
        self._done: dict[int, tuple[tuple[str, PipelinedLoop], ...]] = {}
        self._loops: dict[Site, PipelinedLoop] = {}
        self._frames: list[_Frame] = []
        self._process = ""

    def run(self) -> Iterator[tuple[str, PipelinedLoop]]:
        """File and loop for every process; what a clock cannot see is in `problems` afterwards."""
        for kernel in self._kernels():
            for name, called in _processes(kernel):
                if called.hash not in self._done:
                    self._done[called.hash] = self._run(name, called)
                path = f"{kernel.spelling}/{name}"
                for file, loop in self._done[called.hash]:
                    yield file, replace(loop, path=path, process=name)

    def _kernels(self) -> Iterator[Any]:
        for node in self._unit.nodes(self._unit.main):
            inside = [node, *(node.children if node.kind in ("LINKAGE_SPEC", "UNEXPOSED_DECL") else [])]
            for item in inside:
                if item.kind == "FUNCTION_DECL" and item.body is not None:
                    yield item.cursor

    def _run(self, name: str, called: Any) -> tuple[tuple[str, PipelinedLoop], ...]:
        self._loops, self._frames, self._process = {}, [_Frame(None)], name
        machine = Machine(self._outside, self._functions.globals)
        self._functions.enter(machine, called)
        return tuple((key[0], self._loops[key]) for key in sorted(self._loops))

    # What the run meets.

    def _outside(self, access: str, file: str, line: int) -> None:
        message = f"{access} outside of a pipelined loop in process '{self._process}'"
        self.problems.add(Problem(file, line, "schedule-outside", message))

    def _entry(self, machine: Machine) -> None:
        self._frames[-1].sites.append(None)

    def _loop(self, machine: Machine, loop: Loop) -> None:
        outer = self._frames[-1]
        if loop.pipeline is None:
            frame = _Frame(loop)
            self._frames.append(frame)
            loop.body(machine)
            self._frames.pop()
            self._reentered(frame)
            outer.sites.extend(frame.sites)
            outer.constant = frame.constant and loop.perfect and loop.trips is not None
            return
        site = (loop.cursor.location.file.name, loop.pipeline.location.line)
        if outer.sites[-1:] == [site]:
            self._unseen(site, "is entered twice in a row")
        outer.sites.append(site)
        outer.constant = loop.trips is not None
        made = self._pipelined(machine, loop, site)
        known = self._loops.get(site)
        if known is not None:  # the same loop on other arguments
            worse = made if made.minimum_ii > known.minimum_ii else known
            made = replace(worse, depth=max(made.depth, known.depth))
        self._loops[site] = made

    def _reentered(self, frame: _Frame) -> None:
        """An outer loop around one and the same pipelined loop, unless the tools flatten the two."""
        loop, sites = frame.loop, frame.sites
        if loop is None or not sites or (loop.trips is not None and loop.trips < 2):
            return
        site = sites[0]
        if site is None or site != sites[-1] or (frame.constant and loop.perfect):
            return
        label = loop.label or f"line {loop.cursor.location.line}"
        self._unseen(site, f"is entered again by loop {label}, which is not flattened with it")

    def _unseen(self, site: Site, what: str) -> None:
        message = f"this loop of process '{self._process}' {what}: put T2F_LOOP_ENTRY in front of it"
        self.problems.add(Problem(*site, "schedule-entry", message))

    # One iteration.

    def _pipelined(self, machine: Machine, loop: Loop, site: Site) -> PipelinedLoop:
        iteration = Iteration(frozenset(machine.stores))
        machine.iteration = iteration
        changed = machine.layered(None, loop.body)
        finals, carried, invariant = _around(machine, iteration, changed)
        machine.iteration = None
        line = site[1]
        left = [node for item in carried for node in item.left]
        schedule = Schedule([*iteration.sinks, *left, *finals], self._clock, invariant)
        worst = max(
            [*iteration.accesses.bounds(), *_carried(schedule, carried)],
            key=lambda bound: bound.interval,
            default=Bound(1, ""),
        )
        depth = schedule.depth([*iteration.sinks, *finals])
        label = loop.label or f"line {line}"
        return PipelinedLoop(
            path="",
            process="",
            function=loop.function,
            file=Path(site[0]).name,
            line=line,
            label=label,
            ii=loop.interval,
            minimum_ii=worst.interval,
            reason=worst.reason,
            depth=depth,
        )


@dataclass(frozen=True)
class _Carried:
    """A place that one iteration reads and leaves changed for the next."""

    source: Node  # its value before
    name: str
    path: PlacePath
    left: tuple[Node, ...]


def _around(
    machine: Machine, iteration: Iteration, changed: Mapping[int, Store]
) -> tuple[list[Node], list[_Carried], frozenset[int]]:
    """What an iteration leaves, what of it the next one reads, and what stays as it is."""
    written = {key: s for key, s in changed.items() if key in iteration.outer and s.entries}
    saved = {key: machine.stores[key] for key in written}
    machine.stores.update(written)
    finals = [node for store in written.values() for _, v in store.entries.values() for node in leaves(v)]
    carried: list[_Carried] = []
    invariant = set()
    for node, key, path in list(iteration.sources.values()):
        variable = machine.stores[key].variable
        if key not in written or variable is None:
            continue
        kind = variable.type
        for selector in path:
            kind = kind.at(selector)
        left = tuple(leaves(machine.final(key, path, kind)))
        if left != (node,):
            carried.append(_Carried(node, variable.name + _suffix(path), path, left))
        elif node.op == "init":
            invariant.add(node.serial)
    unwritten = frozenset(machine.stores) - frozenset(written)
    states = machine.graph.states(unwritten)
    machine.stores.update(saved)
    return finals, carried, frozenset(invariant) | states


def _suffix(path: PlacePath) -> str:
    parts = [f".{s}" if isinstance(s, str) else f"[{s if isinstance(s, int) else '..'}]" for s in path]
    return "".join(parts)


def _carried(schedule: Schedule, carried: Sequence[_Carried]) -> Iterator[Bound]:
    """Paths from a place to itself, where the same place comes back in the next iteration."""
    fixed = [
        item for item in carried if all(schedule.is_invariant(s) for s in item.path if isinstance(s, Node))
    ]
    sources = frozenset(item.source.serial for item in fixed)
    for item in fixed:
        found = [schedule.paths(node, sources).get(item.source.serial) for node in item.left]
        paths = [path for path in found if path is not None]
        if not paths:
            continue
        cycles, ns = max(paths)
        interval = schedule.interval((cycles, ns))
        if interval > 1:
            load = f"{cycles} cycles and " if cycles else ""
            reason = (
                f"'{item.name}' comes around in {load}{ns:.2f} ns of operators "
                f"({schedule.usable:.2f} ns a cycle)"
            )
            yield Bound(interval, reason)


def _processes(kernel: Any) -> Iterator[tuple[str, Any]]:
    """Name and called function of each T2F_PROCESS of a kernel."""
    pending = [kernel]
    while pending:
        cursor = pending.pop()
        children = list(cursor.get_children())
        calls = [plain(child) for child in children] if kind_name(cursor) == "BINARY_OPERATOR" else []
        if len(calls) == 2 and calls[0].spelling == PROCESS:
            name = next((c.spelling for c in calls[0].walk_preorder() if "STRING" in kind_name(c)), "")
            if calls[1].referenced is not None:
                yield name.strip('"'), calls[1].referenced
            continue
        pending.extend(reversed(children))
