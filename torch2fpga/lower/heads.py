# SPDX-License-Identifier: Apache-2.0
"""The heads of attention in parts, each with arrays and a cache of its own: a cache that one port cannot
read in time is read by several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga.design import Design, Layout, Tokens
from torch2fpga.lower.plumbing import FlowStage
from torch2fpga.passes.nodes import Node


@dataclass(frozen=True)
class _HeadsStage(FlowStage):
    """``first`` heads and the others; ``like`` is the stream of all."""

    first: int = 1

    header: ClassVar[str] = "heads.hpp"

    def config(self, design: Design) -> dict[str, Any]:
        group = self.like.layout.group_blocks(design.shape.lanes)
        found: dict[str, Any] = {"tile": 1} if self.one_row else {}
        return {**found, **super().config(design), "first": self.first * group}

    def halves(self) -> tuple[Layout, Layout]:
        """Layouts of the two parts."""
        heads, size = self.like.layout.groups, self.like.layout.size
        return Layout(self.first, size), Layout(heads - self.first, size)

    def ends(self) -> tuple[Tokens, list[Tokens]]:
        """All, and the two parts."""
        whole = replace(Tokens.of(self.like), one_row=self.one_row)
        return whole, [replace(whole, layout=half) for half in self.halves()]


@dataclass(frozen=True)
class SplitHeadsStage(_HeadsStage):
    """The first heads to one output, the others to the other. Cycles: SPLIT of every token."""

    template: ClassVar[str] = "split_heads"
    label: ClassVar[str] = "SPLIT"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        whole, halves = self.ends()
        return [whole], halves

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return list(inputs[0].split([half.channels for half in self.halves()], -1))


@dataclass(frozen=True)
class JoinHeadsStage(_HeadsStage):
    """The heads of one input, then those of the other. Cycles: JOIN of every token."""

    template: ClassVar[str] = "join_heads"
    label: ClassVar[str] = "JOIN"
    hold: ClassVar[str] = "tile"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        whole, halves = self.ends()
        return halves, [whole]

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        given = [x for x in inputs if x is not None]
        assert len(given) == 2
        return [torch.cat(given, -1)]


def heads_apart(b: Any, node: Node, name: str, x: str, parts: Sequence[int]) -> list[str]:
    """A stream of heads as one stream for each part; ``parts`` say how many heads they have."""
    found, rest = [], x
    for number, heads in enumerate(parts[:-1]):
        like = b.streams[rest]
        first = Layout(heads, like.layout.size)
        others = Layout(like.layout.groups - heads, like.layout.size)
        outputs = tuple(
            b.stream(f"{name}_heads{number}", "rows", element=like.element, layout=of, one_row=like.one_row)
            for of in (first, others)
        )
        stage = SplitHeadsStage(
            **b.common(node, b.unique(f"{name}_split"), (rest,), outputs), like=like, first=heads
        )
        b.add(stage, [{} for _ in range(b.steps)])
        found.append(outputs[0])
        rest = outputs[1]
    return [*found, rest]


def heads_together(b: Any, node: Node, name: str, streams: Sequence[str]) -> str:
    """The inverse: a stream of all heads."""
    left = list(streams)
    whole = left.pop()
    while left:
        part = left.pop()
        a, c = b.streams[part], b.streams[whole]
        layout = Layout(a.layout.groups + c.layout.groups, a.layout.size)
        out = b.stream(f"{name}_heads", "rows", element=a.element, layout=layout, one_row=a.one_row)
        stage = JoinHeadsStage(
            **b.common(node, b.unique(f"{name}_join"), (part, whole), (out,)), like=b.streams[out],
            first=a.layout.groups,
        )  # fmt: skip
        b.add(stage, [{} for _ in range(b.steps)])
        whole = out
    return whole
