# SPDX-License-Identifier: Apache-2.0
"""Text of the process that writes all caches of a kernel: one master for all of their pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from torch2fpga.design import Port
from torch2fpga.emit.layout import Call, listed

#: the process, and the bundle of its pointers
PROCESS, BUNDLE = "write_caches", "gmem_caches"


def written_here(port: Port) -> bool:
    """Is it one of the ports that the process writes?"""
    return port.template == "write_cache"


def caches_call(ports: Sequence[Port]) -> Call:
    """The process with its streams and pointers: what comes in, where it goes, who is told."""
    fresh = [p.streams[0] for p in ports]
    arguments = (*fresh, *(p.name for p in ports), *(p.reports for p in ports), "seq", "past")
    return Call(PROCESS, PROCESS, arguments)


def caches_process(
    ports: Sequence[Port], types: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, Any]:
    """What the template needs: rows of a step are written cache after cache, in the order in which layers
    make them.

    Args:
        types: argument -> its declaration as a parameter.
        names: port -> its configuration struct.
    """
    call = caches_call(ports)
    head = [types.get(a, f"int {a}") for a in call.arguments]
    blocks = [
        {
            "steps": steps,
            "calls": [
                Call(p.name, f"t2f::write_cache_step<{names[p.name]}>",
                     (p.streams[0], p.name, "step", "seq", "past")).statement(4)
                for p in group
            ],
        }
        for steps, group in ((k, list(g)) for k, g in groupby(ports, key=lambda p: int(p.config["steps"])))
    ]  # fmt: skip
    return {
        "head": listed(f"static void {PROCESS}", head, " {"),
        "blocks": blocks,
        "memories": [p.name for p in ports],
        "reports": [p.reports for p in ports],
    }
