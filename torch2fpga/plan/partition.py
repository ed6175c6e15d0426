# SPDX-License-Identifier: Apache-2.0
"""Cut the stage list into kernels (one an SLR) and give kernel crossings their AXI streams.

Stages stay in order, so data only flows forward; the layer loop returns from the last kernel to
the first. Cuts balance the multipliers of the kernels and only cross row streams.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

from torch2fpga.design import Design, Kernel, Port, Stage, Stream
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage, RelayStage

#: AXI streams between kernels carry a short FIFO; what must wait waits behind the relay
LINK_DEPTH = 16


def _weight(stage: Stage, design: Design) -> int:
    cost = stage.cost(design)
    return cost.dsp * 100 + cost.lut // 10 + 1


def _cut_allowed(design: Design, stages: list[Stage], at: int) -> bool:
    """May kernels part before stage ``at``? Only row streams may cross, and not inside the ends."""
    if any(isinstance(s, LoopEnterStage) for s in stages[at:]):
        return False
    if any(isinstance(s, LoopExitStage) for s in stages[:at]):
        return False
    written = {o for s in stages[:at] for o in s.outputs}
    read = {i for s in stages[at:] for i in s.inputs}
    return all(design.streams[x].kind in ("rows", "exponents") for x in written & read)


def choose_cuts(design: Design, count: int) -> tuple[int, ...]:
    """Positions that part the stages into ``count`` kernels with the smallest largest kernel."""
    stages = list(design.stages)
    allowed = [i for i in range(1, len(stages)) if _cut_allowed(design, stages, i)]
    sums = [0]
    for stage in stages:
        sums.append(sums[-1] + _weight(stage, design))
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for cuts in combinations(allowed, count - 1):
        edges = (0, *cuts, len(stages))
        largest = max(sums[b] - sums[a] for a, b in pairwise(edges))
        crossing = sum(_crossings(stages, c) for c in cuts)
        if best is None or (largest, crossing) < best[0]:
            best = ((largest, crossing), cuts)
    return best[1] if best is not None else ()


def _crossings(stages: list[Stage], at: int) -> int:
    written = {o for s in stages[:at] for o in s.outputs}
    return len(written & {i for s in stages[at:] for i in s.inputs})


def partition(design: Design, count: int) -> Design:
    """The design with kernels, relays behind kernel crossings, and ports given to kernels."""
    cuts = choose_cuts(design, count) if count > 1 else ()
    edges = (0, *cuts, len(design.stages))
    groups = [list(design.stages[a:b]) for a, b in pairwise(edges)]
    names = [f"{design.name}_{i}" for i in range(len(groups))]
    owner = {s.name: i for i, group in enumerate(groups) for s in group}
    writer = {o: s for s in design.stages for o in s.outputs}
    streams = dict(design.streams)
    axis_in: list[list[str]] = [[] for _ in groups]
    axis_out: list[list[str]] = [[] for _ in groups]
    for number, group in enumerate(groups):
        relays: list[Stage] = []
        for position, stage in enumerate(group):
            inputs = list(stage.inputs)
            for slot, name in enumerate(inputs):
                source = writer.get(name)
                if source is None or owner[source.name] == number:
                    continue
                link = streams[name]
                inner = replace(link, name=f"{name}_near")
                streams[name] = replace(link, link=True, depth=LINK_DEPTH)
                streams[inner.name] = inner
                relays.append(_relay(source, name, inner, design))
                inputs[slot] = inner.name
                axis_out[owner[source.name]].append(name)
                axis_in[number].append(name)
            group[position] = replace(stage, inputs=tuple(inputs))
        group[:0] = relays
    kernels = tuple(
        Kernel(n, tuple(s.name for s in g), tuple(i), tuple(o), slr)
        for slr, (n, g, i, o) in enumerate(zip(names, groups, axis_in, axis_out, strict=True))
    )
    stages = tuple(s for g in groups for s in g)
    ports = tuple(_owned(p, design.ports, names, groups) for p in design.ports)
    return replace(design, stages=stages, streams=streams, kernels=kernels, ports=ports)


def _relay(source: Stage, name: str, inner: Stream, design: Design) -> RelayStage:
    uses, steps = source.steps, source.steps
    group = source.group
    if isinstance(source, LoopExitStage):
        back = source.mode != "last" and name == source.outputs[0]
        uses, group = (source.steps - 1, "loop") if back else (1, "after")
        steps = source.steps if back else 1
    return RelayStage(
        name=f"relay_{name}",
        path=source.path,
        group=group,
        steps=steps,
        inputs=(name,),
        outputs=(inner.name,),
        one_row=inner.one_row,
        like=inner,
        uses=uses,
    )


def _owned(port: Port, every: tuple[Port, ...], names: list[str], groups: list[list[Stage]]) -> Port:
    """The port with the kernel whose stage is at its other end."""
    wanted = set(port.streams)
    if port.role == "ids":  # read by the gather port whose rows a stage reads
        (ids,) = port.streams
        wanted = {x for p in every if p.config.get("ids") == ids for x in p.streams}
    for name, group in zip(names, groups, strict=True):
        for stage in group:
            if wanted & {*stage.inputs, *stage.outputs}:
                return replace(port, kernel=name)
    raise AssertionError(f"port {port.name} has no stage at its other end")
