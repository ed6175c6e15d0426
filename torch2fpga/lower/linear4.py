# SPDX-License-Identifier: Apache-2.0
"""Linear layers with int4 weights in groups along the input (precision ``w4a8``).

A weight stands for q * m * S: q in -8..7, m an integer of 1 to 127 for every output channel and group of
input channels, S a real number for every output channel, which joins the requantisation behind. So the
array stays in integers: it adds up q * x over a group, multiplies by m and adds that to its accumulators.

Groups count channels as they lie in tokens: heads that do not fill theirs count with what fills them up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import Design, Estimate, Layout, ceil_div
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.lower.linear import MatmulStage, matmul_exact, pad_channels
from torch2fpga.lower.weight_formats import WEIGHT_FORMATS, IntegerWeights, WeightFormat
from torch2fpga.plan.packing import packed_bytes
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.weights.rounding import CHUNK, chunks

#: channels a token: a beat of scales has room for eight groups then
LANES = 16
#: input channels that share a scale
GROUPS = (32, 64, 128)
GROUP = 64
#: groups that share a beat of scales (`scale_groups` in matmul4.hpp)
BEAT_GROUPS = 8
#: range of q, and the largest m
LEAST, GREATEST, TOP_SCALE = -8, 7, 127
#: int32 accumulators hold so many products -128 * -8 * 127 with certainty
MOST_INPUTS = (2**31 - 1) // (128 * 8 * 127)
#: float32 products of int8 inputs and q * m are exact up to this many summands (2^24 / (128 * 8 * 127))
EXACT_SUMMANDS = 128
#: fractions of the scale that clips nothing which are tried for a group
FRACTIONS = (1.0, 0.97, 0.94, 0.91, 0.88, 0.85, 0.82, 0.78, 0.74, 0.7)
#: share of the mean energy of the inputs that is added to each
DAMPING = 0.05
#: head room for weights that take up what others left
ROOM = 1.05


def quantise_groups(
    scaled: Tensor, layout: Layout, group: int = GROUP, rows: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """int4 weights: a search over each group's scale for the least squared error.

    With ``rows`` the error that rounding a channel makes in the outputs is taken up by the channels behind it
    (Frantar et al., GPTQ, 2023), as far as their inputs go together in these rows.

    Args:
        scaled: (out, in) weights, the input's scales folded in.
        layout: how the input's channels lie in tokens.
        group: channels of the tokens that share a scale.
        rows: (n, in) inputs seen in calibration, in their integer units.
    Returns:
        (out, in) int8 q in -8..7, (out, groups) int8 m in 1..127, (out,) float64 S.
    Raises:
        CompileError: more inputs than int32 accumulators can take.
    """
    if layout.channels > MOST_INPUTS:
        raise CompileError(
            f"{layout.channels} inputs with int4 weights may overflow an int32 accumulator, "
            f"which takes {MOST_INPUTS:,}"
        )
    if rows is not None and len(rows):
        seen = _input_statistics(rows)
        parts = [_quantise_in_turn(scaled[r].to(torch.float32), layout, group, *seen) for r in chunks(scaled)]
    else:
        size = max(1, CHUNK // layout.channels)
        parts = [_quantise_rows(part, layout, group) for part in scaled.to(torch.float32).split(size)]
    q, m, s = (torch.cat(x) for x in zip(*parts, strict=True))
    return q, m, s


def _quantise_rows(scaled: Tensor, layout: Layout, group: int) -> tuple[Tensor, Tensor, Tensor]:
    padded = pad_channels(scaled, layout, LANES, 1)
    groups = ceil_div(padded.shape[1], group)
    w = torch.nn.functional.pad(padded, (0, groups * group - padded.shape[1])).reshape(-1, groups, group)
    whole = w.abs().amax(2) / GREATEST  # scales that clip nothing
    unit = whole.amax(1, keepdim=True).clamp(min=1e-30) / TOP_SCALE
    best_m, best_q = _search(w / unit[..., None])
    q = best_q.reshape(w.shape[0], -1)[:, channel_places(layout)]
    return q.to(torch.int8), best_m.to(torch.int8), unit[:, 0].to(torch.float64)


def _search(w: Tensor, energy: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(..., groups) m and (..., groups, size) q for weights in units of S; errors may be weighted (size)."""
    top = torch.ceil(w.abs().amax(-1) / GREATEST - 1e-4).clamp(1, TOP_SCALE)
    best_m, best_q = top, torch.zeros_like(w)
    best = torch.full_like(top, math.inf)
    for fraction in FRACTIONS:
        m = torch.floor(top * fraction + 0.5).clamp(min=1)
        q = torch.floor(w / m[..., None] + 0.5).clamp_(LEAST, GREATEST)
        error = (q * m[..., None] - w).square_()
        error = (error if energy is None else error * energy).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        best_m = torch.where(better, m, best_m)
        best_q = torch.where(better[..., None], q, best_q)
    return best_m, best_q


def _quantise_in_turn(
    scaled: Tensor, layout: Layout, group: int, energy: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Channel by channel; what a channel's rounding leaves goes to those behind it."""
    group_of = channel_places(layout) // group
    starts = [int(torch.searchsorted(group_of, g)) for g in range(int(group_of[-1]) + 2)]
    unit = scaled.abs().amax(1, keepdim=True).clamp(min=1e-30) * ROOM / GREATEST / TOP_SCALE
    w, q = scaled / unit, torch.zeros_like(scaled)
    scales = []
    for a, b in pairwise(starts):
        block = w[:, a:b].clone()
        m, _ = _search(block, energy[a:b])
        scales.append(m)
        left = torch.zeros_like(block)
        for j in range(b - a):
            rounded = torch.floor(block[:, j] / m + 0.5).clamp_(LEAST, GREATEST)
            q[:, a + j] = rounded
            left[:, j] = (block[:, j] - rounded * m) / spread[a + j, a + j]
            block[:, j + 1 :] -= left[:, j : j + 1] * spread[a + j, a + j + 1 : b]
        w[:, b:] -= left @ spread[a:b, b:]
    return q.to(torch.int8), torch.stack(scales, 1).to(torch.int8), unit[:, 0].to(torch.float64)


def _input_statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(in,) mean square of every input, and the upper Cholesky factor of the inverse of their products."""
    products = rows.t().to(torch.float64) @ rows.to(torch.float64) / rows.shape[0]
    energy = products.diagonal().clone()
    damping = DAMPING * energy.mean().clamp(min=1e-12)
    products.diagonal().add_(damping)
    # A matrix of a wide layer is a gigabyte: each goes as soon as the next one is there.
    lower = torch.linalg.cholesky(products)
    del products
    inverse = torch.cholesky_inverse(lower)
    del lower
    factor = torch.linalg.cholesky(inverse, upper=True)
    del inverse
    return (energy + damping).float(), factor.float()


def channel_places(layout: Layout) -> Tensor:
    """(channels,) where each channel lies among those of a row's tokens."""
    starts = torch.arange(layout.groups) * layout.group_blocks(LANES) * LANES
    return (starts[:, None] + torch.arange(layout.size)).reshape(-1)


def effective_weights(data: Mapping[str, Any], layout: Layout, group: int = GROUP) -> Tensor:
    """(out, in) int16 products q * m: what inputs are multiplied by."""
    scales = data["scales"][:, channel_places(layout) // group]
    product: Tensor = data["weight"].to(torch.int16) * scales
    return product


def _int4_weights(scaled: Tensor, layout: Layout, rows: Tensor | None = None) -> IntegerWeights:
    q, m, unit = quantise_groups(scaled, layout, rows=rows)
    data = {"weight": q, "scales": m}
    return IntegerWeights(data, unit, effective_weights(data, layout))


@dataclass(frozen=True)
class Int4MatmulStage(MatmulStage):
    """An array whose weights are int4 in groups.

    Two output channels share a DSP slice; where a group ends, its sums (one for every row and column) are
    multiplied by its scale. Cycles are those of ``MatmulStage`` with twice as many weights a word, and
    for every eight groups a beat of scales, which takes iterations of its own in LOAD, and in REDUCE
    where weights are streamed.

    Attributes:
        group_size: input channels, counted as they lie in tokens, that share a scale.
    """

    group_size: int = GROUP

    weight_bits: ClassVar[int] = 4
    by_output: ClassVar[tuple[str, ...]] = ("weight", "scales")
    header: ClassVar[str] = "matmul4.hpp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size not in GROUPS:
            raise DesignError(f"{self.name}: groups are of {GROUPS} input channels, not {self.group_size}")
        if self.layout_in.channels > MOST_INPUTS:
            raise DesignError(
                f"{self.name}: int32 accumulators take {MOST_INPUTS:,} inputs, "
                f"not {self.layout_in.channels:,}"
            )

    @property
    def template(self) -> str:  # type: ignore[override]
        return "matmul4_streamed" if self.streamed else "matmul4"

    @property
    def group_blocks(self) -> int:
        """Channel blocks of a group."""
        return self.group_size // LANES

    def scale_beats(self) -> int:
        """Beats of scales of a part: one for every eight groups."""
        return ceil_div(self.layout_in.blocks(LANES), BEAT_GROUPS * self.group_blocks)

    def result_bits(self) -> int:
        return (127 * -LEAST * TOP_SCALE * self.layout_in.channels).bit_length() + 1

    def places(self, design: Design) -> int:
        """Streamed scales take the place of a block."""
        beats = self.layout_in.blocks(LANES) + self.scale_beats()
        return max(super().places(design), beats if self.streamed else 0)

    def config(self, design: Design) -> dict[str, Any]:
        self.width(design)  # refuses lanes that are too few, streamed or not
        return {**super().config(design), "group_blocks": self.group_blocks}

    def product(self, x: Tensor, data: Mapping[str, Any]) -> Tensor:
        weight = effective_weights(data, self.layout_in, self.group_size)
        return matmul_exact(x, weight, EXACT_SUMMANDS)

    def weight_words(self, design: Design) -> int:
        columns = self.width(design)
        beats = self.layout_in.blocks(LANES) + self.scale_beats()
        return self.layout_out.blocks(LANES) * self.parts(design) * beats * columns * LANES // 128

    def weight_image(self, data: Mapping[str, Any], design: Design) -> bytes:
        """The step's beats of columns x lanes / 2 bytes: for output block, for part of its columns, for eight
        groups of the input a beat of scales, group outermost, and their weights: for input block, for pair
        of columns, for lane a byte."""
        columns = self.width(design)
        w = pad_channels(pad_channels(data["weight"], self.layout_in, LANES, 1), self.layout_out, LANES, 0)
        parts, in_blocks = w.shape[0] // columns, w.shape[1] // LANES
        pairs = w.reshape(parts, columns // 2, 2, in_blocks, LANES).permute(0, 3, 1, 4, 2)
        weights = packed_bytes(pairs.numpy()).reshape(parts, in_blocks, -1)
        m = pad_channels(data["scales"], self.layout_out, LANES, 0)
        missing = self.scale_beats() * BEAT_GROUPS - m.shape[1]
        m = torch.nn.functional.pad(m, (0, missing)).reshape(parts, columns, -1).permute(0, 2, 1)
        scales = m.reshape(parts, self.scale_beats(), -1).numpy()
        blocks = BEAT_GROUPS * self.group_blocks
        beats = []
        for i in range(self.scale_beats()):
            beats += [scales[:, i : i + 1], weights[:, i * blocks : (i + 1) * blocks]]
        return bytes(np.concatenate(beats, axis=1).tobytes())

    def cost(self, design: Design) -> Estimate:
        rows, columns = self.rows_a_tile(design), self.width(design)
        in_blocks, out_blocks = self.layout_in.blocks(LANES), self.layout_out.blocks(LANES)
        words, steps = columns * LANES // 128, self.steps if self.weights_kept == "resident" else 1
        turns = steps * out_blocks * self.parts(design)
        if self.streamed:
            kept = costs.register(512)
        else:
            weights, scales = turns * in_blocks, turns * self.scale_beats()
            kept = costs.times(words, costs.uram(weights, 512) + costs.bram(scales, 512))
        x = costs.times(rows, costs.bram(in_blocks, LANES * 8))
        result = costs.registers(rows, LANES * 32) + costs.register(rows * columns * 32)
        control = costs.times(2 if self.streamed else 3, costs.loop()) + costs.row_walk()
        control += costs.times(7, costs.counter(16)) + costs.select(BEAT_GROUPS * columns * 8)
        ends = costs.port(rows * LANES * 8) + costs.port(512) + costs.port(LANES * 32)
        front = self.front(design)
        walk = costs.loop() + costs.place(rows, in_blocks) + costs.launch_size(self.steps * in_blocks)
        join = walk + costs.register(rows * LANES * 8) + costs.port(LANES * 8)
        found = costs.total(
            int4_array(rows, columns, LANES), kept, x, result, control, ends, join,
            fifo_cost(front.depth, front.token_bytes), costs.register(BEAT_GROUPS * columns * 8),
        )  # fmt: skip
        return replace(found, cycles=self.nominal_cycles(design))


def int4_array(rows: int, columns: int, lanes: int) -> Estimate:
    """``rows * lanes * columns`` int4 by int8 products a cycle, their group sums and accumulators.

    A pair of columns is a chain of ``lanes`` slices for every row (``t2f::accumulate_w4a8``) and a 48-bit
    sum; its fields leave through a 26-bit correction of the borrow, and each is multiplied by its scale (a
    slice) and added to an int32 sum. The fifth bit of the upper weight is a LUT (``t2f::weight_operand``).
    """
    field = costs.multiply(26, 8, 32) + costs.add(32) + costs.register(32)
    pair = Estimate(dsp=lanes) + costs.add(48) + costs.add(26) + costs.times(2, field)
    operand = Estimate(lut=lanes, ff=27 * lanes)
    return costs.times(columns // 2, operand) + costs.times(rows * columns // 2, pair)


WEIGHT_FORMATS["w4a8"] = WeightFormat("w4a8", _int4_weights, True, True, Int4MatmulStage, (LANES,))
