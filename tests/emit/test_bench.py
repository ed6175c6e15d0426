# SPDX-License-Identifier: Apache-2.0
"""The emitted test bench: passes with g++, under sanitizers and in plain C++14; finds damage."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.emit.projects import SANITIZERS, bench, build_plain, copy_of, make, renew_sums, write
from tests.tiny import compiled, named
from torch2fpga.emit.testbench import parameter_slice

pytestmark = [pytest.mark.gxx, pytest.mark.needs("make")]


def summary(output: str) -> tuple[int, int]:
    """(passed, failed) as the last line says."""
    match = re.search(r"^(\d+) passed, (\d+) failed\n\Z", output, re.MULTILINE)
    assert match is not None, output
    return int(match.group(1)), int(match.group(2))


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project, its test bench built, and what ``make csim_gxx`` printed."""
    project = write(compiled("mlp2d"), tmp_path_factory, "mlp")
    return project, make(project, "csim_gxx", "CXXFLAGS=-O0")


def test_every_kernel_and_stage_passes(mlp: tuple[Path, str]) -> None:
    design = compiled("mlp2d").design
    assert summary(mlp[1]) == (len(design.stages) + len(design.kernels) + 1, 0)
    for name in (*(s.name for s in design.stages), *(k.name for k in design.kernels), design.name):
        assert re.search(rf"^(stage |kernel|design) {name} +ok +[1-9]\d* tokens$", mlp[1], re.MULTILINE), name


@pytest.mark.slow
@pytest.mark.parametrize("name", named("bert", "gpt2_mask"))
def test_passes_under_sanitizers(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    design = compiled(name).design
    project = write(compiled(name), tmp_path_factory, name)
    output = make(project, "csim_sanitize", f"SANITIZE={SANITIZERS}")
    assert summary(output) == (len(design.stages) + len(design.kernels) + 1, 0)
    assert "FAIL" not in output


@pytest.mark.slow
@pytest.mark.hf
def test_passes_as_c_simulation_compiles_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """C++14, a stream without any runtime behind it, run from a folder deep below the project."""
    design = compiled("bert").design
    project = write(compiled("bert"), tmp_path_factory, "plain")
    program = build_plain(project)
    below = project / "build" / "hls" / "csim" / "build"
    below.mkdir(parents=True)
    done = subprocess.run([program], cwd=below, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary(done.stdout) == (len(design.stages) + len(design.kernels), 0)
    done = subprocess.run([program, "--kernels"], cwd=below, capture_output=True, text=True, check=False)
    assert summary(done.stdout) == (len(design.kernels), 0)


def test_tests_are_chosen_by_name(mlp: tuple[Path, str]) -> None:
    done = bench(mlp[0], "linear", "linear_1")
    assert done.returncode == 0 and summary(done.stdout) == (2, 0)
    done = bench(mlp[0], "no_such_stage")
    assert done.returncode != 0 and summary(done.stdout) == (0, 0)


def _first(output: str, name: str) -> str:
    (line,) = [x for x in output.splitlines() if x.split()[1:2] == [name]]
    return line


def test_a_wrong_golden_value_is_found_by_comparison(mlp: tuple[Path, str], tmp_path: Path) -> None:
    project = copy_of(mlp[0], tmp_path / "p")
    file = project / "golden" / "linear_acc.bin"
    data = bytearray(file.read_bytes())
    data[32 * 2 + 4 * 3] ^= 1  # token 2, lane 3 of eight int32
    file.write_bytes(data)
    renew_sums(project)
    done = bench(project, "linear")
    assert done.returncode != 0 and summary(done.stdout) == (0, 1)
    line = _first(done.stdout, "linear")
    assert "FAIL  golden/linear_acc.bin: first difference at token 2 lane 3: got" in line
    match = re.search(r"got (-?\d+) expected (-?\d+) \(1 of 9 differ\)$", line)
    assert match is not None and int(match.group(1)) ^ int(match.group(2)) == 1
    everything = bench(project)
    assert everything.returncode != 0 and "FAIL" in _first(everything.stdout, "linear")
    assert "FAIL" not in _first(everything.stdout, "linear_1")


def test_missing_and_extra_tokens_are_found(mlp: tuple[Path, str], tmp_path: Path) -> None:
    project = copy_of(mlp[0], tmp_path / "p")
    golden = project / "golden"
    outputs = golden / "linear_acc.bin"
    outputs.write_bytes(outputs.read_bytes()[:-32])
    inputs = golden / "linear_mac.bin"
    inputs.write_bytes(inputs.read_bytes() + bytes(8))
    memory = golden / "output0_out.bin"
    memory.write_bytes(memory.read_bytes()[:-64])
    renew_sums(project)
    done = bench(project)
    assert done.returncode != 0
    assert "9 tokens, expected 8" in _first(done.stdout, "linear")
    assert "linear_mac: 1 tokens were not read" in done.stdout
    assert "behind it was written" in _first(done.stdout, "output0")
    inputs.write_bytes(inputs.read_bytes()[:-16])
    renew_sums(project)
    assert "read of the empty stream linear_mac" in _first(bench(project).stdout, "linear_1")


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("golden/linear_acc.bin", "linear"),
        ("weights/linear_weights_in.bin", "linear"),
        ("weights/sequential_0_parameters.bin", "linear_mac_requant"),
    ],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_files_are_found_by_checksum(
    mlp: tuple[Path, str], tmp_path: Path, file: str, stage: str, damage: str
) -> None:
    project = copy_of(mlp[0], tmp_path / "p")
    path = project / file
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-64] if damage == "cut" else bytes([data[0] ^ 128]) + data[1:])
    done = bench(project)
    assert done.returncode != 0
    line = _first(done.stdout, stage)
    wanted = f"{file} is missing" if damage == "remove" else "corrupt or truncated: its checksum is wrong"
    assert "FAIL" in line and file in line and wanted in line
    renew_sums(project)
    if damage == "cut":  # sizes are checked by themselves too
        assert "FAIL" in _first(bench(project).stdout, stage)


def test_checksums_are_as_the_tool_reads_them(mlp: tuple[Path, str], tmp_path: Path) -> None:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=mlp[0], check=False).returncode == 0
    project = copy_of(mlp[0], tmp_path / "p")
    (project / "SHA256SUMS").unlink()
    done = bench(project, "linear")
    assert done.returncode != 0 and "SHA256SUMS is neither here nor in a folder above" in done.stdout


def test_a_tight_stack_is_enough(mlp: tuple[Path, str]) -> None:
    command = ["sh", "-c", "ulimit -S -s 256 && exec build/gxx/tb_run"]
    done = subprocess.run(command, cwd=mlp[0], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_makefile_says_what_is_missing(mlp: tuple[Path, str]) -> None:
    output = make(mlp[0], "check_tools")
    assert re.search(r"^(found|missing) +vitis_hls", output, re.MULTILINE)
    assert "csim_gxx" in make(mlp[0], "help")
    environment = {"PATH": "/usr/bin:/bin"}
    for target, missing in (("csim", "vitis_hls"), ("hw", "v++")):
        command = ["make", "-C", str(mlp[0]), target]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode != 0 and (missing in done.stderr or "Vitis HLS" in done.stderr)


STUB = """#!/bin/sh
echo "$T2F_STEP ${0##*/} $*" >> "$LOG"
while [ $# -gt 0 ]; do
  if [ "$1" = -o ]; then : > "$2"; fi
  shift
done
"""


def test_the_makefile_runs_the_vendor_tools(mlp: tuple[Path, str], tmp_path: Path) -> None:
    """With stand-ins for the tools: which are called, in which order, on which files."""
    project, tools = copy_of(mlp[0], tmp_path / "p"), tmp_path / "tools"
    tools.mkdir()
    for name in ("vitis_hls", "vitis-run", "v++"):
        (tools / name).write_text(STUB)
        (tools / name).chmod(0o755)

    def calls(*arguments: str) -> list[str]:
        log = tmp_path / "log"
        log.write_text("")
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "LOG": str(log)}
        command = ["make", "-C", str(project), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return [line.strip() for line in log.read_text().splitlines()]

    tcl = "vitis_hls -f ../../hls/sequential_0.tcl"
    assert calls("csim", "csynth", "cosim") == [f"{step} {tcl}" for step in ("csim", "csynth", "cosim")]
    flow = calls("csim", "cosim", "HLS_FLOW=cfg")
    at = "--config hls/sequential_0.cfg --work_dir build/hls/sequential_0"
    assert flow == [
        f"vitis-run --mode hls --csim {at}",
        f"v++ --compile --mode hls {at}",
        f"vitis-run --mode hls --cosim {at}",
    ]
    for target in ("sw_emu", "hw_emu", "hw"):
        compile_kernel, link, package = calls(target)
        platform = "--platform xilinx_u280_gen3x16_xdma_1_202211_1"
        assert compile_kernel.startswith("v++ -c ") and f"-t {target} {platform}" in compile_kernel
        assert compile_kernel.endswith(
            f"-k sequential_0 --temp_dir build/{target}/_x -Iinclude -Ikernels "
            f"-o build/{target}/sequential_0.xo kernels/sequential_0.cpp"
        )
        assert link.startswith("v++ -l ") and link.endswith(
            f"--config link.cfg -o build/{target}/sequential.link.xclbin build/{target}/sequential_0.xo"
        )
        assert package.startswith(f"v++ -p build/{target}/sequential.link.xclbin ")
        assert package.endswith(f"-o build/{target}/sequential.xclbin")
        assert calls(target) == []


@pytest.mark.hf
def test_parameter_slices_cover_the_images() -> None:
    """Every word of the parameter image belongs to exactly one stage and step."""
    model = compiled("bert")
    taken: list[int] = []
    for stage in model.design.stages:
        if stage.params:
            first, words, stride, steps = parameter_slice(model.design, stage)
            taken += [first + step * stride + i for step in range(steps) for i in range(words)]
    (kernel, *others) = (k.name for k in model.design.kernels)
    assert sorted(taken) == list(range(len(model.images[f"{kernel}_parameters"]) // 64))
    assert others and not any(f"{k}_parameters" in model.images for k in others)
