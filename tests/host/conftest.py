# SPDX-License-Identifier: Apache-2.0
"""Projects, their host programs, and the place where XRT finds its no-op driver."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.host.programs import Program, faults_library
from tests.runtime.generation_samples import compiled_gpt2
from tests.tiny import compiled
from torch2fpga.compiled import CompiledModel


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be replaced; the option is that of tests/emit."""
    return bool(request.config.getoption("--update-golden", default=False))


@pytest.fixture(scope="session")
def noop(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which XRT's no-op driver opens a device: nothing is computed."""
    root = tmp_path_factory.mktemp("xrt")
    (root / "lib").mkdir()
    for library in Path("/usr/lib").glob("*/libxrt_*.so.2"):
        (root / "lib" / library.name).symlink_to(library)
    return {"XILINX_XRT": str(root), "XCL_EMULATION_MODE": "noop"}


@pytest.fixture(scope="module")
def generating() -> CompiledModel:
    """A GPT-2 of two layers: prompts of 7 rows a launch, texts of 61 tokens."""
    return compiled_gpt2()


@pytest.fixture(scope="module")
def plain() -> CompiledModel:
    """A perceptron."""
    torch.manual_seed(0)
    return compiled("mlp3d")


@pytest.fixture(scope="module")
def gpt2(
    generating: CompiledModel, tmp_path_factory: pytest.TempPathFactory, noop: dict[str, str]
) -> Program:
    """The generating design's project and program."""
    return Program.written(generating, tmp_path_factory.mktemp("gpt2") / "project", noop)


@pytest.fixture(scope="module")
def mlp(plain: CompiledModel, tmp_path_factory: pytest.TempPathFactory, noop: dict[str, str]) -> Program:
    """The plain design's project and program."""
    return Program.written(plain, tmp_path_factory.mktemp("mlp") / "project", noop)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of the library that goes in front of XRT."""
    return str(faults_library(tmp_path_factory.mktemp("faults")))
