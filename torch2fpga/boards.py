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
class Hbm:
    """High-bandwidth memory: pseudo-channels (one 512-bit AXI master each) and what they sustain.

    Attributes:
        channels, channel_bytes: pseudo-channels and bytes of each.
        peak_gbs: of a pseudo-channel's interface.
        sequential_gbs: one master, 512-bit beats in order.
        row_ns: from the start of one transaction to a random address to the next.
        cross_ns: what a transaction to another pseudo-channel than the one before waits, because
            data of one AXI id returns in order (a round trip).
        latency_cycles: read latency that kernels are scheduled for (m_axi ``latency``).
    """

    channels: int
    channel_bytes: int
    peak_gbs: float
    sequential_gbs: float
    row_ns: float
    cross_ns: float
    latency_cycles: int

    def beat_cycles(self, width: int, clock_mhz: float) -> float:
        """Kernel cycles of a beat of ``width`` bytes at the sustained rate: a master moves one a cycle."""
        return max(1.0, width / self.sequential_gbs * clock_mhz / 1000)


@dataclass(frozen=True)
class Board:
    """A card.

    Attributes:
        part, platform: as the vendor's tools spell them.
        tools: first and last tool release that supports the card.
        slrs: user-region resources, bottom first.
        hbm: its memory.
        crossing_cycles: register stages of a stream on each boundary between SLRs.
        clock_mhz: kernel clock that designs for this card plan with.
        note: what a reader must know.
    """

    name: str
    title: str
    part: str
    platform: str
    tools: tuple[str, str]
    slrs: tuple[Slr, ...]
    hbm: Hbm
    crossing_cycles: int
    clock_mhz: int
    note: str

    @property
    def hbm_channels(self) -> int:
        """Pseudo-channels."""
        return self.hbm.channels

    @property
    def hbm_bytes(self) -> int:
        """Bytes of a pseudo-channel."""
        return self.hbm.channel_bytes


#: peak: 256 bit at 450 MHz (UG1393). Sequential: mean of the 512-bit row of the vendor's "Using HBM"
#: tutorial (13.04 to 13.10 GB/s). row and cross: from two points each of the same tutorial's random
#: reads (64 B in one channel: 4.75 GB/s; 64 B over two channels: 0.76 GB/s); docs/timed-run.md compares
#: the other points with the model. Those were measured on a U50 with the same HBM2 subsystem; a U280
#: sustained 421.3 GB/s over 32 channels (13.17 each). Latency: the vendor's examples.
def _hbm(channel_bytes: int) -> Hbm:
    return Hbm(
        channels=32,
        channel_bytes=channel_bytes,
        peak_gbs=14.375,
        sequential_gbs=13.08,
        row_ns=64 / 4.75,
        cross_ns=2 * 64 / 0.76 - 2 * 64 / 4.75,
        latency_cycles=64,
    )


#: resources: TAPA u280.json, "resources available after the platform shell", columns summed by
#: row; part and platform: FINN basic.py, TAPA; tools: Vivado 2024.1 dropped the U280
#: (Xilinx/RapidWright#1021), last recorded builds with Vitis 2023.2; crossing: at least three pipeline stages
#: of a bus above 250 MHz (UG949 2022.1)
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
    hbm=_hbm(256 << 20),
    crossing_cycles=3,
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
    hbm=_hbm(512 << 20),
    crossing_cycles=3,
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
