# SPDX-License-Identifier: Apache-2.0
"""Devices that are missing, denied, busy, hanging or gone: what the host program says, and that it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.host.programs import Program

pytestmark = [pytest.mark.xrt, pytest.mark.gxx, pytest.mark.hf]
PROMPT = ("--prompt-ids", "1,2,3", "--tokens", "4")


def failed(program: Program, faults: str, fault: str, *arguments: str) -> str:
    """What the program says where XRT fails so."""
    return program.fails(1, *arguments, LD_PRELOAD=faults, T2F_FAULT=fault)


def test_no_card_says_where_it_looked(gpt2: Program, tmp_path: Path) -> None:
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    (tmp_path / "dev" / "dri" / "renderD128").touch()
    (tmp_path / "sys" / "bus" / "pci" / "drivers" / "xocl" / "0000:3b:00.1").mkdir(parents=True)
    (xclbin,) = (gpt2.folder / "emulation").glob("*.xclbin")
    here = ["--verify", "--xclbin", str(xclbin)]
    text = gpt2.fails(1, *here, XCL_EMULATION_MODE="", XILINX_XRT="")
    assert "device 0 cannot be opened: " in text and "XILINX_XRT is not set" in text
    assert "/sys/bus/pci/drivers/xocl: no card" in text and "/dev/dri/renderD*: none" in text
    assert "without a card: make run_emulated" in text
    text = gpt2.fails(1, *here, "--root", str(tmp_path), XCL_EMULATION_MODE="")
    assert f"{tmp_path}/sys/bus/pci/drivers/xocl: 0000:3b:00.1" in text
    assert f"{tmp_path}/dev/dri/renderD*: renderD128" in text


def test_a_driver_that_is_not_there(gpt2: Program, tmp_path: Path) -> None:
    text = gpt2.fails(1, "--verify", XILINX_XRT=str(tmp_path))
    assert f"XCL_EMULATION_MODE is noop: XRT looks for {tmp_path}/lib/libxrt_noop.so.2" in text


def test_an_address_that_is_not_there(gpt2: Program) -> None:
    assert "device 0000:3b:00.1 cannot be opened: " in gpt2.fails(1, "--verify", "--device", "0000:3b:00.1")


def test_no_permission(gpt2: Program, faults: str) -> None:
    assert "cannot be opened: open of the device: Permission denied" in failed(
        gpt2, faults, "denied", "--verify"
    )


def test_another_process_has_the_card(gpt2: Program, faults: str) -> None:
    """The kernels are opened for this process alone; a second one is told so."""
    text = failed(gpt2, faults, "busy", "--verify")
    assert "kernel gpt_2_lm_head_model_0 cannot be opened" in text and "another process uses the card" in text


def test_no_memory_left(gpt2: Program, faults: str) -> None:
    text = failed(gpt2, faults, "alloc", "--verify")
    assert "buffer of " in text and " cannot be allocated" in text


@pytest.mark.parametrize("arguments", [PROMPT, ("--verify",), ("--bench",)])
def test_a_time_out_names_the_kernels(gpt2: Program, faults: str, arguments: tuple[str, ...]) -> None:
    begin = time.monotonic()
    text = failed(gpt2, faults, "hang", *arguments, "--timeout-ms", "60")
    assert time.monotonic() - begin < 5
    assert "launch 1 is not done after 60 ms" in text
    for number in range(3):
        assert f"kernel gpt_2_lm_head_model_{number}: running" in text


def test_a_kernel_that_fails(gpt2: Program, faults: str) -> None:
    text = failed(gpt2, faults, "error", *PROMPT)
    assert "launch 1 failed" in text and "kernel gpt_2_lm_head_model_0: failed" in text


def test_recovery_repeats_the_request_once(gpt2: Program, faults: str) -> None:
    wanted = gpt2.says(*PROMPT)
    arguments = [*PROMPT, "--timeout-ms", "60"]
    assert "hang" not in failed(gpt2, faults, "hang-once", *arguments)
    done = gpt2.run(*arguments, "--recover", LD_PRELOAD=faults, T2F_FAULT="hang-once")
    assert (done.returncode, done.stdout) == (0, wanted)
    assert "opening the device anew, the request is repeated once" in done.stderr
    text = failed(gpt2, faults, "hang", *arguments, "--recover")
    assert text.count("is not done after 60 ms") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "what"), [("stuck", "waiting for the kernels"), ("stuck-abort", "stopping a kernel")]
)
def test_a_driver_that_never_returns(gpt2: Program, faults: str, fault: str, what: str) -> None:
    begin = time.monotonic()
    text = failed(gpt2, faults, fault, *PROMPT, "--timeout-ms", "60")
    assert time.monotonic() - begin < 9
    assert f"{what} does not come back from the driver; the card needs a reset" in text


def test_power_of_the_card_as_xrt_says(gpt2: Program, faults: str, tmp_path: Path) -> None:
    arguments = ["--bench", "--seconds", "1.1", "--json", str(tmp_path / "b.json")]
    gpt2.says(*arguments, LD_PRELOAD=faults, T2F_FAULT="power")
    found = json.loads((tmp_path / "b.json").read_text())
    assert (found["power_w"], found["power_source"], found["power_readings"]) == (31.25, "xrt", 2)
