# SPDX-License-Identifier: Apache-2.0
"""What a node of the captured graph stands for while it is brought to canonical form.

Reshape, transpose, squeeze, select and split move no data on the card as long as rows stay rows
and channels stay channels. To know that, every logical dimension is a product of *axes*; a view
only regroups or reorders axes. Canonical tensors are (batch, seq, channels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from math import prod

import torch
from torch import Tensor

from torch2fpga.passes.nodes import Node


class Refused(Exception):
    """A handler cannot express the node exactly; the text is the reason for the user."""

    def __init__(self, reason: str, help: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.help = help


_ids = count()


@dataclass(frozen=True, eq=False)
class Axis:
    """An indivisible part of a dimension (identity counts, not the size)."""

    size: int
    id: int = field(default_factory=lambda: next(_ids))

    def __repr__(self) -> str:
        return f"a{self.id}:{self.size}"


Dim = tuple[Axis, ...]


def dim_size(dim: Dim) -> int:
    """Size of a dimension."""
    return prod(a.size for a in dim)


@dataclass(frozen=True)
class RowValue:
    """A (batch, seq, channels) tensor of the canonical graph behind a logical view.

    Attributes:
        node: node of the canonical graph.
        dims: the logical dimensions in the user's order.
        batch, seq: row axes (size 1 where the user's tensor has none).
        channels: channel axes, outermost first.
    """

    node: Node
    dims: tuple[Dim, ...]
    batch: Axis
    seq: Axis
    channels: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(dim_size(d) for d in self.dims)

    @property
    def width(self) -> int:
        return prod(a.size for a in self.channels)

    def channels_last(self) -> bool:
        """Is the last dimension all channels, in order, and are the others rows only?"""
        if not self.dims or tuple(self.dims[-1]) != self.channels:
            return False
        rows = [a for d in self.dims[:-1] for a in d]
        return all(a in (self.batch, self.seq) for a in rows)


@dataclass(frozen=True)
class Const:
    """A value known at compile time; ``name`` is the parameter's name where it is one."""

    value: Tensor
    name: str = ""


@dataclass(frozen=True)
class HostValue:
    """An integer tensor that depends on integer inputs only (ids, masks), kept as a recipe."""

    node: Node
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """q times k transposed, (batch, heads, query, key), on its way to a softmax (eager attention)."""

    query: RowValue
    key: RowValue
    scale: float
    mask: object = None
    weights: bool = False  # the softmax has been taken


@dataclass(frozen=True)
class Poison:
    """Result of a refused node: whatever uses it is not reported again."""


Value = object
Evaluate = Callable[[Node, dict[str, Tensor]], Tensor]


def split_axes(value: RowValue, shape: tuple[int, ...]) -> RowValue:
    """``value`` seen under ``shape`` (a reshape); splits axes where the new shape needs it.

    Raises:
        Refused: where the new shape mixes rows and channels in a way no regrouping expresses.
    """
    flat: list[Axis] = [a for d in value.dims for a in d if a.size != 1]
    channels = list(value.channels)
    dims: list[Dim] = []
    at = 0
    for size in shape:
        dim: list[Axis] = []
        have = 1
        while have < size:
            if at >= len(flat):
                raise Refused(f"cannot view {value.shape} as {shape}")
            axis = flat[at]
            if size % (have * axis.size) == 0:
                dim.append(axis)
                have *= axis.size
                at += 1
                continue
            need = size // have
            if size % have or axis.size % need or axis not in channels:
                raise Refused(
                    f"the view {value.shape} -> {shape} mixes rows and channels",
                    "only views that split or merge channels, or keep rows, move no data",
                )
            outer, inner = Axis(need), Axis(axis.size // need)
            where = channels.index(axis)
            channels[where : where + 1] = [outer, inner]
            flat[at : at + 1] = [outer, inner]
        dims.append(tuple(dim))
    if at != len(flat):
        raise Refused(f"cannot view {value.shape} as {shape}")
    kept = tuple(a for a in channels if a.size != 1) or value.channels[:1]
    return RowValue(value.node, tuple(dims), value.batch, value.seq, kept)


def contiguous_channels(node: Node, like: RowValue, width: int) -> RowValue:
    """A result with the row dimensions of ``like`` and ``width`` new channels as last dimension."""
    channel = Axis(width)
    return RowValue(node, (*like.dims[:-1], (channel,)), like.batch, like.seq, (channel,))


def as_float(value: Tensor) -> Tensor:
    """A parameter as float32 for the compiler's own arithmetic."""
    return value.detach().to(torch.float32)
