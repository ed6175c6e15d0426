# SPDX-License-Identifier: Apache-2.0
"""The loop over tokens: its two ends, where a token comes in and where it leaves and goes back.

A launch has as many turns as it generates tokens. Every process goes through them by itself; the token
that a turn chooses returns to the first kernel through a link, as the layer loop does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import Depths, Design, Estimate, Port, Stage, Tokens, pipelined
from torch2fpga.errors import CompileError
from torch2fpga.lower.forks import fork_to
from torch2fpga.lower.sample import SampleStage

#: one token of a turn
IDS = Tokens("ids")


@dataclass(frozen=True)
class TokenEnterStage(Stage):
    """The ids of a turn: the launch's in the first, the token that came back in the others.

    Inputs: ids of the launch, what comes back. Outputs: ids, one of them each turn for the readers of caches.
    """

    template: ClassVar[str] = "token_enter"
    header: ClassVar[str] = "turns.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [IDS, IDS], [IDS, IDS]

    def runtime_arguments(self) -> list[str]:
        return ["turn", "seq"]

    def config(self, design: Design) -> dict[str, Any]:
        return {}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0], inputs[0]]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return pipelined(batch * seq, depth("ENTER"))

    def cost(self, design: Design) -> Estimate:
        ends = costs.times(2, costs.port(32)) + costs.times(2, costs.port(0))
        return costs.total(
            ends, costs.loop(), costs.select(32, 2), Estimate(cycles=self.nominal_cycles(design))
        )


@dataclass(frozen=True)
class TokenExitStage(Stage):
    """The token of a turn leaves; it goes back (but in the last turn) when all caches have its rows.

    Inputs: the token, one token of every writer of a cache. Outputs: back, out.
    """

    template: ClassVar[str] = "token_exit"
    header: ClassVar[str] = "turns.hpp"

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [IDS] * len(self.inputs), [IDS, IDS]

    def runtime_arguments(self) -> list[str]:
        return ["turn", "turns"]

    def arguments(self) -> list[str]:
        return [self.inputs[0], *self.outputs, *self.runtime_arguments(), *self.inputs[1:]]

    def config(self, design: Design) -> dict[str, Any]:
        return {}

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        assert inputs[0] is not None
        return [inputs[0], inputs[0]]

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        return batch * (pipelined(1, depth("WRITTEN")) + pipelined(1, depth("EXIT")))

    def cost(self, design: Design) -> Estimate:
        ends = costs.times(len(self.inputs) + 2, costs.port(32))
        return costs.total(ends, costs.times(2, costs.loop()), Estimate(cycles=self.nominal_cycles(design)))


def enter_tokens(b: Any, first: str) -> str:
    """Ids of every turn, from those of the launch."""
    out = b.stream("turn_ids", "ids", depth=8)
    b.go, b.back = b.stream("turn_begins", "ids", one_row=True), b.stream("token_back", "ids", one_row=True)
    stage = TokenEnterStage(
        b.unique("token_enter"), "loop over tokens", "before", 1, (first, b.back), (out, b.go)
    )
    b.add(stage, [{}])
    return str(out)


def deal_beginnings(b: Any) -> None:
    """The beginning of a turn to every process that awaits it, by forks behind the loop's entry."""
    if b.go is None or not b.beginnings:
        raise CompileError("generate=True needs a causal model with token ids and attention")
    at = next(i for i, s in enumerate(b.stages) if isinstance(s, TokenEnterStage)) + 1
    if len(b.beginnings) == 1:  # the only process awaits the entry itself
        entry = b.stages[at - 1]
        b.stages[at - 1] = replace(entry, outputs=(entry.outputs[0], b.beginnings[0]))
        del b.streams[b.go]
        return
    b.stages[at:at] = fork_to(b, b.go, b.beginnings, "before", "loop over tokens")


def leave_tokens(b: Any, logits: str, scale: float) -> None:
    """Choose a token from the logits, give it out, and send it back.

    Args:
        scale: value of one unit of the logits.
    """
    if b.back is None:
        raise CompileError("generate=True needs a model whose tokens come in as ids, of one input")
    stream = b.streams[logits]
    settings, token = b.words("sampling"), b.stream("token", "ids", one_row=True)
    sampler = SampleStage(
        b.unique("sample"), "choice of the next token", b.group, 1, (logits, settings), (token,),
        one_row=True, layout=stream.layout, element=stream.element,
    )  # fmt: skip
    b.add(sampler, [{}])
    out = b.stream("token_out", "ids", one_row=True)
    b.add(
        TokenExitStage(
            b.unique("token_exit"), "loop over tokens", b.group, 1, (token, *b.reports), (b.back, out)
        ),
        [{}],
    )
    b.ports += [
        Port(b.unique("sampling_in"), "", "read", "settings", "settings", 1, "read_words", (settings,),
             {"steps": 1, "words": 1}),
        Port(b.unique("tokens_out"), "", "write", "tokens", "tokens", b.turns, "write_tokens", (out,)),
    ]  # fmt: skip
    b.outputs.append({"logits": logits, "scale": scale})
