# SPDX-License-Identifier: Apache-2.0
"""The host program with XRT's real library and its no-op driver: command line, files, xclbin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.emit.projects import make
from tests.host.programs import Program
from torch2fpga.emit.manifest import read_manifest

pytestmark = [pytest.mark.xrt, pytest.mark.gxx, pytest.mark.hf]


def xclbin_of(program: Program) -> Path:
    (path,) = (program.folder / "emulation").glob("*.xclbin")
    return path


# -- command line -----------------------------------------------------------------------------


def test_help_teaches(gpt2: Program, mlp: Program) -> None:
    text = gpt2.says("--help")
    for word in ("--prompt-ids 1,2,3 --tokens 20", "--verify", "--recover", "Exit codes: 0 done, 1 "):
        assert word in text
    assert "--input" not in text
    assert "--input PORT=FILE" in mlp.says("--help") and "--prompt-ids" not in mlp.says("--help")


def test_list_says_ports_as_the_manifest(gpt2: Program) -> None:
    lines = gpt2.says("--list").splitlines()
    for port in read_manifest(gpt2.folder)["ports"]:
        (line,) = [x for x in lines if x.startswith(f"port {port['argument']}:")]
        assert f"argument {port['index']} of {port['kernel']}, " in line
        assert f" {port['bytes']} bytes in HBM[{port['hbm']}]" in line
        assert (port["file"] or "") in line


def test_everything_wrong_is_said_at_once(gpt2: Program) -> None:
    wrong = ["--foo", "--tokens", "x", "--temperature", "-1", "--seed", "-3", "--device", "a;b", "--top-k"]
    text = gpt2.fails(2, "--prompt-ids", "1,,3", *wrong, "65", "--json")
    parts = ["unknown option --foo", '--tokens is "x"', '--temperature is "-1"', '--seed is "-3"']
    parts += ['--device is "a;b"', '--prompt-ids is ""', "from 1 to 64", "--json needs a value"]
    assert [p for p in parts if p not in text] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "nothing to do: give --verify"),
        (["--verify", "--bench"], "one action at a time"),
        (["--verify", "--prompt-ids", "1"], "not together with another action"),
        (["--prompt-ids", "1", "--batch", "1"], "this design generates tokens"),
        (["--serve", "--recover"], "--recover: not with --serve"),
        (["--prompt-ids", "1,101"], "id 101 at 1; expected ids in 0..100"),
        (["--prompt-ids", "1", "--tokens", "62"], "--tokens 62: from 1 to 61 fit behind 1"),
        (["--prompt-ids", ",".join(["1"] * 62)], "62 tokens; compiled for texts of 61"),
        (["--prompt-ids", "1", "--tokens-per-launch", "62"], "compiled for 1 to 61"),
    ],
)
def test_wrong_requests(gpt2: Program, arguments: list[str], text: str) -> None:
    assert text in gpt2.fails(2, *arguments)


def test_wrong_inputs_of_a_plain_model(mlp: Program, tmp_path: Path) -> None:
    text = mlp.fails(2, "--prompt-ids", "1", "--tokens", "3", "--input", "x=y")
    assert "--prompt-ids: this design generates no tokens" in text and "with a port of this design" in text
    assert '--batch is "9"' in mlp.fails(2, "--bench", "--batch", "9")
    inputs = [p["argument"] for p in read_manifest(mlp.folder)["ports"] if p["role"] == "rows"]
    outputs = [p["argument"] for p in read_manifest(mlp.folder)["ports"] if p["role"] == "output"]
    assert f"--output {outputs[0]}=FILE is missing" in mlp.fails(2, "--input", f"{inputs[0]}=a")
    (tmp_path / "short").write_bytes(bytes(65))
    given = ["--input", f"{inputs[0]}={tmp_path / 'short'}", "--output", f"{outputs[0]}={tmp_path / 'out'}"]
    assert "short has 65 bytes; a launch of 2 x 5 rows takes " in mlp.fails(1, *given)
    given[1] = f"{inputs[0]}={tmp_path / 'none'}"
    assert "none is missing" in mlp.fails(1, *given)
    assert not (tmp_path / "out").exists()


# -- files ------------------------------------------------------------------------------------


def test_check_needs_no_card(gpt2: Program) -> None:
    text = gpt2.says("--check", XCL_EMULATION_MODE="")
    assert text == "manifest, weights and golden vectors are those of gpt_2_lm_head_model\n"


def test_all_wrong_weights_are_said_at_once(gpt2: Program, tmp_path: Path) -> None:
    program = gpt2.copied(tmp_path / "project")
    files = sorted((program.folder / "weights").iterdir())
    assert len(files) >= 3
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    content = bytearray(files[2].read_bytes())
    content[7] ^= 1
    files[2].write_bytes(content)
    for action in ("--check", "--verify"):
        text = program.fails(1, action)
        assert f"weights/{files[0].name} is missing" in text
        assert f"weights/{files[1].name} has {len(files[1].read_bytes())} bytes, expected" in text
        assert "it is cut off" in text
        assert f"weights/{files[2].name} has SHA-256 " in text and "another model" in text


def test_a_file_that_is_no_file(gpt2: Program, tmp_path: Path) -> None:
    program = gpt2.copied(tmp_path / "project")
    file = sorted((program.folder / "weights").iterdir())[0]
    file.unlink()
    file.mkdir()
    assert f"weights/{file.name} is no file" in program.fails(1, "--verify")


def test_a_file_that_may_not_be_read(gpt2: Program) -> None:
    """Root may read everything: as root the program runs as nobody."""
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        folder = gpt2.copied(Path(base) / "project").folder
        program = shutil.copy(gpt2.path, Path(base) / "host")
        file = sorted((folder / "weights").iterdir())[0]
        file.chmod(0)
        done = subprocess.run(
            [program, "--check"], cwd=folder, capture_output=True, text=True, check=False,
            user=65534 if os.geteuid() == 0 else None,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"weights/{file.name} may not be read by this user (permission denied)" in done.stderr


def test_wrong_golden_vectors(gpt2: Program, tmp_path: Path) -> None:
    program = gpt2.copied(tmp_path / "project")
    file = program.folder / "golden" / "tokens_out.bin"
    file.write_bytes(bytes(8))
    assert "golden/tokens_out.bin has SHA-256 " in program.fails(1, "--verify")


def test_another_projects_folder(gpt2: Program, mlp: Program, tmp_path: Path) -> None:
    text = gpt2.fails(1, "--verify", "--project", str(mlp.folder))
    assert "the folder holds another project or version" in text
    text = gpt2.fails(1, "--check", "--project", str(tmp_path))
    assert "manifest.json is missing; run this program in the folder of the project gpt_2" in text


# -- xclbin -----------------------------------------------------------------------------------


def test_another_designs_xclbin(gpt2: Program, mlp: Program) -> None:
    text = gpt2.fails(1, "--verify", "--xclbin", str(xclbin_of(mlp)))
    assert "is the wrong xclbin for gpt_2_lm_head_model" in text
    assert "kernel gpt_2_lm_head_model_0 is missing" in text and "is not known here" in text
    assert "it was made for the design " in text


def test_another_manifests_xclbin(gpt2: Program, tmp_path: Path) -> None:
    content = bytearray(xclbin_of(gpt2).read_bytes())
    sum_at = content.index(b"manifest_sha256") + 19
    content[sum_at] = ord("f") if content[sum_at] != ord("f") else ord("0")
    (tmp_path / "other.xclbin").write_bytes(content)
    text = gpt2.fails(1, "--verify", "--xclbin", str(tmp_path / "other.xclbin"))
    assert "it was made for a manifest with SHA-256" in text and "kernel" not in text


def changed(program: Program, tmp_path: Path, old: bytes, new: bytes) -> str:
    """What the program says of its xclbin with one text replaced by another of the same length."""
    content = xclbin_of(program).read_bytes()
    assert old in content and len(old) == len(new)
    (tmp_path / "changed.xclbin").write_bytes(content.replace(old, new))
    return program.fails(1, "--verify", "--xclbin", str(tmp_path / "changed.xclbin"))


def test_arguments_and_banks_that_differ(gpt2: Program, tmp_path: Path) -> None:
    text = changed(gpt2, tmp_path, b'arg name="tokens_out"', b'arg name="tokens_uot"')
    assert " is tokens_uot, expected tokens_out" in text
    text = changed(gpt2, tmp_path, b"HBM[3]", b"HBM[x]")
    assert "is connected to HBM[x], expected HBM[3]" in text


@pytest.mark.parametrize("size", [0, 100, 500, 3000])
def test_an_xclbin_that_is_cut_off(gpt2: Program, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.xclbin").write_bytes(xclbin_of(gpt2).read_bytes()[:size])
    text = gpt2.fails(1, "--verify", "--xclbin", str(tmp_path / "cut.xclbin"))
    assert "is no xclbin that can be used" in text


def test_the_xclbin_that_is_not_made_yet(gpt2: Program) -> None:
    text = gpt2.fails(1, "--verify", XCL_EMULATION_MODE="")
    assert "build/hw/gpt_2_lm_head_model.xclbin is missing; make it with `make hw`" in text


# -- a device that computes nothing -----------------------------------------------------------


def test_verify_is_never_equal_without_a_computation(gpt2: Program, mlp: Program, tmp_path: Path) -> None:
    for program in (gpt2, mlp):
        done = program.run("--verify", "--json", str(tmp_path / "verify.json"))
        assert done.returncode == 1
        assert "first difference at byte 0: " in done.stderr and "DIFFERS" in done.stdout
        found = json.loads((tmp_path / "verify.json").read_text())
        assert found["equal"] is False and found["compared_bytes"] > 0
        roles = [p["role"] for p in read_manifest(program.folder)["ports"]]
        assert (
            len(found["differences"])
            == roles.count("output") + roles.count("tokens") + roles.count("cache") / 2
        )


def test_bench_figures_hang_together(gpt2: Program, tmp_path: Path) -> None:
    arguments = [
        "--bench",
        "--seconds",
        "0.2",
        "--tokens-per-launch",
        "1",
        "--json",
        str(tmp_path / "b.json"),
    ]
    gpt2.says(*arguments)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["launches"] == found["tokens"] and found["tokens_per_launch"] == 1
    assert found["seconds"] >= 0.2 and found["power_w"] is None and found["power_source"] == "not available"
    latency = found["latency_us"]
    assert 0 < latency["min"] <= latency["median"] <= latency["p99"] <= latency["max"]
    per_token = 1e6 / found["tokens_per_s"]
    assert found["wait_us_per_token"] + found["host_us_per_token"] == pytest.approx(per_token, rel=1e-3)
    # Everything that the host does for a token of its own launch.
    assert found["host_us_per_token"] <= 20


def test_bench_of_a_plain_model(mlp: Program, tmp_path: Path) -> None:
    mlp.says("--bench", "--launches", "50", "--batch", "2", "--seq", "3", "--json", str(tmp_path / "b.json"))
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["launches"] == 50 and (found["batch"], found["seq"]) == (2, 3)
    assert found["sequences_per_s"] == pytest.approx(2 * found["launches_per_s"], rel=1e-4)


# -- the Makefile -----------------------------------------------------------------------------


@pytest.mark.slow
def test_make_host(mlp: Program, tmp_path: Path) -> None:
    folder = mlp.copied(tmp_path / "project").folder
    make(folder, "host", "CXXFLAGS=-O0")
    program = Program(folder, folder / "build" / "host" / "host", mlp.environment)
    assert program.says("--list") == mlp.says("--list")


def test_make_host_without_xrt(mlp: Program, tmp_path: Path) -> None:
    folder = mlp.copied(tmp_path / "project").folder
    command = ["make", "-C", str(folder), "host", f"XRT_INCLUDE={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "XRT's headers are missing" in done.stderr and "apt-get install libxrt-dev" in done.stderr
