# SPDX-License-Identifier: Apache-2.0
"""The next token from a row of logits, on the device: the largest one, or a draw from the k largest.

Everything is integer, so that the C++ and this reference choose the same token. The random number
belongs to the position of the token that is chosen and to the seed, and to nothing else: a generation
gives the same tokens however it is cut into launches.
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
    ELEMENTS,
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
)
from torch2fpga.errors import CompileError, DesignError, InputError
from torch2fpga.lower.requant import MULTIPLIER_BITS, multiplier
from torch2fpga.simulate import tables
from torch2fpga.simulate.fixed import round_shift

#: most logits that a draw is made from
MAX_TOP_K = 64
#: fraction bits of a distance between logits, in powers of two
DISTANCE_BITS = 8
#: largest shift of the settings word
LARGEST_SHIFT = 47
#: cycles between the starts of two rounds of the random generator
ROUND_INTERVAL = 8
ROUNDS = 10

_MASK = (1 << 32) - 1


def philox(position: int, seed: int) -> int:
    """The first 32 bits that Philox4x32-10 makes of the counter (position, 0, 0, 0) and a 64-bit seed."""
    return philox4x32((position & _MASK, 0, 0, 0), (seed & _MASK, seed >> 32 & _MASK))[0]


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four random 32-bit words of a counter and a key of 32-bit words, lowest first.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def draw_weights(distances: Tensor) -> Tensor:
    """2^(-distance) of int64 distances with 8 fraction bits, 24 bits wide (255 * 2^16 at distance 0)."""
    whole = (distances >> DISTANCE_BITS).clamp(max=31)
    table = torch.tensor(tables.exp2_table(), dtype=torch.int64) << 8
    return round_shift(table[distances & 255], whole)


def sample(logits: Tensor, settings: Sequence[int], position: int) -> int:
    """The id of the token that is chosen.

    Args:
        logits: (vocabulary,) integers of at most 32 bits.
        settings: the int32 values of the settings word (``settings_word``), five at least.
        position: of the token that is chosen, from the start of the text.

    Raises:
        InputError: a multiplier or a shift that the hardware does not take.
    """
    top_k, factor, shift, low, high = (int(x) for x in settings[:5])
    if not 0 <= factor < 1 << MULTIPLIER_BITS or not 0 <= shift <= LARGEST_SHIFT:
        raise InputError(
            f"a multiplier of {factor} and a shift of {shift}: they must be 0 to "
            f"{(1 << MULTIPLIER_BITS) - 1:,} and 0 to {LARGEST_SHIFT}"
        )
    k = min(max(top_k, 1), MAX_TOP_K, logits.numel())
    # A stable sort leaves equal logits in the order of their ids.
    values, ids = torch.sort(logits.reshape(-1).to(torch.int64), descending=True, stable=True)
    if k == 1:
        return int(ids[0])
    weights = draw_weights(round_shift((values[0] - values[:k]) * factor, shift))
    sums = weights.cumsum(0)
    drawn = (philox(position, (high & _MASK) << 32 | low & _MASK) * int(sums[-1])) >> 32
    return int(ids[int((sums <= drawn).sum())])


def settings_word(top_k: int, temperature: float, scale: float, seed: int) -> bytes:
    """The 64-byte word that a sampler takes for each token.

    A temperature so low that one unit of the logits leaves the weight 0 is as good as any lower one, and
    so is a temperature so high that all weights are equal.

    Args:
        top_k: the draw is from that many of the largest logits; 1 takes the largest.
        temperature: the softmax is of the logits divided by it.
        scale: real value of one unit of the integer logits.
        seed: of the random numbers.

    Raises:
        InputError: ``top_k``, ``temperature`` or ``seed`` is out of range.
        CompileError: ``scale`` is no positive finite number.
    """
    if not 1 <= top_k <= MAX_TOP_K or top_k != int(top_k):
        raise InputError(f"top_k is {top_k}: it must be a whole number from 1 to {MAX_TOP_K} (1 is greedy)")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(
            f"temperature is {temperature}: it must be a finite number above 0 (top_k=1 is greedy)"
        )
    if not 0 <= seed < 1 << 64 or seed != int(seed):
        raise InputError(f"seed is {seed}: it must be a whole number from 0 to 2^64 - 1")
    if not (scale > 0 and math.isfinite(scale)):
        raise CompileError(f"one unit of the logits is worth {scale}: it must be a finite number above 0")
    # Beyond the largest multiplier a unit is over 500 powers of two: weight 0 either way.
    per_unit = float(scale) / float(temperature) * math.log2(math.e) * (1 << DISTANCE_BITS)
    ratio = torch.tensor([min(per_unit, float((1 << MULTIPLIER_BITS) - 1))], dtype=torch.float64)
    made = multiplier(ratio, torch.zeros(1, dtype=torch.float64), "sampler")
    seed = int(seed)
    return struct.pack(
        "<3i2I44x", int(top_k), int(made.m[0]), made.shift, seed & _MASK, seed >> 32
    )  # fmt: skip


@dataclass(frozen=True)
class SampleStage(Stage):
    """One token id a launch from one row of logits (batch is 1).

    Inputs: the logits (``rows`` of int16 or int32, one row) and the settings (one word,
    ``settings_word``). Output: the id. The largest logit wins, the smallest id among equals. Above
    ``top_k`` 1 the token is drawn from the k largest with the weights 2^(-distance), distance =
    round((largest - logit) * multiplier / 2^shift) in 1/256 of a power of two, with a random number of
    the position ``past + seq``, which is that of the token that is chosen.

    How the k largest are found. A sorted list of 64 in registers takes ``lanes`` new logits a cycle only
    with as many insertions in one cycle; a list a lane has 64 * lanes registers of 49 bits. Both are more
    than the rest of the sampler, for a result that is wanted once a row. So the row is kept: 8 URAM for
    4,096 blocks of 16 int32, and the best logit of every ``group_blocks`` blocks beside it. The best of the
    groups is the next one of the order; its group is then read once more for what comes behind. That
    is exact, takes two comparator trees, and groups + group_blocks cycles for each of the k. The
    largest alone is known when the row has passed, so a greedy step pays nothing for it.

    Cycles (``cycles``: the greedy case; ``sampling_cycles``: a draw): TAKE of blocks; for a draw also k
    times PICK of groups and SCAN of group_blocks, WEIGH of k, ROUND of 10 at II 8, CHOOSE of k.

    Attributes:
        layout: one group of the vocabulary's size.
        element: of the logits.
    """

    layout: Layout = SCALAR
    element: str = "int32"

    template: ClassVar[str] = "sample_token"
    header: ClassVar[str] = "sample.hpp"

    def __post_init__(self) -> None:
        if self.layout.groups != 1 or self.element not in ("int16", "int32"):
            raise DesignError(
                f"{self.name} samples from {self.layout.groups} groups of {self.element}: it takes one group "
                "of int16 or int32"
            )
        if not self.one_row or self.steps != 1:
            raise DesignError(f"{self.name} samples from one row, once a launch")

    @property
    def vocabulary(self) -> int:
        """Logits of a row."""
        return self.layout.size

    def group_blocks(self, design: Design) -> int:
        """Blocks that share a maximum: a power of two not below the root of all of them."""
        blocks = self.layout.blocks(design.shape.lanes)
        return 1 << ceil_div((blocks - 1).bit_length(), 2)

    def group_count(self, design: Design) -> int:
        """Groups of a row."""
        return ceil_div(self.layout.blocks(design.shape.lanes), self.group_blocks(design))

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows(self.element, self.layout), WORDS], [Tokens("ids")]

    def config(self, design: Design) -> dict[str, Any]:
        return {
            "value_t": ELEMENTS[self.element][0],
            "vocabulary": self.vocabulary,
            "blocks": self.layout.blocks(design.shape.lanes),
            "group_blocks": self.group_blocks(design),
            "max_top_k": MAX_TOP_K,
        }

    def runtime_arguments(self) -> list[str]:
        return ["past", "seq"]

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        """The token that each row chooses.

        Args:
            data: ``past`` is the position of the first row that is given (0 without it). A sampler sees
                the last row of a launch only: there it is ``past + seq - 1`` of the launch.
            inputs: logits (1, rows, vocabulary), settings (16,) or (1, 16).
        Returns:
            ids (1, rows), int64; row r chooses the token at position past + r + 1.
        """
        logits, settings = inputs
        assert logits is not None and settings is not None
        words, first = settings.reshape(-1).tolist(), int(data.get("past", 0)) + 1
        ids = [sample(row, words, first + r) for r, row in enumerate(logits[0])]
        return [torch.tensor([ids], dtype=torch.int64)]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        """Of a greedy step."""
        return pipelined(self.layout.blocks(design.shape.lanes), depth("TAKE"))

    def sampling_cycles(self, design: Design, top_k: int, depth: Depths) -> int:
        """Cycles of a launch that draws from the ``top_k`` largest logits."""
        k, took = min(top_k, MAX_TOP_K, self.vocabulary), self.cycles(design, 1, 1, depth)
        if k <= 1:
            return took
        found = pipelined(self.group_count(design), depth("PICK")) + pipelined(
            self.group_blocks(design), depth("SCAN")
        )
        drawn = pipelined(k, depth("WEIGH")) + pipelined(ROUNDS, depth("ROUND"), ROUND_INTERVAL)
        return took + k * found + drawn + pipelined(k, depth("CHOOSE"))

    def cost(self, design: Design) -> Estimate:
        lanes, bits = design.shape.lanes, 8 * ELEMENTS[self.element][1]
        groups, group = self.group_count(design), self.group_blocks(design)
        larger = costs.compare(32) + costs.select(64) + costs.register(64)
        # One tree where the row passes, one where a group is read again; there every lane also asks
        # whether its logit has left.
        trees = costs.times(2 * lanes, larger) + costs.times(lanes, costs.times(3, costs.compare(32)))
        best = costs.times(4, larger)
        kept = costs.uram(groups * group, lanes * bits)
        kept += costs.times(2, costs.memory(groups, 32)) + costs.times(3, costs.memory(MAX_TOP_K, 32))
        weigh = costs.add(32) + costs.multiply(33, 18, 64) + costs.round_shift(64) + costs.table(256, 16, 1)
        weigh += costs.round_shift(32, 32) + costs.add(32)
        random = costs.multiply(33, 33, 64) + costs.times(2, costs.add(32)) + costs.register(6 * 32)
        drawn = random + Estimate(lut=2 * 32) + costs.multiply(33, 31, 62) + costs.compare(32)
        control = costs.times(6, costs.loop()) + costs.counter(7) + costs.add(32)
        ends = costs.port(lanes * bits) + costs.port(512) + costs.port(32)
        found = costs.total(trees, best, kept, weigh, drawn, control, ends)
        return replace(found, cycles=self.nominal_cycles(design))
