# SPDX-License-Identifier: Apache-2.0
"""Everything that is missing is said at once, before anything starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.build import fakes
from torch2fpga.build import BuildError
from torch2fpga.build.check import Check, check
from torch2fpga.build.folder import open_folder
from torch2fpga.build.tools import find, outside, release


def look(project: Path, box: fakes.Fakes, target: str = "hw", flow: str = "tcl", **env: str) -> Check:
    return check(open_folder(project), target, flow, {**box.env, **env})


def missing(found: Check) -> dict[str, str]:
    return {f.what: f.text for f in found.missing}


def test_all_is_there(project: Path, tool_box: fakes.Fakes) -> None:
    for target in ("csim", "csynth", "cosim", "hw_emu", "hw"):
        found = look(project, tool_box, target)
        assert found.ok, found.missing
        found.require()
    found = look(project, tool_box)
    text = {f.what: f.text for f in found.findings}
    assert text["v++"] == f"{tool_box.folder / 'v++'}, 2022.1"
    assert text["platform"].endswith(f"{fakes.PLATFORM}.xpfm")
    assert "rule of thumb" in text["disk"] and "rule of thumb" in text["memory"]
    assert "Common 17-345" in text["licence"]
    assert tool_box.calls() == []


def test_everything_missing_is_said_at_once(project: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    weights = sorted((project / "weights").iterdir())
    weights[0].write_bytes(b"damaged")
    weights[1].unlink()
    (project / "hls" / "perceptron_1.tcl").unlink()
    found = check(open_folder(project), "hw", "tcl", {"PATH": str(empty)}, roots=())
    told = "\n".join(str(f) for f in found.missing)
    for part in ("v++: not found", "vivado: not found", "xclbinutil: not found", "platform: ",
                 f"{weights[0].name} is not what was written", f"{weights[1].name} is missing",
                 "hls/perceptron_1.tcl is missing"):  # fmt: skip
        assert part in told
    with pytest.raises(BuildError) as error:
        found.require()
    assert "7 things are missing" in str(error.value)
    assert str(error.value).count("\n  - ") == 7


def test_releases_outside_of_the_range(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(release="2024.1", releases={"vivado": "2021.2"})
    found = missing(look(project, tool_box))
    assert "2024.1 does not support the card any more: install one from 2022.1 to 2023.2" in found["v++"]
    assert "2021.2 is too old" in found["vivado"]
    assert "xclbinutil" not in found  # XRT has releases of its own
    assert outside("2023.2", ("2022.1", "2023.2")) == outside("2022.1", ("2022.1", "2023.2")) == ""


def test_releases_that_differ_are_told(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(releases={"vivado": "2022.2"})
    found = look(project, tool_box)
    assert found.ok
    assert any(f.what == "releases" and "2022.1, 2022.2" in f.text for f in found.findings)


def test_the_unified_command_line_needs_2023_2(project: Path, tool_box: fakes.Fakes) -> None:
    found = missing(look(project, tool_box, "csim", "cfg"))
    assert "starts with 2023.2; use --flow tcl" in found["vitis-run"]
    tool_box.behave(release="2023.2")
    assert look(project, tool_box, "cosim", "cfg").ok


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\n****** v++ v2022.1 (64-bit)\n  **** SW Build 3524075 on 2022-04-13-17:42:45", "2022.1"),
        ("Vitis HLS - High-Level Synthesis from C, C++ and OpenCL v2023.2 (64-bit)", "2023.2"),
        ("Vivado v2022.1.2 (64-bit)\nTool Version Limit: 2022.04", "2022.1"),
        ("XRT Build Version: 2.13.466 (2022.1)\n Build Date: 2022-04-14", "2022.1"),
        ("XRT Build Version: 2.16.204 (2023.2_PU1)", "2023.2"),
        ("line 39: /usr/bin/unwrapped/xclbinutil: No such file or directory", ""),
        ("version 2022.1", ""),
    ],
)
def test_release_in_what_tools_print(text: str, wanted: str) -> None:
    assert release(text) == wanted


def test_a_tool_that_does_not_answer_is_not_trusted(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(mute=["v++"])
    (tool_box.folder / "vivado").write_text("#!/bin/false\n")
    (tool_box.folder / "xclbinutil").write_text("#!/no/such/interpreter\n")
    found = missing(look(project, tool_box))
    assert "--version was not understood: 'no idea'" in found["v++"]
    assert "--version failed with status 1" in found["vivado"]
    assert "cannot be started" in found["xclbinutil"]


def test_an_installation_that_is_not_set_up_is_named(project: Path, tmp_path: Path) -> None:
    place = tmp_path / "opt" / "Vitis" / "2023.1"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "v++").write_text("")
    tool = find("v++", "links", {"PATH": ""}, roots=[tmp_path / "opt"])
    assert tool.path is None
    assert tool.problem.endswith(f"source {place / 'settings64.sh'}")


def test_variables_of_the_settings_are_searched(project: Path, tool_box: fakes.Fakes, tmp_path: Path) -> None:
    vitis = tmp_path / "Vitis"
    shutil.copytree(tool_box.folder, vitis / "bin")
    found = check(
        open_folder(project), "csim", "tcl", {"PATH": "", "XILINX_HLS": str(vitis)}, roots=()
    )  # fmt: skip
    assert found.ok
    assert found.tools["vitis_hls"].path == vitis / "bin" / "vitis_hls"


def test_platforminfo_has_a_say(project: Path, tool_box: fakes.Fakes) -> None:
    (xpfm,) = tool_box.platforms.rglob("*.xpfm")
    xpfm.write_text("garbage")
    assert "platforminfo cannot read" in missing(look(project, tool_box))["platform"]


def test_paths_that_the_tools_would_split(project: Path, tool_box: fakes.Fakes) -> None:
    odd = Path(shutil.copytree(project, project.parent / "a b;$(touch pwned)"))
    found = check(open_folder(odd), "csim", "tcl", tool_box.env)
    told = [f.text for f in found.missing]
    assert len(told) == 2 and "blanks" in told[0] and "Tcl or make" in told[1]


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("manifest.json", '"perceptron_1"', '"x; touch pwned"', "is no identifier"),
        ("manifest.json", '"design": "perceptron"', '"design": "../up"', "is no identifier"),
        ("manifest.json", '"2023.2"', '"newest"', "no range of tool releases"),
        ("manifest.json", '"format_version": 1', '"format_version": 9', "format version 9"),
        ("link.cfg", "platform=", "platform=$(id) ", "names no platform"),
        ("link.cfg", "kernel_frequency=250", "kernel_frequency=250 --foo", "no kernel_frequency"),
    ],
)
def test_names_of_a_project_are_not_trusted(
    project: Path, file: str, old: str, new: str, reason: str
) -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    with pytest.raises(BuildError, match=reason):
        open_folder(project)


def test_checksums_cannot_reach_outside(project: Path) -> None:
    with (project / "SHA256SUMS").open("a") as stream:
        stream.write(f"{'0' * 64}  ../../etc/passwd\nnonsense\n")
    problems = open_folder(project).problems
    assert any("outside the project" in p for p in problems)
    assert any("is no checksum" in p for p in problems)


def test_another_platform_in_the_link_configuration_is_told(project: Path, tool_box: fakes.Fakes) -> None:
    text = (project / "link.cfg").read_text().replace(f"platform={fakes.PLATFORM}", "platform=xilinx_other")
    (project / "link.cfg").write_text(text)
    told = [f.text for f in look(project, tool_box).missing]
    assert any("xilinx_other, the project was written for" in t for t in told)
    assert any("xilinx_other.xpfm not found" in t for t in told)


def test_a_project_without_weights_can_be_synthesised(project: Path, tool_box: fakes.Fakes) -> None:
    """What is written from a configuration alone has no test bench, and nothing to compare with."""
    data = json.loads((project / "manifest.json").read_text())
    (project / "manifest.json").write_text(json.dumps({**data, "packed": False}))
    for name in ("weights", "golden", "tb"):
        shutil.rmtree(project / name)
    (project / "SHA256SUMS").unlink()
    assert look(project, tool_box, "csynth").ok and look(project, tool_box, "hw").ok
    for target in ("csim", "cosim"):
        (only,) = look(project, tool_box, target).missing
        assert "torch2fpga pack brings them" in only.text


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not a folder"):
        open_folder(tmp_path / "none")
    with pytest.raises(BuildError, match=r"manifest\.json is missing"):
        open_folder(tmp_path)
