# SPDX-License-Identifier: Apache-2.0
"""Building emitted projects with g++ and running their test benches."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.manifest import sums_text

#: -O0 compiles in a third of the time, and UBSan then sees what an optimiser would remove
SANITIZERS = "-O0 -fsanitize=address,undefined -fno-sanitize-recover=all"
PLAIN = Path(__file__).parent / "plain"


def write(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """The project of a compiled model in a folder of its own."""
    path = tmp_path_factory.mktemp("project") / name
    compiled.write(path)
    return path


def make(project: Path, *arguments: str) -> str:
    """Run make in a project; what it printed. Fails the test if make fails."""
    command = ["make", "--no-print-directory", "-j2", "-C", str(project), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
    return done.stdout


def bench(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the test bench that ``make csim_gxx`` has built, in the project's folder."""
    command = [str(project / "build" / "gxx" / "tb_run"), *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)


def build_plain(project: Path) -> Path:
    """The test bench as C simulation compiles it: C++14, no runtime of ours, no functional run."""
    units = [*project.glob("kernels/*.cpp"), *project.glob("tb/*.cpp")]
    units = sorted(u for u in units if u.name != "design_tb.cpp")
    folders = [project / "include", project / "kernels", project / "tb", PLAIN]
    target = project / "build" / "plain"
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-std=c++14", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-Wno-unused-label", *(f"-I{f}" for f in folders), *map(str, units), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-8000:]
    return target


def copy_of(project: Path, to: Path) -> Path:
    """A copy to break, its test bench included."""
    shutil.copytree(project, to)
    return to


def renew_sums(project: Path) -> None:
    """Checksums of the files as they are now."""
    files = [*project.glob("golden/*.bin"), *project.glob("weights/*.bin")]
    blobs = {f.relative_to(project).as_posix(): f.read_bytes() for f in files}
    (project / "SHA256SUMS").write_text(sums_text(blobs))
