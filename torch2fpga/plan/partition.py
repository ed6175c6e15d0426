# SPDX-License-Identifier: Apache-2.0
"""Give every stage to a kernel (one an SLR) and every kernel crossing its AXI stream.

Any stage may lie in any SLR. A stream between two SLRs becomes a link, an AXI stream between kernels,
with a relay at its near end: what must wait waits behind the relay. Memory ports belong to the kernel
beside the memory; words for (or from) stages elsewhere cross by links of their own, parameters by one
link for each kernel. The layer loop returns through a link, so that no kernel holds a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

from torch2fpga.boards import U280, Board
from torch2fpga.design import Design, Kernel, Port, Stage, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage, RelayStage
from torch2fpga.lower.turns import TokenEnterStage

#: least FIFO of an AXI stream between kernels; what must wait waits behind the relay
LINK_DEPTH = 16


def _weight(stage: Stage, design: Design) -> int:
    cost = stage.cost(design)
    return cost.dsp * 100 + cost.lut // 10 + 1


def _crossings(stages: list[Stage], at: int) -> set[str]:
    """Streams between the stages before and behind a cut."""
    written = {o for s in stages[:at] for o in s.outputs}
    return written & {i for s in stages[at:] for i in s.inputs}


def _cut_allowed(design: Design, stages: list[Stage], at: int) -> bool:
    """May kernels part before stage ``at``? Only row streams may cross, and not inside the ends."""
    if any(isinstance(s, LoopEnterStage) for s in stages[at:]):
        return False
    if any(isinstance(s, LoopExitStage) for s in stages[:at]):
        return False
    return all(design.streams[x].kind in ("rows", "exponents") for x in _crossings(stages, at))


def choose_cuts(design: Design, count: int) -> tuple[int, ...]:
    """Positions that part the stages into ``count`` kernels with the smallest largest kernel.

    Empty where there are no such cuts.
    """
    stages = list(design.stages)
    crossing = {
        i: len(_crossings(stages, i)) for i in range(1, len(stages)) if _cut_allowed(design, stages, i)
    }
    sums = [0]
    for stage in stages:
        sums.append(sums[-1] + _weight(stage, design))
    best: tuple[tuple[int, int], tuple[int, ...]] | None = None
    for cuts in combinations(crossing, count - 1):
        edges = (0, *cuts, len(stages))
        largest = max(sums[b] - sums[a] for a, b in pairwise(edges))
        key = (largest, sum(crossing[c] for c in cuts))
        if best is None or key < best[0]:
            best = (key, cuts)
    return best[1] if best is not None else ()


def contiguous(design: Design, count: int) -> dict[str, int]:
    """The default assignment: stages in order, cut into at most ``count`` balanced parts."""
    cuts = choose_cuts(design, count) if count > 1 else ()
    edges = (0, *cuts, len(design.stages))
    return {stage.name: slr for slr, (a, b) in enumerate(pairwise(edges)) for stage in design.stages[a:b]}


def partition(
    design: Design, slr_of: Mapping[str, int] | None = None, *, count: int = 1, board: Board = U280
) -> Design:
    """The design with its kernels, links and relays, and all ports in the kernel beside the memory.

    Args:
        design: without kernels.
        slr_of: stage -> SLR; without it the stages in order are cut into ``count`` balanced parts.
            Kernels are named by their SLR: ``<design>_<slr>``.
        count: kernels of the default.
        board: its SLRs, where its memory is, and register stages of a crossing.
    Raises:
        DesignError: for stages that are unknown, not assigned or in no SLR of the board, and where
            the layer loop would close inside a kernel; all in one text.
    """
    if design.kernels:
        raise DesignError(f"{design.name} has kernels already: give partition the design without them")
    place = contiguous(design, min(count, len(board.slrs))) if slr_of is None else dict(slr_of)
    problems = assignment_problems(design, place, board)
    if problems:
        raise DesignError("the assignment of stages to SLRs is impossible:\n  - " + "\n  - ".join(problems))
    return _Partition(design, place, board).run()


def assignment_problems(design: Design, place: Mapping[str, int], board: Board) -> list[str]:
    """Why stages cannot lie where ``place`` puts them (empty if they can)."""
    names, regions = {s.name for s in design.stages}, len(board.slrs)
    problems = [f"there is no stage {name}" for name in place if name not in names]
    problems += [f"stage {s.name} has no SLR" for s in design.stages if s.name not in place]
    problems += [
        f"stage {name} in SLR {slr}: the {board.name} has SLR0 to SLR{regions - 1}"
        for name, slr in place.items()
        if name in names and not 0 <= slr < regions
    ]
    if problems:
        return problems
    writer = {o: s for s in design.stages for o in s.outputs}
    for stage in design.stages:
        if isinstance(stage, LoopEnterStage | TokenEnterStage):
            exit_stage = writer[stage.inputs[1]]
            loop = "layer loop" if isinstance(stage, LoopEnterStage) else "loop over tokens"
            if place[exit_stage.name] == place[stage.name]:
                problems.append(
                    f"the {loop} returns from {exit_stage.name} to {stage.name} inside "
                    f"SLR{place[stage.name]}: the two ends must lie in different SLRs, because a "
                    "dataflow region may not hold a cycle"
                )
    return problems


def link_depth(board: Board, a: int, b: int) -> int:
    """Tokens of the FIFO of a link between two SLRs: a round trip over its registers at a token a cycle."""
    return max(LINK_DEPTH, 2 * abs(a - b) * board.crossing_cycles + 4)


@dataclass
class _Partition:
    """Work of one call of ``partition``."""

    design: Design
    place: dict[str, int]
    board: Board
    streams: dict[str, Stream] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    axis_in: dict[int, list[str]] = field(default_factory=dict)
    axis_out: dict[int, list[str]] = field(default_factory=dict)

    def run(self) -> Design:
        self.streams = dict(self.design.streams)
        memory = self.board.memory_slr
        ported = bool(self.design.ports) or any(s.params for s in self.design.stages)
        slrs = sorted({*self.place.values(), *([memory] if ported else [])})
        self.axis_in = {slr: [] for slr in slrs}
        self.axis_out = {slr: [] for slr in slrs}
        self._memory_links()
        parameters = self._parameter_links()
        writer = {o: s for s in self.design.stages for o in s.outputs}
        for stage in self.design.stages:
            inputs = tuple(self._input(stage, name, writer.get(name)) for name in stage.inputs)
            self.stages.append(replace(stage, inputs=inputs))
        kernels = tuple(
            Kernel(
                kernel_name(self.design, slr),
                tuple(s.name for s in self.stages if self.place[s.name] == slr),
                tuple(self.axis_in[slr]),
                tuple(self.axis_out[slr]),
                slr,
                parameters.get(slr),
            )
            for slr in slrs
        )
        ports: tuple[Port, ...] = tuple(
            replace(p, kernel=kernel_name(self.design, memory)) for p in self.design.ports
        )
        return replace(
            self.design, stages=tuple(self.stages), streams=self.streams, kernels=kernels, ports=ports
        )

    def _link(self, name: str, a: int, b: int) -> None:
        """Make a stream the link from SLR a to SLR b."""
        depth = link_depth(self.board, a, b)
        self.streams[name] = replace(self.streams[name], link=True, depth=depth)
        self.axis_out[a].append(name)
        self.axis_in[b].append(name)

    def _memory_links(self) -> None:
        """Words between a port and a stage elsewhere; the stage takes them from the link itself."""
        memory = self.board.memory_slr
        readers = {i: s.name for s in self.design.stages for i in s.inputs}
        writers = {o: s.name for s in self.design.stages for o in s.outputs}
        for port in self.design.ports:
            for name in (*port.gives, *port.takes):
                reader, writer = readers.get(name), writers.get(name)
                if reader is not None and self.place[reader] != memory:
                    self._link(name, memory, self.place[reader])
                if writer is not None and self.place[writer] != memory:
                    self._link(name, self.place[writer], memory)

    def _parameter_links(self) -> dict[int, str]:
        """SLR -> the link of its stages' parameters, read beside the memory by one port for all."""
        memory, found = self.board.memory_slr, {}
        for slr in sorted({self.place[s.name] for s in self.design.stages if s.params} - {memory}):
            name = f"{kernel_name(self.design, slr)}_parameters"
            self.streams[name] = Stream(name, "words")
            self._link(name, memory, slr)
            found[slr] = name
        return found

    def _input(self, stage: Stage, name: str, source: Stage | None) -> str:
        """The stream that the stage reads for ``name``: another one where it comes over a link."""
        here = self.place[stage.name]
        if source is None or self.place[source.name] == here:
            return name
        if self.streams[name].kind in ("words", "ids"):  # a relay would hold nothing back that is worth it
            self._link(name, self.place[source.name], here)
            return name
        inner = replace(self.streams[name], name=f"{name}_near")
        self.streams[inner.name] = inner
        self._link(name, self.place[source.name], here)
        relay = _relay(source, name, inner, bool(self.design.turns))
        self.place[relay.name] = here
        self.stages.append(relay)
        return inner.name


def kernel_name(design: Design, slr: int) -> str:
    """Name of the kernel in an SLR."""
    return f"{design.name}_{slr}"


def _relay(source: Stage, name: str, inner: Stream, cached: bool) -> RelayStage:
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
        cached=cached and inner.kind == "scores",
    )
