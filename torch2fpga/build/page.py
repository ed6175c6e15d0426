# SPDX-License-Identifier: Apache-2.0
"""``build/report.html``: the comparison as one page that needs nothing beside itself, without scripts."""

from __future__ import annotations

from pathlib import Path

from torch2fpga.build.compare import CSYNTH, OURS, ROUTED, Comparison
from torch2fpga.build.journal import write_whole
from torch2fpga.build.show import number
from torch2fpga.report.template import environment

FILE = "build/report.html"


def write_page(found: Comparison, root: Path) -> Path:
    """Write the page (whole or not at all)."""
    text = environment().get_template("build.html.j2").render(
        found=found, ours=OURS, csynth=CSYNTH, routed=ROUTED, number=number
    )  # fmt: skip
    write_whole(root / FILE, str(text))
    return root / FILE
