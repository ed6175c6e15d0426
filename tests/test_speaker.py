# SPDX-License-Identifier: Apache-2.0
"""The small GPT-2: its corpus, the 5-gram model that it has to beat, training, and the committed weights."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from examples import speaker
from examples.speaker import corpus
from examples.speaker.corpus import Document
from examples.speaker.ngram import NGram
from torch2fpga.hub import LoadedModel

pytestmark = pytest.mark.hf

TEXTS = [b"the cat sat on the mat\n", b"a cat and a hat", b"", b"\xff\x00\xff\x00\xff"]


# -- 5-grams --------------------------------------------------------------------------------------


def witten_bell(texts: list[bytes], context: tuple[int, ...], byte: int) -> float:
    """p of a byte behind a context by the definition, with nothing but loops."""
    smaller = 1 / 256 if not context else witten_bell(texts, context[1:], byte)
    if not context:
        followers = Counter(b for text in texts for b in text)
    else:
        n, followers = len(context), Counter()
        for text in texts:
            padded = (256,) * n + tuple(text)
            for at in range(n, len(padded)):
                if padded[at - n : at] == context:
                    followers[padded[at]] += 1
    total, types = sum(followers.values()), len(followers)
    return (followers[byte] + types * smaller) / (total + types) if total else smaller


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("text", [b"the hat", b"cat\xff\x00\xffz", b""])
def test_ngrams_follow_the_definition(order: int, text: bytes) -> None:
    padded = (256,) * (order - 1) + tuple(text)
    expected = [
        witten_bell(TEXTS, padded[at : at + order - 1], padded[at + order - 1]) for at in range(len(text))
    ]
    assert NGram(TEXTS, order).probabilities(text).tolist() == pytest.approx(expected, rel=1e-12)


def test_probabilities_of_all_bytes_sum_to_one() -> None:
    grams = NGram(TEXTS, 5)
    for context in (b"", b"the ", b"zzzz", b"he cat s", b"\xff\x00"):
        assert sum(grams.probabilities(context + bytes([b]))[-1] for b in range(256)) == pytest.approx(1.0)


def test_bits_per_byte_is_a_mean_over_bytes_not_over_texts() -> None:
    grams, texts = NGram(TEXTS, 3), [b"a cat", b"the"]
    bits = -np.log2(np.concatenate([grams.probabilities(text) for text in texts])).sum()
    assert grams.bits_per_byte(texts) == pytest.approx(float(bits) / 8)
    # nothing learnt: eight bits each
    assert NGram([], 5).bits_per_byte(texts) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="order of 8"):
        NGram(TEXTS, 8)


# -- corpus ---------------------------------------------------------------------------------------


@cache
def everything() -> list[Document]:
    """The running Python's corpus."""
    return corpus.documents()


def test_the_split_is_by_document_and_always_the_same() -> None:
    train_on, judge_on = corpus.split(everything())
    assert corpus.sha256(corpus.documents()) == corpus.sha256(everything())
    assert sorted(d.name for d in (*train_on, *judge_on)) == sorted(d.name for d in everything())
    assert not {d.name for d in train_on} & {d.name for d in judge_on}
    assert 0.05 < len(judge_on) / len(everything()) < 0.16
    # of the name alone, so the same on every machine
    for name, held_out in (("pydoc_data/topics.py#truth", True), ("operator.py", True), ("abc.py", False)):
        assert Document(name, "any text").held_out is held_out, name


def test_prose_comes_first_and_then_the_library_in_order() -> None:
    names = [d.name for d in everything()]
    prose = [name for name in names if "#" in name]
    assert len(prose) > 50 and names[: len(prose)] == sorted(prose)
    code = names[len(prose) :]
    assert len(code) > 200 and code == sorted(code) and len(set(names)) == len(names)


def test_tests_tables_and_what_depends_on_the_machine_stay_out(tmp_path: Path) -> None:
    kept = ("a.py", "b/c.py")
    out = ("test/a.py", "b/tests/a.py", "site-packages/x/y.py", "encodings/a.py", "_sysconfigdata_x.py",
           "config-3.11-x/a.py", "empty.py", "b/latin.py", "text.txt")  # fmt: skip
    for name in (*kept, *out):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in name else b"# \xe9\n" if "latin" in name else b"x = 1\r\ny = 2\n")
    found = list(corpus.modules(tmp_path))
    assert [d.name for d in found] == list(kept)
    assert found[0].text == "x = 1\ny = 2\n"


def test_an_excerpt_keeps_to_its_size_and_licence(tmp_path: Path) -> None:
    texts = [Document(f"m{i}.py", f"é{i}\n" * 40) for i in range(6)]
    texts += [Document("t#1", "prose\u2028\x0c\n" * 9), Document("z.py", "# Copyright Somebody\n")]
    chosen = corpus.excerpt(texts, 300, 101)
    assert [d.name for d in chosen] == ["t#1", "m0.py", "m1.py"]
    assert sum(len(d.data) for d in chosen) <= 300 and len(chosen[1].data) == 100
    corpus.write(tmp_path / "x.jsonl", chosen)
    assert corpus.read(tmp_path / "x.jsonl") == chosen


# -- windows and figures ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 31])
def test_every_token_counts_once_with_half_a_context_before_it(length: int) -> None:
    counted: list[int] = []
    for window, first in speaker.scored_windows(range(length), 8):
        assert len(window) <= 8 and 1 <= first < len(window)
        counted += window[first:]
        assert window[0] == 0 or first >= 4
    assert counted == list(range(1, length))


class Uniform(nn.Module):
    """A model that knows nothing."""

    config = type("Config", (), {"n_positions": 8})()

    def forward(self, input_ids: torch.Tensor) -> Any:
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 2048)})()


def test_bits_per_byte_is_fair_to_tokens_of_several_bytes() -> None:
    tokenizer = speaker.load().tokenizer
    texts = [Document("a", "Return the number of items.\n" * 3), Document("b", "é")]
    tokens = [len(speaker.encode(tokenizer, d.text)) - 1 for d in texts]
    assert tokens[0] < len(texts[0].text) / 2
    # eleven bits a token, none for the separator; 84 bytes and 2 bytes
    expected = 11 * sum(tokens) / 86
    assert speaker.bits_per_byte(Uniform(), tokenizer, texts, batch=3) == pytest.approx(expected)


# -- training ---------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_repeats() -> None:
    from examples.speaker import train

    texts = [Document("a.py", "def add(a, b):\n    return a + b\n\n" * 60)]
    tokenizer = train.fit_tokenizer(texts, 270)
    assert len(tokenizer) == 270 and tokenizer.convert_tokens_to_ids(speaker.SEPARATOR) == 0
    for text in ("é 日本 🙂\r\n\t\x00 def", speaker.load().tokenizer.decode([5, 300])):
        assert tokenizer.decode(speaker.encode(tokenizer, text)[1:]) == text
    stream = train.token_stream(tokenizer, texts)
    settings = train.Settings(270, width=32, layers=2, heads=1, context=16, batch=4, bfloat16=False)
    _, losses = train.train(stream, settings, len(tokenizer), 40)
    _, again = train.train(stream, settings, len(tokenizer), 40)
    assert losses == again
    assert abs(losses[0] - math.log(270)) < 0.3 and sum(losses[-5:]) / 5 < 0.5 * losses[0]
    _, other = train.train(stream, replace(settings, seed=1), len(tokenizer), 2)
    assert other[0] != losses[0]
    with pytest.raises(ValueError, match="less than a batch"):
        next(train.batches(stream[:70], settings))


def test_the_rate_rises_and_falls() -> None:
    from examples.speaker import train

    shares = [train.share_of_rate(step, 200, train.Settings()) for step in range(200)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert all(a >= b for a, b in pairwise(shares[10:]))
    assert shares[-1] == pytest.approx(0.05, abs=1e-3)


# -- the committed weights ----------------------------------------------------------------------------


@cache
def committed() -> LoadedModel:
    return speaker.load()


def test_the_weights_are_small_and_the_class_is_unmodified() -> None:
    import transformers

    model: Any = committed().model
    assert type(model) is transformers.GPT2LMHeadModel and not model.training
    assert (speaker.WEIGHTS / "model.safetensors").stat().st_size <= 6_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert sum(p.numel() for p in model.parameters()) == speaker.record()["parameters"]
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.config.vocab_size == len(committed().tokenizer)
    inputs = speaker.factory()[1]
    assert isinstance(inputs, dict) and inputs["input_ids"].shape == (1, 64)
    suffixes = {path.suffix for path in speaker.WEIGHTS.iterdir()}
    assert suffixes == {".json", ".jsonl", ".md", ".safetensors", ".txt"}


def test_bits_per_byte_is_what_was_recorded_and_beats_the_5gram() -> None:
    recorded = speaker.record()["bits_per_byte"]
    found = speaker.bits_per_byte(committed().model, committed().tokenizer, speaker.held_out())
    assert found == pytest.approx(recorded["excerpt"], abs=1e-3)
    assert found < recorded["excerpt_5gram"] and recorded["held_out"] < recorded["held_out_5gram"]


def test_the_excerpts_are_on_their_sides_of_the_split() -> None:
    judge, calibrate = speaker.held_out(), speaker.calibration()
    assert all(d.held_out for d in judge) and not any(d.held_out for d in calibrate)
    for texts in (judge, calibrate):
        assert 12_000 < sum(len(d.data) for d in texts) <= 32_000
        assert any("#" in d.name for d in texts) and any("#" not in d.name for d in texts)
    rows = speaker.windows(committed().tokenizer, calibrate, 64)
    assert rows.shape[0] >= 64 and rows.shape[1] == 64 and int(rows[0, 0]) == 0


def test_it_speaks() -> None:
    prompt = 'class Queue:\n    """A queue of'
    said = speaker.speak(committed(), prompt, tokens=40)
    assert said == speaker.speak(committed(), prompt, tokens=40)
    sampled = [speaker.speak(committed(), prompt, tokens=40, temperature=0.7, seed=s) for s in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    for text in (said, *sampled):
        assert "\ufffd" not in text and len(text.split()) >= 5
    # no more than the context holds
    assert len(speaker.speak(committed(), "x = 1\n" * 70, tokens=40)) < 40 * 12
