# SPDX-License-Identifier: Apache-2.0
"""Every way in which a user can be wrong ends with a line, not a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

import torch2fpga
from tests.cli.program import run
from torch2fpga import cli, hub


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compile"], 2, "Missing argument"),
        (["compile", "nonsense"], 2, "neither a directory"),
        (["compile", "setup.cfg"], 2, "is a file"),
        (["compile", "examples"], 2, "no config.json"),
        (["compile", "[bold]x[/bold]"], 2, "'[bold]x[/bold]'"),
        (["compile", "os; rm -rf x:y"], 2, "neither a directory"),
        (["compile", "examples.nope:factory"], 2, "no module examples.nope"),
        (["compile", "examples.mlp:nothing"], 2, "no function nothing"),
        (["compile", "os.path:getcwd"], 2, "no function getcwd"),
        (["compile", "os:getcwd"], 2, "expected (model, example inputs)"),
        (["compile", "examples.mlp:factory", "--seq", "4"], 2, "decides its inputs"),
        (["compile", "examples.mlp:factory", "--seq", "0"], 2, "--seq"),
        (["compile", "examples.mlp:factory", "--calibration", "missing.txt"], 2, "missing.txt"),
        (["compile", "examples.mlp:factory", "--calibration", "setup.cfg"], 1, "no tokenizer"),
        (["compile", "examples.mlp:factory", "--fifo-loss", "0.02"], 2, "only --shrink-fifos"),
        (["compile", "examples.mlp:factory", "--shrink-fifos", "--fifo-loss", "1"], 2, "--fifo-loss"),
        (["compile", "examples.mlp:factory", "--board", "u9000"], 1, "u9000"),
        (["compile", "examples.mlp:factory", "--precision", "w1a1"], 1, "w1a1"),
        (["compile", "examples.mlp:factory", "--out", "setup.cfg"], 1, "setup.cfg"),
        (["report", "examples.mlp:factory", "--out", "setup.cfg/page.html"], 1, "setup.cfg"),
        (["verify", "examples.mlp:factory", "--sentences", "examples"], 2, "directory"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("data", "message"), [(b"\n \n", "no sentences"), (b"\xff\xfe\x00", "not UTF-8")])
def test_files_without_sentences(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_bytes(data)
    with pytest.raises(torch2fpga.InputError, match=message):
        cli.read_sentences(path)


def test_a_module_that_misses_a_package_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        hub.load_model("needs_more:factory")
