# SPDX-License-Identifier: Apache-2.0
"""Attention in a block: what it keeps of a token, and the products of a query with a key and a value.

Widths come from the projections, found by the names that model libraries give them. Heads come from the
configuration, where there is one: a projection may carry more than queries (gates).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

QUERY = ("q_proj", "query", "q", "q_lin", "query_proj", "wq", "to_q")
KEY = ("k_proj", "key", "k", "k_lin", "key_proj", "wk", "to_k")
VALUE = ("v_proj", "value", "v", "v_lin", "value_proj", "wv", "to_v")
#: queries, keys and values in one projection
FUSED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv", "att_proj", "qkv_lin")
#: parts of a path that mark attention to an encoder's rows
CROSS = ("cross", "encdec", "encoder_attn", "encoder_decoder")


@dataclass(frozen=True)
class Attention:
    """Attention of one block, in values.

    Attributes:
        kept: keys and values of a token.
        cross_kept: keys and values of an encoder's row.
        cross_weights: weights of the projections that make them, once for every encoder's row.
        score, value: products of a query with one key, and of one probability with a value.
        cross_pairs: both of these for one row of the encoder.
        window: tokens that a query sees; None for all.
    """

    kept: int = 0
    cross_kept: int = 0
    cross_weights: int = 0
    score: int = 0
    value: int = 0
    cross_pairs: int = 0
    window: int | None = None

    def pairs(self, queries: int, keys: int) -> int:
        """Products of ``queries`` with ``keys`` of the same sequence, both of scores and of values."""
        return queries * keys * (self.score + self.value)

    def kept_of(self, tokens: int) -> int:
        """Keys and values that are kept of a sequence."""
        return self.kept * (tokens if self.window is None else min(tokens, self.window))


def attention_of(block: nn.Module, config: Any, index: int) -> tuple[Attention, set[str]]:
    """Attention of a block, and the paths in it of the projections in front of keys and queries.

    Args:
        block: a layer of a model.
        config: its configuration, or None.
        index: which layer it is, for configurations that say what each one does.
    """
    found, projections = Attention(), set[str]()
    for path, module in block.named_modules():
        widths = _widths(module, config)
        if widths is None:
            continue
        names, query, key, value = widths
        projections |= {f"{path}.{name}".lstrip(".") for name in names}
        if any(word in path.lower() for word in CROSS):
            made = sum(_weights(module, n) for n in names if n in KEY + VALUE)
            found = replace(
                found, cross_kept=key + value, cross_weights=made, cross_pairs=query[0] + query[1]
            )
        else:
            found = replace(found, kept=key + value, score=query[0], value=query[1])
    if _shares_keys(config, index):
        found = replace(found, kept=0)
    return replace(found, window=_window(config, index)), projections


def _widths(module: nn.Module, config: Any) -> tuple[set[str], tuple[int, int], int, int] | None:
    """(projections, (score, value) products a pair, width of keys, of values); None for other modules."""
    children = {name: _outputs(child) for name, child in module.named_children()}
    children = {name: width for name, width in children.items() if width}
    if isinstance(module, nn.MultiheadAttention):
        kdim, width = int(module.embed_dim), int(module.embed_dim)
        return (
            {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"},
            (width, width),
            kdim,
            width,
        )
    latent = "kv_b_proj" in children
    if latent:
        heads = int(config.num_attention_heads)
        score = heads * int(config.qk_nope_head_dim + config.qk_rope_head_dim)
        value = heads * int(config.v_head_dim)
        names = {n for n in children if n.startswith(("q_", "kv_"))}
        return names, (score, value), score, value
    key = next((n for n in KEY if n in children), None)
    if key is not None:
        name = next((n for n in VALUE if n in children), None)
        query = next((n for n in QUERY if n in children), None)
        wide = _query_width(config) or children[query or key]
        # one head's queries meet their keys: as many products as the queries are wide
        names = {n for n in (query, key, name) if n}
        return names, (wide, wide), children[key], children[name or key]
    fused = next((n for n in FUSED if n in children), None)
    if fused is None:
        return None
    wide = _query_width(config) or children[fused] // 3
    rest = children[fused] - wide
    return {fused}, (wide, wide), rest // 2, rest - rest // 2


def _outputs(module: nn.Module) -> int:
    if isinstance(module, nn.Linear):
        return module.out_features
    weight: Any = getattr(module, "weight", None)
    return int(weight.shape[1]) if type(module).__name__ == "Conv1D" and weight is not None else 0


def _weights(module: nn.Module, name: str) -> int:
    weight: Any = module.get_submodule(name).weight
    return int(weight.numel())


def _query_width(config: Any) -> int | None:
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        return None
    size = getattr(config, "head_dim", None) or getattr(config, "d_kv", None)
    if not isinstance(size, int):
        hidden = getattr(config, "hidden_size", None)
        if not isinstance(hidden, int):
            return None
        size = hidden // heads
    return heads * size


def _window(config: Any, index: int) -> int | None:
    """Tokens that a layer's queries see, where the configuration limits them."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        kind = kinds[index % len(kinds)]
        size = {
            "sliding_attention": getattr(config, "sliding_window", None),
            "chunked_attention": getattr(config, "attention_chunk_size", None),
        }.get(kind)
    else:
        size = getattr(config, "sliding_window", None)
        if not getattr(config, "use_sliding_window", True):
            size = None
    return size if isinstance(size, int) and size > 0 else None


def _shares_keys(config: Any, index: int) -> bool:
    """Whether a layer reads the keys and values of an earlier one."""
    shared, layers = getattr(config, "num_kv_shared_layers", None), getattr(config, "num_hidden_layers", 0)
    return isinstance(shared, int) and shared > 0 and index >= layers - shared
