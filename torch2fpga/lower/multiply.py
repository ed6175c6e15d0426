# SPDX-License-Identifier: Apache-2.0
"""Elementwise product of two values, with a table function on the first one where it has one: the gate of
SwiGLU and its relatives, silu(gate) * up (Shazeer, GLU Variants Improve Transformer, 2020)."""

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
    Layout,
    Tokens,
    pipelined,
)
from torch2fpga.lower.activation import activation, function_cost, table_function
from torch2fpga.lower.registry import Operator, operator
from torch2fpga.lower.ways import WaysStage
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Refused, RowValue
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import round_shift

#: no function in front of the product
IDENTITY = "identity"
#: bits of an exact product (24 by 16) that are rounded off, so that int32 holds it
PRODUCT_SHIFT = 8


def multiply(a: Tensor, b: Tensor, kind: str = IDENTITY) -> Tensor:
    """kind(a) * b on (batch, seq, channels); ``kind`` is a function of ``activation`` or identity."""
    return (a if kind == IDENTITY else activation(a, kind)) * b


def product(ctx: Any, node: Node, a: Any, b: Any) -> RowValue:
    """``a * b``, both the model's data: called by the handler of products in scale.py."""
    if not isinstance(a, RowValue) or not isinstance(b, RowValue):
        raise Refused("an elementwise product of something that is not the model's data")
    same_rows = a.dims[:-1] == b.dims[:-1] and (a.batch, a.seq) == (b.batch, b.seq)
    if not (a.channels_last() and b.channels_last() and same_rows and a.width == b.width):
        raise Refused(f"multiplies {a.shape} and {b.shape}, whose rows or channels are arranged differently")
    first, second = a, b
    if b.node.target is activation and a.node.target is not activation:
        first, second = b, a
    source, kind = first.node, IDENTITY
    if source.target is activation:  # the node itself is dropped where nobody else reads it
        source, kind = source.args[0], source.kwargs["kind"]
    out = ctx.emit(node, multiply, [source, second.node], {"kind": kind})
    return RowValue(out, a.dims, a.batch, a.seq, a.channels)


def product_scale(factor: Tensor) -> Tensor:
    """Real value of one unit of a product.

    Args:
        factor: (channels,) that of the second operand.
    """
    return factor * 2.0 ** (PRODUCT_SHIFT - tables.FRACTION_BITS)


def _quantise(q: Any, node: Node) -> None:
    scale = product_scale(q.format(node.args[1], "factor").scale)
    node.meta["affine"] = (scale, torch.zeros_like(scale))
    node.meta["data"] = {}


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x, y = b.demand(node.args[0], "act"), b.demand(node.args[1], "factor")
    if b.layout(x) != b.layout(y):
        closed = b.closed(node)
        x, y = b.demand(node.args[0], "act", closed), b.demand(node.args[1], "factor", closed)
    layout, name = b.layout(x), b.name(node)
    out = b.raw(f"{name}_product", layout, node)
    stage = MultiplyStage(**b.common(node, name, (x, y), (out,)), layout=layout, kind=node.kwargs["kind"])
    b.add(stage, [{} for _ in nodes])
    return out


operator(Operator("multiply", multiply, ("act", "factor"), "raw", _quantise, _lower))


@dataclass(frozen=True)
class MultiplyStage(WaysStage):
    """round(kind(a) * b / 2^8): a of 24 bits with 14 fraction bits, b int16.

    Cycles: one loop MULTIPLY of steps * batch * seq * blocks * lanes / ways.
    """

    layout: Layout = SCALAR
    kind: str = IDENTITY

    template: ClassVar[str] = "multiply"
    header: ClassVar[str] = "multiply.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        a, b = self.rows("int32", self.layout), self.rows("int16", self.layout)
        return [a, b], [self.rows("int32", self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        rows = s.max_batch * (1 if self.one_row else s.max_seq)
        return {
            "blocks": blocks,
            "max_tokens": self.steps * rows * blocks,
            "function": f"t2f::{self.kind}",
            "ways": self.width(design),
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        a, b = inputs
        assert a is not None and b is not None
        value = a if self.kind == IDENTITY else table_function(a, self.kind)
        return [round_shift(value.to(torch.int64) * b, PRODUCT_SHIFT).to(torch.int32)]

    def cost(self, design: Design) -> Estimate:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        function = Estimate() if self.kind == IDENTITY else function_cost(self.kind)
        way = function + costs.multiply(24, 16) + costs.add(40)
        ends = costs.port(s.lanes * 32) + costs.port(s.lanes * 16) + costs.port(0)
        ends += self.parts_cost(design, 32, 32) + self.parts_cost(design, 16, 0)
        control = costs.loop() + costs.launch_size(self.steps * blocks)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(self.width(design), way), ends, control
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, parts = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes) * self.parts(design)
        return pipelined(self.steps * batch * rows * parts, depth("MULTIPLY"))
