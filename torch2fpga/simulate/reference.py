# SPDX-License-Identifier: Apache-2.0
"""The quantised reference: every stage's integer function on torch tensors, in design order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torch2fpga.design import Design, Stage
from torch2fpga.lower.embedding import EmbedStage
from torch2fpga.lower.large_table import MergeRowsStage
from torch2fpga.lower.plumbing import ForkStage, LoopEnterStage, LoopExitStage, RelayStage, UnpackStage
from torch2fpga.lower.rows import SelectRowStage
from torch2fpga.lower.sample import SampleStage
from torch2fpga.lower.turns import TokenEnterStage, TokenExitStage

#: stream -> its value at every use, in order
Trace = dict[str, list[Tensor]]


class Reference:
    """Runs a design on integer inputs.

    Args:
        design: verified design.
        data: stage name -> constants of each step.
        every_row: go on with all rows where the design selects one of them: what a design that generates
            tokens computes in turn after turn, at once.
    """

    def __init__(
        self, design: Design, data: Mapping[str, list[Mapping[str, Any]]], every_row: bool = False
    ) -> None:
        self.design = design
        self.data = data
        self.every_row = every_row

    def run(
        self, inputs: Mapping[str, Tensor], like: Tensor, keep: bool = False
    ) -> tuple[dict[str, Tensor], Trace]:
        """Values of all streams after the run.

        Args:
            inputs: model input name -> integer tensor (ids, mask, or quantised rows).
            like: any tensor with the (batch, seq) of this run as leading sizes.
            keep: also give every stream's value at every use.
        """
        values: dict[str, Tensor] = {}
        trace: Trace = {}
        for group in ("before", "loop", "after"):
            stages = [s for s in self.design.logic or self.design.stages if s.group == group]
            for step in range(self.design.steps if group == "loop" else 1):
                for stage in stages:
                    self._stage(stage, step, inputs, like, values, trace if keep else None)
        return values, trace

    def _stage(
        self,
        stage: Stage,
        step: int,
        inputs: Mapping[str, Tensor],
        like: Tensor,
        values: dict[str, Tensor],
        trace: Trace | None,
    ) -> None:
        if _moves_ids(stage):  # the sequence is given
            return
        data = self.data.get(stage.name)
        constants: Mapping[str, Any] = data[min(step, len(data) - 1)] if data else {}
        sources: list[Tensor | None]
        if isinstance(stage, EmbedStage):
            sources = [*(inputs[i] for i in stage.ids), like]
        elif isinstance(stage, UnpackStage):
            sources = [inputs[stage.path]]
        elif isinstance(stage, LoopEnterStage):
            sources = [values.get(stage.inputs[0]), values.get(stage.inputs[1]) if step > 0 else None]
        elif isinstance(stage, RelayStage) and stage.group == "loop" and stage.inputs[0] not in values:
            return  # the feedback of step 0
        else:
            sources = [values.get(i) for i in stage.inputs]
        if self.every_row and isinstance(stage, SelectRowStage):
            assert sources[0] is not None
            results = [sources[0]]
        else:
            results = stage.reference(constants, sources)
        last = step + 1 == stage.steps
        for slot, (name, result) in enumerate(zip(stage.outputs, results, strict=True)):
            if isinstance(stage, LoopExitStage) and not stage.carries(slot, last):
                continue
            values[name] = result
            if trace is not None:
                trace.setdefault(name, []).append(result)


def _moves_ids(stage: Stage) -> bool:
    """Does it move ids, or words of memory, which are given?"""
    ends = isinstance(stage, TokenEnterStage | TokenExitStage | SampleStage | MergeRowsStage)
    return ends or (isinstance(stage, ForkStage) and stage.like.kind == "ids")
