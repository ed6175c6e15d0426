# SPDX-License-Identifier: Apache-2.0
"""A plan put into effect: lowered design and plan -> design with arrays, kernels, FIFOs and channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch2fpga.boards import Board
from torch2fpga.design import Design, StepData
from torch2fpga.lower.ways import WaysStage
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.partition import partition
from torch2fpga.plan.plan import Plan
from torch2fpga.plan.share import mark_shared, share_lanes
from torch2fpga.plan.split import set_columns, set_keep, split_linear
from torch2fpga.plan.sums import add_sums


def apply_arrays(
    design: Design, data: Mapping[str, StepData], plan: Plan
) -> tuple[Design, Mapping[str, StepData]]:
    """The design with the plan's tile and arrays, not cut into kernels yet.

    Args:
        data: constants by stage; stages without an entry are split without them.
    """
    design = replace(design, shape=replace(design.shape, tile=plan.tile or design.shape.tile))
    stages = tuple(
        replace(s, ways=plan.ways[s.name]) if isinstance(s, WaysStage) and s.name in plan.ways else s
        for s in design.stages
    )
    design = replace(design, stages=stages)
    for name, array in plan.arrays.items():
        design = set_columns(design, name, array.columns)
        if array.weights:
            design = set_keep(design, name, array.weights)
        if array.copies > 1:
            design, data = split_linear(design, data, name, array.copies, array.ports)
    return design, data


def apply_plan(
    design: Design, data: Mapping[str, StepData], plan: Plan, board: Board
) -> tuple[Design, Mapping[str, StepData]]:
    """The whole plan. It must be complete: every array and every stage's region.

    Raises:
        DesignError: for regions that are impossible.
    """
    design, data = apply_arrays(design, data, plan)
    if plan.lanes:
        design = mark_shared(design, plan.lanes)
    design = share_lanes(size_fifos(partition(design, plan.slr, board=board), board))
    if plan.checksums:
        design = add_sums(design)
    return replace(design, channels=dict(plan.channels)), data
