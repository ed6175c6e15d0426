# SPDX-License-Identifier: Apache-2.0
"""From a lowered design and what is wanted of it to the planned design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch2fpga.boards import Board
from torch2fpga.design import Design, StepData
from torch2fpga.emit.ports import masters
from torch2fpga.errors import CompileError
from torch2fpga.lower.attention import ScoresStage, ValuesStage
from torch2fpga.lower.cache import CacheStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.plumbing import ForkStage, LoopEnterStage, LoopExitStage
from torch2fpga.plan.apply import apply_plan
from torch2fpga.plan.optimise import Progress, optimise
from torch2fpga.plan.partition import contiguous
from torch2fpga.plan.plan import Array, Plan
from torch2fpga.plan.share import lane_limit
from torch2fpga.plan.summary import Gain


@dataclass(frozen=True)
class Planned:
    """A design with kernels, FIFOs and channels, its constants, and the complete plan behind it."""

    design: Design
    data: Mapping[str, StepData]
    plan: Plan
    gains: tuple[Gain, ...] = ()


def put_into_effect(
    design: Design,
    data: Mapping[str, StepData],
    wanted: Plan,
    board: Board,
    simple: bool = False,
    progress: Progress | None = None,
) -> Planned:
    """Complete the plan, by optimising or by the simple rules, and apply it.

    Args:
        progress: called with "plan" and the part of it that is done.
    Raises:
        CompileError: for plans that name what is not there, and models that do not fit.
        DesignError: for regions that are impossible.
    """
    gains: tuple[Gain, ...] = ()
    # Lanes are for layers that take turns: a model of a single layer has none that repeats.
    looped = any(s.group == "loop" for s in design.stages)
    if wanted.lanes or (design.turns and looped and not simple):
        plan = lanes_plan(design, wanted, board)
    elif simple or design.turns:
        plan = simple_plan(design, wanted)
    else:
        found = optimise(design, wanted, progress)
        plan, gains = found.plan, found.gains
    planned, constants = apply_plan(design, data, plan, board)
    return Planned(planned, constants, plan, gains)


def lanes_plan(design: Design, wanted: Plan, board: Board) -> Plan:
    """Lanes beside as many ports as the card has left, all beside the memory; the stages that the layers
    feed in the regions above it, so that what the lanes give and take goes over links.

    The tile is one row if nothing else is asked for: what decodes a token needs no more.
    """
    weights = sum(p.role == "weights" for p in design.ports)
    others = masters(design) - weights + any(s.params for s in design.stages)
    count = wanted.lanes or max(1, min(board.masters - others, lane_limit(design)))
    memory, *above = [board.memory_slr, *(i for i in range(len(board.slrs)) if i != board.memory_slr)]
    first, last = above[0], above[-1]
    slr: dict[str, int] = {}
    layers = {s.inputs[0] for s in design.stages if isinstance(s, MatmulStage)}
    means = [i for i, s in enumerate(design.stages) if isinstance(s, ValuesStage)]
    for number, stage in enumerate(design.stages):
        # What packs rows for the cache lies beside it: words are wider than the rows in them. Layers
        # of one input have it forked beside the lanes: it crosses once.
        beside = isinstance(stage, MatmulStage | CacheStage) or stage.group == "before"
        if beside or (isinstance(stage, ForkStage) and set(stage.outputs) <= layers):
            slr[stage.name] = memory
        else:
            behind = number > max(means, default=-1) or stage.group == "after"
            slr[stage.name] = last if behind else first
    slr |= {s.name: first for s in design.stages if isinstance(s, LoopEnterStage)}
    slr |= {s.name: last for s in design.stages if isinstance(s, LoopExitStage)}
    arrays: dict[str, Array] = {}
    for stage in design.stages:
        if isinstance(stage, ScoresStage | ValuesStage):
            arrays[stage.name] = wanted.arrays.get(
                stage.name, Array(1, min(stage.columns, design.shape.lanes))
            )
    return replace(wanted, tile=wanted.tile or 1, lanes=count, arrays=arrays, slr={**slr, **wanted.slr})


def simple_plan(design: Design, wanted: Plan) -> Plan:
    """One array a layer as the lowering made it, stages in order cut into even parts."""
    arrays, lanes = {}, design.shape.lanes
    for stage in design.stages:
        if isinstance(stage, MatmulStage):
            arrays[stage.name] = Array(1, min(stage.columns, lanes), stage.weights_kept, 1)
        elif isinstance(stage, ScoresStage | ValuesStage):
            arrays[stage.name] = Array(1, min(stage.columns, lanes))
    slr = {s.name: 0 for s in design.stages}
    if design.turns or design.steps > 1 or any(s.group == "loop" for s in design.stages):
        for count in (3, 2):
            slr = contiguous(design, count)
            if len(set(slr.values())) > 1:
                break
        else:
            raise CompileError("the loop over layers or tokens cannot be cut into two kernels")
    return replace(wanted, tile=design.shape.tile, arrays=arrays, slr=slr)
