# SPDX-License-Identifier: Apache-2.0
"""The verb that shows a plan: of a saved model, or of one that is compiled first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from torch2fpga.cli.common import (
    Batch,
    Calibration,
    Generate,
    Inputs,
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
    warnings_as_lines,
    writable,
)
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
from torch2fpga.timing import options

if TYPE_CHECKING:
    from torch2fpga.plan.summary import PlanReport

HELP = """Show how MODEL is laid out on the card, how fast that is, and what binds; writes no project, unless
MODEL is a configuration and --write says where.

MODEL is what the other commands take, a folder that `compile --save` wrote, or a Hugging Face configuration
without weights (a config.json, or a folder with nothing else). All figures are
[bold]modelled[/]: `torch2fpga time` runs the emitted C++ under a clock, and nothing has been synthesised.

[bold]products a cycle[/]: multipliers of all arrays; the share that is useful leaves out waiting and padding.

[bold]array[/]: a linear or attention stage. Its output channels are shared by so many copies of so many
columns (channels a cycle); weights are kept on chip for one layer (step), for all of them (resident), or
read again for every tile of rows (streamed), over so many memory ports; SLR is where the copies lie.

[bold]SLR[/]: what each super logic region uses, its share, and the cap beyond which designs stop routing.

[bold]SLR0-SLR1[/]: wires over a boundary, against what is there and what is planned with.

[bold]what binds[/]: limits of which a tenth more would make the design faster, and by how much.

docs/planner.md says how the plan is found, and what a plan file may say."""


def show_plan(plan: PlanReport) -> None:
    """A plan on the terminal."""
    out.print(str(plan), markup=False, highlight=False, soft_wrap=True)


def save_plan(plan: PlanReport, path: Path) -> Path:
    """Write the complete plan as TOML."""
    target = writable(path)
    plan.save(target)
    return target


def is_configuration(model: str) -> bool:
    """A Hugging Face configuration without weights: a JSON file, or a folder that has nothing else."""
    path = Path(model).expanduser()
    if path.is_file():
        return path.suffix == ".json"
    return (path / "config.json").is_file() and not any(path.glob("*.safetensors"))


def outlined(
    model: str,
    wishes: Wishes,
    chosen: Mapping[str, object],
    precision: str | None,
    write: Path | None = None,
) -> PlanReport:
    """The plan of a configuration, without weights.

    Args:
        write: folder that gets its project.
    Raises:
        CompileError: for options that need weights, and as ``torch2fpga.emit_outline``.
    """
    import torch2fpga

    weighty = ("inputs", "calibration")
    needing = [f"--{name}" for name in weighty if chosen[name] is not None]
    if needing:
        raise torch2fpga.CompileError(f"{model} has no weights, which {' and '.join(needing)} would need")
    sizes = {"tokens": chosen["seq"], "batch": chosen["batch"]}
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    if chosen["max-length"] is not None and not chosen["generate"]:
        raise torch2fpga.CompileError("--max-length is for --generate")
    given |= {"generate": bool(chosen["generate"]), "max_length": chosen["max-length"]}
    said = f"{model} has no weights (*.safetensors): planned from its configuration"
    err.print(said, markup=False, highlight=False, soft_wrap=True)
    given |= {"precision": precision or "w8a8", **wishes.arguments()}
    with warnings_as_lines(), phases(err) as progress:
        if write is None:
            return torch2fpga.outline(model, **given, progress=progress)
        return torch2fpga.emit_outline(model, writable(write), **given, progress=progress)


@app.command(
    "plan",
    help=HELP,
    epilog="Example: torch2fpga plan ./all-MiniLM-L6-v2 --seq 128 --budget 0.5 --save-plan minilm.toml",
)
def plan_command(
    model: options.Saved,
    seq: Seq = None,
    batch: Batch = None,
    board: PlanBoard = None,
    precision: options.RunPrecision = None,
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
    write: Annotated[
        Path | None,
        typer.Option(
            help="Also write the project here; only of a configuration (a folder's config.json), without "
            "weights, which `torch2fpga pack` puts in later.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    save: SavePlan = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.", show_default=False)
    ] = None,
) -> None:
    """See ``HELP``."""
    with typed_errors():
        wishes = Wishes(plan, board, objective, budget, clock, tile, checksums)
        if write is not None and not is_configuration(model):
            raise _not_a_configuration(model)
        chosen = {
            "seq": seq, "batch": batch, "inputs": inputs, "calibration": calibration,
            "generate": generate or None, "max-length": max_length,
        }  # fmt: skip
        compiled = saved_model(model, {**chosen, "precision": precision, "clock": clock, **wishes.options()})
        if compiled is not None:
            report = compiled.plan
        elif is_configuration(model):
            report = outlined(model, wishes, chosen, precision, write)
        else:
            loaded = load(model, seq, batch, inputs, max_length)
            text = {"generate": generate, "max_length": max_length}
            report = compile_loaded(loaded, wishes, precision or "w8a8", calibration, text).plan
        show_plan(report)
        if write is not None:
            _written(writable(write))
        if save is not None:
            _written(save_plan(report, save))
        if json_file is not None:
            target = writable(json_file)
            target.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
            _written(target)


def _not_a_configuration(model: str) -> Exception:
    from torch2fpga.errors import CompileError

    return CompileError(
        f"{model} is no configuration, and --write is for those: name the config.json of a folder, or let "
        "`torch2fpga compile` write the project with its weights"
    )


def _written(path: Path) -> None:
    out.print(f"written to {escape(str(path))}", highlight=False, soft_wrap=True)
