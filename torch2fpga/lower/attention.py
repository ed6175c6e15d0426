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

from torch2fpga import costs
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
from torch2fpga.lower.attention_arrays import ScoresStage, ValuesStage, head_config
from torch2fpga.lower.cache import cached_rows
from torch2fpga.lower.heads import heads_apart, heads_together
from torch2fpga.lower.linear import matmul_const
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.requant import multiplier
from torch2fpga.passes.masks import band, classify_mask
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, HostValue, Refused, RowValue, Scores
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import round_shift

__all__ = ["ScoresStage", "SoftmaxStage", "ValuesStage", "attention", "mask_scores", "scale_scores"]

aten = torch.ops.aten


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    heads: int,
    causal: bool,
    scale: float,
    kv_groups: int = 1,
    window: int = 0,
) -> Tensor:
    """Multi-head attention.

    Args:
        q: (batch, seq, heads * size).
        k, v: (batch, seq, heads // kv_groups * size).
        mask: (batch, seq), nonzero = real token.
        kv_groups: consecutive heads of q that share a head of k and v.
        window: a causal query sees this many keys, itself included; 0 is all of them.
    """
    batch, seq, width = q.shape

    def split(x: Tensor) -> Tensor:
        return x.reshape(batch, seq, -1, width // heads).transpose(1, 2)

    allowed = None
    if mask is not None or causal:
        allowed = band(seq, causal, window)[None, None]
        if mask is not None:
            allowed = allowed & (mask != 0)[:, None, None, :]
    y = torch.nn.functional.scaled_dot_product_attention(
        split(q), split(k), split(v), attn_mask=allowed, scale=scale, enable_gqa=kv_groups > 1
    )
    return y.transpose(1, 2).reshape(batch, seq, width)


def _heads(x: Any, ctx: Any) -> tuple[int, int]:
    """Heads of a view (batch, heads, seq, size), and how often each of them is repeated, one after the
    other, for as many heads of queries."""
    if not isinstance(x, RowValue):
        raise Refused("query, key and value must come from the model's data")
    last, rows = x.dims[-1], x.dims[-2]
    if tuple(rows) == (x.batch,) and x.batch.size != 1:
        ctx.swap_rows("attention runs over the other dimension")
    if x.seq.size != 1 and any(x.seq in d for d in x.dims[:-2]):
        ctx.swap_rows("tokens stand where attention has its batch")
    outer = [a for d in x.dims[:-2] for a in d if a != x.batch]
    own = [a for a in outer if a in x.channels]
    if tuple(own) + tuple(last) != x.channels or outer[: len(own)] != own:
        raise Refused(f"the channels of {x.shape} are not heads times head size, in this order")
    if tuple(rows) != ((x.seq,) if x.seq.size != 1 else ()):
        raise Refused("attention does not run over the token dimension")
    if any(a.size != 1 and a not in outer and a != x.batch for d in x.dims[:-2] for a in d):
        raise Refused("dimensions before the tokens must be batch and heads")
    return math.prod(a.size for a in own), math.prod(a.size for a in outer[len(own) :])


def _emit(
    ctx: Any, node: Node, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float, grouped: bool = False
) -> RowValue:
    (heads, repeated), *shared = (_heads(x, ctx) for x in (q, k, v))
    groups = heads // shared[0][0]
    # Where a model leaves the repetition to the operator, keys have fewer heads as they are.
    want = (heads // groups, 1 if grouped else groups)
    if repeated != 1 or shared != [want, want] or {k.width * groups, v.width * groups} != {q.width}:
        raise Refused("query, key and value differ in heads or head size")
    if q.seq != k.seq or k.seq != v.seq:
        raise Refused("cross-attention (keys from another sequence) is not supported")
    found = classify_mask(ctx, mask, q)
    args = [q.node, k.node, v.node, found.input]
    options = {"heads": heads, "causal": causal or found.causal, "scale": scale, "kv_groups": groups,
               "window": found.window}  # fmt: skip
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
    grouped = bool(kwargs.get("enable_gqa", False))
    return _emit(ctx, node, q, k, v, mask, causal, float(scale), grouped)


@takes(aten.matmul.default, aten.bmm.default)
def _matmul(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    a, b = args
    if isinstance(a, RowValue) and isinstance(b, Const):
        return matmul_const(ctx, node, a, b)
    if isinstance(a, Scores) and a.weights and isinstance(b, RowValue):
        return _emit(ctx, node, a.query, a.key, b, a.mask, False, a.scale)
    if isinstance(a, RowValue) and isinstance(b, RowValue) and len(b.dims) >= 2:
        key = replace(b, dims=(*b.dims[:-2], b.dims[-1], b.dims[-2]))
        if math.prod(_heads(a, ctx)) == math.prod(_heads(key, ctx)):
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
    heads, shared = node.kwargs["heads"], node.kwargs["kv_groups"]
    # Within a head the product of the scales of a query and a key channel is one constant.
    unit = query.scale.reshape(heads, -1)[:, 0] * key.scale.reshape(heads // shared, -1)[
        :, 0
    ].repeat_interleave(shared)
    ratio = unit * node.kwargs["scale"] * math.log2(math.e) * 256
    m = multiplier(ratio, torch.zeros(heads), node.meta["path"])
    node.meta["data"] = {"m": m.m, "shift": m.shift, "window": node.kwargs["window"]}
    mean = value.scale.reshape(heads // shared, -1).repeat_interleave(shared, 0).reshape(-1) * 2.0**-12
    node.meta["affine"] = (mean, torch.zeros_like(mean))


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    heads, shared = int(node.kwargs["heads"]), int(node.kwargs["kv_groups"])
    layout, name = Layout(heads, int(node.meta["channels"]) // heads), b.name(node)
    kept = Layout(heads // shared, layout.size)
    q, k, v = (b.demand(a, "attn", of) for a, of in zip(node.args[:3], (layout, kept, kept), strict=True))
    parts = b.cache_parts(kept)
    if len(parts) == 1:
        return _attend(b, nodes, name, (q, k, v), layout, 0)
    queries = heads_apart(b, node, f"{name}_q", q, [n * shared for n in parts])
    keys, values = (heads_apart(b, node, f"{name}_{x}", y, parts) for x, y in (("k", k), ("v", v)))
    found, first = [], 0
    for number, part in enumerate(zip(queries, keys, values, strict=True)):
        own = Layout(parts[number] * shared, layout.size)
        found.append(_attend(b, nodes, f"{name}_{number}", part, own, first))
        first += own.groups
    return heads_together(b, node, name, found)


def _attend(
    b: Any, nodes: Sequence[Node], name: str, given: tuple[str, str, str], layout: Layout, first: int
) -> str:
    """Stages of some heads of queries, the first of which is ``first`` of the layer's."""
    node, (q, k, v) = nodes[0], given
    shared = int(node.kwargs["kv_groups"])
    kept = Layout(layout.groups // shared, layout.size)
    mask = b.mask(node.args[3]) if node.args[3] is not None else None
    scores = b.scores(f"{name}_scores", layout, "int32")
    weights = b.scores(f"{name}_weights", layout, "uint8")
    params = b.words(f"{name}_softmax_params")
    out = str(b.raw(f"{name}_mean", layout, node))
    own = slice(first, first + layout.groups)
    data = [{**n.meta["data"], "m": n.meta["data"]["m"][own]} for n in nodes]
    nothing: list[dict[str, Any]] = [{} for _ in nodes]
    cached = bool(b.shape.max_keys)
    keys: tuple[str, ...] = (k,)
    values: tuple[str, ...] = (v,)
    if cached:
        keys, values = (cached_rows(b, node, f"{name}_{part}", x, kept) for part, x in (("k", k), ("v", v)))
    array: dict[str, Any] = {"layout": layout, "kv_groups": shared, "cached": cached}
    b.add(ScoresStage(**b.common(node, f"{name}_qk", (q, *keys), (scores,)), **array), nothing)
    inputs = (scores,) if mask is None else (scores, mask)
    softmax = SoftmaxStage(
        **b.common(node, f"{name}_softmax", inputs, (weights,), params),
        layout=layout,
        causal=node.kwargs["causal"],
        masked=mask is not None,
        windowed=any(n.kwargs["window"] for n in nodes),
        cached=cached,
    )
    b.add(softmax, data)
    b.add(ValuesStage(**b.common(node, f"{name}_pv", (weights, *values), (out,)), **array), nothing)
    return out


operator(Operator("attention", attention, ("attn", "attn", "attn"), "raw", _quantise, _lower))


@dataclass(frozen=True)
class SoftmaxStage(Stage):
    """exp2(score - row maximum) as uint8, not normalised.

    How many keys a row sees (its window) is one of a step's numbers, so that layers with and without one
    share the hardware.

    Cycles: a launch takes in its mask, if any (MASK, batch * key_blocks iterations), a step its
    parameters (LOAD, 1 + ceil(heads / 16)); then each tile of n rows takes (heads + 1) * key_blocks * n
    (ROWS), key_blocks = ceil(seq / lanes). Every entry of a loop adds its depth and one cycle.
    """

    layout: Layout = SCALAR
    causal: bool = False
    masked: bool = False
    windowed: bool = False
    cached: bool = False

    template: ClassVar[str] = "softmax_weights"
    header: ClassVar[str] = "attention.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        masks = [Tokens("mask")] if self.masked else []
        return [Tokens("scores", "int32", self.layout), *masks], [Tokens("scores", "uint8", self.layout)]

    def runtime_arguments(self) -> list[str]:
        return [*super().runtime_arguments(), *(["past"] if self.cached else [])]

    def config(self, design: Design) -> dict[str, Any]:
        visible = {"causal": self.causal, "masked": self.masked, "windowed": self.windowed}
        return {**head_config(self.layout, design), **visible}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        scores = inputs[0]
        assert scores is not None
        seq = scores.shape[-1]
        allowed = band(seq, self.causal, data["window"]).expand(scores.shape[0], 1, seq, seq)
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
        return struct.pack(f"<16i{len(heads)}i", data["shift"], data["window"], *([0] * 14), *heads)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return self._cycles(design, batch, seq, 0, depth)

    def turn_cycles(self, design: Design, seq: int, past: int, depth: Depths) -> int:
        return self._cycles(design, 1, seq, past, depth)

    def _cycles(self, design: Design, batch: int, seq: int, past: int, depth: Depths) -> int:
        s, heads = design.shape, self.layout.groups
        keys = ceil_div(past + seq, s.lanes)
        mask = pipelined(batch * keys, depth("MASK")) if self.masked else 0
        load = pipelined(1 + ceil_div(heads, 16), depth("LOAD"))
        rows = tiled(seq, s.tile, (heads + 1) * keys, depth("ROWS"))
        return mask + self.steps * (load + batch * rows)

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        keys = ceil_div(s.keys, s.lanes)
        control = costs.launch_size(1) + costs.launch_size(self.layout.groups + 1)
        return control + Estimate(
            dsp=2 * s.lanes,
            # a window: the sum of key and window, and its comparison with the row, in every lane
            lut=s.lanes * (45 + 34 + 90 + 42 + (64 if self.windowed else 0)) + 2 * s.tile * 42 + 500,
            ff=s.lanes * 200 + 2 * s.tile * 32,
            bram18=ceil_div(s.lanes * 32, 36) * ceil_div(2 * keys * s.tile, 512) + s.lanes // 2,
            cycles=self.nominal_cycles(design),
        )
