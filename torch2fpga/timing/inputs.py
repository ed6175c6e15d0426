# SPDX-License-Identifier: Apache-2.0
"""Inputs for a timed run of a given size: random, valid, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch2fpga.errors import InputError
from torch2fpga.lower.rows import SelectRowStage

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.runtime.host import InputSpec

SEED = 0


def run_size(model: CompiledModel, batch: int | None, seq: int | None) -> tuple[int, int]:
    """(batch, tokens) of a run; what is not given is the compiled maximum.

    Raises:
        InputError: if that is more than the model was compiled for, or fewer tokens than it needs.
    """
    shape = model.design.shape
    size = (batch or shape.max_batch, seq or shape.max_seq)
    if size[0] > shape.max_batch or size[1] > shape.max_seq:
        raise InputError(
            f"{size[0]} x {size[1]} rows (sequences x tokens); compiled for at most "
            f"{shape.max_batch} x {shape.max_seq}"
        )
    last = max((s.row for s in model.design.stages if isinstance(s, SelectRowStage)), default=0)
    if size[1] <= last:
        raise InputError(f"{size[1]} tokens; the model takes row {last} of every sequence")
    return size


def random_inputs(
    model: CompiledModel, batch: int | None = None, seq: int | None = None
) -> dict[str, Tensor]:
    """Keyword inputs of a call: any ids, masks without padding, normal rows.

    Raises:
        InputError: see ``run_size``.
    """
    size = run_size(model, batch, seq)
    generator = torch.Generator().manual_seed(SEED)
    return {spec.name: _tensor(spec, size, generator) for spec in model.interface.inputs}


def _tensor(spec: InputSpec, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    if spec.kind == "mask":
        return torch.ones(size, dtype=torch.int64)
    if spec.kind != "rows":
        return torch.randint(max(1, spec.entries), size, generator=generator)
    values = torch.randn(*size, spec.layout.channels, generator=generator)
    if spec.rank == 2:
        return values[0]
    return values.transpose(0, 1).contiguous() if spec.swapped else values
