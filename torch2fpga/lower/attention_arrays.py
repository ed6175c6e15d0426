# SPDX-License-Identifier: Apache-2.0
"""The two multiplier arrays of attention: query times key, and weight times value.

Each keeps the keys (values) of a sequence on chip and takes in what belongs to a head while the head
before is multiplied. The operator itself and the softmax between them are in ``attention.py``.
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
    pipelined,
)
from torch2fpga.errors import DesignError
from torch2fpga.plan.packing import RECIPES
from torch2fpga.simulate.fixed import reciprocal, round_shift

#: keys a cycle: the divisors of a token's 16
COLUMNS = (1, 2, 4, 8, 16)
#: deepest bank in block RAM: at 1,024 a bank of 16 bytes is 8 BRAM18, beyond that 2 URAM are less
BRAM_DEPTH = 1024
#: keys whose weighted sum always fits the 27-bit operand of a multiplier: 255 * 128 each
SLICE_KEYS = (1 << 26) // (255 * 128)


def head_config(layout: Layout, design: Design) -> dict[str, Any]:
    """Members that the three stages' configurations share."""
    lanes = design.shape.lanes
    return {
        "heads": layout.groups,
        "head_blocks": layout.group_blocks(lanes),
        "key_blocks": ceil_div(design.shape.keys, lanes),
    }


@dataclass(frozen=True)
class KeyedArray(Stage):
    """A multiplier array of attention: it keeps the keys (or values) of a sequence in a bank a column.

    Attributes:
        layout: heads and head size.
        columns: keys a cycle, a divisor of 16; in tokens of 8 keys at most 8. Each meets 16 (8) channels for
            every row of the tile.
        kv_groups: consecutive heads of queries that share a head of keys and values, which is kept once.
        cached: rows of earlier turns come first, as words of a cache, which are a third input.
    """

    layout: Layout = SCALAR
    columns: int = 16
    kv_groups: int = 1
    cached: bool = False

    header: ClassVar[str] = "attention.hpp"
    hold: ClassVar[str] = "tile"
    whole_first: ClassVar[tuple[int, ...]] = (1,)

    def __post_init__(self) -> None:
        if self.columns not in COLUMNS:
            raise DesignError(f"columns must be one of {', '.join(map(str, COLUMNS))}, not {self.columns}")
        if self.kv_groups < 1 or self.layout.groups % self.kv_groups:
            raise DesignError(f"{self.layout.groups} heads cannot share keys in groups of {self.kv_groups}")

    @property
    def kept_layout(self) -> Layout:
        """Heads of keys and values, and head size."""
        return Layout(self.layout.groups // self.kv_groups, self.layout.size)

    def shared(self, kept: Tensor) -> Tensor:
        """(batch, heads of keys, seq, size) as the heads of queries see it."""
        return kept.repeat_interleave(self.kv_groups, 1) if self.kv_groups > 1 else kept

    def banks(self, design: Design) -> int:
        """Banks of the rows that are kept: keys that meet the multipliers in a cycle."""
        return min(self.columns, design.shape.lanes)

    def _parts(self, design: Design) -> int:
        """Cycles that a key block takes."""
        return design.shape.lanes // self.banks(design)

    def word_blocks(self, design: Design) -> int:
        """Channel blocks of a row that come in together: those of a word of a cache, or one."""
        return 64 // design.shape.lanes if self.cached else 1

    def split(self, design: Design) -> int:
        """Memories a bank: a cycle writes no more than one block of a word into each, and where there are
        fewer banks than blocks of a word the banks are split by block."""
        return max(1, self.word_blocks(design) // self.banks(design))

    def bank_depth(self, design: Design) -> int:
        """Tokens that a memory of a bank holds at the longest sequence."""
        s = design.shape
        blocks = ceil_div(self.kept_layout.blocks(s.lanes), self.split(design))
        return blocks * ceil_div(s.keys, s.lanes) * self._parts(design)

    def storage(self, design: Design) -> str:
        """What the banks are made of: ``lutram``, ``bram`` or ``uram``."""
        depth = self.bank_depth(design)
        return "lutram" if depth <= costs.LUTRAM_DEPTH else "bram" if depth <= BRAM_DEPTH else "uram"

    def config(self, design: Design) -> dict[str, Any]:
        kept = {"columns": self.banks(design), "kept_in": f"t2f::in_{self.storage(design)}"}
        return {
            **head_config(self.layout, design),
            **kept,
            "kv_groups": self.kv_groups,
            "cached": self.cached,
        }

    def runtime_arguments(self) -> list[str]:
        return [*super().runtime_arguments(), *(["past"] if self.cached else [])]

    def kept_rows(self) -> list[Tokens]:
        """Keys or values as they come in."""
        return [self.rows("int8", self.kept_layout), *([WORDS] if self.cached else [])]

    def row_words(self, design: Design) -> int:
        """Words of a row of the cache."""
        return ceil_div(self.kept_layout.blocks(design.shape.lanes), 64 // design.shape.lanes)

    def words_ahead(self, design: Design) -> int:
        """Words of the next step's rows that come in while one row of this step is multiplied, a word a
        cycle: so deep a FIFO keeps the memory port busy all the time."""
        heads = self.layout.groups
        keys = ceil_div(design.shape.keys, design.shape.lanes) * self._parts(design)
        multiplied = heads * self.layout.group_blocks(design.shape.lanes) * keys
        return min(multiplied, self.row_words(design) * design.shape.keys)

    def _kept(self, design: Design) -> Estimate:
        """The banks, and where rows come from a cache what spreads its words over them and finds them."""
        memory = {"lutram": costs.lutram, "bram": costs.bram, "uram": costs.uram}[self.storage(design)]
        token, banks, split = design.shape.lanes * 8, self.banks(design), self.split(design)
        kept = costs.times(banks * split, memory(self.bank_depth(design), token))
        if not self.cached:
            return kept
        blocks, address = self.word_blocks(design), 16
        turns = blocks // split
        # A memory is written by two loops; which block of a word it takes, and where, depends on the row.
        written = costs.times(banks * split, costs.select(token + address, 2))
        places = costs.times(turns, costs.times(2, costs.add(address)))
        if turns > 1:
            block = costs.times(split, costs.select(token, turns)) + costs.select(address, turns)
            written += costs.times(banks, block + costs.add(4) + costs.compare(4))
        found = costs.times(banks, costs.select(token, blocks) + costs.register(token))
        control = costs.loop() + costs.multiply_constant(32, self.row_words(design), 32)
        counters = costs.times(3, costs.counter(16)) + costs.port(512)
        return costs.total(kept, written, places, found, control, counters)

    #: its main loop
    label: ClassVar[str] = ""

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        """Loops KEEP and SCORES or MEAN, each entered once a sequence."""
        return self._cycles(design, batch, seq, 0, depth)

    def turn_cycles(self, design: Design, seq: int, past: int, depth: Depths) -> int:
        return self._cycles(design, 1, seq, past, depth)

    def _cycles(self, design: Design, batch: int, seq: int, past: int, depth: Depths) -> int:
        s, heads, scores = design.shape, self.layout.groups, self.label == "SCORES"
        blocks, parts = self.layout.group_blocks(s.lanes), self._parts(design)
        keys = ceil_div(past + seq, s.lanes)
        iterations = 0
        for count, n in _tiles(seq, s.tile):
            group = max((blocks if scores else keys) * parts, n)
            taking, working = (blocks if scores else keys) * n, (keys if scores else blocks) * group
            iterations += count * (taking + (heads - 1) * max(taking, working) + working + n)
        keep = pipelined(heads // self.kv_groups * blocks * seq, depth("KEEP"))
        if past:
            keep += pipelined(self.row_words(design) * past, depth("PAST"))
        return self.steps * batch * (keep + pipelined(iterations, depth(self.label)))


def _tiles(seq: int, tile: int) -> list[tuple[int, int]]:
    """The tiles of a sequence: how many of how many rows (none where the count is 0)."""
    full, rest = divmod(seq, tile)
    return [(full, tile), (1 if rest else 0, rest)]


@dataclass(frozen=True)
class ScoresStage(KeyedArray):
    """q times k transposed.

    Cycles: a sequence takes in its keys (KEEP, heads / kv_groups * head_blocks * seq iterations); then each
    tile of n rows takes head_blocks * n + (heads - 1) * pass + key_blocks * group + n (SCORES, one loop a
    sequence), with key_blocks = ceil(seq / lanes), group = max(head_blocks * lanes / columns, n), pass =
    max(key_blocks * group, head_blocks * n). Every entry of a loop adds its depth and one cycle.
    """

    template: ClassVar[str] = "attention_scores"
    label: ClassVar[str] = "SCORES"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows("int8", self.layout), *self.kept_rows()], [Tokens("scores", "int32", self.layout)]

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        q, k = split_heads(inputs[0], self.layout), self.shared(split_heads(inputs[1], self.kept_layout))
        # Head sizes are below 1,024, so float32 products of int8 values are exact.
        return [(q.float() @ k.float().transpose(-1, -2)).to(torch.int32)]

    def cost(self, design: Design) -> Estimate:
        s, columns = design.shape, self.banks(design)
        query = costs.lutram(2 * self.layout.group_blocks(s.lanes), s.lanes * 8)
        # Sums, those of the block that are finished (they move up), and the result that leaves.
        rows = costs.registers(s.tile, s.lanes * 32) + costs.register(s.tile * (s.lanes + columns) * 32)
        return costs.total(
            costs.multiplier_array(s.tile, columns, s.lanes),
            self._kept(design),
            costs.times(s.tile, query),
            rows,
            _control(design),
            *(costs.port(s.lanes * bits) for bits in (8, 8, 32)),
            Estimate(cycles=self.nominal_cycles(design)),
        )


@dataclass(frozen=True)
class ValuesStage(KeyedArray):
    """Weighted mean of v, 12 fraction bits.

    Cycles: a sequence takes in its values (KEEP, heads / kv_groups * head_blocks * seq iterations); then each
    tile of n rows takes key_blocks * n + (heads - 1) * pass + head_blocks * group + n (MEAN, one loop a
    sequence), with key_blocks = ceil(seq / lanes), group = max(key_blocks * lanes / columns, n), pass =
    max(head_blocks * group, key_blocks * n). Every entry of a loop adds its depth and one cycle.
    """

    template: ClassVar[str] = "attention_values"
    label: ClassVar[str] = "MEAN"

    def result_bits(self) -> int:
        """A weighted mean of int8 with 12 fraction bits; its reciprocal is good to 2^-15."""
        return 21

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        weights = Tokens("scores", "uint8", self.layout)
        return [weights, *self.kept_rows()], [self.rows("int32", self.layout)]

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None and inputs[1] is not None
        p = inputs[0].float()
        v = self.shared(split_heads(inputs[1], self.kept_layout)).float()
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

    def cost(self, design: Design) -> Estimate:
        s, columns = design.shape, self.banks(design)
        parts = self._parts(design)
        p = costs.lutram(2 * ceil_div(s.keys, s.lanes), s.lanes * 8) + costs.select(columns * 8, parts)
        row_sum = costs.adder_tree(columns, 8) + costs.add(32) + costs.register(32)
        rows = costs.registers(s.tile, (s.lanes + 1) * 32) + costs.register(s.tile * s.lanes * 32)
        # One slice a lane as long as the sum fits its wide operand (``t2f::times_mantissa``).
        wide = ceil_div(s.keys, s.lanes) * s.lanes > SLICE_KEYS
        product = costs.multiply(32, 33, 64) if wide else Estimate(dsp=1) + costs.add(49)
        quotient = costs.times(s.lanes, product + costs.round_shift(64))
        return costs.total(
            weighing_array(s.tile, columns, s.lanes),
            self._kept(design),
            costs.times(s.tile, p + row_sum),
            rows,
            quotient,
            costs.reciprocal(),
            _control(design),
            *(costs.port(s.lanes * bits) for bits in (8, 8, 32)),
            Estimate(cycles=self.nominal_cycles(design)),
        )


def weighing_array(rows: int, columns: int, lanes: int) -> Estimate:
    """``rows * columns * lanes`` products of uint8 weights and int8 values a cycle, and their sums.

    Two rows share a multiplier; its cascade adds up chains of 4 keys (``t2f::weigh_pair``). The odd row of
    an odd number has slices of its own.
    """
    pairs, odd = divmod(rows, 2)
    chains = ceil_div(columns, RECIPES["u8a8"].chain)
    pack = costs.times(pairs * columns, costs.add(9) + costs.register(27))
    fields = costs.times(chains, costs.add(30)) + costs.times(chains - 1, costs.add(20) + costs.add(31))
    pair = Estimate(dsp=columns) + fields + costs.times(2, costs.add(32))
    return costs.total(
        pack,
        costs.times(pairs * lanes, pair),
        costs.times(odd * lanes, Estimate(dsp=columns) + costs.add(32)),
    )


def _control(design: Design) -> Estimate:
    """Two loops, the walk over tiles and heads, and the sizes of a sequence's passes."""
    passes = costs.times(2, costs.multiply(32, 32, 32))
    return costs.total(
        costs.times(2, costs.loop()), costs.row_walk(), costs.times(9, costs.counter(16)), passes
    )


def split_heads(x: Tensor, layout: Layout) -> Tensor:
    """(batch, seq, heads * size) to (batch, heads, seq, size)."""
    return x.reshape(*x.shape[:2], layout.groups, layout.size).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(batch, heads, seq, size) to (batch, seq, heads * size)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)
