# SPDX-License-Identifier: Apache-2.0
"""Small models of transformers with folders of weights, and what their tests compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny import HEAD, HIDDEN, KV_HEADS, Q_HEADS, RESIDUAL, WORDS

TOKENS, LENGTH = 5, 24
#: kind of configuration -> settings; nothing is a multiple of the lanes
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 3, "n_embd": 24, "n_head": 3,
        "vocab_size": WORDS, "n_positions": 40, "bos_token_id": 0, "eos_token_id": 0,
    },
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3,
        "hidden_size": RESIDUAL, "intermediate_size": HIDDEN, "num_attention_heads": Q_HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "vocab_size": WORDS,
        "max_position_embeddings": 40, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    },
    "bert": {
        "model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 3, "hidden_size": 24,
        "num_attention_heads": 3, "intermediate_size": HIDDEN, "vocab_size": WORDS,
        "max_position_embeddings": 40,
    },
}  # fmt: skip
CONFIGS["llama_tied"] = {**CONFIGS["llama"], "tie_word_embeddings": True}


def settings(kind: str) -> dict[str, Any]:
    """A configuration's settings, to be changed at will."""
    return dict(CONFIGS[kind])


def model(kind: str) -> Any:
    """The model with random weights, the same at every call."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = transformers.CONFIG_MAPPING[CONFIGS[kind]["model_type"]].from_dict(settings(kind))
        made = getattr(transformers, CONFIGS[kind]["architectures"][0])(config)
        for parameter in made.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def example(tokens: int = TOKENS) -> dict[str, Tensor]:
    """Token ids of a prompt."""
    return {"input_ids": (torch.arange(tokens) * 37 % WORDS)[None]}


def rows(kind: str, tokens: int = TOKENS, count: int = 8) -> list[dict[str, Tensor]]:
    """Calibration inputs, with a mask where the model takes one."""
    random = torch.Generator().manual_seed(4)
    found = [{"input_ids": torch.randint(WORDS, (1, tokens), generator=random)} for _ in range(count)]
    if kind == "bert":
        found = [{**row, "attention_mask": torch.ones_like(row["input_ids"])} for row in found]
    return found


def content(path: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def tensors_of(kind: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What a checkpoint of the model holds: tied parameters once."""
    whole = model(kind)
    return {n: p.detach().to(dtype).contiguous() for n, p in whole.named_parameters()}


def save_folder(
    folder: Path,
    kind: str,
    shards: int = 0,
    dtype: torch.dtype = torch.float32,
    rename: Callable[[str], str] = str,
) -> Path:
    """A folder with configuration and weights; ``shards`` files with an index, or one file (0)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings(kind)))
    tensors = {rename(name): value for name, value in tensors_of(kind, dtype).items()}
    save_shards(folder, tensors, shards)
    return folder


def save_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    """Weights in one file, or in several with an index."""
    if not shards:
        save_file(tensors, folder / "model.safetensors")
        return
    names, where = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = names[number::shards]
        save_file({name: tensors[name] for name in own}, folder / file)
        where |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pretrained(folder: Path) -> Any:
    """The same model as transformers loads it."""
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    found = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return found.eval()
