# SPDX-License-Identifier: Apache-2.0
"""What the verbs of the command line share: the program, its consoles, options, errors and progress.

torch and the compiler are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from torch2fpga.cli.wishes import Wishes
    from torch2fpga.compiled import CompiledModel
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
Precision = Annotated[str, typer.Option(help="Number formats: w8a8, or w4a8 (int4 weights).")]
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

Generate = Annotated[
    bool,
    typer.Option(
        "--generate",
        help="MODEL is a causal language model that generates text, with a cache of its keys and values "
        "(docs/generation.md); --seq is then the most that one launch takes of a prompt.",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        min=1,
        metavar="TOKENS",
        help="Longest text, prompt included (default the model's positions, at most 1,024).",
        show_default=False,
    ),
]


@contextmanager
def typed_errors() -> Iterator[None]:
    """Errors that torch2fpga raises on purpose end the program with a line, not a traceback."""
    from torch2fpga.errors import Error
    from torch2fpga.hub import ModelSpecError

    try:
        yield
    except ModelSpecError as error:
        fail(error, 2)
    except Error as error:
        fail(error, 1)
    except OSError as error:
        # a folder that cannot be written, a full disk
        fail(error, 1)


def fail(error: Exception, code: int) -> None:
    err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code) from error


@contextmanager
def warnings_as_lines() -> Iterator[None]:
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


def load(
    model: str, seq: int | None, batch: int | None, inputs: str | None, max_length: int | None = None
) -> LoadedModel:
    """The model that was named, with an example of at most ``max_length`` tokens where none was asked for."""
    from torch2fpga.hub import load_model

    names = [name.strip() for name in inputs.split(",") if name.strip()] if inputs is not None else None
    with err.status("loading the model"):
        loaded = load_model(model, seq=seq, batch=batch, inputs=names)
    if max_length is None or seq is not None or not Path(model).expanduser().exists():
        return loaded
    assert isinstance(loaded.example, Mapping)  # as a directory's is
    return replace(loaded, example={k: v[:, :max_length] for k, v in loaded.example.items()})


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


def compile_loaded(
    loaded: LoadedModel,
    wishes: Wishes,
    precision: str,
    calibration: Path | None,
    generating: Mapping[str, Any] | None = None,
) -> CompiledModel:
    """Compile with what was asked for.

    Args:
        generating: ``generate`` and ``max_length`` of ``torch2fpga.compile``.
    """
    import torch2fpga

    planning = wishes.arguments()  # a file that is no plan is told before anything is computed
    rows = loaded.encode(read_sentences(calibration)) if calibration is not None else None
    with warnings_as_lines(), phases(err) as progress:
        return torch2fpga.compile(
            loaded.model,
            loaded.example,
            precision=precision,
            calibration=rows,
            progress=progress,
            **planning,
            **(generating or {}),
        )


def saved_model(model: str, choices: Mapping[str, object]) -> CompiledModel | None:
    """The model that ``compile --save`` kept in a folder; None if MODEL is something else.

    Args:
        choices: by option, None where none was made; a compiled model has no choice left.
    Raises:
        CompileError: if there are choices, with their options.
    """
    from torch2fpga.errors import CompileError
    from torch2fpga.persist import MODEL
    from torch2fpga.persist import load as load_saved

    path = Path(model).expanduser()
    if not (path / MODEL).is_file():
        return None
    wrong = [f"--{name}" for name, value in choices.items() if value is not None]
    if wrong:
        raise CompileError(f"{model} is a compiled model: {', '.join(wrong)} can no longer be chosen")
    with err.status("loading the compiled model"):
        return load_saved(path)


def writable(path: Path) -> Path:
    """A path that may be written: its parent exists or can be made."""
    path = path.expanduser().resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


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
