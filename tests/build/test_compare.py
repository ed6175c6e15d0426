# SPDX-License-Identifier: Apache-2.0
"""Estimates in the project, the tools' reports beside them, the command line: with fakes of the tools."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from tests.build import fakes
from tests.cli.program import run
from torch2fpga.build.compare import Comparison, Figure, LoopFigure, compare, loops_named
from torch2fpga.build.folder import open_folder
from torch2fpga.build.reports import KernelReport, LoopReport, ModuleReport
from torch2fpga.build.show import notable, show_comparison, surprising
from torch2fpga.emit.estimates import module_stem


def found(project: Path) -> Comparison:
    return compare(open_folder(project))


def figure(comparison: Comparison, where: str, what: str) -> tuple[float | None, float | None, float | None]:
    (row,) = [f for f in comparison.figures if (f.where, f.what) == (where, what)]
    return row.ours, row.csynth, row.routed


# -- what the project says ------------------------------------------------------------------------


def test_the_project_carries_its_estimates(written: Path) -> None:
    data = json.loads((written / "estimates.json").read_text())
    manifest = json.loads((written / "manifest.json").read_text())
    assert [k["name"] for k in data["kernels"]] == [k["name"] for k in manifest["kernels"]]
    assert data["basis"].startswith("modelled")
    assert set(data["kinds"]) >= {"resources", "ii", "depth", "clock_mhz"}
    for kernel in data["kernels"]:
        source = (written / "kernels" / f"{kernel['name']}.cpp").read_text()
        assert [p["name"] for p in kernel["processes"]] == re.findall(r'T2F_PROCESS\("(\w+)"', source)
        # no process is without a loop, and every loop stands where it says
        for process in kernel["processes"]:
            assert process["loops"], process["name"]
            for loop in process["loops"]:
                files = [
                    *written.glob(f"include/t2f/{loop['file']}"),
                    *written.glob(f"kernels/{loop['file']}"),
                ]
                line = next(f for f in files if f.is_file()).read_text().splitlines()[loop["line"] - 1]
                assert f"T2F_PIPELINE({loop['ii']})" in line
                assert loop["depth"] >= 1 and loop["minimum_ii"] <= loop["ii"]
    total = sum(k["resources"]["dsp"] for k in data["kernels"])
    assert total == sum(p["dsp"] or 0 for k in data["kernels"] for p in k["processes"]) > 1000


def test_modules_are_named_as_in_public_reports() -> None:
    assert module_stem("DepthwiseConv2d<28, 10, 1, 3>") == "DepthwiseConv2d_28_10_1_3"
    assert module_stem("t2f::matmul<LayersArray0Config>") == "matmul_LayersArray0Config"
    assert module_stem("ln_turns") == "ln_turns"


def test_the_page_of_the_first_hour(written: Path) -> None:
    text = (written / "FIRST_HOUR.md").read_text()
    data = json.loads((written / "estimates.json").read_text())
    loops = [loop for k in data["kernels"] for p in k["processes"] for loop in p["loops"]]
    assert text.count("| | |\n") >= len(loops)
    for kernel in data["kernels"]:
        assert f"| `{kernel['name']}` | DSP | {kernel['resources']['dsp']:,} | |" in text
    order = [text.index(word) for word in ("--check", "--target csim ", "--target csynth ", "--target hw  ")]
    assert order == sorted(order)
    assert "DATA_CLK" in text and "What to send back" in text and "nothing has been synthesised" in text
    assert "(FIRST_HOUR.md)" in (written / "README.md").read_text()
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(tables) == {4, 5, 8}
    assert "\n\n\n" not in text


# -- the tools' reports beside it -----------------------------------------------------------------


def test_without_reports_nothing_is_said(project: Path) -> None:
    comparison = found(project)
    assert not comparison.seen and not comparison.releases
    assert {f.csynth for f in comparison.figures} == {f.routed for f in comparison.figures} == {None}
    assert {x.csynth_ii for x in comparison.loops} == {None}


def test_csynth_beside_the_estimates(project: Path, tool_box: fakes.Fakes) -> None:
    """The fake reports half as much again of every resource, II 3 for one label, depths deeper by 3."""
    tool_box.behave(slow={"GATHER": 3})
    result = run("build", project, "--target", "csynth", "--jobs", "2")
    assert result.exit_code == 0, result.output
    comparison = found(project)
    ours = json.loads((project / "estimates.json").read_text())["kernels"][0]["resources"]
    for key, title in (("dsp", "DSP"), ("lut", "LUT"), ("bram18", "BRAM18")):
        assert figure(comparison, "perceptron_0", title) == (ours[key], int(ours[key] * 1.5), None)
    assert figure(comparison, "card", "kernel clock (MHz)") == (250.0, 320.0, None)
    dsp = figure(comparison, "perceptron_1/layers_array0", "DSP")
    assert dsp[0] == dsp[1] and dsp[0] is not None and dsp[0] > 100
    assert len(comparison.loops) == 61
    assert all(x.csynth_ii is not None and x.csynth_depth == x.depth + 3 for x in comparison.loops)
    assert {x.loop for x in comparison.slower} == {"GATHER"} and len(comparison.slower) == 2
    assert not comparison.problems and not comparison.notes
    assert "61 of 61 pipelined loops were found" in result.output
    assert "2 got a larger II than they asked for" in result.output
    for title in ("estimated by torch2fpga (modelled)", "Vitis HLS csynth (tool estimate)"):
        assert title in result.output
    saved = json.loads((project / "build" / "comparison.json").read_text())
    assert saved["kinds"]["csynth"] == "Vitis HLS csynth (tool estimate)"
    assert len(saved["loops"]) == 61


def test_a_terminal_shows_what_is_off() -> None:
    same = Figure("k/p", "DSP", 262, 270)
    assert not notable(same) and notable(Figure("k/p", "DSP", 262, 300))
    assert not notable(Figure("k/p", "DSP", 1, 4)) and notable(Figure("k/p", "DSP", 0, 5))
    assert notable(Figure("k", "DSP", 262, 262)) and not notable(Figure("k", "DSP", 262))
    loop = LoopFigure("k", "p", "ROW", "x.hpp:1", 1, 1, 8, 1, 16)
    assert not surprising(loop)
    assert surprising(replace(loop, csynth_ii=2)) and surprising(replace(loop, csynth_depth=17))
    assert not surprising(replace(loop, depth=2, csynth_depth=10))
    assert not surprising(replace(loop, csynth_ii=None, csynth_depth=None))
    text = Console(width=60, record=True, file=io.StringIO())
    many = tuple(replace(loop, loop=f"L{i}", csynth_ii=2) for i in range(25))
    show_comparison(Comparison("d", "u280", (same,), many, {"k": "2022.1"}, ("[b]mind[/b]",)), text)
    shown = text.export_text()
    assert "and 5 more, in build/report.html" in shown and "note: [b]mind[/b]" in shown
    assert "DSP of 1 processes within a tenth" in shown and "L0" in shown


def test_place_and_route_beside_the_estimates(project: Path, tool_box: fakes.Fakes) -> None:
    result = run("build", project, "--target", "hw")
    assert result.exit_code == 0, result.output
    comparison = found(project)
    assert figure(comparison, "card", "kernel clock (MHz)") == (250.0, None, 243.1)
    assert figure(comparison, "card", "worst slack (ns)") == (None, None, 0.012)
    assert figure(comparison, "perceptron_0", "BRAM18")[2] == 181
    assert figure(comparison, "perceptron_1", "DSP")[2] == 1086
    assert "after place and route (tool)" in result.output


class _Text(HTMLParser):
    """Words of a page, and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {k}" for k, v in attrs if k in ("src", "href") and v and not v.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_page(project: Path, tool_box: fakes.Fakes) -> None:
    run("build", project, "--target", "csynth")
    page = _Text()
    page.feed((project / "build" / "report.html").read_text())
    assert page.loads == []
    for word in ("estimated by torch2fpga (modelled)", "Vitis HLS csynth (tool estimate)",
                 "after place and route (tool)", "perceptron_1/layers_array0"):  # fmt: skip
        assert word in page.words
    assert "None was measured on a card." in "".join(page.words)


def test_a_report_that_is_not_understood_is_refused(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(reports={"perceptron_1": "<profile>\n<ReportVersion>\n</profile>\n"})
    result = run("build", project, "--target", "csynth")
    assert result.exit_code == 1
    file = project / "build/hls/perceptron_1_csynth/solution1/syn/report/csynth.xml"
    assert f"{file}:3: report not understood: no XML (mismatched tag)" in result.output
    assert figure(found(project), "perceptron_1", "DSP")[1] is None  # nothing is invented
    assert figure(found(project), "perceptron_0", "DSP")[1] is not None


def test_a_report_of_other_sources_is_told(project: Path, tool_box: fakes.Fakes) -> None:
    run("build", project, "--target", "csynth")
    with (project / "kernels" / "perceptron_1.cpp").open("a") as stream:
        stream.write("// changed\n")
    (note,) = found(project).notes
    assert note == "csynth report of perceptron_1: not known to be of the files as they are"


def test_loops_are_found_where_the_tools_put_them() -> None:
    def module(name: str, *loops: LoopReport) -> ModuleReport:
        return ModuleReport(name, loops, {})

    modules = [
        module("krnl"),
        module("f_AConfig_s", LoopReport("ROW", None, None, None)),
        module("f_AConfig_Pipeline_ROW_LANE", LoopReport("ROW_LANE", 2, 9, None)),
        module("g_s", LoopReport("LOAD", 1, 3, None), LoopReport("LOAD", 4, 5, None)),
        module("f_AConfig2_s", LoopReport("LANE", 7, 7, None)),
    ]
    children = {
        "krnl": ("f_AConfig_s", "f_AConfig2_s"),
        "f_AConfig_s": ("g_s", "f_AConfig_Pipeline_ROW_LANE"),
    }
    report = KernelReport(
        Path("x"), "krnl", "2022.1", "p", 4.0, 1.0, 3.0, {}, {}, {m.name: m for m in modules}, children
    )
    assert [x.ii for x in loops_named(report, "f_AConfig", "LANE")] == [2]  # flattened: ROW_LANE
    assert [x.ii for x in loops_named(report, "f_AConfig", "ROW")] == [None]
    assert [x.ii for x in loops_named(report, "f_AConfig", "LOAD")] == [1, 4]  # of a function in it
    assert loops_named(report, "f_BConfig", "LANE") == []


# -- the command ----------------------------------------------------------------------------------


def test_check_only_checks(project: Path, tool_box: fakes.Fakes) -> None:
    result = run("build", project, "--target", "hw", "--check")
    assert result.exit_code == 0 and "found   v++: " in result.output
    (tool_box.folder / "v++").unlink()
    result = run("build", project, "--target", "hw", "--check")
    assert result.exit_code == 1 and "missing v++: not found" in result.output
    result = run("build", project, "--target", "hw")
    assert result.exit_code == 1 and "hw cannot start, 1 things are missing" in result.output
    assert tool_box.calls() == [] and not (project / "build").exists()


def test_dry_run_starts_nothing(project: Path, tool_box: fakes.Fakes) -> None:
    result = run("build", project, "--target", "csynth", "--dry-run")
    assert result.exit_code == 0
    assert "T2F_STEP=csynth vitis_hls -f ../../hls/perceptron_0.tcl (in build/hls)" in result.output
    assert tool_box.calls() == [] and not (project / "build").exists()


def test_a_failure_on_the_command_line(project: Path, tool_box: fakes.Fakes) -> None:
    line = "ERROR: [HLS 207-974] 'no[bold]such.h' file not found"
    tool_box.behave(fail={"csynth:perceptron_0": [line]})
    result = run("build", project, "--target", "csynth")
    assert result.exit_code == 1
    for part in ("vitis_hls: status 1", line, "build/csynth/logs/csynth-perceptron_0.log",
                 "failed: csynth:perceptron_0", "done    csynth:perceptron_1"):  # fmt: skip
        assert part in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "Missing argument"),
        (("{project}",), 2, "Missing option"),
        (("{project}", "--target", "bitstream"), 2, "bitstream"),
        (("{project}", "--target", "csim", "--jobs", "0"), 2, "--jobs"),
        (("{project}", "--target", "csim", "--floorplan"), 2, "only hw places anything"),
        (("{project}/kernels", "--target", "csim"), 2, "manifest.json is missing"),
        (("{project}/manifest.json", "--target", "csim"), 2, "is not a folder"),
        (("no [bold]such", "--target", "csim"), 2, "no [bold]such is not a folder"),
    ],
)
def test_calls_that_are_wrong(
    project: Path, tool_box: fakes.Fakes, arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = run("build", *(a.format(project=project) for a in arguments))
    assert result.exit_code == status, result.output
    assert message in result.output
    assert tool_box.calls() == []


def test_help_teaches() -> None:
    result = run("build", "--help")
    for word in ("--check", "--dry-run", "--target csynth --jobs 4", "Ctrl-C", "exit status", "csim"):
        assert word in result.output
    assert result.exit_code == 0
