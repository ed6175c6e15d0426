# SPDX-License-Identifier: Apache-2.0
"""Activations: GELU (erf and tanh forms), SiLU and tanh by table, ReLU inside the requantisation.

Input and output of a table have 14 fraction bits; the table is global, one for every layer.
What feeds a linear layer next is quantised per row with a power-of-two exponent.
"""

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
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.ways import WaysStage
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Refused, RowValue
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import round_shift

aten = torch.ops.aten


#: zero point of the rows behind a function: the long side of its range gets more of int8
ZERO_POINTS = {"gelu": 88, "gelu_tanh": 88, "tanh": 0, "relu": 127, "silu": 88}


def activation(x: Tensor, kind: str) -> Tensor:
    """``kind`` is gelu, gelu_tanh, silu, tanh or relu, elementwise on (batch, seq, channels)."""
    if kind == "gelu":
        return torch.nn.functional.gelu(x)
    if kind == "gelu_tanh":
        return torch.nn.functional.gelu(x, approximate="tanh")
    if kind == "silu":
        return torch.nn.functional.silu(x)
    return torch.tanh(x) if kind == "tanh" else torch.relu(x)


def _emit(ctx: Any, node: Node, x: Any, kind: str) -> RowValue:
    if not isinstance(x, RowValue):
        raise Refused(f"{kind} of something that is not the model's data")
    return RowValue(ctx.emit(node, activation, [x.node], {"kind": kind}), x.dims, x.batch, x.seq, x.channels)


@takes(aten.gelu.default)
def _gelu(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    form = kwargs.get("approximate", args[1] if len(args) > 1 else "none")
    return _emit(ctx, node, args[0], "gelu_tanh" if form == "tanh" else "gelu")


@takes(aten.silu.default)
def _silu(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return _emit(ctx, node, args[0], "silu")


@takes(aten.relu.default)
def _relu(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return _emit(ctx, node, args[0], "relu")


@takes(aten.tanh.default)
def _tanh(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return _emit(ctx, node, args[0], "tanh")


def _quantise(q: Any, node: Node) -> None:
    channels = q.channels(node)
    scale = torch.full((channels,), 2.0**-tables.FRACTION_BITS, dtype=torch.float64)
    node.meta["affine"] = (scale, torch.zeros(channels, dtype=torch.float64))
    node.meta["data"] = {}


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x = b.demand(node.args[0], "act")
    layout, name = b.layout(x), b.name(node)
    out = b.raw(f"{name}_value", layout, node)
    stage = ActivationStage(**b.common(node, name, (x,), (out,)), layout=layout, kind=node.kwargs["kind"])
    b.add(stage, [{} for _ in nodes])
    return out


operator(Operator("activation", activation, ("act",), "raw", _quantise, _lower))


@dataclass(frozen=True)
class ActivationStage(WaysStage):
    """A table function. Cycles: one loop ACTIVATE of steps * batch * seq * blocks * lanes / ways."""

    layout: Layout = SCALAR
    kind: str = "gelu"

    template: ClassVar[str] = "activation"
    header: ClassVar[str] = "elementwise.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows("int32", self.layout)], [self.rows("int32", self.layout)]

    def result_bits(self) -> int:
        """The input's 24 bits: no function leaves its table's range or is larger than its input."""
        return 24

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
        assert inputs[0] is not None
        return [table_function(inputs[0], self.kind)]

    def cost(self, design: Design) -> Estimate:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        lane = function_cost(self.kind)
        ends = costs.port(s.lanes * 32) + costs.port(0) + self.parts_cost(design, 32, 32)
        control = costs.loop() + costs.launch_size(self.steps * blocks)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(self.width(design), lane), ends, control
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, parts = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes) * self.parts(design)
        return pipelined(self.steps * batch * rows * parts, depth("ACTIVATE"))


def function_cost(kind: str) -> Estimate:
    """One lane of ``t2f::table_function``."""
    width = table_bits(kind)
    segment = costs.add(18) + costs.add(10) + costs.table(len(tables.activation_table(kind)), width, 2)
    between = costs.add(width + 1) + costs.multiply(width + 1, 9) + costs.times(2, costs.add(width))
    outside = costs.times(2, costs.compare(32)) + costs.select(32, 3)
    return segment + between + outside + costs.register(32, 3)


def table_bits(kind: str) -> int:
    """Bits of the table's values: the tools leave out those that no value needs."""
    values = tables.activation_table(kind)
    return 1 + max(max(v, -v - 1).bit_length() for v in values)


def table_function(x: Tensor, kind: str) -> Tensor:
    """Piecewise linear ``kind`` on integers with 14 fraction bits (``t2f::table_function``)."""
    x = x.to(torch.int32)
    limit = tables.LIMITS[kind] << tables.FRACTION_BITS
    nodes = torch.tensor(tables.activation_table(kind), dtype=torch.int32)
    at = (x + limit).clamp(0, 2 * limit - 1)
    index, fraction = at >> 8, at & 255
    low = nodes[index]
    y = low + round_shift((nodes[index + 1] - low) * fraction, 8)
    left, right = tables.TAILS[kind]
    scale = 2**tables.FRACTION_BITS
    y = torch.where(x < -limit, round(left * scale), y)
    return torch.where(x >= limit, x if right is None else round(right * scale), y).to(torch.int32)
