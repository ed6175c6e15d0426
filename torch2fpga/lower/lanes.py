# SPDX-License-Identifier: Apache-2.0
"""Linear layers that share one array of lanes, a lane beside each memory port.

Decoding at batch 1 is a chain of matrix-vector products: with an array for each layer all ports but one
layer's stand idle. Here all layers of a block, and those behind the layer loop, use the same lanes in
turn, so that every port brings the weights of whatever is at work, or of what comes next.
The layers themselves stay in ``Design.logic``: they say what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import (
    WORDS,
    Depths,
    Design,
    Estimate,
    Stage,
    Tokens,
    ceil_div,
    pipelined,
)
from torch2fpga.errors import DesignError
from torch2fpga.lower.gather import blocks_of
from torch2fpga.lower.linear4 import BEAT_GROUPS, LANES, int4_array

#: what the lanes hand on, and what they give
TILES, SUMS = Tokens("tiles"), Tokens("sums")


@dataclass(frozen=True)
class LanesPart(Stage):
    """What the stages of the lanes have in common: the uses, those of a step and then those behind the loop.

    Attributes:
        in_blocks, out_blocks: channel blocks of every use.
        loop_uses: how many of them are in the loop.
        count: lanes.
        group_blocks: input blocks that share a scale (int4 weights), 0 with int8 weights.
    """

    in_blocks: tuple[int, ...] = ()
    out_blocks: tuple[int, ...] = ()
    loop_uses: int = 0
    count: int = 1
    group_blocks: int = 0

    header: ClassVar[str] = "lanes.hpp"
    #: its pipelined loop
    label: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if len(self.in_blocks) != len(self.out_blocks) or not 0 < self.loop_uses <= len(self.in_blocks):
            raise DesignError(f"{self.name}: {self.loop_uses} of {len(self.in_blocks)} uses are in the loop")
        if not 1 <= self.count <= min(self.out_blocks):
            raise DesignError(
                f"{self.name}: a layer makes {min(self.out_blocks)} channel blocks for {self.count} lanes"
            )

    def runtime_arguments(self) -> list[str]:
        return ["seq"]

    def sizes(self) -> dict[str, Any]:
        """Members that all of them share."""
        after = len(self.in_blocks) - self.loop_uses
        return {"loop_uses": self.loop_uses, "after_uses": after, "in_blocks": self.in_blocks}

    def config(self, design: Design) -> dict[str, Any]:
        return {**self.sizes(), "out_blocks": self.out_blocks}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        raise DesignError(f"{self.name}: the layers that share it are the reference")

    def uses(self, seq: int) -> list[tuple[int, int]]:
        """(use, rows) of a turn, in order."""
        after = range(self.loop_uses, len(self.in_blocks))
        return [(u, seq) for _ in range(self.steps) for u in range(self.loop_uses)] + [(u, 1) for u in after]

    def iterations(self, design: Design, use: int, rows: int) -> int:
        """Of its loop in a use."""
        raise NotImplementedError

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        each = depth(self.label)
        return sum(pipelined(self.iterations(design, u, rows), each) for u, rows in self.uses(seq))


@dataclass(frozen=True)
class LanesSelectStage(LanesPart):
    """The input of every use, rows of a tile side by side. Inputs: one a use."""

    template: ClassVar[str] = "lanes_select"
    label: ClassVar[str] = "JOIN"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [Tokens("any")] * len(self.inputs), [TILES]

    def arguments(self) -> list[str]:
        return [*self.outputs, *self.runtime_arguments(), *self.inputs]

    def config(self, design: Design) -> dict[str, Any]:
        return {**self.sizes(), "most_in": max(self.in_blocks)}

    def iterations(self, design: Design, use: int, rows: int) -> int:
        return rows * self.in_blocks[use]

    def cost(self, design: Design) -> Estimate:
        lanes, rows = design.shape.lanes, design.shape.tile
        ends = costs.times(len(self.inputs), costs.port(0)) + costs.port(rows * lanes * 8)
        walk = costs.loop() + costs.row_walk() + costs.multiply(16, 16, 32)
        held = costs.register(rows * lanes * 8) + costs.select(lanes * 8, len(self.inputs))
        return replace(ends + walk + held, cycles=self.nominal_cycles(design))


@dataclass(frozen=True)
class LaneStage(LanesPart):
    """Lane ``number``: output blocks number, number + count, ... of every use, weights a word a cycle.

    Inputs: tiles, words. Outputs: tiles for the next lane (not of the last one), sums.
    """

    number: int = 0

    label: ClassVar[str] = "REDUCE"

    @property
    def template(self) -> str:  # type: ignore[override]
        return "lane4" if self.group_blocks else "lane"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [TILES, WORDS], [*([TILES] if len(self.outputs) == 2 else []), SUMS]

    def columns(self, design: Design) -> int:
        """Output channels of a word."""
        return (128 if self.group_blocks else 64) // design.shape.lanes

    def own_blocks(self) -> tuple[int, ...]:
        """Output blocks of every use that this lane makes."""
        return tuple(blocks_of(blocks, self.count)[self.number] for blocks in self.out_blocks)

    def beats(self) -> tuple[int, ...]:
        """Words of a part of every use."""
        if not self.group_blocks:
            return self.in_blocks
        return tuple(n + ceil_div(n, BEAT_GROUPS * self.group_blocks) for n in self.in_blocks)

    def words(self, design: Design) -> tuple[int, ...]:
        """Words of a tile of every use."""
        parts = design.shape.lanes // self.columns(design)
        return tuple(b * n * parts for b, n in zip(self.beats(), self.own_blocks(), strict=True))

    def places(self, design: Design) -> tuple[int, ...]:
        """Iterations of a tile of every use."""
        parts, tile = design.shape.lanes // self.columns(design), design.shape.tile
        return tuple(max(b, tile) * n * parts for b, n in zip(self.beats(), self.own_blocks(), strict=True))

    def config(self, design: Design) -> dict[str, Any]:
        found = {**self.sizes(), "out_blocks": self.own_blocks(), "most_in": max(self.in_blocks)}
        found["most_places"] = max(self.places(design))
        if self.group_blocks:
            found |= {"beats": self.beats(), "group_blocks": self.group_blocks}
        return found

    def iterations(self, design: Design, use: int, rows: int) -> int:
        return ceil_div(rows, design.shape.tile) * self.places(design)[use] + rows

    def cost(self, design: Design) -> Estimate:
        s, columns = design.shape, self.columns(design)
        in_blocks = max(self.in_blocks)
        if not self.group_blocks:
            array = costs.matmul_cost(s.tile, columns, s.lanes, in_blocks, 1, streamed=True)
        else:
            x = costs.times(s.tile, costs.bram(in_blocks, LANES * 8))
            result = costs.registers(s.tile, LANES * 32) + costs.register(s.tile * columns * 32)
            control = costs.times(2, costs.loop()) + costs.row_walk() + costs.times(7, costs.counter(16))
            control += costs.select(BEAT_GROUPS * columns * 8)
            ends = costs.port(s.tile * LANES * 8) + costs.port(512) + costs.port(LANES * 32)
            scales = costs.register(512) + costs.register(BEAT_GROUPS * columns * 8)
            array = costs.total(int4_array(s.tile, columns, LANES), x, result, control, ends, scales)
        sizes = costs.times(3, costs.select(16, len(self.in_blocks))) + costs.multiply(32, 32, 32)
        return replace(
            costs.total(array, sizes, costs.port(s.tile * s.lanes * 8)), cycles=self.nominal_cycles(design)
        )


@dataclass(frozen=True)
class LanesGatherStage(LanesPart):
    """Output blocks from one lane after the other."""

    template: ClassVar[str] = "lanes_gather"
    label: ClassVar[str] = "GATHER"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [SUMS] * len(self.inputs), [SUMS]

    def arguments(self) -> list[str]:
        return [*self.outputs, *self.runtime_arguments(), *self.inputs]

    def config(self, design: Design) -> dict[str, Any]:
        return {**super().config(design), "most_out": max(self.out_blocks)}

    def iterations(self, design: Design, use: int, rows: int) -> int:
        return rows * self.out_blocks[use]

    def cost(self, design: Design) -> Estimate:
        bits, many = design.shape.lanes * 32, max(len(self.inputs), len(self.outputs))
        ends = costs.times(many, costs.port(0)) + costs.port(bits)
        walk = costs.loop() + costs.row_walk() + costs.counter(5) + costs.multiply(16, 16, 32)
        choice = costs.select(bits, len(self.inputs)) if len(self.inputs) > 1 else Estimate()
        return replace(ends + walk + choice, cycles=self.nominal_cycles(design))


@dataclass(frozen=True)
class LanesDealStage(LanesGatherStage):
    """The sums of every use on their way: to the kernels that work on them, or in one of these to the
    streams behind the layers.

    Attributes:
        slots: output of every use; -1 where it does not come here.
    """

    slots: tuple[int, ...] = ()

    template: ClassVar[str] = "lanes_deal"
    label: ClassVar[str] = "DEAL"

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = set(range(len(self.outputs)))
        if len(self.slots) != len(self.out_blocks) or set(self.slots) - {-1} != wanted:
            raise DesignError(f"{self.name} deals to {len(self.outputs)} outputs, not as {self.slots} says")

    def here(self) -> tuple[int, ...]:
        """Blocks of every use that come here."""
        return tuple(n if s >= 0 else 0 for n, s in zip(self.out_blocks, self.slots, strict=True))

    def config(self, design: Design) -> dict[str, Any]:
        found = {**super().config(design), "out_blocks": self.here(), "slots": self.slots}
        return {k: v for k, v in found.items() if k != "in_blocks"}

    def iterations(self, design: Design, use: int, rows: int) -> int:
        return rows * self.here()[use]

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [SUMS], [Tokens("any")] * len(self.outputs)

    def arguments(self) -> list[str]:
        return [*self.inputs, *self.runtime_arguments(), *self.outputs]
