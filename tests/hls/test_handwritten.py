# SPDX-License-Identifier: Apache-2.0
"""The perceptron written by hand: the stage library against formulas that know nothing of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from examples.handwritten_mlp import generate

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "handwritten_mlp"
HLS = ROOT / "torch2fpga" / "hls"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label"]
#: functional: fibers on bounded streams; sequential: one process after the other, as C simulation
VARIANTS = {
    "functional": ["-O2", "-DT2F_SIM"],
    "sequential": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
#: (batch, seq): the largest, a tile that is not full, less than a tile, a single row
SIZES = [(3, 8), (2, 7), (1, 3), (1, 1)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both variants of the test bench."""
    folder = tmp_path_factory.mktemp("handwritten")
    sources = [EXAMPLE / "kernels" / "handwritten_mlp.cpp", EXAMPLE / "tb.cpp"]
    running = {}
    for name, options in VARIANTS.items():
        command = ["g++", *FLAGS, *options, f"-I{HLS / 'include'}", f"-I{HLS / 'sim'}", f"-I{EXAMPLE}"]
        command += [*map(str, sources), "-o", str(folder / name)]
        running[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for process in running.values():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return {name: folder / name for name in VARIANTS}


def _run(program: Path, folder: Path, batch: int, seq: int) -> subprocess.CompletedProcess[str]:
    command = [str(program), str(folder), str(batch), str(seq)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.gxx
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_numpy_formula(
    programs: dict[str, Path], tmp_path: Path, variant: str, size: tuple[int, int]
) -> None:
    batch, seq = size
    generate.write(tmp_path, batch, seq, seed=10 * batch + seq)
    done = _run(programs[variant], tmp_path, batch, seq)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS: 0 of ")


@pytest.mark.gxx
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_wrong_byte_is_found(programs: dict[str, Path], tmp_path: Path, variant: str) -> None:
    generate.write(tmp_path, 2, 7)
    golden = bytearray((tmp_path / "golden.bin").read_bytes())
    golden[-20] ^= 1  # in the last row
    (tmp_path / "golden.bin").write_bytes(golden)
    done = _run(programs[variant], tmp_path, 2, 7)
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: 1 of ")


@pytest.mark.gxx
def test_missing_data_is_an_error(programs: dict[str, Path], tmp_path: Path) -> None:
    done = _run(programs["functional"], tmp_path, 1, 1)
    assert done.returncode == 2
    assert "missing" in done.stderr


def test_the_data_reaches_every_corner() -> None:
    """ReLU, both ends of both formats, and ties of either sign occur in what is compared."""
    generator = np.random.default_rng(0)
    hidden, scores = generate.layers(generator)
    x = generator.integers(-127, 128, (200, generate.INPUTS), dtype=np.int64)
    between = hidden(x)
    result = scores(between)
    assert {0, 127} <= set(between.reshape(-1).tolist())
    assert {-(2**15), 2**15 - 1} <= set(result.reshape(-1).tolist())
    odd = (between @ scores.weight.T)[:, 0]
    odd = odd[odd % 2 == 1]
    assert (odd > 0).any() and (odd < 0).any()
    assert (2 * scores(between)[:, 0] - (between @ scores.weight.T)[:, 0]).max() == 1


@pytest.mark.needs("clang")
def test_passes_the_checker_of_emitted_projects() -> None:
    from torch2fpga.emit.check import check_project

    paths = [*sorted(EXAMPLE.glob("kernels/*")), EXAMPLE / "link.cfg"]
    files = {path.relative_to(EXAMPLE).as_posix(): path.read_text() for path in paths}
    assert check_project(files, include_dirs=[HLS / "include"]) == []


@pytest.mark.needs("clang")
def test_the_checker_would_find_a_stream_without_a_reader() -> None:
    from torch2fpga.emit.check import check_source

    config = (EXAMPLE / "kernels" / "handwritten_mlp_config.hpp").read_text()
    kernel = (EXAMPLE / "kernels" / "handwritten_mlp.cpp").read_text()
    text = config + kernel.replace('#include "handwritten_mlp_config.hpp"\n', "")
    good = check_source(text, path="handwritten_mlp.cpp", include_dirs=[HLS / "include"])
    assert good == []
    lines = [line for line in text.splitlines() if 'T2F_PROCESS("pack"' not in line]
    bad = check_source("\n".join(lines), path="handwritten_mlp.cpp", include_dirs=[HLS / "include"])
    assert {finding.rule for finding in bad} >= {"dataflow-channel"}
