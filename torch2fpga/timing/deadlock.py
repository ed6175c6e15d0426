# SPDX-License-Identifier: Apache-2.0
"""What the design knows about a deadlock and the run does not: who is on the other side of a stream.

A stream that was never used has no known writer or reader in the run, so its waits do not close into
a cycle there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch2fpga.design import PARAMETER_DEALER, PARAMETER_READER, Design
from torch2fpga.emit.ports import parameterised
from torch2fpga.simulate.timed import local_name


def completed(deadlock: Mapping[str, Any], design: Design) -> dict[str, Any]:
    """The simulation's deadlock with all peers, and a wait cycle if there is one."""
    kernels = {stage: kernel.name for kernel in design.kernels for stage in kernel.stages}
    kernels |= {port.name: port.kernel for port in design.ports}
    writers = {stream: f"{kernels.get(name, '')}/{name}" for stream, name in design.writers().items()}
    readers = {stream: f"{kernels.get(name, '')}/{name}" for stream, name in design.readers().items()}
    for kernel in design.kernels:
        dealer = PARAMETER_READER if kernel.parameters is None else PARAMETER_DEALER
        writers |= {str(s.params): f"{kernel.name}/{dealer}" for s in parameterised(design, kernel)}
    for kernel in design.kernels:
        linked = {k.parameters: k.name for k in design.kernels if k.parameters in kernel.axis_out}
        for link, name in linked.items():
            writers[str(link)] = f"{kernel.name}/{PARAMETER_READER}"
            readers[str(link)] = f"{name}/{PARAMETER_DEALER}"
    for stage in design.stages:
        front = stage.front(design)
        if front is not None:
            kernel_name = kernels.get(stage.name, "")
            readers[stage.inputs[0]] = f"{kernel_name}/{front.name}"
            writers |= {fifo.name: f"{kernel_name}/{front.name}" for fifo in front.fifos}
            readers |= {fifo.name: f"{kernel_name}/{stage.name}" for fifo in front.fifos}
    waits = []
    for wait in deadlock["waits"]:
        sides = writers if wait["side"] == "read" else readers
        stream = local_name(wait["stream"])
        waits.append({**wait, "peer": wait["peer"] or sides.get(stream)})
    return {**deadlock, "waits": waits, "cycles": deadlock["cycles"] or _rings(waits)}


def _rings(waits: list[dict[str, Any]]) -> list[list[str]]:
    """Cycles of processes that wait for each other; each waits for one."""
    peers = {wait["process"]: wait["peer"] for wait in waits}
    found: list[list[str]] = []
    done: set[str] = set()
    for start in peers:
        walk: list[str] = []
        at: str | None = start
        while at is not None and at in peers and at not in done and at not in walk:
            walk.append(at)
            at = peers[at]
        if at in walk:
            found.append(walk[walk.index(at) :])
        done.update(walk)
    return found


def blocked(process: Mapping[str, Any], wait: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A process of the simulation's report with its last wait, which lasts to the end of the run."""
    column = 0 if wait["side"] == "read" else 1
    since, cycles, width = wait["cycle"], raw["cycles"], raw["bucket"]
    lost = [list(row) for row in process["lost"]]
    lost += [[0, 0, 0] for _ in range(-(-cycles // width) - len(lost))]
    for i in range(since // width, -(-cycles // width)):
        lost[i][column] += min(cycles, (i + 1) * width) - max(since, i * width)
    side = ("input", "output")[column]
    return {**process, side: process[side] + cycles - since, "lost": lost}
