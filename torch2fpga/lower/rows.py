# SPDX-License-Identifier: Apache-2.0
"""Data movement that needs a stage: one row of a sequence, channel slices, joined channels."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    Shape,
    Stage,
    Tokens,
    ceil_div,
    pipelined,
)
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Poison, Refused, RowValue, contiguous_channels

aten = torch.ops.aten


def select_row(x: Tensor, row: int) -> Tensor:
    """Row ``row`` of every sequence, from its end if negative: (batch, seq, channels) to (batch, 1,
    channels)."""
    return x[:, row:][:, :1]


def slice_channels(x: Tensor, start: int, size: int) -> Tensor:
    """Channels [start, start + size)."""
    return x[..., start : start + size]


def concat_channels(a: Tensor, b: Tensor) -> Tensor:
    """Channels of a, then channels of b."""
    return torch.cat((a, b), dim=-1)


@takes(aten.select.int)
def _select(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x, dim, index = args
    if not isinstance(x, RowValue):
        raise Refused("selects from something that is not the model's data")
    dim %= len(x.dims)
    axes = x.dims[dim]
    rest = (*x.dims[:dim], *x.dims[dim + 1 :])
    if axes == (x.seq,):  # rows that the model counts from the end stay so: lengths differ at run time
        return _row(ctx, node, x, index, rest)
    index %= max(x.shape[dim], 1)
    if not axes:
        return replace(x, dims=rest)
    if axes == x.channels[:1] and len(x.channels) > 1:
        size = x.width // axes[0].size
        out = ctx.emit(node, slice_channels, [x.node, index * size, size])
        return replace(x, node=out, dims=rest, channels=x.channels[1:])
    raise Refused(f"selects along dimension {dim} of {x.shape}, which is neither tokens nor heads")


def _row(ctx: Any, node: Node, x: RowValue, index: int, rest: Any) -> RowValue:
    out = ctx.emit(node, select_row, [x.node, index])
    return RowValue(out, rest, x.batch, ctx.single_row, x.channels)


@takes(aten.slice.Tensor)
def _slice(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x = args[0]
    if not isinstance(x, RowValue):
        raise Refused("slices something that is not the model's data")
    dim, start = (args[1] if len(args) > 1 else 0) % len(x.dims), args[2] if len(args) > 2 else 0
    size, step = node.meta["val"].shape[dim], args[4] if len(args) > 4 else 1
    start = start or 0
    start = start if start >= -x.shape[dim] else 0  # torch clamps
    if size == x.shape[dim]:
        return x
    first = start if start >= 0 else start + x.shape[dim]
    if step == 1 and dim == len(x.dims) - 1 and x.channels_last():
        return contiguous_channels(ctx.emit(node, slice_channels, [x.node, first, size]), x, size)
    if x.dims[dim] == (x.seq,) and size == 1:
        return _row(ctx, node, x, start, (*x.dims[:dim], (), *x.dims[dim + 1 :]))
    raise Refused(f"slices dimension {dim} of {x.shape}; only channels, or one token, can be sliced")


@takes(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
def _split(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    x, dim = args[0], (args[2] if len(args) > 2 else kwargs.get("dim", 0))
    if not isinstance(x, RowValue) or dim % len(x.dims) != len(x.dims) - 1 or not x.channels_last():
        raise Refused("splits something other than channels")
    parts, start = [], 0
    for value in node.meta["val"]:
        size = value.shape[-1]
        parts.append(contiguous_channels(ctx.emit(node, slice_channels, [x.node, start, size]), x, size))
        start += size
    return tuple(parts)


@takes(python_operator.getitem)
def _getitem(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return Poison() if isinstance(args[0], Poison) else args[0][args[1]]


@takes(aten.cat.default)
def _cat(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    parts, dim = args[0], args[1] if len(args) > 1 else 0
    if not all(isinstance(p, RowValue) and p.channels_last() for p in parts):
        raise Refused("joins something that is not the model's data")
    first = parts[0]
    same = all(p.dims[:-1] == first.dims[:-1] and p.seq == first.seq for p in parts)
    if dim % len(first.dims) != len(first.dims) - 1 or not same:
        raise Refused("joins along tokens or batch; only channels can be joined")
    result = first
    for part in parts[1:]:
        out = ctx.emit(node, concat_channels, [result.node, part.node])
        result = contiguous_channels(out, result, result.width + part.width)
    return result


def _quantise(q: Any, node: Node) -> None:
    node.meta["data"] = {}


def _lower_row(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x = b.demand(node.args[0], "wide")
    layout, name = b.layout(x), b.name(node)
    out = b.wide(f"{name}_row", layout, node)
    common = b.common(node, name, (x,), (out,))
    common["one_row"] = False  # it reads all rows
    stage = SelectRowStage(**common, layout=layout, element=b.element(x), row=node.args[1])
    b.add(stage, [{} for _ in nodes])
    return out


def _lower_slice(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    layout_in, layout, name = b.closed(node.args[0]), b.closed(node), b.name(node)
    x = b.demand(node.args[0], "wide", layout_in)
    out = b.wide(f"{name}_slice", layout, node)
    stage = SliceStage(
        **b.common(node, name, (x,), (out,)),
        layout_in=layout_in,
        layout=layout,
        element=b.element(x),
        start=node.args[1],
    )
    b.add(stage, [{} for _ in nodes])
    return out


def _lower_concat(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    layouts, name = [b.closed(a) for a in node.args], b.name(node)
    x, y = (b.demand(a, "wide", layout) for a, layout in zip(node.args, layouts, strict=True))
    out = b.wide(f"{name}_join", b.closed(node), node)
    stage = ConcatStage(
        **b.common(node, name, (x, y), (out,)),
        layout_a=layouts[0],
        layout_b=layouts[1],
        element=b.element(x),
    )
    b.add(stage, [{} for _ in nodes])
    return out


operator(Operator("select_row", select_row, ("wide",), "wide", _quantise, _lower_row))
operator(Operator("slice_channels", slice_channels, ("wide",), "wide", _quantise, _lower_slice))
operator(Operator("concat_channels", concat_channels, ("wide", "wide"), "wide", _quantise, _lower_concat))


@dataclass(frozen=True)
class SelectRowStage(Stage):
    """One row of every sequence. Cycles: one loop SELECT of steps * batch * seq * blocks."""

    layout: Layout = SCALAR
    element: str = "int16"
    row: int = 0

    template: ClassVar[str] = "select_row"
    header: ClassVar[str] = "flow.hpp"
    hold: ClassVar[str] = "seq"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        row = self.rows(self.element, self.layout)
        return [row], [replace(row, one_row=True)]

    def config(self, design: Design) -> dict[str, Any]:
        return {
            "token_t": f"t2f::vec<{ELEMENTS[self.element][0]}, {design.shape.lanes}>",
            "blocks": self.layout.blocks(design.shape.lanes),
            "row": self.row,
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [select_row(inputs[0], self.row)]

    def cost(self, design: Design) -> Estimate:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        token = s.lanes * 8 * ELEMENTS[self.element][1]
        which = costs.times(2, costs.add(32)) + costs.compare(32)
        control = costs.loop() + costs.place(s.tile, blocks) + costs.launch_size(self.steps * blocks)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            which, control, costs.port(token), costs.port(0)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, blocks = 1 if self.one_row else seq, self.layout.blocks(design.shape.lanes)
        return pipelined(self.steps * batch * rows * blocks, depth("SELECT"))


@dataclass(frozen=True)
class SliceStage(Stage):
    """Channels [start, start + size).

    Cycles: one loop SLICE of steps * batch * seq * max(in_blocks, start // lanes + lag + out_blocks),
    where lag is 1 if the slice starts inside a block.
    """

    layout_in: Layout = SCALAR
    layout: Layout = SCALAR
    element: str = "int16"
    start: int = 0

    template: ClassVar[str] = "slice_channels"
    header: ClassVar[str] = "flow.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        # Channels are counted from the first lane of the row: there may be no gaps before them.
        layout_in, layout = self.layout_in.closed, self.layout.closed
        return [self.rows(self.element, layout_in)], [self.rows(self.element, layout)]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {
            "value_t": f"{self.element}_t",
            "in_blocks": self.layout_in.blocks(lanes),
            "out_blocks": self.layout.blocks(lanes),
            "start": self.start,
            "size": self.layout.channels,
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0][..., self.start : self.start + self.layout.channels]]

    def cost(self, design: Design) -> Estimate:
        s, token = design.shape, design.shape.lanes * 8 * ELEMENTS[self.element][1]
        blocks = max(
            self.layout_in.blocks(s.lanes), ceil_div(self.start, s.lanes) + self.layout.blocks(s.lanes)
        )
        held = costs.registers(s.tile, token) if self.start % s.lanes else Estimate()
        cut = Estimate(lut=token // 2) if self.layout.channels % s.lanes else Estimate()
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            held, cut, joining_control(s, self.steps, blocks), costs.port(token), costs.port(0)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        lanes, rows = design.shape.lanes, 1 if self.one_row else seq
        end = ceil_div(self.start, lanes) + self.layout.blocks(lanes)
        blocks = max(self.layout_in.blocks(lanes), end)
        return pipelined(self.steps * batch * rows * blocks, depth("SLICE"))


def joining_control(shape: Shape, steps: int, blocks: int) -> Estimate:
    """Loop of a stage that visits ``blocks`` blocks of every row and asks which of them it has."""
    asks = costs.times(3, costs.compare(max(1, blocks.bit_length())))
    return costs.loop() + costs.place(shape.tile, blocks) + costs.launch_size(steps * blocks) + asks


def rows_needed(design: Design) -> int:
    """Rows that every sequence must have: the design takes one of them by its number."""
    numbers = [s.row for s in design.stages if isinstance(s, SelectRowStage)]
    return max((-n if n < 0 else n + 1 for n in numbers), default=1)


@dataclass(frozen=True)
class ConcatStage(Stage):
    """Channels of a, then of b.

    Cycles: one loop JOIN of steps * batch * seq * max(a_blocks + b_blocks, lag + out_blocks), where lag
    is 1 if a ends inside a block.
    """

    layout_a: Layout = SCALAR
    layout_b: Layout = SCALAR
    element: str = "int16"

    template: ClassVar[str] = "concat_channels"
    header: ClassVar[str] = "flow.hpp"
    hold: ClassVar[str] = "tile"
    tile_late: ClassVar[tuple[int, ...]] = (1,)

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        sizes = self.layout_a.channels, self.layout_b.channels
        a, b, both = (self.rows(self.element, Layout(1, size)) for size in (*sizes, sum(sizes)))
        return [a, b], [both]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        a, b = self.layout_a, self.layout_b
        return {
            "value_t": f"{self.element}_t",
            "a_blocks": a.blocks(lanes),
            "b_blocks": b.blocks(lanes),
            "a_channels": a.channels,
            "b_channels": b.channels,
            "out_blocks": ceil_div(a.channels + b.channels, lanes),
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        return [torch.cat((inputs[0], inputs[1]), dim=-1)]

    def cost(self, design: Design) -> Estimate:
        s, token = design.shape, design.shape.lanes * 8 * ELEMENTS[self.element][1]
        blocks = self.layout_a.blocks(s.lanes) + self.layout_b.blocks(s.lanes)
        turned = self.layout_a.channels % s.lanes != 0
        held = costs.registers(s.tile, token) + costs.select(token, 3) if turned else Estimate()
        ends = costs.times(2, costs.port(token)) + costs.port(0)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            held, costs.select(token), joining_control(s, self.steps, blocks), ends
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        lanes, rows = design.shape.lanes, 1 if self.one_row else seq
        a, b = self.layout_a, self.layout_b
        lag = 1 if a.channels % lanes else 0
        out = ceil_div(a.channels + b.channels, lanes)
        blocks = max(a.blocks(lanes) + b.blocks(lanes), lag + out)
        return pipelined(self.steps * batch * rows * blocks, depth("JOIN"))
