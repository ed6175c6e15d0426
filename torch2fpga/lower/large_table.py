# SPDX-License-Identifier: Apache-2.0
"""Embedding tables that a memory channel does not hold: rows in several ports, put together by id.

A process at each port reads the rows of the ids that are its own; the stage behind them takes each row
from the port that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import WORDS, Depths, Design, Estimate, Port, Stage, Tokens, ceil_div, pipelined
from torch2fpga.errors import DesignError
from torch2fpga.lower.forks import fork_to

#: most ports of a table
MOST = 8


@dataclass(frozen=True)
class MergeRowsStage(Stage):
    """Rows of a table from the port that has them. Inputs: ids, then the rows of every port.

    Cycles: for every row ID of 1 and COPY of row_words.

    Attributes:
        row_words: memory words of a row.
        part_rows: rows that each port but the last one has.
    """

    row_words: int = 1
    part_rows: int = 1

    template: ClassVar[str] = "merge_rows"
    header: ClassVar[str] = "embed.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [Tokens("ids"), *([WORDS] * (len(self.inputs) - 1))], [WORDS]

    def arguments(self) -> list[str]:
        return [self.inputs[0], *self.outputs, *self.runtime_arguments(), *self.inputs[1:]]

    def config(self, design: Design) -> dict[str, Any]:
        rows = design.shape.max_batch * design.shape.max_seq
        return {"row_words": self.row_words, "part_rows": self.part_rows, "max_rows": rows}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        raise DesignError(f"{self.name} moves words, which have no meaning of their own")

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return batch * seq * (pipelined(1, depth("ID")) + pipelined(self.row_words, depth("COPY")))

    def cost(self, design: Design) -> Estimate:
        ends = costs.times(len(self.inputs) - 1, costs.port(0)) + costs.port(512) + costs.port(32)
        choice = costs.select(512, len(self.inputs) - 1) + costs.times(
            len(self.inputs) - 2, costs.compare(32)
        )
        control = costs.times(2, costs.loop()) + costs.counter(16)
        return replace(ends + choice + control, cycles=self.nominal_cycles(design))


def large_table(
    b: Any, name: str, binding: str, entries: int, row_words: int, ids: str, rows: str, path: str
) -> None:
    """Ports and stages that bring the rows of a table which takes several channels.

    Args:
        binding: of the ports; each has its own part of the image.
        ids, rows: streams of the ids, and of the rows that are wanted.
    Raises:
        DesignError: for a table that takes more than ``MOST`` ports.
    """
    part_rows = b.channel_bytes // (row_words * 64)
    parts = ceil_div(entries, part_rows)
    if parts > MOST:
        raise DesignError(
            f"{path}: a table of {entries:,} rows takes {parts} memory channels; at most {MOST}"
        )
    wanted = [b.stream(f"{name}_ids", "ids", depth=8) for _ in range(parts + 1)]
    b.stages += fork_to(b, ids, wanted, b.group, path)
    sources = []
    for part in range(parts):
        first = part * part_rows
        count = min(part_rows, entries - first)
        sources.append(b.words(f"{name}_part"))
        config = {"row_words": row_words, "ids": wanted[part + 1], "first": first, "rows": count}
        b.ports.append(
            Port(b.unique(f"{name}_part_in"), "", "read", "table", binding, count * row_words, "gather_part",
                 (sources[-1],), config)
        )  # fmt: skip
    stage = MergeRowsStage(
        b.unique(f"{name}_merge"), path, b.group, 1, (wanted[0], *sources), (rows,), row_words=row_words,
        part_rows=part_rows,
    )  # fmt: skip
    b.add(stage, [{}])
