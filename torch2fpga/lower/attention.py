# SPDX-License-Identifier: Apache-2.0
"""Attention: scaled_dot_product_attention, or matmul / softmax / matmul (eager form).

Three stages: int32 scores, unnormalised exp2 weights (uint8), weighted mean of the values divided
once by the integer sum of the weights. Masks are recognised by content: padding of keys, causal.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga.design import (
    SCALAR,
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
from torch2fpga.lower.linear import matmul_const, tile_bram
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.requant import multiplier
from torch2fpga.passes.masks import classify_mask
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Axis, Const, HostValue, Refused, RowValue, Scores
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import reciprocal, round_shift

aten = torch.ops.aten


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, causal: bool, scale: float
) -> Tensor:
    """Multi-head attention on (batch, seq, heads * size); mask (batch, seq), nonzero = real token."""
    batch, seq, width = q.shape

    def split(x: Tensor) -> Tensor:
        return x.reshape(batch, seq, heads, width // heads).transpose(1, 2)

    allowed = None
    if mask is not None or causal:
        allowed = torch.ones(batch, 1, seq, seq, dtype=torch.bool)
        if causal:
            allowed = allowed.tril()
        if mask is not None:
            allowed = allowed & (mask != 0)[:, None, None, :]
    y = torch.nn.functional.scaled_dot_product_attention(
        split(q), split(k), split(v), attn_mask=allowed, scale=scale
    )
    return y.transpose(1, 2).reshape(batch, seq, width)


def _heads(x: Any, ctx: Any) -> tuple[int, Axis]:
    """Heads of a view (batch, heads, seq, size), and its channel axis within a head."""
    if not isinstance(x, RowValue):
        raise Refused("query, key and value must come from the model's data")
    last, rows = x.dims[-1], x.dims[-2]
    if tuple(rows) == (x.batch,) and x.batch.size != 1:
        ctx.swap_rows("attention runs over the other dimension")
    if x.seq.size != 1 and any(x.seq in d for d in x.dims[:-2]):
        ctx.swap_rows("tokens stand where attention has its batch")
    outer = [a for d in x.dims[:-2] for a in d if a != x.batch]
    if any(a not in x.channels for a in outer) or tuple(outer) + tuple(last) != x.channels:
        raise Refused(f"the channels of {x.shape} are not heads times head size, in this order")
    if tuple(rows) != ((x.seq,) if x.seq.size != 1 else ()):
        raise Refused("attention does not run over the token dimension")
    if any(a.size != 1 and a not in outer and a != x.batch for d in x.dims[:-2] for a in d):
        raise Refused("dimensions before the tokens must be batch and heads")
    return math.prod(a.size for a in outer), last[0] if last else Axis(1)


def _emit(ctx: Any, node: Node, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float) -> RowValue:
    heads = {_heads(x, ctx)[0] for x in (q, k, v)}
    if len(heads) != 1 or q.width != k.width or k.width != v.width:
        raise Refused("query, key and value differ in heads or head size", "grouped heads come later")
    if q.seq != k.seq or k.seq != v.seq:
        raise Refused("cross-attention (keys from another sequence) is not supported")
    found = classify_mask(ctx, mask, q)
    args = [q.node, k.node, v.node, found.input]
    options = {"heads": heads.pop(), "causal": causal or found.causal, "scale": scale}
    out = ctx.emit(node, attention, args, options)
    return RowValue(out, q.dims, q.batch, q.seq, q.channels)


@takes(aten.scaled_dot_product_attention.default)
def _sdpa(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    q, k, v = args[:3]
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
    causal = bool(args[5] if len(args) > 5 else kwargs.get("is_causal", False))
    if dropout:
        raise Refused("dropout is active", "call model.eval() first")
    scale = kwargs.get("scale")
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1])
    return _emit(ctx, node, q, k, v, mask, causal, float(scale))


@takes(aten.matmul.default, aten.bmm.default)
def _matmul(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    a, b = args
    if isinstance(a, RowValue) and isinstance(b, Const):
        return matmul_const(ctx, node, a, b)
    if isinstance(a, Scores) and a.weights and isinstance(b, RowValue):
        return _emit(ctx, node, a.query, a.key, b, a.mask, False, a.scale)
    if isinstance(a, RowValue) and isinstance(b, RowValue) and len(b.dims) >= 2:
        key = replace(b, dims=(*b.dims[:-2], b.dims[-1], b.dims[-2]))
        if _heads(a, ctx)[0] == _heads(key, ctx)[0]:
            return Scores(a, key, 1.0)
    raise Refused("a product of two tensors that is not attention (query times key, weights times value)")


@takes(aten.softmax.int, aten._softmax.default)
def _softmax(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Scores:
    if not isinstance(args[0], Scores) or args[0].weights or args[1] not in (-1, 3):
        raise Refused("softmax outside of attention")
    return replace(args[0], weights=True)


def scale_scores(scores: Scores, factor: float) -> Scores:
    """Scores times a scalar."""
    if scores.weights or scores.mask is not None:
        raise Refused("scores are scaled after the mask or the softmax")
    return replace(scores, scale=scores.scale * factor)


def mask_scores(scores: Scores, mask: Any) -> Scores:
    """Scores plus an additive mask."""
    if scores.weights or scores.mask is not None or not isinstance(mask, Const | HostValue):
        raise Refused("something other than one mask is added to attention scores")
    return replace(scores, mask=mask)


def _quantise(q: Any, node: Node) -> None:
    query, key, value = (q.format(a, "attn") for a in node.args[:3])
    heads = node.kwargs["heads"]
    size = query.scale.numel() // heads
    # Within a head the product of the scales of a query and a key channel is one constant.
    unit = (query.scale * key.scale).reshape(heads, size)[:, 0]
    ratio = unit * node.kwargs["scale"] * math.log2(math.e) * 256
    m = multiplier(ratio, torch.zeros(heads), node.meta["path"])
    node.meta["data"] = {"m": m.m, "shift": m.shift}
    node.meta["affine"] = (value.scale * 2.0**-12, torch.zeros_like(value.scale))


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    heads = int(node.kwargs["heads"])
    layout, name = Layout(heads, int(node.meta["channels"]) // heads), b.name(node)
    q, k, v = (b.demand(a, "attn", layout) for a in node.args[:3])
    mask = b.mask(node.args[3]) if node.args[3] is not None else None
    scores = b.scores(f"{name}_scores", layout, "int32")
    weights = b.scores(f"{name}_weights", layout, "uint8")
    params = b.words(f"{name}_softmax_params")
    out = b.raw(f"{name}_mean", layout, node)
    causal = node.kwargs["causal"]
    data = [n.meta["data"] for n in nodes]
    nothing: list[dict[str, Any]] = [{} for _ in nodes]
    b.add(ScoresStage(**b.common(node, f"{name}_qk", (q, k), (scores,)), layout=layout), nothing)
    inputs = (scores,) if mask is None else (scores, mask)
    softmax = SoftmaxStage(
        **b.common(node, f"{name}_softmax", inputs, (weights,), params),
        layout=layout,
        causal=causal,
        masked=mask is not None,
    )
    b.add(softmax, data)
    b.add(ValuesStage(**b.common(node, f"{name}_pv", (weights, v), (out,)), layout=layout), nothing)
    return out


operator(Operator("attention", attention, ("attn", "attn", "attn"), "raw", _quantise, _lower))


def _config(layout: Layout, design: Design) -> dict[str, Any]:
    lanes = design.shape.lanes
    return {
        "heads": layout.groups,
        "head_blocks": layout.group_blocks(lanes),
        "key_blocks": ceil_div(design.shape.max_seq, lanes),
    }


def _kept_bram(layout: Layout, design: Design) -> int:
    """BRAM18 of the keys or values of one sequence: a bank a lane, one token wide."""
    s = design.shape
    depth = layout.blocks(s.lanes) * ceil_div(s.max_seq, s.lanes)
    return s.lanes * ceil_div(s.lanes * 8, 36) * ceil_div(depth, 512)


def _tiles(seq: int, tile: int) -> list[tuple[int, int]]:
    """The tiles of a sequence: how many of how many rows."""
    full, rest = divmod(seq, tile)
    return [(full, tile), (1 if rest else 0, rest)]


@dataclass(frozen=True)
class ScoresStage(Stage):
    """q times k transposed.

    Cycles: a sequence takes in its keys (KEEP, heads * head_blocks * seq iterations); then each tile of
    n rows takes heads * head_blocks * n (FILL) and heads * key_blocks * max(head_blocks, n) + n
    (SCORES), key_blocks = ceil(seq / lanes). Every entry of a loop adds its depth and one cycle.
    """

    layout: Layout = SCALAR

    template: ClassVar[str] = "attention_scores"
    header: ClassVar[str] = "attention.hpp"
    hold: ClassVar[str] = "tile"
    whole_first: ClassVar[tuple[int, ...]] = (1,)

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        rows = self.rows("int8", self.layout)
        return [rows, rows], [Tokens("scores", "int32", self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        return _config(self.layout, design)

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        q, k = (split_heads(x, self.layout) for x in (inputs[0], inputs[1]))
        # Head sizes are below 1,024, so float32 products of int8 values are exact.
        return [(q.float() @ k.float().transpose(-1, -2)).to(torch.int32)]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, heads = design.shape, self.layout.groups
        blocks, keys = self.layout.group_blocks(s.lanes), ceil_div(seq, s.lanes)
        keep = pipelined(heads * blocks * seq, depth("KEEP"))
        fill = tiled(seq, s.tile, heads * blocks, depth("FILL"))
        scores = sum(
            count * pipelined(heads * keys * max(blocks, n) + n, depth("SCORES"))
            for count, n in _tiles(seq, s.tile)
        )
        return self.steps * batch * (keep + fill + scores)

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        return Estimate(
            dsp=ceil_div(s.tile, 2) * s.lanes * s.lanes,
            lut=s.tile * s.lanes * s.lanes // 8 * 34,
            ff=2 * s.tile * s.lanes * 32,  # sums, and the result that leaves
            bram18=_kept_bram(self.layout, design) + tile_bram(self.layout.blocks(s.lanes), design),
            cycles=self.nominal_cycles(design),
        )


@dataclass(frozen=True)
class SoftmaxStage(Stage):
    """exp2(score - row maximum) as uint8, not normalised.

    Cycles: a launch takes in its mask, if any (MASK, batch * key_blocks iterations), a step its
    parameters (LOAD, 1 + ceil(heads / 16)); then each tile of n rows takes (heads + 1) * key_blocks * n
    (ROWS), key_blocks = ceil(seq / lanes). Every entry of a loop adds its depth and one cycle.
    """

    layout: Layout = SCALAR
    causal: bool = False
    masked: bool = False

    template: ClassVar[str] = "softmax_weights"
    header: ClassVar[str] = "attention.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        masks = [Tokens("mask")] if self.masked else []
        return [Tokens("scores", "int32", self.layout), *masks], [Tokens("scores", "uint8", self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        return {**_config(self.layout, design), "causal": self.causal, "masked": self.masked}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        scores = inputs[0]
        assert scores is not None
        seq = scores.shape[-1]
        allowed = torch.ones(scores.shape[0], 1, seq, seq, dtype=torch.bool)
        if self.causal:
            allowed = allowed.tril()
        if self.masked:
            assert inputs[1] is not None
            allowed = allowed & (inputs[1] != 0)[:, None, None, :]
        lowest = -(2**31)
        seen = torch.where(allowed, scores, lowest)
        below = seen.amax(-1, keepdim=True).to(torch.int64) - seen
        distance = round_shift(below * data["m"][:, None, None], data["shift"])
        whole = (distance >> 8).clamp(max=15)
        table = torch.tensor(tables.exp2_table(), dtype=torch.int64)
        # Every shift is in 8..23: one table of all rounded results serves the whole tensor.
        shifts = torch.arange(16)[:, None] + 8
        rounded = ((table[None, :] + (1 << (shifts - 1))) >> shifts).to(torch.int32).reshape(-1)
        weights = rounded[whole * 256 + (distance & 255)]
        return [torch.where(allowed, weights, 0)]

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        heads = data["m"].tolist()
        heads += [0] * (-len(heads) % 16)
        return struct.pack(f"<16i{len(heads)}i", data["shift"], *([0] * 15), *heads)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, heads = design.shape, self.layout.groups
        keys = ceil_div(seq, s.lanes)
        mask = pipelined(batch * keys, depth("MASK")) if self.masked else 0
        load = pipelined(1 + ceil_div(heads, 16), depth("LOAD"))
        rows = tiled(seq, s.tile, (heads + 1) * keys, depth("ROWS"))
        return mask + self.steps * (load + batch * rows)

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        keys = ceil_div(s.max_seq, s.lanes)
        return Estimate(
            dsp=2 * s.lanes,
            lut=s.lanes * (45 + 34 + 90 + 42) + 2 * s.tile * 42 + 500,
            ff=s.lanes * 200 + 2 * s.tile * 32,
            bram18=ceil_div(s.lanes * 32, 36) * ceil_div(2 * keys * s.tile, 512) + s.lanes // 2,
            cycles=self.nominal_cycles(design),
        )


@dataclass(frozen=True)
class ValuesStage(Stage):
    """Weighted mean of v, 12 fraction bits.

    Cycles: a sequence takes in its values (KEEP, heads * head_blocks * seq iterations); then each tile
    of n rows takes key_blocks * n + (heads - 1) * pass + head_blocks * group + n (MEAN), with key_blocks
    = ceil(seq / lanes), group = max(key_blocks, n), pass = max(head_blocks * group, key_blocks * n).
    Every entry of a loop adds its depth and one cycle.
    """

    layout: Layout = SCALAR

    template: ClassVar[str] = "attention_values"
    header: ClassVar[str] = "attention.hpp"
    hold: ClassVar[str] = "tile"
    whole_first: ClassVar[tuple[int, ...]] = (1,)

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        values = self.rows("int8", self.layout)
        return [Tokens("scores", "uint8", self.layout), values], [self.rows("int32", self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        return _config(self.layout, design)

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        p = inputs[0].float()
        v = split_heads(inputs[1], self.layout).float()
        acc = torch.zeros(*p.shape[:3], v.shape[-1], dtype=torch.int32)
        # 255 * 127 * 512 < 2^24: float32 is exact over pieces of 512 keys.
        for start in range(0, p.shape[-1], 512):
            part = slice(start, start + 512)
            acc += (p[..., part] @ v[:, :, part]).to(torch.int32)
        total = inputs[0].sum(-1).to(torch.int64).clamp(min=1)
        mantissa, exponent = reciprocal(total)
        product = acc.to(torch.int64) * mantissa[..., None]
        y = round_shift(product, (exponent + 5)[..., None])
        return [merge_heads(y.to(torch.int32))]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, heads = design.shape, self.layout.groups
        blocks, keys = self.layout.group_blocks(s.lanes), ceil_div(seq, s.lanes)
        mean = 0
        for count, n in _tiles(seq, s.tile):
            taking, working = keys * n, blocks * max(keys, n)
            iterations = taking + (heads - 1) * max(taking, working) + working + n
            mean += count * pipelined(iterations, depth("MEAN"))
        keep = pipelined(heads * blocks * seq, depth("KEEP"))
        return self.steps * batch * (keep + mean)

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        keys = ceil_div(s.max_seq, s.lanes)
        sums = s.tile * (s.lanes - 1) * 18
        return Estimate(
            dsp=s.tile * s.lanes * s.lanes + s.lanes,  # uint8 by int8: no packing
            lut=s.tile * s.lanes * s.lanes // 8 * 34 + sums + 800,
            ff=2 * s.tile * (s.lanes + 1) * 32,  # sums, and the result that leaves
            bram18=_kept_bram(self.layout, design) + tile_bram(2 * keys, design),  # weights of two heads
            cycles=self.nominal_cycles(design),
        )


def split_heads(x: Tensor, layout: Layout) -> Tensor:
    """(batch, seq, heads * size) to (batch, heads, seq, size)."""
    return x.reshape(*x.shape[:2], layout.groups, layout.size).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, seq, size) to (batch, seq, heads * size)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)
