# SPDX-License-Identifier: Apache-2.0
"""The command line: its verbs on real (tiny) models, and every way in which a user can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import torch2fpga
from tests import tiny
from tests.tiny import cxx_cache
from torch2fpga import cli, hub
from torch2fpga.cli.wishes import Objective
from torch2fpga.plan.plan import OBJECTIVES, Array, load_plan

__all__ = ["cxx_cache"]

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factories are found from the working directory, as a user's are."""
    monkeypatch.chdir(ROOT)


def run(*arguments: object) -> Result:
    """One call of the program; its output is in one piece and not wrapped."""
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "500"})


@pytest.fixture(scope="module")
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


def copied(directory: Path, target: Path, **changes: object) -> Path:
    """A copy of a model's directory with other settings."""
    target.mkdir()
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    settings = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**settings, **changes}))
    return target


# -- help ------------------------------------------------------------------------------------------


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


# -- verbs -----------------------------------------------------------------------------------------


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


# -- time ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled model as `compile --save` leaves it."""
    return tiny.compiled("encoder").save(tmp_path_factory.mktemp("saved") / "encoder")


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


# -- plan ------------------------------------------------------------------------------------------


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
        "--save", tmp_path / "s", "--save-plan", tmp_path / "last.toml",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not synthesised" in result.stdout and "SLR0-SLR1: " in result.stdout
    last = load_plan(tmp_path / "last.toml")
    assert last == torch2fpga.load(tmp_path / "s").origin.plan
    assert (last.arrays[name], last.tile, last.clock_mhz) == (wanted, 2, 200)  # an option goes first
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


# -- Hugging Face directories ----------------------------------------------------------------------


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


# -- usage -----------------------------------------------------------------------------------------


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


@pytest.mark.hf
def test_limits_of_a_directory(directory: Path) -> None:
    result = run("explain", directory, "--seq", 21)
    assert (result.exit_code, "20 positions" in result.stderr) == (1, True)
    result = run("explain", directory, "--inputs", "pixels")
    assert (result.exit_code, "unknown inputs pixels" in result.stderr) == (2, True)


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
