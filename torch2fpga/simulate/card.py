# SPDX-License-Identifier: Apache-2.0
"""The emulated card: a host program runs through the real XRT library, its kernels through g++.

XRT's no-op driver opens a device, reads the project's xclbin and completes runs without computing; a
library of ours in front of it (``hls/card``) computes with the kernels of the project. What it checks
and what it cannot: docs/emulated-card.md.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from torch2fpga.emit.card import BRIDGE, CARD, FOLDER
from torch2fpga.errors import MissingTool, SimulationError, WeightsError
from torch2fpga.simulate.build import (
    FLAGS,
    INCLUDE,
    SIM,
    build_library,
    cache_directory,
    compiler,
)
from torch2fpga.simulate.timed import TimedRun

#: XRT's headers as the distributions' packages put them, and the file that shows that they are there
HEADERS, HEADER = Path("/usr/include/xrt"), "xrt/xrt_bo.h"
#: what the host program finds through ``XCL_EMULATION_MODE=noop``
DRIVER = "libxrt_noop.so.2"
#: of a simulation's flags those that concern kernels only
KERNEL_FLAGS = ("-DT2F_SIM", "-march=native")


def emulated_environment(
    project: str | Path,
    *,
    faults: str = "",
    log: str | Path | None = None,
    timed: bool = False,
    lock: str | Path | None = None,
) -> dict[str, str]:
    """The environment in which a host program of the project finds the emulated card.

    Args:
        project: folder written by ``CompiledModel.write``.
        faults: what goes wrong (docs/emulated-card.md), or nothing.
        log: file that the card appends a JSON object a line to.
        timed: the timed build computes, and its cycles go to the log; starts of all kernels go through it
            together.
        lock: file that stands for the card: of processes that are given the same one, one at a time can open
            kernels for itself alone. Without it every process has a card of its own.
    Returns:
        The variables of this process and those of the emulated card.
    Raises:
        MissingTool: with all that is missing: g++, XRT's headers, its no-op driver.
        WeightsError: if the folder holds no project of this version of torch2fpga.
        SimulationError: if the C++ does not build, or the cache's path has a blank or colon.
    """
    headers, driver = _tools()
    root = Path(project).resolve()
    values = {
        "XCL_EMULATION_MODE": "noop",
        "XILINX_XRT": str(_xrt_folder(driver)),
        "T2F_CARD_LIBRARY": str(card_library(root)),
    }
    if faults:
        values["T2F_CARD_FAULTS"] = faults
    if log is not None:
        values["T2F_CARD_LOG"] = str(Path(log).resolve())
    if lock is not None:
        values["T2F_CARD_LOCK"] = str(Path(lock).resolve())
    if timed:
        values["T2F_CARD_TIMED"] = str(_timed_library(root))
        values["T2F_CARD_TIMED_SETTINGS"] = str(_present(root / FOLDER / "timed.txt"))
    preloaded = os.environ.get("LD_PRELOAD")
    bridge = str(bridge_library(headers))
    if any(c in bridge for c in " :"):
        raise SimulationError(
            f"{bridge}: a blank or colon ends a name in LD_PRELOAD; set TORCH2FPGA_CACHE to another folder"
        )
    values["LD_PRELOAD"] = f"{bridge}:{preloaded}" if preloaded else bridge
    kept = {k: v for k, v in os.environ.items() if not k.startswith("T2F_CARD_")}
    return kept | values


def bridge_library(headers: Path = HEADERS) -> Path:
    """The library that goes in front of XRT's, built once for all designs."""
    sources = {
        file.name: file.read_text(encoding="utf-8")
        for file in sorted([*BRIDGE.glob("*.cpp"), *BRIDGE.glob("*.hpp")])
    }
    flags = [f for f in FLAGS if f not in KERNEL_FLAGS]
    return build_library(sources, (*flags, "-fvisibility=hidden", f"-isystem{headers}"))


def card_library(project: Path) -> Path:
    """The kernels of a project behind the interface ``t2f_card.hpp``.

    Raises:
        WeightsError: see ``emulated_environment``.
        SimulationError: if the C++ does not build.
    """
    sources = _kernels(project)
    for file in (project / FOLDER / CARD, project / FOLDER / "t2f_card.hpp"):
        sources[file.name] = _present(file).read_text(encoding="utf-8")
    return build_library(sources)


def _timed_library(project: Path) -> Path:
    """The same kernels with a clock in every process."""
    sources = _kernels(project)
    sources["functional.cpp"] = _present(project / "sim" / "functional.cpp").read_text(encoding="utf-8")
    return build_library(sources, (*FLAGS, *TimedRun.flags))


def _kernels(project: Path) -> dict[str, str]:
    """File name -> text of a project's kernels; its other headers must be those of this package."""
    folder = project / "kernels"
    files = sorted([*folder.glob("*.cpp"), *folder.glob("*.hpp")])
    if not files:
        raise WeightsError(f"{project} holds no kernels; write the project with CompiledModel.write")
    if any(_headers(project / name) != _headers(ours) for name, ours in (("include", INCLUDE), ("sim", SIM))):
        raise WeightsError(
            f"{project} was written by another version of torch2fpga: its include/ and sim/ differ from "
            f"{INCLUDE} and {SIM}; write it again, or run: make -C {project} run_emulated"
        )
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _headers(folder: Path) -> dict[str, bytes]:
    """Path in the folder -> content of every header."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.h*")}


def _present(file: Path) -> Path:
    """The file, which a project of this version has."""
    if not file.is_file():
        raise WeightsError(f"{file} is missing; write the project again with CompiledModel.write")
    return file


# -- XRT --------------------------------------------------------------------------------------


def _tools() -> tuple[Path, Path]:
    """XRT's include folder and its no-op driver.

    Raises:
        MissingTool: with all that is missing.
    """
    problems: list[str] = []
    headers = HEADERS
    if not (headers / HEADER).is_file():
        problems.append(f"XRT's headers ({headers / HEADER}; Debian, Ubuntu: apt-get install libxrt-dev)")
    driver = None
    try:
        places = _library_folders()
    except MissingTool as error:
        problems.insert(0, f"g++ ({error})")
    else:
        driver = next((p / DRIVER for p in places if (p / DRIVER).is_file()), None)
        if driver is None:
            where = ", ".join(str(p) for p in places)
            problems.append(f"{DRIVER} (in {where}; Debian, Ubuntu: apt-get install libxrt1)")
    if problems or driver is None:
        raise MissingTool("the emulated card needs " + "; ".join(problems))
    return headers, driver


def _library_folders() -> Sequence[Path]:
    """Where the compiler looks for libraries.

    Raises:
        MissingTool: without g++.
    """
    command = [compiler(), "-print-search-dirs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((x for x in done.stdout.splitlines() if x.startswith("libraries:")), "")
    found = line.partition("=")[2].split(":")
    return list(dict.fromkeys(Path(p).resolve() for p in found if p and Path(p).is_dir()))


def _xrt_folder(driver: Path) -> Path:
    """A folder whose ``lib`` holds the driver, where XRT looks for it (``XILINX_XRT``)."""
    name = hashlib.sha256(str(driver).encode()).hexdigest()[:16]
    folder = cache_directory() / f"xrt-{name}"
    link = folder / "lib" / DRIVER
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        fresh = link.with_name(f"{DRIVER}.{os.getpid()}")
        fresh.symlink_to(driver)
        os.replace(fresh, link)
    return folder
