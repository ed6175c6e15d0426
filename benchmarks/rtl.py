# SPDX-License-Identifier: Apache-2.0
"""The timed run against hand-made Verilog of three stages, run in Verilator.

    python -m benchmarks.rtl --json benchmarks/results/rtl.json

Verilog and stage library get the same tokens, pipeline depths, FIFOs and traffic (tests/rtl). Cycles run from
the first one to the end of the stage; values are compared bit for bit before any figure is filed.
"""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from tests.rtl import comparison
from tests.rtl.cases import CASES, traffic
from tests.rtl.comparison import Case

#: largest difference that the timed run may have, in percent
TOLERANCE = 2.0


def measure(results: Results, case: Case, key: str) -> None:
    """File the cycles of a case in steady traffic, and the largest difference over all traffic.

    Raises:
        RuntimeError: if a value differs.
    """
    title = f"{case.stage.name}, {case.name}"
    depths = ", ".join(f"{label} {depth}" for label, depth in case.loops)
    note = (
        f"lanes {case.numbers['lanes']}, tile {case.numbers['tile']}, FIFOs of {case.fifo}, depths: {depths}"
    )
    worst, where = 0.0, "any"
    for name, around in traffic(case).items():
        rtl, timed = case.rtl(around), case.timed(around)
        if rtl.tokens != timed.tokens:
            raise RuntimeError(f"{title}, {name}: the values of Verilog and stage library differ")
        off = max(map(abs, comparison.differences(rtl, timed)))
        if off > worst:
            worst, where = off, name
        if name == "free":
            results.add(f"{key}_rtl", f"{title}: Verilog", rtl.stage, "cycles", note=note)
            results.add(f"{key}_timed", f"{title}: timed run", timed.stage, "cycles", obtained="timed")
            results.add(
                f"{key}_difference", f"{title}: difference", round(off, 2), "%", ("<=", TOLERANCE), "timed",
                note="the larger one of the stage's end and the last token's arrival",
            )  # fmt: skip
    results.add(
        f"{key}_worst", f"{title}: largest difference over {len(traffic(case))} kinds of traffic",
        round(worst, 2), "%", ("<=", TOLERANCE), "timed", note=f"in traffic: {where}",
    )  # fmt: skip


def main() -> int:
    """Compare, print, write; the exit status is 1 if a difference is beyond the tolerance."""
    arguments = common.arguments(__doc__).parse_args()
    results = Results("rtl")
    console = Console()
    comparison.prepare(CASES)
    with common.progress_bar(console) as bar:
        seen: Counter[str] = Counter()
        for case in bar.track(CASES, description="simulating Verilog"):
            measure(results, case, f"{case.stage.name}_{seen[case.stage.name]}")
            seen[case.stage.name] += 1
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
