# SPDX-License-Identifier: Apache-2.0
"""A small GPT-2 that generates, for the tests of generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import torch2fpga
from torch2fpga.compiled import CompiledModel

WORDS, POSITIONS, LENGTH, ROWS = 101, 80, 61, 7


def gpt2(**changes: Any) -> Any:
    """A GPT-2 of two layers; logits far apart, so that a text does not repeat one word."""
    import transformers

    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 36, "n_head": 3, "vocab_size": WORDS, "n_positions": POSITIONS}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **ends, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


def text(tokens: int, seed: int = 5) -> Tensor:
    return torch.randint(WORDS, (1, tokens), generator=torch.Generator().manual_seed(seed))


PROMPT = text(5)


def compiled_gpt2(rows: int = ROWS, **options: Any) -> CompiledModel:
    given = {"generate": True, "max_length": LENGTH, **options}
    samples = [{"input_ids": text(20 if given["generate"] else rows, seed)} for seed in range(8)]
    return torch2fpga.compile(
        gpt2(), {"input_ids": text(rows)}, plan="simple", tile=3, calibration=samples, **given
    )


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    """Compiled once: prompts of 7 rows a launch, texts of 61 tokens."""
    return compiled_gpt2()


def new(model: CompiledModel, prompt: Tensor = PROMPT, count: int = 20, **options: Any) -> list[int]:
    """Tokens behind a prompt."""
    found = model.generate(prompt, max_new_tokens=count, **options)
    return [int(t) for t in found[0, prompt.shape[1] :]]
