# SPDX-License-Identifier: Apache-2.0
"""The sampler as a stage: what it carries, its cycles (counted, timed and by hand), the checker, cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.loop_count import lines_by_label, odd_depth, total_cycles
from tests.lower.sample_bench import (
    CASES,
    TOP_KS,
    SampleBench,
    SampleLibrary,
    TimedSampler,
    bench,
    kernel,
    loops,
    timed_logits,
)
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Tokens, ceil_div
from torch2fpga.emit.check import check_source
from torch2fpga.errors import DesignError
from torch2fpga.lower.sample import SampleStage, sample
from torch2fpga.simulate.build import INCLUDE

__all__ = ["cxx_cache"]


@pytest.fixture(scope="module")
def library() -> SampleLibrary:
    return SampleLibrary([bench(*case) for case in CASES])


def test_what_it_carries_and_takes() -> None:
    made = bench(16, "int16", 37)
    row = Tokens("rows", "int16", Layout(1, 37), True)
    assert made.stage.carried() == ([row, Tokens("words")], [Tokens("ids")])
    assert made.stage.arguments() == ["logits", "settings", "token", "past", "seq"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 16, 17, 3142, 9497])
def test_groups_cover_the_row(blocks: int) -> None:
    made = bench(16, "int32", 16 * blocks)
    group, groups = made.sampler.group_blocks(made.design), made.sampler.group_count(made.design)
    assert (groups - 1) * group < blocks <= groups * group
    assert group * group >= blocks > (group // 2) ** 2 or blocks == group == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"layout": Layout(2, 8)}, "one group"),
        ({"element": "int8"}, "int16 or int32"),
        ({"one_row": False}, "one row"),
        ({"steps": 2}, "once a launch"),
    ],
)
def test_impossible_samplers_are_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(DesignError, match=text):
        replace(bench(8, "int32", 20).stage, **change)  # type: ignore[arg-type]


@pytest.mark.gxx
@pytest.mark.parametrize("index", range(len(CASES)))
def test_closed_form_is_the_sum_over_the_loops(library: SampleLibrary, index: int) -> None:
    made = library.benches[index]
    stage = made.stage
    assert isinstance(stage, SampleStage)
    for top_k in TOP_KS:
        library.sample(index, np.zeros(stage.vocabulary, dtype=np.int64), (top_k, 1, 0, 0, 0))
        entries = library.counted()
        assert total_cycles(entries, odd_depth) == stage.sampling_cycles(made.design, top_k, odd_depth)
        assert all(len(lines) == 1 for lines in lines_by_label(entries).values()), "labels are distinct"
        assert {e.ii for e in entries if e.label != "ROUND"} == {1}
        if min(top_k, stage.vocabulary) == 1:
            assert [e.label for e in entries] == ["TAKE"]
    assert stage.cycles(made.design, 1, 9, odd_depth) == stage.sampling_cycles(made.design, 1, odd_depth)


def test_cycles_by_hand() -> None:
    """GPT-2's vocabulary: 3,142 blocks in 50 groups of 64."""
    made = bench(16, "int32", 50257)
    depths = {"TAKE": 7, "PICK": 4, "SCAN": 8, "WEIGH": 13, "ROUND": 7, "CHOOSE": 3}
    take = 3142 + 7 + 1
    assert made.stage.cycles(made.design, 1, 1, depths.__getitem__) == take
    want = take + 40 * ((50 + 4 + 1) + (64 + 8 + 1)) + (40 + 13 + 1) + (9 * 8 + 7 + 2) + (40 + 3 + 1)
    assert made.sampler.sampling_cycles(made.design, 40, depths.__getitem__) == want


@pytest.mark.gxx
@pytest.mark.parametrize("index", [CASES.index(c) for c in ((8, "int32", 5), (16, "int32", 1000))])
def test_the_timed_run_takes_what_the_formula_says(index: int) -> None:
    made = bench(*CASES[index])
    timed, logits = TimedSampler(made), torch.from_numpy(timed_logits(made))
    depths = {loop.label: loop.depth for loop in timed.loops}
    for top_k in (1, 2, 5, 64):
        given = (top_k, 900, 12, 3, 4)
        result = timed.run(given, 11)
        assert result.message == ""
        assert result.values == (sample(logits, given, 11),)
        process = result.process("sampler")
        own = process["ends"][0] - process["begins"][0] - sum(result.stalls("sampler"))
        assert own == made.sampler.sampling_cycles(made.design, top_k, depths.__getitem__)
        if top_k == 1:
            assert own == made.stage.cycles(made.design, 1, 11, depths.__getitem__)


@pytest.mark.parametrize("case", [(16, "int32", 50257), (8, "int16", 100), (8, "int32", 1)])
def test_the_checker_accepts_it(case: tuple[int, str, int]) -> None:
    made = bench(*case)
    assert check_source(kernel(made), path="k.cpp", include_dirs=[INCLUDE]) == []
    found = {loop.label: loop for loop in loops(made)}
    assert set(found) == {"TAKE", "PICK", "SCAN", "WEIGH", "ROUND", "CHOOSE"}
    assert {loop.ii for label, loop in found.items() if label != "ROUND"} == {1}
    assert all(loop.minimum_ii <= loop.ii for loop in found.values())
    # A round's result is there when the next one starts.
    assert found["ROUND"].depth <= found["ROUND"].ii


def _cost(made: SampleBench) -> tuple[int, int, int]:
    cost = made.stage.cost(made.design)
    assert cost.cycles == made.stage.cycles(made.design, 1, 1, lambda label: 12)
    return cost.uram, cost.dsp, cost.lut


def test_cost() -> None:
    """The row in URAM: 8 a 4,096 blocks of 512 bits, 4 of 256 bits."""
    small, large = _cost(bench(16, "int32", 50257)), _cost(bench(16, "int32", 151936))
    assert (small[0], large[0]) == (8, 8 * ceil_div(9600, 4096))
    assert _cost(bench(16, "int16", 50257))[0] == 4
    assert small[1] == large[1] <= 12
    assert _cost(bench(8, "int32", 50257))[2] < small[2] < 10_000
