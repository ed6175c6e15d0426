# SPDX-License-Identifier: Apache-2.0
"""``csynth.rpt``: the table of modules and loops as text, for where the XML beside it is not at hand.

Form as in public reports of 2021.1 to 2023.1: one row a module (``+``, ``*`` behind the name for a
dataflow region) or loop (``o``), one more blank in front for each level; counts with a share behind them.
The text has no clock period, so that of the report is None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch2fpga.build.reports import KernelReport, LoopReport, ModuleReport, not_understood, read_text

_TITLE = re.compile(r"^== Synthesis Summary Report of '([^']+)'\s*$")
_FACT = re.compile(r"^\s+\* (Version|Target device):\s+(\S+)")
_TABLE = "+ Performance & Resource Estimates:"
_ROW = re.compile(r"^( *)([+o]) (\S.*?)(\*?)$")
_COUNT = re.compile(r"(\d{1,18})(?: \(~?\d+%\))?")
#: titles of the columns (two lines joined) -> what they are
COLUMNS = {
    "Interval": "ii",
    "IterationLatency": "depth",
    "TripCount": "trips",
    "Pipelined": "pipelined",
    "BRAM": "bram18",
    "DSP": "dsp",
    "FF": "ff",
    "LUT": "lut",
    "URAM": "uram",
}
RESOURCES = ("dsp", "lut", "ff", "bram18", "uram")


@dataclass
class _Module:
    """A module while its rows are read."""

    name: str
    level: int
    resources: dict[str, int]
    loops: list[LoopReport]
    inside: list[str]


def read_csynth_text(file: Path, kernel: str) -> KernelReport:
    """The report of a kernel's C synthesis.

    Raises:
        BuildError: if it is not there, is about another kernel, or is not understood (with the line).
    """
    lines = read_text(file).splitlines()
    title = next(((i, m[1]) for i, x in enumerate(lines, 1) if (m := _TITLE.match(x))), None)
    if title is None:
        raise not_understood(file, 1, "no 'Synthesis Summary Report of'")
    if title[1] != kernel:
        raise not_understood(file, title[0], f"it is about {title[1]!r}, expected {kernel!r}")
    facts = {m[1]: m[2] for x in lines if (m := _FACT.match(x))}
    modules = _modules(file, lines)
    if modules[0].name != kernel:
        raise not_understood(file, title[0], f"its first module is {modules[0].name!r}")
    children: dict[str, tuple[str, ...]] = {}
    for module in modules:
        children[module.name] = tuple(dict.fromkeys((*children.get(module.name, ()), *module.inside)))
    return KernelReport(
        file=file,
        kernel=kernel,
        version=facts.get("Version", ""),
        part=facts.get("Target device", ""),
        target_ns=None,
        uncertainty_ns=None,
        estimated_ns=None,
        resources=modules[0].resources,
        available={},
        modules={m.name: ModuleReport(m.name, tuple(m.loops), m.resources) for m in modules},
        children=children,
    )


def _modules(file: Path, lines: Sequence[str]) -> list[_Module]:
    """Modules in the order of the table, each with its loops and the names of those in it."""
    start = next((i for i, x in enumerate(lines) if x.strip() == _TABLE), None)
    if start is None:
        raise not_understood(file, len(lines), f"no {_TABLE!r}")
    rows = [(i, x.strip()) for i, x in enumerate(lines[start + 1 :], start + 2)]
    rules = [i for i, x in rows if x.startswith("+-")]
    if len(rules) < 3:
        raise not_understood(file, start + 1, "its table has no end")
    heads = [_cells(x) for i, x in rows if rules[0] < i < rules[1]]
    if len(heads) != 2 or len(heads[0]) != len(heads[1]):
        raise not_understood(file, rules[0] + 1, "the titles of its columns are not two rows")
    titles = ["".join((a + b).split()) for a, b in zip(*heads, strict=True)]
    if missing := [name for name in COLUMNS if titles.count(name) != 1]:
        raise not_understood(file, rules[0] + 1, f"no column {', '.join(missing)}")
    found: list[_Module] = []
    open_: list[_Module] = []
    for number, text in ((i, x) for i, x in rows if rules[1] < i < rules[2]):
        cells = _cells(text)
        match = _ROW.match(cells[0])
        if match is None or len(cells) != len(titles):
            raise not_understood(file, number, f"a row is {text[:80]!r}")
        values = {COLUMNS[t]: c.strip() for t, c in zip(titles, cells, strict=True) if t in COLUMNS}
        level = len(match[1])
        while open_ and open_[-1].level >= level:
            open_.pop()
        if match[2] == "o":
            if not open_:
                raise not_understood(file, number, "a loop ahead of its module")
            open_[-1].loops.append(_loop(file, number, match[3], values))
            continue
        counts = {key: _count(file, number, values[key]) or 0 for key in RESOURCES}
        module = _Module(match[3], level, counts, [], [])
        if open_:
            open_[-1].inside.append(module.name)
        open_.append(module)
        found.append(module)
    if not found:
        raise not_understood(file, rules[1], "its table is empty")
    return found


def _cells(row: str) -> list[str]:
    """Cells of a row; the first one with the blanks in front, which say the level."""
    cells = row.strip().removeprefix("|").removesuffix("|").split("|")
    return [c.rstrip() for c in cells]


def _loop(file: Path, number: int, name: str, values: dict[str, str]) -> LoopReport:
    if values["pipelined"] not in ("yes", "no", "rewind", "dataflow"):
        raise not_understood(file, number, f"a loop's 'Pipelined' is {values['pipelined']!r}")
    ii = _count(file, number, values["ii"]) if values["pipelined"] in ("yes", "rewind") else None
    trips = _count(file, number, values["trips"])
    return LoopReport(
        name,
        ii,
        _count(file, number, values["depth"]) if ii is not None else None,
        None if trips is None else (trips, trips),
    )


def _count(file: Path, number: int, text: str) -> int | None:
    """A count with or without a share; None for what the tool does not know (``-``, ``?``, a range)."""
    if text in ("-", "?", "undef") or re.fullmatch(r"\d+ ~ \d+", text):
        return None
    match = _COUNT.fullmatch(text)
    if match is None:
        raise not_understood(file, number, f"a cell is {text!r}, expected a count")
    return int(match[1])
