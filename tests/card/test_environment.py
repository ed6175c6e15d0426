# SPDX-License-Identifier: Apache-2.0
"""What the emulated card needs of a machine and of a project, and the project's own Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.card.cards import Card
from torch2fpga.errors import MissingTool, SimulationError, WeightsError
from torch2fpga.simulate import card as emulation
from torch2fpga.simulate.card import emulated_environment


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "HEADERS", tmp_path / "include")
    monkeypatch.setattr(emulation, "DRIVER", "libxrt_none.so.2")
    with pytest.raises(MissingTool) as error:
        emulated_environment(tmp_path)
    text = str(error.value)
    if shutil.which("g++"):
        assert "libxrt_none.so.2 (in /" in text and "apt-get install libxrt1" in text
    assert f"{tmp_path}/include/xrt/xrt_bo.h" in text and "apt-get install libxrt-dev" in text
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MissingTool, match=r"needs g\+\+ \(.*XRT's headers"):
        emulated_environment(tmp_path)


@pytest.mark.xrt
@pytest.mark.gxx
def test_a_folder_that_is_no_project_of_this_version(plain_project: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no kernels; write the project"):
        emulated_environment(tmp_path)
    other = tmp_path / "other"
    shutil.copytree(plain_project, other)
    (other / "emulation" / "card.cpp").unlink()
    with pytest.raises(WeightsError, match=r"emulation/card\.cpp is missing; write the project again"):
        emulated_environment(other)
    header = other / "include" / "t2f" / "core.hpp"
    header.write_text(header.read_text() + "// changed\n")
    with pytest.raises(WeightsError, match=r"another version of torch2fpga.*run_emulated"):
        emulated_environment(other)


@pytest.mark.xrt
@pytest.mark.gxx
def test_the_environment_is_that_of_this_process_and_the_card(
    plain_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2F_CARD_FAULTS", "alloc@n=1")  # of somebody else's run
    monkeypatch.setenv("LD_PRELOAD", "/somewhere/other.so")
    found = emulated_environment(plain_project, log=tmp_path / "log")
    assert found["PATH"] == os.environ["PATH"]
    assert "T2F_CARD_FAULTS" not in found and found["T2F_CARD_LOG"] == str(tmp_path / "log")
    assert found["LD_PRELOAD"].endswith(".so:/somewhere/other.so")
    assert (Path(found["XILINX_XRT"]) / "lib" / "libxrt_noop.so.2").exists()
    assert emulated_environment(plain_project, faults="alloc@n=2")["T2F_CARD_FAULTS"] == "alloc@n=2"


@pytest.mark.xrt
@pytest.mark.gxx
def test_a_cache_that_ld_preload_cannot_name(
    plain_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "bridge_library", lambda headers: tmp_path / "my cache" / "bridge.so")
    with pytest.raises(SimulationError, match=r"my cache/.*set TORCH2FPGA_CACHE"):
        emulated_environment(plain_project)


@pytest.mark.xrt
@pytest.mark.gxx
@pytest.mark.slow
def test_the_project_s_makefile_builds_the_same_card(plain: Card) -> None:
    """Plain make and g++ from the emitted files, without Python."""
    make = ["make", "-C", str(plain.folder), "CXXFLAGS=-O0"]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "XILINX_XRT")}
    subprocess.run([*make, "-j2", "-s", "emulation"], check=True, env=environment)
    shown = subprocess.run(
        [*make, "-n", "-o", "build/host/host", "run_emulated"],
        check=True, env=environment, capture_output=True, text=True,
    ).stdout  # fmt: skip
    line = next(x for x in shown.splitlines() if x.startswith("XCL_EMULATION_MODE=noop"))
    assert line.endswith(" build/host/host --verify")
    given = dict(word.split("=", 1) for word in line.split()[:-2])
    assert set(given) == {"XCL_EMULATION_MODE", "XILINX_XRT", "T2F_CARD_LIBRARY", "LD_PRELOAD"}
    plain.environment |= given
    answers = plain.run([*plain.opened(), *plain.filled(), *plain.launched(), *plain.fetched()])
    assert not answers.refused()
    assert plain.differing() == []
