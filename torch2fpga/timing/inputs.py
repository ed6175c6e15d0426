# SPDX-License-Identifier: Apache-2.0
"""Inputs for a timed run of a given size: random, valid, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from torch2fpga.emit.golden import example_inputs
from torch2fpga.errors import InputError
from torch2fpga.runtime.host import size_problems

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.runtime.host import InputSpec


def run_size(model: CompiledModel, batch: int | None, seq: int | None) -> tuple[int, int]:
    """(batch, tokens) of a run; what is not given is the compiled maximum.

    Raises:
        InputError: if that is more than the model was compiled for, or fewer tokens than it needs.
    """
    shape = model.design.shape
    size = (batch or shape.max_batch, seq or shape.max_seq)
    problems = size_problems(model.design, *size)
    if problems:
        raise InputError("; ".join(problems))
    return size


def random_inputs(
    model: CompiledModel, batch: int | None = None, seq: int | None = None
) -> dict[str, Tensor]:
    """Keyword inputs of a call: any ids, masks without padding, normal rows.

    Raises:
        InputError: see ``run_size``.
    """
    found = example_inputs(model.interface.inputs, *run_size(model, batch, seq), padded=False)
    return {spec.name: _given(spec, found[spec.name]) for spec in model.interface.inputs}


def _given(spec: InputSpec, value: Tensor) -> Tensor:
    """(batch, seq, ...) in the shape of the user's tensor."""
    if spec.kind != "rows":
        return value
    if spec.rank == 2:
        return value[0]
    return value.transpose(0, 1).contiguous() if spec.swapped else value
