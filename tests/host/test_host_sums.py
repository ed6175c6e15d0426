# SPDX-License-Identifier: Apache-2.0
"""A project with checksums: the host finds a card whose memory changed, and says which port and launch."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch2fpga
from tests.host.programs import Program, on_card
from tests.runtime.generation_samples import LENGTH, gpt2, new, text
from tests.tiny import build
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit.golden import example_inputs
from torch2fpga.emit.host import SOURCES
from torch2fpga.emit.manifest import read_manifest
from torch2fpga.runtime import card as card_module
from torch2fpga.runtime.card import CardError, CardModel
from torch2fpga.simulate.card import emulated_environment

pytestmark = [pytest.mark.xrt, pytest.mark.gxx, pytest.mark.hf]
PROMPT = text(17)  # three launches of at most 7 rows, three tiles of rows each
IDS = ",".join(str(i) for i in PROMPT[0].tolist())


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    """A GPT-2 whose layers share two lanes: their weights are read again for every tile, the head's once."""
    samples = [{"input_ids": text(20, seed)} for seed in range(8)]
    return torch2fpga.compile(
        gpt2(), {"input_ids": text(7)}, plan={"lanes": 2}, tile=3, calibration=samples,
        generate=True, max_length=LENGTH, checksums=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain_model() -> CompiledModel:
    """A perceptron that reads its weights again for every two rows of a sequence."""
    perceptron, inputs = build("mlp3d")
    samples = [(torch.randn(2, 5, 10),) for _ in range(8)]
    return torch2fpga.compile(
        perceptron, inputs, plan={"weights": "streamed"}, tile=2, calibration=samples, checksums=True
    )


@pytest.fixture(scope="module")
def silent(model: CompiledModel, tmp_path_factory: pytest.TempPathFactory, noop: dict[str, str]) -> Program:
    """The generating program with a driver that computes nothing."""
    return Program.written(model, tmp_path_factory.mktemp("sums") / "project", noop)


@pytest.fixture(scope="module")
def silent_plain(
    plain_model: CompiledModel, tmp_path_factory: pytest.TempPathFactory, noop: dict[str, str]
) -> Program:
    return Program.written(plain_model, tmp_path_factory.mktemp("plain") / "project", noop)


@pytest.fixture(scope="module")
def card(silent: Program) -> Program:
    return on_card(silent)


@pytest.fixture(scope="module")
def plain_card(silent_plain: Program) -> Program:
    return on_card(silent_plain)


def summed(program: Program) -> list[dict[str, Any]]:
    """Ports whose bytes are added up."""
    ports = read_manifest(program.folder)["ports"]
    return [p for p in ports if p["role"] in ("weights", "params")]


def complaint(port: dict[str, Any], when: str) -> str:
    return (
        f"host: {when}: kernel {port['kernel']} read other bytes from {port['argument']} than {port['file']} "
        f"holds: memory of the card (HBM[{port['hbm']}]) is not sound\n"
    )


def tokens(text: str) -> list[int]:
    return [int(t) for t in text.split()]


# -- the sums themselves ----------------------------------------------------------------------


def test_sums_that_the_host_expects(tmp_path: Path) -> None:
    """Against a reader that goes through the words as kernels do."""
    draw = random.Random(7)
    cases = [(0, 1, 1, 1, bytes(64)), (1, 3, 1, 4, b"\xff" * 4 + bytes(124)), (9, 1, 32, 512, b"\x80" * 64)]
    cases += [(1, 3, 1, 4, b"\xff" * 128), (5, 64, 32, 512, draw.randbytes(320))]
    for _ in range(60):
        words = draw.randint(1, 9)
        place = (draw.randint(0, words), draw.randint(1, 9), draw.randint(1, 40), draw.randint(1, 40))
        cases.append((*place, draw.randbytes(64 * words)))
    program = tmp_path / "sums"
    source = Path(__file__).with_name("sum_values.cpp")
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True)
    given = "".join(f"{w} {t} {b} {r} {len(image)} {image.hex()}\n" for w, t, b, r, image in cases)
    done = subprocess.run([str(program)], input=given, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == len(cases)
    for (again, tile, batch, rows, image), found in zip(cases, done.stdout.split(), strict=True):
        total = 0
        for word in range(len(image) // 64):
            folded = 0
            for number in struct.unpack("<16I", image[64 * word : 64 * word + 64]):
                folded ^= number
            reads = sum(len(range(0, rows, tile)) for _ in range(batch)) if word < again else 1
            for _ in range(reads):
                total += folded
        if total:  # 0 is the sum of zeros only
            total = total % (2**32 - 1) or 2**32 - 1
        assert int(found) == total, (again, tile, batch, rows, image)


def test_a_project_without_checksums_has_none(gpt2: Program, mlp: Program, card: Program) -> None:
    for program in (gpt2, mlp):
        assert "writes sums" not in program.says("--list")
        assert all(p["role"] != "sums" for p in read_manifest(program.folder)["ports"])
        assert not (program.folder / "golden" / "sums.bin").exists()
    assert "port sums: argument " in card.says("--list")


# -- all is well ------------------------------------------------------------------------------


def test_golden_sums_are_compared(card: Program, plain_card: Program, tmp_path: Path) -> None:
    for program in (card, plain_card):
        found = program.says("--verify", "--json", str(tmp_path / "v.json"))
        assert "verify: equal" in found
        ports = read_manifest(program.folder)["ports"]
        # A cache is two ports on one buffer.
        sizes = {
            p["binding"] if p["role"] == "cache" else p["argument"]: p["bytes"]
            for p in ports
            if p["role"] in ("sums", "tokens", "output", "cache")
        }
        assert json.loads((tmp_path / "v.json").read_text())["compared_bytes"] == sum(sizes.values())
        (result,) = (p for p in ports if p["role"] in ("tokens", "output"))
        assert result["hbm"] == next(p["hbm"] for p in ports if p["role"] == "sums")
        # The host's own look at the sums is the first transfer of that memory, tokens or output the second.
        said = on_card(program, "corrupt-read:sums@sync=3:bit=37").fails(1, "--verify")
        assert said.startswith("sums: first difference at byte 4: ") and "golden/sums.bin" in said


@pytest.mark.parametrize("step", [1, 4, 61])
def test_tokens_are_those_of_the_compiled_model(card: Program, model: CompiledModel, step: int) -> None:
    found = card.says("--prompt-ids", IDS, "--tokens", "20", "--tokens-per-launch", str(step))
    assert tokens(found) == new(model, PROMPT, 20)


def test_figures_and_every_size_of_a_launch(card: Program, plain_card: Program, tmp_path: Path) -> None:
    """Rows that fill tiles and rows that do not; two sets of buffers in turn."""
    given = ["--bench", "--launches", "6", "--json", str(tmp_path / "b.json")]
    for batch, seq in [(1, 1), (2, 1), (1, 4), (2, 5), (2, 3)]:
        plain_card.says(*given, "--batch", str(batch), "--seq", str(seq))
        assert json.loads((tmp_path / "b.json").read_text())["launches"] == 6
    card.says(*given, "--tokens-per-launch", "4", "--tokens", "9")
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["launches"] == 6 and found["tokens"] == 18


# -- memory that changed ----------------------------------------------------------------------


def test_changed_memory_is_said_and_recovered_from(silent: Program, model: CompiledModel) -> None:
    """Every image, at prompts' launches and at tokens': with the first launch that read it."""
    wanted = new(model, PROMPT, 8)
    arguments = ["--prompt-ids", IDS, "--tokens", "8", "--tokens-per-launch", "2"]
    ports = summed(silent)
    assert {p["role"] for p in ports} == {"weights", "params"} and len(ports) == 3
    for number, port in enumerate(ports):
        for launch in (1, 2, 3, 5):
            bit = (8 * port["bytes"] - 1) * (launch + number) // 8 if launch > 1 else 0
            program = on_card(silent, f"corrupt-memory:{port['argument']}@launch={launch}:bit={bit}")
            done = program.run(*arguments)
            assert done.returncode == 1
            assert done.stderr == complaint(port, f"launch {launch}, turn 1")
            # The launches in front of it gave theirs: the first token comes with the third launch.
            assert tokens(done.stdout) == wanted[: max(0, 2 * (launch - 3))]
            done = program.run(*arguments, "--recover")
            assert done.returncode == 0 and "the request is repeated once" in done.stderr
            assert tokens(done.stdout) == wanted


def test_all_ports_of_the_turn_are_said(silent: Program) -> None:
    first, second, third = summed(silent)
    faults = [f"corrupt-memory:{p['argument']}@launch=2:bit=8" for p in (first, third)]
    program = on_card(silent, ";".join([*faults, f"corrupt-memory:{second['argument']}@launch=3"]))
    said = program.fails(1, "--prompt-ids", IDS, "--tokens", "3")
    one, other = (complaint(p, "launch 2, turn 1") for p in (first, third))
    assert said == one + "  " + other.removeprefix("host: launch 2, turn 1: ")


def test_the_turn_of_a_launch_is_said(silent: Program, tmp_path: Path) -> None:
    """A number of the sums that twice arrives changed; once, it is the way from the card."""
    ports = summed(silent)
    arguments = ["--prompt-ids", IDS.rpartition(",")[0][:5], "--tokens", "6"]
    for turn in (1, 4, 6):
        for port in ports:
            bit = ((turn - 1) * len(ports) + ports.index(port)) * 32 + 3 * turn
            flip = "corrupt-read:sums@sync={}:bit=" + str(bit)
            # The tokens lie in the same memory, and are fetched twice first.
            said = on_card(silent, f"{flip.format(3)};{flip.format(4)}").fails(1, *arguments)
            assert said == complaint(port, f"launch 1, turn {turn}")
        said = on_card(silent, flip.format(3)).fails(1, *arguments)
        assert said == (
            f"host: launch 1, turn {turn}: two transfers of the same sums differ: the way from the device is "
            "not sound\n"
        )


def test_verify_and_bench_say_it_too(silent: Program, silent_plain: Program) -> None:
    for program in (silent, silent_plain):
        turn = ", turn 1" if program is silent else ""
        port = summed(program)[-1]
        fault = f"corrupt-memory:{port['argument']}@launch=1:bit=100"
        assert on_card(program, fault).fails(1, "--verify") == complaint(port, f"launch 1{turn}")
        assert "verify: equal" in on_card(program, fault).says("--verify", "--recover")
        fault = f"corrupt-memory:{port['argument']}@launch=7:bit=100"
        said = on_card(program, fault).fails(1, "--bench", "--launches", "20")
        assert said == complaint(port, f"launch 7{turn}")


def test_a_plain_model_with_launches_behind_launches(
    silent_plain: Program, plain_model: CompiledModel, tmp_path: Path
) -> None:
    """Five launches; the fourth and what is behind it read the changed weights."""
    (spec,) = plain_model.interface.inputs
    (base,) = example_inputs(plain_model.interface.inputs, 2, 3).values()
    (port,) = (p for p in plain_model.design.ports if p.role == "rows")
    (out,) = (p for p in plain_model.design.ports if p.role == "output")
    packed, wanted = b"", b""
    item = plain_model.interface.outputs[0]
    lanes = plain_model.design.shape.lanes
    row = item.layout.blocks(lanes) * lanes * np.dtype(item.element).itemsize
    for launch in range(5):
        buffers = plain_model.buffers({spec.name: torch.roll(base, launch, 2) * (1 + launch) / 3})
        packed += buffers[port.name].tobytes()
        found = plain_model.functional.run(buffers, 2, 3).buffers[out.name]
        wanted += found.tobytes()[: -(-2 * 3 * row // 64) * 64]
    (tmp_path / "in").write_bytes(packed)
    given = ["--input", f"{port.name}={tmp_path / 'in'}", "--output", f"{out.name}={tmp_path / 'out'}"]
    given += ["--batch", "2", "--seq", "3"]
    for changed in summed(silent_plain)[::3]:
        program = on_card(silent_plain, f"corrupt-memory:{changed['argument']}@launch=4:bit=77")
        assert program.fails(1, *given) == complaint(changed, "launch 4")
        assert not (tmp_path / "out").exists()
        assert program.says(*given, "--recover") == "5 launches\n"
        assert (tmp_path / "out").read_bytes() == wanted
        (tmp_path / "out").unlink()


def test_the_launch_behind_it_is_waited_for(silent_plain: Program, tmp_path: Path) -> None:
    """It runs already when the sums are looked at: its buffers are not given back under it."""
    port, (kernel,) = summed(silent_plain)[0], read_manifest(silent_plain.folder)["kernels"]
    log = tmp_path / "log"
    flip = f"corrupt-memory:{port['argument']}@launch=3"
    late, hangs = f"timeout:{kernel['name']}@launch=4:ms=300", f"hang:{kernel['name']}@launch=4"
    for fault, ends in ((late, [1, 2, 3, 4]), (hangs, [1, 2, 3])):
        environment = emulated_environment(silent_plain.folder, faults=f"{flip};{fault}", log=log)
        program = replace(silent_plain, environment=environment)
        said = program.fails(1, "--bench", "--launches", "9", "--timeout-ms", "900")
        assert said == complaint(port, "launch 3")
        events = [json.loads(line) for line in log.read_text().splitlines()]
        assert [e["launch"] for e in events if e["event"] == "completed"] == ends
        assert ("timeout" in [e["event"] for e in events]) is (fault is hangs)
        log.unlink()


def test_a_bit_of_words_that_are_read_several_times(silent_plain: Program) -> None:
    """Read for two sequences of three tiles: modulo 2^32 six times the highest bit of a number would be 0."""
    port = summed(silent_plain)[0]
    assert 8 * port["bytes"] > 512
    for bit in (*range(24, 32), 63, 511, 8 * port["bytes"] - 1):
        program = on_card(silent_plain, f"corrupt-memory:{port['argument']}@launch=2:bit={bit}")
        arguments = ["--bench", "--launches", "1", "--batch", "2", "--seq", "5"]
        assert program.fails(1, *arguments) == complaint(port, "launch 2")


def test_a_served_model(silent: Program, model: CompiledModel) -> None:
    """``torch2fpga.load`` says it, and goes on with weights that are loaded again."""
    port = summed(silent)[1]
    with pytest.MonkeyPatch.context() as patch:
        real = card_module.emulated_environment
        fault = f"corrupt-memory:{port['argument']}@launch=3"
        patch.setattr(card_module, "emulated_environment", lambda project: real(project, faults=fault))
        served = CardModel(silent.folder, "emulated")
    with served:
        with pytest.raises(CardError, match=rf"launch 3, turn 1: kernel .* from {port['argument']} than"):
            served.generate(PROMPT, max_new_tokens=3)
        short = PROMPT[:, :5]  # one launch
        assert served.generate(short, max_new_tokens=3)[0, 5:].tolist() == new(model, short, 3)


# -- sums that were not written ---------------------------------------------------------------


def test_a_device_that_computes_nothing(silent: Program, silent_plain: Program) -> None:
    nothing = "the device wrote no sums of what its kernels read\n"
    assert silent.fails(1, "--verify") == f"host: launch 1, turn 1: {nothing}"
    assert silent_plain.fails(1, "--verify") == f"host: launch 1: {nothing}"
    assert silent.fails(1, "--prompt-ids", "1,2", "--tokens", "2").endswith(nothing)
    assert silent_plain.fails(1, "--bench").endswith(nothing)


def test_sums_of_the_launch_before_do_not_count(card: Program, plain_card: Program, faults: str) -> None:
    """Kernels that do nothing any more, and leave the right results of the launch before."""
    nothing = ": the device wrote no sums of what its kernels read"
    kernels = len(read_manifest(card.folder)["kernels"])
    preloaded = f"{faults}:{card.environment['LD_PRELOAD']}"
    # A launch a text: the second text's.
    said = card.fails(1, "--bench", LD_PRELOAD=preloaded, T2F_SKIP=str(kernels + 1))
    assert said == f"host: launch 2, turn 1{nothing}\n"
    # Two sets of buffers: the third launch has the first one's.
    preloaded = f"{faults}:{plain_card.environment['LD_PRELOAD']}"
    said = plain_card.fails(1, "--bench", LD_PRELOAD=preloaded, T2F_SKIP="3")
    assert said == f"host: launch 3{nothing}\n"
    (port,) = (p for p in read_manifest(plain_card.folder)["ports"] if p["role"] == "rows")
    content = (plain_card.folder / "golden" / f"{port['argument']}.bin").read_bytes()
    request = f"run 2 5 0 1 {len(content)}\n".encode() + content
    environment = {**plain_card.environment, "LD_PRELOAD": preloaded, "T2F_SKIP": "2"}
    done = subprocess.run(
        [str(plain_card.path), "--serve"], cwd=plain_card.folder, env=environment, input=request * 2,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout.endswith(f"failed launch 2{nothing}\n".encode())
    assert b"\nok " in done.stdout
