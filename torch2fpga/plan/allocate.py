# SPDX-License-Identifier: Apache-2.0
"""How many multipliers every stage gets: a mixed-integer programme over the choices of all stages.

A group of stages (before, in, after the layer loop) takes, for each of its steps, the larger of
    pace + path    and    busy + load of any stage,
where ``pace`` is the busiest stage's time for all tiles but one, ``path`` the longest way of one tile
through the group, and ``load`` the time in which a step's weights arrive: there is one buffer, so they
arrive while the stage is idle. Minimised
is the sum over groups and steps (latency), or the busiest stage over a whole launch (throughput),
under the caps of the card, its memory ports and, if asked for, a limit on all products a cycle.

Stages that do the same work behind the same stages (queries, keys and values of attention) are built
alike: one choice for all of them, which spares the solver every permutation of unequal ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Stage, nominal_depth
from torch2fpga.plan.choices import ArrayStage, Choice, tiles_of
from torch2fpga.plan.resources import MEAN_OF, RESOURCES
from torch2fpga.plan.solver import Programme, Solution, Terms

#: weight of the other objective, which decides between equals
SECOND = 1e-3
#: part of a step that one memory port less is worth: most ports cross to another region by a 512-bit
#: stream, and wires across boundaries are scarce
PORT_WORTH = 5e-3
#: relative distance to the proven best at which the search ends
GAP = 8e-3


@dataclass(frozen=True)
class Limits:
    """What all stages together may use.

    Attributes:
        resources: of each resource, by its field in ``Estimate``.
        card: the user region's resources, for the cap on the mean of shares.
        mean: that cap.
        ports: memory ports.
        products: a cycle; 0 for no limit.
    """

    resources: Mapping[str, float]
    card: Mapping[str, float]
    mean: float
    ports: int
    products: int = 0

    @staticmethod
    def of(board: Board, budget: float, products: int, fill: float = 1.0) -> Limits:
        """A share of the board's caps; ``fill`` of that, because what is left must be placed."""
        card = {r: float(getattr(board.total, r)) for r in RESOURCES}
        share = {r: board.caps.share_of(r) * budget * fill * card[r] for r in RESOURCES}
        return Limits(share, card, board.caps.mean * budget, board.masters, products)

    def more(self, name: str, factor: float) -> Limits:
        """The same with more of one of them (``mean``, ``ports``, ``products`` or a resource)."""
        if name in self.resources:
            return replace(self, resources={**self.resources, name: self.resources[name] * factor})
        if name == "mean":
            return replace(self, mean=self.mean * factor)
        if name == "ports":
            return replace(self, ports=int(self.ports * factor))
        return replace(self, products=int(self.products * factor))


@dataclass(frozen=True)
class Allocation:
    """The choice for every stage, and what the programme says it gives.

    Attributes:
        cycles: of the objective (modelled).
        used: of every limit.
    """

    chosen: Mapping[str, Choice]
    cycles: float
    used: Mapping[str, float]


def allocate(
    design: Design,
    options: Mapping[str, Sequence[Choice]],
    fixed: Estimate,
    fixed_ports: int,
    limits: Limits,
    objective: str,
) -> Allocation | None:
    """The best choices within the limits; None if none fit.

    Args:
        options: choices of every stage, by name.
        fixed, fixed_ports: what the design needs besides its stages.
    """
    p = Programme()
    alike = stages_alike(design, options)
    for name in dict.fromkeys(alike.values()):
        keys = [p.binary(("z", name, i)) for i in range(len(options[name]))]
        p.row(dict.fromkeys(keys, 1.0), 1.0, 1.0)
    _limit(p, options, alike, fixed, fixed_ports, limits)
    _time(p, design, options, alike, objective)
    solution = p.solve(gap=GAP)
    return None if solution is None else _allocation(options, alike, fixed, fixed_ports, solution)


def stages_alike(design: Design, options: Mapping[str, Sequence[Choice]]) -> dict[str, str]:
    """For every stage the first one that has the same choices behind stages that are alike."""
    writer = {o: s.name for s in design.stages for o in s.outputs}
    first: dict[tuple[object, ...], str] = {}
    found: dict[str, str] = {}
    for stage in design.stages:
        sources = tuple(found.get(writer[n], "") for n in stage.inputs if n in writer)
        key = (type(stage), stage.group, sources, tuple(options[stage.name]))
        found[stage.name] = first.setdefault(key, stage.name)
    return found


def _limit(
    p: Programme,
    options: Mapping[str, Sequence[Choice]],
    alike: Mapping[str, str],
    fixed: Estimate,
    fixed_ports: int,
    limits: Limits,
) -> None:
    every = [
        (("z", n, i), c, times)
        for n, times in Counter(alike.values()).items()
        for i, c in enumerate(options[n])
    ]
    for resource, limit in limits.resources.items():
        terms = {key: float(times * getattr(c.cost, resource)) for key, c, times in every}
        p.row(terms, upper=limit - getattr(fixed, resource))
    shares = {
        key: times * sum(getattr(c.cost, r) / limits.card[r] for r in MEAN_OF) / len(MEAN_OF)
        for key, c, times in every
    }
    taken = sum(getattr(fixed, r) / limits.card[r] for r in MEAN_OF) / len(MEAN_OF)
    p.row(shares, upper=limits.mean - taken)
    p.row({key: float(times * c.ports) for key, c, times in every}, upper=limits.ports - fixed_ports)
    if limits.products:
        p.row({key: float(times * c.products) for key, c, times in every}, upper=limits.products)


def _time(
    p: Programme,
    design: Design,
    options: Mapping[str, Sequence[Choice]],
    alike: Mapping[str, str],
    objective: str,
) -> None:
    """Pace and path of every group, the launch's busiest stage, and the objective."""
    launch = p.variable("launch")
    latency, throughput = (1.0, SECOND) if objective == "latency" else (SECOND, 1.0)
    p.cost(launch, throughput)
    port = PORT_WORTH * _ideal(design, options)
    for name, found in options.items():
        for i, c in enumerate(found):
            if c.ports:
                p.cost(("z", alike[name], i), port * c.ports)
    writer = {o: stage for stage in design.stages for o in stage.outputs}
    for group in dict.fromkeys(stage.group for stage in design.stages):
        pace, path = p.variable(("pace", group)), p.variable(("path", group))
        period = p.variable(("period", group))
        p.row({period: 1.0, pace: -1.0, path: -1.0}, lower=0.0)
        stages = [x for x in design.stages if x.group == group]
        p.cost(period, latency * stages[0].steps)
        for stage in stages:
            found = options[stage.name]
            tiles = tiles_of(design, stage)
            z = [("z", alike[stage.name], i) for i in range(len(found))]
            most = {k: -c.busy * (1 - 1 / tiles) for k, c in zip(z, found, strict=True)}
            p.row({pace: 1.0, **most}, lower=0.0)
            step = {k: -(c.busy + c.load) for k, c in zip(z, found, strict=True)}
            p.row({period: 1.0, **step}, lower=0.0)
            whole = {k: stage.steps * v for k, v in step.items()}
            p.row({launch: 1.0, **whole}, lower=0.0)
            work = {k: -c.tile for k, c in zip(z, found, strict=True)}
            _path(p, design, stage, work, writer, path)


def _ideal(design: Design, options: Mapping[str, Sequence[Choice]]) -> float:
    """Cycles of a launch if all arrays were as busy as those of the widest choices together."""
    widest = [(s, max(options[s.name], key=lambda c: c.products)) for s in design.stages]
    work = sum(c.busy * c.products * s.steps for s, c in widest)
    return work / max(1, sum(c.products for _, c in widest))


def _path(
    p: Programme,
    design: Design,
    stage: Stage,
    work: Terms,
    writer: Mapping[str, Stage],
    path: object,
) -> None:
    """When the first and the last token of the first tile leave a stage.

    What holds a tile begins when the last token of its inputs is there; an array's results then leave
    all along its work, those of other holding stages in its second half (they take a tile twice). What
    holds nothing lets tokens pass, but cannot be faster than its own work on a tile.

    Args:
        work: terms of minus the cycles that the stage works on a tile.
    """
    first, last = p.variable(("first", stage.name)), p.variable(("last", stage.name))
    depth = float(nominal_depth(""))
    order = {x.name: i for i, x in enumerate(design.stages)}
    sources = [
        writer[n].name
        for n in stage.inputs
        if n in writer and writer[n].group == stage.group and order[writer[n].name] < order[stage.name]
    ]  # the others are another group's, or what the layer loop brings back
    p.row({path: 1.0, last: -1.0}, lower=0.0)
    if stage.hold == "tile":
        delay = 0.0 if isinstance(stage, ArrayStage) else 0.5
        begin = p.variable(("begin", stage.name))
        for name in sources:
            p.row({begin: 1.0, ("last", name): -1.0}, lower=depth)
        p.row({first: 1.0, begin: -1.0, **{k: delay * v for k, v in work.items()}}, lower=depth)
        p.row({last: 1.0, begin: -1.0, **work}, lower=depth)
        return
    for name in sources:
        p.row({first: 1.0, ("first", name): -1.0}, lower=depth)
        p.row({last: 1.0, ("last", name): -1.0}, lower=depth)
    p.row({last: 1.0, first: -1.0, **work}, lower=0.0)


def _allocation(
    options: Mapping[str, Sequence[Choice]],
    alike: Mapping[str, str],
    fixed: Estimate,
    fixed_ports: int,
    solution: Solution,
) -> Allocation:
    chosen = {
        name: next(c for i, c in enumerate(found) if solution.chosen(("z", alike[name], i)))
        for name, found in options.items()
    }
    used = {r: float(getattr(fixed, r) + sum(getattr(c.cost, r) for c in chosen.values())) for r in RESOURCES}
    used["ports"] = float(fixed_ports + sum(c.ports for c in chosen.values()))
    used["products"] = float(sum(c.products for c in chosen.values()))
    return Allocation(chosen, solution.objective, used)
