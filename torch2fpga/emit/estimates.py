# SPDX-License-Identifier: Apache-2.0
"""``estimates.json`` and ``FIRST_HOUR.md`` of a project: what we expect the vendor's tools to say.

Everything in them is modelled: areas by the formulas of ``costs``, depths of pipelines from the syntax
tree of the emitted C++ (``emit.checker.schedule``). No tool has confirmed any of it; that is what the
page is for. ``torch2fpga.build.compare`` puts the tools' reports beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch2fpga import costs
from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Kernel, Stage
from torch2fpga.emit.checker.schedule import PipelinedLoop
from torch2fpga.emit.kernel import kernel_source, render
from torch2fpga.emit.link import instance
from torch2fpga.emit.ports import bundle, kernel_ports
from torch2fpga.plan.latency import estimate_latency
from torch2fpga.plan.resources import RESOURCES, owned_costs

FILE = "estimates.json"
PAGE = "FIRST_HOUR.md"
FORMAT = "torch2fpga estimates"
FORMAT_VERSION = 1

#: how the figures were obtained, in the words of the report page
KINDS = {
    "resources": "modelled: formulas of the stages and FIFOs of a kernel and the burst buffers of its "
    "memory ports (docs/resources.md of torch2fpga)",
    "ii": "declared: the interval that the pragma of the loop asks for",
    "minimum_ii": "modelled: lower bound of the interval from accesses and carried values",
    "depth": "modelled: latency of an iteration from the operators' delays at the asked clock",
    "clock_mhz": "assumed: asked of the tools, not achieved by any",
    "cycles": "modelled: one launch of the largest size",
}

#: ``T2F_PROCESS("name", function<Config>(`` of an emitted kernel
_PROCESS = re.compile(r'T2F_PROCESS\("(\w+)",\s*([\w:]+(?:<[^()]*?>)?)\(')


def estimate_files(design: Design, board: Board) -> dict[str, str]:
    """Path -> text of both files."""
    data = estimates(design, board)
    text = json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"
    return {FILE: text, PAGE: first_hour(data, design, board)}


def estimates(design: Design, board: Board) -> dict[str, Any]:
    """The data of ``estimates.json``: plain JSON values; cycles, MHz and counts, kinds in ``kinds``."""
    from torch2fpga.timing.depths import pipelined_loops

    loops = pipelined_loops(design, float(board.clock_mhz))
    s = design.shape
    latency = estimate_latency(design, board, s.max_batch, s.max_seq, board.clock_mhz)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "basis": "modelled; no tool has confirmed any of it",
        "kinds": KINDS,
        "clock_mhz": board.clock_mhz,
        "latency": {"cycles": latency.cycles, "sequences": s.max_batch, "tokens": s.max_seq},
        "kernels": [
            _kernel(design, board, kernel, kernel_source(design, kernel), loops) for kernel in design.kernels
        ],
    }


def _kernel(
    design: Design, board: Board, kernel: Kernel, source: str, loops: Sequence[PipelinedLoop]
) -> dict[str, Any]:
    """One kernel: its resources, and the pipelined loops of its processes."""
    stages = {s.name: s for s in design.stages}
    return {
        "name": kernel.name,
        "instance": instance(kernel.name),
        "slr": kernel.slr,
        "resources": _plain(kernel_cost(design, board, kernel)),
        "processes": [
            {
                "name": name,
                "module": module_stem(called),
                **_multipliers(design, stages.get(name)),
                "loops": [_loop(loop) for loop in loops if loop.path == f"{kernel.name}/{name}"],
            }
            for name, called in _PROCESS.findall(source)
        ],
    }


def _multipliers(design: Design, stage: Stage | None) -> dict[str, Any]:
    """DSP of a process that is a stage; ``front`` names the process that shares the figure, if any."""
    if stage is None:
        return {"dsp": None, "front": None}
    front = stage.front(design)
    return {"dsp": stage.cost(design).dsp, "front": front.name if front is not None else None}


def _loop(loop: PipelinedLoop) -> dict[str, Any]:
    return {
        "label": loop.label,
        "function": loop.function,
        "file": loop.file,
        "line": loop.line,
        "ii": loop.ii,
        "minimum_ii": loop.minimum_ii,
        "depth": loop.depth,
    }


def _plain(cost: Estimate) -> dict[str, int]:
    return {name: int(getattr(cost, name)) for name in RESOURCES}


def kernel_cost(design: Design, board: Board, kernel: Kernel) -> Estimate:
    """What a kernel's own report should show: stages, FIFOs that are read in it, burst buffers.

    The memory subsystem behind the ports and the registers of links belong to the link, not to it.
    """
    owned = owned_costs(design)
    found = costs.total(*(owned[name] for name in kernel.stages))
    if kernel.slr == board.memory_slr:
        found += owned.get("", Estimate())  # FIFOs that no stage reads: those of memory ports
    masters = {bundle(port) for port in kernel_ports(design, kernel)}
    return found + Estimate(bram18=board.port.bram18 * len(masters))


def module_stem(called: str) -> str:
    """Start of the RTL module's name that Vitis HLS makes of a function.

    Namespaces go and template arguments are appended, every other character an underscore; ``_s`` or
    ``_Pipeline_<loop>`` follow for templates (as in public reports of 2022.1: ``f<28, 10>`` is
    ``f_28_10_s``, its loop ``px`` is in ``f_28_10_Pipeline_px``). Unconfirmed for this project's code.
    """
    name, _, arguments = called.partition("<")
    words = [name.rsplit("::", 1)[-1], *re.findall(r"\w+", arguments)]
    return "_".join(words)


def first_hour(data: Mapping[str, Any], design: Design, board: Board) -> str:
    """The page "first hour with Vitis": commands in order, and our figure beside each of theirs."""
    kernels = [
        {
            **kernel,
            "loops": [
                {"process": process["name"], **loop}
                for process in kernel["processes"]
                for loop in sorted(process["loops"], key=lambda x: -x["depth"])
            ],
            "multipliers": [p for p in kernel["processes"] if p["dsp"]],
        }
        for kernel in data["kernels"]
    ]
    return render(
        "first_hour.md.j2",
        design=design,
        board=board,
        data=data,
        kernels=kernels,
        period=f"{1000 / board.clock_mhz:.2f}",
        resources=[("DSP", "dsp"), ("LUT", "lut"), ("FF", "ff"), ("BRAM_18K", "bram18"), ("URAM", "uram")],
    )
