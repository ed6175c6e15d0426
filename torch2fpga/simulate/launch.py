# SPDX-License-Identifier: Apache-2.0
"""The numbers that kernels are launched with, and which rows each turn of a launch works on."""

from __future__ import annotations

from dataclasses import dataclass

from torch2fpga.design import Design
from torch2fpga.emit.kernel import sizes
from torch2fpga.errors import InputError


@dataclass(frozen=True)
class Launch:
    """One start of a design.

    Attributes:
        batch, seq: sequences, and rows of each.
        past: rows that earlier launches left in the cache.
        turns: tokens that are generated: the first turn takes the ``seq`` rows, every other one the token
            of the turn before.
    """

    batch: int
    seq: int
    past: int = 0
    turns: int = 1

    def numbers(self, design: Design) -> list[int]:
        """In the order in which a design takes them."""
        return [int(getattr(self, name)) for name in sizes(design)]

    def rows(self) -> list[tuple[int, int]]:
        """(first row, rows) of each turn, rows counted from the beginning of the sequence."""
        later = [(self.past + self.seq + i, 1) for i in range(self.turns - 1)]
        return [(self.past, self.seq), *later]

    @property
    def end(self) -> int:
        """Rows of the sequence that the launch leaves behind."""
        return self.past + self.seq + self.turns - 1

    def check(self, design: Design) -> None:
        """Refuse what the design was not compiled for.

        Raises:
            InputError: all that is wrong in one text.
        """
        s, problems = design.shape, []
        if self.batch != 1 or not 1 <= self.seq <= s.max_seq:
            problems.append(f"{self.batch} x {self.seq} rows; compiled for 1 x 1 to {s.max_seq}")
        if not 1 <= self.turns <= design.turns:
            problems.append(f"{self.turns} tokens a launch; compiled for 1 to {design.turns}")
        if self.past < 0 or self.end > s.keys:
            problems.append(f"rows up to {self.end}; compiled for {s.keys}")
        if problems:
            raise InputError("; ".join(problems))
