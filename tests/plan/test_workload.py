# SPDX-License-Identifier: Apache-2.0
"""Models in numbers: against published counts, and against what torch counts while a real model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torch2fpga.errors import CompileError
from torch2fpga.plan.estimate import estimate
from torch2fpga.plan.meta_model import meta_model
from torch2fpga.plan.workload import Workload, read_workload

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.hf

#: settings of published checkpoints (none: the default of the class) and their parameters as published
PUBLISHED: dict[str, tuple[str, dict[str, Any], int]] = {
    "gpt2": ("GPT2Config", {}, 124_439_808),
    "gpt2-medium": ("GPT2Config", {"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168),
    "opt-125m": ("OPTConfig", {}, 125_239_296),
    "llama-2-7b": ("LlamaConfig", {}, 6_738_415_616),
    "llama-3.2-1b": (
        "LlamaConfig",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True},
        1_235_814_400,
    ),
    "mistral-7b": ("MistralConfig", {}, 7_241_732_096),
    "qwen2.5-1.5b": (
        "Qwen2Config",
        {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
         "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True},
        1_543_714_304,
    ),
    "qwen3-0.6b": (
        "Qwen3Config",
        {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True},
        596_049_920,
    ),
    "gemma-2b": (
        "GemmaConfig",
        {"hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 18, "num_attention_heads": 8,
         "num_key_value_heads": 1, "head_dim": 256},
        2_506_172_416,
    ),
    "phi-2": (
        "PhiConfig",
        {"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 32, "num_attention_heads": 32,
         "vocab_size": 51_200},
        2_779_683_840,
    ),
    "falcon-7b": ("FalconConfig", {}, 6_921_720_704),
    "bert-base": ("BertConfig", {}, 109_482_240),
    "t5-small": ("T5Config", {}, 60_506_624),
    "vit-base": ("ViTConfig", {}, 86_389_248),
    "mixtral-8x7b": ("MixtralConfig", {"num_local_experts": 8}, 46_702_792_704),
}  # fmt: skip


def workload(kind: str, **settings: Any) -> Workload:
    return read_workload(*meta_model(getattr(transformers, kind)(**settings)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_model(name: str) -> None:
    kind, settings, parameters = PUBLISHED[name]
    found = workload(kind, **settings)
    assert found.parameters == parameters
    # matrices and tables are all of it but norms and biases; a tied head is in both
    rest = parameters - found.matrices - found.tables
    small = 0.004 * parameters
    assert 0 <= rest <= small or 0 <= rest + found.head <= small


def test_roles_of_weights() -> None:
    gpt2 = workload("GPT2Config")
    assert (gpt2.head, gpt2.tables) == (50_257 * 768, (50_257 + 1024) * 768)
    assert sum(b.stored for b in gpt2.blocks) == 12 * 12 * 768**2 and gpt2.kv_values == 2 * 12 * 768
    bert = workload("BertConfig")
    assert (bert.head, bert.pooled, bert.generative) == (0, 768**2, False)
    vit = workload("ViTConfig")
    assert (vit.stem, vit.patches, vit.stacks[0].rows) == (768 * 3 * 16 * 16, 196, 197)
    falcon = workload(
        "FalconConfig"
    )  # one key and one value for all heads, in one projection with 71 queries
    assert falcon.kv_values == 32 * 2 * 64 and falcon.blocks[0].attention.score == 71 * 64


def test_experts_are_stored_but_not_all_met() -> None:
    found = workload("MixtralConfig", num_local_experts=8)
    block = found.blocks[0]
    one = 3 * 4096 * 14_336
    shared = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 8 * 4096  # attention and router
    assert (block.stored, block.active, block.routed) == (shared + 8 * one, shared + 2 * one, 2 * one)
    # two tokens may meet four experts, ten not more than there are
    assert block.read(2) == shared + 4 * one and block.read(10) == block.stored
    # a checkpoint's "12.9B active": blocks, head, and norms are small
    assert sum(b.active for b in found.blocks) + found.head + found.tables == pytest.approx(12.9e9, rel=0.005)


def test_layers_that_share_their_weights() -> None:
    found = workload("AlbertConfig", hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    (stack,) = found.stacks
    assert (len(stack.blocks), stack.repeat) == (1, 12)
    assert any("share the weights" in text for text in found.assumptions)


def test_a_window_limits_what_is_kept() -> None:
    found = workload("Gemma3TextConfig", num_hidden_layers=6, sliding_window=64)
    assert [b.attention.kept_of(100) // b.attention.kept for b in found.blocks] == [64] * 5 + [100]
    mistral = workload("MistralConfig", sliding_window=32).blocks[0].attention
    assert mistral.kept_of(100) == 32 * 2 * 1024


def test_latent_attention_and_unknown_recurrences_are_said() -> None:
    latent = workload("DeepseekV3Config", num_hidden_layers=4)
    assert latent.blocks[0].attention.kept == 128 * (192 + 128)
    assert any("latent attention" in text for text in latent.assumptions)
    mamba = workload("MambaConfig", num_hidden_layers=2)
    assert mamba.kv_values == 0 and any("keep no keys" in text for text in mamba.assumptions)


# -- products, against what torch counts ----------------------------------------------------------

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
WIDE = {**SMALL, "intermediate_size": 160}
TOKENS = 12
#: configuration, settings
RUNNABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 96}),
    "opt": ("OPTConfig", {**SMALL, "ffn_dim": 160, "word_embed_proj_dim": 32}),
    "llama": ("LlamaConfig", {**WIDE, "num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {**WIDE, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {**WIDE, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {**WIDE, "num_key_value_heads": 2, "head_dim": 24}),
    "gemma": ("GemmaConfig", {**WIDE, "num_key_value_heads": 1, "head_dim": 24}),
    "phi": ("PhiConfig", WIDE),
    "falcon": ("FalconConfig", SMALL),
    "mixtral": ("MixtralConfig", {**WIDE, "num_key_value_heads": 2, "num_local_experts": 4}),
    "neox": ("GPTNeoXConfig", {**WIDE, "rotary_pct": 0.25}),
    "bert": ("BertConfig", WIDE),
    "vit": ("ViTConfig", {k: v for k, v in WIDE.items() if k != "vocab_size"} | {"image_size": 32}),
    "albert": ("AlbertConfig", {**WIDE, "embedding_size": 32}),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 160, "vocab_size": 96},
    ),
    "modernbert": ("ModernBertConfig", {**WIDE, "pad_token_id": 0}),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 96}),
    "gptj": ("GPTJConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 96, "rotary_dim": 8}),
    "phi3": ("Phi3Config", {**WIDE, "num_key_value_heads": 2, "pad_token_id": 0}),
    "gemma3": ("Gemma3TextConfig", {**WIDE, "num_key_value_heads": 2, "head_dim": 24}),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {**WIDE, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
         "moe_intermediate_size": 48},
    ),
    "gpt-oss": ("GptOssConfig", {**WIDE, "num_key_value_heads": 2, "num_local_experts": 4, "head_dim": 16,
                                 "num_experts_per_tok": 2}),
    "deepseek": (
        "DeepseekV3Config",
        {**WIDE, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
         "num_experts_per_tok": 2, "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
         "qk_rope_head_dim": 8, "v_head_dim": 12, "moe_intermediate_size": 48, "first_k_dense_replace": 1},
    ),
}  # fmt: skip


def counted(model: nn.Module, **inputs: Any) -> int:
    """Multiply-accumulates of a call, as torch counts them in matrix products and convolutions."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(**inputs)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@pytest.mark.parametrize("name", RUNNABLE)
def test_products_of_a_prompt_are_those_that_run(name: str) -> None:
    kind, settings = RUNNABLE[name]
    config = getattr(transformers, kind)(**settings)
    config._attn_implementation = config._experts_implementation = "eager"
    found = estimate(config, prompt=None if name == "vit" else TOKENS, context=None)
    model = type(meta_model(config)[0])(config).eval()
    inputs: dict[str, Any] = {"input_ids": torch.arange(TOKENS)[None]}
    if name == "vit":
        inputs = {"pixel_values": torch.zeros(1, 3, 32, 32)}
    elif found.decode is not None:
        inputs["logits_to_keep"] = 1
    assert counted(model, **inputs) == found.size.prompt_macs


def test_products_of_a_token_are_those_that_run() -> None:
    config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=96)
    config._attn_implementation = "eager"
    found = estimate(config, prompt=8, context=20)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        cache = model(torch.arange(19)[None]).past_key_values
    assert counted(model, input_ids=torch.zeros(1, 1, dtype=torch.long), past_key_values=cache) == (
        found.size.token_macs
    )


def test_products_of_an_encoder_and_a_decoder_are_those_that_run() -> None:
    config = transformers.T5Config(
        d_model=64, d_kv=16, d_ff=160, num_layers=3, num_decoder_layers=2, num_heads=4, vocab_size=96
    )
    config._attn_implementation = "eager"
    found = estimate(config, prompt=TOKENS, context=1)
    model = transformers.T5ForConditionalGeneration(config).eval()
    one = torch.zeros(1, 1, dtype=torch.long)
    ran = counted(model, input_ids=torch.arange(TOKENS)[None], decoder_input_ids=one)
    assert ran == found.size.prompt_macs + found.size.token_macs
    assert found.size.kv_bytes_per_token == 2 * 2 * 64 and found.size.layers == 5


def test_a_module_of_torch() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    found = read_workload(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))
    assert [b.stored for b in found.blocks] == [4 * 32 * 32 + 2 * 32 * 48] * 3
    assert (found.blocks[0].attention.kept, found.blocks[0].links, found.generative) == (64, 5, False)
    assert any("no Hugging Face configuration" in text for text in found.assumptions)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), "no repeated block with linear layers"),
        (nn.Conv2d(3, 4, 3), "no repeated block"),
        ("ResNetConfig", "no repeated block with linear layers"),
        ("SwinConfig", r"take rows of different widths \(\[96, 192, 384, 768\]\)"),
        ("Qwen2VLConfig", "estimate the language model alone"),
    ],
)
def test_what_is_refused(model: Any, message: str) -> None:
    if isinstance(model, str):
        model, _ = meta_model(getattr(transformers, model)())
    with pytest.raises(CompileError, match=message):
        read_workload(model)
