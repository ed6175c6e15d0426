# SPDX-License-Identifier: Apache-2.0
"""Layers that share lanes: the stages against the layers' references, loops against closed forms, images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.lanes_bench import MAX_SEQ, Case, LanesLibrary, expected
from tests.loop_count import odd_depth, total_cycles
from tests.tiny import cxx_cache
from torch2fpga.design import Layout
from torch2fpga.errors import DesignError
from torch2fpga.lower.lanes import LanesDealStage, LanesPart, LaneStage
from torch2fpga.lower.linear import MatmulStage, pad_channels
from torch2fpga.plan.traffic import bytes_moved

__all__ = ["cxx_cache"]

#: heads with gaps; one input block, fewer than a tile has rows; many; blocks that no number of lanes divides
BLOCK = (
    (Layout(3, 7), Layout(1, 120)),
    (Layout(1, 5), Layout(7, 13)),
    (Layout(1, 150), Layout(1, 90)),
    (Layout(2, 40), Layout(1, 176)),
)
#: and more than eight groups of inputs, which take a second beat of scales
LONG = (*BLOCK[1:], (Layout(1, 300), Layout(1, 101)))

CASES = (
    *(Case(BLOCK, count, tile=tile) for count, tile in ((1, 1), (2, 3), (5, 2), (5, 5))),
    *(Case(BLOCK, n, lanes=8, tile=tile, after=2, steps=3) for n, tile in ((1, 2), (2, 5), (5, 1), (7, 3))),
    *(Case(LONG, count, tile=tile, group=32) for count, tile in ((1, 2), (2, 1), (5, 3))),
    *(Case(LONG, count, tile=tile, group=64, after=2, steps=3) for count, tile in ((2, 5), (5, 2))),
    Case(BLOCK, 3, tile=3, steps=3, targets=(0, 1, 1, 0)),
    Case(LONG, 2, tile=2, steps=2, group=64, targets=(1, 2, 0, 1)),
    Case(BLOCK, 2, tile=2, after=0, steps=3),
    Case(BLOCK[:1], 4, tile=4, after=0),
)
NAMES = [
    f"{'int4' if c.group else 'int8'}_{c.count}lanes_{c.lanes}ch_tile{c.tile}_{c.steps}steps_{i}"
    for i, c in enumerate(CASES)
]
every_case = pytest.mark.parametrize("index", range(len(CASES)), ids=NAMES)


def lengths(case: Case) -> list[int]:
    """One row, around a tile, several tiles, the most there may be."""
    return sorted({1, max(1, case.tile - 1), case.tile, case.tile + 1, 3 * case.tile + 2, MAX_SEQ})


@pytest.fixture(scope="module")
def library() -> LanesLibrary:
    return LanesLibrary(CASES)


@pytest.fixture(scope="module")
def counted() -> LanesLibrary:
    return LanesLibrary(CASES, counted=True)


# -- values -----------------------------------------------------------------------------------


@pytest.mark.gxx
@every_case
def test_sums_equal_the_layers(library: LanesLibrary, index: int) -> None:
    case = CASES[index]
    data = case.data(index)
    images = case.images(data)
    for seq in lengths(case):
        xs = case.inputs(seq, 100 + seq)
        got = library.run(index, xs, images, seq)
        for layer, (a, b) in enumerate(zip(got, expected(case, xs, data), strict=True)):
            assert np.array_equal(a, b), f"layer {layer} at {seq} rows"


@pytest.mark.gxx
@pytest.mark.parametrize("x", [-128, 127])
@pytest.mark.parametrize(("q", "m"), [(-8, 127), (7, 127)])
def test_largest_values_of_int4(library: LanesLibrary, x: int, q: int, m: int) -> None:
    index = next(i for i, c in enumerate(CASES) if c.group == 32)
    case = CASES[index]
    data = case.data()
    for steps in data.values():
        steps[0] = {
            "weight": torch.full_like(steps[0]["weight"], q),
            "scales": torch.full_like(steps[0]["scales"], m),
        }
    xs = [[torch.full_like(step, x) for step in steps] for steps in case.inputs(3)]
    for a, b in zip(library.run(index, xs, case.images(data), 3), expected(case, xs, data), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.gxx
@pytest.mark.parametrize("index", [1, 9])
def test_every_word_counts(library: LanesLibrary, index: int) -> None:
    """A bit in any word of an image is seen in some sum: none is skipped or read for another."""
    case = CASES[index]
    images = case.images(case.data())
    xs = [[torch.ones_like(step) for step in steps] for steps in case.inputs(2)]
    right = library.run(index, xs, images, 2)
    for number, image in enumerate(images):
        words = np.frombuffer(image, dtype=np.uint8).reshape(-1, 64)
        for word in range(0, len(words), 7):
            # a channel that is none, of inputs or outputs, has a zero weight: all other bytes count
            byte = int(np.flatnonzero(words[word])[0]) if words[word].any() else -1
            if byte < 0:
                continue
            changed = words.copy()
            changed[word, byte] ^= 1
            given = [*images[:number], changed.tobytes(), *images[number + 1 :]]
            got = library.run(index, xs, given, 2)
            assert any(not np.array_equal(a, b) for a, b in zip(got, right, strict=True)), (number, word)


# -- cycles and traffic -----------------------------------------------------------------------


@pytest.mark.gxx
@every_case
def test_closed_forms_are_the_sums_over_the_loops(counted: LanesLibrary, index: int) -> None:
    case = CASES[index]
    stages, _, ports = case.parts
    for seq in lengths(case):
        found = counted.counts(index, seq)[len(ports) :]
        for stage, (entries, _, _) in zip(stages, found, strict=True):
            assert isinstance(stage, LanesPart) and {e.label for e in entries} == {stage.label}
            want = total_cycles(entries, odd_depth)
            assert stage.cycles(case.design, 1, seq, odd_depth) == want, (stage.name, seq)
            assert stage.turn_cycles(case.design, seq, 17, odd_depth) == want


@pytest.mark.gxx
@every_case
def test_ports_read_what_the_traffic_says(counted: LanesLibrary, index: int) -> None:
    """Words of a launch, one a cycle, from the first one of the image to its last one."""
    case = CASES[index]
    ports = case.parts[2]
    for seq in lengths(case):
        moved = bytes_moved(case.design, 1, seq)
        for port, (entries, words, last) in zip(ports, counted.counts(index, seq), strict=False):
            assert [(e.label, e.iterations, e.ii) for e in entries] == [("READ", words, 1)]
            assert moved["k", port.name] == 64 * words
            assert last == port.words - 1


def test_cycles_by_hand() -> None:
    """Two lanes, int8: 3 x 8 and 1 x 6 blocks in a loop of two steps, 10 x 6 behind it; tiles of 3."""
    case = Case(BLOCK[:3], 2, tile=3, steps=2)
    assert [(a.layout_in.blocks(16), a.layout_out.blocks(16)) for a in case.layers()] == [
        (3, 8),
        (1, 7),
        (10, 6),
    ]
    select, first, second, gather, deal = case.parts[0]
    seq, enter = 7, 10 + 2 - 1
    both = (2 * seq * (3 + 1) + 10) + 5 * enter
    assert select.cycles(case.design, 1, seq, lambda label: {"JOIN": 10}[label]) == both
    # three tiles; a word has 4 columns: four parts of 3 places, as a tile has 3 rows
    work = 2 * (3 * 4 * 4 * 3 + seq) + 2 * (3 * 4 * 4 * 3 + seq) + (3 * 4 * 10 + 1)
    assert first.cycles(case.design, 1, seq, lambda label: {"REDUCE": 10}[label]) == work + 5 * enter
    less = work - 2 * 3 * 4 * 3  # of seven blocks the second lane makes three
    assert second.cycles(case.design, 1, seq, lambda label: {"REDUCE": 10}[label]) == less + 5 * enter
    blocks = 2 * seq * (8 + 7) + 6 + 5 * enter
    assert gather.cycles(case.design, 1, seq, lambda label: {"GATHER": 10}[label]) == blocks
    assert deal.cycles(case.design, 1, seq, lambda label: {"DEAL": 10}[label]) == blocks


# -- images -----------------------------------------------------------------------------------


class _Reader:
    """Takes an image apart as the ports' words are said to lie (docs/stage-library.md), with plain loops."""

    def __init__(self, case: Case, images: list[bytes]) -> None:
        self.case = case
        self.words = [np.frombuffer(i, dtype=np.int8).reshape(-1, 64) for i in images]
        self.at = [0] * len(images)

    def word(self, lane: int) -> NDArray[np.int8]:
        self.at[lane] += 1
        return self.words[lane][self.at[lane] - 1]

    def matrix(self, layer: MatmulStage) -> NDArray[np.int64]:
        """(outputs, inputs) of a step, with the channels that only fill up blocks."""
        lanes = self.case.lanes
        rows, columns = layer.layout_out.blocks(lanes), layer.layout_in.blocks(lanes)
        found = np.zeros((rows * lanes, columns * lanes), dtype=np.int64)
        for lane in range(self.case.count):
            for block in range(lane, rows, self.case.count):
                if self.case.group:
                    self._int4(found[block * lanes : (block + 1) * lanes], lane)
                else:
                    self._int8(found[block * lanes : (block + 1) * lanes], lane)
        return found

    def _int8(self, block: NDArray[np.int64], lane: int) -> None:
        lanes = self.case.lanes
        outputs = 64 // lanes
        for first in range(0, lanes, outputs):
            for left in range(0, block.shape[1], lanes):
                block[first : first + outputs, left : left + lanes] = self.word(lane).reshape(outputs, lanes)

    def _int4(self, block: NDArray[np.int64], lane: int) -> None:
        per_group = self.case.group // 16
        for first in (0, 8):
            scales = np.zeros((8, 8), dtype=np.int64)
            for number in range(block.shape[1] // 16):
                if number % (8 * per_group) == 0:
                    scales = self.word(lane).reshape(8, 8).astype(np.int64)  # group, output
                word = self.word(lane).astype(np.int64) & 255
                m = scales[number // per_group % 8]
                for pair in range(4):
                    for channel in range(16):
                        byte = int(word[pair * 16 + channel])  # 16 * odd output + even output
                        even = ((byte & 15) ^ 8) - 8
                        odd = (((byte - even) >> 4 & 15) ^ 8) - 8
                        for half, q in enumerate((even, odd)):
                            block[first + 2 * pair + half, number * 16 + channel] = q * m[2 * pair + half]


@every_case
def test_every_byte_of_the_images_is_where_it_belongs(index: int) -> None:
    """An independent reading of the images gives the products of the layers, and nothing is left over."""
    case = CASES[index]
    data = case.data(index)
    images = case.images(data)
    assert [len(i) for i in images] == [64 * p.words for p in case.parts[2]]
    reader, xs = _Reader(case, images), case.inputs(3)
    for behind in (False, True):
        layers = [layer for layer in case.layers() if layer.one_row == behind]
        for step in range(1 if behind else case.steps):
            for layer in layers:
                matrix = torch.from_numpy(reader.matrix(layer))
                x = xs[int(layer.name[2:])][step]
                y = _padded(x, layer.layout_in, case.lanes) @ matrix.t()
                want = layer.reference(data[layer.name][step], [x, None])[0]
                assert torch.equal(y, _padded(want, layer.layout_out, case.lanes)), (layer.name, step)
    assert reader.at == [p.words for p in case.parts[2]]


def _padded(rows: Tensor, layout: Layout, lanes: int) -> Tensor:
    return pad_channels(rows, layout, lanes, 2).long()


# -- the model of their cost, and what is refused -----------------------------------------------


@pytest.mark.parametrize("group", [0, 64])
def test_a_lane_costs_about_what_an_array_of_its_width_does(group: int) -> None:
    """The same products, so the same DSPs; the other parts within what choosing sizes takes."""
    wide = Layout(1, 1024)
    case = Case(((wide, wide), (wide, Layout(1, 4096)), (Layout(1, 4096), wide)), 4, group=group, after=0)
    layers, lane = case.layers(), case.parts[0][1]
    assert isinstance(lane, LaneStage)
    own = max((a.cost(case.logic) for a in layers), key=lambda c: c.lut)
    cost = lane.cost(case.design)
    assert 0 <= cost.dsp - own.dsp <= 12 and cost.uram == own.uram == 0
    # one buffer for the widest input instead of one a layer and a FIFO in front of each
    assert 0 < cost.bram18 <= own.bram18
    assert 0.7 * own.lut < cost.lut < 1.3 * own.lut and 0.7 * own.ff < cost.ff < 1.3 * own.ff


def test_the_stages_around_the_lanes_are_small() -> None:
    case = CASES[2]
    select, *lanes, gather, deal = case.parts[0]
    array = sum(lane.cost(case.design).lut for lane in lanes)
    for stage in (select, gather, deal):
        cost = stage.cost(case.design)
        assert cost.cycles == stage.nominal_cycles(case.design) > 0
        assert 0 < cost.lut < array / 2 and cost.dsp <= 4 and cost.bram18 == 0


def test_impossible_lanes_are_refused() -> None:
    select, *_, deal = CASES[0].parts[0]
    assert isinstance(select, LanesPart) and isinstance(deal, LanesDealStage)
    with pytest.raises(DesignError, match="a layer makes 6 channel blocks for 7 lanes"):
        replace(select, count=7)
    with pytest.raises(DesignError, match="0 of 4 uses are in the loop"):
        replace(select, loop_uses=0)
    with pytest.raises(DesignError, match="deals to 4 outputs, not as"):
        replace(deal, slots=(0, 1, 2, 2))
    with pytest.raises(DesignError, match="the layers that share it are the reference"):
        select.reference({}, [])
