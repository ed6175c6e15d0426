# SPDX-License-Identifier: Apache-2.0
"""Host programs of projects, and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch2fpga.compiled import CompiledModel
from torch2fpga.host.build import host_program
from torch2fpga.simulate.card import emulated_environment

FAULTS = Path(__file__).parent / "faults.cpp"


@dataclass(frozen=True)
class Program:
    """A project's host program and the environment that it runs in."""

    folder: Path
    path: Path
    environment: Mapping[str, str]

    @classmethod
    def written(cls, compiled: CompiledModel, folder: Path, environment: Mapping[str, str]) -> Program:
        """Write the project and compile its host program."""
        compiled.write(folder)
        return cls(folder, host_program(folder), environment)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it in the project's folder; ``variables`` are added to the environment."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("XCL_", "XILINX_", "T2F_"))}
        return subprocess.run(
            [str(self.path), *arguments], cwd=self.folder, env={**clean, **self.environment, **variables},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def fails(self, status: int, *arguments: str, **variables: str) -> str:
        """What it says on standard error where it ends with a status."""
        done = self.run(*arguments, **variables)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stderr

    def says(self, *arguments: str, **variables: str) -> str:
        """What it says on standard output where all is well."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def copied(self, to: Path) -> Program:
        """The same program on a copy of its project, to break."""
        shutil.copytree(self.folder, to)
        return replace(self, folder=to)


def on_card(program: Program, faults: str = "") -> Program:
    """The program with an emulated card instead of the driver that computes nothing."""
    return replace(program, environment=emulated_environment(program.folder, faults=faults))


def faults_library(to: Path) -> Path:
    """The library of ``faults.cpp``."""
    target = to / "faults.so"
    flags = [
        "-std=c++17",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fPIC",
        "-shared",
        "-isystem",
        "/usr/include/xrt",
    ]
    subprocess.run(["g++", *flags, str(FAULTS), "-o", str(target), "-ldl"], check=True, timeout=200)
    return target
