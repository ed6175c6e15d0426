# SPDX-License-Identifier: Apache-2.0
"""Hand the words of one memory port to several arrays: fewer ports, and one link to another region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import WORDS, Depths, Design, Estimate, Stage, Tokens, pipelined
from torch2fpga.errors import DesignError

#: most outputs of a stage
MOST = 16


@dataclass(frozen=True)
class DealStage(Stage):
    """In every step all words of the first output, then those of the second, and so on.

    Cycles: one loop DEAL of steps * (words of all outputs).

    Attributes:
        words: of a step, for each output; the later ones never have more, and at most two sizes occur.
        arrays: the stages whose weights they are.
    """

    words: tuple[int, ...] = ()
    arrays: tuple[str, ...] = ()

    template: ClassVar[str] = "deal_words"
    header: ClassVar[str] = "deal.hpp"

    def __post_init__(self) -> None:
        sizes = sorted(set(self.words), reverse=True)
        if len(self.words) != len(self.outputs) or not 2 <= len(self.outputs) <= MOST:
            raise DesignError(f"{self.name} deals to 2 to {MOST} outputs, each with its words: {self.words}")
        if len(sizes) > 2 or min(self.words) < 1 or list(self.words) != sorted(self.words, reverse=True):
            raise DesignError(f"{self.name}: outputs take at most two sizes, the larger first: {self.words}")

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [WORDS], [WORDS] * len(self.outputs)

    def runtime_arguments(self) -> list[str]:
        return []

    def config(self, design: Design) -> dict[str, Any]:
        most, least = max(self.words), min(self.words)
        return {"most": most, "least": least, "longer": self.words.count(most) if most > least else 0}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        # Words belong to memory: what they mean is the constants of the stages that read them.
        return [torch.empty(0)] * len(self.outputs)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(self.steps * sum(self.words), depth("DEAL"))

    def cost(self, design: Design) -> Estimate:
        count = len(self.outputs)
        ends = costs.times(count, costs.port(512)) + costs.port(512)
        walk = costs.loop() + costs.counter(24) + costs.counter(4)
        return replace(walk + ends, cycles=self.nominal_cycles(design))
