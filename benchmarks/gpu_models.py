# SPDX-License-Identifier: Apache-2.0
"""Models of the GPU baseline: published configurations with random weights, built on the device.

No step takes longer or shorter for other weights, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

_LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        key, title: of its figures.
        config: class of its configuration in transformers.
        settings: of that class, where they differ from its defaults.
        rows: lengths that an encoder runs at; None for a model that generates, whose lengths are options.
        parameters: as published, where it was counted; a test compares.
    """

    key: str
    title: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] | None = None
    parameters: int | None = None

    @property
    def encoder(self) -> bool:
        """Whether it makes hidden states of a whole sequence instead of the next token."""
        return self.rows is not None

    def configuration(self) -> Any:
        """The configuration."""
        import transformers

        return getattr(transformers, self.config)(**self.settings)

    def build(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The model with random weights, the same ones on each call on one device."""
        import transformers

        config = self.configuration()
        torch.manual_seed(0)
        with torch.device(device):
            if self.encoder:
                model = transformers.AutoModel.from_config(config, dtype=dtype, add_pooling_layer=False)
            else:
                model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        result: nn.Module = model.to(device).eval()
        return result


#: so small a model needs larger weights for its tokens to depend on more than the last one
_WEIGHTS = {"initializer_range": 0.2}
_TINY = {"vocab_size": 97, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, **_WEIGHTS}
_ALL = (
    Model("gpt2", "GPT-2 124M", "GPT2Config", parameters=124_439_808),
    Model("gpt2-medium", "GPT-2 medium", "GPT2Config", {"n_embd": 1024, "n_layer": 24, "n_head": 16},
          parameters=354_823_168),
    Model("opt-125m", "OPT-125M", "OPTConfig", parameters=125_239_296),
    Model("llama-3.2-1b", "Llama-3.2-1B", "LlamaConfig",
          {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
           "tie_word_embeddings": True, "rms_norm_eps": 1e-5, "rope_parameters": _LLAMA3,
           "max_position_embeddings": 131_072}, parameters=1_235_814_400),
    Model("qwen2.5-0.5b", "Qwen2.5-0.5B", "Qwen2Config",
          {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
           "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
           "tie_word_embeddings": True}, parameters=494_032_768),
    Model("qwen3-0.6b", "Qwen3-0.6B", "Qwen3Config",
          {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
           "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
           "tie_word_embeddings": True}, parameters=596_049_920),
    Model("tinyllama-1.1b", "TinyLlama-1.1B", "LlamaConfig",
          {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
           "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32_000,
           "rms_norm_eps": 1e-5}, parameters=1_100_048_384),
    Model("llama-2-7b", "Llama-2-7B", "LlamaConfig", {"max_position_embeddings": 4096},
          parameters=6_738_415_616),
    Model("bert-base", "BERT-base", "BertConfig", rows=(128, 512)),
    Model("minilm", "MiniLM", "BertConfig",
          {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
           "intermediate_size": 1536}, rows=(128, 256)),
    Model("tiny-gpt2", "tiny GPT-2", "GPT2Config",
          {**_TINY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    Model("tiny-llama", "tiny Llama", "LlamaConfig",
          {**_TINY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
           "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}),
    Model("tiny-opt", "tiny OPT", "OPTConfig",
          {**_TINY, "init_std": 0.2, "pad_token_id": 1, "hidden_size": 64, "ffn_dim": 128,
           "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 64,
           "max_position_embeddings": 64}),
    Model("tiny-bert", "tiny BERT", "BertConfig",
          {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 128, "max_position_embeddings": 64}, rows=(16,)),
)  # fmt: skip
MODELS = {model.key: model for model in _ALL}
#: what is measured unless models are named; the tiny ones only try the program
DEFAULT = tuple(key for key in MODELS if not key.startswith("tiny-"))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that one step over one row reads: everything once, but of embedding tables a row.

    A table that is also the head (tied) is read whole, as the head.
    """
    tables = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Embedding)}
    heads = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    total = 0
    for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
        if id(tensor) in tables and id(tensor) not in heads:
            total += tensor.shape[1] * tensor.element_size()
        else:
            total += tensor.numel() * tensor.element_size()
    return total


def kv_bytes(config: Any, context: int, item: int) -> int:
    """Bytes of keys and values of ``context`` positions, each of ``item`` bytes, for one sequence."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * context * item)
