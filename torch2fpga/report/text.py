# SPDX-License-Identifier: Apache-2.0
"""Tables for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

from torch2fpga.design import Design, Estimate
from torch2fpga.report.describe import costed
from torch2fpga.report.info import DISCLAIMER
from torch2fpga.report.template import printable


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """A plain text table; columns in ``right`` are aligned to the right."""
    cells = [[" ".join(printable(c).split()) for c in row] for row in (headers, *rows)]
    widths = [max(_width(c) for c in column) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        parts = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(text))
            parts.append(space + text if i in right else text + space)
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(cells[0]), rule, *(line(r) for r in cells[1:])])


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def stage_table(design: Design) -> str:
    """Every stage with its modelled cost, and the sum."""

    def figures(cost: Estimate) -> list[str]:
        return [f"{v:,}" for v in (cost.cycles, cost.dsp, cost.lut, cost.ff, cost.bram18, cost.uram)]

    rows = [[c.stage.name, c.kernel, c.stage.template, c.shape, *figures(c.cost)] for c in costed(design)]
    rows.append(["total (cycles: the slowest)", "", "", "", *figures(design.estimate())])
    headers = ["stage", "kernel", "template", "shape", "cycles", "DSP", "LUT", "FF", "BRAM18", "URAM"]
    return f"{table(headers, rows, range(4, 10))}\n\nAll figures are modelled. {DISCLAIMER}"
