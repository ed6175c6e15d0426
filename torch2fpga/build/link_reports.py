# SPDX-License-Identifier: Apache-2.0
"""What place and route reached: clocks, slack, utilisation of every kernel.

Formats: clocks as xclbinutil's own source prints them (XRT, FormattedOutput.cxx: ``Scalable Clocks``
with Name, Index, Type and Frequency; ``System Clocks`` with Requested and Achieved Freq); Vivado's
``Design Timing Summary``; the table of v++'s ``*_kernel_util_routed.rpt`` (``| Name | LUT | LUTAsMem |
REG | BRAM | URAM | DSP |`` with cells such as ``585049 [ 56.28%]``, as public projects show it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch2fpga.build.reports import not_understood, read_text

DATA_CLK = "DATA_CLK"
_FIELD = re.compile(r"^   (\w[\w ]*):\s+(\S.*?)\s*$")
_CELL = re.compile(r"(\d+(?:\.\d+)?)\s*\[\s*[<>]?\s*(\d+(?:\.\d+)?)\s*%\s*\]")
#: column -> field of ``Estimate``; BRAM is counted in blocks of 36 Kb there
COLUMNS = {"LUT": "lut", "REG": "ff", "BRAM": "bram18", "URAM": "uram", "DSP": "dsp"}


@dataclass(frozen=True)
class Clock:
    """One clock of an xclbin, MHz; the achieved one only where the tool gives it."""

    name: str
    mhz: float
    requested: float | None = None
    achieved: float | None = None


@dataclass(frozen=True)
class Timing:
    """Vivado's summary after routing: worst slack (ns, negative is bad), its sum, paths that fail."""

    file: Path
    wns: float
    tns: float
    failing: int


@dataclass(frozen=True)
class Implementation:
    """After place and route (tool); None and empty where a report is not there.

    Attributes:
        data_clk: MHz that the runtime sets for the kernels.
        achieved: MHz that timing analysis allows, of the scalable clock that was asked for as much.
        used: instance -> resource -> count.
        notes: reports that are missing, in words.
    """

    data_clk: float | None = None
    achieved: float | None = None
    timing: Timing | None = None
    used: Mapping[str, Mapping[str, float]] | None = None
    notes: tuple[str, ...] = ()


def read_clocks(file: Path) -> tuple[Clock, ...]:
    """Scalable clocks of an xclbin, then system clocks, from what ``xclbinutil --info`` wrote.

    Raises:
        BuildError: with the line, if there is no section of clocks, or one is not understood.
    """
    lines = read_text(file).splitlines()
    # older releases of XRT head the same list with "Clocks"
    starts = [i for i, x in enumerate(lines) if x.strip() in ("Scalable Clocks", "Clocks")]
    if not starts:
        raise not_understood(file, len(lines), "no section 'Scalable Clocks'")
    found = _section(file, lines, starts[0], "Frequency")
    system = [i for i, x in enumerate(lines) if x.strip() == "System Clocks"]
    return (*found, *(_section(file, lines, system[0], "Default Freq") if system else ()))


def _section(file: Path, lines: list[str], start: int, key: str) -> tuple[Clock, ...]:
    """Clocks below a heading, each a block of ``   Key: value`` lines."""
    found: list[dict[str, tuple[str, int]]] = []
    for number, line in enumerate(lines[start + 2 :], start + 3):
        match = _FIELD.match(line)
        if match is None:
            if line.strip() and not line.startswith("   "):
                break  # the next heading
            continue
        if match[1] == "Name":
            found.append({})
        if not found:
            raise not_understood(file, number, f"{match[1]!r} ahead of a clock's name")
        found[-1][match[1]] = (match[2], number)
    return tuple(_clock(file, block, key) for block in found)


def _clock(file: Path, block: Mapping[str, tuple[str, int]], key: str) -> Clock:
    name, line = block["Name"]
    if key not in block:
        raise not_understood(file, line, f"clock {name!r} has no {key!r}")

    def mhz(field: str) -> float | None:
        if field not in block:
            return None
        text, number = block[field]
        match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?) MHz", text)
        if match is None:
            raise not_understood(file, number, f"{field} of {name!r} is {text!r}, expected MHz")
        return float(match[1])

    base = mhz(key)
    assert base is not None
    return Clock(name, base, mhz("Requested Freq"), mhz("Achieved Freq"))


def read_timing(file: Path) -> Timing:
    """The design timing summary of a routed design.

    Raises:
        BuildError: with the line, if it is not there or not understood.
    """
    lines = read_text(file).splitlines()
    heads = [i for i, x in enumerate(lines) if x.strip() == "| Design Timing Summary"]
    if not heads:
        raise not_understood(file, len(lines), "no 'Design Timing Summary'")
    for number in range(heads[0], min(heads[0] + 8, len(lines) - 2)):
        if lines[number].split()[:2] == ["WNS(ns)", "TNS(ns)"]:
            values = lines[number + 2].split()
            good = len(values) >= 3 and all(re.fullmatch(r"-?\d+\.\d+", v) for v in values[:2])
            if not good or not values[2].isdecimal():
                raise not_understood(file, number + 3, f"slack is {lines[number + 2].strip()!r}")
            return Timing(file, float(values[0]), float(values[1]), int(values[2]))
    raise not_understood(file, heads[0] + 1, "no row with WNS(ns)")


def read_utilisation(file: Path, instances: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Instance -> resource -> count of v++'s table of kernels; BRAM in blocks of 18 Kb.

    Raises:
        BuildError: with the line, if the table or an instance is missing or not understood.
    """
    lines = read_text(file).splitlines()
    header: list[str] = []
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, 1):
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if not line.lstrip().startswith("|"):
            continue
        if cells[0] == "Name":
            header = cells
            if missing := [c for c in COLUMNS if c not in header]:
                raise not_understood(file, number, f"no column {', '.join(missing)}")
        elif header and cells[0] in instances:
            if len(cells) != len(header):
                raise not_understood(file, number, f"{len(cells)} cells, expected {len(header)}")
            found[cells[0]] = {
                field: _cell(file, number, cells[header.index(column)]) * (2 if column == "BRAM" else 1)
                for column, field in COLUMNS.items()
            }
    if not header:
        raise not_understood(file, len(lines), "no table of kernels")
    if missing := [name for name in instances if name not in found]:
        raise not_understood(file, len(lines), f"no row for {', '.join(missing)}")
    return found


def _cell(file: Path, number: int, text: str) -> float:
    match = _CELL.fullmatch(text)
    if match is None:
        raise not_understood(file, number, f"a cell is {text!r}, expected a count and a share")
    return float(match[1])


def read_implementation(
    root: Path, target_folder: str, info: str, instances: tuple[str, ...]
) -> Implementation:
    """Everything that is known after place and route.

    Args:
        target_folder: ``build/hw``.
        info: file that xclbinutil wrote.
    Raises:
        BuildError: if a report that is there is not understood.
    """
    notes: list[str] = []
    clocks = read_clocks(root / info) if (root / info).is_file() else ()
    data = next((c.mhz for c in clocks if c.name == DATA_CLK), None)
    if data is None:
        notes.append(f"no {DATA_CLK} in {info}")
    # the scalable clock has another name among the system clocks; its MHz are those of DATA_CLK, rounded
    same = [c.achieved for c in clocks if c.achieved and data and abs(c.achieved - data) < 1]
    place = root / target_folder / "_x" / "reports" / "link" / "imp"
    slack, used = _newest(place, "timing_summary"), _newest(place, "kernel_util")
    for name, file in (("timing summary", slack), ("utilisation of kernels", used)):
        if file is None:
            notes.append(f"no {name} of a routed design in {target_folder}/_x/reports/link/imp")
    return Implementation(
        data,
        same[0] if len(same) == 1 else None,
        read_timing(slack) if slack is not None else None,
        read_utilisation(used, instances) if used is not None else None,
        tuple(notes),
    )


def _newest(place: Path, what: str) -> Path | None:
    """The last such report of the flow: after post-route optimisation, else after routing."""
    for end in ("postroute_physopted", "routed"):
        found = sorted(place.glob(f"*{what}_{end}.rpt"))
        if found:
            return found[-1]
    return None
