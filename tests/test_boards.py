# SPDX-License-Identifier: Apache-2.0
"""Board tables: sums, what a user may name, and that caps and budgets mean what they say."""

from __future__ import annotations

from dataclasses import fields

import pytest

from torch2fpga.boards import BOARDS, U55C, U280, U280_XDMA_201920, Board, Slr, board_named
from torch2fpga.errors import CompileError

OLD = "xilinx_u280_xdma_201920_3"


def test_the_tables_add_up_to_the_published_totals() -> None:
    assert U280.total == Slr(1_130_400, 2_260_800, 3_552, 8_304, 960)
    assert U55C.total == Slr(1_148_640, 2_297_280, 3_552, 8_376, 960)
    assert [s.dsp for s in U280.slrs] == [2_664, 2_784, 2_856]
    assert [s.lut for s in U280.slrs] == [384_960, 362_880, 382_560]
    assert [s.lut for s in U55C.slrs] == [388_800, 364_800, 395_040]
    assert U280_XDMA_201920.total.dsp == 8_490 and U280_XDMA_201920.total.bram18 == 2 * 1_487


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda b: b.name)
def test_columns_make_up_their_region(board: Board) -> None:
    if board is U280_XDMA_201920:
        assert board.slots == ()  # no table by column is known
        return
    for number, slr in enumerate(board.slrs):
        parts = [s.resources for s in board.slots if s.slr == number]
        assert len(parts) == 2
        for field in fields(Slr):
            assert sum(getattr(p, field.name) for p in parts) == getattr(slr, field.name)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda b: b.name)
def test_every_channel_has_a_slot_beside_the_memory(board: Board) -> None:
    slots = [board.hbm.slot_of(channel) for channel in range(board.hbm_channels)]
    assert slots == ["X0Y0"] * 16 + ["X1Y0"] * 16
    assert {s.slr for s in board.slots if s.name in slots} <= {board.memory_slr}
    for channel in (-1, board.hbm_channels):
        with pytest.raises(ValueError, match="0 to 31"):
            board.hbm.slot_of(channel)


@pytest.mark.parametrize("board", BOARDS.values(), ids=lambda b: b.name)
def test_budgets_lie_below_what_there_is(board: Board) -> None:
    assert len(board.wires) == len(board.slrs) - 1
    assert all(board.prudent_wires < board.wire_budget < w for w in board.wires)
    assert board.masters == board.hbm_channels
    for budget in board.routed:
        assert budget.clock_mhz <= board.clock_mhz and budget.source
        assert (budget.macs is None) != (budget.dsp is None)
        if budget.dsp is not None:
            assert budget.dsp <= board.total.dsp
    everything = board.masters * board.port.lut
    assert everything < board.caps.lut * board.slrs[board.memory_slr].lut


def test_caps_by_the_names_of_resources() -> None:
    shares = {f.name: U280.caps.share_of(f.name) for f in fields(Slr)}
    assert shares == {"lut": 0.7, "ff": 0.5, "bram18": 0.8, "dsp": 0.8, "uram": 0.8}
    assert U280.caps.mean == 0.7


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("u280", U280),
        ("u280:xilinx_u280_gen3x16_xdma_1_202211_1", U280),
        ("xilinx_u280_gen3x16_xdma_1_202211_1", U280),
        (f"u280:{OLD}", U280_XDMA_201920),
        (OLD, U280_XDMA_201920),
        ("u55c", U55C),
    ],
)
def test_boards_by_card_and_platform(name: str, board: Board) -> None:
    assert board_named(name) is board


def test_the_old_platform_says_what_is_unconfirmed() -> None:
    board = board_named(f"u280:{OLD}")
    assert board.part == U280.part and board.platform == OLD
    assert "unconfirmed" in board.note
    assert board.tools[1] <= U280.tools[1]


@pytest.mark.parametrize("name", ["u250", "", "u280:", "u55c:xilinx_u280_xdma_201920_3"])
def test_unknown_names_list_what_there_is(name: str) -> None:
    with pytest.raises(CompileError) as error:
        board_named(name)
    for known in BOARDS:
        assert known in str(error.value)
