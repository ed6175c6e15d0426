# SPDX-License-Identifier: Apache-2.0
"""Whole models: every stage of the emitted C++ equals the reference bit for bit, close to float."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import (
    HF,
    HIDDEN,
    LONG,
    WIDTH,
    WORDS,
    Inputs,
    bert,
    build,
    calibration,
    compile_model,
    compiled,
    cxx_cache,
    exact,
    gpt2,
    named,
    padding,
    rows,
    run,
    same,
    seeded,
    tensors_of,
)

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.gxx
#: model, lanes, tile; models that share sources (eager and sdpa attention) share a build
CASES = [
    ("mlp2d", 8, 1),
    ("mlp2d", 16, 4),
    ("mlp3d", 8, 4),
    ("mlp3d", 16, 2),
    ("bert", 8, 4),
    ("bert_eager", 8, 4),
    ("bert", 16, 3),
    ("bert_plain", 16, 1),
    ("bert_types", 8, 2),
    ("gpt2_mask", 8, 4),
    ("gpt2_eager_mask", 8, 4),
    ("gpt2", 16, 1),
    ("gpt2_eager", 16, 1),
    ("distilbert", 8, 3),
    ("distilbert", 16, 4),
    ("encoder", 8, 4),
    ("encoder_gelu", 16, 2),
    ("encoder_pre", 16, 4),
    ("encoder_swapped_pre", 8, 1),
]
PARAMETERS = [pytest.param(*case, marks=pytest.mark.hf if case[0] in HF else ()) for case in CASES]


@pytest.mark.parametrize(("name", "lanes", "tile"), PARAMETERS)
def test_bit_exact_and_close_to_float(name: str, lanes: int, tile: int) -> None:
    """Measured over all of them: cosine at least 0.99995, largest error 1.1 % of the largest value."""
    model, inputs = build(name)
    made = compiled(name, lanes, tile)
    exact(made, inputs, cosine=0.9999)
    got, want = run(made, inputs), run(model, inputs)
    assert type(got) is type(want)
    assert same(got, run(made.reference, inputs))
    for g, w in zip(tensors_of(got), tensors_of(want), strict=True):
        assert g.shape == w.shape and g.dtype == torch.float32
        assert float((g - w).detach().abs().max()) <= 0.02 * float(w.detach().abs().max())


def _cut(inputs: Inputs, batch: slice, seq: int) -> dict[str, Tensor]:
    assert isinstance(inputs, dict)
    return {k: v[batch, :seq] for k, v in inputs.items()}


@pytest.mark.parametrize("name", named("bert_long", "gpt2_long"))
@pytest.mark.parametrize(("batch", "seq"), [(1, 1), (2, 1), (1, 4), (2, 8), (2, 11), (1, LONG)])
def test_shorter_inputs_are_exact(name: str, batch: int, seq: int) -> None:
    made, (_, inputs) = compiled(name), build(name)
    exact(made, _cut(inputs, slice(0, batch), seq), cosine=0.999)


@pytest.mark.parametrize("name", named("bert_long", "gpt2_long"))
def test_batch_of_two_equals_two_single_runs(name: str) -> None:
    made, (_, inputs) = compiled(name), build(name)
    both = tensors_of(run(made, inputs))
    for b in range(2):
        alone = tensors_of(run(made, _cut(inputs, slice(b, b + 1), LONG)))
        assert all(torch.equal(x[b : b + 1], y) for x, y in zip(both, alone, strict=True))


@pytest.mark.hf
@pytest.mark.parametrize("length", [1, 3, 4, 8, 9, 18])
def test_padding_changes_nothing(length: int) -> None:
    """The real rows of a padded sequence equal the sequence alone, whatever the padding holds."""
    made, (_, inputs) = compiled("bert_long"), build("bert_long")
    assert isinstance(inputs, dict)
    ones = torch.ones(2, length, dtype=torch.int64)
    alone = made(input_ids=inputs["input_ids"][:, :length], attention_mask=ones)
    mask = torch.zeros(2, LONG, dtype=torch.int64)
    mask[:, :length] = 1
    for fill in (0, WORDS - 1):
        padded_ids = inputs["input_ids"].masked_fill(mask == 0, fill)
        padded = made(input_ids=padded_ids, attention_mask=mask)
        assert torch.equal(padded.last_hidden_state[:, :length], alone.last_hidden_state)
        assert torch.equal(padded.pooler_output, alone.pooler_output)


@pytest.mark.hf
@pytest.mark.parametrize("length", [1, 3, 4, 8, 9, 18])
def test_causal_prefix(length: int) -> None:
    """The first tokens do not depend on later ones: a prefill can be split anywhere."""
    made, (_, inputs) = compiled("gpt2_long"), build("gpt2_long")
    assert isinstance(inputs, dict)
    whole = made(**inputs).logits
    assert torch.equal(made(input_ids=inputs["input_ids"][:, :length]).logits, whole[:, :length])
    changed = inputs["input_ids"].clone()
    changed[:, length:] = (changed[:, length:] + 1) % WORDS
    assert torch.equal(made(input_ids=changed).logits[:, :length], whole[:, :length])
    assert not torch.equal(made(input_ids=changed).logits, whole)


@pytest.mark.hf
def test_rows_that_see_nothing() -> None:
    """A sequence of padding only: exact, finite, and no effect on the other sequence."""
    made, (_, inputs) = compiled("bert_long"), build("bert_long")
    mask = padding(seq=LONG)
    mask[1] = 0
    empty = {**inputs, "attention_mask": mask}
    exact(made, empty, cosine=None)
    a, b = run(made, empty), run(made, inputs)
    assert torch.equal(a.last_hidden_state[0], b.last_hidden_state[0])
    assert bool(torch.isfinite(a.last_hidden_state).all())


@pytest.mark.parametrize("name", ["encoder", "encoder_pre"])
@pytest.mark.parametrize("kind", ["zeros", "large", "outlier", "constant"])
def test_inputs_far_from_calibration(name: str, kind: str) -> None:
    """Saturation is not an error: still bit for bit the reference."""
    x = rows(2, 5, WIDTH)
    if kind == "zeros":
        x.zero_()
    elif kind == "large":
        x *= 1e4
    elif kind == "outlier":
        x[..., 3] = 3000
    else:
        x.fill_(1.0)
    exact(compiled(name, *((8, 4) if name == "encoder" else (16, 4))), (x,), cosine=None)


@pytest.mark.hf
def test_gpt2_with_planted_outliers() -> None:
    """A few channels of the residual 3,000 times the others, as real pre-norm models have them."""
    model, inputs = build("gpt2_mask")
    with torch.no_grad():
        model.transformer.wte.weight[:, [2, 9, 20]] *= 3000  # the head is tied to it
    assert model.lm_head.weight is model.transformer.wte.weight
    exact(compile_model(model, inputs), inputs, cosine=0.999)


@pytest.mark.hf
def test_layers_that_differ_are_right() -> None:
    """One layer with GELU, one with ReLU: not rolled as if they were the same."""
    from transformers.activations import ACT2FN

    model, inputs = build("bert")
    model.encoder.layer[1].intermediate.intermediate_act_fn = ACT2FN["relu"]
    made = compile_model(model, inputs)
    assert made.design.steps == 1
    exact(made, inputs, cosine=0.999)


def _wide(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    return compile_model(model, inputs, lanes=16, calibration=calibration(inputs))


@pytest.mark.hf
@pytest.mark.slow
def test_two_layers_of_bert_base() -> None:
    """Real width: 768 channels, 12 heads, 3,072 inside, 30,522 words, 16 tokens."""
    from transformers import BertConfig

    sizes = BertConfig().to_dict()
    assert (sizes["hidden_size"], sizes["num_attention_heads"], sizes["intermediate_size"]) == (768, 12, 3072)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = bert(
            2,
            **{
                k: sizes[k] for k in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")
            },
        )
    inputs = {"input_ids": torch.arange(16)[None] * 1907 % 30522, "attention_mask": padding(1, 16)}
    exact(_wide(model.eval(), inputs), inputs, cosine=0.999)


@pytest.mark.hf
@pytest.mark.slow
def test_two_layers_of_gpt2() -> None:
    """Real width and the whole vocabulary: 768 channels, 12 heads, a head of 50,257 words."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gpt2(2, vocab_size=50257, n_embd=768, n_head=12, n_positions=1024)
    inputs = {"input_ids": torch.arange(8)[None] * 6283 % 50257}
    made = _wide(model.eval(), inputs)
    assert made.design.stage("lm_head").template == "matmul_streamed"
    exact(made, inputs, cosine=0.999)


def test_sizes_of_the_tiny_models() -> None:
    """The names above promise dimensions that no lane width divides."""
    assert WIDTH % 8 and HIDDEN % 16 and LONG % 8


class _FirstRow(nn.Module):
    """One row of every sequence through repeated layers: kernels with one-row stages only."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 13)
        self.layers = nn.ModuleList([nn.Linear(13, 13) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)[:, 0]
        for layer in self.layers:
            y = y + torch.relu(layer(y))
        return y


def test_kernels_of_one_row_stages() -> None:
    inputs = (rows(2, 5, WIDTH),)
    exact(compile_model(_FirstRow().eval(), inputs), inputs)
