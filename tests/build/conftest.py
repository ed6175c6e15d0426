# SPDX-License-Identifier: Apache-2.0
"""One emitted project for all tests of the build, a copy for each, and fakes of the tools."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import mlp
from tests.build import fakes
from torch2fpga import compile as compile_model
from torch2fpga.build import tools


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of two kernels, as it is written."""
    path = tmp_path_factory.mktemp("written") / "mlp"
    model, inputs = mlp.factory()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # calibrated on no inputs
        compile_model(model, inputs).write(path)
    return path


@pytest.fixture
def project(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "project"))


@pytest.fixture
def tool_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fakes.Fakes]:
    """Fakes in the search path of this process, and no other tool of the vendor."""
    found = fakes.install(tmp_path / "fake tools")
    for name in (*tools.VARIABLES, "HLS_FLOW", "XILINXD_LICENSE_FILE", "LM_LICENSE_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tools, "ROOTS", (tmp_path / "opt",))
    yield found
    found.end_hanging()
