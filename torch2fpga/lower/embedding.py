# SPDX-License-Identifier: Apache-2.0
"""Embedding tables: rows by token id, rows by position, and their sum.

Tables are int16 with one scale a channel for all tables of a sum and lie in HBM; rows are gathered there.
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
    WORDS,
    Depths,
    Design,
    Estimate,
    Layout,
    Stage,
    Tokens,
    ceil_div,
    tiled,
)
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Axis, Const, HostValue, Refused, RowValue
from torch2fpga.weights.store import kept_tensor

aten = torch.ops.aten

#: a channel counts as at least this fraction of the tables' largest magnitude
DEAD_CHANNEL = 256
#: rows of a table that are rounded at once
PART = 4096


def embed(ids: Sequence[Tensor], tables: Sequence[Tensor], positions: Tensor | None, seq: int) -> Tensor:
    """Sum of rows: ``tables[i][ids[i]]`` (ids (batch, seq)) plus ``positions[:seq]`` (rows, channels).

    With no ids at all the result has batch 1.
    """
    total: Tensor | None = None
    for index, table in zip(ids, tables, strict=True):
        rows = torch.nn.functional.embedding(index, table)
        total = rows if total is None else total + rows
    if positions is not None:
        rows = positions[: ids[0].shape[1] if ids else seq]
        total = rows[None] if total is None else total + rows
    assert total is not None
    return total


@takes(aten.embedding.default)
def _take(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    table, ids = args[0], args[1]
    if not isinstance(table, Const):
        raise Refused("the table of an embedding must be a parameter")
    if not isinstance(ids, HostValue) or ids.node.op != "placeholder":
        raise Refused(
            "embedding of ids that are computed in the model",
            "only ids that are inputs, or constants such as positions, are supported",
        )
    batch, seq = ctx.rows(*ids.shape)
    source = [ctx.input(ids.node)]
    tables = [ctx.constant(table.value, table.name)]
    out = ctx.emit(node, embed, [source, tables, None, seq.size])
    channel = Axis(table.value.shape[1])
    dims = tuple((a,) if a.size != 1 else () for a in (batch, seq))
    return RowValue(out, (*dims, (channel,)), batch, seq, (channel,))


def add_positions(ctx: Any, node: Node, x: RowValue, rows: Const) -> RowValue:
    """``x`` plus a constant that has one row a position (or the same row for all)."""
    value = rows.value
    while value.dim() > 2 and bool((value == value[:1]).all()):
        value = value[0]  # the same for every sequence
    if value.dim() == 1:
        value = value[None].expand(x.seq.size, -1)
    seq_last = len(x.dims) < 2 or x.dims[-2] == ((x.seq,) if x.seq.size != 1 else ())
    if value.dim() != 2 or value.shape[1] != x.width or not x.channels_last() or not seq_last:
        raise Refused(f"adds a constant of shape {tuple(rows.value.shape)} to {x.shape}")
    if value.shape[0] == 1:
        value = value.expand(x.seq.size, -1)
    if value.shape[0] != x.seq.size:
        raise Refused(f"adds {value.shape[0]} constant rows to {x.seq.size} tokens")
    target = x.node
    folds = target.target is embed and len(target.users) == 0
    if folds and target.args[2] is not None:
        value = ctx.tensor(target.args[2]) + value
    table = ctx.constant(value.contiguous(), rows.name or f"{node.name}_rows")
    if folds:
        return RowValue(
            ctx.emit(node, embed, [*target.args[:2], table, x.seq.size]), x.dims, x.batch, x.seq, x.channels
        )
    from torch2fpga.lower.add import add

    constant = ctx.emit(node, embed, [[], [], table, x.seq.size])
    return RowValue(ctx.emit(node, add, [x.node, constant]), x.dims, x.batch, x.seq, x.channels)


def merge_embeds(ctx: Any, node: Node, a: RowValue, b: RowValue) -> RowValue | None:
    """The sum of two embeddings as one, or None where that is not what they are."""
    x, y = a.node, b.node
    if x.target is not embed or y.target is not embed or x.users or y.users or x is y:
        return None
    if (x.args[2] is not None and y.args[2] is not None) or len(x.args[0]) + len(y.args[0]) > 2:
        return None
    args = [
        [*x.args[0], *y.args[0]],
        [*x.args[1], *y.args[1]],
        x.args[2] if x.args[2] is not None else y.args[2],
        x.args[3],
    ]
    return RowValue(ctx.emit(node, embed, args), a.dims, a.batch, a.seq, a.channels)


def _quantise(q: Any, node: Node) -> None:
    tables = [q.parameter(t) for t in node.args[1]]
    if node.args[2] is not None:
        tables.append(q.parameter(node.args[2]))
    ends = [t.aminmax(dim=0) for t in tables]
    largest = torch.stack([torch.maximum(e.max, -e.min) for e in ends]).amax(0).to(torch.float64)
    # A channel with outliers does not make the others coarse; the multipliers behind share one shift, so
    # that no channel may count as much smaller than the largest.
    scale = largest.clamp(min=max(float(largest.max()) / DEAD_CHANNEL, 1e-30)) / 32767
    node.meta["affine"] = (scale, torch.zeros_like(scale))
    unit = scale.float()
    node.meta["data"] = {f"table{i}": _int16_table(node, t, unit) for i, t in enumerate(tables)}


def _int16_table(node: Node, table: Tensor, unit: Tensor) -> Tensor:
    what, size = f"table of {node.meta.get('path', node.name)}", 2 * table.numel()
    return kept_tensor(what, ("table", table, unit), size, lambda: _int16(table, unit))


def _int16(table: Tensor, unit: Tensor) -> Tensor:
    """Rounded, part by part: tables of large vocabularies are a good part of a model."""
    parts = [
        torch.floor(t.float() / unit + 0.5).clamp_(-32767, 32767).to(torch.int16) for t in table.split(PART)
    ]
    return torch.cat(parts)


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    layout, name = b.closed(node), b.name(node)
    sources: list[str] = []
    for i, ids in enumerate(node.args[0]):
        rows = b.words(f"{name}_rows{i}")
        b.table_port(f"{name}_table{i}", node.args[1][i], rows, layout, b.ids(ids))
        sources.append(rows)
    if node.args[2] is not None:
        rows = b.words(f"{name}_rows{len(sources)}")
        b.table_port(f"{name}_table{len(sources)}", node.args[2], rows, layout, None)
        sources.append(rows)
    out = b.raw(f"{name}_sum", layout, node)
    ids_names = tuple(str(i.target) for i in node.args[0])
    stage = EmbedStage(
        **b.common(node, name, tuple(sources), (out,)),
        layout=layout,
        ids=ids_names,
        positions=node.args[2] is not None,
    )
    b.add(stage, [n.meta["data"] for n in nodes])
    return out


operator(Operator("embedding", embed, (), "raw", _quantise, _lower))


@dataclass(frozen=True)
class EmbedStage(Stage):
    """Sum of table rows (int16) as int32.

    Cycles of a tile of n rows: FILL of n * row_words (all tables side by side), DRAIN of blocks * n.
    """

    layout: Layout = SCALAR
    ids: tuple[str, ...] = ()
    positions: bool = False

    template: ClassVar[str] = "embed_sum"
    header: ClassVar[str] = "embed.hpp"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [WORDS] * (len(self.ids) + self.positions), [self.rows("int32", self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {"blocks": self.layout.blocks(lanes), "row_words": row_words(self.layout, lanes)}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        """Inputs: ids (batch, seq) one a table; the last input has the (batch, seq) shape."""
        *ids, shape_like = inputs
        assert shape_like is not None
        batch, seq = shape_like.shape[:2]
        total = torch.zeros(batch, seq, self.layout.channels, dtype=torch.int32)
        for i, index in enumerate(ids):
            assert index is not None
            total += data[f"table{i}"][index.long()]
        if self.positions:
            total += data[f"table{len(ids)}"][:seq]
        return [total]

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        words, tables = row_words(self.layout, s.lanes), len(self.inputs)
        parts = 32 // s.lanes  # blocks in a word
        each = costs.memory(s.tile * words, 512) + costs.select(s.lanes * 16, parts) + costs.port(512)
        sums = costs.times(s.lanes * (tables - 1), costs.add(18)) + costs.register(s.lanes * 18)
        turns = costs.times(2, costs.multiply_constant(32, words, 32))
        control = costs.times(2, costs.loop()) + costs.row_walk() + costs.times(5, costs.counter(8)) + turns
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(tables, each), sums, control, costs.port(0)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        s, rows = design.shape, 1 if self.one_row else seq
        fill = tiled(rows, s.tile, row_words(self.layout, s.lanes), depth("FILL"))
        return batch * (fill + tiled(rows, s.tile, self.layout.blocks(s.lanes), depth("DRAIN")))


def row_words(layout: Layout, lanes: int) -> int:
    """64-byte words of one table row (int16 elements)."""
    return ceil_div(layout.blocks(lanes) * lanes * 2, 64)


def table_image(table: Tensor, layout: Layout, lanes: int) -> bytes:
    """A table (rows, channels) int16 with every row filled up to whole words."""
    from torch2fpga.lower.linear import pad_channels

    padded = pad_channels(table, layout, lanes, 1)
    width = row_words(layout, lanes) * 32
    out = torch.zeros(padded.shape[0], width, dtype=torch.int16)
    out[:, : padded.shape[1]] = padded
    return bytes(out.numpy().tobytes())
