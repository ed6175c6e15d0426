# SPDX-License-Identifier: Apache-2.0
"""The command line: compile, explain, verify, report, generate, plan, time, estimate, build, pack."""

from __future__ import annotations

# verbs register themselves, in the order in which help lists them
from torch2fpga.cli import compiling, generating, planning, timing, estimating, building, packing  # isort: skip
from torch2fpga.cli.common import NOT_PROVEN, app, phases, read_sentences

__all__ = [
    "NOT_PROVEN",
    "app",
    "building",
    "compiling",
    "estimating",
    "generating",
    "main",
    "packing",
    "phases",
    "planning",
    "read_sentences",
    "timing",
]


def main() -> None:
    """Entry point of the ``torch2fpga`` program."""
    app()
