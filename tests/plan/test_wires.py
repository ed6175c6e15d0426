# SPDX-License-Identifier: Apache-2.0
"""Wires over SLR boundaries: every link on every boundary that it crosses."""

from __future__ import annotations

import dataclasses

import pytest

from tests.plan.placements import placed, random_place, without_kernels
from tests.tiny import compiled
from torch2fpga.boards import U280
from torch2fpga.design import Layout, Stream
from torch2fpga.plan.wires import BoundaryUse, boundary_use, crossings, link_ends, wire_problems, wires_of


@pytest.mark.parametrize(
    ("stream", "lanes", "wires"),
    [
        (Stream("a", "words"), 16, 579),  # the reference's "about 580" for 512 bits
        (Stream("a", "rows", "int8", Layout(1, 40)), 16, 147),
        (Stream("a", "rows", "int32", Layout(1, 40)), 16, 579),
        (Stream("a", "scores", "uint8"), 8, 75),
        (Stream("a", "exponents"), 16, 12),
    ],
)
def test_wires_of_a_stream(stream: Stream, lanes: int, wires: int) -> None:
    assert wires_of(stream, lanes) == wires


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_over_two_boundaries_is_counted_on_both(seed: int) -> None:
    bare = without_kernels(compiled("encoder").design)
    design = placed(bare, random_place(bare, seed))
    ends = link_ends(design)
    assert {abs(a - b) for a, b in ends.values()} == {1, 2}
    found = crossings(design)
    assert [(c.boundary, c.stream) for c in found] == sorted((c.boundary, c.stream) for c in found)
    for name, (a, b) in ends.items():
        assert [c.boundary for c in found if c.stream == name] == list(range(min(a, b), max(a, b)))
    lanes = design.shape.lanes
    for use in boundary_use(found, U280):
        over = [n for n, e in ends.items() if min(e) <= use.boundary < max(e)]
        assert use.streams == len(over)
        assert use.wires == sum(wires_of(design.streams[n], lanes) for n in over)
        assert (use.available, use.budget, use.prudent) == (U280.wires[use.boundary], 7_500, 5_000)


def test_one_kernel_crosses_nothing() -> None:
    design = compiled("mlp3d").design
    assert crossings(design) == [] and wire_problems(design, U280) == []
    assert {u.wires for u in boundary_use([], U280)} == {0}


def test_more_wires_than_there_are_is_a_problem() -> None:
    design = compiled("encoder").design
    assert wire_problems(design, U280) == []
    used = [u.wires for u in boundary_use(crossings(design), U280)]
    narrow = dataclasses.replace(U280, wires=(used[0] - 1, used[1]))
    (problem,) = wire_problems(design, narrow)
    assert problem == f"{used[0]:,} wires cross from SLR0 to SLR1, the u280 has {used[0] - 1:,}"


def test_texts_say_both_budgets() -> None:
    text = str(BoundaryUse(0, 11, 6_000, 16_797, 7_500, 5_000))
    assert text == (
        "SLR0-SLR1: 11 streams, 6,000 of 16,797 wires; within the budget of 7,500, over the prudent 5,000"
    )
    assert "OVER the budget of 7,500" in str(BoundaryUse(1, 14, 8_106, 18_773, 7_500, 5_000))
