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
from torch2fpga.emit.card import emulation_files, timed_settings
from torch2fpga.emit.estimates import estimate_files
from torch2fpga.emit.golden import Golden, golden_run
from torch2fpga.emit.host import host_files
from torch2fpga.emit.images import CONSTANT_ROLES, image_of
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
from torch2fpga.emit.ports import all_ports, port_bytes
from torch2fpga.emit.testbench import testbench_files, weights_path
from torch2fpga.emit.xclbin import xclbin
from torch2fpga.errors import CompileError, WeightsError
from torch2fpga.plan.wires import boundary_use, crossings
from torch2fpga.simulate.build import INCLUDE, SIM

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

__all__ = ["Project", "build_project", "load_images", "project_files", "read_manifest", "write_project"]

Progress = Callable[[str, float], None]
#: folder in a project that is the tools', not ours
BUILT = "build"


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
    blobs: dict[str, bytes] = {}
    texts = make_project(compiled, blobs.__setitem__, progress)
    return Project(dict(sorted(texts.items())), dict(sorted(blobs.items())))


def make_project(
    compiled: CompiledModel, keep: Callable[[str, bytes], None], progress: Progress | None = None
) -> dict[str, str]:
    """All texts of the project, by path.

    Args:
        keep: gets path and content of every binary file as soon as it is made; no other image is in memory
            then.
    """
    say = progress or (lambda phase, fraction: None)
    design = compiled.design
    texts = {"link.cfg": link_config(design, compiled.board)}  # refuses what does not fit, first
    ports = [(kernel, port) for kernel, port in all_ports(design) if port.role in CONSTANT_ROLES]
    digests: dict[str, str] = {}
    for number, (kernel, port) in enumerate(ports):
        say(f"image of {port.name}", 0.2 * number / len(ports))
        path, content = weights_path(kernel, port), image_of(compiled, kernel, port)
        digests[path] = manifest.digest(content)
        keep(path, content)
    say("golden vectors", 0.2)
    golden = golden_run(compiled)
    for path, content in golden.files.items():
        digests[path] = manifest.digest(content)
        keep(path, content)
    say("text", 0.6)
    texts.update(design_sources(design))
    texts.update(testbench_files(design, golden))
    texts.update(tool_files(compiled))
    texts["README.md"] = readme(compiled, golden)
    texts[manifest.SUMS] = manifest.digests_text(digests)
    data = manifest.manifest(compiled, golden, digests)
    texts[manifest.FILE] = manifest.manifest_text(data)
    digest = manifest.digest(texts[manifest.FILE].encode())
    texts.update(host_files(compiled, golden, data, digest))
    # It names the manifest's digest, so that neither the manifest nor SHA256SUMS can name it.
    emulated = xclbin(design, compiled.board, digest)
    keep(f"emulation/{design.name}.xclbin", emulated)
    return texts


def design_sources(design: Design) -> dict[str, str]:
    """Kernels, the stage library and the simulation headers."""
    found = {"kernels/design.hpp": design_header(design), "sim/functional.cpp": functional_source(design)}
    found |= emulation_files(design)
    for kernel in design.kernels:
        found[f"kernels/{config_file(kernel)}"] = config_header(design, kernel)
        found[f"kernels/{kernel.name}.cpp"] = kernel_source(design, kernel)
    for header in sorted((INCLUDE / "t2f").glob("*.hpp")):
        found[f"include/t2f/{header.name}"] = header.read_text(encoding="utf-8")
    for header in sorted([*SIM.glob("*.h"), *SIM.glob("*.hpp")]):
        found[f"sim/{header.name}"] = header.read_text(encoding="utf-8")
    return found


def tool_files(compiled: manifest.Described) -> dict[str, str]:
    """What the tools are run with."""
    design, board = compiled.design, compiled.board
    kernels = [k.name for k in design.kernels]
    found = {
        "Makefile": render("Makefile.j2", design=design, board=board, kernels=kernels),
        "floorplan.tcl": floorplan(design, board),
        "emulation/timed.txt": timed_settings(design, board),
        **estimate_files(design, board),
    }
    period = f"{1000 / board.clock_mhz:.2f}"
    for kernel in design.kernels:
        for suffix in ("tcl", "cfg"):
            text = render(f"hls.{suffix}.j2", kernel=kernel.name, board=board, period=period)
            found[f"hls/{kernel.name}.{suffix}"] = text
    return found


def readme(compiled: manifest.Described, golden: Golden | None) -> str:
    """``README.md``; without golden vectors that of a project without weights."""
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
        weight_bytes=sum(port_bytes(port) for _, port in ports if port.role in CONSTANT_ROLES),
        golden=golden,
        golden_bytes=sum(len(content) for content in golden.files.values()) if golden is not None else 0,
    )


# -- writing ----------------------------------------------------------------------------------


def write_project(compiled: CompiledModel, path: Path, progress: Progress | None = None) -> list[Path]:
    """Write the project; the folder appears whole or not at all.

    Everything goes into a new folder beside ``path``, which then takes its name. A folder that
    holds a project of torch2fpga is replaced, but for ``build/``; any other non-empty folder is left alone.

    Args:
        progress: called with a phase's name and the fraction done.
    Returns:
        The files written.
    Raises:
        CompileError: if ``path`` is taken by something else or cannot be written.
    """

    def fill(keep: Callable[[str, bytes], None]) -> dict[str, str]:
        return make_project(compiled, keep, progress)

    return write_files(path, fill, progress)


def write_files(
    path: Path,
    fill: Callable[[Callable[[str, bytes], None]], Mapping[str, str]],
    progress: Progress | None = None,
) -> list[Path]:
    """As ``write_project``, for the texts that ``fill`` returns; binary files it hands over one by one."""
    target = Path(os.path.abspath(path)).resolve()
    _refuse_foreign(target)
    names: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target, "new") as fresh:

            def keep(name: str, content: bytes) -> None:
                names.append(name)
                _write(fresh / name, content)

            for name, text in sorted(fill(keep).items()):
                keep(name, text.encode())
            _refuse_foreign(target)
            _take_place(fresh, target)
    except OSError as error:
        raise CompileError(f"the project cannot be written to {target}: {error}") from error
    if progress is not None:
        progress("done", 1.0)
    return [target / name for name in sorted(names)]


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
    """Give the new folder the target's name; what was there goes only once that has worked.

    What the vendor's tools built stays: a build goes on by the digests of what its steps read.
    """
    if not target.exists():
        fresh.rename(target)
        return
    with _beside(target, "old") as aside:
        old = aside / target.name
        target.rename(old)
        try:
            if os.path.lexists(old / BUILT):
                (old / BUILT).rename(fresh / BUILT)
            fresh.rename(target)
        except BaseException:
            if os.path.lexists(fresh / BUILT):
                (fresh / BUILT).rename(old / BUILT)
            old.rename(target)
            raise
