# SPDX-License-Identifier: Apache-2.0
"""Metadata, pins and the rule that nothing is skipped in CI."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import torch2fpga

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in found}


def test_every_requirement_has_bounds_and_a_pin_within_them(setup_cfg: configparser.ConfigParser) -> None:
    texts = setup_cfg["options"]["install_requires"].split("\n")
    for extra in setup_cfg["options.extras_require"].values():
        texts += extra.split("\n")
    requirements = [Requirement(text) for text in texts if text.strip()]
    assert len(requirements) > 12
    pinned = pins()
    for requirement in requirements:
        if requirement.name == "torch2fpga":
            continue
        operators = {s.operator for s in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), f"{requirement} has no lower and upper bound"
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_torch_is_the_version_that_the_project_is_judged_with() -> None:
    assert pins()["torch"] == "2.13.0"
    assert "torch==2.13.0" in (ROOT / "Makefile").read_text()


def test_one_version(setup_cfg: configparser.ConfigParser) -> None:
    assert setup_cfg["metadata"]["version"] == torch2fpga.__version__


def test_package_data_covers_what_the_package_needs(setup_cfg: configparser.ConfigParser) -> None:
    patterns = setup_cfg["options.package_data"]["torch2fpga"].split()
    package = ROOT / "torch2fpga"
    shipped = {path for pattern in patterns for path in package.glob(pattern) if path.is_file()}
    for pattern in patterns:
        if pattern.endswith("**"):
            shipped |= {path for path in (package / pattern[:-3]).rglob("*") if path.is_file()}
    files = {p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert files - shipped == set()


def test_every_target_of_the_makefile_explains_itself() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert f"make {target} " in text or target == "need-gxx"


SKIPPED = """
import pytest

@pytest.mark.needs("no-such-tool")
def test_tool(): pass

@pytest.mark.skip(reason="for no reason")
def test_plain(): pass

@pytest.mark.gpu
@pytest.mark.needs("no-such-gpu")
def test_gpu(): pass

@pytest.mark.xfail(strict=True)
def test_expected(): assert False
"""


@pytest.mark.parametrize(
    ("ci", "status", "last"), [("", 0, "3 skipped, 1 xfailed"), ("true", 1, "1 skipped, 1 xfailed, 2 errors")]
)
def test_nothing_is_skipped_in_ci(ci: str, status: int, last: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SKIPPED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  needs\n  gpu\n")
    environment = {**os.environ, "CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout
    assert last in done.stdout
    assert "needs no-such-tool" in done.stdout
