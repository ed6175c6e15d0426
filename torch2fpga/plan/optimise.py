# SPDX-License-Identifier: Apache-2.0
"""From a lowered design to a plan: arrays for every tile size, then places, then what binds.

1. For each tile size the allocation programme chooses arrays (``plan/allocate.py``); the best tile wins.
2. The design is split and its stages placed (``plan/place.py``). Caps of the whole card do not say that the
   pieces fit into its regions: where they do not, arrays are chosen again for a smaller share.
3. The allocation is solved again with more of each resource: what that would buy is part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from torch2fpga.boards import BOARDS, Board, board_named
from torch2fpga.design import Design, Estimate
from torch2fpga.emit.ports import all_ports
from torch2fpga.errors import CompileError
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.linear4 import LANES, Int4MatmulStage
from torch2fpga.lower.ways import WaysStage
from torch2fpga.plan.allocate import Allocation, Limits, allocate
from torch2fpga.plan.apply import apply_arrays, apply_plan
from torch2fpga.plan.choices import ArrayStage, Choice, choices
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.latency import estimate_latency
from torch2fpga.plan.place import place
from torch2fpga.plan.plan import Array, Plan
from torch2fpga.plan.resources import MEAN_OF, RESOURCES, design_cost, ports_cost, problems
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.plan.summary import Gain

#: tile sizes that are tried where the plan does not say one
TRIED_TILES = (2, 4, 8)
#: shares of the caps that are tried until the pieces fit into the regions
FILLS = (0.98, 0.95, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4)
#: share of a limit from which on more of it can help
NEAR = 0.9
#: how much more of a resource the explanation asks for
MORE = 1.1

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Optimised:
    """A complete plan, and why it is this one.

    Attributes:
        plan: with every array, region; channels only where the user gave some.
        gains: what a tenth more of each limit would save, most first.
    """

    plan: Plan
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class _Problem:
    """One tile size: the design, the choices and what they share."""

    design: Design
    options: Mapping[str, Sequence[Choice]]
    fixed: Estimate
    ports: int

    def solve(self, limits: Limits, objective: str) -> Allocation | None:
        return allocate(self.design, self.options, self.fixed, self.ports, limits, objective)


def optimise(design: Design, wanted: Plan, progress: Progress | None = None) -> Optimised:
    """The best plan that keeps to what ``wanted`` says.

    Args:
        design: lowered; neither split, nor cut into kernels, nor its FIFOs sized.
        wanted: board, clock, objective and budget, and whatever else is given.
    Raises:
        CompileError: for names that the design has not, arrays that a stage cannot be, and a design
            that does not fit: what is missing, by how much, and what would fit.
    """
    say = progress or (lambda phase, part: None)
    board = board_named(wanted.board)
    _known_names(design, wanted)
    tiles = (wanted.tile,) if wanted.tile else _useful_tiles(design)
    tried = [_problem(design, wanted, board, tile) for tile in tiles]
    limits = Limits.of(board, wanted.budget, wanted.multipliers, FILLS[0])
    bounds = [(p, a) for p in tried if (a := p.solve(limits, wanted.objective)) is not None]
    bounds.sort(key=lambda pair: pair[1].cycles)
    best: _Candidate | None = None
    for number, (problem, bound) in enumerate(bounds):
        say("plan", number / len(bounds))
        found = _fitted(design, wanted, board, problem, bound, best)
        best = found if found is not None else best
    if best is None:
        raise CompileError(_too_large(tried, board, wanted))
    return Optimised(best.plan, _gains(best.problem, best.limits, best.allocation, wanted.objective))


@dataclass(frozen=True)
class _Candidate:
    """A plan that fits, for one tile size; ``cycles`` by which candidates are compared."""

    plan: Plan
    problem: _Problem
    allocation: Allocation
    limits: Limits
    cycles: float


def _fitted(
    design: Design,
    wanted: Plan,
    board: Board,
    problem: _Problem,
    bound: Allocation,
    best: _Candidate | None,
) -> _Candidate | None:
    """The widest arrays of a tile size whose pieces fit into the regions, if better than the best yet."""
    for fill in FILLS:
        limits = Limits.of(board, wanted.budget, wanted.multipliers, fill)
        allocation = bound if fill == FILLS[0] else problem.solve(limits, wanted.objective)
        if allocation is None or (best is not None and allocation.cycles >= best.allocation.cycles):
            return None
        plan = _plan(wanted, problem, allocation)
        placed = _placed(design, plan, board, problem.ports)
        if placed is None:
            continue
        _unknown("slr", wanted.slr, set(placed))
        plan = replace(plan, slr=placed)
        planned, _ = apply_plan(design, {}, plan, board)
        _unknown("channels", wanted.channels, {port.name for _, port in all_ports(planned)})
        if not _within(planned, plan, board):
            continue
        cycles = _judged(planned, plan, board)
        if best is not None and cycles >= best.cycles:
            return None
        return _Candidate(plan, problem, allocation, limits, cycles)
    return None


def _judged(planned: Design, plan: Plan, board: Board) -> float:
    """What plans of different tiles are compared by: the estimated latency, or the busiest stage."""
    s = planned.shape
    estimate = estimate_latency(planned, board, s.max_batch, s.max_seq, plan.clock_mhz)
    return float(estimate.cycles if plan.objective == "latency" else estimate.pace_cycles)


def _useful_tiles(design: Design) -> tuple[int, ...]:
    """Tiles no longer than a sequence."""
    found = tuple(t for t in TRIED_TILES if t <= design.shape.max_seq)
    return found or (1,)


def _problem(design: Design, wanted: Plan, board: Board, tile: int) -> _Problem:
    design = size_fifos(replace(design, shape=replace(design.shape, tile=tile)))
    options = {s.name: _options(design, s.name, wanted, board) for s in design.stages}
    fixed = Estimate()
    for stream in design.streams.values():
        fixed = fixed + fifo_cost(stream.depth, stream.token_bytes(design.shape.lanes))
    ports = fixed_ports(design)
    return _Problem(design, options, fixed + ports_cost(board, ports), ports)


def fixed_ports(design: Design) -> int:
    """Memory ports besides those of weights: inputs, tables, outputs, and one for all parameters."""
    return sum(p.role != "weights" for p in design.ports) + any(s.params for s in design.stages)


def _options(design: Design, name: str, wanted: Plan, board: Board) -> list[Choice]:
    given = wanted.arrays.get(name, Array())
    keep, said = given.weights or wanted.weights, name in wanted.arrays
    found = choices(design, design.stage(name), board, wanted.clock_mhz, keep, every=said)
    if name in wanted.ways:
        return [c for c in found if c.ways == min(wanted.ways[name], design.shape.lanes)]
    same = [c for c in found if c.array is None or _agrees(c.array, given)]
    if not same:
        pairs = [(c.array.copies, c.array.columns) for c in found if c.array is not None]
        allowed = ", ".join(f"{copies} x {columns}" for copies, columns in sorted(set(pairs)))
        raise CompileError(
            f"the plan wants {given.copies or 'any'} copies of {given.columns or 'any'} columns with "
            f"{given.ports or 'any'} ports for {name}; copies x columns may be {allowed}, ports at most the "
            "copies"
        )
    return same


def _agrees(array: Array, given: Array) -> bool:
    """Is an array what is asked for, as far as anything is?"""
    asked = (given.copies, array.copies), (given.columns, array.columns), (given.ports, array.ports)
    return all(want in (0, have) for want, have in asked)


def _known_names(design: Design, wanted: Plan) -> None:
    _unknown("arrays", wanted.arrays, {s.name for s in design.stages if isinstance(s, ArrayStage)})
    _unknown("ways", wanted.ways, {s.name for s in design.stages if isinstance(s, WaysStage)})


def _unknown(table: str, names: Iterable[str], known: set[str]) -> None:
    missing = sorted(set(names) - known)
    if missing:
        raise CompileError(
            f"the plan's table {table} names {', '.join(missing)}; there are {', '.join(sorted(known))}"
        )


def _plan(wanted: Plan, problem: _Problem, allocation: Allocation) -> Plan:
    arrays: dict[str, Array] = {name: c.array for name, c in allocation.chosen.items() if c.array is not None}
    ways = {name: c.ways for name, c in allocation.chosen.items() if c.ways}
    return replace(wanted, tile=problem.design.shape.tile, arrays=arrays, ways=ways)


def _placed(design: Design, plan: Plan, board: Board, ports: int) -> dict[str, int] | None:
    """Where the pieces go, if they fit."""
    split, _ = apply_arrays(replace(design, shape=replace(design.shape, tile=plan.tile)), {}, plan)
    split = size_fifos(split)
    count = ports + sum(a.ports for a in plan.arrays.values())
    fixed = {s.name: plan.slr[s.name] for s in split.stages if s.name in plan.slr}
    return place(split, board, plan.budget, fixed, count)


def _within(planned: Design, plan: Plan, board: Board) -> bool:
    """Does the whole design, relays at the ends of links included, keep to the caps?"""
    caps = {f.name: getattr(board.caps, f.name) * plan.budget for f in fields(board.caps)}
    limited = replace(board, caps=replace(board.caps, **caps))
    return not problems(design_cost(planned, limited), limited)


def _gains(problem: _Problem, limits: Limits, allocation: Allocation, objective: str) -> tuple[Gain, ...]:
    found = []
    for name in (*RESOURCES, "mean", "ports", *(("products",) if limits.products else ())):
        used, limit, saved = _used(name, limits, allocation), _limit(name, limits), 0.0
        if used > NEAR * limit:  # else there is more of it already
            better = problem.solve(limits.more(name, MORE), objective)
            saved = max(0.0, 1 - better.cycles / allocation.cycles) if better is not None else 0.0
        found.append(Gain(name, used, limit, saved))
    return tuple(sorted(found, key=lambda g: (-g.saved, g.name)))


def _used(name: str, limits: Limits, allocation: Allocation) -> float:
    if name == "mean":
        shares = [allocation.used[r] / limits.card[r] for r in MEAN_OF]
        return sum(shares) / len(shares)
    return allocation.used[name]


def _limit(name: str, limits: Limits) -> float:
    return limits.resources[name] if name in limits.resources else float(getattr(limits, name))


def _smallest(tried: Sequence[_Problem], resource: str) -> float:
    """The least of a resource that any choice of all stages needs."""
    return min(
        sum(min(getattr(c.cost, resource) for c in found) for found in p.options.values())
        + float(getattr(p.fixed, resource))
        for p in tried
    )


def _too_large(tried: Sequence[_Problem], board: Board, wanted: Plan) -> str:
    """What is missing, by how much, and what would fit."""
    problem, limits = tried[0], Limits.of(board, wanted.budget, wanted.multipliers)
    missing = [
        f"{r.upper()}: at least {_smallest(tried, r):,.0f}, the caps leave {limit:,.0f}"
        for r, limit in limits.resources.items()
        if _smallest(tried, r) > limit
    ]
    ports = problem.ports + sum(min(c.ports for c in f) for f in problem.options.values())
    least = min(sum(min(c.products for c in f) for f in p.options.values()) for p in tried)
    if 0 < limits.products < least:
        missing.append(f"products a cycle: at least {least:,}, the plan allows {limits.products:,}")
    if ports > limits.ports:
        missing.append(f"memory ports: at least {ports}, there are {limits.ports}")
    if not missing:
        missing.append("each resource suffices, but not all together, or not in every region")
    text = f"the model does not fit {wanted.budget:.0%} of the {board.title}: " + "; ".join(missing)
    others = [b for b in BOARDS.values() if b is not board and any(_fits_on(p, b, wanted) for p in tried)]
    advice = [f"board={b.name!r}" for b in others]
    if wanted.budget < 1 and any(_fits_on(p, board, replace(wanted, budget=1.0)) for p in tried):
        advice.append("budget=1.0")
    if any(_fits_on(p, board, wanted) for p in _with_int4(tried, wanted, board)):
        advice.append("precision='w4a8'")
    s = problem.design.shape
    if s.max_seq > 1:
        advice.append(f"example inputs shorter than {s.max_seq} tokens")
    if s.max_batch > 1:
        advice.append(f"example inputs of fewer than {s.max_batch} sequences")
    return text + (f". What would help: {', '.join(advice)}" if advice else "")


def _with_int4(tried: Sequence[_Problem], wanted: Plan, board: Board) -> list[_Problem]:
    """The same models with int4 weights, where that is possible and not so yet."""
    found = []
    for problem in tried:
        stages = [
            Int4MatmulStage(**{f.name: getattr(s, f.name) for f in fields(s)})
            if type(s) is MatmulStage
            else s
            for s in problem.design.stages
        ]
        if problem.design.shape.lanes == LANES and stages != list(problem.design.stages):
            design = replace(problem.design, stages=tuple(stages))
            found.append(_problem(design, wanted, board, design.shape.tile))
    return found


def _fits_on(problem: _Problem, board: Board, wanted: Plan) -> bool:
    """Are there arrays of this tile size whose pieces fit into the regions of a board?"""
    limits = Limits.of(board, wanted.budget, wanted.multipliers, FILLS[0])
    bound = problem.solve(limits, wanted.objective)
    return bound is not None and _fitted(problem.design, wanted, board, problem, bound, None) is not None
