# SPDX-License-Identifier: Apache-2.0
"""Compile a project's host program as its Makefile does; objects are cached by content."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch2fpga.errors import MissingTool, SimulationError, WeightsError
from torch2fpga.simulate.build import cache_directory, compiler

FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror")
LIBRARIES = ("-lxrt_coreutil", "-luuid", "-pthread")
#: where distributions put XRT's headers
SYSTEM = Path("/usr/include/xrt")
PROBE = "xrt/xrt_device.h"


def xrt_folders() -> tuple[Path, list[str]]:
    """XRT's include folder, and the linker's flags for its libraries.

    Raises:
        MissingTool: if there are no headers; names the places.
    """
    base = os.environ.get("XILINX_XRT")
    if base and (Path(base) / "include" / PROBE).exists():
        return Path(base) / "include", [f"-L{Path(base) / 'lib'}"]
    if (SYSTEM / PROBE).exists():
        return SYSTEM, []
    tried = [*([f"{base}/include/{PROBE}"] if base else ["XILINX_XRT (not set)"]), str(SYSTEM / PROBE)]
    raise MissingTool(
        f"XRT's headers are missing (looked for {', '.join(tried)}); "
        "Debian, Ubuntu: apt-get install libxrt-dev; with a card: source /opt/xilinx/xrt/setup.sh"
    )


def host_program(project: str | Path) -> Path:
    """The compiled host program of a project folder.

    Raises:
        WeightsError: if the folder holds no host sources.
        MissingTool: without g++ or XRT's headers.
        SimulationError: with the compiler's messages if it fails.
    """
    folder = Path(project).resolve() / "host"
    units, headers = sorted(folder.glob("*.cpp")), sorted(folder.glob("*.hpp"))
    if not any(u.name == "design.cpp" for u in units):
        raise WeightsError(f"{folder} holds no host program; write the project with CompiledModel.write")
    cxx, (include, libraries) = compiler(), xrt_folders()
    common = [cxx, *FLAGS, str(include)]
    for header in headers:
        common += [header.name, header.read_text(encoding="utf-8")]

    def object_of(unit: Path) -> Path:
        target = _target([*common, unit.name, unit.read_text(encoding="utf-8")], ".o")
        command = [cxx, *FLAGS, f"-I{folder}", "-isystem", str(include), "-c", str(unit)]
        return _made(target, command)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        objects = list(pool.map(object_of, units))
    names = [str(o) for o in objects]
    return _made(_target([*names, *libraries], ""), [cxx, *names, *libraries, *LIBRARIES])


def _target(parts: Sequence[str], suffix: str) -> Path:
    """Where the result of these inputs is kept."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return cache_directory() / f"host-{digest.hexdigest()[:32]}{suffix}"


def _made(target: Path, command: Sequence[str]) -> Path:
    """The target, made by a command where it is not there; it appears whole or not at all."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        made = Path(folder) / target.name
        done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SimulationError(f"{command[0]} failed:\n{done.stderr[-6000:]}")
        os.replace(made, target)
    return target
