# SPDX-License-Identifier: Apache-2.0
"""Inputs of a model as its canonical graph takes them, and those that it is calibrated on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from torch import Tensor, fx

from torch2fpga.capture import Captured, Inputs, split_inputs
from torch2fpga.errors import CaptureError
from torch2fpga.passes.nodes import Node

#: calibration samples below which a warning is given
FEW_SAMPLES = 8


def placeholders(module: fx.GraphModule) -> list[Node]:
    """Inputs of a graph, in order."""
    return [n for n in module.graph.nodes if n.op == "placeholder"]


def canonical_inputs(module: fx.GraphModule, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """User tensors as the canonical graph takes them."""
    found: dict[str, Tensor] = {}
    for node in placeholders(module):
        value = tensors[str(node.target)]
        if node.meta["kind"] == "rows":
            value = value[None] if value.dim() == 2 else value
            value = (
                value.transpose(0, 1) if module.meta["swapped"] and len(node.meta["shape"]) == 3 else value
            )
        found[str(node.target)] = value
    return found


def calibration_samples(
    module: fx.GraphModule, captured: Captured, calibration: Iterable[Inputs] | None, notes: list[str]
) -> list[dict[str, Tensor]]:
    """Calibration inputs by placeholder name; the example too where there are few.

    Args:
        notes: gets what was warned of.
    Raises:
        CaptureError: for inputs that are not like the example.
    """
    samples: list[dict[str, Tensor]] = []
    for i, item in enumerate(calibration or ()):
        names, tensors = split_inputs(item)
        if names is None and len(tensors) != len(captured.names):
            raise CaptureError(f"calibration input {i} has {len(tensors)} tensors, expected {captured.names}")
        named = dict(zip(names if names is not None else captured.names, tensors, strict=True))
        missing = [n for n in captured.names if n not in named]
        if missing:
            raise CaptureError(f"calibration input {i} lacks {missing}")
        _like_example(i, named, captured)
        samples.append(canonical_inputs(module, named))
    if len(samples) < FEW_SAMPLES:
        text = f"calibrated on {len(samples) or 'no'} inputs beside the example; give at least {FEW_SAMPLES}"
        warnings.warn(text, UserWarning, stacklevel=3)
        notes.append(text)
        samples.append(canonical_inputs(module, captured.example))
    return samples


def _like_example(number: int, named: Mapping[str, Tensor], captured: Captured) -> None:
    """A calibration input must have the ranks, kinds and channels of the example."""
    for name, example in captured.example.items():
        value = named[name]
        same = value.dim() == example.dim() and value.is_floating_point() == example.is_floating_point()
        if not same or (example.is_floating_point() and value.shape[-1:] != example.shape[-1:]):
            raise CaptureError(
                f"calibration input {number}: {name} is {value.dtype} {tuple(value.shape)}, "
                f"the example {example.dtype} {tuple(example.shape)}"
            )
        if any(n > most for n, most in zip(value.shape[:2], example.shape[:2], strict=False)):
            raise CaptureError(
                f"calibration input {number}: {name} is {tuple(value.shape)}, larger than the sizes that are "
                f"compiled, {tuple(example.shape)}"
            )
