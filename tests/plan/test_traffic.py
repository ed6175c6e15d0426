# SPDX-License-Identifier: Apache-2.0
"""Bytes that a model needs by itself, from its configuration alone."""

from __future__ import annotations

import pytest
import torch

import torch2fpga
from torch2fpga.compiled import CompiledModel
from torch2fpga.plan.traffic import bytes_moved, model_bytes

VOCABULARY, WIDTH, INNER, LAYERS, HEADS = 101, 36, 144, 2, 3
PAST, TURNS, GROUP = 11, 3, 64


def _compiled(precision: str) -> CompiledModel:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, vocab_size=VOCABULARY, n_positions=40,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    ids = torch.arange(5)[None]
    return torch2fpga.compile(
        transformers.GPT2LMHeadModel(config).eval(), {"input_ids": ids}, generate=True, max_length=40,
        plan="simple", precision=precision, calibration=[{"input_ids": ids + i} for i in range(8)],
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["w8a8", "w4a8"])
def test_weights_scales_and_cache_without_padding(precision: str) -> None:
    design = _compiled(precision).design
    layers = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH))
    shapes = [*LAYERS * layers, (WIDTH, VOCABULARY)]
    bits = int(precision[1])
    weights = sum(i * o * bits // 8 for i, o in shapes)
    if bits == 4:  # a byte for every group of inputs and every output
        weights += sum(-(-i // GROUP) * o for i, o in shapes)
    cache = 2 * LAYERS * WIDTH * sum(PAST + turn for turn in range(TURNS))
    assert model_bytes(design, PAST, TURNS) == TURNS * weights + cache
    moved = bytes_moved(design, 1, 1, PAST, TURNS)
    read = sum(
        moved[p.kernel, p.name]
        for p in design.ports
        if p.direction == "read" and p.role in ("weights", "cache")
    )
    assert model_bytes(design, PAST, TURNS) < read  # 36 channels fill up blocks of 16 or 32
