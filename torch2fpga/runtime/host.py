# SPDX-License-Identifier: Apache-2.0
"""What the host does around a launch: check inputs, quantise and pack them, unpack outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import SCALAR, Design, Layout
from torch2fpga.errors import InputError
from torch2fpga.lower.rows import rows_needed
from torch2fpga.simulate.fixed import limits
from torch2fpga.simulate.tokens import mask_to_tokens, rows_to_tokens

#: dtypes of integer inputs
INTEGERS = (torch.int64, torch.int32, torch.bool, torch.uint8, torch.int8, torch.int16)


@dataclass(frozen=True)
class InputSpec:
    """One model input.

    Attributes:
        name: argument name.
        kind: ``ids``, ``mask``, ``both`` or ``rows``.
        entries: ids must lie in [0, entries).
        scale: (channels,) real value of one unit (``rows``).
        bits, element, layout: integer format of ``rows``.
        rank: dimensions of the user's tensor.
        swapped: the user's tensor is (tokens, batch, channels).
    """

    name: str
    kind: str
    entries: int = 0
    scale: Tensor | None = None
    bits: int = 8
    element: str = "int8"
    layout: Layout = SCALAR
    rank: int = 2
    swapped: bool = False


@dataclass(frozen=True)
class OutputItem:
    """One model output: its stream, scale, and how axes make the user's shape."""

    stream: str
    port: str
    scale: Tensor
    element: str
    layout: Layout
    one_row: bool
    view: Mapping[str, Any]


@dataclass(frozen=True)
class TokenItem:
    """The token that a model which generates gives out: the stream of its logits, and their unit."""

    stream: str
    scale: float


@dataclass(frozen=True)
class Interface:
    """All inputs and outputs of a compiled model, in the order of the user's call.

    Attributes:
        token: in the place of outputs, where tokens are generated.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputItem, ...]
    token: TokenItem | None = None

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any], design: Design) -> dict[str, Tensor]:
        """Name -> canonical tensor of a call, checked.

        Raises:
            InputError: wrong names, shapes, dtypes, sizes or id ranges, all in one text.
        """
        names = [i.name for i in self.inputs]
        problems: list[str] = []
        if len(args) > len(names):
            raise InputError(f"{len(args)} positional inputs, expected {names}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                problems.append(f"unknown input {name}; expected {names}")
            elif name in given:
                problems.append(f"input {name} is given twice")
            given[name] = value
        problems += [f"input {n} is missing" for n in names if n not in given]
        if problems:
            raise InputError("; ".join(problems))
        bound = {spec.name: self._check(spec, given[spec.name], problems) for spec in self.inputs}
        sizes = {tuple(t.shape[:2]) for t in bound.values() if t is not None}
        if len(sizes) > 1:
            problems.append(f"inputs disagree on (batch, tokens): {sorted(sizes)}")
        for batch, seq in sizes:
            problems += size_problems(design, batch, seq)
        if problems:
            raise InputError("; ".join(problems))
        return {name: value for name, value in bound.items() if value is not None}

    @staticmethod
    def _check(spec: InputSpec, value: Any, problems: list[str]) -> Tensor | None:
        if not isinstance(value, Tensor):
            problems.append(f"input {spec.name} is a {type(value).__name__}, expected a tensor")
            return None
        if value.dim() != spec.rank:
            problems.append(
                f"input {spec.name} has shape {tuple(value.shape)}, expected {spec.rank} dimensions"
            )
            return None
        if spec.kind == "rows":
            return _float_rows(spec, value, problems)
        if value.dtype not in INTEGERS:
            problems.append(f"input {spec.name} is {value.dtype}, expected integers")
            return None
        if spec.entries and value.numel() and not (int(value.min()) >= 0 and int(value.max()) < spec.entries):
            problems.append(
                f"input {spec.name} holds {int(value.min())}..{int(value.max())}, "
                f"expected ids in 0..{spec.entries - 1}"
            )
        return value.to(torch.int64)

    def quantise(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Integer tensors as the stages see them."""
        out: dict[str, Tensor] = {}
        for spec in self.inputs:
            value = inputs[spec.name]
            if spec.kind == "rows":
                assert spec.scale is not None
                low, high = limits(spec.bits)
                q = torch.floor(value.to(torch.float64) / spec.scale + 0.5).clamp(low, high)
                value = q.to(torch.int32)
            out[spec.name] = value
        return out

    def buffer(
        self, name: str, role: str, quantised: Mapping[str, Tensor], design: Design
    ) -> NDArray[np.uint8]:
        """Bytes of an input buffer, in the order in which its port reads them."""
        spec = next(i for i in self.inputs if i.name == name)
        value = quantised[name]
        if role == "ids":
            data: Any = value.reshape(-1).numpy().astype(np.int32)
        elif role == "mask":
            data = mask_to_tokens(value, design.shape)
        else:
            data = rows_to_tokens(value, spec.layout, spec.element, design.shape)
        raw = np.ascontiguousarray(data).view(np.uint8)
        return np.concatenate([raw, np.zeros(-raw.size % 64, dtype=np.uint8)])

    def restore(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Float outputs in the user's shapes from (batch, seq, channels) integers."""
        reals = [
            (v.to(torch.float64) * o.scale).to(torch.float32)
            for o, v in zip(self.outputs, outputs, strict=True)
        ]
        return [_shaped(item, real) for item, real in zip(self.outputs, reals, strict=True)]


def size_problems(design: Design, batch: int, seq: int) -> list[str]:
    """Why a launch of ``batch`` sequences of ``seq`` rows is not possible (empty if it is)."""
    problems, s, needed = [], design.shape, rows_needed(design)
    if seq < needed:
        problems.append(f"{seq} tokens; the model takes row {needed - 1} of every sequence")
    if not (1 <= batch <= s.max_batch and 1 <= seq <= s.max_seq):
        problems.append(f"{batch} x {seq} rows; compiled for at most {s.max_batch} x {s.max_seq}")
    return problems


def _shaped(item: OutputItem, real: Tensor) -> Tensor:
    """(batch, seq, channels) in the user's shape."""
    batch, seq = real.shape[:2]
    view = item.view
    sizes = [batch, seq, *view["channels"]]
    moved = real.reshape(sizes).permute(*view["order"])
    return moved.reshape([math.prod(sizes[a] for a in axes) for axes in view["shape"]])


def _float_rows(spec: InputSpec, value: Tensor, problems: list[str]) -> Tensor | None:
    channels = spec.layout.channels
    if not value.dtype.is_floating_point:
        problems.append(f"input {spec.name} is {value.dtype}, expected float32")
        return None
    if value.shape[-1] != channels:
        problems.append(f"input {spec.name} has {value.shape[-1]} channels, expected {channels}")
        return None
    if not bool(torch.isfinite(value).all()):
        problems.append(f"input {spec.name} holds values that are not finite")
        return None
    if spec.rank == 2:
        return value[None]
    return value.transpose(0, 1) if spec.swapped else value
