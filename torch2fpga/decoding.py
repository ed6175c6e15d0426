# SPDX-License-Identifier: Apache-2.0
"""A causal language model as it is captured to generate text: token ids in, logits of one row out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from torch2fpga.capture import Captured, Inputs, capture, split_inputs
from torch2fpga.errors import CompileError

#: tokens of a text where neither the caller nor the model says how many
DEFAULT_LENGTH = 1024


@dataclass(frozen=True)
class Decoding:
    """What is captured of a model.

    Attributes:
        inputs: ids as long as a text may be: positions are constants of the capture.
        prompt: tokens of a prompt that one launch takes at most.
        length: tokens of a text at most.
        options: keywords of the call.
    """

    inputs: Inputs
    prompt: int
    length: int
    options: Mapping[str, Any]

    def capture(self, model: nn.Module) -> Captured:
        """The captured model."""
        return capture(model, self.inputs, self.options)


def decoding(model: nn.Module, example_inputs: Inputs, max_length: int | None) -> Decoding:
    """How to capture a model that generates.

    Raises:
        CompileError: if it is none, or the example is something else than the ids of one text; all
            reasons in one text.
    """
    names, tensors = split_inputs(example_inputs)
    problems = []
    ids = tensors[0]
    if len(tensors) != 1:
        problems.append(f"the example has the inputs {names or len(tensors)}; expected the token ids alone")
    if ids.dim() != 2 or ids.shape[0] != 1 or ids.is_floating_point():
        problems.append(f"the example is {ids.dtype} {tuple(ids.shape)}; expected integers (1, tokens)")
    parameters = inspect.signature(model.forward).parameters
    if "logits_to_keep" not in parameters:
        problems.append(
            f"{type(model).__name__} has no argument logits_to_keep: it is no causal language model of "
            "transformers"
        )
    longest = positions_of(getattr(model, "config", None))
    length = max_length if max_length is not None else min(longest or DEFAULT_LENGTH, DEFAULT_LENGTH)
    if longest is not None and length > longest:
        problems.append(f"max_length={length}: the model has {longest} positions")
    if ids.dim() == 2 and ids.shape[1] > length:
        problems.append(f"the example has {ids.shape[1]} tokens, more than max_length={length}")
    if problems:
        raise CompileError("generate=True: " + "; ".join(problems))
    whole = ids.repeat(1, -(-length // ids.shape[1]))[:, :length].contiguous()
    given: Inputs = (whole,) if names is None else {names[0]: whole}
    return Decoding(given, int(ids.shape[1]), length, {"logits_to_keep": 1})


def positions_of(config: Any) -> int | None:
    """Tokens that a model's configuration has positions for; None where it does not say."""
    for name in ("max_position_embeddings", "n_positions"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    return None
