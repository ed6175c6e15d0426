# SPDX-License-Identifier: Apache-2.0
"""Reports of plans that nobody made: made up, but consistent as a real one is."""

from __future__ import annotations

import random
from dataclasses import replace

from tests import tiny
from torch2fpga.boards import U280, Board
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.plan.allocate import RESOURCES
from torch2fpga.plan.plan import Array, Plan
from torch2fpga.plan.summary import (
    ChannelUse,
    Gain,
    PlanReport,
    RegionUse,
    Roofline,
    StageUse,
    products_of,
)
from torch2fpga.plan.wires import BoundaryUse
from torch2fpga.report.describe import memory_ports

CYCLES = 1_232_500
GAINS = (
    Gain("dsp", 7204, 6643.2, 0.123),
    Gain("ports", 27, 32, 0.0312),
    Gain("mean", 0.61234, 0.7, 0.0),
    Gain("uram", 300, 768, 0.0),
)


def many(design: Design, copies: int) -> Design:
    """The design with every linear layer's array in so many copies, which nothing joins: for pictures."""
    stages = []
    for stage in design.stages:
        split = isinstance(stage, MatmulStage) and copies > 1
        names = [f"{stage.name}_array{i}" for i in range(copies)] if split else [stage.name]
        stages += [replace(stage, name=name) for name in names]
    return replace(design, stages=tuple(stages))


def report_of(design: Design, board: Board = U280, regions: int = 3, copies: int = 1) -> PlanReport:
    """A report about a design, its stages in as many regions; ``copies`` as ``many`` was told."""
    rng = random.Random(7)
    count = len(design.stages)
    busy = {s.name: rng.randrange(1000, CYCLES - 200_000) for s in design.stages}
    most = max(busy.values(), default=1)
    slr = {s.name: i * regions // count for i, s in enumerate(design.stages)}
    stages = tuple(
        StageUse(s.name, s.path, slr[s.name], products_of(design, s), s.cost(design).dsp, busy[s.name],
                 busy[s.name] / most)
        for s in design.stages
    )  # fmt: skip
    names = dict.fromkeys(
        s.name.rpartition("_array")[0] if copies > 1 else s.name
        for s in design.stages
        if isinstance(s, MatmulStage)
    )
    columns = {s.path: s.columns for s in design.stages if isinstance(s, MatmulStage)}
    arrays = {n: Array(copies, next(iter(columns.values())), "step", copies) for n in names}
    fill = {r: rng.uniform(0.05, 0.95) for r in RESOURCES}
    products = sum(s.products for s in stages)
    macs = int(0.62 * products * CYCLES)
    return PlanReport(
        plan=Plan(board.name, 240.0, arrays=arrays, slr=slr, tile=design.shape.tile),
        title=board.title,
        clock_mhz=240.0,
        batch=design.shape.max_batch,
        seq=design.shape.max_seq,
        cycles=CYCLES,
        pace=max(busy, key=lambda n: busy[n], default=""),
        macs=macs,
        stages=stages,
        regions=tuple(
            RegionUse(n, f"kernel_{n}", {
                r: (int(getattr(board.slrs[n], r) * fill[r]) + n, getattr(board.slrs[n], r),
                    board.caps.share_of(r))
                for r in RESOURCES
            })
            for n in range(regions)
        ),
        boundaries=tuple(
            BoundaryUse(n, 3 + n, wires, board.wires[n], board.wire_budget, board.prudent_wires)
            for n, wires in zip(range(regions - 1), (5_432, 8_765), strict=False)
        ),
        channels=tuple(
            ChannelUse(2 * i + 1, p.name, p.role, rng.randrange(100_000, 30_000_000))
            for i, p in enumerate(memory_ports(design)[:16])
        ),
        roofline=Roofline(14_174.4, float(products), 118.25 * 1674.2, macs / CYCLES, 118.25),
        gains=GAINS,
    )  # fmt: skip


def sample(name: str = "encoder", copies: int = 1) -> tuple[CompiledModel, Design, PlanReport]:
    """A compiled model, its design in so many copies, and a report about that."""
    model = tiny.compiled(name)
    design = many(model.design, copies)
    return model, design, report_of(design, copies=copies)
