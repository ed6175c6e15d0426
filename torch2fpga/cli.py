# SPDX-License-Identifier: Apache-2.0
"""The command line: compile, explain, verify, report, time.

torch and the compiler are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from torch2fpga.timing import options, show

if TYPE_CHECKING:
    from torch2fpga.hub import LoadedModel

#: without Vitis and without a card, this is what nobody has seen yet
NOT_PROVEN = "not synthesised and not run on a card: there was no Vitis and no board here"

app = typer.Typer(
    name="torch2fpga",
    help="From an unmodified PyTorch or Hugging Face model to a verified Vitis HLS project.\n\n"
    "MODEL is a local Hugging Face directory (config.json and *.safetensors; nothing is downloaded, "
    "no pickle is read, no code in it is run) or package.module:factory, a function without arguments "
    "that returns (model, example inputs).\n\n"
    "A first session:\n\n"
    "    torch2fpga explain ./all-MiniLM-L6-v2\n\n"
    "    torch2fpga compile ./all-MiniLM-L6-v2 --seq 256 --calibration sentences.txt --out build/minilm\n\n"
    "    torch2fpga verify ./all-MiniLM-L6-v2 --seq 256 --calibration sentences.txt",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_show_locals=False,
)
out = Console()
err = Console(stderr=True)

Model = Annotated[
    str, typer.Argument(help="Hugging Face directory or package.module:factory.", show_default=False)
]
Seq = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Longest sequence in tokens (directories; default 128 or what the model has).",
        show_default=False,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(min=1, help="Sequences a launch (directories; default 1).", show_default=False),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        help="Names of the model's inputs, separated by commas (directories; default: input_ids and, unless "
        "the model is causal, attention_mask).",
        show_default=False,
    ),
]
Board = Annotated[str, typer.Option(help="Card to compile for.")]
Precision = Annotated[str, typer.Option(help="Number formats; w8a8: int8 weights and activations.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
        help="Text file with one sentence a line, typical of what the model will see; 64 or more serve well.",
    ),
]


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Errors that torch2fpga raises on purpose end the program with a line, not a traceback."""
    from torch2fpga.errors import Error
    from torch2fpga.hub import ModelSpecError

    try:
        yield
    except ModelSpecError as error:
        _fail(error, 2)
    except Error as error:
        _fail(error, 1)
    except OSError as error:
        # a folder that cannot be written, a full disk
        _fail(error, 1)


def _fail(error: Exception, code: int) -> None:
    err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code) from error


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Warnings of the compiler as one line each, without the line of code that raised them."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            err.print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = show
        yield


@contextmanager
def phases(console: Console) -> Iterator[Callable[[str, float], None]]:
    """One bar that names the phase; what `torch2fpga.compile` takes as ``progress``.

    It vanishes at the end, and nothing is drawn where nobody looks (a pipe, a log).
    """
    columns = (SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda phase, fraction: progress.update(task, description=escape(phase), completed=fraction)


def _load(model: str, seq: int | None, batch: int | None, inputs: str | None) -> LoadedModel:
    from torch2fpga.hub import load_model

    names = [name.strip() for name in inputs.split(",") if name.strip()] if inputs is not None else None
    with err.status("loading the model"):
        return load_model(model, seq=seq, batch=batch, inputs=names)


def read_sentences(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not empty.

    Raises:
        InputError: if it is not UTF-8 or has no sentence.
    """
    from torch2fpga.errors import InputError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise InputError(f"{path} has no sentences; expected one a line")
    return sentences


def _compile(loaded: LoadedModel, board: str, precision: str, calibration: Path | None) -> Any:
    import torch2fpga

    rows = loaded.encode(read_sentences(calibration)) if calibration is not None else None
    with _warnings_as_lines(), phases(err) as progress:
        return torch2fpga.compile(
            loaded.model,
            loaded.example,
            board=board,
            precision=precision,
            calibration=rows,
            progress=progress,
        )


def _free(path: Path) -> Path:
    """A path that may be written: its parent exists or can be made."""
    path = path.expanduser().resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _summary(compiled: Any, loaded: LoadedModel) -> Table:
    design = compiled.design
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    shape = design.shape
    table.add_row("model", f"{escape(loaded.name)} ({type(loaded.model).__name__})")
    table.add_row("inputs", f"up to {shape.max_batch} x {shape.max_seq} rows (sequences x tokens)")
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
    board: Board = "u280",
    precision: Precision = "w8a8",
    calibration: Calibration = None,
    inputs: Inputs = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Also keep the compiled model here, for torch2fpga.load.", show_default=False),
    ] = None,
    shrink: options.Shrink = False,
    fifo_loss: options.FifoLoss = None,
) -> None:
    """Compile MODEL and write its Vitis project: kernels, weights, test bench, build files."""
    if fifo_loss is not None and not shrink:
        raise typer.BadParameter("only --shrink-fifos loses cycles", param_hint="--fifo-loss")
    with _typed_errors():
        loaded = _load(model, seq, batch, inputs)
        target = _free(out_dir or Path("build") / loaded.name)
        compiled, fifos = _compile(loaded, board, precision, calibration), None
        if shrink:
            with phases(err) as progress:
                fifos = compiled.shrink_fifos(loss=fifo_loss or 0.0, progress=progress)
            compiled = fifos.model
        files = compiled.write(target)
        table = _summary(compiled, loaded)
        table.add_row("project", f"{escape(str(target))} ({len(files)} files)")
        if save is not None:
            kept = _free(save)
            compiled.save(kept)
            table.add_row("compiled model", escape(str(kept)))
        table.add_row("next", "torch2fpga verify runs its C++ against the reference; README.md in it")
        table.add_row("not proven", NOT_PROVEN)
        out.print(Panel(table, title="compiled", title_align="left"))
        if fifos is not None:
            show.show_cut(fifos, out)


@app.command(
    "explain", epilog="Example: torch2fpga explain examples.encoder:factory (status 1 if parts are refused)"
)
def explain_command(model: Model, seq: Seq = None, batch: Batch = None, inputs: Inputs = None) -> None:
    """Say what maps to what in MODEL, and every part that is refused and why; compiles nothing."""
    with _typed_errors():
        import torch2fpga

        loaded = _load(model, seq, batch, inputs)
        with _warnings_as_lines():
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
    board: Board = "u280",
    precision: Precision = "w8a8",
    calibration: Calibration = None,
    inputs: Inputs = None,
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

    The exit status is 1 if a single value differs.
    """
    with _typed_errors():
        loaded = _load(model, seq, batch, inputs)
        rows: list[Any] = [loaded.example]
        if sentences is not None:
            rows = loaded.encode(read_sentences(sentences))
        compiled = _compile(loaded, board, precision, calibration)
        exact = _verify(compiled, rows)
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
    board: Board = "u280",
    precision: Precision = "w8a8",
    calibration: Calibration = None,
    inputs: Inputs = None,
) -> None:
    """Compile MODEL and write one self-contained HTML page: stages, shapes, resources, accuracy."""
    with _typed_errors():
        loaded = _load(model, seq, batch, inputs)
        target = _free(out_file or Path("build") / f"{loaded.name}.html")
        compiled = _compile(loaded, board, precision, calibration)
        compiled.report(target)
        out.print(f"{escape(str(target))}", highlight=False, soft_wrap=True)


def _compiled(
    model: str, seq: int | None, batch: int | None, inputs: str | None, choices: dict[str, Any]
) -> tuple[Any, int | None, int | None]:
    """A saved model, or one compiled now; and the size of a run that is still to be chosen."""
    from torch2fpga.errors import CompileError
    from torch2fpga.persist import MODEL, load

    path = Path(model).expanduser()
    if (path / MODEL).is_file():
        given = {"inputs": inputs, **choices}
        wrong = [f"--{name}" for name, value in given.items() if value is not None]
        if wrong:
            raise CompileError(f"{model} is a compiled model: {', '.join(wrong)} can no longer be chosen")
        with err.status("loading the compiled model"):
            return load(path), seq, batch
    a_directory = path.exists()  # then the size that is asked for is the one to compile for
    loaded = _load(model, *((seq, batch) if a_directory else (None, None)), inputs)
    card, formats = choices["board"] or "u280", choices["precision"] or "w8a8"
    compiled = _compile(loaded, card, formats, choices["calibration"])
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
    with _typed_errors():
        from torch2fpga.timing.inputs import random_inputs

        files = {"json": json_file, "trace": trace_file, "report": page}
        targets = {kind: _free(path) for kind, path in files.items() if path is not None}
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


def _version(value: bool) -> None:
    if value:
        from torch2fpga.version import __version__

        out.print(f"torch2fpga {__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point of the ``torch2fpga`` program."""
    app()


if __name__ == "__main__":
    main()
