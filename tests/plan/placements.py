# SPDX-License-Identifier: Apache-2.0
"""Compiled models with their stages in other SLRs than the default's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from tests.tiny import compiled
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage, RelayStage
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.partition import partition
from torch2fpga.verifier import verify_design

#: FIFO of a stream of memory words inside a kernel
WORD_DEPTH = 8


def without_kernels(design: Design) -> Design:
    """The design as it was before it was partitioned."""
    near = {s.outputs[0]: s.inputs[0] for s in design.stages if isinstance(s, RelayStage)}
    parameters = {k.parameters for k in design.kernels}
    streams = {}
    for name, stream in design.streams.items():
        if name in near or name in parameters:
            continue
        if stream.link and stream.kind == "words":
            stream = replace(stream, link=False, depth=WORD_DEPTH)
        streams[name] = stream
    for name, link in near.items():
        streams[link] = replace(design.streams[name], name=link)
    stages = tuple(
        replace(s, inputs=tuple(near.get(i, i) for i in s.inputs))
        for s in design.stages
        if not isinstance(s, RelayStage)
    )
    ports = tuple(replace(p, kernel="") for p in design.ports)
    return replace(design, stages=stages, streams=streams, ports=ports, kernels=())


def random_place(design: Design, seed: int, regions: int = 3) -> dict[str, int]:
    """Every stage in any SLR; only the two ends of the layer loop are kept apart."""
    rng = random.Random(seed)
    found = {s.name: rng.randrange(regions) for s in design.stages}
    first = rng.randrange(regions)
    for stage in design.stages:
        if isinstance(stage, LoopEnterStage):
            found[stage.name] = first
        elif isinstance(stage, LoopExitStage):
            found[stage.name] = rng.choice([r for r in range(regions) if r != first])
    return found


def placed(design: Design, place: Mapping[str, int]) -> Design:
    """A design without kernels with those of an assignment, its FIFOs sized, verified."""
    found = size_fifos(partition(design, place, board=U280), U280)
    verify_design(found)
    return found


def elsewhere(name: str, seed: int) -> CompiledModel:
    """A model of ``tests.tiny`` with a random assignment."""
    made = compiled(name)
    design = without_kernels(made.design)
    design = placed(design, random_place(design, seed))
    return CompiledModel(design, made.data, made.interface, made.output, made.board, made.origin)
