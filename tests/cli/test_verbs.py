# SPDX-License-Identifier: Apache-2.0
"""Help, and the verbs that compile: compile, explain, verify, report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import torch2fpga
from tests.cli.program import run
from torch2fpga import cli


def test_help_answers_without_loading_torch() -> None:
    code = "import sys, torch2fpga.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("verb", ["compile", "explain", "verify", "report", "plan", "time"])
def test_help_shows_an_example_of_each_verb(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: torch2fpga {verb} " in result.stdout


def test_help_and_version() -> None:
    assert "torch2fpga explain ./all-MiniLM-L6-v2" in run("--help").stdout
    assert run("--version").stdout == f"torch2fpga {torch2fpga.__version__}\n"


def test_compile_writes_project_and_saved_model(tmp_path: Path) -> None:
    result = run("compile", "examples.mlp:factory", "--out", tmp_path / "a b" / "p", "--save", tmp_path / "s")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a b" / "p" / "link.cfg").is_file()
    assert torch2fpga.load(tmp_path / "s").design.name == "perceptron"
    assert "not synthesised and not run on a card" in result.stdout
    assert "warning: calibrated on no inputs" in result.stderr
    assert ".py" not in result.stderr


@pytest.mark.gxx
def test_compile_cuts_fifos(tmp_path: Path) -> None:
    plain = tiny_sizes(tmp_path / "plain")
    result = run(
        "compile", "examples.mlp:factory", "--shrink-fifos", "--fifo-loss", 0.02,
        "--out", tmp_path / "p", "--save", tmp_path / "s",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    streams = torch2fpga.load(tmp_path / "s").design.streams
    new = {name: s.depth for name, s in streams.items() if not s.link}
    assert new.keys() <= plain.keys()
    assert all(new[n] <= plain[n] for n in new) and sum(new.values()) < sum(plain[n] for n in new)
    text = "".join(path.read_text() for path in (tmp_path / "p" / "kernels").glob("*.cpp"))
    for name, depth in new.items():
        assert f", {depth}> {name}(" in text, name
    for title in ("whole tensors", "computed", "after timed runs"):
        assert title in result.stdout
    assert "at most 0.02 of the cycles lost" in result.stdout and "cycles of a launch" in result.stdout


def tiny_sizes(path: Path) -> dict[str, int]:
    """FIFO depths of the example without timed runs."""
    assert run("compile", "examples.mlp:factory", "--out", path, "--save", path / "saved").exit_code == 0
    return {name: s.depth for name, s in torch2fpga.load(path / "saved").design.streams.items()}


def test_explain_maps_every_part() -> None:
    result = run("explain", "examples.mlp:factory")
    assert result.exit_code == 0
    assert "layers.4" in result.stdout and "activation" in result.stdout


def test_explain_lists_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refused_model.py").write_text(
        "import torch\n"
        "def factory():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softplus()), (torch.ones(2, 4),)\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run("explain", "refused_model:factory")
    assert result.exit_code == 1
    assert "softplus" in result.stdout
    result = run("compile", "refused_model:factory")
    assert result.exit_code == 1
    assert "error:" in result.stderr and "softplus" in result.stderr
    assert not (tmp_path / "build" / "refused_model").exists()


@pytest.mark.gxx
def test_verify_compares_every_stage() -> None:
    result = run("verify", "examples.mlp:factory")
    assert result.exit_code == 0, result.output
    assert "1 of 1 inputs bit-exact at every stage" in result.stdout


def test_verify_stops_at_the_first_input_that_is_not_exact(capsys: pytest.CaptureFixture[str]) -> None:
    reports = iter(
        [SimpleNamespace(bit_exact=True, cosine=0.9), SimpleNamespace(bit_exact=False, cosine=None)]
    )
    calls: list[Any] = []

    def verify(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return next(reports)

    assert cli.compiling._verify(SimpleNamespace(verify=verify), [(1,), {"x": 2}, (3,)]) == 1
    assert calls == [((1,), {}), ((), {"x": 2})]
    assert "1 of 3 inputs bit-exact" in capsys.readouterr().out


def test_report_writes_a_page(tmp_path: Path) -> None:
    result = run("report", "examples.mlp:factory", "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").read_text().lstrip().lower().startswith("<!doctype html>")
