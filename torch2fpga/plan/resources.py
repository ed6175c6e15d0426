# SPDX-License-Identifier: Apache-2.0
"""What a whole design costs in every SLR: its stages, the FIFOs between them, links, memory ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch2fpga import costs
from torch2fpga.boards import Board, Slr
from torch2fpga.design import Design, Estimate
from torch2fpga.emit.ports import masters
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.plan.wires import crossings

#: fields of ``Slr`` and ``Estimate`` that a region has a limited number of
RESOURCES = ("lut", "ff", "bram18", "dsp", "uram")
#: those whose mean share is limited too
MEAN_OF = ("bram18", "uram", "dsp")


@dataclass(frozen=True)
class Use:
    """One resource of one region, or of the card.

    Attributes:
        where: ``SLR0`` and so on, or ``card``.
        resource: field of ``Slr``, or ``mean`` (of BRAM, URAM and DSP; then ``used`` and ``have`` are 0).
        used, have: amounts, in the user region.
        share: used of have.
        cap: largest share that the board allows.
    """

    where: str
    resource: str
    used: int
    have: int
    share: float
    cap: float

    @property
    def fits(self) -> bool:
        """Is the share within the cap?"""
        return self.share <= self.cap

    def __str__(self) -> str:
        amount = f"{self.used:,} of {self.have:,}, " if self.have else ""
        state = "within" if self.fits else "OVER"
        return f"{self.where} {self.resource}: {amount}{self.share:.1%}, {state} the cap of {self.cap:.0%}"


def design_cost(design: Design, board: Board) -> dict[int, Estimate]:
    """Modelled cost by SLR (every SLR of the board, empty ones too).

    Stages count where their kernel is, a FIFO where it is read, a memory port (with its share of the
    memory subsystem) where the memory attaches, the register stages of a link half on each side of a
    boundary. Without kernels everything is where the memory attaches.

    Raises:
        ValueError: a kernel is in an SLR that the board does not have.
    """
    at = {name: kernel.slr for kernel in design.kernels for name in kernel.stages}
    outside = sorted({slr for slr in at.values() if not 0 <= slr < len(board.slrs)})
    if outside:
        raise ValueError(f"the {board.name} has SLR0 to SLR{len(board.slrs) - 1}, not {outside}")
    found = {slr: Estimate() for slr in range(len(board.slrs))}
    for name, cost in owned_costs(design).items():
        slr = at.get(name, board.memory_slr)
        found[slr] = found[slr] + cost
    home = board.memory_slr
    found[home] = found[home] + ports_cost(board, masters(design)) + sums_cost(design)
    for crossing in crossings(design):
        registers = costs.register(crossing.wires, board.crossing_cycles)
        half = Estimate(ff=registers.ff // 2)
        found[crossing.boundary] = found[crossing.boundary] + half
        found[crossing.boundary + 1] = found[crossing.boundary + 1] + half
    return found


def owned_costs(design: Design) -> dict[str, Estimate]:
    """Cost of every stage with the FIFOs that it reads; "" for FIFOs that no stage reads."""
    found = {s.name: s.cost(design) for s in design.stages}
    owner = {n: s.name for s in design.stages for n in (*s.inputs, *((s.params,) if s.params else ()))}
    for name, stream in design.streams.items():
        cost = fifo_cost(stream.depth, stream.token_bytes(design.shape.lanes))
        found[owner.get(name, "")] = found.get(owner.get(name, ""), Estimate()) + cost
    return found


def ports_cost(board: Board, count: int) -> Estimate:
    """Cost of so many memory ports."""
    port = board.port
    return costs.times(count, Estimate(lut=port.lut, ff=port.ff, bram18=port.bram18))


def sums_cost(design: Design) -> Estimate:
    """Checksums: for every reader the exclusive or of the sixteen numbers in a word (three LUTs a bit) and
    a sum of 64 bits, folded twice at the end, and where results are written the choice between their sums."""
    count = max((len(p.sums) for p in design.ports if p.direction == "write"), default=0)
    if count == 0:
        return Estimate()
    fold = costs.total(Estimate(lut=3 * 32), costs.register(32), costs.add(64), costs.add(33), costs.add(32))
    return costs.total(costs.times(count, fold), costs.select(32, count))


def shares(found: Mapping[int, Estimate], board: Board) -> list[Use]:
    """Every resource of every SLR and of the card against the board's caps, SLRs first."""
    uses: list[Use] = []
    for slr, cost in sorted(found.items()):
        uses += [_use(f"SLR{slr}", r, cost, board.slrs[slr], board) for r in RESOURCES]
    card = costs.total(*found.values())
    whole = [_use("card", r, card, board.total, board) for r in RESOURCES]
    mean = sum(u.share for u in whole if u.resource in MEAN_OF) / len(MEAN_OF)
    return [*uses, *whole, Use("card", "mean", 0, 0, mean, board.caps.mean)]


def _use(where: str, resource: str, cost: Estimate, region: Slr, board: Board) -> Use:
    used, have = getattr(cost, resource), getattr(region, resource)
    share = used / have if have else (float("inf") if used else 0.0)
    return Use(where, resource, used, have, share, board.caps.share_of(resource))


def problems(found: Mapping[int, Estimate], board: Board) -> list[str]:
    """Caps that are exceeded, the worst first; empty if the design fits."""
    over = [u for u in shares(found, board) if not u.fits]
    return [str(u) for u in sorted(over, key=lambda u: u.cap - u.share)]
