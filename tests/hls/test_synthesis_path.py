# SPDX-License-Identifier: Apache-2.0
"""Code that differs for synthesis, compiled with AMD's open ap_int and run: the same bits.

The headers are the Apache-licensed ap_* files of an installed package; everything else, the
stream among it, is this project's own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.hls.amd_headers import copy_headers, synthesis_flags
from torch2fpga.simulate.build import INCLUDE, SIM

pytestmark = [pytest.mark.gxx, pytest.mark.needs("da4ml")]

SOURCE = Path(__file__).parent / "synthesis_cases.cpp"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same source, plain and as for synthesis."""
    folder = tmp_path_factory.mktemp("include")
    own = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label"]
    own += [f"-I{INCLUDE}", f"-I{SIM}"]
    running = {}
    for name, options in (("plain", []), ("synthesis", synthesis_flags(copy_headers(folder)))):
        command = ["g++", *own, *options, str(SOURCE), "-o", str(folder / name)]
        running[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for process in running.values():
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-6000:]
    return {name: folder / name for name in running}


def test_stages_give_the_same_bits_on_both_paths(programs: dict[str, Path]) -> None:
    plain, synthesis = (
        subprocess.run([programs[name], "run"], capture_output=True, timeout=300, check=True).stdout
        for name in ("plain", "synthesis")
    )
    assert len(plain) > 4 * 10_000
    assert plain == synthesis


def test_two_products_in_one_multiplier_are_exact(programs: dict[str, Path]) -> None:
    """All weights, all activations on one side against a grid on the other, sums at the limit."""
    done = subprocess.run([programs["synthesis"], "products"], capture_output=True, text=True, timeout=300)
    match = re.fullmatch(r"(\d+) compared, (\d+) different\n", done.stdout)
    assert match is not None, done.stdout + done.stderr
    assert (done.returncode, int(match.group(2))) == (0, 0)
    assert int(match.group(1)) > 1_000_000
