# SPDX-License-Identifier: Apache-2.0
"""Join the channels of a linear layer that several arrays make: output blocks in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import SCALAR, Depths, Design, Estimate, Layout, Stage, Tokens, pipelined
from torch2fpga.errors import DesignError

#: most inputs of a stage
MOST = 16


@dataclass(frozen=True)
class GatherStage(Stage):
    """Channel blocks of int32 rows from one input after the other.

    Of ``n`` inputs, number i carries blocks i, i + n, i + 2 n ...; blocks need not divide evenly.
    Cycles: one loop GATHER of steps * batch * seq * blocks.

    Attributes:
        layout: of the output.
        lanes: channels a block, ``Shape.lanes`` of the design.
    """

    layout: Layout = SCALAR
    lanes: int = 16

    template: ClassVar[str] = "gather_blocks"
    header: ClassVar[str] = "gather.hpp"

    def __post_init__(self) -> None:
        blocks = self.layout.blocks(self.lanes)
        if not 2 <= len(self.inputs) <= min(MOST, max(2, blocks)):
            raise DesignError(
                f"{self.name} gathers {blocks} blocks from {len(self.inputs)} inputs: it takes 2 to {MOST}, "
                "and no more than blocks"
            )

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        counts = blocks_of(self.layout.blocks(self.lanes), len(self.inputs))
        inputs = [self.rows("int32", Layout(1, count * self.lanes)) for count in counts]
        return inputs, [self.rows("int32", self.layout)]

    def arguments(self) -> list[str]:
        return [*self.outputs, *self.runtime_arguments(), *self.inputs]

    def config(self, design: Design) -> dict[str, Any]:
        found: dict[str, Any] = {"tile": 1} if self.one_row else {}
        return {**found, "blocks": self.layout.blocks(design.shape.lanes)}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        given = [x for x in inputs if x is not None]
        assert len(given) == len(self.inputs)
        blocks = self.layout.blocks(self.lanes)
        parts = [x.reshape(*x.shape[:-1], -1, self.lanes) for x in given]
        turns = [parts[i % len(parts)][..., i // len(parts), :] for i in range(blocks)]
        rows = torch.cat(turns, -1)
        grouped = rows.reshape(*rows.shape[:-1], self.layout.groups, -1)
        return [grouped[..., : self.layout.size].reshape(*rows.shape[:-1], self.layout.channels)]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, blocks = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes)
        return pipelined(self.steps * batch * rows * blocks, depth("GATHER"))

    def cost(self, design: Design) -> Estimate:
        count, bits = len(self.inputs), design.shape.lanes * 32
        blocks = self.layout.blocks(design.shape.lanes)
        walk = costs.loop() + costs.place(design.shape.tile, blocks) + costs.launch_size(self.steps * blocks)
        ends = costs.times(count, costs.port(0)) + costs.port(bits)
        return replace(
            walk + costs.counter(4) + costs.select(bits, count) + ends, cycles=self.nominal_cycles(design)
        )


def blocks_of(blocks: int, inputs: int) -> list[int]:
    """How many of ``blocks`` channel blocks each of ``inputs`` inputs carries, taken in turn."""
    return [(blocks - i + inputs - 1) // inputs for i in range(inputs)]
