# SPDX-License-Identifier: Apache-2.0
"""Rows whose channels lie in groups with gaps between them (attention heads), and rows without gaps.

Attention works on whole tokens for each head. Linear layers write and read any layout at no cost
(their weights are put in the same order), and what works channel by channel keeps the layout that
it gets; a stage that counts channels through, or two values that meet, may need another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import (
    ELEMENTS,
    SCALAR,
    Depths,
    Design,
    Estimate,
    Layout,
    Stage,
    Tokens,
    pipelined,
)
from torch2fpga.passes.nodes import Node

if TYPE_CHECKING:
    from torch2fpga.lower.builder import Builder


def regrouped(b: Builder, node: Node, stream: str, layout: Layout) -> str:
    """The stream with the same rows in another layout; itself where the tokens are the same.

    Args:
        node: whose value it is.
        layout: of as many channels as the stream's.
    """
    have, lanes = b.streams[stream].layout, b.shape.lanes
    if have.in_tokens(lanes) == layout.in_tokens(lanes):
        return stream
    if (stream, layout) in b.regrouped:
        return b.regrouped[stream, layout]
    if have.closed not in (have.in_tokens(lanes), layout.in_tokens(lanes)):
        return regrouped(b, node, regrouped(b, node, stream, have.closed), layout)
    like = b.streams[stream]
    out = b.stream(f"{stream}_{'closed' if layout.groups == 1 else 'heads'}", "rows", element=like.element,
                   layout=layout, one_row=like.one_row)  # fmt: skip
    common = b.common(node, b.unique(f"{out}_regroup"), (stream,), (out,))
    stage = RegroupStage(**common, layout_in=have, layout=layout, element=like.element)
    b.add(stage, [{} for _ in range(stage.steps)])
    if stream in b.native:
        b.native[out] = b.native[stream]
    b.regrouped[stream, layout] = out
    return out


@dataclass(frozen=True)
class RegroupStage(Stage):
    """Gaps between groups of channels taken out (``close_groups``) or put in (``open_groups``).

    Cycles: one loop, CLOSE or OPEN, of steps * batch * seq * (groups * group_blocks + lag). Closing lags
    by a block (lag 1) where the last group's last block fills a token and begins another.
    """

    layout_in: Layout = SCALAR
    layout: Layout = SCALAR
    element: str = "int16"

    header: ClassVar[str] = "flow.hpp"
    hold: ClassVar[str] = "tile"

    @property
    def closes(self) -> bool:
        """Are the gaps taken out?"""
        return self.layout.groups == 1

    @property
    def template(self) -> str:  # type: ignore[override]
        return "close_groups" if self.closes else "open_groups"

    @property
    def grouped(self) -> Layout:
        """The layout of the side that has gaps."""
        return self.layout_in if self.closes else self.layout

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        sides = {True: self.grouped.closed, False: self.grouped}
        return [self.rows(self.element, sides[not self.closes])], [
            self.rows(self.element, sides[self.closes])
        ]

    def config(self, design: Design) -> dict[str, Any]:
        return {
            "value_t": f"{self.element}_t",
            "groups": self.grouped.groups,
            "group_size": self.grouped.size,
            "group_blocks": self.grouped.group_blocks(design.shape.lanes),
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]]

    def cost(self, design: Design) -> Estimate:
        s, bits = design.shape, 8 * ELEMENTS[self.element][1]
        token, blocks = s.lanes * bits, self.grouped.blocks(s.lanes)
        moved = costs.shift(token, s.lanes) + costs.times(2, costs.select(token))
        lanes = costs.times(s.lanes, costs.compare(s.lanes.bit_length()))
        groups = costs.times(2, costs.counter(8)) + costs.add(8)
        control = costs.loop() + costs.place(s.tile, blocks) + costs.launch_size(self.steps * blocks)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            moved, lanes, costs.registers(s.tile, token), groups, control, costs.port(token), costs.port(0)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        lanes, rows, grouped = design.shape.lanes, 1 if self.one_row else seq, self.grouped
        last = grouped.size - (grouped.group_blocks(lanes) - 1) * lanes
        lag = self.closes and (grouped.channels - last) % lanes + last > lanes
        blocks = grouped.blocks(lanes) + lag
        return pipelined(self.steps * batch * rows * blocks, depth("CLOSE" if self.closes else "OPEN"))
