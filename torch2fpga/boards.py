# SPDX-License-Identifier: Apache-2.0
"""Boards as data; every number with its source (tags: see docs/decisions.md, "Board facts")."""

from __future__ import annotations

from dataclasses import dataclass

from torch2fpga.errors import CompileError


@dataclass(frozen=True)
class Slr:
    """User-region resources of one super logic region."""

    lut: int
    ff: int
    bram18: int
    dsp: int
    uram: int


@dataclass(frozen=True)
class Board:
    """A card.

    Attributes:
        part, platform: as the vendor's tools spell them.
        tools: first and last tool release that supports the card.
        slrs: user-region resources, bottom first.
        hbm_channels, hbm_bytes: pseudo-channels and bytes of each.
        clock_mhz: kernel clock that designs for this card plan with.
        note: what a reader must know.
    """

    name: str
    title: str
    part: str
    platform: str
    tools: tuple[str, str]
    slrs: tuple[Slr, ...]
    hbm_channels: int
    hbm_bytes: int
    clock_mhz: int
    note: str


#: resources: TAPA u280.json, "resources available after the platform shell", columns summed by
#: row; part and platform: FINN basic.py, TAPA; tools: Vivado 2024.1 dropped the U280
#: (Xilinx/RapidWright#1021), last recorded builds with Vitis 2023.2
U280 = Board(
    name="u280",
    title="AMD Alveo U280",
    part="xcu280-fsvh2892-2L-e",
    platform="xilinx_u280_gen3x16_xdma_1_202211_1",
    tools=("2022.1", "2023.2"),
    slrs=(
        Slr(384_960, 769_920, 1_200, 2_664, 320),
        Slr(362_880, 725_760, 1_152, 2_784, 320),
        Slr(382_560, 765_120, 1_200, 2_856, 320),
    ),
    hbm_channels=32,
    hbm_bytes=256 << 20,
    clock_mhz=250,
    note="The U280 is at its end of life: the last tools that support it are 2023.2.",
)

#: resources: TAPA u55c.json; 16 GB of HBM over 32 pseudo-channels
U55C = Board(
    name="u55c",
    title="AMD Alveo U55C",
    part="xcu55c-fsvh2892-2L-e",
    platform="xilinx_u55c_gen3x16_xdma_3_202210_1",
    tools=("2022.1", "2023.2"),
    slrs=(
        Slr(388_800, 777_600, 1_200, 2_664, 320),
        Slr(364_800, 729_600, 1_152, 2_784, 320),
        Slr(395_040, 790_080, 1_200, 2_928, 320),
    ),
    hbm_channels=32,
    hbm_bytes=512 << 20,
    clock_mhz=250,
    note="Projects are written for tools up to 2023.2, the releases this project knows the syntax of.",
)

BOARDS = {board.name: board for board in (U280, U55C)}


def board_named(name: str) -> Board:
    """The board of that name.

    Raises:
        CompileError: with the names there are.
    """
    if name not in BOARDS:
        raise CompileError(f"unknown board {name!r}; there are {sorted(BOARDS)}")
    return BOARDS[name]
