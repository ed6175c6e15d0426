# SPDX-License-Identifier: Apache-2.0
"""The scheduler, entered again and again: kernels of a card start one by one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from torch2fpga.simulate.build import SIM, compiler

HERE = Path(__file__).resolve().parent

WANTED = """\
nothing: writer free, reader free
full: writer busy, reader free
nothing goes on: 1 of 1 unfinished processes wait on a stream
  writer waits to write link/link (full, 3 of 3 tokens), read by a process unknown yet
no wait cycle among the processes known to share streams
refused: kernel writer still runs
took 0
took 1
took 2
unwound
3 of 5: writer free, reader free
took 3
took 4
2 of 4: writer free, reader busy
took 5
took 6
unwound
all: writer free, reader free
waits: writer free, reader busy
unwound
stopped
waits: writer free, reader busy
unwound
fenced: writer free, reader free process writer: reads beyond it
refused: kernel writer cannot start: an earlier one failed
"""


@pytest.mark.gxx
def test_kernels_that_are_launched_one_by_one(tmp_path: Path) -> None:
    program = tmp_path / "launches"
    command = [compiler(), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-DT2F_SIM", f"-I{SIM}"]
    subprocess.run([*command, str(HERE / "launches.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [line.rstrip() for line in done.stdout.splitlines()] == WANTED.splitlines()
