# SPDX-License-Identifier: Apache-2.0
"""The verb that generates text, and what ``verify --generate`` does.

Standard output has the text and nothing else; progress and notes go to standard error.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from torch2fpga.cli.common import (
    NOT_PROVEN,
    Calibration,
    MaxLength,
    Seq,
    app,
    compile_loaded,
    err,
    load,
    out,
    phases,
    saved_model,
    typed_errors,
    writable,
)
from torch2fpga.cli.wishes import Budget, Checksums, Goal, PlanBoard, PlanClock, PlanFile, Tile, Wishes
from torch2fpga.timing import options

if TYPE_CHECKING:
    from torch import Tensor

    from torch2fpga.compiled import CompiledModel

#: new tokens where nobody says how many
NEW_TOKENS = 64
#: what a run here says about a card
FUNCTIONAL = "functional run of the emitted C++: the values of the card, not its speed"
#: tokens of each launch where a text is verified: several launches, one of several tokens
SPLITS = (1, 2, 5)

HELP = """Generate text with MODEL: compile it, run its emitted C++, and print tokens as they come.

MODEL is a Hugging Face directory of a causal language model, package.module:factory, or a folder that
`compile --generate --save` wrote (then nothing is compiled again). With a tokenizer (that of the directory,
or --tokenizer) give --prompt and read text; without one give --ids and read ids.

Keys and values are cached, and the next token is chosen and fed back, in the emitted C++: a launch generates
many tokens. Its tokens are those of the card; its speed is not: [bold]no time printed here is a card's[/].

[bold]The length compiled for[/] is that of --max-length, with the prompt. A prompt of more tokens than --seq
goes in by several launches. Change neither between calls and g++ runs once.

[bold]Without --sample[/] the largest logit is taken. With it, one of the --top-k largest is drawn; the same
--seed gives the same text.

[bold]Standard output[/] has the prompt and what follows, nothing else; all else goes to standard error.

docs/generation.md says what happens in a launch, and what is not there yet."""

EPILOG = (
    'Example: torch2fpga generate examples/speaker --prompt "def __init__(self" --max-new-tokens 40\n\n'
    "Example: torch2fpga generate ./gpt2 --prompt Once --sample --top-k 20 --temperature 0.8 --seed 7\n\n"
    "Example: torch2fpga generate build/saved --ids 464,3290 --ignore-eos --json build/text.json"
)


def _numbers(text: str | None) -> list[int] | None:
    """Token ids of ``1,2,3``."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not of the form 1,2,3") from None


Prompt = Annotated[
    str | None, typer.Option(help="Text to go on from (needs a tokenizer).", show_default=False)
]
Ids = Annotated[
    str | None,
    typer.Option(help="Token ids to go on from, such as 1,2,3; ids are printed then.", show_default=False),
]
Tokenizer = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        show_default=False,
        help="Hugging Face directory with a tokenizer, where MODEL has none.",
    ),
]
NewTokens = Annotated[
    int | None,
    typer.Option(min=1, help=f"Most new tokens (default {NEW_TOKENS}, or what fits).", show_default=False),
]
Sample = Annotated[
    bool, typer.Option("--sample", help="Draw the next token instead of taking the likeliest.")
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="Draw from that many largest logits (default 50).", show_default=False),
]
Temperature = Annotated[
    float | None,
    typer.Option(help="Logits are divided by it before a draw (default 1).", show_default=False),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the draws (default 0).", show_default=False)]
Eos = Annotated[
    str | None,
    typer.Option(
        help="Ids of tokens that end the text, such as 0,5 (default: the model's configuration's, else the "
        "tokenizer's).",
        show_default=False,
    ),
]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Let no token end the text.")]
Echo = Annotated[bool, typer.Option("--echo/--no-echo", help="Print the prompt before what follows.")]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write prompt, ids, text, launches and seconds here.", show_default=False),
]


@dataclass(frozen=True)
class Asked:
    """What is to be generated.

    Attributes:
        prompt, ids: one of them.
        drawing: arguments of ``generate``, empty where nothing is drawn.
        ends: tokens that end the text; None where nothing was said.
    """

    prompt: str | None
    ids: list[int] | None
    new: int | None
    drawing: dict[str, Any]
    ends: list[int] | None

    def encoded(self, tokenizer: Any) -> Tensor:
        """(1, tokens) of the prompt.

        Raises:
            InputError: a text without a tokenizer.
        """
        import torch

        from torch2fpga.errors import InputError

        if self.ids is not None:
            return torch.tensor([self.ids])
        if tokenizer is None:
            raise InputError("there is no tokenizer for --prompt: give --tokenizer DIR, or --ids")
        ids: Tensor = tokenizer(self.prompt, return_tensors="pt")["input_ids"]
        return ids

    def count(self, prompt: int, length: int) -> int:
        """New tokens behind a prompt, where a text may have ``length`` tokens.

        Raises:
            InputError: if that is too many.
        """
        from torch2fpga.errors import InputError

        room = length - prompt + 1  # the last token is not read again
        if room < (self.new or 1):
            raise InputError(
                f"{prompt} tokens of prompt and {self.new or 1} new: a text may have {length} tokens and one "
                "behind them (--max-length, where the model has more positions)"
            )
        return self.new or min(NEW_TOKENS, room)


class Printer:
    """Prints tokens as they come: what ``generate`` takes as ``streamer``.

    With a tokenizer the whole text is decoded anew, since a token may be a part of a character and may change
    how the one before it is written; what is not yet a whole character waits.
    """

    def __init__(self, tokenizer: Any, echo: bool) -> None:
        self.tokenizer = tokenizer
        self.echo = echo
        self.ids: list[int] = []
        self._done = 0
        self._prompt: int | None = None

    def put(self, value: Tensor) -> None:
        """The prompt, and then each new token."""
        self.ids += value.reshape(-1).tolist()
        text = self.text()
        if self._prompt is None:
            self._prompt = len(text)
            self._done = 0 if self.echo else len(text)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._print(text)

    def end(self) -> None:
        """All that waited, and a line break."""
        self._print(self.text())
        typer.echo()

    def text(self) -> str:
        """Prompt and what followed so far; ids, with commas between them, where there is no tokenizer."""
        if self.tokenizer is None:
            return ",".join(map(str, self.ids))
        return str(
            self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def new_text(self) -> str:
        """What followed on the prompt."""
        return self.text()[self._prompt or 0 :]

    def _print(self, text: str) -> None:
        part = text[self._done :]
        if self.tokenizer is None and self._done == self._prompt and not self.echo:
            part = part.removeprefix(",")
        typer.echo(part, nl=False)
        self._done = max(self._done, len(text))


def _ends(asked: Asked, model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end the text: what was said, else what model or tokenizer say."""
    if asked.ends is not None:
        return asked.ends
    places = (getattr(model, "generation_config", None), getattr(model, "config", None), tokenizer)
    for place in places:
        found = getattr(place, "eos_token_id", None)
        if found is not None:
            return list(found) if isinstance(found, Iterable) else [int(found)]
    return []


def _run(
    compiled: CompiledModel, asked: Asked, ends: list[int], tokenizer: Any, echo: bool
) -> dict[str, Any]:
    """Generate and print; what ``--json`` writes."""
    from torch2fpga.runtime.generation import follow, request

    ids = asked.encoded(tokenizer)
    count = asked.count(int(ids.shape[1]), compiled.design.shape.keys) if compiled.design.turns else 1
    wanted = request(compiled, ids, max_new_tokens=count, eos_token_id=ends or None, **asked.drawing)
    with err.status("compiling the C++"):
        _ = compiled.functional
    printer = Printer(tokenizer, echo)
    began = time.perf_counter()
    whole, session = follow(compiled, wanted, printer)
    seconds = time.perf_counter() - began
    new = whole[0, ids.shape[1] :].tolist()
    launches = f"{len(session.launches)} launch{'es' if len(session.launches) > 1 else ''}"
    note = f"{len(new)} tokens in {launches}, {seconds:.1f} s; {FUNCTIONAL}"
    err.print(note, markup=False, highlight=False, soft_wrap=True)
    return {
        "prompt": asked.prompt,
        "prompt_ids": ids[0].tolist(),
        "ids": new,
        "text": printer.new_text() if tokenizer is not None else None,
        "ended": "eos" if new[-1] in ends else "length",
        "drawing": asked.drawing or None,
        "launches": len(session.launches),
        "seconds": seconds,
        "run": FUNCTIONAL,
    }


def _asked(
    prompt: str | None,
    ids: str | None,
    new: int | None,
    drawing: tuple[bool, dict[str, Any]],
    ends: tuple[str | None, bool],
) -> Asked:
    """What was asked for.

    Raises:
        typer.BadParameter: options that do not go together.
    """
    if (prompt is None) == (ids is None):
        raise typer.BadParameter("give either --prompt or --ids", param_hint="--prompt")
    sample, given = drawing
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen and not sample:
        name = next(iter(chosen)).replace("_", "-")
        raise typer.BadParameter("only --sample draws", param_hint=f"--{name}")
    eos, ignored = ends
    if eos is not None and ignored:
        raise typer.BadParameter("--ignore-eos says the contrary", param_hint="--eos")
    return Asked(
        prompt,
        _numbers(ids),
        new,
        {"do_sample": True, **chosen} if sample else {},
        [] if ignored else _numbers(eos),
    )


@app.command("generate", help=re.sub(r"(?<!\n)\n(?!\n)", " ", HELP), epilog=EPILOG)
def generate_command(
    model: options.Saved,
    prompt: Prompt = None,
    ids: Ids = None,
    tokenizer: Tokenizer = None,
    max_new_tokens: NewTokens = None,
    sample: Sample = False,
    top_k: TopK = None,
    temperature: Temperature = None,
    seed: Seed = None,
    eos: Eos = None,
    ignore_eos: IgnoreEos = False,
    echo: Echo = True,
    json_file: JsonFile = None,
    max_length: MaxLength = None,
    seq: Seq = None,
    board: PlanBoard = None,
    precision: options.RunPrecision = None,
    plan: PlanFile = None,
    objective: Goal = None,
    budget: Budget = None,
    clock: PlanClock = None,
    tile: Tile = None,
    checksums: Checksums = False,
    calibration: Calibration = None,
) -> None:
    """See ``HELP``."""
    draws = {"top_k": top_k, "temperature": temperature, "seed": seed}
    asked = _asked(prompt, ids, max_new_tokens, (sample, draws), (eos, ignore_eos))
    with typed_errors():
        from torch2fpga.hub import tokenizer_at

        target = writable(json_file) if json_file is not None else None
        words = tokenizer_at(tokenizer) if tokenizer is not None else None
        wishes = Wishes(plan, board, objective, budget, clock, tile, checksums)
        choices = {"seq": seq, "max-length": max_length, "calibration": calibration, "clock": clock}
        compiled = saved_model(model, {**choices, "precision": precision, **wishes.options()})
        source: Any = None
        if compiled is None:
            loaded = load(model, seq, None, None, max_length)
            source = loaded.model
            words = words if words is not None else loaded.tokenizer
            _check_length(asked, loaded, max_length, words)
            text = {"generate": True, "max_length": max_length}
            compiled = compile_loaded(loaded, wishes, precision or "w8a8", calibration, text)
        # Ids in, ids out, whatever tokenizer there is.
        words, ends = (None if asked.prompt is None else words), _ends(asked, source, words)
        found = {"model": model, **_run(compiled, asked, ends, words, echo)}
        if target is not None:
            target.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_length(asked: Asked, loaded: Any, max_length: int | None, tokenizer: Any) -> None:
    """Refuse what does not fit before anything is compiled."""
    from torch2fpga.decoding import decoding

    length = decoding(loaded.model, loaded.example, max_length).length
    asked.count(int(asked.encoded(tokenizer).shape[1]), length)


def _splits(room: int) -> list[int]:
    """Tokens of each launch of a text that is verified, ``room`` at most."""
    found: list[int] = []
    for tokens in SPLITS:
        left = room - sum(found)
        found += [min(tokens, left)] if left else []
    return found


def verify_texts(compiled: Any, rows: Sequence[Any]) -> int:
    """Generate behind each input, greedily and by a draw, and compare every stream of every launch.

    Ends with the first input that is not exact; returns how many were.
    """
    from torch2fpga.runtime.generation import Sampling, verify_generation

    exact, reports = 0, []
    with phases(err) as progress:
        for number, row in enumerate(rows):
            progress("g++ and first run" if number == 0 else f"input {number + 1}", number / len(rows))
            (ids,) = row.values() if isinstance(row, dict) else row
            splits = _splits(compiled.design.shape.keys - ids.shape[1] + 1)
            draws = (Sampling(), Sampling(top_k=16, seed=number))
            reports = [verify_generation(compiled, ids, splits, draw) for draw in draws]
            if not all(report.bit_exact for report in reports):
                break
            exact += 1
    for name, report in zip(("greedy", "drawn"), reports, strict=True):
        out.print(f"{name}: {escape(str(report))}", highlight=False, soft_wrap=True)
    text = f"{exact} of {len(rows)} texts bit-exact at every stage of every launch; {NOT_PROVEN}"
    out.print(text, highlight=False, soft_wrap=True)
    return exact
