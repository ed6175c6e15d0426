# SPDX-License-Identifier: Apache-2.0
"""Packed projects: byte for byte those that are compiled with their weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import torch2fpga
from tests.cli.program import run
from tests.weights.samples import (
    LENGTH,
    TOKENS,
    content,
    example,
    pretrained,
    rows,
    save_folder,
    settings,
)
from torch2fpga.emit.project import load_images
from torch2fpga.errors import CompileError, WeightsError
from torch2fpga.plan.outline import Prompt
from torch2fpga.weights import store

pytest.importorskip("transformers")
pytestmark = pytest.mark.hf
GENERATE: dict[str, Any] = {"generate": True, "max_length": LENGTH}
#: kind, precision, options, shards, type of the weights, names in the checkpoint
CASES: list[tuple[str, str, dict[str, Any], int, torch.dtype, Callable[[str], str]]] = [
    ("gpt2", "w8a8", GENERATE, 0, torch.float32, str),
    ("llama", "w4a8", {**GENERATE, "checksums": True}, 3, torch.bfloat16, str),
    ("llama_tied", "w8a8", GENERATE, 3, torch.float32, lambda name: name.removeprefix("model.")),
    ("gpt2", "w4a8", {"tile": 2, "budget": 0.5}, 3, torch.bfloat16, str),
    ("bert", "w8a8", {"plan": "simple", "objective": "throughput"}, 0, torch.float16, str),
]


@pytest.fixture(autouse=True)
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models have small constants."""
    monkeypatch.setattr(store, "LEAST_BYTES", 0)


def calibration(case: int) -> list[dict[str, Any]]:
    kind, _, options = CASES[case][:3]
    return rows(kind, LENGTH if options.get("generate") else TOKENS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A folder with the model ``m`` and the project ``p`` of a case; not to be changed."""

    @cache
    def made(case: int) -> Path:
        kind, precision, options, shards, dtype, rename = CASES[case]
        base = tmp_path_factory.mktemp(f"case{case}")
        save_folder(base / "m", kind, shards, dtype, rename)
        torch2fpga.emit_outline(
            base / "m" / "config.json", base / "p", TOKENS, precision=precision, **options
        )
        return base

    return made


@pytest.fixture
def copy(place: Callable[[int], Path], tmp_path: Path) -> Callable[[int], Path]:
    """The same, to be changed."""

    def made(case: int) -> Path:
        return Path(shutil.copytree(place(case), tmp_path / "copy"))

    return made


def compiled(case: int, folder: Path) -> Any:
    """The model as transformers loads it, compiled in memory."""
    kind, precision, options = CASES[case][:3]
    whole = pretrained(folder)
    whole = whole if options.get("generate") or kind == "bert" else Prompt(whole).eval()
    given = rows(kind)[0] if kind == "bert" else example()
    return torch2fpga.compile(whole, given, precision=precision, calibration=calibration(case), **options)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_a_packed_project_is_the_compiled_one(case: int, copy: Callable[[int], Path], tmp_path: Path) -> None:
    base, seen = copy(case), []
    before = content(base / "p")
    tools = base / "p" / "build" / "hw" / "kernel.xo"
    tools.parent.mkdir(parents=True)
    tools.write_text("hours of work")
    files = torch2fpga.pack(base / "p", base / "m", calibration(case), progress=lambda *s: seen.append(s))
    assert tools.read_text() == "hours of work"
    shutil.rmtree(base / "p" / "build")
    compiled(case, base / "m").write(tmp_path / "c")
    got, want = content(base / "p"), content(tmp_path / "c")
    assert got.keys() == want.keys()
    assert [path for path in got if got[path] != want[path]] == []
    assert {path for path in before if before[path] != got[path]} == {"README.md", "manifest.json"}
    assert {f.relative_to(base / "p").as_posix() for f in files} <= set(got)
    assert load_images(base / "p")
    phases, fractions = zip(*seen, strict=True)
    assert list(fractions) == sorted(fractions) and fractions[-1] == 1
    shards = max(1, CASES[case][3])
    for part in (f"shard {shards} of {shards}: ", "calibration", "weights of ", "image of "):
        assert any(phase.startswith(part) for phase in phases), part
    assert list((base / "p.work").glob("*.safetensors"))


def test_nothing_is_packed_twice(place: Callable[[int], Path], copy: Callable[[int], Path]) -> None:
    base = copy(0)
    torch2fpga.pack(base / "p", base / "m", calibration(0), work=base / "w")
    with pytest.raises(WeightsError, match="has its weights already"):
        torch2fpga.pack(base / "p", base / "m", calibration(0))
    with pytest.raises(WeightsError, match="is no torch2fpga project"):
        torch2fpga.pack(base / "m", base / "m")


def test_an_interrupted_run_goes_on(copy: Callable[[int], Path], tmp_path: Path) -> None:
    """Stopped among the images: what is there is still a project without weights, and packs."""
    base = copy(1)
    whole = Path(shutil.copytree(base / "p", base / "whole"))
    torch2fpga.pack(whole, base / "m", calibration(1))

    def stop(phase: str, _: float) -> None:
        if phase.startswith("image of lane_1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torch2fpga.pack(base / "p", base / "m", calibration(1), progress=stop)
    assert list((base / "p" / "weights").iterdir())
    with pytest.raises(WeightsError, match="has no weights yet"):
        load_images(base / "p")
    phases: list[str] = []
    torch2fpga.pack(base / "p", base / "m", calibration(1), progress=lambda what, _: phases.append(what))
    assert not [p for p in phases if p.startswith("weights of ") or p.endswith("as float32")]
    assert content(base / "p") == content(whole)


def test_another_model_is_refused(copy: Callable[[int], Path]) -> None:
    base = copy(0)
    other = {**settings("gpt2"), "layer_norm_epsilon": 1e-3, "n_layer": 2}
    (base / "m" / "config.json").write_text(json.dumps(other))
    with pytest.raises(CompileError) as error:
        torch2fpga.pack(base / "p", base / "m", calibration(0))
    for part in ("layer_norm_epsilon is 0.001, not 1e-05", "n_layer is 2, not 3"):
        assert part in str(error.value)
    assert not (base / "p.work").exists()


def test_other_kernels_are_refused(copy: Callable[[int], Path]) -> None:
    base = copy(0)
    kernels = sorted((base / "p" / "kernels").glob("*.cpp"))
    kernels[0].write_text(kernels[0].read_text() + "// by hand\n")
    kernels[1].unlink()
    (base / "p" / "kernels" / "more.cpp").write_text("")
    before = content(base / "p")
    with pytest.raises(CompileError) as error:
        torch2fpga.pack(base / "p", base / "m", calibration(0))
    for part in (f"kernels/{kernels[0].name}", f"kernels/{kernels[1].name}", "kernels/more.cpp (too many)"):
        assert part in str(error.value)
    assert content(base / "p") == before


def test_wrong_weights_are_refused_before_anything_is_computed(copy: Callable[[int], Path]) -> None:
    base = copy(1)
    shard = sorted((base / "m").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(WeightsError, match=rf"the shard {shard.name} is missing"):
        torch2fpga.pack(base / "p", base / "m", calibration(1))


def test_the_command_line(copy: Callable[[int], Path], tmp_path: Path) -> None:
    """Sentences in the model's own tokens: what ``torch2fpga compile`` of the folder writes."""
    import transformers

    base = copy(4)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sleeps", "barks", "."]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    tokenizer.save_pretrained(base / "m")
    text = base / "text.txt"
    text.write_text("a cat sleeps.\na dog barks.\n" * 4)
    result = run("pack", base / "p", "--model", base / "m", "--calibration", text, "--work", base / "w")
    assert result.exit_code == 0, result.output
    assert f"files in {base / 'p'}" in result.stdout and "not synthesised" in result.stdout
    assert list((base / "w").glob("*.safetensors")) and not (base / "p.work").exists()
    again = run(
        "compile", base / "m", "--seq", TOKENS, "--calibration", text, "--plan", "simple",
        "--objective", "throughput", "--out", tmp_path / "c",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert content(base / "p") == content(tmp_path / "c")
    result = run("pack", base / "p", "--model", base / "m")
    assert result.exit_code == 1 and "has its weights already" in result.stderr
    result = run("pack", base / "p")
    assert result.exit_code == 2 and "--model" in result.stderr
