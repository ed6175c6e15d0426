# SPDX-License-Identifier: Apache-2.0
"""Text of ``emulation/``: a design's kernels behind the C interface that the emulated card drives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.design import Design, Kernel
from torch2fpga.emit.kernel import render, scalars
from torch2fpga.emit.layout import listed
from torch2fpga.emit.ports import all_ports, kernel_ports, links, port_bytes, shares
from torch2fpga.emit.xclbin import kernel_arguments

#: C++ sources of the bridge, the same for every design
BRIDGE = Path(__file__).resolve().parent.parent / "hls" / "card"
#: their folder in a project, and the file of a design's own
FOLDER, CARD = "emulation", "card.cpp"
KINDS = {"memory": "T2F_CARD_MEMORY", "stream": "T2F_CARD_STREAM", "number": "T2F_CARD_NUMBER"}


def card_source(design: Design) -> str:
    """Text of ``emulation/card.cpp``."""
    lanes = design.shape.lanes
    return render(
        "card.cpp.j2",
        design=design,
        kernels=[_kernel(design, kernel) for kernel in design.kernels],
        links=[{"name": s.name, "type": s.cpp_type(lanes), "depth": s.depth} for s in links(design)],
        ports=len(all_ports(design)),
    )


def emulation_files(design: Design) -> dict[str, str]:
    """Path in the project -> text: the bridge, and the design's kernels for it."""
    files = {**bridge_sources(), CARD: card_source(design)}
    return {f"{FOLDER}/{name}": text for name, text in files.items()}


def timed_settings(design: Design, board: Board) -> str:
    """What the timed build on the emulated card is told: as ``CompiledModel.time`` tells it."""
    from torch2fpga.timing.depths import pipelined_loops  # it imports this package
    from torch2fpga.timing.run import settings_of

    clock = float(board.clock_mhz)
    return settings_of(design, board, clock, pipelined_loops(design, clock)).text(design)


def bridge_sources() -> dict[str, str]:
    """File name -> text of the bridge and its interface."""
    files = sorted([*BRIDGE.glob("*.cpp"), *BRIDGE.glob("*.hpp")])
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _kernel(design: Design, kernel: Kernel) -> dict[str, Any]:
    """A kernel's call, and the table of its arguments."""
    index = {(k.name, p.name): i for i, (k, p) in enumerate(all_ports(design))}
    pointers = []
    for p in kernel_ports(design, kernel):
        kind = p.ctype.removesuffix("*").strip()
        pointers.append(f"at<{kind}>(card, {index[kernel.name, p.name]})")
    names = scalars(design, kernel)
    streams = [f"card.links->{name}" for name in (*kernel.axis_in, *kernel.axis_out)]
    call = [*pointers, *streams, *(f"numbers[{i}]" for i in range(len(names)))]
    return {
        "name": kernel.name,
        "numbers": len(names),
        "call": listed(f"::{kernel.name}", call, ";", 2),
        "arguments": _arguments(design, kernel),
    }


def _arguments(design: Design, kernel: Kernel) -> list[dict[str, Any]]:
    """Rows of the table: name, kind, direction, and of memory its port, partner and bytes."""
    ports = [(k.name, p) for k, p in all_ports(design)]
    found = []
    for a in kernel_arguments(design, kernel):
        row = {"name": a.name, "kind": KINDS[a.kind], "write": int(a.write), "port": -1, "shares": -1}
        row["bytes"] = a.size if a.kind == "number" else 0
        if a.kind == "memory":
            number, port = next(
                (i, p) for i, (k, p) in enumerate(ports) if (k, p.name) == (kernel.name, a.name)
            )
            row |= {"port": number, "bytes": port_bytes(port)}
            partners = [i for i, (_, p) in enumerate(ports) if shares(port, p) or shares(p, port)]
            row["shares"] = partners[0] if partners else -1
        found.append(row)
    return found
