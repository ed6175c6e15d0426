# SPDX-License-Identifier: Apache-2.0
"""Dynamic quantisation: every row gets the smallest power-of-two exponent that fits int8 around a
fixed zero point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga.design import SCALAR, Depths, Design, Estimate, Layout, Stage, Tokens, ceil_div, tiled
from torch2fpga.simulate.fixed import fitting_exponent, round_shift, saturate


@dataclass(frozen=True)
class QuantizeRowsStage(Stage):
    """int32 rows to int8 rows and one exponent a row.

    Cycles of a tile of n rows: FILL of blocks * n, EXPONENT of n, DRAIN of blocks * n.
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
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        x = inputs[0].to(torch.int64)
        above = fitting_exponent(x.amax(-1).clamp(min=0), 127 + self.zero_point)
        below = fitting_exponent((-x.amin(-1)).clamp(min=0), 127 - self.zero_point)
        exponent = torch.maximum(above, below)
        y = saturate(round_shift(x, exponent[..., None]) - self.zero_point, 8)
        return [y.to(torch.int32), exponent.to(torch.int32)]

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        blocks = self.layout.blocks(s.lanes)
        return Estimate(
            lut=s.lanes * (45 + 90 + 34),
            ff=s.lanes * 96,
            bram18=ceil_div(s.lanes * 32, 36) * ceil_div(blocks * s.tile, 512),
            cycles=self.nominal_cycles(design),
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, rows = design.shape, 1 if self.one_row else seq
        loops = {"FILL": self.layout.blocks(s.lanes), "EXPONENT": 1, "DRAIN": self.layout.blocks(s.lanes)}
        sequence = sum(tiled(rows, s.tile, per_row, depth(label)) for label, per_row in loops.items())
        return self.steps * batch * sequence
