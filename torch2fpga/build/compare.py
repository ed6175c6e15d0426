# SPDX-License-Identifier: Apache-2.0
"""What the tools said beside what we expected: per kernel, per process, per loop. Plain data.

Each column says how it was obtained; a figure that no report gives stays empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch2fpga.build import FLOWS, BuildError
from torch2fpga.build.folder import Folder
from torch2fpga.build.journal import Journal, write_whole
from torch2fpga.build.link_reports import Implementation, read_implementation
from torch2fpga.build.reports import KernelReport, LoopReport, ModuleReport, read_csynth
from torch2fpga.build.steps import hls_report, plan, xclbin_info
from torch2fpga.build.text_report import read_csynth_text

FILE = "build/comparison.json"
OURS = "estimated by torch2fpga (modelled)"
CSYNTH = "Vitis HLS csynth (tool estimate)"
ROUTED = "after place and route (tool)"
TITLES = {"dsp": "DSP", "lut": "LUT", "ff": "FF", "bram18": "BRAM18", "uram": "URAM"}


@dataclass(frozen=True)
class Figure:
    """One figure of a kernel, a process or the card; None where nobody says it.

    Attributes:
        where: kernel, ``kernel/process`` or ``card``.
        what: figure and unit.
        ours, csynth, routed: see ``OURS``, ``CSYNTH`` and ``ROUTED``.
    """

    where: str
    what: str
    ours: float | None
    csynth: float | None = None
    routed: float | None = None


@dataclass(frozen=True)
class LoopFigure:
    """One pipelined loop of a process; cycles.

    Attributes:
        ii, bound, depth: asked for, our lower bound, our estimate.
        csynth_ii, csynth_depth: of the tool.
        note: why the tool's are empty, or how they were chosen.
    """

    kernel: str
    process: str
    loop: str
    place: str
    ii: int
    bound: int
    depth: int
    csynth_ii: int | None = None
    csynth_depth: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All of it.

    Attributes:
        releases: kernel -> release of the tool that wrote its report.
        notes: what to mind.
        problems: reports that were not understood, with file and line.
    """

    design: str
    board: str
    figures: tuple[Figure, ...]
    loops: tuple[LoopFigure, ...]
    releases: Mapping[str, str]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def slower(self) -> tuple[LoopFigure, ...]:
        """Loops that got a larger interval than they asked for."""
        return tuple(x for x in self.loops if x.csynth_ii is not None and x.csynth_ii > x.ii)

    @property
    def seen(self) -> bool:
        """Has any tool said anything?"""
        return bool(self.releases) or any(f.routed is not None for f in self.figures)

    def to_json(self) -> dict[str, Any]:
        """Plain data; the kinds of the columns with it."""
        kinds = {"ours": OURS, "csynth": CSYNTH, "routed": ROUTED}
        return {"format": "torch2fpga comparison", "format_version": 1, "kinds": kinds, **asdict(self)}

    def save(self, root: Path) -> Path:
        """Write ``build/comparison.json``."""
        write_whole(root / FILE, json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n")
        return root / FILE


def compare(folder: Folder) -> Comparison:
    """Read every report that is there and put it beside the estimates.

    Raises:
        BuildError: if the estimates are missing or damaged. Reports that are not understood are
            ``problems`` of the result.
    """
    if not folder.estimates:
        raise BuildError("; ".join(folder.problems))
    problems: list[str] = []
    notes: list[str] = []
    reports = _reports(folder, notes, problems)
    instances = tuple(f"{name}_1" for name in folder.kernels)
    done = Implementation()
    if (folder.root / "build/hw").is_dir():
        try:
            info = xclbin_info(folder, "hw")
            done = read_implementation(folder.root, "build/hw", info, instances)
        except BuildError as error:
            problems.append(str(error))
        notes += done.notes
    try:
        figures, loops = _rows(folder, reports, done)
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"estimates.json is damaged: {error!r}; write the project again") from error
    releases = {name: report.version for name, report in reports.items()}
    return Comparison(
        folder.design, folder.board, tuple(figures), tuple(loops), releases, tuple(notes), tuple(problems)
    )


def _reports(folder: Folder, notes: list[str], problems: list[str]) -> dict[str, KernelReport]:
    """Kernel -> report, of either flow; the newest where there are both."""
    found: dict[str, KernelReport] = {}
    journal = Journal(folder.root)
    for flow in FLOWS:
        for step in plan(folder, "csynth", flow):
            file = folder.root / hls_report(step.kernel, flow)
            read = read_csynth
            if not file.is_file():
                file, read = file.with_suffix(".rpt"), read_csynth_text
            if not file.is_file():
                continue
            before = found.get(step.kernel)
            if before is not None and before.file.stat().st_mtime >= file.stat().st_mtime:
                continue
            try:
                found[step.kernel] = read(file, step.kernel)
            except BuildError as error:
                problems.append(str(error))
                continue
            if not journal.current(step):
                notes.append(f"csynth report of {step.kernel}: not known to be of the files as they are")
    return found


def _rows(
    folder: Folder, reports: Mapping[str, KernelReport], done: Implementation
) -> tuple[list[Figure], list[LoopFigure]]:
    figures = [_clock(folder, reports, done)]
    if done.timing is not None:
        figures.append(Figure("card", "worst slack (ns)", None, None, done.timing.wns))
    loops: list[LoopFigure] = []
    for kernel in folder.estimates["kernels"]:
        report = reports.get(kernel["name"])
        used = (done.used or {}).get(f"{kernel['name']}_1", {})
        for key, title in TITLES.items():
            theirs = report.resources[key] if report is not None else None
            figures.append(Figure(kernel["name"], title, kernel["resources"][key], theirs, used.get(key)))
        by_name = {p["name"]: p for p in kernel["processes"]}
        for process in kernel["processes"]:
            if process["dsp"]:
                figures.append(_multipliers(kernel["name"], process, by_name, report))
            loops += [_loop(kernel["name"], process, loop, report) for loop in process["loops"]]
    return figures, loops


def _clock(folder: Folder, reports: Mapping[str, KernelReport], done: Implementation) -> Figure:
    """The kernel clock: what is assumed, the slowest kernel of csynth, what was reached."""
    slowest = min((r.estimated_mhz for r in reports.values() if r.estimated_mhz), default=None)
    reached = done.achieved if done.achieved is not None else done.data_clk
    assumed = float(folder.estimates["clock_mhz"])
    return Figure("card", "kernel clock (MHz)", assumed, round(slowest, 1) if slowest else None, reached)


def _multipliers(
    kernel: str, process: Mapping[str, Any], by_name: Mapping[str, Any], report: KernelReport | None
) -> Figure:
    """DSP of a process, with the one in front of it where the two share a figure."""
    found: list[ModuleReport] = []
    parts = [process, *([by_name[process["front"]]] if process["front"] in by_name else [])]
    for part in parts if report is not None else []:
        assert report is not None
        whole = [n for n in (part["module"], f"{part['module']}_s") if n in report.modules]
        found += [report.modules[whole[0]]] if whole else []
    theirs = sum(m.resources["dsp"] for m in found) if len(found) == len(parts) else None
    return Figure(f"{kernel}/{process['name']}", "DSP", process["dsp"], theirs)


def _loop(
    kernel: str, process: Mapping[str, Any], loop: Mapping[str, Any], report: KernelReport | None
) -> LoopFigure:
    place = f"{loop['file']}:{loop['line']}"
    row = (kernel, process["name"], loop["label"], place, loop["ii"], loop["minimum_ii"], loop["depth"])
    if report is None:
        return LoopFigure(*row)
    found = loops_named(report, process["module"], loop["label"])
    timed = [x for x in found if x.ii is not None]
    if not timed:
        return LoopFigure(*row, note="not pipelined" if found else "not in the report")
    ii, depth = max(x.ii or 0 for x in timed), max((x.depth for x in timed if x.depth), default=None)
    note = f"largest of {len(timed)} of that name" if len(timed) > 1 else ""
    return LoopFigure(*row, ii, depth, note)


def loops_named(report: KernelReport, stem: str, label: str) -> Sequence[LoopReport]:
    """Loops of that label in a process's module and below it.

    Loops that the tool flattens carry the labels of all, outer first (``py_px``), and a pipelined
    inner loop gets a module of its own (``<stem>_Pipeline_<label>``), which a top without any other
    module for the process may hold directly.
    """
    starts = [n for n in report.modules if n in (stem, f"{stem}_s") or n.startswith(f"{stem}_Pipeline_")]
    modules = {m.name: m for start in starts for m in report.below(start)}
    loops = [x for m in modules.values() for x in m.loops]
    exact = [x for x in loops if x.name == label]
    return exact or [x for x in loops if x.name.endswith(f"_{label}")]
