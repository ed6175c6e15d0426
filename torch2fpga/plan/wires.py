# SPDX-License-Identifier: Apache-2.0
"""Wires over the boundaries between SLRs: what the streams between kernels take of them.

A stream between kernels is an AXI stream. v++ joins AXI streams with all their signals: TDATA in whole
bytes, a TKEEP bit a byte, TLAST, TVALID and TREADY; 512 bits of data are 579 wires. A stream from SLR0
to SLR2 takes them on both boundaries. Control (AXI-Lite, clock, reset) is the platform's and not
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch2fpga.boards import Board
from torch2fpga.design import Design, Stream

#: TVALID, TREADY and TLAST
HANDSHAKE = 3


@dataclass(frozen=True)
class Crossing:
    """A stream on a boundary.

    Attributes:
        boundary: 0 between SLR0 and SLR1.
        stream: its name.
        wires: that it takes there.
    """

    boundary: int
    stream: str
    wires: int


@dataclass(frozen=True)
class BoundaryUse:
    """What crosses a boundary, and what may.

    Attributes:
        boundary: 0 between SLR0 and SLR1.
        streams, wires: how many cross.
        available: user wires of the platform.
        budget: what designs are planned with; ``prudent`` is a second, smaller one.
    """

    boundary: int
    streams: int
    wires: int
    available: int
    budget: int
    prudent: int

    def __str__(self) -> str:
        state = "within" if self.wires <= self.budget else "OVER"
        careful = "within" if self.wires <= self.prudent else "over"
        return (
            f"SLR{self.boundary}-SLR{self.boundary + 1}: {self.streams} streams, {self.wires:,} of "
            f"{self.available:,} wires; {state} the budget of {self.budget:,}, {careful} the prudent "
            f"{self.prudent:,}"
        )


def wires_of(stream: Stream, lanes: int) -> int:
    """Wires of an AXI stream of these tokens."""
    size = stream.token_bytes(lanes)
    return 9 * size + HANDSHAKE


def link_ends(design: Design) -> dict[str, tuple[int, int]]:
    """link -> (SLR of the kernel that writes it, SLR of the kernel that reads it)."""
    at = {name: kernel.slr for kernel in design.kernels for name in kernel.axis_out}
    to = {name: kernel.slr for kernel in design.kernels for name in kernel.axis_in}
    return {name: (at[name], to[name]) for name, stream in design.streams.items() if stream.link}


def crossings(design: Design) -> list[Crossing]:
    """Every stream on every boundary that it crosses, lowest boundary first, then by name."""
    lanes = design.shape.lanes
    found = [
        Crossing(boundary, name, wires_of(design.streams[name], lanes))
        for name, ends in link_ends(design).items()
        for boundary in range(min(ends), max(ends))
    ]
    return sorted(found, key=lambda c: (c.boundary, c.stream))


def boundary_use(found: Sequence[Crossing], board: Board) -> list[BoundaryUse]:
    """Sums of each boundary of a board."""
    return [
        BoundaryUse(
            number,
            sum(c.boundary == number for c in found),
            sum(c.wires for c in found if c.boundary == number),
            available,
            board.wire_budget,
            board.prudent_wires,
        )
        for number, available in enumerate(board.wires)
    ]


def wire_problems(design: Design, board: Board) -> list[str]:
    """Boundaries that more wires cross than the platform has (empty if none)."""
    return [
        f"{use.wires:,} wires cross from SLR{use.boundary} to SLR{use.boundary + 1}, "
        f"the {board.name} has {use.available:,}"
        for use in boundary_use(crossings(design), board)
        if use.wires > use.available
    ]
