# SPDX-License-Identifier: Apache-2.0
"""The cost functions against the operators that were characterised with the vendor's tools on the card."""

from __future__ import annotations

import pytest

from torch2fpga import costs
from torch2fpga.design import Estimate

# PandA-bambu, xcu280-2Lfsvh2892-VVD.xml (restated in docs/resources.md): LUTs at 8, 16, 32, 64 bits
WIDTHS = (8, 16, 32, 64)
PUBLISHED = {
    "add": (costs.add, (11, 18, 34, 66)),
    "compare": (costs.compare, (6, 10, 18, 34)),
    "larger": (costs.larger, (13, 26, 45, 97)),
    "shift": (lambda bits: costs.shift(bits, bits), (14, 33, 91, 198)),
    "saturating add": (lambda bits: costs.add(bits) + costs.saturate(bits + 1, bits), (19, 32, 60, 128)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_luts_of_operators(name: str) -> None:
    function, luts = PUBLISHED[name]
    for bits, lut in zip(WIDTHS, luts, strict=True):
        assert function(bits).lut == pytest.approx(lut, rel=0.15)
        assert function(bits).dsp == 0


@pytest.mark.parametrize(("ways", "lut"), [(4, 19), (16, 74), (32, 162), (63, 306)])
def test_luts_of_choices(ways: int, lut: int) -> None:
    assert costs.select(16, ways).lut == pytest.approx(lut, rel=0.2)


@pytest.mark.parametrize(
    ("a", "b", "out", "dsp"),
    [
        (8, 8, 16, 0),
        (16, 16, 32, 1),
        (27, 18, 45, 1),
        (18, 27, 45, 1),
        (28, 18, 46, 2),
        (27, 19, 46, 4),
        (32, 18, 50, 2),
        (32, 32, 32, 3),
        (32, 32, 64, 4),
        (64, 64, 64, 10),
    ],
)
def test_slices_of_products(a: int, b: int, out: int, dsp: int) -> None:
    assert costs.multiply(a, b, out).dsp == dsp
    assert costs.multiply(b, a, out).dsp == dsp


def test_products_with_constants() -> None:
    assert costs.multiply_constant(32, 64, 32) == Estimate()
    for factor in (48, 60, 576):  # 32 + 16, 64 - 4, 512 + 64
        cost = costs.multiply_constant(32, factor, 32)
        assert cost.dsp == 0 and cost.lut == costs.add(32).lut
    assert costs.multiply_constant(32, 0b1010101, 32).dsp == 2


@pytest.mark.parametrize(
    ("depth", "width", "bram18"),
    [(512, 36, 1), (513, 36, 2), (1024, 18, 1), (2048, 512, 57), (16384, 1, 1), (1025, 19, 3)],
)
def test_block_memories(depth: int, width: int, bram18: int) -> None:
    assert costs.bram(depth, width).bram18 == bram18


def test_other_memories() -> None:
    assert costs.uram(4096, 72).uram == 1
    assert costs.uram(4097, 73).uram == 4
    assert costs.uram(2304, 512).uram == 8
    assert costs.lutram(32, 14).lut == 8 and costs.lutram(64, 14).lut == 16
    assert costs.memory(64, 32).bram18 == 0 and costs.memory(65, 32).lut == 0
    # a true dual port block is at most 18 bits wide, and serves two readers
    assert costs.table(512, 32, 1).bram18 == 2
    assert costs.table(512, 16, 5).bram18 == 3


def test_arrays_pack_two_rows_a_slice() -> None:
    assert costs.multiplier_array(4, 16, 16).dsp == 2 * 16 * 16
    assert costs.multiplier_array(4, 8, 16).dsp == 2 * 16 * 8
    assert costs.multiplier_array(3, 4, 8).dsp == 2 * 4 * 8
    assert costs.multiplier_array(1, 4, 8).dsp == 4 * 8


def test_weights_of_a_linear_layer_in_memory() -> None:
    # 768 x 768 int8 weights, 256 a cycle: 2,304 deep, four words of 512 bits; 128 a cycle: twice as deep
    assert costs.matmul_cost(4, 16, 16, 48, 48).uram == 4 * 8
    assert costs.matmul_cost(4, 8, 16, 48, 48).uram == 2 * 8 * 2
    assert costs.matmul_cost(4, 16, 16, 48, 48, streamed=True).uram == 0
    assert costs.matmul_cost(4, 16, 16, 48, 24).uram == 4 * 8
    assert costs.matmul_cost(4, 16, 16, 48, 48, steps_kept=2).uram == 4 * 8 * 2
    assert costs.matmul_cost(4, 16, 16, 48, 48, buffers=2).bram18 == 4 * 4


def test_costs_add_up() -> None:
    one = Estimate(dsp=1, lut=2, ff=3, bram18=4, uram=5)
    assert costs.times(3, one) == Estimate(dsp=3, lut=6, ff=9, bram18=12, uram=15)
    assert costs.total(one, one) == costs.times(2, one)
    assert costs.total() == Estimate()
