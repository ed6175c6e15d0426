# SPDX-License-Identifier: Apache-2.0
"""The canonical graph computes what the model computes, in a few operators; all refusals at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.tiny import (
    BATCH,
    HEADS,
    SEQ,
    WIDTH,
    Inside,
    build,
    encoder,
    float_error,
    histogram,
    ids,
    lowered,
    named,
    refusals,
    rows,
    seeded,
)
from torch2fpga.lower.attention import attention

__all__ = ["seeded"]

BLOCK = {"linear": 12, "attention": 2, "add": 4, "layer_norm": 5}
BERT = {**BLOCK, "linear": 13, "activation": 3, "embed": 1, "select_row": 1}
GPT2 = {**BLOCK, "linear": 13, "activation": 2, "embed": 1}
DISTILBERT = {**BLOCK, "activation": 2, "embed": 1}
ENCODER = {**BLOCK, "layer_norm": 4}
LLAMA = {"linear": 15, "attention": 2, "add": 4, "rms_norm": 5, "rotary": 4, "multiply": 2, "embed": 1}
#: what each supported kind of model becomes (two layers)
EXPECTED: dict[str, dict[str, int]] = {
    "mlp2d": {"linear": 2},
    "mlp3d": {"linear": 3, "activation": 2},
    "bert": BERT,
    "bert_eager": BERT,
    "bert_plain": BERT,
    "bert_types": BERT,
    "gpt2": GPT2,
    "gpt2_mask": GPT2,
    "gpt2_eager": GPT2,
    "gpt2_eager_mask": GPT2,
    "opt": {**BLOCK, "linear": 13, "embed": 1},
    "llama": LLAMA,
    "llama_mask": LLAMA,
    "llama_eager": LLAMA,
    "llama_long": LLAMA,
    "llama_body": {**LLAMA, "linear": 14},
    "llama_tied": LLAMA,
    "qwen2": LLAMA,
    "qwen3": {**LLAMA, "rms_norm": 9},
    "mistral": LLAMA,
    "distilbert": DISTILBERT,
    "distilbert_eager": DISTILBERT,
    "encoder": ENCODER,
    "encoder_pre": ENCODER,
    "encoder_gelu": {**ENCODER, "activation": 2},
    "encoder_swapped": ENCODER,
    "encoder_swapped_pre": {**ENCODER, "activation": 2},
}


@pytest.mark.parametrize("name", named(*EXPECTED))
def test_operators_and_values(name: str) -> None:
    model, inputs = build(name)
    assert histogram(lowered(model, inputs)[0].graph) == EXPECTED[name]
    assert float_error(model, inputs) <= 1e-5


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_options(batch_first: bool, norm_first: bool, activation: str) -> None:
    """Batch and tokens of the same size: only attention tells which is which."""
    model = encoder(1, batch_first=batch_first, norm_first=norm_first, activation=activation)
    for sequences, tokens in ((4, 4), (BATCH, SEQ), (1, SEQ)):
        shape = (sequences, tokens, WIDTH) if batch_first else (tokens, sequences, WIDTH)
        module, _ = lowered(model, (rows(*shape),))
        assert module.meta["swapped"] is not batch_first
        assert float_error(model, (rows(*shape),)) <= 1e-5


@pytest.mark.parametrize(
    "batch_first",
    [
        True,
        False,
    ],
)
def test_encoder_on_one_token(batch_first: bool) -> None:
    model = encoder(1, batch_first=batch_first)
    for sequences in (1, 3):
        shape = (sequences, 1, WIDTH) if batch_first else (1, sequences, WIDTH)
        assert float_error(model, (rows(*shape),)) <= 1e-5


@pytest.mark.parametrize("shape", [(3, 10), (BATCH, SEQ, 10), (1, 10), (1, 1, 10)])
def test_mlp_on_rows_with_and_without_batch(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 3))
    assert float_error(model, (rows(*shape),)) <= 1e-5


class _ThreeBad(nn.Module):
    """Three operators that are not supported, each with supported ones behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)
        self.gate, self.wave, self.mix = (Inside(f) for f in (nn.functional.mish, torch.sin, torch.sqrt))
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        a, b, c = self.gate(x), self.wave(x), self.mix(x)
        return self.out(self.norm(a + b) + c)


def test_all_refusals_at_once_and_none_twice() -> None:
    found = refusals(_ThreeBad(), (rows(BATCH, SEQ, WIDTH),))
    assert [(r.path, r.target.split(".")[0]) for r in found] == [
        ("gate.part", "mish"), ("wave.part", "sin"), ("mix.part", "sqrt"),
    ]  # fmt: skip
    error = torch2fpga.UnsupportedModel(found)
    lines = str(error).splitlines()
    assert lines[0] == "3 parts of the model cannot be lowered:" and len(lines) == 4
    assert all(str(r) in line for r, line in zip(found, lines[1:], strict=True))


def test_explain_lists_what_maps() -> None:
    model, inputs = build("encoder")
    found = torch2fpga.explain(model, inputs)
    assert found.ok and not found.refusals and found.layers == (2, "layers")
    paths = {path for _, path, _ in found.mapping}
    assert {"layers.0.self_attn", "layers.1.linear2", "layers.1.norm2"} <= paths
    assert "layers.1.linear2" in str(found) and "2 layers" in str(found)


def test_explain_shows_refusals() -> None:
    text = str(torch2fpga.explain(_ThreeBad().eval(), (rows(BATCH, SEQ, WIDTH),)))
    assert text.startswith("3 refused:") and "gate.part" in text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (rows(WIDTH), "a float input of shape (21,)"),
        (rows(2, 3, 4, WIDTH), "a float input of shape (2, 3, 4, 21)"),
        (rows(2, 3, WIDTH).double(), "torch.float64 input"),
    ],
)
def test_float_inputs(value: Tensor, reason: str) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    (found,) = refusals(Model(), (value,))
    assert reason in str(found)


@pytest.mark.parametrize("shape", [(SEQ,), (2, 3, SEQ)])
def test_integer_inputs(shape: tuple[int, ...]) -> None:
    (found,) = refusals(nn.Sequential(nn.Embedding(9, WIDTH)), (torch.zeros(shape, dtype=torch.int64),))
    assert "an integer input of shape" in str(found)


@pytest.mark.parametrize("output", [lambda x, i: i, lambda x, i: (x, i + 1), lambda x, i: torch.ones(3)])
def test_outputs_that_are_not_the_data(output: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(100, WIDTH)

        def forward(self, i: Tensor) -> Any:
            return output(self.table(i), i)

    (found,) = refusals(Model(), (ids(),))
    assert "does not come from the model's data" in found.reason


@pytest.mark.parametrize("module", [nn.Conv1d(WIDTH, 4, 3), nn.ConvTranspose1d(WIDTH, 4, 3), nn.AvgPool1d(2)])
def test_operators_over_tokens(module: nn.Module) -> None:
    model = Inside(lambda x: module(x.transpose(1, 2)))
    (found,) = refusals(model, (rows(BATCH, SEQ, WIDTH),))
    assert found.path == "part"


class _Grouped(nn.Module):
    """Twice as many heads of queries as of keys and values, which a function repeats."""

    def __init__(self, repeat: Any, **options: Any) -> None:
        super().__init__()
        self.q = nn.Linear(WIDTH, 2 * 7 * HEADS)
        self.k, self.v = nn.Linear(WIDTH, 7 * HEADS), nn.Linear(WIDTH, 7 * HEADS)
        self.repeat, self.options = repeat, options

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).reshape(*x.shape[:2], -1, 7).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, self.repeat(k), self.repeat(v), **self.options)
        return y.transpose(1, 2).reshape(*x.shape[:2], -1)


def _repeat(k: Tensor) -> Tensor:
    """As transformers' ``repeat_kv``: every head twice, one after the other."""
    return k[:, :, None].expand(-1, -1, 2, -1, -1).reshape(k.shape[0], -1, *k.shape[2:])


@pytest.mark.parametrize(
    ("repeat", "options"), [(_repeat, {}), (lambda k: k, {"enable_gqa": True})], ids=["repeated", "grouped"]
)
def test_grouped_heads_are_kept_once(repeat: Any, options: Any) -> None:
    model, inputs = _Grouped(repeat, **options), (rows(BATCH, SEQ, WIDTH),)
    module, _ = lowered(model, inputs)
    (node,) = [n for n in module.graph.nodes if n.target is attention]
    assert (node.kwargs["heads"], node.kwargs["kv_groups"]) == (2 * HEADS, 2)
    assert float_error(model, inputs) <= 1e-5


@pytest.mark.parametrize(
    "repeat",
    [
        lambda k: k[:, None].expand(-1, 2, -1, -1, -1).reshape(k.shape[0], -1, *k.shape[2:]),
        lambda k: torch.cat((k, k), 1),
    ],
    ids=["heads by turns", "joined"],
)
def test_heads_that_are_shared_otherwise_are_refused(repeat: Any) -> None:
    assert refusals(_Grouped(repeat), (rows(BATCH, SEQ, WIDTH),))


def test_a_repetition_is_refused_where_it_is_not_attention() -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    twice = Inside(lambda x: x.unsqueeze(1).expand(BATCH, 4, SEQ, WIDTH))
    (found,) = refusals(twice, inputs)
    assert "a repetition of the model's data" in found.reason
    used = Inside(lambda x: torch.nn.functional.layer_norm(twice.part(x).transpose(1, 2), (WIDTH,)))
    assert refusals(used, inputs)


def test_attention_over_heads_is_refused() -> None:
    """The transpose before attention is missing: it would attend over heads."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            heads = [f(x).reshape(*x.shape[:2], HEADS, -1) for f in (self.q, self.k, self.v)]
            return nn.functional.scaled_dot_product_attention(*heads).reshape(x.shape)

    for shape in ((BATCH, SEQ, WIDTH), (BATCH, HEADS, WIDTH)):
        assert refusals(Model(), (rows(*shape),))
