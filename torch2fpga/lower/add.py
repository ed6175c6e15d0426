# SPDX-License-Identifier: Apache-2.0
"""Sums: the residual add, and sums that fold into something else (positions, masks, bias)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
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
from torch2fpga.lower.attention import mask_scores
from torch2fpga.lower.embedding import add_positions, merge_embeds
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue, Scores
from torch2fpga.simulate.fixed import saturate

aten = torch.ops.aten


def add(a: Tensor, b: Tensor) -> Tensor:
    """a + b on (batch, seq, channels)."""
    return a + b


@takes(aten.add.Tensor)
def _take(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if kwargs.get("alpha", 1) != 1:
        raise Refused("add with alpha other than 1")
    a, b = args
    if isinstance(b, Scores) or (isinstance(a, Const) and isinstance(b, RowValue)):
        a, b = b, a
    if isinstance(a, Scores):
        return mask_scores(a, b)
    if isinstance(a, RowValue) and isinstance(b, Const):
        return add_positions(ctx, node, a, b)
    if not isinstance(a, RowValue) or not isinstance(b, RowValue):
        raise Refused("adds something that is not the model's data")
    same_rows = a.dims[:-1] == b.dims[:-1] and (a.batch, a.seq) == (b.batch, b.seq)
    if not (a.channels_last() and b.channels_last() and same_rows and a.width == b.width):
        raise Refused(f"adds {a.shape} and {b.shape}, whose rows or channels are arranged differently")
    merged = merge_embeds(ctx, node, a, b)
    if merged is not None:
        return merged
    return RowValue(ctx.emit(node, add, [a.node, b.node]), a.dims, a.batch, a.seq, a.channels)


def _quantise(q: Any, node: Node) -> None:
    node.meta["data"] = {}


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x, y = (b.demand(a, "wide") for a in node.args)
    if b.layout(x) != b.layout(y):
        x, y = (b.demand(a, "wide", b.closed(a)) for a in node.args)
    layout, name = b.layout(x), b.name(node)
    out = b.wide(f"{name}_sum", layout, node)
    stage = AddStage(
        **b.common(node, name, (x, y), (out,)),
        layout=layout,
        element=b.element(out),
        bits=node.meta["formats"]["wide"].bits,
    )
    b.add(stage, [{} for _ in nodes])
    return out


operator(Operator("add", add, ("wide", "wide"), "wide", _quantise, _lower))


@dataclass(frozen=True)
class AddStage(Stage):
    """saturate(a + b), one format for all three. Cycles: one loop ADD of steps * batch * seq * blocks."""

    layout: Layout = SCALAR
    element: str = "int16"
    bits: int = 16

    template: ClassVar[str] = "add"
    header: ClassVar[str] = "elementwise.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        row = self.rows(self.element, self.layout)
        return [row, row], [row]

    def config(self, design: Design) -> dict[str, Any]:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        rows = s.max_batch * (1 if self.one_row else s.max_seq)
        return {
            "value_t": f"{self.element}_t",
            "bits": self.bits,
            "blocks": blocks,
            "max_tokens": self.steps * rows * blocks,
        }

    def result_bits(self) -> int:
        return self.bits

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        return [saturate(inputs[0].to(torch.int32) + inputs[1], self.bits)]

    def cost(self, design: Design) -> Estimate:
        s, bits = design.shape, 8 * ELEMENTS[self.element][1]
        blocks = self.layout.blocks(s.lanes)
        lane = costs.add(bits + 1) + costs.saturate(bits + 1, self.bits)
        ends = costs.times(2, costs.port(s.lanes * bits)) + costs.port(0)
        control = costs.loop() + costs.launch_size(self.steps * blocks)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(s.lanes, lane), ends, control
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, blocks = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes)
        return pipelined(self.steps * batch * rows * blocks, depth("ADD"))
