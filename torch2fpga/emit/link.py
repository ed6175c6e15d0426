# SPDX-License-Identifier: Apache-2.0
"""Where memory ports and kernels go on the card: HBM channels, ``link.cfg`` and ``floorplan.tcl``."""

from __future__ import annotations

from collections.abc import Mapping

from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Kernel
from torch2fpga.emit.kernel import render
from torch2fpga.emit.ports import KernelPort, all_ports, beside, links, masters, port_bytes, shares
from torch2fpga.errors import CompileError
from torch2fpga.plan.wires import wire_problems

#: roles of ports in the order in which they choose a channel: what moves most bytes first
ROLE_ORDER = (
    "weights", "cache", "params", "table", "rows", "mask", "ids", "settings", "output", "tokens", "sums",
)  # fmt: skip


def channels(
    design: Design, board: Board, plan: Mapping[str, int] | None = None
) -> dict[tuple[str, str], int]:
    """(kernel, argument) -> HBM pseudo-channel, never two ports on one but for those of one cache, and for
    sums and the results beside them.

    Ports that the plan does not name take the lowest channels that are left: weights first, those of
    one SLR's stages side by side. The channels of a column lie beside each other (HBM[0] to HBM[15] at
    the left one), so that ports that work together enter the chip together.

    Args:
        plan: argument -> channel; without it what the design says (``Design.channels``).
    Raises:
        CompileError: if a buffer is larger than a channel, channels run out, or the plan names a port
            or a channel that is not there, or a channel twice.
    """
    given = design.channels if plan is None else plan
    ports = all_ports(design)
    problems = _plan_problems(given, [p.name for _, p in ports], board)
    for kernel, port in ports:
        if port_bytes(port) > board.hbm_bytes:
            problems.append(
                f"port {port.name} of kernel {kernel.name} needs {port_bytes(port):,} bytes, "
                f"a memory channel of the {board.name} holds {board.hbm_bytes:,}"
            )
    same = {a.name: b.name for _, a in ports for _, b in ports if shares(a, b) or beside(a, b)}
    if masters(design) > board.masters:
        problems.append(f"{masters(design)} AXI masters, the {board.name} has {board.masters}")
    if len(ports) - len(same) > board.hbm_channels:
        problems.append(f"{len(ports)} memory ports, the {board.name} has {board.hbm_channels} channels")
    if problems:
        raise CompileError("; ".join(problems))
    free = iter(sorted(set(range(board.hbm_channels)) - set(given.values())))
    order = [n for n in _order(design, [p for _, p in ports]) if n not in same]
    names = {n: given[n] if n in given else next(free) for n in order}
    names |= {n: names[reader] for n, reader in same.items()}
    return {(kernel.name, port.name): names[port.name] for kernel, port in ports}


def _plan_problems(given: Mapping[str, int], names: list[str], board: Board) -> list[str]:
    """What is wrong with a plan of channels."""
    problems = [f"the plan names port {n}, there are {', '.join(names)}" for n in given if n not in names]
    for name, channel in given.items():
        if not 0 <= channel < board.hbm_channels:
            problems.append(
                f"port {name} on channel {channel}: the {board.name} has 0 to {board.hbm_channels - 1}"
            )
    for channel in sorted(set(given.values())):
        users = [n for n, c in given.items() if c == channel]
        if len(users) > 1:
            problems.append(f"channel {channel} has {len(users)} ports: {', '.join(users)}")
    return problems


def _order(design: Design, ports: list[KernelPort]) -> list[str]:
    """Names of ports in the order in which they choose."""
    slr = {stage: kernel.slr for kernel in design.kernels for stage in kernel.stages}
    readers = design.readers()
    ends = {p.name: [slr.get(readers.get(s, ""), 0) for s in p.streams] for p in design.ports}

    def key(item: tuple[int, KernelPort]) -> tuple[int, int, int]:
        number, port = item
        near = min(ends.get(port.name, [0]), default=0)
        return ROLE_ORDER.index(port.role), near if port.role == "weights" else 0, number

    return [port.name for _, port in sorted(enumerate(ports), key=key)]


def stream_ends(design: Design) -> list[tuple[str, str, str, int]]:
    """(stream, kernel that writes it, kernel that reads it, FIFO depth) of every kernel link."""
    writer = {name: kernel.name for kernel in design.kernels for name in kernel.axis_out}
    reader = {name: kernel.name for kernel in design.kernels for name in kernel.axis_in}
    return [(s.name, writer[s.name], reader[s.name], s.depth) for s in links(design)]


def instance(kernel: Kernel | str) -> str:
    """Name of a kernel's only instance."""
    return f"{kernel if isinstance(kernel, str) else kernel.name}_1"


def too_large(design: Design, kernel: Kernel, board: Board) -> bool:
    """Do a kernel's stages need more of a resource than its SLR has?

    Such a kernel may not be given an SLR (UG1393 2022.2: an error).
    """
    total = Estimate()
    for name in kernel.stages:
        total = total + design.stage(name).cost(design)
    have = board.slrs[kernel.slr]
    return any(getattr(total, key) > getattr(have, key) for key in ("lut", "ff", "bram18", "dsp", "uram"))


def link_config(design: Design, board: Board) -> str:
    """Text of ``link.cfg``.

    Raises:
        CompileError: if memory channels (see ``channels``) or wires between SLRs run out.
    """
    where = channels(design, board)
    problems = wire_problems(design, board)
    if problems:
        raise CompileError("; ".join(problems))
    return render(
        "link.cfg.j2",
        design=design,
        board=board,
        instances=[(k.name, instance(k), k.slr, too_large(design, k, board)) for k in design.kernels],
        memory=[(instance(kernel), argument, channel) for (kernel, argument), channel in where.items()],
        streams=[(n, instance(a), instance(b), depth) for n, a, b, depth in stream_ends(design)],
    )


def floorplan(design: Design, board: Board) -> str:
    """Text of ``floorplan.tcl``: every kernel held to its SLR, without a pblock."""
    placed = [(instance(k), k.slr) for k in design.kernels if not too_large(design, k, board)]
    return render("floorplan.tcl.j2", design=design, board=board, instances=placed)
