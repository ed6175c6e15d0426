# SPDX-License-Identifier: Apache-2.0
"""The timed run: the functional run's sources with a clock in every process (``T2F_TIMED``).

What the run is told (pipeline depths, memory ports, FIFO depths to try) is data of a run, not of
the build: another depth needs no compiler.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch2fpga.boards import Board
from torch2fpga.design import Design
from torch2fpga.emit.kernel import READ_OPTIONS
from torch2fpga.emit.ports import all_ports, port_bytes
from torch2fpga.errors import InputError
from torch2fpga.plan.wires import link_ends
from torch2fpga.simulate.functional import Bytes, FunctionalRun
from torch2fpga.simulate.launch import Launch

#: fraction bits of the memory model's times (``port_fraction`` in t2f_memory_port.hpp)
FRACTION = 1024
#: depth of a loop that nothing is known about
DEFAULT_DEPTH = 8
#: cycles after which a run is given up: 2^36 cycles are 275 s at 250 MHz
CYCLE_LIMIT = 1 << 36


@dataclass(frozen=True)
class PortSetting:
    """A memory port as the clock sees it; times in 1/1024 cycle except ``latency`` (cycles).

    Attributes:
        name: ``kernel/argument``.
        buffer: number of its buffer, in manifest order.
        write: direction.
        size: bytes of the buffer.
        beat, beat_bytes: time and width of a beat.
        row, cross, channel_bytes, latency: see ``torch2fpga.boards.Hbm``.
        outstanding, burst: transactions under way, beats of one.
    """

    name: str
    buffer: int
    write: bool
    size: int
    beat: int
    beat_bytes: int
    row: int
    cross: int
    channel_bytes: int
    latency: int
    outstanding: int
    burst: int

    def line(self) -> str:
        """The setting as the simulation reads it."""
        numbers = (self.size, self.beat, self.beat_bytes, self.row, self.cross, self.channel_bytes,
                   self.latency, self.outstanding, self.burst)  # fmt: skip
        head = f"port {self.name} {self.buffer} {'out' if self.write else 'in'}"
        return " ".join([head, *(str(n) for n in numbers)])


@dataclass(frozen=True)
class Settings:
    """What one timed run is told.

    Attributes:
        depths: ("kernel/process", "file:line") -> pipeline depth of that loop, in cycles.
        depth_percent: all depths are scaled by this.
        fifos: stream name -> depth instead of the declared one.
        latencies: stream name -> cycles on the way (register stages of a link).
        ports: memory ports.
        launches: how often the design is started, back to back.
        cycle_limit: the run fails when a process passes it.
    """

    depths: Mapping[tuple[str, str], int] = field(default_factory=dict)
    default_depth: int = DEFAULT_DEPTH
    depth_percent: int = 100
    fifos: Mapping[str, int] = field(default_factory=dict)
    latencies: Mapping[str, int] = field(default_factory=dict)
    ports: tuple[PortSetting, ...] = ()
    launches: int = 1
    cycle_limit: int = CYCLE_LIMIT

    def text(self, design: Design) -> str:
        """One setting a line (``t2f_settings.hpp``).

        Raises:
            InputError: if ``fifos`` names no stream of the design.
        """
        check_fifos(self.fifos, tuple(design.streams))
        lines = [f"depth {path} {site} {n}" for (path, site), n in sorted(self.depths.items())]
        lines += [f"fifo {key} {n}" for s, n in sorted(self.fifos.items()) for key in stream_keys(design, s)]
        lines += [
            f"latency {key} {n}" for s, n in sorted(self.latencies.items()) for key in stream_keys(design, s)
        ]
        return self.text_of_run([*lines, *(p.line() for p in self.ports)])

    def text_of_run(self, lines: Sequence[str]) -> str:
        """The settings that need no design, and lines about one."""
        head = [
            f"default_depth {self.default_depth}",
            f"depth_percent {self.depth_percent}",
            f"cycle_limit {self.cycle_limit}",
            f"launches {self.launches}",
        ]
        return "\n".join([*head, *lines]) + "\n"


def check_fifos(names: Iterable[str], streams: Sequence[str]) -> None:
    """Refuse names that are no stream of the design.

    Raises:
        InputError: with the names that are near.
    """
    problems = []
    for name in names:
        if name not in streams:
            near = difflib.get_close_matches(name, streams, n=5, cutoff=0.5)
            near += [s for s in streams if name and name in s and s not in near][: 5 - len(near)]
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(streams[:12])} ..."
            problems.append(f"there is no stream {name}; {hint}")
    if problems:
        raise InputError("; ".join(problems))


def stream_keys(design: Design, name: str) -> list[str]:
    """Names under which the simulation may know a stream: its kernel's, or the link's."""
    if design.streams[name].link:
        return [f"link/{name}"]
    return [f"{kernel.name}/{name}" for kernel in design.kernels]


def local_name(path: str) -> str:
    """A stream, stage or port without the kernel (or ``link``) in front."""
    return path.rsplit("/", 1)[-1]


def port_settings(design: Design, board: Board, clock_mhz: float) -> tuple[PortSetting, ...]:
    """Every memory port of a design, each on its own pseudo-channel (``emit/link.py``)."""
    hbm = board.hbm
    cycles = clock_mhz / 1000  # a nanosecond
    options = dict(part.split("=") for part in READ_OPTIONS.split())
    found = []
    for i, (kernel, port) in enumerate(all_ports(design)):
        width = port.width
        found.append(
            PortSetting(
                f"{kernel.name}/{port.name}",
                i,
                port.write,
                port_bytes(port),
                round(hbm.beat_cycles(width, clock_mhz) * FRACTION),
                width,
                round(hbm.row_ns * cycles * FRACTION),
                round(hbm.cross_ns * cycles * FRACTION),
                hbm.channel_bytes,
                hbm.latency_cycles,
                int(options["num_read_outstanding"]),
                int(options["max_read_burst_length"]),
            )
        )
    return tuple(found)


def link_latencies(design: Design, board: Board) -> dict[str, int]:
    """Register stages on every stream between kernels: so many for each boundary it crosses."""
    return {name: abs(a - b) * board.crossing_cycles for name, (a, b) in link_ends(design).items()}


@dataclass(frozen=True)
class TimedResult:
    """A timed run: output buffers, taps, what went wrong (or ""), and the clock's report."""

    buffers: dict[str, Bytes]
    taps: dict[str, Bytes]
    message: str
    report: dict[str, Any]


class TimedRun(FunctionalRun):
    """A design compiled with the clock, ready to run on buffers under any settings."""

    #: The clock is on the path of every token, so more of it is put in line than -O2 does by
    #: itself. (-O3 does too, but halves the speed of the multiplier arrays.)
    flags: ClassVar[tuple[str, ...]] = (
        "-DT2F_TIMED", "-finline-functions", "--param", "inline-unit-growth=80"
    )  # fmt: skip

    def time(
        self,
        buffers: Mapping[str, Bytes],
        launch: Launch,
        settings: Settings,
        taps: Sequence[str] = (),
    ) -> TimedResult:
        """Run once. A deadlock or an exceeded limit is in the result's message, not raised."""
        done = self._run(buffers, launch, taps, settings.text(self.design))
        report = json.loads(done.report) if done.report else {}
        return TimedResult(done.buffers, done.taps, done.message, report)
