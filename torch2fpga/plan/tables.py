# SPDX-License-Identifier: Apache-2.0
"""A plan's report as text for a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch2fpga.plan.summary import TITLES

if TYPE_CHECKING:
    from torch2fpga.plan.summary import PlanReport


def text(report: PlanReport) -> str:
    """Head, arrays, regions, boundaries, and what binds."""
    parts = [_head(report), _arrays(report), _regions(report)]
    parts.append("\n".join(str(b) for b in report.boundaries))
    if report.gains:
        binding = report.binding
        lines = ["What binds (10 % more of a limit, everything else as it is):"]
        lines += [f"  {g}" for g in binding] or ["  nothing of the card: the model's own sizes do"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _head(report: PlanReport) -> str:
    ms = report.cycles / report.clock_mhz / 1000
    plan = report.plan
    share = f", {plan.budget:.0%} of the caps" if plan.budget < 1 else ""
    lanes = f"; {plan.lanes} lanes beside memory ports, which all linear layers share" if plan.lanes else ""
    return (
        f"{report.title}, {report.clock_mhz:g} MHz, best {plan.objective}{share}\n"
        f"{report.batch} x {report.seq} rows: {report.cycles:,} cycles, {ms:.2f} ms (modelled, not "
        f"synthesised); paced by {report.pace}\n"
        f"{report.products:,} products a cycle, {report.busy:.0%} of them useful; {report.macs / 1e9:.2f} G "
        f"products; tiles of {plan.tile} rows{lanes}"
    )


def _arrays(report: PlanReport) -> str:
    rows: list[tuple[str, ...]] = [("array", "copies", "columns", "weights", "ports", "SLR")]
    for name, array in report.plan.arrays.items():
        slrs = " ".join(str(s.slr) for s in report.stages if s.products and of(s.name, name))
        kept = (array.weights, str(array.ports)) if array.weights else ("-", "-")
        rows.append((name, str(array.copies), str(array.columns), *kept, slrs))
    return _table(rows)


def of(stage: str, array: str) -> bool:
    """Is a stage the array of that name in the plan, or one of its copies?"""
    return stage == array or re.fullmatch(rf"{re.escape(array)}_array\d+", stage) is not None


def _regions(report: PlanReport) -> str:
    rows: list[tuple[str, ...]] = [("SLR", *TITLES.values())]  # in the order of the titles
    for region in report.regions:
        cells = [
            f"{used:,} ({used / have:.0%} of {cap:.0%})"
            for used, have, cap in (region.resources[name] for name in TITLES)
        ]
        rows.append((str(region.slr), *cells))
    return _table(rows)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
