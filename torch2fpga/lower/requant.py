# SPDX-License-Identifier: Apache-2.0
"""Requantisation: the one stage in which a number leaves one format for another.

y = saturate(round((x * M[c] + B[c] * 2^bs) / 2^s)), multipliers below 2^17, one rounding.
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
    ELEMENTS,
    SCALAR,
    Depths,
    Design,
    Estimate,
    Layout,
    Tokens,
    pipelined,
)
from torch2fpga.errors import CompileError
from torch2fpga.lower.linear import pad_channels
from torch2fpga.lower.ways import WaysStage
from torch2fpga.simulate.fixed import round_shift, saturate

MULTIPLIER_BITS = 17
MAX_SHIFT = 46


@dataclass(frozen=True)
class Multiplier:
    """Integer form of ``x * ratio + offset``: (x * m + b * 2^bias_shift) / 2^shift."""

    m: Tensor
    b: Tensor
    shift: int
    bias_shift: int

    def data(self) -> dict[str, Any]:
        """As step data of a requant stage."""
        return {"m": self.m, "b": self.b, "shift": self.shift, "bias_shift": self.bias_shift}


def multiplier(ratio: Tensor, offset: Tensor, where: str) -> Multiplier:
    """Largest shift with which every multiplier stays below 2^17.

    Args:
        ratio: (channels,) real factor from input units to output units.
        offset: (channels,) in output units.
        where: module path for the error text.
    Raises:
        CompileError: if the factors are too large to express.
    """
    largest, top = float(ratio.abs().max()), float(offset.abs().max())
    if not (math.isfinite(largest) and math.isfinite(top)):
        raise CompileError(f"{where}: a scale factor of {largest:g} and a bias of {top:g} are not finite")
    # The shifted bias stays below 2^60, so that sums with it fit 64 bits.
    limit = min(MAX_SHIFT, 60 - math.ceil(math.log2(max(top, 1.0))))
    shift = limit
    if largest > 0:
        shift = min(limit, MULTIPLIER_BITS - 1 - math.floor(math.log2(largest)))
        if largest * 2.0**shift >= 2**MULTIPLIER_BITS - 0.5:
            shift -= 1
    if shift < 0:
        raise CompileError(f"{where}: a scale factor of {largest:g} does not fit {MULTIPLIER_BITS} bits")
    m = torch.floor(ratio * 2.0**shift + 0.5).to(torch.int64)
    bias_shift = 0
    while top * 2.0 ** (shift - bias_shift) >= 2**30:
        bias_shift += 1
    if bias_shift > shift:
        raise CompileError(f"{where}: a bias of {top:g} output units does not fit")
    b = torch.floor(offset * 2.0 ** (shift - bias_shift) + 0.5).to(torch.int64)
    return Multiplier(m, b, shift, bias_shift)


@dataclass(frozen=True)
class RequantStage(WaysStage):
    """``x`` to a format of ``bits`` bits; ``ways`` channels a cycle.

    With ``scaled`` the rows carry a power-of-two exponent each (second input) and a zero point,
    whose share of the accumulator (``offset``) is added first.

    Cycles of a step, with parts = lanes / ways: LOAD of 1 + 2 * blocks * parts (``scaled``: 3 instead
    of 2), ROW of batch * seq * blocks * parts.

    Attributes:
        value_bits: width that the values of ``x`` are known to need; 0 is that of ``in_element``.
    """

    layout: Layout = SCALAR
    in_element: str = "int32"
    out_element: str = "int8"
    bits: int = 8
    relu: bool = False
    scaled: bool = False
    value_bits: int = 0

    header: ClassVar[str] = "requant.hpp"

    @property
    def template(self) -> str:  # type: ignore[override]
        return "requant_scaled" if self.scaled else "requant"

    @property
    def in_bits(self) -> int:
        """Width of a value that is multiplied. An offset is a sum of the same products as the value,
        with a zero point of at most 127 in place of the rows' own values: a bit more for both."""
        full = 8 * ELEMENTS[self.in_element][1]
        return min(full, (self.value_bits or full) + self.scaled)

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        exponents = [Tokens("exponents", one_row=self.one_row)] if self.scaled else []
        inputs = [self.rows(self.in_element, self.layout), *exponents]
        return inputs, [self.rows(self.out_element, self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        return {
            "in_t": f"{self.in_element}_t",
            "out_t": f"{self.out_element}_t",
            "blocks": self.layout.blocks(design.shape.lanes),
            "out_bits": self.bits,
            "relu": self.relu,
            "ways": self.width(design),
            "in_bits": self.in_bits,
        }

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        x = inputs[0]
        assert x is not None
        value = x.to(torch.int64)
        if self.scaled:
            value = value + data["offset"]
        value = value * data["m"]
        if self.scaled:
            exponent = inputs[1]
            assert exponent is not None
            value = value << exponent.to(torch.int64)[..., None]
        value += data["b"] << data["bias_shift"]
        value = saturate(round_shift(value, data["shift"]), self.bits)
        if self.relu:
            value = value.clamp(min=0)
        return [value.to(torch.int32)]

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        lanes = design.shape.lanes
        out = struct.pack("<16i", data["shift"], data["bias_shift"], *([0] * 14))
        rows = [self._channel_words(data[key], lanes) for key in ("m", "b")]
        out += bytes(torch.stack(rows, dim=1).contiguous().numpy().tobytes())
        return (
            out + bytes(self._channel_words(data["offset"], lanes).numpy().tobytes()) if self.scaled else out
        )

    def _channel_words(self, values: Tensor, lanes: int) -> Tensor:
        """One word of int32 a channel block (the first ``lanes`` of 16 used)."""
        padded = pad_channels(values.to(torch.int32), self.layout, lanes, 0)
        words = torch.zeros(padded.numel() // lanes, 16, dtype=torch.int32)
        words[:, :lanes] = padded.reshape(-1, lanes)
        return words

    def cost(self, design: Design) -> Estimate:
        s, bits = design.shape, 8 * ELEMENTS[self.in_element][1]
        blocks, ways, parts = self.layout.blocks(s.lanes), self.width(design), self.parts(design)
        way = costs.requantize(self.in_bits, self.bits, self.scaled)
        depth = blocks * parts
        # Each way has memories of its own (array_partition).
        kept = costs.memory(depth, MULTIPLIER_BITS + 1)
        kept += costs.times(1 + self.scaled, costs.memory(depth, 32))
        half = costs.shift(64, 64)  # of the rounding, the same for all lanes
        exponents = costs.registers(s.tile, 8) + costs.port(8) if self.scaled else Estimate()
        control = costs.times(2, costs.loop()) + costs.place(s.tile, blocks) + costs.launch_size(blocks)
        ends = costs.port(s.lanes * bits) + costs.port(512) + costs.port(s.lanes * self.bits)
        ends += self.parts_cost(design, bits, self.bits)
        if parts > 1:  # a word of parameters serves several entries of LOAD, and moves down between them
            ends += costs.select(512) + costs.register(512)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            costs.times(ways, way + kept), half, exponents, control, ends
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        parts = self.layout.blocks(design.shape.lanes) * self.parts(design)
        rows = 1 if self.one_row else seq
        load = pipelined(1 + (3 if self.scaled else 2) * parts, depth("LOAD"))
        return self.steps * (load + pipelined(batch * rows * parts, depth("ROW")))
