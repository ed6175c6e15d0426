# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga time``: what it writes and shows, and how a run can end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import torch2fpga
from tests.cli.program import run


@pytest.mark.gxx
def test_time_of_a_saved_model(saved: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / "new" / f"{kind}.out" for kind in ("json", "trace")}
    page = tmp_path / "page.html"
    result = run(
        "time", saved, "--seq", 3, "--clock", 200, "--limit", 4, "--json", files["json"],
        "--trace", files["trace"], "--report", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads(files["json"].read_text())
    assert (data["basis"], data["batch"], data["seq"], data["clock_mhz"]) == ("timed", 2, 3, 200)
    assert data["half_depth"] < data["cycles"] < data["double_depth"] and data["interval"] > 0
    assert f"{data['cycles']:,}" in result.stdout and f"{data['interval']:,}" in result.stdout
    assert (
        "2 x 3 rows" in result.stdout and "timed: the emitted C++ under a clock of 200 MHz" in result.stdout
    )
    assert f"{len(data['stages']) - 4} more stages" in result.stdout
    assert json.loads(files["trace"].read_text())["otherData"]["cycles"] == data["cycles"]
    assert f"{data['cycles']:,} cycles" in page.read_text()
    again = run("time", saved, "--seq", 3, "--clock", 200, "--no-spread", "--no-interval")
    assert f"{data['cycles']:,}" in again.stdout and "steady interval" not in again.stdout


@pytest.mark.gxx
def test_time_of_a_factory(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    result = run("time", "examples.mlp:factory", "--seq", 5, "--no-spread", "--no-interval", "--json", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert (data["batch"], data["seq"], data["half_depth"], data["interval"]) == (1, 5, None, None)


@pytest.mark.hf
@pytest.mark.gxx
def test_time_of_a_directory_compiles_for_the_size(directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    result = run("time", directory, "--seq", 6, "--batch", 2, "--no-spread", "--no-interval", "--json", out)
    assert result.exit_code == 0, result.output
    data = json.loads(out.read_text())
    assert (data["batch"], data["seq"]) == (2, 6)


@pytest.mark.gxx
def test_time_shows_a_deadlock(saved: Path, tmp_path: Path) -> None:
    streams = torch2fpga.load(saved).design.streams.values()
    short = [word for s in streams if s.depth > 4 for word in ("--fifo", f"{s.name}=4")]
    result = run("time", saved, *short, "--trace", tmp_path / "t.json")
    assert result.exit_code == 1, result.output
    assert "deadlock; every blocked process:" in result.stdout and "wait cycle:" in result.stdout
    assert "Traceback" not in result.output and "busiest stage" not in result.stdout
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


@pytest.mark.gxx
def test_time_gives_up_at_the_limit(saved: Path) -> None:
    result = run("time", saved, "--cycle-limit", 20, "--no-spread", "--no-interval")
    assert result.exit_code == 1
    assert "cycle limit of 20" in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--fifo", "norm1_wid=3"], 1, "there is no stream norm1_wid; did you mean norm1_wide"),
        (["--fifo", "norm1_wide"], 2, "NAME=DEPTH"),
        (["--fifo", "norm1_wide=0"], 2, "depth of at least 1"),
        (["--seq", "6"], 1, "compiled for at most 2 x 5"),
        (["--batch", "3"], 1, "compiled for at most 2 x 5"),
        (["--board", "u55c", "--precision", "w8a8"], 1, "--board, --precision can no longer be chosen"),
        (["--limit", "0"], 2, "--limit"),
        (["--clock", "0"], 2, "--clock"),
        (["--json", "setup.cfg/x.json"], 1, "setup.cfg"),
    ],
)
def test_wrong_usage_of_time(arguments: list[str], status: int, message: str, saved: Path) -> None:
    result = run("time", saved, *arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
