# SPDX-License-Identifier: Apache-2.0
"""Channels, link.cfg and floorplan.tcl: ports and kernels on the card."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plan.placements import elsewhere, placed, random_place, without_kernels
from tests.tiny import compiled
from torch2fpga.boards import U280, Slr
from torch2fpga.emit.link import ROLE_ORDER, channels, floorplan, link_config, too_large
from torch2fpga.emit.ports import all_ports
from torch2fpga.emit.project import project_files
from torch2fpga.errors import CompileError


@pytest.mark.hf
@pytest.mark.parametrize("seed", range(3))
def test_every_port_has_a_channel_of_its_own(seed: int) -> None:
    bare = without_kernels(compiled("bert").design)
    design = placed(bare, random_place(bare, seed))
    found = channels(design, U280)
    ports = all_ports(design)
    assert list(found) == [(k.name, p.name) for k, p in ports]
    assert sorted(found.values()) == list(range(len(ports)))
    roles = [p.role for _, p in sorted(ports, key=lambda kp: found[kp[0].name, kp[1].name])]
    assert roles == sorted(roles, key=ROLE_ORDER.index) and roles[0] == "weights"
    slr = {s: k.slr for k in design.kernels for s in k.stages}
    weights = sorted((found[k.name, p.name], slr[p.binding]) for k, p in ports if p.role == "weights")
    assert [s for _, s in weights] == sorted(s for _, s in weights)  # side by side


def test_a_plan_chooses_channels() -> None:
    design = compiled("mlp3d").design
    names = [p.name for _, p in all_ports(design)]
    plan = {names[0]: 17, names[-1]: 0}
    found = {argument: c for (_, argument), c in channels(design, U280, plan).items()}
    assert {n: found[n] for n in plan} == plan
    rest = sorted(c for n, c in found.items() if n not in plan)
    assert rest == list(range(1, len(names) - 1))
    kept = replace(design, channels=plan)
    assert channels(kept, U280) == channels(design, U280, plan) != channels(design, U280)
    assert channels(kept, U280, {}) == channels(design, U280)
    assert f"{names[0]}:HBM[17]" in link_config(kept, U280)


def test_a_bad_plan_is_refused_with_everything_that_is_wrong() -> None:
    design = compiled("mlp3d").design
    first, second, third, *_ = (p.name for _, p in all_ports(design))
    with pytest.raises(CompileError) as error:
        channels(design, U280, {"none": 3, first: 32, second: 4, third: 4})
    text = str(error.value)
    assert f"the plan names port none, there are {first}, " in text
    assert f"port {first} on channel 32: the u280 has 0 to 31" in text
    assert f"channel 4 has 2 ports: {second}, {third}" in text


def test_too_many_ports_are_refused() -> None:
    design = compiled("mlp3d").design
    ports = len(all_ports(design))
    few = replace(U280, masters=ports - 1)
    with pytest.raises(CompileError, match=rf"{ports} AXI masters, the u280 has {ports - 1}"):
        channels(design, few)


def test_slr_lines_and_the_floorplan_agree() -> None:
    design = compiled("encoder").design
    lines = re.findall(r"^slr=(\w+):(SLR\d)$", link_config(design, U280), re.MULTILINE)
    assert lines == [(f"{k.name}_1", f"SLR{k.slr}") for k in design.kernels]
    text = floorplan(design, U280)
    assert re.findall(r"^  (\w+_1) (SLR\d)$", text, re.MULTILINE) == lines
    assert "STEPS.OPT_DESIGN.TCL.PRE" in text and "USER_SLR_ASSIGNMENT" in text


def test_a_kernel_larger_than_its_slr_is_given_none() -> None:
    model = copy.copy(compiled("encoder"))
    design, large = model.design, model.design.kernels[1]
    model.board = replace(U280, slrs=(U280.slrs[0], Slr(1, 1, 1, 1, 1), U280.slrs[2]))
    assert [too_large(design, k, model.board) for k in design.kernels] == [False, True, False]
    text = link_config(design, model.board)
    assert f"slr={large.name}_1" not in text and text.count("\nslr=") == 2
    assert f"# {large.name}_1 is larger than SLR1" in text
    assert f"{large.name}_1" not in floorplan(design, model.board)


def test_the_project_holds_the_floorplan() -> None:
    texts = project_files(compiled("mlp2d"))
    assert texts["floorplan.tcl"] == floorplan(compiled("mlp2d").design, U280)
    assert "floorplan.tcl" in texts["README.md"] and "FLOORPLAN" in texts["Makefile"]


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="needs tclsh")
def test_the_floorplan_is_tcl(tmp_path: Path) -> None:
    """Run with stand-ins for Vivado's commands: which cells get which SLR."""
    design = compiled("encoder").design
    head = (
        'proc get_cells {args} {puts "find [lindex $args end]"; return cell}\n'
        'proc set_property {args} {puts "set $args"}\n'
    )
    (tmp_path / "run.tcl").write_text(head + floorplan(design, U280))
    done = subprocess.run(["tclsh", "run.tcl"], cwd=tmp_path, capture_output=True, text=True, check=True)
    wanted = []
    for kernel in design.kernels:
        wanted.append(f'find NAME =~ "^(.*/)?{kernel.name}_1$"')
        wanted.append(f"set USER_SLR_ASSIGNMENT SLR{kernel.slr} cell")
    assert done.stdout.splitlines() == wanted


@pytest.mark.parametrize("seed", range(2))
def test_the_manifest_follows_the_assignment(seed: int) -> None:
    model = elsewhere("mlp3d", seed)
    data = json.loads(project_files(model)["manifest.json"])
    first = model.design.kernels[0].name
    assert {p["kernel"] for p in data["ports"]} == {first}
    assert [p["argument"] for p in data["ports"] if p["role"] == "params"] == ["parameters"]
    assert [k["slr"] for k in data["kernels"]] == [k.slr for k in model.design.kernels]
    links = {link["stream"]: (link["from"], link["to"]) for link in data["links"]}
    assert set(links) == {s.name for s in model.design.streams.values() if s.link}
    for kernel in model.design.kernels:
        if kernel.parameters is not None:
            assert links[kernel.parameters] == (first, kernel.name)


def test_more_wires_than_there_are_is_refused() -> None:
    model = copy.copy(compiled("encoder"))
    model.board = replace(U280, wires=(100, 18_773))
    with pytest.raises(CompileError, match=r"wires cross from SLR0 to SLR1, the u280 has 100"):
        project_files(model)
