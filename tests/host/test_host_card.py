# SPDX-License-Identifier: Apache-2.0
"""The host program on an emulated card: what it computes, and what it does when the card fails."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.host.programs import Program, on_card
from tests.runtime.generation_samples import new, text
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.golden import example_inputs
from torch2fpga.emit.manifest import read_manifest
from torch2fpga.simulate.card import emulated_environment

pytestmark = [pytest.mark.xrt, pytest.mark.gxx, pytest.mark.hf]
PROMPT = text(17)  # three launches of at most 7 rows
IDS = ",".join(str(i) for i in PROMPT[0].tolist())


@pytest.fixture(scope="module")
def card(gpt2: Program) -> Program:
    return on_card(gpt2)


@pytest.fixture(scope="module")
def plain_card(mlp: Program) -> Program:
    return on_card(mlp)


# -- values -----------------------------------------------------------------------------------


def test_golden_vectors_of_both_designs(card: Program, plain_card: Program, tmp_path: Path) -> None:
    for program in (card, plain_card):
        assert "verify: equal" in program.says("--verify", "--json", str(tmp_path / "v.json"))
        found = json.loads((tmp_path / "v.json").read_text())
        assert found["equal"] is True and found["differences"] == [] and found["compared_bytes"] > 100


@pytest.mark.parametrize("step", [1, 4, 61])
def test_tokens_are_those_of_the_compiled_model(
    card: Program, generating: CompiledModel, tmp_path: Path, step: int
) -> None:
    found = card.says(
        "--prompt-ids", IDS, "--tokens", "20", "--tokens-per-launch", str(step), "--json", str(tmp_path / "g")
    )  # fmt: skip
    wanted = new(generating, PROMPT, 20)
    lines = [[int(t) for t in line.split()] for line in found.splitlines()]
    assert [t for line in lines for t in line] == wanted
    assert [len(line) for line in lines] == [min(step, 20 - at) for at in range(0, 20, step)]
    assert json.loads((tmp_path / "g").read_text())["tokens"] == wanted


def test_drawn_tokens_are_those_of_the_compiled_model(card: Program, generating: CompiledModel) -> None:
    for seed in (3, 2**63 + 5):
        options = {"top_k": 20, "temperature": 0.8, "seed": seed}
        given = ["--top-k", "20", "--temperature", "0.8", "--seed", str(seed)]
        found = card.says("--prompt-ids", IDS, "--tokens", "25", *given)
        assert [int(t) for t in found.split()] == new(generating, PROMPT, 25, do_sample=True, **options)
    greedy = new(generating, PROMPT, 25)
    assert [int(t) for t in found.split()] != greedy


def test_a_text_ends_where_it_is_told_to(card: Program, generating: CompiledModel) -> None:
    greedy = new(generating, PROMPT, 30)
    end = greedy[18]
    first = greedy.index(end)
    found = card.says("--prompt-ids", IDS, "--tokens", "30", "--eos", f"{end},{end}")
    assert [int(t) for t in found.split()] == greedy[: first + 1]


def test_launch_behind_launch_of_a_plain_model(
    plain_card: Program, plain: CompiledModel, faults: str, tmp_path: Path
) -> None:
    """Five different inputs in one file: each set of buffers is used more than once."""
    design, (spec,) = plain.design, plain.interface.inputs
    (base,) = example_inputs(plain.interface.inputs, 2, 3).values()
    packed, wanted = b"", b""
    for launch in range(5):
        inputs = {spec.name: torch.roll(base, launch, 2) * (1 + launch) / 3}
        buffers = plain.buffers(inputs)
        (port,) = (p for p in design.ports if p.role == "rows")
        packed += buffers[port.name].tobytes()
        result = plain.functional.run(buffers, 2, 3).buffers
        (out,) = (p for p in design.ports if p.role == "output")
        item = plain.interface.outputs[0]
        row = item.layout.blocks(design.shape.lanes) * design.shape.lanes * np.dtype(item.element).itemsize
        wanted += result[out.name].tobytes()[: -(-2 * 3 * row // 64) * 64]
    (tmp_path / "in").write_bytes(packed)
    given = ["--input", f"{port.name}={tmp_path / 'in'}", "--output", f"{out.name}={tmp_path / 'out'}"]
    given += ["--batch", "2", "--seq", "3"]
    assert plain_card.says(*given) == "5 launches\n"
    assert (tmp_path / "out").read_bytes() == wanted
    # A launch that is done before the outputs of the one in front of it are fetched.
    (tmp_path / "out").unlink()
    slow = f"{faults}:{plain_card.environment['LD_PRELOAD']}"
    plain_card.says(*given, LD_PRELOAD=slow, T2F_FAULT="late-start")
    assert (tmp_path / "out").read_bytes() == wanted
    # Launches are counted over both sets of buffers.
    hung = on_card(plain_card, "hang@launch=3").fails(1, *given, "--timeout-ms", "500")
    assert "launch 3 is not done after 500 ms" in hung


# -- figures ----------------------------------------------------------------------------------


def test_own_time_of_a_token(card: Program, gpt2: Program, tmp_path: Path) -> None:
    """Every token its own launch. XRT's driver that computes nothing has no work of an emulation in it."""
    arguments = ["--bench", "--tokens-per-launch", "1", "--json", str(tmp_path / "b.json")]
    for program in (gpt2, card):
        program.says(*arguments)
        found = json.loads((tmp_path / "b.json").read_text())
        assert found["seconds"] >= 1 and found["launches"] == found["tokens"] > 0
        if program is gpt2:
            assert 0 < found["host_cpu_us_per_token"] <= 20
    assert found["wait_us_per_token"] > found["host_us_per_token"] > 0


def test_two_processes_do_not_share_a_card(gpt2: Program, tmp_path: Path) -> None:
    program = replace(gpt2, environment=emulated_environment(gpt2.folder, lock=tmp_path / "card"))
    with subprocess.Popen(
        [str(program.path), "--serve"], cwd=program.folder, env=program.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline().startswith("ready")
        said = program.fails(1, "--verify")
        other.stdin.write("quit\n")
    assert "kernel gpt_2_lm_head_model_0 cannot be opened" in said
    assert "another process uses the card" in said
    assert other.returncode == 0
    assert "verify: equal" in program.says("--verify")


# -- a card that fails ------------------------------------------------------------------------


def test_flipped_bits_are_found(gpt2: Program, mlp: Program) -> None:
    done = on_card(gpt2, "corrupt-read:tokens_out@sync=1:bit=43").run("--verify")
    assert done.returncode == 1 and "tokens_out: first difference at byte 5" in done.stderr
    cache = next(p for p in read_manifest(gpt2.folder)["ports"] if p["role"] == "cache")
    last = cache["bytes"] - 1
    done = on_card(gpt2, f"corrupt-read:{cache['argument']}@sync=1:bit={8 * last}").run("--verify")
    assert done.returncode == 1
    line = (
        f"{cache['argument']}: first difference at byte {last}: 0x81, expected 0x80 (1 of {last + 1} differ"
    )
    assert line in done.stderr


@pytest.mark.parametrize("sync", [1, 4])
def test_a_token_that_changes_on_its_way_is_found(
    gpt2: Program, generating: CompiledModel, sync: int
) -> None:
    """The lowest bit: still a token of the model."""
    program = on_card(gpt2, f"corrupt-read:tokens_out@sync={sync}:bit=0")
    arguments = ["--prompt-ids", IDS, "--tokens", "6", "--tokens-per-launch", "2"]
    assert "two transfers of the same tokens differ" in program.fails(1, *arguments)
    done = program.run(*arguments, "--recover")
    assert done.returncode == 0, done.stderr
    assert [int(t) for t in done.stdout.split()] == new(generating, PROMPT, 6)


def test_weights_that_change_on_their_way_are_found(gpt2: Program) -> None:
    """Every image: they are read back before anything runs."""
    ports = [p for p in read_manifest(gpt2.folder)["ports"] if p["file"]]
    assert len(ports) > 3
    for port in ports:
        bit = 8 * port["bytes"] - 1
        program = on_card(gpt2, f"corrupt-weights:{port['argument']}@sync=1:bit={bit}")
        said = program.fails(1, "--prompt-ids", "1,2", "--tokens", "2")
        assert f"{port['file']} came back from the device with other bytes ({port['argument']})" in said


def test_a_token_that_is_none_is_not_fed_back(gpt2: Program) -> None:
    both = "corrupt-read:tokens_out@sync=1:bit=30;corrupt-read:tokens_out@sync=2:bit=30"
    program = on_card(gpt2, both)
    text = program.fails(1, "--prompt-ids", IDS[:3].rstrip(","), "--tokens", "3", "--tokens-per-launch", "1")
    assert "which the model does not have" in text


def test_a_hanging_kernel_is_named_and_recovered_from(gpt2: Program, generating: CompiledModel) -> None:
    program = on_card(gpt2, "hang:gpt_2_lm_head_model_1@launch=4")
    arguments = ["--prompt-ids", IDS, "--tokens", "12", "--tokens-per-launch", "4", "--timeout-ms", "700"]
    done = program.run(*arguments)
    assert done.returncode == 1
    assert "launch 4 is not done after 700 ms" in done.stderr
    assert "kernel gpt_2_lm_head_model_1: running" in done.stderr
    wanted = new(generating, PROMPT, 12)
    assert [int(t) for t in done.stdout.split()] == wanted[:4]
    done = program.run(*arguments, "--recover")
    assert done.returncode == 0, done.stderr
    assert "the request is repeated once" in done.stderr
    assert [int(t) for t in done.stdout.split()] == wanted


def test_a_reset_in_mid_run(gpt2: Program, generating: CompiledModel) -> None:
    program = on_card(gpt2, "reset@launch=3")
    arguments = ["--prompt-ids", IDS, "--tokens", "5"]
    assert "launch 3" in program.fails(1, *arguments)
    done = program.run(*arguments, "--recover")
    assert done.returncode == 0, done.stderr
    assert [int(t) for t in done.stdout.split()] == new(generating, PROMPT, 5)


def test_memory_that_cannot_be_had(gpt2: Program) -> None:
    text = on_card(gpt2, "alloc@n=3").fails(1, "--verify")
    assert " bytes in HBM[" in text and "cannot be allocated: " in text


def test_a_late_kernel_within_the_time(mlp: Program) -> None:
    program = on_card(mlp, "timeout@launch=1:ms=400")
    assert "verify: equal" in program.says("--verify", "--timeout-ms", "5000")
    assert "is not done after 100 ms" in program.fails(1, "--verify", "--timeout-ms", "100")
