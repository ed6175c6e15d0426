# SPDX-License-Identifier: Apache-2.0
"""Analytical estimate of a launch's latency, without emitting or running anything.

Tiles of rows are followed through the stages. For tile t of stage i
    done[i, t] = max(done[i, t - 1] + fill, arrival of t's last token + depth) + work
where fill is the time to take a tile in (one token a cycle), work what the stage's closed form
(``Stage.cycles``) leaves per tile beyond that, and the arrival is ``done`` of the stage before.
Attention takes all keys (or values) of a sequence first. A stage with weights loads those of its next
step when it is through with the last one, at the port's rate, or those of all steps before its first one.
A multiplier array takes the blocks of a tile as they come together in the FIFO in front of it, which goes on
while the array works on the tile before. The layer loop hands tile t of
a layer to the next one as soon as it is done. FIFOs never fill up in this model.

The timed run of the emitted code is held against it (tests/timing, benchmarks/timed.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch2fpga.boards import Board
from torch2fpga.design import LOOP_OVERHEAD, NOMINAL_DEPTH, Design, Port, Stage, Stream, ceil_div, pipelined
from torch2fpga.emit.ports import parameter_words_of
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage
from torch2fpga.lower.rows import SelectRowStage

#: depth of a loop that only moves words
READ_DEPTH = 2

#: when the last token of each tile of a stream is there
Arrivals = list[float]


@dataclass(frozen=True)
class LatencyEstimate:
    """Modelled latency of one launch.

    Attributes:
        cycles: first input to last output.
        pace: stage that is busy longest, and its busy cycles.
    """

    cycles: int
    pace: str
    pace_cycles: int


@dataclass(frozen=True)
class _Work:
    """Cycles of one stage.

    Attributes:
        load: to load a step's constants; ``first`` comes on top before the first step.
        fill: to take a tile in.
        work: on a tile, beyond that.
        hop: from a tile's last token to what follows from it.
        front: of the process in front of the stage's main one, a tile.
    """

    load: float
    fill: float
    work: float
    hop: float
    first: float = 0.0
    front: float = 0.0


#: (stage, label of a loop) -> pipeline depth
DepthOf = Callable[[str, str], int]


def estimate_latency(
    design: Design,
    board: Board,
    batch: int,
    seq: int,
    clock_mhz: float | None = None,
    depth_of: DepthOf | None = None,
) -> LatencyEstimate:
    """Latency of a launch of ``batch`` sequences of ``seq`` rows, in cycles of the kernel clock.

    Args:
        depth_of: pipeline depths where they are known; without, every loop has the nominal one.
    """
    known = depth_of or (lambda _stage, _label: NOMINAL_DEPTH)
    return _Model(design, board, batch, seq, clock_mhz or board.clock_mhz, known).run()


class _Model:
    def __init__(
        self, design: Design, board: Board, batch: int, seq: int, clock_mhz: float, depth_of: DepthOf
    ) -> None:
        self.design, self.batch, self.seq, self.depth_of = design, batch, seq, depth_of
        self.tiles = ceil_div(seq, design.shape.tile)
        #: cycles of a memory word
        self.beat = board.hbm.beat_cycles(64, clock_mhz)
        self.latency = board.hbm.latency_cycles
        self.arrival: dict[str, Arrivals] = {}
        #: when each stage is through with its last step
        self.through: dict[str, float] = {}
        #: when the process in front of it is through with its last tile
        self.joined: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.works = {s.name: self._work(s) for s in design.stages}

    def run(self) -> LatencyEstimate:
        for port in self.design.ports:
            if port.direction == "read":
                self._source(port)
        for group in ("before", "loop", "after"):
            stages = [s for s in self.design.stages if s.group == group]
            for step in range(self.design.steps if group == "loop" else 1):
                for stage in stages:
                    self._step(stage, step)
        last = max((max(a) for a in self.arrival.values() if a), default=0.0)
        pace = max(self.busy, key=lambda n: self.busy[n])
        return LatencyEstimate(round(last), pace, round(self.busy[pace]))

    # -- what a stage costs -----------------------------------------------------------------

    def _array(self, stage: MatmulStage) -> _Work:
        """A multiplier array: a tile's blocks come in while the first ones are multiplied."""
        d, tiles = self.design, self.batch * self.tiles_of(stage)
        total = stage.cycles(d, self.batch, self.seq, lambda label: self.depth_of(stage.name, label))
        words = stage.weight_words(d)
        if stage.streamed:
            busy = max(total / stage.steps / tiles, words * self.beat + self.latency)
        else:
            busy = max(0.0, total / stage.steps - words) / tiles
        load = words * self.beat if stage.weights_kept == "step" else 0.0
        first = words * self.beat * stage.steps if stage.weights_kept == "resident" else 0.0
        front = stage.front(d)
        hop = self.depth_of(front.name, "JOIN") + self.depth_of(stage.name, "REDUCE")
        fill = min(busy, float(stage.layout_in.blocks(d.shape.lanes)))
        return _Work(load, fill, busy - fill, hop, first, self._tokens(d.streams[stage.inputs[0]]))

    def _work(self, stage: Stage) -> _Work:
        if isinstance(stage, MatmulStage):
            return self._array(stage)
        d = self.design
        depths: list[int] = []

        def depth(label: str) -> int:
            depths.append(self.depth_of(stage.name, label))
            return depths[-1]

        total = stage.cycles(d, self.batch, self.seq, depth) / stage.steps
        # A stage that holds a tile takes it in with its first loop; its other loops are work.
        hop = min(depths) if stage.hold else max(depths)
        words = parameter_words_of(stage, d) if stage.params else 0
        whole = sum(
            self._tokens(d.streams[stage.inputs[i]]) * self.tiles_of(stage) for i in stage.whole_first
        )
        tiles = self.batch * self.tiles_of(stage)
        service = max(0.0, (total - words - self.batch * whole) / tiles)
        fill = max((self._tokens(d.streams[n]) for n in self._streaming(stage)), default=0.0)
        return _Work(words * self.beat, min(fill, service), max(0.0, service - fill), hop)

    def tiles_of(self, stage: Stage) -> int:
        """Tiles of a sequence at that stage."""
        return 1 if stage.one_row else self.tiles

    def _tokens(self, stream: Stream) -> float:
        """Tokens of an average tile."""
        if stream.kind == "scores":
            blocks = stream.layout.groups * ceil_div(self.seq, self.design.shape.lanes)
            return self.seq / self.tiles * blocks
        if stream.kind not in ("rows", "exponents"):
            return 0.0
        rows = 1.0 if stream.one_row else self.seq / self.tiles
        return rows * stream.tokens_per_row(self.design.shape)

    def _streaming(self, stage: Stage) -> list[str]:
        return [n for i, n in enumerate(stage.inputs) if i not in stage.whole_first]

    # -- time -------------------------------------------------------------------------------

    def _source(self, port: Port) -> None:
        """Rows that a port reads: inputs in order, tables row by row."""
        (name,) = port.streams
        if port.role not in ("rows", "table"):
            return
        rows = self.seq / self.tiles
        if port.role == "table":
            words = int(port.config["row_words"])
            per_row = words * self.beat
            if "ids" in port.config:  # a burst of its own, whose latency is not hidden, behind its id
                per_row += self.latency + READ_DEPTH + LOOP_OVERHEAD + pipelined(1, READ_DEPTH)
            per_tile = rows * per_row
        else:
            per_tile = rows * port.words / (self.design.shape.max_batch * self.design.shape.max_seq)
        count = self.batch * self.tiles
        self.arrival[name] = [self.latency + per_tile * (i + 1) for i in range(count)]

    def _step(self, stage: Stage, step: int) -> None:
        work = self.works[stage.name]
        free = self.through.get(stage.name, 0.0) + work.load + (work.first if step == 0 else 0.0)
        joined = self.joined.get(stage.name, 0.0)
        inputs = [self._given(stage, name, step) for name in stage.inputs]
        tiles = self.tiles_of(stage)
        done: Arrivals = []
        for b in range(self.batch):
            span = slice(b * tiles, (b + 1) * tiles)
            for i in stage.whole_first:
                each = self._tokens(self.design.streams[stage.inputs[i]])
                for there in (inputs[i] or [])[span]:
                    free = max(free + each, there + work.hop)
            streaming = [x for i, x in enumerate(inputs) if x and i not in stage.whole_first]
            for t in range(tiles):
                there = max((self._of_tile(x, b, t, tiles) for x in streaming), default=0.0)
                joined = max(joined + work.front, there)
                free = max(free + work.fill, joined + work.hop) + work.work
                done.append(free)
        self.through[stage.name], self.joined[stage.name] = free, joined
        self.busy[stage.name] = self.busy.get(stage.name, 0.0) + len(done) * max(
            work.front, work.fill + work.work
        )
        self._give(stage, step, done)

    def _of_tile(self, arrivals: Arrivals, b: int, t: int, tiles: int) -> float:
        """Arrival of tile t of sequence b, in streams that have one row or all rows a sequence."""
        per = len(arrivals) // self.batch
        return arrivals[b * per + min(t * per // tiles, per - 1)] if per else 0.0

    def _given(self, stage: Stage, name: str, step: int) -> Arrivals | None:
        if isinstance(stage, LoopEnterStage) and name != stage.inputs[0 if step == 0 else 1]:
            return None
        return self.arrival.get(name)

    def _give(self, stage: Stage, step: int, done: Arrivals) -> None:
        if isinstance(stage, SelectRowStage):
            row = stage.row if stage.row >= 0 else self.seq + stage.row
            tile = row // self.design.shape.tile
            done = [done[b * self.tiles + tile] for b in range(self.batch)]
        last = step + 1 == stage.steps
        for slot, name in enumerate(stage.outputs):
            if isinstance(stage, LoopExitStage) and not stage.carries(slot, last):
                continue
            self.arrival[name] = done
