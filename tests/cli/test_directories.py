# SPDX-License-Identifier: Apache-2.0
"""Hugging Face directories: what they hold decides, and broken ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import torch2fpga
from tests.cli.program import run
from torch2fpga import hub

SENTENCES = [
    "the cat sleeps",
    "a dog barks",
    "the dog sleeps",
    "a cat",
    "dog",
    "cat barks",
    "the the",
    "a dog",
    "cat",
]


def copied(directory: Path, target: Path, **changes: object) -> Path:
    """A copy of a model's directory with other settings."""
    target.mkdir()
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    settings = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**settings, **changes}))
    return target


@pytest.mark.hf
def test_a_directory_with_sentences(directory: Path, tmp_path: Path) -> None:
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("\n".join([*SENTENCES, "", "the cat sleeps . " * 9]))
    result = run("compile", directory, "--seq", 9, "--calibration", sentences, "--out", tmp_path / "project")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    assert "up to 1 x 9 rows" in result.stdout
    assert "one block of hardware serves 2 layers" in result.stdout


@pytest.mark.hf
def test_example_inputs_of_a_directory(directory: Path) -> None:
    loaded = hub.load_model(str(directory), seq=7, batch=3)
    assert {k: tuple(v.shape) for k, v in loaded.example.items()} == {  # type: ignore[union-attr]
        "input_ids": (3, 7),
        "attention_mask": (3, 7),
    }
    assert not loaded.model.training
    rows = loaded.encode(["the cat", "the " * 30])
    assert [tuple(row["input_ids"].shape) for row in rows] == [(1, 4), (1, 7)]
    chosen = hub.load_model(str(directory), inputs=["input_ids"])
    assert list(chosen.example) == ["input_ids"]
    assert chosen.example["input_ids"].shape == (1, 20)  # type: ignore[call-overload]


@pytest.mark.hf
def test_a_causal_model_takes_no_mask(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=12, n_head=3, n_layer=1, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    loaded = hub.load_model(str(tmp_path))
    assert type(loaded.model).__name__ == "GPT2LMHeadModel"
    assert list(loaded.example) == ["input_ids"]
    with pytest.raises(torch2fpga.InputError, match="no tokenizer"):
        loaded.encode(["a"])


def only_pickles(directory: Path, target: Path) -> Path:
    path = copied(directory, target)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    return path


def truncated(directory: Path, target: Path) -> Path:
    path = copied(directory, target)
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return path


def without(directory: Path, target: Path, name: str) -> Path:
    path = copied(directory, target)
    (path / name).unlink()
    return path


def not_json(directory: Path, target: Path) -> Path:
    path = copied(directory, target)
    (path / "config.json").write_text("{'architectures'")
    return path


BROKEN = {
    "pickle": (only_pickles, "is a pickle"),
    "truncated": (truncated, "cannot load"),
    "no weights": (lambda d, t: without(d, t, "model.safetensors"), "has no weights"),
    "no config": (lambda d, t: without(d, t, "config.json"), "no config.json"),
    "not json": (not_json, "is not JSON"),
    "own code": (lambda d, t: copied(d, t, auto_map={"AutoModel": "evil.Model"}), "never runs code"),
    "unknown": (lambda d, t: copied(d, t, architectures=["NoSuchModel"]), "does not have"),
    "no model": (lambda d, t: copied(d, t, architectures=["pipeline"]), "does not have"),
    "odd name": (lambda d, t: copied(d, t, architectures=["a.b()"]), "does not have"),
    "not a list": (lambda d, t: copied(d, t, architectures="BertModel"), "not a list"),
    "other head": (lambda d, t: copied(d, t, architectures=["BertForMaskedLM"]), "They would be random"),
    "other shape": (lambda d, t: copied(d, t, intermediate_size=56), "has another shape"),
}


@pytest.mark.hf
@pytest.mark.parametrize("name", BROKEN)
def test_broken_directories_are_refused(name: str, directory: Path, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    result = run("explain", make(directory, tmp_path / "model"))
    assert result.exit_code in (1, 2), result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.hf
def test_limits_of_a_directory(directory: Path) -> None:
    result = run("explain", directory, "--seq", 21)
    assert (result.exit_code, "20 positions" in result.stderr) == (1, True)
    result = run("explain", directory, "--inputs", "pixels")
    assert (result.exit_code, "unknown inputs pixels" in result.stderr) == (2, True)
