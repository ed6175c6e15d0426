# SPDX-License-Identifier: Apache-2.0
"""The steps of a target as data: commands as argument lists, inputs, outputs, what waits for what.

They are the commands of the emitted Makefile; nothing goes through a shell. Where reports lie: Vitis
HLS writes ``<project>/<solution>/syn/report/csynth.xml`` (public projects of 2022.1 and 2023.1), the
unified command line ``<work_dir>/hls/syn/report/csynth.xml``, beside them ``csim/report/<top>_csim.log``
and ``sim/report/<top>_cosim.rpt`` (public scripts); v++ writes its reports of the implementation to
``<temp_dir>/reports/link/imp`` (public logs of 2020.2 to 2022.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch2fpga.build import FLOWS, TARGETS, BuildError
from torch2fpga.build.folder import LINK, SUMS, Folder, sources

HLS, FLOORPLAN = "build/hls", "floorplan.tcl"
INCLUDES = ("kernels", "include")
BENCH = ("tb", "kernels", "include")


@dataclass(frozen=True)
class Step:
    """One call of a tool. All paths are relative to the project.

    Attributes:
        name: ``phase:kernel``, or the phase alone; unique in a plan.
        command: program and arguments; the program is looked up by the check.
        folder: working folder.
        env: variables on top of the environment.
        inputs: files whose content decides whether it has to run again.
        outputs: files that it must leave.
        needs: names of steps that have to be done before.
    """

    name: str
    phase: str
    kernel: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    folder: str = "."
    env: tuple[tuple[str, str], ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def tool(self) -> str:
        """Program, without a path."""
        return self.command[0]


def plan(folder: Folder, target: str, flow: str = "tcl", floorplan: bool = False) -> tuple[Step, ...]:
    """Steps of a target, each after those that it needs.

    Args:
        flow: ``tcl`` (vitis_hls) or ``cfg`` (unified command line); for the targets of Vitis HLS.
        floorplan: also hand ``floorplan.tcl`` to Vivado (hw).
    Raises:
        BuildError: for a target or flow that there is not.
    """
    if target not in TARGETS or flow not in FLOWS:
        raise BuildError(f"targets are {', '.join(TARGETS)}, flows {', '.join(FLOWS)}: {target!r}, {flow!r}")
    if target in ("csim", "csynth", "cosim"):
        make = _tcl if flow == "tcl" else _cfg
        return tuple(step for kernel in folder.kernels for step in make(folder, target, kernel))
    return tuple(_vpp(folder, target, floorplan))


def hls_report(kernel: str, flow: str) -> str:
    """Where csynth of a kernel leaves its report."""
    place = f"{kernel}_csynth/solution1" if flow == "tcl" else f"{kernel}/hls"
    return f"{HLS}/{place}/syn/report/csynth.xml"


def _inputs(folder: Folder, kernel: str, phase: str, script: str) -> tuple[str, ...]:
    """Files that a step of Vitis HLS reads; ``SHA256SUMS`` stands for golden vectors and weights."""
    found = set(sources(folder.root, f"kernels/{kernel}.cpp", INCLUDES))
    if phase != "csynth":
        for name in (f"tb/{kernel}_tb.cpp", "tb/tb.cpp"):
            found |= set(sources(folder.root, name, BENCH))
        found.add(SUMS)
    return (*sorted(found), script)


def _tcl(folder: Folder, phase: str, kernel: str) -> list[Step]:
    """``vitis_hls -f``: each step makes a project of its own."""
    made = f"{HLS}/{kernel}_{phase}/solution1"
    report = {
        "csim": f"{made}/csim/report/{kernel}_csim.log",
        "csynth": hls_report(kernel, "tcl"),
        "cosim": f"{made}/sim/report/{kernel}_cosim.rpt",
    }
    script = f"hls/{kernel}.tcl"
    return [
        Step(
            f"{phase}:{kernel}", phase, kernel, ("vitis_hls", "-f", f"../../{script}"),
            _inputs(folder, kernel, phase, script), (report[phase],), HLS, (("T2F_STEP", phase),),
        )
    ]  # fmt: skip


def _cfg(folder: Folder, phase: str, kernel: str) -> list[Step]:
    """The unified command line: one work folder a kernel, co-simulation follows synthesis."""
    script, work = f"hls/{kernel}.cfg", f"{HLS}/{kernel}"
    tail = ("--config", script, "--work_dir", work)
    synthesis = Step(
        f"csynth-cfg:{kernel}", "csynth", kernel, ("v++", "--compile", "--mode", "hls", *tail),
        _inputs(folder, kernel, "csynth", script), (hls_report(kernel, "cfg"),),
    )  # fmt: skip
    if phase == "csynth":
        return [synthesis]
    report = f"csim/report/{kernel}_csim.log" if phase == "csim" else f"sim/report/{kernel}_cosim.rpt"
    run = Step(
        f"{phase}-cfg:{kernel}", phase, kernel, ("vitis-run", "--mode", "hls", f"--{phase}", *tail),
        _inputs(folder, kernel, phase, script), (f"{work}/hls/{report}",),
        needs=(synthesis.name,) if phase == "cosim" else (),
    )  # fmt: skip
    return [synthesis, run] if phase == "cosim" else [run]


def xclbin(folder: Folder, target: str) -> str:
    """What a card or an emulation loads."""
    return f"build/{target}/{folder.design}.xclbin"


def xclbin_info(folder: Folder, target: str) -> str:
    """What xclbinutil says about it."""
    return f"build/{target}/{folder.design}.info.txt"


def _vpp(folder: Folder, target: str, floorplan: bool) -> list[Step]:
    """Compile every kernel, link, package; what comes with a target."""
    out, debug = f"build/{target}", () if target == "hw" else ("-g",)
    common = ("--save-temps", *debug, "-t", target)
    found, objects = [], []
    for kernel in folder.kernels:
        source, xo = f"kernels/{kernel}.cpp", f"{out}/{kernel}.xo"
        command = (
            "v++", "-c", *common, "--platform", folder.platform, "--kernel_frequency", folder.frequency,
            "-k", kernel, "--temp_dir", f"{out}/_x", "-Iinclude", "-Ikernels", "-o", xo, source,
        )  # fmt: skip
        inputs = sources(folder.root, source, INCLUDES)
        found.append(Step(f"compile-{target}:{kernel}", "compile", kernel, command, inputs, (xo,)))
        objects.append(xo)
    linked, done = f"{out}/{folder.design}.link.xclbin", xclbin(folder, target)
    placed = floorplan and target == "hw"
    script = (folder.root / FLOORPLAN).as_posix()
    place = ["--vivado.prop", f"run.impl_1.STEPS.OPT_DESIGN.TCL.PRE={script}"] if placed else []
    found.append(
        Step(
            f"link-{target}", "link", "",
            ("v++", "-l", *common, "--temp_dir", f"{out}/_x", "--config", LINK, *place, "-o", linked,
             *objects),
            (*objects, LINK, *([FLOORPLAN] if placed else [])), (linked,),
            needs=tuple(s.name for s in found),
        )
    )  # fmt: skip
    found.append(
        Step(
            f"package-{target}", "package", "",
            ("v++", "-p", linked, *debug, "-t", target, "--platform", folder.platform,
             "--package.out_dir", f"{out}/package", "-o", done),
            (linked,), (done,), needs=(f"link-{target}",),
        )
    )  # fmt: skip
    return [*found, _last(folder, target, done)]


def _last(folder: Folder, target: str, done: str) -> Step:
    """The emulated card's description, or the clock that the real one will run at."""
    if target == "hw_emu":
        return Step(
            "emconfig", "emconfig", "",
            ("emconfigutil", "--platform", folder.platform, "--od", f"build/{target}"),
            (LINK,), (f"build/{target}/emconfig.json",),
        )  # fmt: skip
    report = xclbin_info(folder, target)
    return Step(
        "info", "info", "", ("xclbinutil", "--quiet", "--force", "--info", report, "--input", done),
        (done,), (report,), needs=(f"package-{target}",),
    )  # fmt: skip
