# SPDX-License-Identifier: Apache-2.0
"""Code that differs for synthesis, compiled with AMD's open ap_int and run: the same bits.

The headers are the Apache-licensed ap_* files of an installed package; everything else, the
stream among it, is this project's own.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from torch2fpga.simulate.build import INCLUDE, SIM

pytestmark = [pytest.mark.gxx, pytest.mark.needs("da4ml")]

SOURCE = Path(__file__).parent / "synthesis_cases.cpp"
#: AMD's open version of the types refuses to be taken for the one inside the HLS tool
WRAPPER = """\
#pragma push_macro("__SYNTHESIS__")
#undef __SYNTHESIS__
#include "amd/ap_int.h"
#pragma pop_macro("__SYNTHESIS__")
"""


def _package_headers() -> Path:
    """The folder of ap_int.h in the installed package, found without importing it."""
    spec = importlib.util.find_spec("da4ml")
    assert spec is not None and spec.submodule_search_locations
    (header,) = Path(spec.submodule_search_locations[0]).rglob("ap_int.h")
    return header.parent


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An include folder with nothing but the Apache-licensed ap_* headers."""
    source, folder = _package_headers(), tmp_path_factory.mktemp("include")
    for file in sorted([*source.glob("ap_*.h"), *source.glob("etc/ap_*.h")]):
        assert "Licensed under the Apache License, Version 2.0" in file.read_text()[:800], file
        target = folder / "amd" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (folder / "ap_int.h").write_text(WRAPPER)
    return folder


@pytest.fixture(scope="module")
def programs(include: Path) -> dict[str, Path]:
    """The same source, plain and as for synthesis."""
    own = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label"]
    own += [f"-I{INCLUDE}", f"-I{SIM}"]
    # Constructors of ap_int clear the upper bits of what they have not set yet.
    amd = ["-D__SYNTHESIS__", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    amd += [f"-isystem{include}", f"-isystem{include / 'amd'}"]
    running = {}
    for name, options in (("plain", []), ("synthesis", amd)):
        command = ["g++", *own, *options, str(SOURCE), "-o", str(include / name)]
        running[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for process in running.values():
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-6000:]
    return {name: include / name for name in running}


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
