# SPDX-License-Identifier: Apache-2.0
"""Dynamic quantisation: every row gets the smallest power-of-two exponent that fits int8 around a
fixed zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import (
    SCALAR,
    Depths,
    Design,
    Estimate,
    Fifo,
    Front,
    Layout,
    Tokens,
    pipelined,
)
from torch2fpga.lower.ways import WaysStage
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.simulate.fixed import fitting_exponent, round_shift, saturate

#: tokens that pass between a row's last one and its exponent, at a token a cycle
SLACK = 32


@dataclass(frozen=True)
class QuantizeRowsStage(WaysStage):
    """int32 rows to int8 rows and one exponent a row; the process in front finds the exponents.

    Cycles of a launch: FILL in front, DRAIN, steps * batch * seq * blocks * lanes / ways iterations each.
    """

    layout: Layout = SCALAR
    zero_point: int = 0

    template: ClassVar[str] = "quantize_rows"
    header: ClassVar[str] = "quantize_rows.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        exponents = Tokens("exponents", one_row=self.one_row)
        return [self.rows("int32", self.layout)], [self.rows("int8", self.layout), exponents]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {
            "blocks": self.layout.blocks(lanes),
            "group_blocks": self.layout.group_blocks(lanes),
            "group_size": self.layout.size,
            "zero_point": self.zero_point,
            "ways": self.width(design),
        }

    def front(self, design: Design) -> Front:
        """The process that finds exponents. A row's is there when its last block has passed, so the FIFO
        of tokens holds a tile, and what comes in before the exponent arrives behind it."""
        lanes = design.shape.lanes
        rows = 1 if self.one_row else design.shape.tile
        return Front(
            f"{self.name}_exponents", "row_exponents", f"{self.name}_held", f"t2f::vec<int32_t, {lanes}>",
            4 * lanes, rows * self.layout.blocks(lanes) + SLACK,
            Fifo(f"{self.name}_fitting", "int8_t", 1, max(2, 2 * rows)),
        )  # fmt: skip

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        x = inputs[0].to(torch.int64)
        above = fitting_exponent(x.amax(-1).clamp(min=0), 127 + self.zero_point)
        below = fitting_exponent((-x.amin(-1)).clamp(min=0), 127 - self.zero_point)
        exponent = torch.maximum(above, below)
        y = saturate(round_shift(x, exponent[..., None]) - self.zero_point, 8)
        return [y.to(torch.int32), exponent.to(torch.int32)]

    def cost(self, design: Design) -> Estimate:
        s, ways = design.shape, self.width(design)
        blocks = self.layout.blocks(s.lanes)
        sides = costs.times(ways, costs.add(32) + costs.times(2, costs.select(32)))
        one = costs.maximum_tree(ways, 32) + costs.larger(32) + costs.registers(s.tile, 32)
        fitting = costs.top_bit(32) + costs.round_shift(64) + costs.compare(64) + costs.add(6)
        way = costs.round_shift(64) + costs.add(33) + costs.saturate(33, 8)
        drain = costs.times(ways, way) + costs.registers(s.tile, 6) + costs.shift(64, 64)
        walk = costs.loop() + costs.place(s.tile, blocks) + costs.launch_size(self.steps * blocks)
        control = costs.times(2, walk) + costs.counter(16)
        parts = self.parts_cost(design, 32, 0) + self.parts_cost(design, 32, 8)
        ends = costs.times(2, costs.port(s.lanes * 32)) + costs.port(s.lanes * 8) + costs.port(8)
        between = [fifo_cost(fifo.depth, fifo.token_bytes) for fifo in self.front(design).fifos]
        exponents = costs.times(2, one + fitting) + costs.larger(6)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            sides, exponents, drain, control, parts, ends, *between
        )

    def _iterations(self, design: Design, batch: int, seq: int) -> int:
        rows, blocks = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes)
        return self.steps * batch * rows * blocks * self.parts(design)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(self._iterations(design, batch, seq), depth("DRAIN"))

    def front_cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(self._iterations(design, batch, seq), depth("FILL"))
