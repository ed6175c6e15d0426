# SPDX-License-Identifier: Apache-2.0
"""Compile emitted C++ with g++; results are cached by the content of everything that goes in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch2fpga.errors import MissingTool, SimulationError

HLS = Path(__file__).resolve().parent.parent / "hls"
INCLUDE = HLS / "include"
SIM = HLS / "sim"
#: -fno-gnu-unique lets dlclose unload the library; every kernel takes `batch` and `seq`, also one
#: whose stages all have one row a sequence
FLAGS = ("-std=c++17", "-O2", "-march=native", "-DT2F_SIM", "-fPIC", "-fno-gnu-unique",
         "-fstack-clash-protection", "-Wall", "-Wextra",
         "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label", "-Wno-unused-parameter")  # fmt: skip

#: the simulation's own bodies are compiled once for all libraries of the same flags (``t2f_sim.hpp``)
APART = "-DT2F_SIM_APART"
RUNTIME = '#define T2F_SIM_BODIES\n#include "hls_stream.h"\n'


def compiler() -> str:
    """Path of g++.

    Raises:
        MissingTool: if there is none.
    """
    found = os.environ.get("CXX") or shutil.which("g++")
    if not found:
        raise MissingTool("g++ is not installed; the functional run compiles the emitted C++ (Debian: g++)")
    return found


def cache_directory() -> Path:
    """Where compiled libraries are kept (``TORCH2FPGA_CACHE``, or the user's cache directory)."""
    base = os.environ.get("TORCH2FPGA_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "torch2fpga"


def library_digest() -> str:
    """Content hash of the stage library and the simulation headers."""
    digest = hashlib.sha256()
    for folder in (INCLUDE, SIM):
        for path in sorted(folder.rglob("*.h*")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def build_library(sources: Mapping[str, str], flags: Sequence[str] = FLAGS, stages: bool = False) -> Path:
    """A shared library of the given C++ files (name -> text; ``.hpp`` files are headers).

    Args:
        stages: the files may find the whole stage library included before their first line, as they can
            where they define no macro for it.
    Raises:
        MissingTool: without g++.
        SimulationError: with the compiler's messages if it fails.
    """
    cxx, flags = compiler(), (*flags, APART)
    target = _target(cxx, (*flags, f"stages={stages}"), sources, ".so")
    if target.exists():
        return target
    runtime = _runtime(cxx, flags)
    ahead = ("-include", str(_headers(cxx, flags))) if stages else ()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        work = Path(folder)
        for name, text in sources.items():
            (work / name).write_text(text)
        units = sorted(n for n in sources if n.endswith(".cpp"))
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            objects = list(pool.map(lambda n: _compile(cxx, (*flags, *ahead), work, n), units))
        library = work / "library.so"
        _run([cxx, "-shared", "-o", str(library), *objects, str(runtime)])
        os.replace(library, target)
    return target


def _target(cxx: str, flags: Sequence[str], sources: Mapping[str, str], suffix: str) -> Path:
    """Where the result of these sources is kept."""
    digest = hashlib.sha256()
    for part in (cxx, *flags, library_digest(), _cpu()):
        digest.update(part.encode())
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name].encode())
    return cache_directory() / f"{digest.hexdigest()[:32]}{suffix}"


def _runtime(cxx: str, flags: Sequence[str]) -> Path:
    """The object that every library of these flags is linked with."""
    sources = {"runtime.cpp": RUNTIME}
    target = _target(cxx, flags, sources, ".o")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            (Path(folder) / "runtime.cpp").write_text(RUNTIME)
            os.replace(_compile(cxx, flags, Path(folder), "runtime.cpp"), target)
    return target


def _headers(cxx: str, flags: Sequence[str]) -> Path:
    """A header of the whole stage library, compiled beforehand: reading it anew would take a quarter of the
    time of most files. A compiler that cannot use it reads the text."""
    names = [f"t2f/{path.name}" for path in sorted((INCLUDE / "t2f").glob("*.hpp"))]
    text = "".join(f'#include "{name}"\n' for name in ("hls_stream.h", *names))
    target = _target(cxx, (*flags, "precompiled"), {"stages.hpp": text}, "")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            work = Path(folder) / "headers"
            work.mkdir()
            (work / "stages.hpp").write_text(text)
            _run([cxx, *flags, f"-I{INCLUDE}", f"-I{SIM}", "-x", "c++-header", str(work / "stages.hpp"),
                  "-o", str(work / "stages.hpp.gch")])  # fmt: skip
            with contextlib.suppress(OSError):  # another process was faster
                work.rename(target)
    return target / "stages.hpp"


def _cpu() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def _compile(cxx: str, flags: Sequence[str], work: Path, name: str) -> str:
    out = work / f"{name}.o"
    command = [cxx, *flags, f"-I{INCLUDE}", f"-I{SIM}", f"-I{work}", "-c", str(work / name), "-o", str(out)]
    _run(command)
    return str(out)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SimulationError(f"{command[0]} failed:\n{done.stderr[-6000:]}")
