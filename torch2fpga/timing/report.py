# SPDX-License-Identifier: Apache-2.0
"""What a timed run found, as data (cycles unless a name says otherwise)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.design import Design
from torch2fpga.emit.link import channels
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.timed import local_name
from torch2fpga.timing.deadlock import blocked, completed

#: (file, line) -> label of the loop
Labels = Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class LoopTime:
    """One pipelined loop of a stage.

    Attributes:
        label: C++ label (or file and line).
        ii: declared interval between iterations.
        ii_achieved: cycles an iteration really took, stalls included, entry and drain not.
        depth: cycles from an iteration's issue to its end (estimate, see docs/timed-run.md).
        latency: of the memory read in it, on top.
        entries, iterations: how often it was entered, and iterations in all.
    """

    label: str
    file: str
    line: int
    ii: int
    ii_achieved: float
    depth: int
    latency: int
    entries: int
    iterations: int


@dataclass(frozen=True)
class StageTime:
    """One process: a stage (or what prepares its input) or the access to a memory port.

    Attributes:
        name, kernel: stage (or front, or port) and the kernel it is in.
        path: module path in the user's model ("" for ports).
        begin, end: when it starts and ends.
        busy: cycles neither stalled nor idle (loop entry and drain included).
        stalled_input, stalled_output, stalled_memory: waiting for a token, for space, for memory.
        idle: cycles of the run after its end.
        lost: (input, output, memory) cycles lost in each bucket of the timeline.
    """

    name: str
    kernel: str
    path: str
    begin: int
    end: int
    busy: int
    stalled_input: int
    stalled_output: int
    stalled_memory: int
    idle: int
    loops: tuple[LoopTime, ...]
    lost: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class StreamTime:
    """One FIFO.

    Attributes:
        depth, high_water: tokens it holds, and most that it held at once.
        tokens: passed in all.
        writer, reader: stage names.
        stalled_reads, stalled_writes: cycles its reader waited for a token, its writer for space.
        writer_kernel, reader_kernel: kernels that these are in.
    """

    name: str
    depth: int
    high_water: int
    tokens: int
    token_bytes: int
    writer: str
    reader: str
    stalled_reads: int
    stalled_writes: int
    writer_kernel: str
    reader_kernel: str


@dataclass(frozen=True)
class PortTime:
    """One memory port.

    Attributes:
        name, kernel, channel: argument, kernel, HBM pseudo-channel.
        bytes, transactions: moved.
        busy: cycles in which its channel moved data.
        gbs: bytes over the time from the first to the last beat, GB/s.
        peak_gbs: of its pseudo-channel.
    """

    name: str
    kernel: str
    channel: int
    bytes: int
    transactions: int
    busy: int
    gbs: float
    peak_gbs: float


@dataclass(frozen=True)
class Wait:
    """One process that cannot go on.

    Attributes:
        side: ``read`` (the stream is empty) or ``write`` (it is full).
        held, depth: tokens in the stream, and how many it can hold.
        peer: who would have to act.
        cycle: since when.
    """

    stage: str
    stream: str
    side: str
    held: int
    depth: int
    peer: str | None
    cycle: int

    def __str__(self) -> str:
        state = "empty" if self.side == "read" else "full"
        return (
            f"{self.stage} waits to {self.side} {self.stream} ({state}, {self.held} of {self.depth} tokens) "
            f"since cycle {self.cycle:,}; other side: {self.peer or 'not known yet'}"
        )


@dataclass(frozen=True)
class Deadlock:
    """Nothing can run and not all are done.

    Attributes:
        waits: every blocked process.
        cycle: waits that close into a cycle, in order (empty if none is known).
        text: the simulation's own report.
    """

    waits: tuple[Wait, ...]
    cycle: tuple[Wait, ...]
    text: str

    def __str__(self) -> str:
        lines = ["deadlock; every blocked process:", *(f"  {w}" for w in self.waits)]
        if self.cycle:
            lines += ["wait cycle:", *(f"  {w}" for w in self.cycle)]
        return "\n".join(lines)


@dataclass(frozen=True)
class TimeReport:
    """Result of ``CompiledModel.time``.

    Attributes:
        cycles: of one launch, first to last.
        half_depth, double_depth: the same with all pipeline depths halved and doubled (None if
            not asked for); depths are estimates, these say how much hangs on them.
        interval: cycles from one result to the next when launches follow each other (None if not asked for).
        clock_mhz: planned kernel clock.
        batch, seq: size of the run.
        past, turns: rows in the cache before it, and tokens that it generates (0 where it generates none).
        bucket: cycles of one entry of the stages' timelines.
        deadlock: the waits, or None.
        output: the model's output, as a call gives it (None after a deadlock).
    """

    cycles: int
    clock_mhz: float
    batch: int
    seq: int
    bucket: int
    stages: tuple[StageTime, ...]
    streams: tuple[StreamTime, ...]
    ports: tuple[PortTime, ...]
    half_depth: int | None = None
    double_depth: int | None = None
    interval: int | None = None
    past: int = 0
    turns: int = 0
    deadlock: Deadlock | None = None
    output: Any = field(default=None, compare=False, repr=False)

    @property
    def seconds(self) -> float:
        """Time of one launch at the planned clock."""
        return self.cycles / (self.clock_mhz * 1e6)

    @property
    def tokens_per_second(self) -> float:
        """Tokens that the launch generates over its time (0 where it generates none)."""
        return self.turns / self.seconds if self.cycles else 0.0

    def stage(self, name: str) -> StageTime:
        """The stage of that name."""
        return next(s for s in self.stages if s.name == name)

    def stream(self, name: str) -> StreamTime:
        """The stream of that name."""
        return next(s for s in self.streams if s.name == name)

    def __str__(self) -> str:
        from torch2fpga.timing.show import text

        return text(self)

    def __repr__(self) -> str:
        state = ", deadlock" if self.deadlock else ""
        made = f" behind {self.past}, {self.turns} generated" if self.turns else ""
        return (
            f"<TimeReport {self.cycles:,} cycles, {self.seconds * 1e3:.4g} ms at {self.clock_mhz:g} MHz "
            f"(timed), {self.batch} x {self.seq} rows{made}{state}>"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the model's output."""
        from dataclasses import fields, is_dataclass

        def plain(value: Any) -> Any:
            if is_dataclass(value):
                return {f.name: plain(getattr(value, f.name)) for f in fields(value) if f.name != "output"}
            return [plain(v) for v in value] if isinstance(value, tuple | list) else value

        return {"basis": "timed", "seconds": self.seconds, **plain(self)}


def build_report(
    raw: Mapping[str, Any],
    design: Design,
    board: Board,
    clock_mhz: float,
    launch: Launch,
    labels: Labels,
    message: str,
) -> TimeReport:
    """A report from the simulation's JSON of a run."""
    cycles = int(raw["cycles"])
    paths = {s.name: s.path for s in design.stages}
    widths = {n: s.token_bytes(design.shape.lanes) for n, s in design.streams.items()}
    for stage in design.stages:
        front = stage.front(design)
        if front is not None:
            paths[front.name] = stage.path
            widths |= {fifo.name: fifo.token_bytes for fifo in front.fifos}
    places = channels(design, board)
    leaves = [p for p in raw["processes"] if p["leaf"]]
    deadlock = completed(raw["deadlock"], design) if raw["deadlock"] else None
    if deadlock is not None:
        waits = {w["process"]: w for w in deadlock["waits"]}
        leaves = [blocked(p, waits[p["path"]], raw) if p["path"] in waits else p for p in leaves]
    return TimeReport(
        cycles,
        clock_mhz,
        launch.batch,
        launch.seq,
        int(raw["bucket"]),
        tuple(_stage(p, cycles, paths, labels) for p in leaves),
        tuple(_stream(s, widths) for s in raw["streams"] if local_name(s["key"]) in widths),
        tuple(_port(p, places, board, clock_mhz) for p in raw["ports"]),
        past=launch.past,
        turns=launch.turns if design.turns else 0,
        deadlock=_deadlock(deadlock, message) if deadlock is not None else None,
    )


def _stage(p: Mapping[str, Any], cycles: int, paths: Mapping[str, str], labels: Labels) -> StageTime:
    kernel, _, name = p["path"].partition("/")
    begin = p["begins"][0] if p["begins"] else 0
    ended = len(p["ends"]) == len(p["begins"]) and p["ends"]
    end = p["ends"][-1] if ended else cycles
    stalled = p["input"] + p["output"] + p["memory"]
    return StageTime(
        name,
        kernel,
        paths.get(name, ""),
        begin,
        end,
        end - begin - stalled,
        p["input"],
        p["output"],
        p["memory"],
        cycles - end,
        tuple(_loop(loop, p["path"], labels) for loop in p["loops"]),
        tuple((a, b, c) for a, b, c in p["lost"]),
    )


def _loop(loop: Mapping[str, Any], path: str, labels: Labels) -> LoopTime:
    site = f"{loop['file']}:{loop['line']}"
    stalls = loop["input"] + loop["output"] + loop["memory"]
    achieved = loop["ii"] + stalls / max(1, loop["iterations"])
    return LoopTime(
        labels.get((path, site), site),
        loop["file"],
        loop["line"],
        loop["ii"],
        achieved,
        loop["depth"],
        loop["latency"],
        loop["entries"],
        loop["iterations"],
    )


def _stream(s: Mapping[str, Any], widths: Mapping[str, int]) -> StreamTime:
    name = local_name(s["key"])
    return StreamTime(
        name,
        s["depth"],
        s["high_water"],
        s["written"],
        widths[name],
        local_name(s["writer"]),
        local_name(s["reader"]),
        s["stalled_reads"],
        s["stalled_writes"],
        s["writer"].partition("/")[0],
        s["reader"].partition("/")[0],
    )


def _port(
    p: Mapping[str, Any], places: Mapping[tuple[str, str], int], board: Board, clock_mhz: float
) -> PortTime:
    kernel, _, name = p["name"].partition("/")
    span = p["last"] - p["first"]
    gbs = p["bytes"] / (span / clock_mhz * 1000) if span > 0 else 0.0
    return PortTime(
        name,
        kernel,
        places[kernel, name],
        p["bytes"],
        p["transactions"],
        p["busy"],
        gbs,
        board.hbm.peak_gbs,
    )


def _deadlock(raw: Mapping[str, Any], message: str) -> Deadlock:
    waits = {
        w["process"]: Wait(
            local_name(w["process"]),
            local_name(w["stream"]),
            w["side"],
            w["held"],
            w["depth"],
            None if w["peer"] is None else local_name(w["peer"]),
            w["cycle"],
        )
        for w in raw["waits"]
    }
    ring = raw["cycles"][0] if raw["cycles"] else []
    return Deadlock(tuple(waits.values()), tuple(waits[p] for p in ring), message)
