# SPDX-License-Identifier: Apache-2.0
"""Cost of a whole design by SLR, and its shares of the board's caps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from torch2fpga import costs
from torch2fpga.boards import U280, Slr
from torch2fpga.design import Design, Estimate, Kernel, Layout, Port, Shape, Stage, Stream
from torch2fpga.lower.add import AddStage
from torch2fpga.lower.plumbing import RelayStage
from torch2fpga.plan.resources import design_cost, ports_cost, problems, shares
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.plan.wires import wires_of

LAYOUT = Layout(1, 32)


def _stream(name: str, depth: int = 16, *, link: bool = False) -> Stream:
    return Stream(name, "rows", "int16", LAYOUT, depth=depth, link=link)


def _design(*, kernels: bool = True) -> Design:
    like = _stream("s")
    stages: tuple[Stage, ...] = (
        AddStage("one", "", "before", 1, ("a", "b"), ("s",), layout=LAYOUT),
        RelayStage("two", "", "before", 1, ("s",), ("y",), like=like),
    )
    streams = {n: _stream(n) for n in ("a", "b", "y")} | {"s": _stream("s", link=True)}
    ports = (
        Port("pa", "k0", "read", "rows", "a", 8, "read_rows", ("a",)),
        Port("pb", "k0", "read", "rows", "b", 8, "read_rows", ("b",)),
    )
    split = (Kernel("k0", ("one",), (), ("s",), 0), Kernel("k2", ("two",), ("s",), (), 2))
    return Design("d", Shape(16, 4, 1, 8), stages, streams, ports, split if kernels else ())


def test_everything_counts_once_and_where_it_is() -> None:
    design = _design()
    found = design_cost(design, U280)
    one, two = design.stages
    fifo = fifo_cost(16, 32)
    crossing = wires_of(design.streams["s"], 16) * U280.crossing_cycles
    here = one.cost(design) + costs.times(3, fifo) + ports_cost(U280, 2)  # a, b and y, which nobody reads
    there = two.cost(design) + fifo
    for key in ("dsp", "lut", "bram18", "uram"):
        assert getattr(found[0], key) == getattr(here, key)
        assert getattr(found[1], key) == 0
        assert getattr(found[2], key) == getattr(there, key)
    assert found[0].ff == here.ff + crossing // 2
    assert found[1].ff == 2 * (crossing // 2)  # the link passes through
    assert found[2].ff == there.ff + crossing // 2


def test_without_kernels_all_is_beside_the_memory() -> None:
    design = _design(kernels=False)
    found = design_cost(
        replace(design, streams={n: replace(s, link=False) for n, s in design.streams.items()}), U280
    )
    assert found[1] == found[2] == Estimate()
    assert found[0].dsp == sum(s.cost(_design()).dsp for s in _design().stages)


def test_a_region_that_is_not_there() -> None:
    design = _design()
    moved = replace(design, kernels=(design.kernels[0], replace(design.kernels[1], slr=3)))
    with pytest.raises(ValueError, match="SLR0 to SLR2"):
        design_cost(moved, U280)


def test_shares_and_caps_by_hand() -> None:
    regions = [(1_000, 100, 10, 10), (1_000, 100, 10, 0), (1_000, 100, 20, 10)]
    board = replace(U280, slrs=tuple(Slr(lut, 2 * lut, *rest) for lut, *rest in regions))
    found = {0: Estimate(lut=701, dsp=8), 1: Estimate(bram18=50), 2: Estimate(uram=10)}
    uses = {(u.where, u.resource): u for u in shares(found, board)}
    assert uses["SLR0", "lut"].share == pytest.approx(0.701) and not uses["SLR0", "lut"].fits
    assert uses["SLR0", "dsp"].share == pytest.approx(0.8) and uses["SLR0", "dsp"].fits
    assert uses["SLR1", "uram"].share == 0.0 and uses["SLR1", "uram"].fits
    assert uses["card", "lut"].share == pytest.approx(701 / 3_000)
    assert uses["card", "mean"].share == pytest.approx((50 / 300 + 10 / 20 + 8 / 40) / 3)
    assert [p.split(":")[0] for p in problems(found, board)] == ["SLR2 uram", "SLR0 lut"]
    assert "701 of 1,000" in problems(found, board)[1] and "70%" in problems(found, board)[1]


def test_what_needs_a_resource_that_is_not_there_does_not_fit() -> None:
    board = replace(U280, slrs=(Slr(1, 1, 1, 1, 0),))
    assert "SLR0 uram" in problems({0: Estimate(uram=1)}, board)[0]
