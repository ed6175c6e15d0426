# SPDX-License-Identifier: Apache-2.0
"""Where memory ports and kernels go on the card: HBM channels and the text of ``link.cfg``."""

from __future__ import annotations

from torch2fpga.boards import Board
from torch2fpga.design import Design, Kernel
from torch2fpga.emit.kernel import KernelPort, all_ports, links, render
from torch2fpga.errors import CompileError


def port_bytes(port: KernelPort) -> int:
    """Bytes of a port's buffer at the compiled maximum."""
    return port.words * (4 if port.role == "ids" else 64)


def channels(design: Design, board: Board) -> dict[tuple[str, str], int]:
    """(kernel, argument) -> HBM pseudo-channel: ports in manifest order, one channel each.

    Raises:
        CompileError: if a buffer is larger than a channel, or channels run out.
    """
    found: dict[tuple[str, str], int] = {}
    problems: list[str] = []
    for number, (kernel, port) in enumerate(all_ports(design)):
        found[kernel.name, port.name] = number
        if port_bytes(port) > board.hbm_bytes:
            problems.append(
                f"port {port.name} of kernel {kernel.name} needs {port_bytes(port):,} bytes, "
                f"a memory channel of the {board.name} holds {board.hbm_bytes:,}"
            )
    if len(found) > board.hbm_channels:
        problems.append(f"{len(found)} memory ports, the {board.name} has {board.hbm_channels} channels")
    if problems:
        raise CompileError("; ".join(problems))
    return found


def stream_ends(design: Design) -> list[tuple[str, str, str, int]]:
    """(stream, kernel that writes it, kernel that reads it, FIFO depth) of every kernel link."""
    writer = {name: kernel.name for kernel in design.kernels for name in kernel.axis_out}
    reader = {name: kernel.name for kernel in design.kernels for name in kernel.axis_in}
    return [(s.name, writer[s.name], reader[s.name], s.depth) for s in links(design)]


def instance(kernel: Kernel | str) -> str:
    """Name of a kernel's only instance."""
    return f"{kernel if isinstance(kernel, str) else kernel.name}_1"


def link_config(design: Design, board: Board) -> str:
    """Text of ``link.cfg``."""
    where = channels(design, board)
    return render(
        "link.cfg.j2",
        design=design,
        board=board,
        instances=[(k.name, instance(k), k.slr) for k in design.kernels],
        memory=[(instance(kernel), argument, channel) for (kernel, argument), channel in where.items()],
        streams=[(n, instance(a), instance(b), depth) for n, a, b, depth in stream_ends(design)],
    )
