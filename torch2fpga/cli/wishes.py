# SPDX-License-Identifier: Apache-2.0
"""What a user may ask of the planner: options of every verb that compiles.

Nothing here needs torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

#: the plan that is made by rules instead of the optimiser
SIMPLE = "simple"


class Objective(StrEnum):
    """Values of ``torch2fpga.plan.plan.OBJECTIVES``."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


def _a_plan(value: str | None) -> str | None:
    """A file that is there, or the word ``simple``."""
    if value is None or value == SIMPLE or Path(value).expanduser().is_file():
        return value
    raise typer.BadParameter(
        f"there is no file {value!r}; give a TOML file (--save-plan writes one) or the word {SIMPLE}"
    )


PlanFile = Annotated[
    str | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        callback=_a_plan,
        help="TOML file that says how wide arrays are and where everything goes, or a part of that: what it "
        "leaves out is chosen by the optimiser (docs/planner.md). The word [bold]simple[/] is one array a "
        "layer, without the optimiser. Options given beside a file go before what it says.",
        show_default=False,
    ),
]
PlanBoard = Annotated[
    str | None,
    typer.Option("--board", help="Card to compile for (default the plan's, else u280).", show_default=False),
]
Goal = Annotated[
    Objective | None,
    typer.Option(
        "--objective",
        help="Shortest time of one launch, or most sequences a second (default the plan's, else latency).",
        show_default=False,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1.0,
        metavar="SHARE",
        help="Share of the card that may be used, of what its caps leave: 0.5 is half (default the plan's, "
        "else 1).",
        show_default=False,
    ),
]
PlanClock = Annotated[
    float | None,
    typer.Option(
        "--clock",
        min=50,
        max=500,
        metavar="MHZ",
        help="Kernel clock to plan with (default the plan's, else the card's).",
        show_default=False,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=64,
        help="Rows that share a pass over the weights (default the plan's, else chosen).",
        show_default=False,
    ),
]
Checksums = Annotated[
    bool,
    typer.Option(
        "--checksums",
        help="Kernels add up the weights that they read and write the sums beside every result, for the host "
        "program to compare: memory of the card that changes is seen (docs/host-program.md).",
    ),
]
SavePlan = Annotated[
    Path | None,
    typer.Option(
        "--save-plan",
        help="Write the complete plan here as TOML: edit it and give it back with --plan.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Wishes:
    """Options as a user gave them; None where nothing was said.

    Attributes:
        plan: path of a TOML file, or ``simple``.
    """

    plan: str | None = None
    board: str | None = None
    objective: Objective | None = None
    budget: float | None = None
    clock_mhz: float | None = None
    tile: int | None = None
    checksums: bool = False

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``torch2fpga.compile``.

        Raises:
            CompileError: for a file that is no plan.
        """
        said = {
            "board": self.board,
            "objective": None if self.objective is None else str(self.objective),
            "budget": self.budget,
            "clock_mhz": self.clock_mhz,
            "tile": self.tile,
            "checksums": self.checksums or None,
        }
        given = {name: value for name, value in said.items() if value is not None}
        if self.plan is None or self.plan == SIMPLE:
            return {**given, "plan": self.plan}
        from torch2fpga.plan.plan import load_plan, plan_values

        path = Path(self.plan).expanduser()
        load_plan(path)  # what is wrong with the file is said with its name
        return {"plan": {**plan_values(path), **given}}

    def options(self) -> dict[str, object]:
        """By the name of the option, for messages."""
        return {
            "plan": self.plan,
            "board": self.board,
            "objective": self.objective,
            "budget": self.budget,
            "tile": self.tile,
            "checksums": self.checksums or None,
        }
