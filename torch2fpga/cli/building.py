# SPDX-License-Identifier: Apache-2.0
"""The verb that runs the vendor's tools on an emitted project and reads their reports back."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torch2fpga.cli.common import app, err, fail, out, typed_errors

if TYPE_CHECKING:
    from torch2fpga.build.check import Check
    from torch2fpga.build.folder import Folder
    from torch2fpga.build.steps import Step


class Target(enum.StrEnum):
    """What to build, the quick ones first."""

    csim = "csim"
    csynth = "csynth"
    cosim = "cosim"
    hw_emu = "hw_emu"
    hw = "hw"


class Flow(enum.StrEnum):
    """How Vitis HLS is called."""

    tcl = "tcl"
    cfg = "cfg"


HELP = "\n\n".join(
    (
        "Build the project in DIR with Vitis: check, run, resume, read back, compare.",
        "DIR is a folder that torch2fpga compile --out wrote. The tools are yours: source settings64.sh of "
        "Vitis first (and setup.sh of XRT for hw). Before anything starts, everything that is missing is "
        "said at once: programs, their releases, the platform, damaged files. The tools' output goes to "
        "DIR/build/TARGET/logs; a failed step shows the tool's own error lines.",
        "Targets: csim (C simulation with golden vectors, minutes), csynth (C synthesis), cosim (RTL against "
        "the same vectors), hw_emu (emulation of the card), hw (place and route, hours).",
        "Steps that are done are skipped: stop with Ctrl-C at any time and call it again. A step runs again "
        "when one of its files, its command or the tool's release has changed.",
        "What csynth and the link reported is put beside our own estimates: on the terminal, in "
        "DIR/build/comparison.json and in DIR/build/report.html.",
        "    torch2fpga build build/minilm --target hw --check",
        "    torch2fpga build build/minilm --target csim",
        "    torch2fpga build build/minilm --target csynth --jobs 4",
        "    torch2fpga build build/minilm --target hw --dry-run",
        "The exit status is 0 if all is well, 1 if something is missing or failed, 2 if the call is wrong. "
        "No project of ours has met the real tools yet (docs/building.md).",
    )
)


@app.command("build", help=HELP, epilog="Example: torch2fpga build build/minilm --target csynth --jobs 4")
def build_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Project folder.", show_default=False)],
    target: Annotated[Target, typer.Option("--target", "-t", help="What to build.", show_default=False)],
    jobs: Annotated[
        int,
        typer.Option("--jobs", "-j", min=1, max=64, help="Kernels side by side; each may take much memory."),
    ] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is there and what is missing; start nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps, and which of them would run; start nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Run steps again that are done.")] = False,
    flow: Annotated[
        Flow,
        typer.Option(
            envvar="HLS_FLOW", help="tcl: vitis_hls -f; cfg: vitis-run and v++ --mode hls (2023.2 only)."
        ),
    ] = Flow.tcl,
    floorplan: Annotated[
        bool, typer.Option("--floorplan", help="With hw: also hold every kernel to its SLR (floorplan.tcl).")
    ] = False,
) -> None:
    """See ``HELP``."""
    if floorplan and target is not Target.hw:
        raise typer.BadParameter("only hw places anything", param_hint="--floorplan")
    with typed_errors():
        from torch2fpga.build import BuildError
        from torch2fpga.build.check import check as look
        from torch2fpga.build.folder import open_folder
        from torch2fpga.build.show import show_check
        from torch2fpga.build.steps import plan

        try:
            project = open_folder(folder)
        except BuildError as error:
            fail(error, 2)
            return
        with err.status("looking for the tools"):
            found = look(project, target, flow, os.environ)
        show_check(found, out)
        if check:
            raise typer.Exit(0 if found.ok else 1)
        steps = plan(project, target, flow, floorplan)
        if dry_run:
            _dry(project, steps, found, force)
            return
        found.require()
        _run(project, target, steps, found, jobs, force)


def _dry(project: Folder, steps: tuple[Step, ...], found: Check, force: bool) -> None:
    """Print the plan."""
    from torch2fpga.build.run import pending
    from torch2fpga.build.show import show_plan

    show_plan(steps, pending(project.root, steps, found.tools, force), out)
    if found.missing:
        out.print(f"{len(found.missing)} things are missing: nothing would start", highlight=False)


def _run(project: Folder, target: str, steps: tuple[Step, ...], found: Check, jobs: int, force: bool) -> None:
    """Run, then read back."""
    from torch2fpga.build.run import FAILED, STOPPED, Runner
    from torch2fpga.build.show import Screen

    with Screen(out, project.root) as screen:
        runner = Runner(project.root, target, found.tools, os.environ, screen, jobs, force)
        outcomes = runner.run(steps)
    if runner.notice:
        out.print(f"note: {runner.notice}", highlight=False, markup=False, soft_wrap=True)
    understood = read_back(project)
    if any(o.state == STOPPED for o in outcomes):
        out.print("stopped; the same command goes on where it was", highlight=False)
    failed = [o.step.name for o in outcomes if o.state == FAILED]
    if failed:
        out.print(f"failed: {', '.join(failed)}", highlight=False, markup=False, soft_wrap=True)
    if not understood or any(o.state not in ("done", "skipped") for o in outcomes):
        raise typer.Exit(1)


def read_back(project: Folder) -> bool:
    """Compare what the tools have reported so far; False if a report was not understood."""
    from torch2fpga.build.compare import compare
    from torch2fpga.build.page import write_page
    from torch2fpga.build.show import show_comparison

    found = compare(project)
    if found.seen:
        written = found.save(project.root), write_page(found, project.root)
        show_comparison(found, out)
        out.print(f"written: {written[0]}, {written[1]}", highlight=False, markup=False, soft_wrap=True)
    for problem in found.problems if not found.seen else ():
        err.print(f"error: {problem}", highlight=False, markup=False, soft_wrap=True)
    return not found.problems
