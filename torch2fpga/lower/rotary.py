# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: pairs of channels turned by an angle that grows with the position.

The angles are not tables in memory: a stage holds one frequency a pair, multiplies it with the row's
position (a phase, in turns, whose overflow is the full turn) and looks up a quarter of a sine.
"""

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
    Stage,
    Tokens,
    pipelined,
)
from torch2fpga.errors import DesignError
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import round_shift, sine

#: fraction bits of a phase, which counts turns
PHASE_BITS = 32
#: fraction bits of sine and cosine, and of a rotated value in units of the input
TRIG_BITS, TURNED_BITS = 14, 10
#: a rotation's table may differ by its own float32 rounding: of the angle, and of the cosine
ANGLE_ERROR, TABLE_ERROR = 2.0**-22, 2e-6


def rotary(
    x: Tensor, frequencies: Tensor, heads: int, amplitude: float = 1.0, paired: bool = False
) -> Tensor:
    """Pairs of channels of x (batch, seq, heads * size) turned by position * frequency.

    Args:
        frequencies: (size / 2,) float32, radians a position, one a pair.
        amplitude: of every rotated value.
        paired: pair i is channels 2 i and 2 i + 1 of a head, instead of i and i + size / 2.
    """
    batch, seq, width = x.shape
    angle = torch.arange(seq, dtype=torch.float32)[:, None, None] * frequencies
    cos, sin = angle.cos() * amplitude, angle.sin() * amplitude
    parts = (batch, seq, heads, -1, 2) if paired else (batch, seq, heads, 2, width // heads // 2)
    a, b = x.reshape(parts).unbind(-1 if paired else -2)
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.stack(turned, -1 if paired else -2).reshape(batch, seq, width)


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x * cos + (second half negated, first half) * sin: what the captured graph means by it."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


@takes(rotate_half)
def _take(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x, cos, sin = args
    if not isinstance(x, RowValue):
        raise Refused("rotates something that is not the model's data")
    if not isinstance(cos, Const) or not isinstance(sin, Const):
        raise Refused("rotary positions that depend on an input", "positions must count up from 0")
    size = x.shape[-1]
    inner = x.dims[-1]
    if tuple(inner) != x.channels[len(x.channels) - len(inner) :] or size % 2:
        raise Refused("rotates something other than the channels of a head")
    frequencies, amplitude = frequencies_of(*(_by_position(table.value, x) for table in (cos, sin)))
    # Every layer has tables of its own; equal ones become one constant.
    known = ctx.frequencies.setdefault(tuple(frequencies.tolist()), frequencies)
    constant = ctx.constant(known, "")
    options = {"heads": x.width // size, "amplitude": amplitude, "paired": False}
    return RowValue(ctx.emit(node, rotary, [x.node, constant], options), x.dims, x.batch, x.seq, x.channels)


def _by_position(table: Tensor, x: RowValue) -> Tensor:
    """(seq, size) rows of a table that is broadcast to ``x``."""
    rank, size = len(x.dims), x.shape[-1]
    rows = table.reshape([1] * (rank - table.dim()) + list(table.shape))
    at = next((i for i, d in enumerate(x.dims) if d == (x.seq,)), rank - 2)
    for dim in range(rank - 1):
        if dim == at or rows.shape[dim] == 1:
            continue
        if not bool((rows == rows.narrow(dim, 0, 1)).all()):
            raise Refused("rotary positions that differ between sequences or heads")
        rows = rows.narrow(dim, 0, 1)
    if rows.numel() != x.seq.size * size:
        raise Refused(f"a rotation by a table of shape {tuple(table.shape)}, not one row a position")
    return rows.reshape(x.seq.size, size)


def frequencies_of(cos: Tensor, sin: Tensor) -> tuple[Tensor, float]:
    """Frequencies and amplitude of a rotation from its tables.

    Args:
        cos, sin: (seq, size), both halves of a row the same.
    Returns:
        (size / 2,) float32 radians a position, all 0 where there is one position only; amplitude.
    Raises:
        Refused: if the angles are not position * frequency, positions counted from 0.
    """
    half = cos.shape[1] // 2
    if not torch.equal(cos[:, :half], cos[:, half:]) or not torch.equal(sin[:, :half], sin[:, half:]):
        raise Refused("a rotation whose halves turn by different angles")
    c, s = cos[:, :half].double(), sin[:, :half].double()
    amplitude = float(c[0, 0])
    angle = torch.atan2(s, c)
    positions = torch.arange(len(angle), dtype=torch.float64)[:, None]
    found = torch.zeros(half, dtype=torch.float64)
    # The first row gives a frequency to float32; rows further on, whose full turns are then known,
    # make it more exact.
    row = 1
    while row < len(angle):
        found += _wrapped(angle[row] - row * found) / row
        row *= 2
    if len(angle) > 1:
        rest = _wrapped(angle - positions * found)
        found += (positions * rest).sum(0) / (positions**2).sum()
    want = positions * found
    allowed = amplitude * (want.abs() * ANGLE_ERROR + TABLE_ERROR)
    error = torch.maximum((want.cos() * amplitude - c).abs(), (want.sin() * amplitude - s).abs())
    if amplitude <= 0 or bool((error > allowed).any()):
        raise Refused(
            "a rotation by angles that are not position times frequency", "positions must count up from 0"
        )
    return found.to(torch.float32), amplitude


def _wrapped(angle: Tensor) -> Tensor:
    """The same angle in -pi to pi."""
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))


def _quantise(q: Any, node: Node) -> None:
    fmt = q.format(node.args[0], "rotary")
    factor = fmt.scale * 2.0**-TURNED_BITS * float(node.kwargs["amplitude"])
    node.meta["affine"] = (factor, torch.zeros_like(factor))
    turns = q.parameter(node.args[1]).to(torch.float64) / (2 * math.pi)
    steps = torch.floor(turns * 2.0**PHASE_BITS + 0.5).to(torch.int64)
    node.meta["data"] = {"frequencies": steps & ((1 << PHASE_BITS) - 1)}


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    if not node.kwargs["paired"]:  # the pass that pairs channels has refused what it cannot do
        raise DesignError(f"{node.meta['path']}: a rotation of halves reached the hardware")
    heads, name = int(node.kwargs["heads"]), b.name(node)
    layout = Layout(heads, int(node.meta["channels"]) // heads)
    x = b.demand(node.args[0], "rotary", layout)
    out = b.raw(f"{name}_turned", layout, node)
    params = b.words(f"{name}_params")
    b.add(
        RotaryStage(
            **b.common(node, name, (x,), (out,), params), layout=layout, cached=bool(b.shape.max_keys)
        ),
        [n.meta["data"] for n in nodes],
    )
    return out


operator(Operator("rotary", rotary, ("rotary",), "raw", _quantise, _lower))


@dataclass(frozen=True)
class RotaryStage(Stage):
    """(a cos - b sin, b cos + a sin) of neighbouring channels a and b, with 10 fraction bits.

    Where a cache keeps earlier rows (``cached``) positions are counted from the first of them.

    Cycles of a step: LOAD of group_blocks, ROTATE of batch * seq * blocks.
    """

    layout: Layout = SCALAR
    cached: bool = False

    template: ClassVar[str] = "rotary"
    header: ClassVar[str] = "rotary.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows("int16", self.layout)], [self.rows("int32", self.layout)]

    def result_bits(self) -> int:
        """An int16 value turned by up to an eighth grows by sqrt(2), and has 10 fraction bits more."""
        return 16 + TURNED_BITS + 1

    def runtime_arguments(self) -> list[str]:
        return [*super().runtime_arguments(), *(["past"] if self.cached else [])]

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        return {"blocks": self.layout.blocks(lanes), "head_blocks": self.layout.group_blocks(lanes)}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        x = inputs[0]
        assert x is not None
        positions = torch.arange(x.shape[1])[:, None, None]
        phase = (positions * data["frequencies"]) & ((1 << PHASE_BITS) - 1)
        sin, cos = sine(phase), sine(phase + (1 << (PHASE_BITS - 2)))
        a, b = x.to(torch.int64).reshape(*x.shape[:2], self.layout.groups, -1, 2).unbind(-1)
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -1)
        return [round_shift(turned.reshape(x.shape), TRIG_BITS - TURNED_BITS).to(torch.int32)]

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        """One word a block of a head, with the frequency of each of its pairs."""
        pairs = design.shape.lanes // 2
        frequencies = data["frequencies"].tolist()
        frequencies += [0] * (-len(frequencies) % pairs)
        words = [frequencies[i : i + pairs] + [0] * (16 - pairs) for i in range(0, len(frequencies), pairs)]
        return b"".join(struct.pack("<16I", *word) for word in words)

    def cost(self, design: Design) -> Estimate:
        s, blocks = design.shape, self.layout.blocks(design.shape.lanes)
        phase = costs.multiply(33, 33, 32)
        width = max(tables.sine_table()).bit_length() + 1
        place = costs.add(32) + costs.times(2, costs.add(20)) + costs.select(19)
        between = costs.table(len(tables.sine_table()), width, 2) + costs.multiply(12, 11)
        between += costs.times(2, costs.add(width)) + costs.add(width) + costs.select(16)
        turn = costs.times(4, costs.multiply(16, 16)) + costs.times(4, costs.add(32))
        pair = phase + costs.times(2, place + between) + turn + costs.register(32, 4)
        kept = costs.memory(self.layout.group_blocks(s.lanes), s.lanes // 2 * 32)
        control = costs.times(2, costs.loop()) + costs.place(s.tile, blocks) + costs.launch_size(blocks)
        control += costs.counter(8) + costs.times(2, costs.add(32))
        ends = costs.port(s.lanes * 16) + costs.port(512) + costs.port(s.lanes * 32)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(s.lanes // 2, pair), kept, control, ends
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        lanes, rows = design.shape.lanes, 1 if self.one_row else seq
        load = pipelined(self.layout.group_blocks(lanes), depth("LOAD"))
        tokens = batch * rows * self.layout.blocks(lanes)
        return self.steps * (load + pipelined(tokens, depth("ROTATE")))
