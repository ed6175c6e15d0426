# SPDX-License-Identifier: Apache-2.0
"""The cost model of small stages against what an open synthesiser makes of equivalent Verilog.

    python -m benchmarks.resources --json benchmarks/results/resources.json

The Verilog (tests/resources, and the simulated stages of tests/rtl) does what the C++ says, in the same
widths. What the open synthesiser is known to do in another way than the vendor's is said in a note, and in
docs/resources.md.
"""

from __future__ import annotations

from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from tests.resources.cases import CASES, Case
from tests.resources.synthesis import synthesise

#: largest difference of LUTs, in percent
TOLERANCE = 25.0
#: what has to be the same on both sides
SAME = ("dsp", "bram18", "uram")
WORDS = {"dsp": "DSP48E2", "lut": "LUT", "bram18": "RAMB18", "uram": "URAM288"}


def measure(results: Results, case: Case) -> None:
    """File counts of a case, and by how much the model is off."""
    found = synthesise(case.paths, case.top, case.parameters, case.files())
    model = case.estimate()
    for key in ("dsp", "bram18", "uram", "lut"):
        there, said = getattr(found, key), getattr(model, key)
        if not there and not said:
            continue
        title = f"{case.title}: {WORDS[key]}"
        results.add(f"{case.name}_{key}_found", f"{title}, synthesised", there, note=case.note)
        results.add(f"{case.name}_{key}_model", f"{title}, model", said, obtained="modelled", note=case.note)
        if key == "lut" and not said:
            continue  # a FIFO in a memory: only its pointers, see the note
        if key in SAME:
            results.add(f"{case.name}_{key}_off", f"{title}, difference", said - there, "",
                        ("==", 0), "modelled")  # fmt: skip
        else:
            off = 100 * (said - there) / there
            results.add(f"{case.name}_{key}_off", f"{title}, difference (without sign)", round(abs(off), 1),
                        "%", ("<=", TOLERANCE), "modelled",
                        note="the model says " + ("more" if off > 0 else "less"))  # fmt: skip


def main() -> int:
    """Synthesise, compare, print, write; the exit status is 1 if a difference is beyond the tolerance."""
    arguments = common.arguments(__doc__).parse_args()
    results = Results("resources")
    console = Console()
    with common.progress_bar(console) as bar:
        for case in bar.track(CASES, description="synthesising Verilog"):
            measure(results, case)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
