# SPDX-License-Identifier: Apache-2.0
"""64 tokens of every decoder that is supported, in two layers: exact, however the text is cut; and with
outliers planted in the residual, as real models have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import torch2fpga
from tests.tiny import cxx_cache, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.runtime.generation import verify_generation

__all__ = ["cxx_cache", "seeded"]
pytestmark = [pytest.mark.hf, pytest.mark.needs("g++")]
WORDS, ROWS, LENGTH, TOKENS = 101, 9, 73, 64
SIZES = {
    "hidden_size": 48, "intermediate_size": 75, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": WORDS, "max_position_embeddings": 80, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
ROTATING: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "tinyllama": ("Llama", {"num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 20}),
    "mistral": ("Mistral", {"sliding_window": 13}),
    "qwen2_windows": (
        "Qwen2",
        {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 11,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
}  # fmt: skip


def decoder(kind: str) -> torch.nn.Module:
    """Two layers with weights far enough from each other that a text does not repeat one word."""
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            n_layer=2, n_embd=39, n_head=3, vocab_size=WORDS, n_positions=80, bos_token_id=1, eos_token_id=2
        )
        model: Any = transformers.GPT2LMHeadModel(config)
    elif kind == "opt":
        config = transformers.OPTConfig(
            hidden_size=36, ffn_dim=75, num_hidden_layers=2, num_attention_heads=3, vocab_size=WORDS,
            max_position_embeddings=80, word_embed_proj_dim=36, bos_token_id=1, eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
        model = transformers.OPTForCausalLM(config)
    else:
        name, more = ROTATING[kind]
        config = getattr(transformers, f"{name}Config")(**{**SIZES, **more})
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()  # type: ignore[no-any-return]


def text(tokens: int, seed: int) -> Tensor:
    return torch.randint(3, WORDS, (1, tokens), generator=torch.Generator().manual_seed(seed))


def compiled(model: torch.nn.Module, **options: Any) -> CompiledModel:
    samples = [{"input_ids": text(LENGTH - seed, seed)} for seed in range(8)]
    return torch2fpga.compile(
        model, {"input_ids": text(ROWS, 8)}, generate=True, max_length=LENGTH, calibration=samples, **options
    )


@pytest.mark.parametrize("precision", ["w8a8", "w4a8"])
@pytest.mark.parametrize("kind", ["gpt2", "opt", *ROTATING])
def test_64_tokens_are_those_of_the_reference(kind: str, precision: str) -> None:
    model = compiled(decoder(kind), precision=precision, tile=2)
    assert model.design.steps == (3 if kind == "qwen2_windows" else 2)
    for splits in ((TOKENS,), (1, 30, 33)):
        report = verify_generation(model, text(ROWS, 9), splits)
        assert report.bit_exact and len(report.tokens) == TOKENS, str(report)
    short, long = text(ROWS, 9)[:, :4], text(ROWS, 9)
    # a prompt of n tokens, then m: the logits of n + m
    assert torch.equal(model.generate(short, max_new_tokens=3)[:, :4], short)
    first = model.generate(long, max_new_tokens=20)
    assert torch.equal(model.generate(first[:, :17], max_new_tokens=12), first)


def test_planted_outliers_stay_exact_and_are_counted() -> None:
    """A few channels of the residual 3,000 times the others at the first token."""
    model = decoder("llama3")
    first = text(ROWS, 9)[0, 0]
    with torch.no_grad():
        table: Any = model.get_submodule("model.embed_tokens").weight
        table[first, torch.tensor([2, 9, 20])] *= 3000
    made = compiled(model)
    report = verify_generation(made, text(ROWS, 9), (5, 7))
    assert report.bit_exact, str(report)
    assert sum(report.saturated.values()) > 0 and "at an end of their range" in str(report)
    known = {s.name for s in made.design.logic}
    assert set(report.saturated) <= known
