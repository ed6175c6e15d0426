# SPDX-License-Identifier: Apache-2.0
"""The verb that puts weights into a project that was written without."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from torch2fpga.cli.common import (
    NOT_PROVEN,
    Calibration,
    app,
    err,
    out,
    phases,
    read_sentences,
    typed_errors,
    warnings_as_lines,
)


@app.command(
    "pack",
    epilog="Example: torch2fpga pack build/llama7b --model ./Llama-2-7b-hf --calibration sentences.txt",
)
def pack_command(
    project: Annotated[
        Path,
        typer.Argument(
            help="Folder that `torch2fpga plan CONFIG --write` wrote.", metavar="DIR", show_default=False
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(
            help="Hugging Face directory with the weights: safetensors, in one file or in shards.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    calibration: Calibration = None,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is computed, needed until the end; a run that was interrupted goes on with "
            "it (default DIR.work).",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Put the weights of a model into a project that was written without: images, golden vectors, test bench.

    Weights are read shard by shard and converted layer by layer, so memory holds one layer at a time. The
    kernels in DIR stay as they are; if they are not those of the model nothing is written (docs/packing.md).
    """
    with typed_errors():
        import torch2fpga
        from torch2fpga.weights.pack import encoded

        rows = None
        if calibration is not None:
            rows = encoded(project, model, read_sentences(calibration))
        with warnings_as_lines(), phases(err) as progress:
            files = torch2fpga.pack(project, model, rows, work=work, progress=progress)
        out.print(f"{len(files)} files in {escape(str(project))}", highlight=False, soft_wrap=True)
        out.print(NOT_PROVEN, highlight=False, soft_wrap=True)
