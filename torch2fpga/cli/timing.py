# SPDX-License-Identifier: Apache-2.0
"""The verb that times: of a saved model, or of one that is compiled first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
    saved_model,
    typed_errors,
    writable,
)
from torch2fpga.cli.wishes import Budget, Checksums, Goal, PlanBoard, PlanFile, Tile, Wishes
from torch2fpga.timing import options, show

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel


def _compiled(
    model: str,
    seq: int | None,
    batch: int | None,
    inputs: str | None,
    wishes: Wishes,
    precision: str | None,
    calibration: Path | None,
) -> tuple[CompiledModel, int | None, int | None]:
    """A saved model, or one compiled now; and the size of a run that is still to be chosen."""
    choices = {"inputs": inputs, **wishes.options(), "precision": precision, "calibration": calibration}
    saved = saved_model(model, choices)
    if saved is not None:
        return saved, seq, batch
    a_directory = Path(model).expanduser().exists()  # then the size asked for is the one to compile for
    loaded = load(model, *((seq, batch) if a_directory else (None, None)), inputs)
    compiled = compile_loaded(loaded, wishes, precision or "w8a8", calibration)
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
    board: PlanBoard = None,
    precision: options.RunPrecision = None,
    plan: PlanFile = None,
    objective: Goal = None,
    budget: Budget = None,
    tile: Tile = None,
    checksums: Checksums = False,
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
        wishes = Wishes(plan, board, objective, budget, None, tile, checksums)
        compiled, seq, batch = _compiled(model, seq, batch, inputs, wishes, precision, calibration)
        given = random_inputs(compiled, batch, seq)
        with phases(err) as progress:
            report = compiled.time(
                **given, clock_mhz=clock or compiled.origin.plan.clock_mhz, fifos=fifos, spread=spread,
                interval=interval, cycle_limit=cycle_limit, progress=progress,
            )  # fmt: skip
        show.show(report, out, limit)
        for line in show.written(compiled, report, targets):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        if report.deadlock is not None:
            raise typer.Exit(1)
