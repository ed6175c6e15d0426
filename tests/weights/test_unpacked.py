# SPDX-License-Identifier: Apache-2.0
"""Projects without weights: their files are those of the project with weights, and say what is to come."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import torch2fpga
from tests.cli.program import run
from tests.weights.samples import LENGTH, TOKENS, content, example, model, rows, settings
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import load_images, project_files
from torch2fpga.errors import CompileError, WeightsError
from torch2fpga.plan.outline import Prompt
from torch2fpga.weights.unpacked import Settings, unpacked

pytest.importorskip("transformers")
pytestmark = pytest.mark.hf

#: files that say what weights say
OTHER = {"README.md", "manifest.json"}
#: folders and files that come with the weights
LATER = {"weights", "golden", "tb", "host", "emulation", "SHA256SUMS"}
GENERATE = {"generate": True, "max_length": LENGTH}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("gpt2", "w8a8", GENERATE),
    ("gpt2", "w4a8", {"plan": "simple", "tile": 2}),
    ("llama", "w4a8", GENERATE),
    ("llama_tied", "w8a8", GENERATE),
    ("bert", "w8a8", {"objective": "throughput", "budget": 0.5}),
]


def compiled(kind: str, precision: str, options: dict[str, Any]) -> Any:
    """The model with its weights, compiled as a configuration is."""
    whole, text = model(kind), bool(options.get("generate"))
    given = rows(kind)[0] if kind == "bert" else example()
    whole = whole if text or kind == "bert" else Prompt(whole).eval()
    return torch2fpga.compile(
        whole, given, precision=precision, calibration=rows(kind, LENGTH if text else TOKENS), **options
    )


@cache
def pair(case: int) -> tuple[dict[str, str], dict[str, str]]:
    """Files without weights, and texts with them."""
    kind, precision, options = CASES[case]
    made = unpacked(settings(kind), TOKENS, precision=precision, **options)
    return made.files(), project_files(compiled(kind, precision, options))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_every_file_is_that_of_the_model(case: int) -> None:
    got, want = pair(case)
    assert {path.partition("/")[0] for path in set(want) - set(got)} <= LATER
    assert set(got) <= set(want)
    assert [path for path in got if got[path] != want[path]] == sorted(OTHER)
    assert any(path.startswith("kernels/") and path.endswith(".cpp") for path in got)


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """A manifest without some entries, and without what ports and outputs get from weights."""
    left = {name: value for name, value in data.items() if name not in names}
    left["ports"] = [{**port, "sha256": None} for port in left["ports"]]
    left["outputs"] = [{**item, "scale": None} for item in left["outputs"]]
    if "generation" in left:
        left["generation"] = {**left["generation"], "logits_scale": None}
    return left


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_manifest_lacks_only_what_weights_say(case: int) -> None:
    kind, precision, options = CASES[case]
    got, want = (json.loads(files["manifest.json"]) for files in pair(case))
    assert (got["packed"], want["packed"]) == (False, True)
    assert all(port["sha256"] is None for port in got["ports"])
    assert all(item["scale"] is None for item in got["outputs"])
    assert got.get("generation", {}).get("logits_scale") is None
    assert without(got, "packed", "outline") == without(want, "packed", "golden")
    assert got["outline"]["config"]["model_type"] == settings(kind)["model_type"]
    assert (got["outline"]["tokens"], got["outline"]["precision"]) == (TOKENS, precision)
    again = Settings.of(got, "here")
    assert again.wanted().objective == options.get("objective", "latency")


@pytest.mark.needs("clang")
def test_the_checker_finds_nothing() -> None:
    assert check_project(pair(0)[0], include_dirs=[]) == []


def test_the_project_is_written_whole(tmp_path: Path) -> None:
    phases: list[str] = []
    report = torch2fpga.emit_outline(
        settings("gpt2"), tmp_path / "a", TOKENS, **GENERATE, progress=lambda name, _: phases.append(name)
    )
    assert str(report) == str(torch2fpga.outline(settings("gpt2"), TOKENS, **GENERATE))
    assert phases[0] == "capture" and phases[-1] == "done"
    torch2fpga.emit_outline(settings("gpt2"), tmp_path / "b", TOKENS, **GENERATE)
    files = content(tmp_path / "a")
    assert files == content(tmp_path / "b")
    assert not {path.partition("/")[0] for path in files} & (LATER - {"emulation"})
    assert not [path for path in files if path.endswith(".xclbin")]
    text = files["README.md"].decode()
    assert "torch2fpga pack . --model" in text and "bytes to come in `weights/`" in text
    with pytest.raises(WeightsError, match="has no weights yet: torch2fpga pack puts them in"):
        load_images(tmp_path / "a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("kept")
    with pytest.raises(CompileError, match="holds no project of torch2fpga"):
        torch2fpga.emit_outline(settings("gpt2"), tmp_path / "other", TOKENS)


@pytest.mark.gxx
def test_the_kernels_build(tmp_path: Path) -> None:
    """What a project without weights is for: its C++ compiles."""
    unpacked(settings("gpt2"), TOKENS, precision="w4a8", plan="simple").write(tmp_path / "p")
    command = ["make", "-C", str(tmp_path / "p"), "-j2", "CXXFLAGS=-O0", "functional"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "p" / "build" / "functional").glob("lib*.so"))


def test_settings_that_are_damaged() -> None:
    data = json.loads(pair(1)[0]["manifest.json"])
    del data["outline"]["tokens"]
    data["outline"] |= {"batch": "1", "simple": 1, "more": 2}
    with pytest.raises(WeightsError) as error:
        Settings.of(data, "the manifest")
    for part in ("tokens is missing", "more is unknown", "batch is str, expected int", "simple is int"):
        assert part in str(error.value)
    with pytest.raises(WeightsError, match="does not say what the project was made from"):
        Settings.of({}, "the manifest")


def test_the_command_line(tmp_path: Path) -> None:
    file, out = tmp_path / "config.json", tmp_path / "new" / "project"
    file.write_text(json.dumps(settings("gpt2")))
    result = run("plan", file, "--seq", TOKENS, "--generate", "--max-length", LENGTH, "--write", out)
    assert result.exit_code == 0, result.output
    assert f"written to {out}" in result.stdout
    torch2fpga.emit_outline(settings("gpt2"), tmp_path / "same", TOKENS, **GENERATE)
    assert content(out) == content(tmp_path / "same")
    result = run("plan", "examples.mlp:factory", "--write", out)
    assert result.exit_code == 1 and "is no configuration, and --write is for those" in result.stderr
    result = run("plan", file, "--max-length", 9)
    assert result.exit_code == 1 and "--max-length is for --generate" in result.stderr
