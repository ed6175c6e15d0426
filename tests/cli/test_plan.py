# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga plan``, and plans that other verbs are given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import torch2fpga
from tests.cli.program import run
from torch2fpga.cli.wishes import Objective
from torch2fpga.plan.plan import OBJECTIVES, Array, load_plan


def test_objectives_are_the_planners() -> None:
    assert tuple(Objective) == OBJECTIVES


def test_a_saved_plan_can_be_edited_and_given_back(tmp_path: Path) -> None:
    first = tmp_path / "new" / "first.toml"
    result = run("plan", "examples.encoder:factory", "--tile", 2, "--clock", 225, "--save-plan", first)
    assert result.exit_code == 0, result.output
    assert "AMD Alveo U280, 225 MHz, best latency" in result.stdout and "tiles of 2 rows" in result.stdout
    assert f"written to {first}" in result.stdout
    plan = load_plan(first)
    assert (plan.clock_mhz, plan.tile, plan.board) == (225, 2, "u280")
    name = next(n for n, a in plan.arrays.items() if a.weights)
    wanted = Array(1, 4, "resident", 1)
    edited = replace(plan, arrays={**plan.arrays, name: wanted}, slr={}).save(tmp_path / "edited.toml")
    result = run(
        "compile", "examples.encoder:factory", "--plan", edited, "--clock", 200, "--out", tmp_path / "p",
        "--save", tmp_path / "s", "--save-plan", tmp_path / "last.toml", "--checksums",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not synthesised" in result.stdout and "SLR0-SLR1: " in result.stdout
    last = load_plan(tmp_path / "last.toml")
    assert last == torch2fpga.load(tmp_path / "s").origin.plan
    assert (last.arrays[name], last.tile, last.clock_mhz) == (wanted, 2, 200)  # an option goes first
    assert last.checksums and not plan.checksums
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest["checksums"]["port"] in {port["argument"] for port in manifest["ports"]}
    refused = run("plan", tmp_path / "s", "--checksums")
    assert (refused.exit_code, "--checksums can no longer" in refused.stderr) == (1, True)
    assert str(torch2fpga.load(tmp_path / "s").plan) in result.stdout


def test_plan_of_a_saved_model(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "plan.json"
    result = run("plan", saved, "--json", out)
    assert result.exit_code == 0, result.output
    report = torch2fpga.load(saved).plan
    assert result.stdout.startswith(str(report))
    assert json.loads(out.read_text()) == report.to_json()


def test_the_simple_plan_and_a_share_of_the_card(tmp_path: Path) -> None:
    made = {name: tmp_path / name for name in ("simple", "small")}
    run("plan", "examples.encoder:factory", "--plan", "simple", "--save-plan", made["simple"])
    result = run(
        "plan", "examples.encoder:factory", "--budget", 0.5, "--objective", "throughput", "--board", "u55c",
        "--save-plan", made["small"],
    )  # fmt: skip
    assert "AMD Alveo U55C, 250 MHz, best throughput, 50% of the caps" in result.stdout
    simple, small = (load_plan(path) for path in made.values())
    assert {a.copies for a in simple.arrays.values()} == {1} and not simple.ways
    assert (small.board, small.objective, small.budget) == ("u55c", "throughput", 0.5)


def test_names_of_modules_stay_out_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the user's: TOML and the terminal's markup would read them."""
    names = ["]", "x = 1 #", "[bold]b[/bold]", "größe"]
    (tmp_path / "named_model.py").write_text(
        "import collections, torch\n"
        "def factory():\n"
        f"    named = collections.OrderedDict((name, torch.nn.Linear(9, 9)) for name in {names})\n"
        "    return torch.nn.Sequential(named), (torch.ones(2, 3, 9),)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    result = run("compile", "named_model:factory", "--save-plan", "plan.toml", "--save", "saved")
    assert result.exit_code == 0, result.output
    plan = torch2fpga.load(tmp_path / "saved").origin.plan
    assert plan is not None and load_plan(tmp_path / "plan.toml") == plan
    stages = [*plan.arrays, *plan.ways, *plan.slr]
    assert len(plan.arrays) == len(names) and all(name.isascii() and name.isidentifier() for name in stages)


@pytest.mark.parametrize(
    ("text", "arguments", "status", "message"),
    [
        ("budgt = 1.0", [], 1, "plan.toml: the plan has the unknown key 'budgt'"),
        ("tile = ", [], 1, "plan.toml: cannot be read as a plan"),
        ("board = 'u9000'", [], 1, "unknown board 'u9000'"),
        ("[arrays.nothing]\ncopies = 2", [], 1, "names nothing; there are"),
        ("tile = 2", ["--tile", 65], 2, "--tile"),
        ("tile = 2", ["--budget", 1.5], 2, "--budget"),
        ("tile = 2", ["--clock", 5], 2, "--clock"),
        ("tile = 2", ["--objective", "beauty"], 2, "--objective"),
        ("tile = 2", ["--plan", "missing.toml"], 2, "there is no file 'missing.toml'"),
        ("tile = 2", ["--board", "u9000"], 1, "unknown board 'u9000'"),
    ],
)
@pytest.mark.parametrize("verb", ["compile", "plan"])
def test_wrong_plans(
    verb: str, text: str, arguments: list[object], status: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.toml").write_text(text + "\n")
    result = run(verb, "examples.mlp:factory", "--plan", tmp_path / "plan.toml", *arguments)
    assert result.exit_code == status, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_compiled_model_has_no_other_plan(saved: Path) -> None:
    for verb in ("plan", "time"):
        result = run(verb, saved, "--plan", "simple", "--budget", 0.5)
        assert result.exit_code == 1
        assert "--plan, --budget can no longer be chosen" in result.stderr


@pytest.mark.gxx
def test_every_verb_that_runs_takes_a_plan(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text("tile = 2\nclock_mhz = 225\n")
    out, page = tmp_path / "run.json", tmp_path / "page.html"
    result = run(
        "time", "examples.mlp:factory", "--plan", plan, "--no-spread", "--no-interval", "--json", out
    )
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["clock_mhz"] == 225  # the plan's, not the card's
    assert run("verify", "examples.mlp:factory", "--plan", plan).exit_code == 0
    assert run("report", "examples.mlp:factory", "--plan", plan, "--out", page).exit_code == 0
    assert "225 MHz" in page.read_text()


def test_a_configuration_without_weights(tmp_path: Path) -> None:
    """The plan of what `torch2fpga.outline` makes of it; options that need weights are refused."""
    settings = {
        "model_type": "gpt2", "n_layer": 3, "n_embd": 24, "n_head": 3, "vocab_size": 50, "n_positions": 20,
    }  # fmt: skip
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings))
    for model in (file, tmp_path):
        result = run("plan", model, "--seq", 7, "--plan", "simple", "--json", tmp_path / "plan.json")
        assert result.exit_code == 0, result.output
        assert str(torch2fpga.outline(file, tokens=7, plan="simple")) in result.stdout
        assert "has no weights (*.safetensors): planned from its configuration" in result.stderr
        assert json.loads((tmp_path / "plan.json").read_text())["seq"] == 7
    result = run("plan", file, "--calibration", file)
    assert result.exit_code == 1 and "has no weights, which --calibration would need" in result.output
    result = run("plan", file, "--seq", 21)
    assert result.exit_code == 1 and "20 positions; 21 tokens are more" in result.output
    other = tmp_path / "notes.json"
    other.write_text("[]")
    result = run("plan", other)
    assert result.exit_code == 2 and "expected an object" in result.output
