# SPDX-License-Identifier: Apache-2.0
"""Options of ``torch2fpga time`` that no other command has, and those that make ``compile`` run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Saved = Annotated[
    str,
    typer.Argument(
        help="Folder of a saved model, Hugging Face directory or package.module:factory.", show_default=False
    ),
]
RunSeq = Annotated[
    int | None,
    typer.Option(min=1, help="Tokens of a sequence (default the compiled maximum).", show_default=False),
]
RunBatch = Annotated[
    int | None, typer.Option(min=1, help="Sequences (default the compiled maximum).", show_default=False)
]
Clock = Annotated[
    float | None,
    typer.Option(min=1.0, help="Kernel clock in MHz (default the plan's).", show_default=False),
]
Fifos = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DEPTH", help="Another depth of a FIFO, in tokens; may be repeated.", show_default=False
    ),
]
Spread = Annotated[
    bool, typer.Option("--spread/--no-spread", help="Also run at half and twice the pipeline depths.")
]
Interval = Annotated[
    bool, typer.Option("--interval/--no-interval", help="Also run three launches back to back.")
]
CycleLimit = Annotated[
    int | None, typer.Option(min=1, help="Give up beyond this many cycles.", show_default=False)
]
Rows = Annotated[int, typer.Option(min=1, help="Rows of a table.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.", show_default=False)]
TraceFile = Annotated[
    Path | None, typer.Option("--trace", help="Write a trace for ui.perfetto.dev here.", show_default=False)
]
PageFile = Annotated[
    Path | None,
    typer.Option("--report", help="Write the report page with the timeline here.", show_default=False),
]
RunPrecision = Annotated[
    str | None, typer.Option("--precision", help="Number formats (default w8a8).", show_default=False)
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink-fifos",
        help="Cut FIFOs by timed runs before anything is written (needs g++, takes dozens of runs). The "
        "computed depths hold for every length; most FIFOs never get that full. Each one gets the most "
        "tokens that it held at several sizes, and where block memory becomes cheaper even less, as long "
        "as no cycle is lost. Prints memory and cycles before and after.",
    ),
]
FifoLoss = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.99,
        metavar="SHARE",
        help="With --shrink-fifos: share of the cycles that smaller FIFOs may cost at any size; 0.02 is two "
        "per cent (default 0).",
        show_default=False,
    ),
]
