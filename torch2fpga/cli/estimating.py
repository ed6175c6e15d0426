# SPDX-License-Identifier: Apache-2.0
"""The verb that estimates: from a configuration alone, without weights and without compiling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from torch2fpga.cli.common import Board, app, err, out, typed_errors, writable

Spec = Annotated[
    str,
    typer.Argument(
        metavar="MODEL_OR_CONFIG",
        help="A config.json, the Hugging Face directory that has one (no weights are needed, nothing is "
        "downloaded), or package.module:factory.",
        show_default=False,
    ),
]
Formats = Annotated[str, typer.Option(help="Number formats: w8a8, w4a8 or w4a4.")]
Prompt = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of the prompt (default 128 or what the model has).", show_default=False),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens whose keys and values are kept (default 1024 or what the model has).",
        show_default=False,
    ),
]
Batch = Annotated[int, typer.Option(min=1, help="Sequences at a time.")]
Clock = Annotated[
    float | None,
    typer.Option(min=1.0, help="Kernel clock in MHz (default the card's planned one).", show_default=False),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.", show_default=False)]


@app.command(
    "estimate",
    epilog="Example: torch2fpga estimate Llama-2-7b/config.json --precision w4a8 --context 2048 (rows: what "
    "has to be stored, whether it fits, the prompt within each budget of multipliers, tokens a second; each "
    "says what binds)",
)
def estimate_command(
    model: Spec,
    board: Board = "u280",
    precision: Formats = "w8a8",
    prompt: Prompt = None,
    context: Context = None,
    batch: Batch = 1,
    clock: Clock = None,
    json_file: JsonFile = None,
) -> None:
    """Say whether MODEL_OR_CONFIG would fit a card, how fast it could be, and what binds; no weights needed.

    All figures are modelled (docs/estimate.md has the formulas). The status is 0 also where several cards
    are needed.
    """
    with typed_errors():
        import torch2fpga
        from torch2fpga.hub import FACTORY, load_factory

        target = writable(json_file) if json_file is not None else None
        factory = not Path(model).expanduser().exists() and FACTORY.fullmatch(model)
        with err.status("reading the model"):
            given = load_factory(model).model if factory else model
            found = torch2fpga.estimate(
                given, board, precision, batch=batch, prompt=prompt, context=context, clock_mhz=clock
            )
        out.print(found.table())
        if target is not None:
            target.write_text(json.dumps(found.to_json(), indent=2) + "\n", encoding="utf-8")
            out.print(f"written to {escape(str(target))}", highlight=False, soft_wrap=True)
