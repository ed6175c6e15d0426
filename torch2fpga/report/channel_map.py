# SPDX-License-Identifier: Apache-2.0
"""The memory channels of a plan as a picture: which port is on each, and what a launch moves there."""

from __future__ import annotations

from typing import Any

from torch2fpga.boards import Board
from torch2fpga.emit.ports import SUMS
from torch2fpga.plan.summary import ChannelUse, PlanReport
from torch2fpga.report.describe import ROLES, size_text
from torch2fpga.report.figure import clipped, spread
from torch2fpga.report.layout import number_text
from torch2fpga.report.template import environment

#: width of a column, of the space between two, and of a bar of all bytes
COLUMN, GAP, BAR = 580.0, 32.0, 110.0
ROW, HEAD, LEGEND = 19.0, 24.0, 26.0
NAME_CHARACTERS = 42
#: columns of the region that memory attaches to, by the first letters of their slot
SIDES = {"X0": "left", "X1": "right"}


def role_class(role: str) -> str:
    """Colour class of what a port carries."""
    return f"r-{role}" if role in ROLES else "r-other"


def role_word(role: str) -> str:
    """What a port carries, in words."""
    return ROLES.get(role, ("", role))[1]


def used_channels(report: PlanReport) -> dict[int, ChannelUse]:
    """Channel -> its port. Sums lie beside the results that they come with, which are what is shown."""
    return {c.channel: c for c in report.channels if c.role != SUMS}


def render_channels(report: PlanReport, board: Board) -> str:
    """The map as one SVG element with its own style (light and dark): a row a channel.

    Bars are in proportion to the bytes of the channel that moves most; shares are of what a channel
    sustains (``Board.hbm``) in the cycles of the launch.
    """
    return str(environment().get_template("channel_map.svg.j2").render(_view(report, board)))


def _view(report: PlanReport, board: Board) -> dict[str, Any]:
    used = used_channels(report)
    most = max((c.moved for c in report.channels), default=0)
    columns = [
        {
            "x": number_text((COLUMN + GAP) * i),
            "title": title,
            "rows": [_row(n, used.get(n), most, report, board, j) for j, n in enumerate(numbers)],
        }
        for i, (title, numbers) in enumerate(_columns(board))
    ]
    longest = max((len(c["rows"]) for c in columns), default=0)
    roles = list(dict.fromkeys(c.role for c in used.values()))
    places = spread([role_word(r) for r in roles])
    return {
        "width": number_text((COLUMN + GAP) * len(columns) - GAP),
        "height": number_text(LEGEND + HEAD + ROW * longest + 4),
        "column": number_text(COLUMN),
        "head": number_text(LEGEND + 14),
        "top": number_text(LEGEND + HEAD),
        "bar": number_text(BAR),
        "columns": columns,
        "legend": [
            (x, role_class(r), ROLES.get(r, ("?", r))[0], role_word(r))
            for x, r in zip(places, roles, strict=False)
        ],
        "behind": places[-1],
        "label": f"{len(used)} of {board.hbm_channels} memory channels are used",
    }


def _columns(board: Board) -> list[tuple[str, range]]:
    """Title and channels of each side; one column where nothing is known about sides."""
    if not board.hbm.attach:
        return [(f"SLR{board.memory_slr}", range(board.hbm_channels))]
    return [
        (f"{SIDES.get(slot[:2], slot)} column of SLR{board.memory_slr} ({slot})", range(first, last + 1))
        for slot, first, last in board.hbm.attach
    ]


def _row(
    number: int, port: ChannelUse | None, most: int, report: PlanReport, board: Board, place: int
) -> dict[str, Any]:
    row = {"y": number_text(ROW * place), "number": number, "used": port is not None}
    if port is None:
        return row
    room = board.hbm.sequential_gbs / report.clock_mhz * 1000 * report.cycles
    share = f", {port.moved / room:.1%}" if room else ""
    lines = [
        f"HBM[{number}]: {port.port}, {role_word(port.role)}",
        f"{port.moved:,} bytes a launch (modelled)",
        *([f"{share[2:]} of what the channel sustains in that time"] if share else []),
    ]
    return {
        **row,
        "role": role_class(port.role),
        "mark": ROLES.get(port.role, ("?", ""))[0],
        "name": clipped(port.port, NAME_CHARACTERS),
        "length": number_text(BAR * port.moved / most if most else 0.0),
        "text": f"{size_text(port.moved)}{share}",
        "title": "\n".join(lines),
    }
