# SPDX-License-Identifier: Apache-2.0
"""Layer norm: mean, variance and inverse square root in integers; the affine part is the
multipliers of the requant stages behind it, one for each format that is wanted."""

from __future__ import annotations

import math
import struct
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
    tiled,
)
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.ways import WaysStage
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue
from torch2fpga.simulate.fixed import round_shift, rsqrt

aten = torch.ops.aten


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """torch's layer norm over the channels of x (batch, seq, channels)."""
    return torch.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias, eps)


@takes(aten.layer_norm.default)
def _take(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x, shape = args[0], args[1]
    weight = args[2] if len(args) > 2 else None
    bias = args[3] if len(args) > 3 else None
    eps = float(args[4]) if len(args) > 4 else 1e-5
    if not isinstance(x, RowValue) or not x.channels_last() or list(shape) != [x.width]:
        raise Refused(f"normalises over {list(shape)}, which is not exactly the channels")
    if any(v is not None and not isinstance(v, Const) for v in (weight, bias)):
        raise Refused("weight and bias must be constants")
    ones = Const(torch.ones(x.width)) if weight is None else weight
    zeros = Const(torch.zeros(x.width)) if bias is None else bias
    values = [x.node, ctx.constant(ones.value, ones.name), ctx.constant(zeros.value, zeros.name), eps]
    return RowValue(ctx.emit(node, layer_norm, values), x.dims, x.batch, x.seq, x.channels)


def _quantise(q: Any, node: Node) -> None:
    fmt = q.format(node.args[0], "wide")
    n = fmt.scale.numel()
    gamma = q.parameter(node.args[1]).to(torch.float64)
    beta = q.parameter(node.args[2]).to(torch.float64)
    node.meta["affine"] = (gamma * math.sqrt(n) * 2.0**-24, beta)
    eps = min(round(node.args[3] * n / float(fmt.scale[0]) ** 2), 1 << 60)
    sum_bits = fmt.bits - 1 + math.ceil(math.log2(max(n, 2)))
    bits = min(30, 62 - sum_bits)
    mean_shift = bits + math.floor(math.log2(n))
    node.meta["data"] = {
        "eps": eps,
        "mean_multiplier": min(round(2.0**mean_shift / n), 2**31 - 1),
        "mean_shift": mean_shift,
    }


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    layout, name = b.closed(node), b.name(node)
    x = b.demand(node.args[0], "wide", layout)
    out = b.raw(f"{name}_unit", layout, node)
    params = b.words(f"{name}_params")
    stage = NormalizeStage(**b.common(node, name, (x,), (out,), params), layout=layout, element=b.element(x))
    b.add(stage, [n.meta["data"] for n in nodes])
    return out


operator(Operator("layer_norm", layer_norm, ("wide",), "raw", _quantise, _lower))


@dataclass(frozen=True)
class NormalizeStage(WaysStage):
    """(x - mean) / sqrt(sum((x - mean)^2) + n eps), 24 fraction bits.

    Cycles of a step, with parts = lanes / ways: LOAD of 1; for every tile of n rows SUM of
    blocks * n * parts, INVERSE of n, OUTPUT of blocks * n * parts.
    """

    layout: Layout = SCALAR
    element: str = "int16"

    template: ClassVar[str] = "normalize"
    header: ClassVar[str] = "normalize.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        # The mean is over the first lanes of the row, so there may be no gaps.
        layout = self.layout.closed
        return [self.rows(self.element, layout)], [self.rows("int32", layout)]

    def result_bits(self) -> int:
        """No difference is larger than the root of the sum of all squares: 2^24 and its rounding."""
        return 26

    def config(self, design: Design) -> dict[str, Any]:
        return {
            "in_t": f"{self.element}_t",
            "channels": self.layout.channels,
            "blocks": self.layout.blocks(design.shape.lanes),
            "ways": self.width(design),
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        x = inputs[0].to(torch.int64)
        mean = round_shift(x.sum(-1) * data["mean_multiplier"], data["mean_shift"])
        d = x - mean[..., None]
        squares = (d * d).sum(-1) + data["eps"]
        mantissa, exponent = rsqrt(squares.clamp(min=1))
        product = d * mantissa[..., None]
        e = exponent[..., None]
        y = torch.where(
            e >= 6,
            round_shift(product, (e - 6).clamp(min=0)),
            product << (6 - e).clamp(min=0),
        )
        return [y.to(torch.int32)]

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        head = struct.pack("<qii", data["eps"], data["mean_multiplier"], data["mean_shift"])
        return head + bytes(64 - len(head))

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        blocks, ways = self.layout.blocks(s.lanes), self.width(design)
        width = 16 if self.element == "int16" else 32
        sums = width + self.layout.channels.bit_length()
        # SUM: both sums over the channels of a cycle, then over the row
        squares = costs.times(ways, costs.multiply(width, width))
        trees = costs.adder_tree(ways, width) + costs.adder_tree(ways, 2 * width)
        rows = costs.times(2, costs.add(64) + costs.registers(s.tile, 64))
        # INVERSE: mean, deviation, inverse root
        mean = costs.multiply(sums, 32, 64) + costs.round_shift(64)
        share = costs.multiply_constant(width + 1, self.layout.channels, sums + 1)
        share += costs.multiply(sums + 2, width + 1, 64)
        inverse = mean + share + costs.times(2, costs.add(64)) + costs.compare(64) + costs.rsqrt()
        # OUTPUT: difference, product, shift to either side
        way = costs.add(width + 2) + costs.multiply(width + 2, 20) + costs.select(32, 3)
        way += costs.round_shift(64) + costs.shift(64, 64)
        chosen = costs.times(3, costs.registers(s.tile, 32)) + costs.shift(64, 64)
        kept = costs.memory(blocks * s.tile, s.lanes * width)
        control = costs.times(4, costs.loop()) + costs.row_walk() + costs.times(4, costs.counter(8))
        ends = costs.port(s.lanes * width) + costs.port(512) + costs.port(s.lanes * 32)
        ends += self.parts_cost(design, width, 0) + self.parts_cost(design, width, 32)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            squares, trees, rows, inverse, costs.times(ways, way), chosen, kept, control, ends
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, rows = design.shape, 1 if self.one_row else seq
        parts = self.layout.blocks(s.lanes) * self.parts(design)
        loops = {"SUM": parts, "INVERSE": 1, "OUTPUT": parts}
        sequence = sum(tiled(rows, s.tile, per_row, depth(label)) for label, per_row in loops.items())
        return self.steps * (pipelined(1, depth("LOAD")) + batch * sequence)
