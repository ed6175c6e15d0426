# SPDX-License-Identifier: Apache-2.0
"""The page's section about a plan: pictures, cards and tables."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from torch2fpga.boards import Board, board_named
from torch2fpga.design import Design
from torch2fpga.plan.summary import EXTRA, TITLES, Gain, PlanReport
from torch2fpga.report.channel_map import render_channels
from torch2fpga.report.floorplan import copies_of, render_floorplan
from torch2fpga.report.roofline import render_roofline
from torch2fpga.report.stage_bars import render_stage_bars
from torch2fpga.timing.report import TimeReport
from torch2fpga.timing.show import milliseconds

KEPT = {
    "step": "of one step, in URAM",
    "resident": "of all steps, on the chip",
    "streamed": "read again for every tile",
    "": "none",
}


def plan_cards(plan: PlanReport) -> list[tuple[str, str, str, str]]:
    """(label, value, note, tone) of the page's cards."""
    mhz = plan.clock_mhz
    note = f"{plan.cycles:,} cycles at {mhz:g} MHz, paced by {plan.pace}; modelled, not synthesised"
    useful = f"{plan.busy:.0%} of them useful in a launch; modelled"
    return [
        ("planned launch", milliseconds(plan.cycles, mhz), note, ""),
        ("products a cycle", f"{plan.products:,}", useful, ""),
    ]


def plan_view(
    design: Design, plan: PlanReport | None, board: Board | None, timing: TimeReport | None = None
) -> dict[str, Any] | None:
    """Everything that the section shows; None without a plan.

    Args:
        board: the card; without it the plan's, by name.
    Raises:
        CompileError: no board has the plan's name, and none was given.
    """
    if plan is None:
        return None
    card = board or board_named(plan.plan.board)
    return {
        "lead": _lead(plan),
        # escaped by their own templates
        "floorplan": Markup(render_floorplan(design, plan, card)),
        "channels": Markup(render_channels(plan, card)),
        "roofline": Markup(render_roofline(plan, timing)),
        "bars": Markup(render_stage_bars(design, plan, timing)),
        "sustained": f"{card.hbm.sequential_gbs:g} GB/s",
        "arrays": array_rows(plan),
        "limits": [limit_row(g) for g in plan.gains],
        "binding": _binding(plan),
    }


def _lead(plan: PlanReport) -> str:
    wanted = plan.plan
    share = f"{wanted.budget:.0%} of the caps" if wanted.budget < 1 else "the caps of the card"
    most = f" and {wanted.multipliers:,} products a cycle" if wanted.multipliers else ""
    return (
        f"Planned for {wanted.objective} within {share}{most}. A launch of {plan.batch:,} × "
        f"{plan.seq:,} rows (sequences × tokens) takes {plan.cycles:,} cycles, "
        f"{milliseconds(plan.cycles, plan.clock_mhz)} at {plan.clock_mhz:g} MHz, paced by {plan.pace}; of "
        f"{plan.products:,} products a cycle {plan.busy:.0%} are useful. All of this is modelled; nothing "
        "has been synthesised."
    )


def array_rows(plan: PlanReport) -> list[dict[str, Any]]:
    """A row for every array before it was split into copies, in the plan's order."""
    rows = []
    for name, array in plan.plan.arrays.items():
        found = copies_of(plan, name)
        rows.append(
            {
                "name": name,
                # the row of the table of stages that it links to
                "stage": found[0].name if found else name,
                "path": found[0].path if found else "",
                "copies": array.copies,
                "columns": array.columns,
                "weights": KEPT.get(array.weights, array.weights),
                "ports": str(array.ports) if array.weights else "–",
                "slrs": ", ".join(f"SLR{n}" for n in sorted({s.slr for s in found})) or "–",
                "products": sum(s.products for s in found),
                "dsp": sum(s.dsp for s in found),
                "share": f"{max((s.share for s in found), default=0.0):.1%}",
            }
        )
    return rows


def limit_row(gain: Gain) -> dict[str, Any]:
    """A limit: how much of it is used, and what a tenth more would save."""
    share = gain.name == "mean"
    return {
        "name": {**TITLES, **EXTRA}[gain.name],
        "used": f"{gain.used:.1%}" if share else f"{gain.used:,.0f}",
        "limit": f"{gain.limit:.1%}" if share else f"{gain.limit:,.0f}",
        "part": f"{gain.used / gain.limit:.1%}" if gain.limit else "–",
        "saved": f"{gain.saved:.1%}",
    }


def _binding(plan: PlanReport) -> str:
    """What binds, in a sentence."""
    if not plan.gains:
        return "Nothing was optimised, so nothing is known about what binds."
    names = {**TITLES, **EXTRA}
    found = [f"10 % more {names[g.name]} would save {g.saved:.1%}" for g in plan.binding]
    if not found:
        return "No limit of the card binds: the model's own sizes do."
    return "; ".join(found) + " (each alone, modelled)."
