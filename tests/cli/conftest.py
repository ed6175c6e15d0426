# SPDX-License-Identifier: Apache-2.0
"""Models as a user has them, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tests.tiny import cxx_cache

__all__ = ["cxx_cache"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factories are found from the working directory, as a user's are."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory with weights and a tokenizer, as a user has it."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "dog", "sleeps", "barks", "."]
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=24, intermediate_size=40, num_attention_heads=3,
        num_hidden_layers=2, max_position_embeddings=20,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model as `compile --save` leaves it."""
    return tiny.compiled("encoder").save(tmp_path_factory.mktemp("saved") / "encoder")
