# SPDX-License-Identifier: Apache-2.0
"""Write the README's table of supported operators from the registry.

python -m scripts.supported            # writes it
python -m scripts.supported --check    # says whether it is up to date
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
START, END = "<!-- supported -->", "<!-- /supported -->"


def _target(text: str) -> str:
    """A captured target without its overload: ``gelu``, ``scaled_dot_product_attention``."""
    text = re.sub(r"^<built-in function (\w+)>$", r"\1", text)
    return text.partition(".")[0]


def _meaning(operator: str) -> str:
    """First sentence of the operator's file."""
    module = importlib.import_module(f"torch2fpga.lower.{operator}")
    paragraph = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    return paragraph.replace("``", "`").rstrip(".")


def table() -> str:
    """The table as Markdown: one row for each file in ``torch2fpga/lower`` that takes nodes."""
    importlib.import_module("torch2fpga.lower.operators")
    from torch2fpga.lower.registry import supported

    lines = ["| `lower/` | what it takes | ATen operators |", "|---|---|---|"]
    for operator, targets in supported().items():
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(map(_target, targets)))
        lines.append(f"| `{operator}.py` | {_meaning(operator)} | {names} |")
    return "\n".join(lines)


def replaced(text: str) -> str:
    """``text`` with the table between its markers.

    Raises:
        ValueError: if the markers do not stand there once each, in order.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{README.name} needs one {START} and, behind it, one {END}")
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{table()}\n{END}{rest.partition(END)[2]}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if ``--check`` finds an old table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if the table is old")
    check = parser.parse_args(arguments).check
    text = README.read_text(encoding="utf-8")
    new = replaced(text)
    if check:
        if new != text:
            print("the README's table of operators is old: python -m scripts.supported", file=sys.stderr)
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
