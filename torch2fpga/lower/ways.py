# SPDX-License-Identifier: Apache-2.0
"""Stages that may work on fewer channels a cycle than a token has: less hardware, more cycles."""

from __future__ import annotations

from dataclasses import dataclass

from torch2fpga import costs
from torch2fpga.design import Design, Estimate, Stage
from torch2fpga.errors import DesignError

#: channels a cycle that a stage may be made for
WAYS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class WaysStage(Stage):
    """A stage that works on ``ways`` channels a cycle, so that a token takes ``parts`` iterations.

    Attributes:
        ways: 1, 2, 4, 8 or 16; more than the lanes of a token counts as all of them.
    """

    ways: int = 16

    def __post_init__(self) -> None:
        if self.ways not in WAYS:
            raise DesignError(f"{self.name}: a stage works on {WAYS} channels a cycle, not on {self.ways}")

    def width(self, design: Design) -> int:
        """Channels a cycle."""
        return min(self.ways, design.shape.lanes)

    def parts(self, design: Design) -> int:
        """Iterations that a token takes."""
        return design.shape.lanes // self.width(design)

    def parts_cost(self, design: Design, in_bits: int, out_bits: int) -> Estimate:
        """What holds a token while its parts pass: the choice between a new one and one that moves down,
        the result that moves in, and the part's number. Nothing where a token is one part."""
        lanes = design.shape.lanes
        if self.parts(design) == 1:
            return Estimate()
        token = costs.select(lanes * in_bits) + costs.register(lanes * (in_bits + out_bits))
        return token + costs.counter(4)
