# SPDX-License-Identifier: Apache-2.0
"""The verb that times: of a saved model, or of one that is compiled first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from torch2fpga.cli.common import (
    Calibration,
    Inputs,
    app,
    compile_loaded,
    err,
    load,
    out,
    phases,
    typed_errors,
    writable,
)
from torch2fpga.timing import options, show


def _compiled(
    model: str, seq: int | None, batch: int | None, inputs: str | None, choices: dict[str, Any]
) -> tuple[Any, int | None, int | None]:
    """A saved model, or one compiled now; and the size of a run that is still to be chosen."""
    from torch2fpga.errors import CompileError
    from torch2fpga.persist import MODEL
    from torch2fpga.persist import load as load_saved

    path = Path(model).expanduser()
    if (path / MODEL).is_file():
        given = {"inputs": inputs, **choices}
        wrong = [f"--{name}" for name, value in given.items() if value is not None]
        if wrong:
            raise CompileError(f"{model} is a compiled model: {', '.join(wrong)} can no longer be chosen")
        with err.status("loading the compiled model"):
            return load_saved(path), seq, batch
    a_directory = path.exists()  # then the size that is asked for is the one to compile for
    loaded = load(model, *((seq, batch) if a_directory else (None, None)), inputs)
    card, formats = choices["board"] or "u280", choices["precision"] or "w8a8"
    compiled = compile_loaded(loaded, card, formats, choices["calibration"])
    return compiled, *((None, None) if a_directory else (seq, batch))


@app.command(
    "time",
    help=show.HELP,
    epilog="Example: torch2fpga time build/minilm --seq 64 --trace build/trace.json (a folder that "
    "compile --save wrote; the trace opens in ui.perfetto.dev)",
)
def time_command(
    model: options.Saved,
    seq: options.RunSeq = None,
    batch: options.RunBatch = None,
    clock: options.Clock = None,
    fifo: options.Fifos = None,
    spread: options.Spread = True,
    interval: options.Interval = True,
    cycle_limit: options.CycleLimit = None,
    limit: options.Rows = show.ROWS,
    json_file: options.JsonFile = None,
    trace_file: options.TraceFile = None,
    page: options.PageFile = None,
    board: options.RunBoard = None,
    precision: options.RunPrecision = None,
    calibration: Calibration = None,
    inputs: Inputs = None,
) -> None:
    """See ``show.HELP``."""
    try:
        fifos = show.parse_fifos(fifo or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fifo") from error
    with typed_errors():
        from torch2fpga.timing.inputs import random_inputs

        files = {"json": json_file, "trace": trace_file, "report": page}
        targets = {kind: writable(path) for kind, path in files.items() if path is not None}
        choices = {"board": board, "precision": precision, "calibration": calibration}
        compiled, seq, batch = _compiled(model, seq, batch, inputs, choices)
        given = random_inputs(compiled, batch, seq)
        with phases(err) as progress:
            report = compiled.time(
                **given, clock_mhz=clock, fifos=fifos, spread=spread, interval=interval,
                cycle_limit=cycle_limit, progress=progress,
            )  # fmt: skip
        show.show(report, out, limit)
        for line in show.written(compiled, report, targets):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        if report.deadlock is not None:
            raise typer.Exit(1)
