# SPDX-License-Identifier: Apache-2.0
"""The verbs that compile a model: compile, explain, verify, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from torch2fpga.cli.common import (
    NOT_PROVEN,
    Batch,
    Calibration,
    Generate,
    Inputs,
    MaxLength,
    Model,
    Precision,
    Seq,
    app,
    compile_loaded,
    err,
    load,
    out,
    phases,
    read_sentences,
    typed_errors,
    warnings_as_lines,
    writable,
)
from torch2fpga.cli.generating import verify_texts
from torch2fpga.cli.planning import save_plan, show_plan
from torch2fpga.cli.wishes import (
    Budget,
    Checksums,
    Goal,
    PlanBoard,
    PlanClock,
    PlanFile,
    SavePlan,
    Tile,
    Wishes,
)
from torch2fpga.timing import options, show

if TYPE_CHECKING:
    from torch2fpga.hub import LoadedModel


def _summary(compiled: Any, loaded: LoadedModel) -> Table:
    design = compiled.design
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    shape = design.shape
    table.add_row("model", f"{escape(loaded.name)} ({type(loaded.model).__name__})")
    table.add_row("inputs", f"up to {shape.max_batch} x {shape.max_seq} rows (sequences x tokens)")
    if design.turns:
        table.add_row("generates", f"texts of up to {shape.keys} tokens, prompt included")
    loop = f"; one block of hardware serves {design.steps} layers" if design.steps > 1 else ""
    kernels = f"{len(design.kernels)} kernel{'s' if len(design.kernels) > 1 else ''}"
    table.add_row("stages", f"{len(design.stages)} in {kernels}{loop}")
    table.add_row("streams", f"{len(design.streams)}, and {len(design.ports)} memory ports")
    return table


@app.command(
    "compile",
    epilog="Example: torch2fpga compile ./all-MiniLM-L6-v2 --seq 256 --calibration sentences.txt "
    "--out build/minilm",
)
def compile_command(
    model: Model,
    seq: Seq = None,
    batch: Batch = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the project (default build/NAME).", show_default=False),
    ] = None,
    board: PlanBoard = None,
    precision: Precision = "w8a8",
    plan: PlanFile = None,
    objective: Goal = None,
    budget: Budget = None,
    clock: PlanClock = None,
    tile: Tile = None,
    checksums: Checksums = False,
    calibration: Calibration = None,
    inputs: Inputs = None,
    generate: Generate = False,
    max_length: MaxLength = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Also keep the compiled model here, for torch2fpga.load.", show_default=False),
    ] = None,
    keep_plan: SavePlan = None,
    shrink: options.Shrink = False,
    fifo_loss: options.FifoLoss = None,
) -> None:
    """Compile MODEL and write its Vitis project: kernels, weights, test bench, build files."""
    if fifo_loss is not None and not shrink:
        raise typer.BadParameter("only --shrink-fifos loses cycles", param_hint="--fifo-loss")
    with typed_errors():
        wishes = Wishes(plan, board, objective, budget, clock, tile, checksums)
        loaded = load(model, seq, batch, inputs, max_length)
        target = writable(out_dir or Path("build") / loaded.name)
        text = {"generate": generate, "max_length": max_length}
        compiled, fifos = compile_loaded(loaded, wishes, precision, calibration, text), None
        if shrink:
            with phases(err) as progress:
                fifos = compiled.shrink_fifos(loss=fifo_loss or 0.0, progress=progress)
            compiled = fifos.model
        files = compiled.write(target)
        table = _summary(compiled, loaded)
        table.add_row("project", f"{escape(str(target))} ({len(files)} files)")
        if save is not None:
            kept = writable(save)
            compiled.save(kept)
            table.add_row("compiled model", escape(str(kept)))
        if keep_plan is not None:
            table.add_row("plan", escape(str(save_plan(compiled.plan, keep_plan))))
        table.add_row("next", "torch2fpga verify runs its C++ against the reference; README.md in it")
        table.add_row("not proven", NOT_PROVEN)
        out.print(Panel(table, title="compiled", title_align="left"))
        show_plan(compiled.plan)
        if fifos is not None:
            show.show_cut(fifos, out)


@app.command(
    "explain", epilog="Example: torch2fpga explain examples.encoder:factory (status 1 if parts are refused)"
)
def explain_command(model: Model, seq: Seq = None, batch: Batch = None, inputs: Inputs = None) -> None:
    """Say what maps to what in MODEL, and every part that is refused and why; compiles nothing."""
    with typed_errors():
        import torch2fpga

        loaded = load(model, seq, batch, inputs)
        with warnings_as_lines():
            explanation = torch2fpga.explain(loaded.model, loaded.example)
        out.print(escape(str(explanation)), highlight=False, soft_wrap=True)
        if not explanation.ok:
            raise typer.Exit(1)


def _verify(compiled: Any, rows: list[Any]) -> int:
    """Verify input by input up to the first that is not exact; returns how many were."""
    exact, cosines, last = 0, [], None
    with phases(err) as progress:
        for number, row in enumerate(rows):
            progress("g++ and first run" if number == 0 else f"input {number + 1}", number / len(rows))
            last = compiled.verify(**row) if isinstance(row, dict) else compiled.verify(*row)
            cosines += [last.cosine] if last.cosine is not None else []
            exact += last.bit_exact
            if not last.bit_exact:
                break
    out.print(escape(str(last)), highlight=False, soft_wrap=True)
    text = f"{exact} of {len(rows)} inputs bit-exact at every stage"
    if cosines:
        text += f"; smallest cosine of the output against float: {min(cosines):.5f}"
    out.print(f"{text}; {NOT_PROVEN}", highlight=False, soft_wrap=True)
    return exact


@app.command(
    "verify",
    epilog="Example: torch2fpga verify ./all-MiniLM-L6-v2 --calibration sentences.txt --sentences others.txt",
)
def verify_command(
    model: Model,
    seq: Seq = None,
    batch: Batch = None,
    board: PlanBoard = None,
    precision: Precision = "w8a8",
    plan: PlanFile = None,
    objective: Goal = None,
    budget: Budget = None,
    clock: PlanClock = None,
    tile: Tile = None,
    checksums: Checksums = False,
    calibration: Calibration = None,
    inputs: Inputs = None,
    generate: Generate = False,
    max_length: MaxLength = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
            help="Text file with one sentence a line to run (default: the example input).",
        ),
    ] = None,
) -> None:
    """Build MODEL's C++ with g++, run it, and compare every stage with the quantised reference, bit for bit.

    With --generate, tokens are generated behind every input, greedily and by a draw, in launches of different
    length, and every launch is compared with the reference over the whole text. The exit status is 1 if a
    single value differs.
    """
    with typed_errors():
        loaded = load(model, seq, batch, inputs, max_length)
        wishes = Wishes(plan, board, objective, budget, clock, tile, checksums)
        rows: list[Any] = [loaded.example]
        if sentences is not None:
            rows = loaded.encode(read_sentences(sentences))
        text = {"generate": generate, "max_length": max_length}
        compiled = compile_loaded(loaded, wishes, precision, calibration, text)
        exact = verify_texts(compiled, rows) if generate else _verify(compiled, rows)
        if exact != len(rows):
            raise typer.Exit(1)


@app.command(
    "report", epilog="Example: torch2fpga report ./all-MiniLM-L6-v2 --seq 256 --out build/minilm.html"
)
def report_command(
    model: Model,
    seq: Seq = None,
    batch: Batch = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page (default build/NAME.html).", show_default=False),
    ] = None,
    board: PlanBoard = None,
    precision: Precision = "w8a8",
    plan: PlanFile = None,
    objective: Goal = None,
    budget: Budget = None,
    clock: PlanClock = None,
    tile: Tile = None,
    checksums: Checksums = False,
    calibration: Calibration = None,
    inputs: Inputs = None,
) -> None:
    """Compile MODEL and write one self-contained HTML page: stages, shapes, resources, accuracy."""
    with typed_errors():
        wishes = Wishes(plan, board, objective, budget, clock, tile, checksums)
        loaded = load(model, seq, batch, inputs)
        target = writable(out_file or Path("build") / f"{loaded.name}.html")
        compiled = compile_loaded(loaded, wishes, precision, calibration)
        compiled.report(target)
        out.print(f"{escape(str(target))}", highlight=False, soft_wrap=True)
