# SPDX-License-Identifier: Apache-2.0
"""Put measured figures into the documents, so that nobody types them.

    python -m scripts.figures           write
    python -m scripts.figures --check   only say what would change (exit status 1)

In README.md and docs/*.md the text between ``<!-- figures:NAME -->`` and ``<!-- /figures -->`` is made
from ``benchmarks/results/NAME.json``. ``<!-- figures:NAME key key -->`` shows only these figures.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import format_number

ROOT = Path(__file__).resolve().parents[1]
REGION = re.compile(
    r"(?P<begin><!-- figures:(?P<name>[a-z0-9_-]+)(?P<keys>(?: [a-z0-9_]+)*) -->\n)"
    r".*?(?P<end><!-- /figures -->)",
    re.DOTALL,
)
#: of lines that are no table
WIDTH = 110
MARK = re.compile(r"<!-- /?figures\b")


class FiguresError(Exception):
    """A region that cannot be filled."""


def table(results: Mapping[str, Any], keys: list[str]) -> str:
    """Markdown of the chosen figures (all without a choice), and under which circumstances they hold.

    Raises:
        FiguresError: if a key is unknown.
    """
    figures = results["figures"]
    unknown = [key for key in keys if key not in figures]
    if unknown:
        raise FiguresError(f"{results['benchmark']} has no figures {', '.join(unknown)}")
    lines = ["| figure | result | aim | obtained | conditions |", "|---|---:|---:|---|---|"]
    for key in keys or figures:
        figure = figures[key]
        value = f"{format_number(figure['value'])} {figure['unit']}".strip()
        aim = ""
        if figure["bound"] is not None:
            sign = {">=": "≥", "<=": "≤", "==": "="}[figure["bound"][0]]
            aim = f"{sign} {format_number(figure['bound'][1])}" + (
                "" if figure["reached"] else " (**missed**)"
            )
        cells = (figure["title"], value, aim, figure["obtained"], figure["note"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    command = f"`python -m benchmarks.{results['benchmark']}`"
    where = f"{results['machine']['class']}, of which one was used except by g++"
    lines += ["", textwrap.fill(f"{command} on {results['date']}, {where}; {versions}.", WIDTH), ""]
    return "\n".join(lines)


def fill(text: str, results: Path) -> str:
    """A document with its regions filled.

    Raises:
        FiguresError: if results are missing or a mark has no partner.
    """

    def region(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.json"
        if not path.is_file():
            raise FiguresError(f"there are no results {path.name}; run: make bench")
        data = json.loads(path.read_text(encoding="utf-8"))
        return f"{match['begin']}{table(data, match['keys'].split())}{match['end']}"

    filled, count = REGION.subn(region, text)
    marks = len(MARK.findall(text))
    if marks != 2 * count:
        raise FiguresError(f"{marks} marks make {count} regions: one has no beginning or no end")
    return filled


def documents(root: Path) -> list[Path]:
    """Documents that may hold figures."""
    return [path for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))) if path.is_file()]


def main(root: Path = ROOT) -> int:
    """Fill all documents; the exit status is 1 if one cannot be filled or, with --check, differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    status = 0
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        try:
            filled = fill(text, root / "benchmarks" / "results")
        except FiguresError as error:
            print(f"{path.relative_to(root)}: {error}", file=sys.stderr)
            status = 1
            continue
        if filled == text:
            continue
        if check:
            print(f"{path.relative_to(root)} differs from benchmarks/results; run: python -m scripts.figures")
            status = 1
        else:
            path.write_text(filled, encoding="utf-8")
            print(f"{path.relative_to(root)} brought up to date")
    return status


if __name__ == "__main__":
    sys.exit(main())
