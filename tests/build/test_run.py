# SPDX-License-Identifier: Apache-2.0
"""Steps run, are skipped, fail, are killed and go on: with fakes of the tools."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.build import fakes
from torch2fpga.build import TARGETS, BuildError
from torch2fpga.build.check import check
from torch2fpga.build.folder import open_folder
from torch2fpga.build.journal import STATE, locked
from torch2fpga.build.run import Outcome, Runner, pending
from torch2fpga.build.steps import Step, plan

KERNELS = ("perceptron_0", "perceptron_1")


class Silent:
    """Watches, and remembers what was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, step: Step, log: Path) -> None:
        self.lines.append(f"begin {step.name}")

    def progress(self, step: Step, seconds: float, line: str) -> None:
        self.lines.append(line)

    def end(self, outcome: Outcome) -> None:
        self.lines.append(f"{outcome.state} {outcome.step.name}")


def build(
    project: Path, box: fakes.Fakes, target: str = "csynth", flow: str = "tcl", force: bool = False
) -> dict[str, Outcome]:
    """Check and run, as the command does; outcomes by step."""
    folder = open_folder(project)
    found = check(folder, target, flow, box.env)
    found.require()
    runner = Runner(project, target, found.tools, box.env, Silent(), force=force)
    return {o.step.name: o for o in runner.run(plan(folder, target, flow))}


def states(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: o.state for name, o in outcomes.items()}


def program(project: Path, box: fakes.Fakes, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    env = {**os.environ, **box.env, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "torch2fpga.cli", "build", str(project), *arguments]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_interruptible,
    )


def _interruptible() -> None:
    """A shell that runs the tests in the background has its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.02)


def hanging(box: fakes.Fakes, step: str) -> Callable[[], bool]:
    file = box.folder / f"hangs-{step.replace(':', '-')}"
    return lambda: file.exists() and bool(file.read_text())


@pytest.mark.parametrize(
    ("target", "flow"), [*((t, "tcl") for t in TARGETS), *((t, "cfg") for t in ("csim", "csynth", "cosim"))]
)
def test_a_target_runs_once(project: Path, tool_box: fakes.Fakes, target: str, flow: str) -> None:
    if flow == "cfg":
        tool_box.behave(release="2023.2")
    first = build(project, tool_box, target, flow)
    assert set(states(first).values()) == {"done"}
    steps = plan(open_folder(project), target, flow)
    # The very arguments, one by one: nothing has been through a shell.
    assert [(c["tool"], *c["args"]) for c in tool_box.calls()] == [s.command for s in steps]
    assert [c["cwd"] for c in tool_box.calls()] == [str((project / s.folder).resolve()) for s in steps]
    for outcome in first.values():
        assert outcome.log is not None and "FAKE TOOL" in outcome.log.read_text()
        assert outcome.log.parent == project / "build" / target / "logs"
    tool_box.forget()
    assert set(states(build(project, tool_box, target, flow)).values()) == {"skipped"}
    assert tool_box.calls() == []
    assert set(states(build(project, tool_box, target, flow, force=True)).values()) == {"done"}
    assert len(tool_box.calls()) == len(steps)


def test_the_makefile_runs_the_same_commands(project: Path) -> None:
    """What ``make -n`` prints, against the steps' arguments."""
    folder = open_folder(project)
    for target in ("csynth", "hw_emu", "hw"):
        env = {**os.environ, "HLS_FLOW": "tcl"}
        command = ["make", "-n", "-C", str(project), "--no-print-directory", target]
        printed = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
        flat = " ".join(printed.replace("\\\n", " ").split())
        for step in plan(folder, target):
            if step.phase not in ("info", "emconfig"):
                variables = "".join(f"{name}={value} " for name, value in step.env)
                assert variables + " ".join(step.command) in flat


def test_a_changed_kernel_runs_again_with_the_link(project: Path, tool_box: fakes.Fakes) -> None:
    build(project, tool_box, "hw")
    tool_box.forget()
    with (project / "kernels" / "perceptron_1.cpp").open("a") as stream:
        stream.write("// changed\n")
    assert states(build(project, tool_box, "hw")) == {
        "compile-hw:perceptron_0": "skipped",
        "compile-hw:perceptron_1": "done",
        "link-hw": "done",
        "package-hw": "done",
        "info": "done",
    }
    assert [c["args"][0] for c in tool_box.calls()] == ["-c", "-l", "-p", "--quiet"]


def test_a_header_of_one_kernel_is_its_own(project: Path, tool_box: fakes.Fakes) -> None:
    build(project, tool_box)
    with (project / "kernels" / "perceptron_0_config.hpp").open("a") as stream:
        stream.write("// changed\n")
    assert states(build(project, tool_box)) == {
        "csynth:perceptron_0": "done",
        "csynth:perceptron_1": "skipped",
    }
    with (project / "include" / "t2f" / "core.hpp").open("a") as stream:
        stream.write("// changed\n")
    assert set(states(build(project, tool_box)).values()) == {"done"}


def test_another_release_runs_everything_again(project: Path, tool_box: fakes.Fakes) -> None:
    build(project, tool_box)
    tool_box.behave(release="2022.2")
    assert set(states(build(project, tool_box)).values()) == {"done"}


def test_outputs_that_are_gone_or_changed_are_made_again(project: Path, tool_box: fakes.Fakes) -> None:
    first = build(project, tool_box)
    reports = [project / o.step.outputs[0] for o in first.values()]
    reports[0].unlink()
    assert list(states(build(project, tool_box)).values()) == ["done", "skipped"]
    reports[1].write_text("edited")
    assert list(states(build(project, tool_box)).values()) == ["skipped", "done"]


def test_a_failure_shows_the_tools_own_lines(project: Path, tool_box: fakes.Fakes) -> None:
    lines = [
        "ERROR: [HLS 200-1023] Part 'xcu280-fsvh2892-2L-e' is not installed.",
        "kernels/perceptron_0.cpp:12:3: error: expected ';'",
        "ERROR: [HLS 200-1715] Encountered problem during source synthesis",
    ]
    tool_box.behave(fail={"csynth:perceptron_0": lines})
    found = build(project, tool_box)
    assert list(states(found).values()) == ["failed", "done"]
    errors = found["csynth:perceptron_0"].errors
    assert errors[0] == "vitis_hls: status 1"
    assert errors[1:4] == tuple(lines)
    assert "add the device family" in errors[4]
    tool_box.behave()
    tool_box.forget()
    assert list(states(build(project, tool_box)).values()) == ["done", "skipped"]
    assert len(tool_box.calls()) == 1
    assert (project / "build/csynth/logs/csynth-perceptron_0.log.old").is_file()


def test_what_needs_a_failed_step_is_blocked(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(fail={"compile-hw:perceptron_0": ["ERROR: [v++ 60-300] Failed to build kernel"]})
    assert list(states(build(project, tool_box, "hw")).values()) == [
        "failed",
        "done",
        "blocked",
        "blocked",
        "blocked",
    ]
    assert [c["args"][0] for c in tool_box.calls()] == ["-c", "-c"]


def test_success_without_a_result_is_a_failure(project: Path, tool_box: fakes.Fakes) -> None:
    build(project, tool_box)
    tool_box.behave(silent=["csynth:perceptron_0"])
    found = build(project, tool_box, force=True)
    assert found["csynth:perceptron_0"].state == "failed"  # the old report did not pass for a new one
    assert "status 0, but there is no build/hls/perceptron_0_csynth" in found["csynth:perceptron_0"].errors[0]


def test_after_a_kill_only_the_rest_runs(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(hang=["csynth:perceptron_1"])
    process = program(project, tool_box, "--target", "csynth")
    wait_for(hanging(tool_box, "csynth:perceptron_1"))
    process.kill()
    process.communicate(timeout=30)
    orphan = int((tool_box.folder / "hangs-csynth-perceptron_1").read_text())
    tool_box.behave()
    with pytest.raises(BuildError, match=rf"still at work: csynth:perceptron_1 \(process {orphan}\)"):
        build(project, tool_box)
    os.kill(orphan, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{orphan}/cmdline").exists() or _dead(orphan))
    tool_box.forget()
    assert states(build(project, tool_box)) == {
        "csynth:perceptron_0": "skipped",
        "csynth:perceptron_1": "done",
    }
    assert len(tool_box.calls()) == 1


def _dead(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_tools_and_goes_on_later(
    project: Path, tool_box: fakes.Fakes, number: signal.Signals
) -> None:
    """With two jobs both kernels are at work; both end with the program."""
    tool_box.behave(hang=[f"csynth:{k}" for k in KERNELS])
    process = program(project, tool_box, "--target", "csynth", "--jobs", "2")
    for kernel in KERNELS:
        wait_for(hanging(tool_box, f"csynth:{kernel}"))
    process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert text.count("stopped csynth:") == 2
    assert "the same command goes on where it was" in text
    for kernel in KERNELS:
        assert _dead(int((tool_box.folder / f"hangs-csynth-{kernel}").read_text()))
    tool_box.behave()
    assert set(states(build(project, tool_box)).values()) == {"done"}


def test_a_tool_that_is_killed_says_so(project: Path, tool_box: fakes.Fakes) -> None:
    tool_box.behave(hang=["csynth:perceptron_0"])
    process = program(project, tool_box, "--target", "csynth")
    wait_for(hanging(tool_box, "csynth:perceptron_0"))
    os.kill(int((tool_box.folder / "hangs-csynth-perceptron_0").read_text()), signal.SIGKILL)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "vitis_hls: ended by SIGKILL (the system may have run out of memory)" in text


def test_two_builds_at_once_are_refused(project: Path, tool_box: fakes.Fakes) -> None:
    with locked(project), pytest.raises(BuildError, match="another torch2fpga build works on"):
        build(project, tool_box)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', "\xff", "[" * 100_000])
def test_a_state_that_is_not_understood_is_not_used(project: Path, tool_box: fakes.Fakes, text: str) -> None:
    build(project, tool_box)
    (project / STATE).write_text(text, encoding="latin-1")
    assert set(states(build(project, tool_box)).values()) == {"done"}
    assert json.loads((project / STATE).read_text())["running"] == {}
    assert [p.name for p in (project / "build").iterdir() if p.name.startswith(".state")] == []


def test_what_would_run(project: Path, tool_box: fakes.Fakes) -> None:
    folder = open_folder(project)
    steps = plan(folder, "hw")
    tools = check(folder, "hw", "tcl", tool_box.env).tools
    why = pending(project, steps, tools, force=False)
    assert why["link-hw"] == "after compile-hw:perceptron_0, compile-hw:perceptron_1"
    build(project, tool_box, "hw")
    assert set(pending(project, steps, tools, force=False).values()) == {""}
    with (project / "link.cfg").open("a") as stream:
        stream.write("# changed\n")
    why = pending(project, steps, tools, force=False)
    assert [name for name, reason in why.items() if reason] == ["link-hw", "package-hw", "info"]


def test_the_floorplan_is_part_of_the_link(project: Path) -> None:
    (link,) = [s for s in plan(open_folder(project), "hw", floorplan=True) if s.phase == "link"]
    at = link.command.index("--vivado.prop")
    assert link.command[at + 1] == f"run.impl_1.STEPS.OPT_DESIGN.TCL.PRE={project / 'floorplan.tcl'}"
    assert "floorplan.tcl" in link.inputs
    with pytest.raises(BuildError, match="targets are"):
        plan(open_folder(project), "sw_emu")
