# SPDX-License-Identifier: Apache-2.0
"""FIFO depths that the timed run has checked and cut to what loses no cycle.

The depths computed from the design (``plan/fifo.py``) hold for every length up to the compiled one.
Timed runs at several sizes give the most tokens that each FIFO ever holds; with that depth no write
waits longer than before, so no cycle is lost. Often less would do: a writer may be ahead without
need. So every FIFO that is more than shift registers is tried at the depths where its storage gets
cheaper, the most expensive first, and keeps the cheapest one that loses no cycle at any size.

A state of a pipeline that reads two streams takes from neither before both have a token, and one
that writes two gives to neither before both have room; the simulated process takes and gives one
after the other. Streams that are read or written together with others get one token more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch2fpga.design import Design, Estimate
from torch2fpga.errors import SimulationError
from torch2fpga.lower.rows import rows_needed
from torch2fpga.plan.fifo import storage_of
from torch2fpga.plan.storage import fifo_cost, whole_tensor
from torch2fpga.simulate.timed import Settings, TimedResult, local_name
from torch2fpga.timing.inputs import random_inputs
from torch2fpga.timing.run import cycles_of, run_timed, timed_settings

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

#: a FIFO that keeps up with one token a cycle
SMALLEST = 2
#: depths up to this cost the same (shift registers); beyond, memory comes in blocks of so many tokens
LEVEL, BLOCK = 32, 512

Size = tuple[int, int]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class FifoSize:
    """One stream.

    Attributes:
        computed: depth from the design alone.
        held: most tokens at once in any timed run.
        depth: what it gets.
        whole_tensor: depth that holds everything that passes it.
        token_bytes: width.
        storage: ``srl``, ``bram`` or ``uram``.
    """

    name: str
    computed: int
    held: int
    depth: int
    whole_tensor: int
    token_bytes: int

    @property
    def storage(self) -> str:
        return storage_of(self.depth, self.token_bytes)


@dataclass(frozen=True)
class FifoReport:
    """Result of ``CompiledModel.shrink_fifos``.

    Attributes:
        model: the same model with the new depths.
        streams: one row a stream.
        cycles: (batch, tokens) -> cycles before and after.
        loss: share of the cycles that was allowed to be lost.
        runs: timed runs that it took.
    """

    model: CompiledModel
    streams: tuple[FifoSize, ...]
    cycles: Mapping[Size, tuple[int, int]]
    loss: float
    runs: int

    def cost(self, which: str) -> Estimate:
        """LUTs, BRAM18s and URAMs of all FIFOs at depth ``computed``, ``depth`` or ``whole_tensor``."""
        total = Estimate()
        for s in self.streams:
            total = total + fifo_cost(int(getattr(s, which)), s.token_bytes)
        return total

    def bytes(self, which: str) -> int:
        """Bytes that all FIFOs hold at that depth."""
        return sum(int(getattr(s, which)) * s.token_bytes for s in self.streams)

    def __str__(self) -> str:
        from torch2fpga.timing.show import cut_text

        return cut_text(self)


def shrink_fifos(
    model: CompiledModel,
    *,
    loss: float = 0.0,
    sizes: Sequence[Size] | None = None,
    progress: Progress | None = None,
) -> FifoReport:
    """See ``CompiledModel.shrink_fifos``."""
    if not 0 <= loss < 1:
        raise ValueError(f"loss is a share of the cycles, 0 <= loss < 1, not {loss}")
    search = _Search(model, tuple(sizes or default_sizes(model.design)), loss, progress)
    return search.run()


def default_sizes(design: Design) -> tuple[Size, ...]:
    """Sizes that are timed: the largest, one sequence, and lengths that tiles do not divide."""
    s = design.shape
    least = rows_needed(design)
    wanted = [
        (1, s.max_seq),
        (s.max_batch, s.max_seq),
        (1, 1),
        (1, s.tile + 1),
        (1, s.max_seq // 2 + 1),
        (s.max_batch, 3),
    ]
    fitting = [(b, min(max(n, least), s.max_seq)) for b, n in wanted]
    return tuple(dict.fromkeys(fitting))


def cheaper(depth: int, token_bytes: int) -> list[int]:
    """Depths below ``depth`` at which the storage of a FIFO gets cheaper, smallest first."""
    if storage_of(depth, token_bytes) == "srl":
        return []
    return [LEVEL, *range(BLOCK, depth, BLOCK)]


class _Search:
    """One shrinking: timed runs at all sizes, and the depths so far."""

    def __init__(
        self, model: CompiledModel, sizes: tuple[Size, ...], loss: float, progress: Progress | None
    ) -> None:
        self.model, self.sizes, self.loss = model, sizes, loss
        self.settings = timed_settings(model, model.board.clock_mhz)
        # Times do not depend on values: no loop of a stage does.
        self.inputs = {
            size: model.interface.bind((), random_inputs(model, *size), model.design) for size in sizes
        }
        self.say = progress or (lambda _text, _done: None)
        self.runs = 0
        #: AXI streams between kernels have a fixed short FIFO
        self.streams = {n: s for n, s in model.design.streams.items() if not s.link}

    def run(self) -> FifoReport:
        before, held = self._base()
        depths = {n: self._first(n, held.get(n, 0)) for n in self.streams}
        self.say("checking the depths that were held", 0.25)
        after = {size: self._cycles(size, depths) for size in self.sizes}
        for size in self.sizes:
            if after[size] is None or after[size] != before[size]:
                raise SimulationError(f"depths that were held lose cycles at {size}: {before} {after}")
        depths = self._cut(depths, before)
        self.say("checking all sizes", 0.95)
        cycles = {}
        for size in self.sizes:
            found = self._cycles(size, depths)
            assert found is not None  # _cut keeps only depths that run at every size
            cycles[size] = (before[size], found)
        return self._report(depths, held, cycles)

    def _time(self, size: Size, fifos: Mapping[str, int]) -> TimedResult:
        self.runs += 1
        settings: Settings = replace(self.settings, fifos=dict(fifos))
        return run_timed(self.model, self.inputs[size], settings)

    def _cycles(self, size: Size, fifos: Mapping[str, int]) -> int | None:
        """Cycles, or None where the depths deadlock."""
        result = self._time(size, fifos)
        return None if result.message else int(result.report["cycles"])

    def _base(self) -> tuple[dict[Size, int], dict[str, int]]:
        """Cycles and most tokens held with the computed depths."""
        cycles: dict[Size, int] = {}
        held: dict[str, int] = {}
        for i, size in enumerate(self.sizes):
            self.say(f"timed run of {size[0]} x {size[1]} tokens", 0.2 * i / len(self.sizes))
            result = self._time(size, {})
            cycles[size] = cycles_of(result)
            for stream in result.report["streams"]:
                name = local_name(stream["key"])
                held[name] = max(held.get(name, 0), int(stream["high_water"]))
        return cycles, held

    def _first(self, name: str, held: int) -> int:
        """The depth that holds what was held, and the margin of streams used together."""
        return min(self.streams[name].depth, max(SMALLEST, held + self._margin(name)))

    def _margin(self, name: str) -> int:
        for stage in self.model.design.stages:
            if (name in stage.inputs and len(stage.inputs) > 1) or (
                name in stage.outputs and len(stage.outputs) > 1
            ):
                return 1
        return 0

    def _cut(self, depths: dict[str, int], before: Mapping[Size, int]) -> dict[str, int]:
        """Try FIFOs at the depths where their storage gets cheaper, the most expensive first."""
        width = self.model.design.shape.lanes
        wide = [n for n, s in self.streams.items() if cheaper(depths[n], s.token_bytes(width))]
        wide.sort(key=lambda n: (-depths[n] * self.streams[n].token_bytes(width), n))
        for i, name in enumerate(wide):
            self.say(f"trying {name} smaller", 0.3 + 0.6 * i / len(wide))
            levels = [*cheaper(depths[name], self.streams[name].token_bytes(width)), depths[name]]
            low, high = -1, len(levels) - 1  # the last one is known to do
            while high - low > 1:
                middle = (low + high) // 2
                if self._allowed({**depths, name: levels[middle]}, before):
                    high = middle
                else:
                    low = middle
            depths = {**depths, name: levels[high]}
        return depths

    def _allowed(self, depths: Mapping[str, int], before: Mapping[Size, int]) -> bool:
        for size in self.sizes:
            cycles = self._cycles(size, depths)
            if cycles is None or cycles > before[size] * (1 + self.loss):
                return False
        return True

    def _report(
        self, depths: Mapping[str, int], held: Mapping[str, int], cycles: Mapping[Size, tuple[int, int]]
    ) -> FifoReport:
        from torch2fpga.compiled import CompiledModel

        design, m = self.model.design, self.model
        lanes = design.shape.lanes
        streams = {n: replace(s, depth=depths.get(n, s.depth)) for n, s in design.streams.items()}
        smaller = CompiledModel(
            replace(design, streams=streams), m.data, m.interface, m.output, m.board, m.origin
        )
        rows = tuple(
            FifoSize(n, s.depth, held.get(n, 0), depths[n], whole_tensor(design, s), s.token_bytes(lanes))
            for n, s in self.streams.items()
        )
        return FifoReport(smaller, rows, cycles, self.loss, self.runs)
