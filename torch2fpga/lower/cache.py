# SPDX-License-Identifier: Apache-2.0
"""Keys and values of the tokens so far, kept in HBM: int8 in the format in which attention takes them.

The rows of earlier turns come from memory, those of the turn at hand pass by on the chip and are written
behind them, so that a row takes part in attention with the same bits whether it was cached or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import (
    SCALAR,
    WORDS,
    Depths,
    Design,
    Estimate,
    Layout,
    Port,
    Stage,
    Tokens,
    ceil_div,
    pipelined,
)
from torch2fpga.passes.nodes import Node


def row_words(layout: Layout, lanes: int) -> int:
    """64-byte words of a row of int8 channels."""
    return ceil_div(layout.blocks(lanes) * lanes, 64)


def cached_rows(b: Any, node: Node, name: str, x: str, layout: Layout) -> tuple[str, str]:
    """A cache of the rows of keys or values that ``x`` brings: (those rows, words of earlier turns' rows).

    Adds the stage, and the two ports at the cache: both have the same memory.
    """
    words = row_words(layout, b.shape.lanes)
    out = b.stream(f"{name}_new", "rows", element="int8", layout=layout)
    stored, fresh = b.words(f"{name}_stored"), b.words(f"{name}_fresh")
    stage = CacheStage(**b.common(node, b.unique(f"{name}_cache"), (x,), (out, fresh)), layout=layout)
    b.add(stage, [{} for _ in range(b.steps)])
    config = {"steps": b.steps, "row_words": words, "step_words": words * b.shape.max_keys}
    size = b.steps * words * b.shape.max_keys
    binding = f"{name}_cache"
    reader = Port(b.unique(f"{name}_past"), "", "read", "cache", binding, size, "read_cache", (stored,),
                  {**config, "max_keys": b.shape.max_keys}, awaits=b.begins(),
    )  # fmt: skip
    writer = Port(b.unique(f"{name}_now"), "", "write", "cache", binding, size, "write_cache", (fresh,),
                  config, reports=b.written(name),
    )  # fmt: skip
    b.ports += [reader, writer]
    if len(b.reports) > 1:  # caches are written one after the other: the later ones wait for all rows
        b.streams[fresh] = replace(b.streams[fresh], depth=b.shape.max_seq * words)
    return out, stored


@dataclass(frozen=True)
class CacheStage(Stage):
    """The rows of a turn go on, and to memory.

    Cycles of a step: NEW of seq * blocks.
    """

    layout: Layout = SCALAR

    template: ClassVar[str] = "cache_rows"
    header: ClassVar[str] = "cache.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        rows = self.rows("int8", self.layout)
        return [rows], [rows, WORDS]

    def runtime_arguments(self) -> list[str]:
        return ["seq"]

    def config(self, design: Design) -> dict[str, Any]:
        return {"blocks": self.layout.blocks(design.shape.lanes)}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0], inputs[0]]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        blocks = self.layout.blocks(design.shape.lanes)
        return batch * self.steps * pipelined(seq * blocks, depth("NEW"))

    def cost(self, design: Design) -> Estimate:
        s = design.shape
        filling = costs.registers(s.tile, 512) + costs.select(512, s.tile)
        control = costs.loop() + costs.row_walk() + costs.times(3, costs.counter(8))
        turns = costs.multiply_constant(32, self.layout.blocks(s.lanes), 32)
        ends = costs.times(2, costs.port(s.lanes * 8)) + costs.port(512)
        return replace(filling + control + turns + ends, cycles=self.nominal_cycles(design))
