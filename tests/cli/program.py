# SPDX-License-Identifier: Apache-2.0
"""The program as a user calls it."""

from __future__ import annotations

from click.testing import Result
from typer.testing import CliRunner

from torch2fpga import cli


def run(*arguments: object) -> Result:
    """One call of the program; its output is in one piece and not wrapped."""
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "500"})
