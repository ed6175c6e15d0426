# SPDX-License-Identifier: Apache-2.0
"""Linear layers: ``aten.linear``, ``addmm`` (GPT-2's Conv1D), ``matmul`` with a constant.

Weights are int8 per output channel, symmetric; the smoothing scales of the input are folded in.
One stage is one multiplier array; its accumulators (int32) leave to requant stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga.design import (
    SCALAR,
    WORDS,
    Depths,
    Design,
    Estimate,
    Layout,
    Stage,
    Tokens,
    ceil_div,
    pipelined,
    tiled,
)
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue, contiguous_channels

aten = torch.ops.aten

#: largest weight image of a step that is kept in URAM; larger ones are streamed for every tile
KEEP_BYTES = 4 << 20
#: float32 products of int8 operands are exact up to this many summands (2^24 / 127^2)
EXACT_FLOAT_SUMMANDS = 1024


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """x (batch, seq, in) times weight (out, in) plus bias (out), then ReLU if asked for."""
    y = torch.nn.functional.linear(x, weight, bias)
    return torch.relu(y) if relu else y


def _emit(ctx: Any, node: Node, x: Any, weight: Any, bias: Any, transposed: bool) -> RowValue:
    if not isinstance(x, RowValue):
        raise Refused("the input of a linear layer must come from the model's data")
    if not isinstance(weight, Const) or weight.value.dim() != 2:
        raise Refused("the weight must be a constant matrix")
    if bias is not None and (not isinstance(bias, Const) or bias.value.dim() != 1):
        raise Refused("the bias must be a constant vector")
    width = weight.value.shape[0 if transposed else 1]
    if not x.channels_last() or x.width != width:
        raise Refused(
            f"contracts over {width} values, but the last dimension of {x.shape} is not exactly the channels",
            "a linear layer over tokens (transposed input) is not supported",
        )
    w = weight.value.t().contiguous() if transposed else weight.value
    name = weight.name + ("_t" if transposed else "")
    args = [x.node, ctx.constant(w, name)]
    if bias is not None:
        args.append(ctx.constant(bias.value, bias.name))
    return contiguous_channels(ctx.emit(node, linear, args), x, w.shape[0])


@takes(aten.linear.default)
def _linear(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return _emit(ctx, node, args[0], args[1], args[2] if len(args) > 2 else None, False)


@takes(aten.addmm.default)
def _addmm(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise Refused("addmm with alpha or beta other than 1")
    return _emit(ctx, node, args[1], args[2], args[0], True)


def matmul_const(ctx: Any, node: Node, x: RowValue, weight: Const) -> RowValue:
    """``x @ constant``: called by the matmul handler of attention.py."""
    return _emit(ctx, node, x, weight, None, True)


def quantise_weight(weight: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights and the accumulator's scale per output channel.

    Args:
        weight: (out, in) float.
        input_scale: (in,) real value of one unit of each input channel.
    Returns:
        (out, in) int8 tensor in [-127, 127] and (out,) float64 scales.
    """
    scaled = weight.to(torch.float32) * input_scale.to(torch.float32)
    scale = scaled.abs().amax(dim=1).clamp(min=1e-30).to(torch.float64) / 127
    q = torch.floor(scaled / scale.to(torch.float32)[:, None] + 0.5).clamp_(-127, 127)
    return q.to(torch.int8), scale


def _quantise(q: Any, node: Node) -> None:
    source = node.args[0]
    fmt = q.format(source, "mac")
    weight = q.parameter(node.args[1])
    data, scale = quantise_weight(weight, fmt.scale)
    bias = q.parameter(node.args[2]) if len(node.args) > 2 else torch.zeros(weight.shape[0])
    node.meta["affine"] = (scale, bias.to(torch.float64))
    node.meta["data"] = {"weight": data}
    node.meta["offset"] = fmt.zero_point * data.sum(1, dtype=torch.int64)
    node.meta["relu"] = bool(node.kwargs.get("relu", False))


def _written(b: Any, node: Node) -> Layout:
    """Heads where attention reads the product; the weights' rows lie in that order at no cost."""
    closed: Layout = b.closed(node)
    heads = [int(u.kwargs["heads"]) for u in node.users if u.op == "call_function" and "heads" in u.kwargs]
    return Layout(heads[0], closed.channels // heads[0]) if heads else closed


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x = b.demand(node.args[0], "mac")
    layout_in, layout_out = b.layout(x), _written(b, node)
    name = b.name(node)
    out = b.raw(f"{name}_acc", layout_out, node)
    weights = b.words(f"{name}_weights")
    stage = MatmulStage(
        **b.common(node, name, (x, weights), (out,)), layout_in=layout_in, layout_out=layout_out
    )
    b.add(stage, [n.meta["data"] for n in nodes])
    b.weight_port(stage, weights)
    b.follow_exponents(x, out)
    return out


operator(Operator("linear", linear, ("mac",), "raw", _quantise, _lower))


def matmul_exact(x: Tensor, weight: Tensor) -> Tensor:
    """Exact integer product x (rows, in) times weight (out, in) by float32 matrix products.

    Sums of at most 1,024 products of int8 values stay below 2^24, where float32 is exact; longer
    ones are cut into such pieces and added as integers.
    """
    total: Tensor | None = None
    for start in range(0, weight.shape[1], EXACT_FLOAT_SUMMANDS):
        part = slice(start, start + EXACT_FLOAT_SUMMANDS)
        product = (x[:, part].float() @ weight[:, part].float().t()).to(torch.int32)
        total = product if total is None else total + product
    assert total is not None
    return total


@dataclass(frozen=True)
class MatmulStage(Stage):
    """One multiplier array: tile * lanes * lanes products a cycle.

    Cycles: a step loads its weights (LOAD, one word a cycle; not where they are streamed), then each
    tile of n rows takes in_blocks * n iterations (FILL) and out_blocks * max(in_blocks, tile) + n
    (REDUCE). Streamed weights make it max(in_blocks * words, tile), words = lanes * lanes / 64. Every
    entry of a loop adds its depth and one cycle.
    """

    layout_in: Layout = SCALAR
    layout_out: Layout = SCALAR

    header: ClassVar[str] = "matmul.hpp"
    hold: ClassVar[str] = "tile"

    @property
    def streamed(self) -> bool:
        """Weights too large to keep on chip for a step."""
        return self.layout_in.channels * self.layout_out.channels > KEEP_BYTES

    @property
    def template(self) -> str:  # type: ignore[override]
        return "matmul_streamed" if self.streamed else "matmul"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows("int8", self.layout_in), WORDS], [self.rows("int32", self.layout_out)]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {
            "in_blocks": self.layout_in.blocks(lanes),
            "out_blocks": self.layout_out.blocks(lanes),
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        x = inputs[0]
        assert x is not None
        product = matmul_exact(x.reshape(-1, x.shape[-1]), data["weight"])
        return [product.reshape(*x.shape[:-1], -1)]

    def weight_words(self, design: Design) -> int:
        """64-byte words of a step's image."""
        lanes = design.shape.lanes
        return self.layout_in.blocks(lanes) * self.layout_out.blocks(lanes) * lanes * lanes // 64

    def weight_image(self, data: Mapping[str, Any], design: Design) -> bytes:
        """The step's weights in the order in which the stage reads them."""
        lanes = design.shape.lanes
        w = pad_channels(pad_channels(data["weight"], self.layout_in, lanes, 1), self.layout_out, lanes, 0)
        out_blocks, in_blocks = w.shape[0] // lanes, w.shape[1] // lanes
        blocks = w.reshape(out_blocks, lanes, in_blocks, lanes).permute(0, 2, 1, 3)
        return bytes(blocks.contiguous().numpy().tobytes())

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s = design.shape
        in_blocks, out_blocks = self.layout_in.blocks(s.lanes), self.layout_out.blocks(s.lanes)
        rows = 1 if self.one_row else seq
        reduce = in_blocks * (s.lanes * s.lanes // 64 if self.streamed else 1)
        groups = ceil_div(rows, s.tile) * out_blocks * max(reduce, s.tile)
        load = 0 if self.streamed else pipelined(self.weight_words(design), depth("LOAD"))
        fill = tiled(rows, s.tile, in_blocks, depth("FILL"))
        drain = tiled(rows, s.tile, 1, depth("REDUCE"))
        return self.steps * (load + batch * (fill + groups + drain))

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        macs = s.tile * s.lanes * s.lanes
        in_blocks = self.layout_in.blocks(s.lanes)
        words = 0 if self.streamed else in_blocks * self.layout_out.blocks(s.lanes)
        return Estimate(
            dsp=ceil_div(s.tile, 2) * s.lanes * s.lanes,
            lut=macs // 8 * 34,  # drain adders of 32 bits, one a packed chain of 8
            ff=2 * s.tile * s.lanes * 32,  # sums, and the result that leaves
            bram18=tile_bram(in_blocks, design),
            uram=ceil_div(s.lanes * s.lanes * 8, 72) * ceil_div(words, 4096),
            cycles=self.nominal_cycles(design),
        )

    def macs(self, design: Design) -> int:
        """Useful products per launch at the compiled maximum."""
        rows = design.shape.max_batch * (1 if self.one_row else design.shape.max_seq)
        return self.steps * rows * self.layout_in.channels * self.layout_out.channels


def tile_bram(depth: int, design: Design) -> int:
    """BRAM18 of a buffer with a bank a row of the tile: one byte a lane wide, ``depth`` tokens deep."""
    s = design.shape
    return s.tile * ceil_div(s.lanes * 8, 36) * ceil_div(depth, 512)


def pad_channels(value: Tensor, layout: Layout, lanes: int, dim: int) -> Tensor:
    """Fill each channel group of ``dim`` with zeros up to whole tokens."""
    groups, size, padded = layout.groups, layout.size, layout.group_blocks(lanes) * lanes
    if size == padded:
        return value
    shape = list(value.shape)
    grouped = value.reshape(*shape[:dim], groups, size, *shape[dim + 1 :])
    out = torch.zeros(*shape[:dim], groups, padded, *shape[dim + 1 :], dtype=value.dtype)
    out.narrow(dim + 1, 0, size).copy_(grouped)
    return out.reshape(*shape[:dim], groups * padded, *shape[dim + 1 :])
