# SPDX-License-Identifier: Apache-2.0
"""The verb generate, and --generate of the other verbs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import torch2fpga
from tests.cli.program import run
from torch2fpga import cli, hub

pytestmark = [pytest.mark.hf, pytest.mark.gxx]

WORDS = [
    "[UNK]", "[END]", "a", "the", "cat", "dog", "and", "sees", "sleeps", "barks", "old", "new", "big", "red",
    "house", "tree", "by", "in", "on", ".",
]  # fmt: skip
PROMPT = "the cat sees"
SIMPLE = ("--plan", "simple", "--tile", 3)


def gpt2() -> Any:
    """Two layers; logits far apart, so that a text does not repeat one word."""
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_embd=24, n_head=3, vocab_size=len(WORDS), n_positions=40, bos_token_id=1, eos_token_id=1
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


@pytest.fixture(scope="module")
def speaks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a causal model with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("models") / "words"
    gpt2().save_pretrained(path)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[END]").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def saved(speaks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same compiled and kept by `compile --generate --save`."""
    folder = tmp_path_factory.mktemp("saved") / "words"
    loaded = hub.load_directory(speaks, seq=6)
    samples = loaded.encode(["the old cat sees a dog", "a big red house by the tree"] * 4)
    compiled = torch2fpga.compile(
        loaded.model, loaded.example, generate=True, max_length=30, calibration=samples, plan="simple", tile=3
    )
    return compiled.save(folder)


def wanted(saved: Path, ids: list[int], count: int, **options: Any) -> list[int]:
    found = torch2fpga.load(saved).generate(torch.tensor([ids]), max_new_tokens=count, **options)
    return [int(t) for t in found[0, len(ids) :]]


def words_of(ids: list[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


# -- generate ---------------------------------------------------------------------------------------


def test_help_teaches() -> None:
    result = run("generate", "--help")
    assert result.exit_code == 0
    for part in (
        "Example: torch2fpga generate examples/speaker",
        "--prompt",
        "docs/generation.md",
        "no time printed here is a card's",
    ):
        assert part in " ".join(result.stdout.split()), part


def test_a_directory_speaks(speaks: Path, tmp_path: Path) -> None:
    report = tmp_path / "made" / "text.json"
    result = run(
        "generate", speaks, "--prompt", PROMPT, "--max-new-tokens", 20, "--ignore-eos", "--seq", 6,
        "--max-length", 30, *SIMPLE, "--json", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["prompt_ids"] == [3, 4, 7] and len(found["ids"]) == 20
    # nothing but the text
    assert result.stdout.split() == words_of([3, 4, 7, *found["ids"]]).replace("[END]", "").split()
    assert found["prompt"] == PROMPT and found["text"].split() == result.stdout.split()[3:]
    assert (found["launches"], found["ended"], found["drawing"]) == (2, "length", None)
    assert found["seconds"] > 0 and "not its speed" in found["run"]
    assert "20 tokens in 2 launches" in result.stderr and "not its speed" in result.stderr
    assert "warning: calibrated on no inputs" in result.stderr


def test_a_saved_model_takes_ids(saved: Path) -> None:
    expected = wanted(saved, [3, 4, 7], 9)
    result = run("generate", saved, "--ids", "3,4,7", "--max-new-tokens", 9)
    assert result.exit_code == 0, result.output
    assert result.stdout == ",".join(map(str, [3, 4, 7, *expected])) + "\n"
    result = run("generate", saved, "--ids", "3,4,7", "--max-new-tokens", 9, "--no-echo")
    assert result.stdout == ",".join(map(str, expected)) + "\n"


def test_a_saved_model_takes_text_with_a_tokenizer(saved: Path, speaks: Path) -> None:
    result = run(
        "generate", saved, "--tokenizer", speaks, "--prompt", PROMPT, "--ignore-eos", "--no-echo", "--sample",
        "--top-k", 9, "--temperature", 2, "--seed", 4, "--max-new-tokens", 12,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    drawn = wanted(saved, [3, 4, 7], 12, do_sample=True, top_k=9, temperature=2.0, seed=4)
    assert drawn != wanted(saved, [3, 4, 7], 12)
    assert result.stdout.split() == words_of(drawn).replace("[END]", "").split()


def test_a_text_ends_where_it_is_told_to(saved: Path, tmp_path: Path) -> None:
    free = wanted(saved, [3, 4, 7], 20)
    last = next(t for t in free if t != free[0])
    ends = free[: free.index(last) + 1]
    report = tmp_path / "text.json"
    result = run("generate", saved, "--ids", "3,4,7", "--eos", f"{last}", "--no-echo", "--json", report)
    assert [int(t) for t in result.stdout.split(",")] == ends, result.output
    assert json.loads(report.read_text())["ended"] == "eos"
    # without a word about how many, all that fits: 30 in the cache and one behind
    result = run("generate", saved, "--ids", "3,4,7", "--no-echo")
    assert len(result.stdout.split(",")) == 28


def test_the_end_is_the_models_own() -> None:
    ends = cli.generating._ends
    nothing = cli.generating.Asked("x", None, None, {}, None)
    tokenizer, model = SimpleNamespace(eos_token_id=9), SimpleNamespace
    generation = SimpleNamespace(eos_token_id=[3, 4])
    assert ends(nothing, model(generation_config=generation, config=SimpleNamespace()), tokenizer) == [3, 4]
    assert ends(nothing, model(config=SimpleNamespace(eos_token_id=5)), tokenizer) == [5]
    assert ends(nothing, None, tokenizer) == [9] and ends(nothing, None, None) == []
    for said in ([], [7]):
        asked = cli.generating.Asked("x", None, None, {}, said)
        assert ends(asked, model(config=SimpleNamespace(eos_token_id=5)), tokenizer) == said


class Bytes:
    """A tokenizer of bytes: most characters are several tokens."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_characters_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    printer = cli.generating.Printer(Bytes(), echo=False)
    printer.put(torch.tensor([list(b"ab")]))
    printed = []
    for byte in "né🙂\udcff".encode("utf-8", "surrogateescape"):
        printer.put(torch.tensor([byte]))
        printed.append(capsys.readouterr().out)
    assert printed == ["n", "", "é", "", "", "", "🙂", ""]
    printer.end()
    # what never became a character comes at the end
    assert capsys.readouterr().out == "\N{REPLACEMENT CHARACTER}\n"
    assert printer.new_text() == "né🙂\N{REPLACEMENT CHARACTER}"


def test_the_example_of_the_help_is_there() -> None:
    """`examples/speaker` keeps model and tokenizer in its folder `weights`."""
    tokenizer = hub.tokenizer_at(Path("examples/speaker"))
    assert tokenizer.decode(tokenizer("def __init__(self")["input_ids"]) == "def __init__(self"
    loaded = hub.load_model("examples/speaker", seq=9)
    assert (loaded.name, tuple(loaded.example["input_ids"].shape)) == ("speaker", (1, 9))  # type: ignore[call-overload]


# -- wrong usage ------------------------------------------------------------------------------------

MLP = ["generate", "examples.mlp:factory", "--ids", "1"]
SPEAKER = ["generate", "examples.speaker:factory"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["generate"], 2, "Missing argument"),
        (["generate", "nonsense", "--ids", "1"], 2, "neither a directory"),
        (SPEAKER, 2, "either --prompt or --ids"),
        ([*SPEAKER, "--ids", "1", "--prompt", "a"], 2, "either --prompt or --ids"),
        ([*SPEAKER, "--ids", "1;2"], 2, "not of the form 1,2,3"),
        ([*SPEAKER, "--ids", "1", "--eos", "end"], 2, "not of the form 1,2,3"),
        ([*SPEAKER, "--ids", "1", "--eos", "2", "--ignore-eos"], 2, "the contrary"),
        ([*SPEAKER, "--ids", "1", "--top-k", "5"], 2, "only --sample draws"),
        ([*SPEAKER, "--ids", "1", "--temperature", "2"], 2, "only --sample draws"),
        ([*SPEAKER, "--ids", "1", "--sample", "--top-k", "65"], 2, "--top-k"),
        ([*SPEAKER, "--ids", "1", "--max-new-tokens", "0"], 2, "--max-new-tokens"),
        ([*SPEAKER, "--ids", "1", "--tokenizer", "docs"], 2, "has no tokenizer"),
        ([*SPEAKER, "--ids", "1", "--seq", "4"], 2, "decides its inputs"),
        ([*SPEAKER, "--prompt", "a"], 1, "there is no tokenizer for --prompt"),
        ([*SPEAKER, "--ids", "1", "--max-length", "257"], 1, "the model has 256 positions"),
        ([*SPEAKER, "--ids", "1", "--max-length", "63"], 1, "the example has 64 tokens"),
        ([*SPEAKER, "--ids", "1", "--max-new-tokens", "257"], 1, "1 tokens of prompt and 257 new"),
        ([*SPEAKER, "--ids", "1", "--json", "setup.cfg/x"], 1, "setup.cfg"),
        (MLP, 1, "no argument logits_to_keep"),
        (["compile", "examples.mlp:factory", "--max-length", "9"], 1, "max_length is for generate=True"),
        (["compile", "examples.mlp:factory", "--generate"], 1, "no argument logits_to_keep"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert message in " ".join(result.stderr.split()) and not result.stdout
    assert "Traceback" not in result.output


def test_a_saved_model_has_no_choice_left(saved: Path, tmp_path: Path) -> None:
    result = run(
        "generate", saved, "--ids", "1", "--max-length", 20, "--seq", 4, "--precision", "w4a8", *SIMPLE
    )
    assert result.exit_code == 1
    assert "--seq, --max-length, --precision, --plan, --tile can no longer be chosen" in result.stderr
    result = run("generate", saved, "--prompt", "a")
    assert (result.exit_code, "give --tokenizer DIR" in result.stderr) == (1, True)
    result = run("generate", saved, "--ids", "1,99", "--sample", "--temperature", 0)
    assert result.exit_code == 1
    assert "expected ids in 0..19; temperature is 0.0" in result.stderr


def test_a_saved_model_that_does_not_generate(tmp_path: Path) -> None:
    assert (
        run("compile", "examples.mlp:factory", "--out", tmp_path / "p", "--save", tmp_path / "s").exit_code
        == 0
    )
    result = run("generate", tmp_path / "s", "--ids", "1")
    assert (result.exit_code, "compiled without generate=True" in result.stderr) == (1, True)


# -- the other verbs --------------------------------------------------------------------------------


def test_verify_compares_every_launch(speaks: Path, tmp_path: Path) -> None:
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("the cat\na dog barks and sleeps\nthe old tree .\n")
    result = run(
        "verify", speaks, "--generate", "--max-length", 30, "--seq", 6, "--sentences", sentences, *SIMPLE
    )
    assert result.exit_code == 0, result.output
    assert "3 of 3 texts bit-exact at every stage of every launch" in result.stdout
    assert (
        "greedy: bit-exact; 8 tokens in 3 launches" in result.stdout and "drawn: bit-exact" in result.stdout
    )


def test_verify_ends_with_1_where_a_bit_differs(speaks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2fpga.runtime.generation import Session

    real = Session.buffers

    def other_bits(self: Session, ids: Any) -> Any:
        found = real(self, ids)
        for name in self._caches:
            found[name][:4096] = 9
        return found

    monkeypatch.setattr(Session, "buffers", other_bits)
    result = run("verify", speaks, "--generate", "--max-length", 30, "--seq", 6, *SIMPLE)
    assert result.exit_code == 1, result.output
    assert "NOT bit-exact" in result.stdout and "0 of 1 texts bit-exact" in result.stdout


def test_texts_are_verified_in_launches_that_fit() -> None:
    splits = cli.generating._splits
    assert [splits(room) for room in (1, 2, 3, 4, 8, 99)] == [
        [1],
        [1, 1],
        [1, 2],
        [1, 2, 1],
        [1, 2, 5],
        [1, 2, 5],
    ]


def test_plan_of_a_model_that_generates(speaks: Path, saved: Path) -> None:
    result = run("plan", speaks, "--generate", "--max-length", 5, *SIMPLE)
    assert result.exit_code == 0, result.output
    assert "1 x 5 rows" in result.stdout  # 128 where no length is asked for
    assert result.stdout != run("plan", speaks, "--seq", 5, *SIMPLE).stdout
    result = run("plan", saved, "--generate", "--max-length", 9)
    assert (result.exit_code, "--generate, --max-length can no longer" in result.stderr) == (1, True)
    # a configuration is enough to plan it, but not to calibrate it
    config = speaks / "config.json"
    result = run("plan", config, "--generate", "--seq", 4, "--max-length", 5)
    assert (result.exit_code, "1 x 4 rows" in result.stdout) == (0, True), result.output
    result = run("plan", config, "--generate", "--calibration", config)
    assert (result.exit_code, "no weights, which --calibration would need" in result.stderr) == (1, True)
