# SPDX-License-Identifier: Apache-2.0
"""RMS norm over the channels of a row, or of each head of it: sum of squares and inverse square root in
integers; the weight is the multipliers of the requant stages behind it."""

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
    ELEMENTS,
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
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.ways import WaysStage
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.simulate.fixed import round_shift, rsqrt

aten = torch.ops.aten

#: fraction bits of the result
UNIT_BITS = 24
#: tokens that pass between a row's last one and its sum, at a token a cycle
SLACK = 32


def rms_norm(x: Tensor, weight: Tensor, eps: float, heads: int = 1) -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps) over each of ``heads`` groups of the channels of x.

    Args:
        x: (batch, seq, heads * size).
        weight: (size,), the same for every head.
    """
    grouped = x.reshape(*x.shape[:2], heads, -1)
    inverse = torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    return (weight * (grouped * inverse)).reshape(x.shape)


@takes(aten.rms_norm.default)
def _take(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x, shape = args[0], list(args[1])
    weight = args[2] if len(args) > 2 else None
    eps = args[3] if len(args) > 3 else None
    if not isinstance(x, RowValue):
        raise Refused("normalises something that is not the model's data")
    inner = tuple(x.dims[-1])
    if len(shape) != 1 or not inner or inner != x.channels[len(x.channels) - len(inner) :]:
        raise Refused(f"normalises over {shape}, which is not exactly the channels of a row or of a head")
    if weight is not None and not isinstance(weight, Const):
        raise Refused("the weight of a norm must be a constant")
    gain = Const(torch.ones(shape[0])) if weight is None else weight
    eps = torch.finfo(torch.float32).eps if eps is None else float(eps)
    values = [x.node, ctx.constant(gain.value, gain.name), eps]
    out = ctx.emit(node, rms_norm, values, {"heads": x.width // shape[0]})
    return RowValue(out, x.dims, x.batch, x.seq, x.channels)


def _quantise(q: Any, node: Node) -> None:
    fmt = q.format(node.args[0], "wide")
    gain = q.parameter(node.args[1]).to(torch.float64)
    n, heads = gain.numel(), int(node.kwargs["heads"])
    factor = (gain * math.sqrt(n) * 2.0**-UNIT_BITS).repeat(heads)
    node.meta["affine"] = (factor, torch.zeros_like(factor))
    node.meta["data"] = {"eps": min(round(node.args[2] * n / float(fmt.scale[0]) ** 2), 1 << 60)}


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    heads, name = int(node.kwargs["heads"]), b.name(node)
    layout = Layout(heads, int(node.meta["channels"]) // heads)
    x = b.demand(node.args[0], "wide", layout)
    out = b.raw(f"{name}_unit", layout, node)
    params = b.words(f"{name}_params")
    stage = RmsNormStage(**b.common(node, name, (x,), (out,), params), layout=layout, element=b.element(x))
    b.add(stage, [n.meta["data"] for n in nodes])
    return out


operator(Operator("rms_norm", rms_norm, ("wide",), "raw", _quantise, _lower))


@dataclass(frozen=True)
class RmsNormStage(WaysStage):
    """x / sqrt(sum(x^2) + n eps) over each group of the layout, 24 fraction bits; the process in front
    sums the squares.

    Cycles: SUM in front, steps * batch * seq * blocks * lanes / ways iterations a launch; a step LOAD of 1,
    SCALE of batch * seq * blocks * lanes / ways.
    """

    layout: Layout = SCALAR
    element: str = "int16"

    template: ClassVar[str] = "rms_norm"
    header: ClassVar[str] = "rms_norm.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows(self.element, self.layout)], [self.rows("int32", self.layout)]

    def result_bits(self) -> int:
        """At most 1 with 24 fraction bits, and what the inverse root's own rounding adds."""
        return UNIT_BITS + 2

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {
            "in_t": f"{self.element}_t",
            "blocks": self.layout.blocks(lanes),
            "group_blocks": self.layout.group_blocks(lanes),
            "ways": self.width(design),
        }

    def front(self, design: Design) -> Front:
        """The process that sums squares. A group's sum is there when its last block has passed, so the
        FIFO of tokens holds the blocks of a group for the rows of a tile, and what comes in meanwhile."""
        lanes, size = design.shape.lanes, ELEMENTS[self.element][1]
        rows = 1 if self.one_row else design.shape.tile
        token = f"t2f::vec<{self.element}_t, {lanes}>"
        return Front(
            f"{self.name}_squares", "row_squares", f"{self.name}_held", token, size * lanes,
            rows * self.layout.group_blocks(lanes) + SLACK,
            Fifo(f"{self.name}_sums", "uint64_t", 8, max(2, 2 * rows)),
        )  # fmt: skip

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        x = inputs[0].to(torch.int64)
        x = x.reshape(*x.shape[:2], self.layout.groups, self.layout.size)
        squares = (x * x).sum(-1) + data["eps"]
        mantissa, exponent = rsqrt(squares.clamp(min=1))
        product = x * mantissa[..., None]
        e = exponent[..., None]
        y = torch.where(
            e >= 6,
            round_shift(product, (e - 6).clamp(min=0)),
            product << (6 - e).clamp(min=0),
        )
        return [y.flatten(2).to(torch.int32)]

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        return struct.pack("<q", data["eps"]) + bytes(56)

    def cost(self, design: Design) -> Estimate:
        s, ways = design.shape, self.width(design)
        blocks, width = self.layout.blocks(s.lanes), 8 * ELEMENTS[self.element][1]
        squares = costs.times(ways, costs.multiply(width, width)) + costs.adder_tree(ways, 2 * width)
        rows = costs.add(64) + costs.registers(s.tile, 64)
        inverse = costs.add(64) + costs.compare(64) + costs.rsqrt()
        way = costs.multiply(width, 20) + costs.select(32, 3) + costs.round_shift(64) + costs.shift(64, 64)
        chosen = costs.registers(s.tile, 26) + costs.shift(64, 64)
        walk = costs.loop() + costs.place(s.tile, blocks) + costs.launch_size(self.steps * blocks)
        control = costs.times(2, walk + costs.counter(8)) + costs.loop()
        parts = self.parts_cost(design, width, 0) + self.parts_cost(design, width, 32)
        ends = costs.times(2, costs.port(s.lanes * width)) + costs.port(512) + costs.port(s.lanes * 32)
        between = [fifo_cost(fifo.depth, fifo.token_bytes) for fifo in self.front(design).fifos]
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            squares, rows, inverse, costs.times(ways, way), chosen, control, parts, ends, *between
        )

    def _iterations(self, design: Design, batch: int, seq: int) -> int:
        """Of a step."""
        rows, blocks = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes)
        return batch * rows * blocks * self.parts(design)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        scale = pipelined(self._iterations(design, batch, seq), depth("SCALE"))
        return self.steps * (pipelined(1, depth("LOAD")) + scale)

    def front_cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(self.steps * self._iterations(design, batch, seq), depth("SUM"))
