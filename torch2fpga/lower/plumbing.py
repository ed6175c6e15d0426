# SPDX-License-Identifier: Apache-2.0
"""Stages that only move tokens: forks, the ends of the layer loop, kernel crossings, packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

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
    Stream,
    Tokens,
    ceil_div,
    pipelined,
)


def tokens_per_launch(stream: Stream, design: Design, uses: int) -> int:
    """Tokens that pass at the compiled maximum."""
    s = design.shape
    rows = s.max_batch * (1 if stream.one_row else s.max_seq)
    return uses * rows * stream.tokens_per_row(s)


NOTHING = Stream("", "rows")


@dataclass(frozen=True)
class FlowStage(Stage):
    """Common part: which kind of stream passes (``like``), with its token type and count.

    Cycles: one loop (``label``) over all tokens of a launch, ``passes`` * batch * seq * blocks.
    """

    like: Stream = NOTHING

    header: ClassVar[str] = "flow.hpp"
    #: how often the stream's rows pass per launch: every step, or once
    per_step: ClassVar[bool] = True
    #: the template's loop
    label: ClassVar[str] = "PASS"

    @property
    def passes(self) -> int:
        """How often the stream's rows are taken in (or given out) per launch."""
        return self.steps

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        tokens = replace(Tokens.of(self.like), one_row=self.one_row)
        return [tokens] * len(self.inputs), [tokens] * len(self.outputs)

    def config(self, design: Design) -> dict[str, Any]:
        uses = self.steps if self.per_step else 1
        return {
            "token_t": self.like.cpp_type(design.shape.lanes),
            "blocks": self.like.tokens_per_row(design.shape),
            "max_tokens": tokens_per_launch(self.like, design, uses),
        }

    def cost(self, design: Design) -> Estimate:
        width = self.like.token_bytes(design.shape.lanes) * 8
        sources, sinks = len(self.inputs), len(self.outputs)
        ends = costs.times(sources, costs.port(width)) + costs.times(sinks, costs.port(0))
        choice = costs.select(width, sources) if sources > 1 else Estimate()
        control = costs.loop() + costs.launch_size(self.passes * self.like.tokens_per_row(design.shape))
        which = costs.compare(32) if isinstance(self, LoopEnterStage | LoopExitStage) else Estimate()
        if self.like.kind == "scores":  # a row of keys for every row
            which += costs.multiply(32, 17, 32)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(ends, choice, control, which)

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows, blocks = 1 if self.one_row else seq, self.like.tokens_per_row(design.shape)
        return pipelined(self.passes * batch * rows * blocks, depth(self.label))


@dataclass(frozen=True)
class ForkStage(FlowStage):
    """Every token to two or three outputs."""

    template: ClassVar[str] = "fork"
    label: ClassVar[str] = "FORK"

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]] * len(self.outputs)


@dataclass(frozen=True)
class RelayStage(FlowStage):
    """The near end of a stream between two kernels.

    Attributes:
        uses: times its rows pass per launch.
        cached: what passes is more where a cache has earlier rows: their keys.
    """

    uses: int = 1
    cached: bool = False

    template: ClassVar[str] = "relay"
    label: ClassVar[str] = "RELAY"

    @property
    def passes(self) -> int:
        return self.uses

    def config(self, design: Design) -> dict[str, Any]:
        kind, scores = self.like.kind, self.like.kind == "scores"
        s, rows = design.shape, 1 if self.one_row else design.shape.max_seq
        return {
            **super().config(design),
            "blocks": self.like.layout.groups if scores else self.like.tokens_per_row(s),
            "uses": self.uses,
            "per_row": kind != "mask",
            "per_keys": kind in ("mask", "scores"),
            "max_tokens": self.tokens(design, s.max_batch, rows, s.keys - rows if self.cached else 0),
        }

    def runtime_arguments(self) -> list[str]:
        return [*super().runtime_arguments(), *(["past"] if self.cached else [])]

    def tokens(self, design: Design, batch: int, seq: int, past: int = 0) -> int:
        """Tokens of a launch of ``batch`` sequences of ``seq`` rows."""
        lanes, kind = design.shape.lanes, self.like.kind
        keys = ceil_div(past + seq, lanes)
        each = {"mask": keys, "scores": seq * keys * self.like.layout.groups}
        per_sequence = each.get(kind, seq * self.like.tokens_per_row(design.shape))
        return self.uses * batch * per_sequence

    def turn_cycles(self, design: Design, seq: int, past: int, depth: Depths) -> int:
        rows = 1 if self.one_row else seq
        return pipelined(self.tokens(design, 1, rows, past if self.cached else 0), depth(self.label))

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(self.tokens(design, batch, 1 if self.one_row else seq), depth(self.label))

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]]


@dataclass(frozen=True)
class LoopEnterStage(FlowStage):
    """Step 0 takes the first input, later steps what came back (second input)."""

    template: ClassVar[str] = "loop_enter"
    per_step: ClassVar[bool] = False

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        value = inputs[1] if inputs[1] is not None else inputs[0]
        assert value is not None
        return [value]


@dataclass(frozen=True)
class LoopExitStage(FlowStage):
    """Every step but the last goes back, the last goes on; ``mode`` is both, back or last."""

    mode: str = "both"

    per_step: ClassVar[bool] = False

    def carries(self, slot: int, last: bool) -> bool:
        """Does output ``slot`` carry this step's value? ``last``: it is the last step."""
        if self.mode == "both":
            return last if slot == 1 else not last
        return last if self.mode == "last" else not last

    @property
    def template(self) -> str:  # type: ignore[override]
        return {"both": "loop_exit", "back": "loop_back", "last": "loop_last"}[self.mode]

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]] * len(self.outputs)


@dataclass(frozen=True)
class UnpackStage(Stage):
    """Memory words to vectors (model inputs, masks).

    Cycles: one loop UNPACK of batch * seq * blocks; masks: batch * ceil(seq / lanes).
    """

    layout: Layout = SCALAR
    element: str = "int8"
    mask: bool = False

    template: ClassVar[str] = "unpack"
    header: ClassVar[str] = "memory.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [WORDS], [Tokens("mask") if self.mask else self.rows(self.element, self.layout)]

    def config(self, design: Design) -> dict[str, Any]:
        return word_config(self.layout, self.element, design, self.mask)

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]]

    def cost(self, design: Design) -> Estimate:
        config = self.config(design)
        token = design.shape.lanes * 8 * config["value_bytes"]
        parts = costs.select(token, config["vectors_per_word"]) + costs.counter(4)
        control = costs.loop() + costs.launch_size(config["blocks"])
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            parts, control, costs.port(512), costs.port(token)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        config, rows = self.config(design), 1 if self.one_row else seq
        vectors = batch * ceil_div(rows, config["rows_per_vector"]) * config["blocks"]
        return pipelined(vectors, depth("UNPACK"))


@dataclass(frozen=True)
class PackStage(Stage):
    """Vectors to memory words (model outputs).

    Cycles: one loop PACK of batch * seq * blocks, rounded up to the vectors of a whole word.
    """

    layout: Layout = SCALAR
    element: str = "int16"

    template: ClassVar[str] = "pack"
    header: ClassVar[str] = "memory.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows(self.element, self.layout)], [WORDS]

    def config(self, design: Design) -> dict[str, Any]:
        return word_config(self.layout, self.element, design, False)

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0]]

    def cost(self, design: Design) -> Estimate:
        config = self.config(design)
        token = design.shape.lanes * 8 * config["value_bytes"]
        # Bits of the word that is filled have an enable each part, and no choice in front of them.
        parts = Estimate(lut=token // 2 + config["vectors_per_word"]) + costs.counter(4)
        control = costs.loop() + costs.launch_size(config["blocks"]) + costs.compare(32)
        return Estimate(cycles=self.nominal_cycles(design)) + costs.total(
            parts, control, costs.port(token), costs.port(512)
        )

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        config, rows = self.config(design), 1 if self.one_row else seq
        words = ceil_div(batch * rows * config["blocks"], config["vectors_per_word"])
        return pipelined(words * config["vectors_per_word"], depth("PACK"))


def word_config(layout: Layout, element: str, design: Design, mask: bool) -> dict[str, Any]:
    """Configuration shared by unpack, pack and the ports at their other side."""
    s, size = design.shape, ELEMENTS[element][1]
    per_word = 64 // (size * s.lanes)
    blocks = 1 if mask else layout.blocks(s.lanes)
    rows = s.max_batch * (ceil_div(s.max_seq, s.lanes) if mask else s.max_seq)
    return {
        "value_t": f"{element}_t",
        "value_bytes": size,
        "blocks": blocks,
        "vectors_per_word": per_word,
        "rows_per_vector": s.lanes if mask else 1,
        "max_vectors": ceil_div(rows * blocks, per_word) * per_word,
        "max_words": ceil_div(rows * blocks, per_word),
    }
