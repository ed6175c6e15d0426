# SPDX-License-Identifier: Apache-2.0
"""The Vitis project: its files as data, and writing them so that they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch2fpga.design import Design
from torch2fpga.emit import manifest
from torch2fpga.emit.golden import Golden, golden_run
from torch2fpga.emit.kernel import (
    comment_text,
    config_file,
    config_header,
    design_header,
    functional_source,
    kernel_source,
    render,
)
from torch2fpga.emit.link import floorplan, link_config
from torch2fpga.emit.manifest import load_images, read_manifest
from torch2fpga.emit.ports import all_ports
from torch2fpga.emit.testbench import testbench_files, weights_path
from torch2fpga.errors import CompileError, WeightsError
from torch2fpga.plan.wires import boundary_use, crossings
from torch2fpga.simulate.build import INCLUDE, SIM

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

__all__ = ["Project", "build_project", "load_images", "project_files", "read_manifest", "write_project"]

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Project:
    """All files of a project, by path: text, and binary images."""

    texts: Mapping[str, str]
    blobs: Mapping[str, bytes]


def project_files(compiled: CompiledModel) -> dict[str, str]:
    """Path -> text of every text file of the project; the same model gives the same bytes.

    Raises:
        CompileError: if the design does not fit the board's memory channels.
    """
    return dict(build_project(compiled).texts)


def build_project(compiled: CompiledModel, progress: Progress | None = None) -> Project:
    """All files of the project, in memory."""
    say = progress or (lambda phase, fraction: None)
    design = compiled.design
    texts = {"link.cfg": link_config(design, compiled.board)}  # refuses what does not fit, first
    say("images", 0.0)
    blobs = {
        weights_path(kernel, port): compiled.images[Path(weights_path(kernel, port)).stem]
        for kernel, port in all_ports(design)
        if port.role in manifest.CONSTANT_ROLES
    }
    weight_bytes = sum(len(content) for content in blobs.values())
    say("golden vectors", 0.2)
    golden = golden_run(compiled)
    blobs.update(golden.files)
    say("text", 0.6)
    texts.update(_sources(design))
    texts.update(testbench_files(design, golden))
    texts.update(_tool_files(compiled))
    texts["README.md"] = _readme(compiled, golden, weight_bytes)
    texts[manifest.SUMS] = manifest.sums_text(blobs)
    data = manifest.manifest(compiled, golden, blobs)
    texts[manifest.FILE] = manifest.manifest_text(data)
    return Project(dict(sorted(texts.items())), dict(sorted(blobs.items())))


def _sources(design: Design) -> dict[str, str]:
    """Kernels, the stage library and the simulation headers."""
    found = {"kernels/design.hpp": design_header(design), "sim/functional.cpp": functional_source(design)}
    for kernel in design.kernels:
        found[f"kernels/{config_file(kernel)}"] = config_header(design, kernel)
        found[f"kernels/{kernel.name}.cpp"] = kernel_source(design, kernel)
    for header in sorted((INCLUDE / "t2f").glob("*.hpp")):
        found[f"include/t2f/{header.name}"] = header.read_text(encoding="utf-8")
    for header in sorted([*SIM.glob("*.h"), *SIM.glob("*.hpp")]):
        found[f"sim/{header.name}"] = header.read_text(encoding="utf-8")
    return found


def _tool_files(compiled: CompiledModel) -> dict[str, str]:
    """What the tools are run with."""
    design, board = compiled.design, compiled.board
    kernels = [k.name for k in design.kernels]
    found = {
        "Makefile": render("Makefile.j2", design=design, board=board, kernels=kernels),
        "floorplan.tcl": floorplan(design, board),
        "host/README.md": render("host_README.md.j2"),
    }
    period = f"{1000 / board.clock_mhz:.2f}"
    for kernel in design.kernels:
        for suffix in ("tcl", "cfg"):
            text = render(f"hls.{suffix}.j2", kernel=kernel.name, board=board, period=period)
            found[f"hls/{kernel.name}.{suffix}"] = text
    return found


def _readme(compiled: CompiledModel, golden: Golden, weight_bytes: int) -> str:
    ports = all_ports(compiled.design)
    return render(
        "README.md.j2",
        design=compiled.design,
        board=compiled.board,
        model=comment_text(compiled.origin.model_class),
        parameters=compiled.origin.parameters,
        precision=comment_text(compiled.origin.precision),
        kernels=[k.name for k in compiled.design.kernels],
        memory_kernel=ports[0][0].name,
        boundaries=boundary_use(crossings(compiled.design), compiled.board),
        ports=len(ports),
        weight_bytes=weight_bytes,
        golden=golden,
        golden_bytes=sum(len(content) for content in golden.files.values()),
    )


# -- writing ----------------------------------------------------------------------------------


def write_project(compiled: CompiledModel, path: Path, progress: Progress | None = None) -> list[Path]:
    """Write the project; the folder appears whole or not at all.

    Everything goes into a new folder beside ``path``, which then takes its name. A folder that
    holds a project of torch2fpga is replaced as a whole; any other non-empty folder is left alone.

    Args:
        progress: called with a phase's name and the fraction done.
    Returns:
        The files written.
    Raises:
        CompileError: if ``path`` is taken by something else or cannot be written.
    """
    say = progress or (lambda phase, fraction: None)
    target = Path(os.path.abspath(path)).resolve()
    _refuse_foreign(target)
    project = build_project(compiled, lambda phase, done: say(phase, 0.7 * done))
    files = {**{n: t.encode() for n, t in project.texts.items()}, **project.blobs}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target, "new") as fresh:
            for number, (name, content) in enumerate(sorted(files.items())):
                say("write", 0.7 + 0.3 * number / len(files))
                _write(fresh / name, content)
            _refuse_foreign(target)
            _take_place(fresh, target)
    except OSError as error:
        raise CompileError(f"the project cannot be written to {target}: {error}") from error
    say("done", 1.0)
    return [target / name for name in sorted(files)]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _refuse_foreign(target: Path) -> None:
    """Only a free name, an empty folder or a project of ours may be written to."""
    if not target.exists():
        return
    if not target.is_dir():
        raise CompileError(f"{target} is a file; the project needs a folder")
    if not any(target.iterdir()):
        return
    try:
        read_manifest(target)
    except WeightsError as error:
        raise CompileError(
            f"{target} is not empty and holds no project of torch2fpga ({error}); choose another folder"
        ) from error


@contextlib.contextmanager
def _beside(target: Path, what: str) -> Iterator[Path]:
    """A new folder in the target's parent, removed at the end if it is still there."""
    folder = target.parent / f".{target.name}.{what}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_place(fresh: Path, target: Path) -> None:
    """Give the new folder the target's name; what was there goes only once that has worked."""
    if not target.exists():
        fresh.rename(target)
        return
    with _beside(target, "old") as aside:
        old = aside / target.name
        target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            old.rename(target)
            raise
