# SPDX-License-Identifier: Apache-2.0
"""Which SLR every stage goes to: the fewest wires across boundaries, under the caps of every SLR.

For each stage and each boundary b between SLRs a binary says that the stage lies above b. A stream
crosses b if it is above at one end and not at the other. Memory ports lie where the memory attaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Stream
from torch2fpga.lower.gather import GatherStage
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage
from torch2fpga.plan.resources import RESOURCES, owned_costs, ports_cost
from torch2fpga.plan.solver import Programme
from torch2fpga.plan.wires import wires_of

#: a kernel's parameters come over one link
PARAMETERS = Stream("parameters", "words")
#: distance to the proven best at which the search ends: wires are a means, not the end
GAP = 0.1
NODES = 3_000


def edges(design: Design) -> list[tuple[str, str, int]]:
    """(writer, reader, wires) of every stream between stages, "" for a memory port."""
    writers, readers = design.writers(), design.readers()
    stages = {s.name for s in design.stages}
    dealt = {s.params for s in design.stages if s.params}  # all parameters of a kernel share one link
    found = []
    for name, stream in design.streams.items():
        a, b = writers.get(name, ""), readers.get(name, "")
        a, b = a if a in stages else "", b if b in stages else ""
        if a != b and name not in dealt:
            found.append((a, b, wires_of(stream, design.shape.lanes)))
    return found


def place(
    design: Design, board: Board, budget: float, fixed: Mapping[str, int], ports: int
) -> dict[str, int] | None:
    """The SLR of every stage, with the fewest wires; None if the stages do not fit.

    Args:
        design: split, with FIFOs sized, without kernels.
        fixed: stages whose SLR is given.
        ports: memory ports, all of them where the memory attaches.
    """
    slrs = len(board.slrs)
    p = Programme()
    for stage in design.stages:
        for b in range(1, slrs):
            p.binary((stage.name, b))
        for b in range(2, slrs):  # what is above a boundary is above the ones below it
            p.row({(stage.name, b - 1): 1.0, (stage.name, b): -1.0}, lower=0.0)
    _fix(p, design, board, fixed)
    _fit(p, design, board, budget, ports)
    _cross(p, design, board)
    solution = p.solve(GAP, NODES)
    if solution is None:
        return None
    return {s.name: sum(solution.chosen((s.name, b)) for b in range(1, slrs)) for s in design.stages}


def _fix(p: Programme, design: Design, board: Board, fixed: Mapping[str, int]) -> None:
    """Given places; both ends of the layer loop lie in different kernels; copies in order."""
    slrs = len(board.slrs)
    for name, slr in fixed.items():
        for b in range(1, slrs):
            p.fix((name, b), float(slr >= b))
    enters = [s.name for s in design.stages if isinstance(s, LoopEnterStage)]
    exits = [s.name for s in design.stages if isinstance(s, LoopExitStage)]
    for name in enters:
        for b in range(1, slrs):
            if name not in fixed:
                p.fix((name, b), float(board.memory_slr >= b))
    other = 1 if board.memory_slr == 0 else 0
    for name in exits:
        if name not in fixed:
            p.fix((name, 1), float(other))
    for copies in _copies(design):
        free = [c for c in copies if c not in fixed]
        for a, c in pairwise(free):
            for b in range(1, slrs):  # equal arrays may change places: take one order
                p.row({(c, b): 1.0, (a, b): -1.0}, lower=0.0)


def _copies(design: Design) -> list[list[str]]:
    """Names of the arrays of every split layer (equal but for which channels they make)."""
    writers = {o: s.name for s in design.stages for o in s.outputs}
    return [[writers[i] for i in s.inputs] for s in design.stages if isinstance(s, GatherStage)]


def _fit(p: Programme, design: Design, board: Board, budget: float, ports: int) -> None:
    """Resources of every SLR, and of the card for the mean of shares."""
    costs = owned_costs(design)
    elsewhere = costs.pop("", Estimate())  # read by ports, beside the memory
    memory = ports_cost(board, ports)
    for number, region in enumerate(board.slrs):
        for resource in RESOURCES:
            limit = board.caps.share_of(resource) * budget * getattr(region, resource)
            if number == board.memory_slr:
                limit -= getattr(memory + elsewhere, resource)
            terms: dict[object, float] = {}
            for name, cost in costs.items():
                amount = float(getattr(cost, resource))
                if number > 0:
                    terms[name, number] = terms.get((name, number), 0.0) + amount
                else:
                    limit -= amount
                if number + 1 < len(board.slrs):
                    terms[name, number + 1] = terms.get((name, number + 1), 0.0) - amount
            p.row(terms, upper=limit)


def _cross(p: Programme, design: Design, board: Board) -> None:
    """A variable for every stream and boundary that is one where it crosses; wires minimised and limited."""
    found = edges(design)
    for b in range(1, len(board.slrs)):
        memory = float(board.memory_slr >= b)
        for number, (source, sink, wires) in enumerate(found):
            key = p.variable(("cross", number, b), 0.0, 1.0)
            p.cost(key, wires)
            for sign in (1.0, -1.0):
                terms: dict[object, float] = {key: 1.0}
                known = 0.0
                for end, side in ((source, sign), (sink, -sign)):
                    if end:
                        terms[end, b] = terms.get((end, b), 0.0) - side
                    else:
                        known += side * memory
                p.row(terms, lower=known)
        parameters = (len(board.slrs) - b) * wires_of(PARAMETERS, design.shape.lanes)
        every = {("cross", number, b): float(wires) for number, (_, _, wires) in enumerate(found)}
        p.row(every, upper=board.wire_budget - parameters)
