# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of a design that generates: a prompt and one token that goes round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import Port, Stream
from torch2fpga.lower.cache import CacheStage
from torch2fpga.lower.plumbing import ForkStage
from torch2fpga.lower.sample import SampleStage, sample, settings_word
from torch2fpga.lower.turns import TokenEnterStage, TokenExitStage
from torch2fpga.plan.share import dealt_sums
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.reference import Reference, Trace
from torch2fpga.simulate.tokens import rows_to_tokens
from torch2fpga.simulate.turns import launch_tokens
from torch2fpga.simulate.verify import VALUES

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

#: tokens of the golden launch: the second turn reads the cache and the token that came back
TURNS = 2


class GoldenTurns:
    """The golden launch of a model that generates, greedy.

    Attributes:
        launch: from an empty cache.
        text: (1, rows) ids that go in, with the token that comes back.
        tokens: that are generated.
        trace: the reference over all rows.
    """

    def __init__(self, model: CompiledModel, ids: Tensor) -> None:
        self.model, self.design = model, model.design
        token = model.interface.token
        assert token is not None
        self.launch = Launch(1, int(ids.shape[1]), 0, TURNS)
        self.settings = settings_word(1, 1.0, token.scale, 0)
        words = np.frombuffer(self.settings, dtype=np.int32).tolist()
        self.text, self.tokens = ids, [0] * TURNS
        for turn in range(TURNS):
            if turn:
                self.text = torch.cat((self.text, torch.tensor([[self.tokens[turn - 1]]])), 1)
            self.trace = self._reference(self.text)
            (logits,) = self.trace[token.stream]
            self.tokens[turn] = sample(logits[0, -1], words, self.text.shape[1])

    def _reference(self, text: Tensor) -> Trace:
        name = self.model.interface.inputs[0].name
        reference = Reference(self.design, self.model.data, every_row=True)
        with torch.no_grad():
            return reference.run({name: text}, text, keep=True)[1]

    def streams(self) -> dict[str, bytes]:
        """Tokens of every stream that carries values or ids, forks and relays left out."""
        found = {
            name: launch_tokens(self.trace[name], stream, self.design, self.launch).tobytes()
            for name, stream in self.design.streams.items()
            if stream.kind in VALUES and name in self.trace
        }
        found |= {name: self._sums(uses) for name, uses in dealt_sums(self.design).items()}
        return found | {name: np.array(ids, dtype=np.int32).tobytes() for name, ids in self._ids().items()}

    def _sums(self, uses: Sequence[tuple[Stream, int]]) -> bytes:
        """Sums of shared lanes, turn by turn."""
        parts = [
            launch_tokens([self.trace[stream.name][step]], stream, self.design, Launch(1, rows, first))
            for first, rows in self.launch.rows()
            for stream, step in uses
        ]
        return np.concatenate(parts).tobytes()

    def _ids(self) -> dict[str, list[int]]:
        """Streams of ids, forks of them too."""
        text, found = self.text[0].tolist(), {}
        starts = [first for first, _ in self.launch.rows()]
        for stage in self.design.stages:
            if isinstance(stage, TokenEnterStage):
                found[stage.inputs[0]] = text[: self.launch.seq]
                found[stage.outputs[0]] = text
                found[stage.outputs[1]] = [text[first] for first in starts]
            elif isinstance(stage, ForkStage) and stage.like.kind == "ids":
                found.update(dict.fromkeys(stage.outputs, found[stage.inputs[0]]))
            elif isinstance(stage, SampleStage):
                found[stage.outputs[0]] = self.tokens
            elif isinstance(stage, TokenExitStage):
                found[stage.outputs[0]], found[stage.outputs[1]] = self.tokens[:-1], self.tokens
        ends = [first + rows for first, rows in self.launch.rows()]
        return found | {port.reports: ends for port in self.design.ports if port.reports}

    def cache(self, port: Port) -> bytes:
        """Rows of all turns in a cache, step by step."""
        return b"".join(self._rows(step, port).tobytes() for step in range(int(port.config["steps"])))

    def _rows(self, step: int, port: Port) -> NDArray[np.int8]:
        """(rows, bytes of a row) of a step: all turns' rows as they lie in memory."""
        stage = next(
            s for s in self.design.stages if isinstance(s, CacheStage) and self._binding(s) == port.binding
        )
        value = self.trace[stage.outputs[0]][step]
        tokens = rows_to_tokens(value, stage.layout, "int8", replace(self.design.shape, tile=1))
        rows = tokens.reshape(value.shape[1], -1)
        return np.pad(rows, ((0, 0), (0, int(port.config["row_words"]) * 64 - rows.shape[1])))

    def _binding(self, stage: CacheStage) -> str:
        return next(p.binding for p in self.design.ports if stage.outputs[1] in p.streams)

    def words(self, port: Port) -> bytes:
        """What the stream of a port of a cache, or of the settings, carries in the launch."""
        if port.role == "settings":
            return self.settings * TURNS
        parts = []
        for first, rows in self.launch.rows():
            for step in range(int(port.config["steps"])):
                lines = self._rows(step, port).reshape(-1, int(port.config["row_words"]), 64)
                if port.direction == "read":
                    parts.append(lines[:first].tobytes())
                    continue
                for start in range(first, first + rows, self.design.shape.tile):
                    end = min(start + self.design.shape.tile, first + rows)
                    parts.append(lines[start:end].transpose(1, 0, 2).tobytes())
        return b"".join(parts)
