# SPDX-License-Identifier: Apache-2.0
"""Boards as data; every number with its source (tags: see docs/boards.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch2fpga.errors import CompileError


@dataclass(frozen=True)
class Slr:
    """User-region resources of one super logic region, or of one part of it."""

    lut: int
    ff: int
    bram18: int
    dsp: int
    uram: int


@dataclass(frozen=True)
class Slot:
    """One column of one super logic region (rows are the regions, bottom first).

    Attributes:
        name: column and row, as floorplanners write it.
        slr: the region.
        resources: what of the region lies in this column.
    """

    name: str
    slr: int
    resources: Slr


@dataclass(frozen=True)
class Caps:
    """Shares of the user region beyond which designs stop routing or miss their clock.

    Attributes:
        lut, ff, bram, uram, dsp: largest share of each resource, in a region and in all.
        mean: largest mean of the shares of BRAM, URAM and DSP over the card.
    """

    lut: float
    ff: float
    bram: float
    uram: float
    dsp: float
    mean: float

    def share_of(self, resource: str) -> float:
        """Largest share of a resource, by its field in ``Slr`` (``bram18`` is ``bram`` here)."""
        return float(getattr(self, resource.removesuffix("18")))


@dataclass(frozen=True)
class MemoryPort:
    """What one 512-bit memory port costs, its share of the memory subsystem included.

    Attributes:
        lut, ff: of the subsystem and the master.
        bram18: of the master's burst buffer.
    """

    lut: int
    ff: int
    bram18: int


@dataclass(frozen=True)
class Routed:
    """A multiplier budget that somebody has placed, routed and clocked on this card.

    Attributes:
        name: a word to ask for it by.
        macs: products a cycle, or None where only the multipliers are published.
        dsp: DSP blocks, or None where only the products are published.
        clock_mhz: the clock it closed at.
        what, source: in words.
    """

    name: str
    macs: int | None
    dsp: int | None
    clock_mhz: int
    what: str
    source: str


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
        attach: slot -> first and last pseudo-channel whose port is next to it.
    """

    channels: int
    channel_bytes: int
    peak_gbs: float
    sequential_gbs: float
    row_ns: float
    cross_ns: float
    latency_cycles: int
    attach: tuple[tuple[str, int, int], ...] = ()

    def beat_cycles(self, width: int, clock_mhz: float) -> float:
        """Kernel cycles of a beat of ``width`` bytes at the sustained rate: a master moves one a cycle."""
        return max(1.0, width / self.sequential_gbs * clock_mhz / 1000)

    def slot_of(self, channel: int) -> str:
        """The slot next to a pseudo-channel's port.

        Raises:
            ValueError: there is no such channel.
        """
        for slot, first, last in self.attach:
            if first <= channel <= last:
                return slot
        raise ValueError(f"pseudo-channels are 0 to {self.channels - 1}, not {channel}")


@dataclass(frozen=True)
class Board:
    """A card with one of its platforms.

    Attributes:
        name: what users write; ``card:platform`` for a platform that is not the card's default.
        part, platform: as the vendor's tools spell them.
        tools: first and last tool release that supports the card.
        slrs: user-region resources, bottom first.
        slots: the same by column; empty where no table by column is known.
        hbm: its memory.
        memory_slr: region that its memory attaches to.
        masters: memory ports of all kernels together.
        port: cost of one of them.
        wires: user wires over each boundary between SLRs, bottom first.
        wire_budget: wires over a boundary that designs are planned with.
        prudent_wires: a second, smaller budget, to compare with.
        caps: largest shares of the resources.
        crossing_cycles: register stages of a stream on each boundary between SLRs.
        routed: budgets proven on the card.
        clock_mhz: kernel clock that designs for this card plan with.
        note: what a reader must know.
    """

    name: str
    title: str
    part: str
    platform: str
    tools: tuple[str, str]
    slrs: tuple[Slr, ...]
    slots: tuple[Slot, ...]
    hbm: Hbm
    memory_slr: int
    masters: int
    port: MemoryPort
    wires: tuple[int, ...]
    wire_budget: int
    prudent_wires: int
    caps: Caps
    crossing_cycles: int
    routed: tuple[Routed, ...]
    clock_mhz: float
    note: str

    @property
    def hbm_channels(self) -> int:
        """Pseudo-channels."""
        return self.hbm.channels

    @property
    def hbm_bytes(self) -> int:
        """Bytes of a pseudo-channel."""
        return self.hbm.channel_bytes

    @property
    def total(self) -> Slr:
        """User-region resources of the card."""
        return _sum(self.slrs)


def _sum(parts: tuple[Slr, ...]) -> Slr:
    """Resources of several parts together."""
    return Slr(
        sum(p.lut for p in parts),
        sum(p.ff for p in parts),
        sum(p.bram18 for p in parts),
        sum(p.dsp for p in parts),
        sum(p.uram for p in parts),
    )


def _slots(*columns: tuple[int, int, int, int, int]) -> tuple[Slot, ...]:
    """Slots from (LUT, FF, BRAM18, DSP, URAM), row by row, two columns a row."""
    return tuple(Slot(f"X{i % 2}Y{i // 2}", i // 2, Slr(*columns[i])) for i in range(len(columns)))


def _rows(slots: tuple[Slot, ...]) -> tuple[Slr, ...]:
    """Resources of each SLR: its columns together."""
    return tuple(
        _sum(tuple(s.resources for s in slots if s.slr == slr))
        for slr in range(1 + max(s.slr for s in slots))
    )


#: FINN platforms.py: "fill limits" of a region, and of the mean of BRAM18, URAM and DSP
CAPS = Caps(lut=0.70, ff=0.50, bram=0.80, uram=0.80, dsp=0.80, mean=0.70)

#: LUT and FF: TAPA-old hardware.py, AREA_PER_HBM_CHANNEL (RapidStream reserves the same 5,000 LUTs a
#: channel: 160,000 for 32). Burst buffer: 16 transactions of 32 beats of 512 bits in flight (what the
#: emitted m_axi pragmas ask for) are 512 words, 15 BRAM18 of 512 x 36 (UG573).
PORT = MemoryPort(lut=5_000, ff=6_500, bram18=15)

#: UG1393: a platform's HBM has 32 AXI slave ports, one for each pseudo-channel
MASTERS = 32

#: RapidStream reserves 7,500 wires in the first two thirds of a boundary; FINN's sll_counts allow
#: 5,000 for a whole one
WIRE_BUDGET, PRUDENT_WIRES = 7_500, 5_000

#: a bus above 250 MHz crosses with at least three pipeline stages (UG949 2022.1)
CROSSING_CYCLES = 3

ROUTED = (
    Routed(
        "arrays",
        macs=2_304,
        dsp=None,
        clock_mhz=250,
        what="nine systolic arrays of 8 x 16 with two products a DSP, three in each SLR",
        source="Chen et al., arXiv 2312.15159: at 250 MHz an SLR holds at most three 8x16 arrays",
    ),
    Routed(
        "cascades",
        macs=None,
        dsp=6_345,
        clock_mhz=225,
        what="chains of DSPs along their cascade wires, with 792 URAM",
        source="FlightLLM, arXiv 2401.03868",
    ),
)


#: peak: 256 bit at 450 MHz (UG1393). Sequential: mean of the 512-bit row of the vendor's "Using HBM"
#: tutorial (13.04 to 13.10 GB/s). row and cross: from two points each of the same tutorial's random
#: reads (64 B in one channel: 4.75 GB/s; 64 B over two channels: 0.76 GB/s); docs/timed-run.md compares
#: the other points with the model. Those were measured on a U50 with the same HBM2 subsystem; a U280
#: sustained 421.3 GB/s over 32 channels (13.17 each). Latency: the vendor's examples. Slots: TAPA's tags.
def _hbm(channel_bytes: int) -> Hbm:
    return Hbm(
        channels=32,
        channel_bytes=channel_bytes,
        peak_gbs=14.375,
        sequential_gbs=13.08,
        row_ns=64 / 4.75,
        cross_ns=2 * 64 / 0.76 - 2 * 64 / 4.75,
        latency_cycles=64,
        attach=(("X0Y0", 0, 15), ("X1Y0", 16, 31)),
    )


#: TAPA u280.json, "resources available after the platform shell"
_U280_SLOTS = _slots(
    (220_800, 441_600, 768, 1_440, 128),
    (164_160, 328_320, 432, 1_224, 192),
    (220_800, 441_600, 768, 1_536, 128),
    (142_080, 284_160, 384, 1_248, 192),
    (220_800, 441_600, 768, 1_536, 128),
    (161_760, 323_520, 432, 1_320, 192),
)

#: part and platform: FINN basic.py, TAPA; tools: Vivado 2024.1 dropped the U280
#: (Xilinx/RapidWright#1021), last recorded builds with Vitis 2023.2; HBM attaches to SLR0 (TAPA);
#: wires: TAPA wire_cap, 11,520 + 5,277 and 11,520 + 7,253 over the two columns
U280 = Board(
    name="u280",
    title="AMD Alveo U280",
    part="xcu280-fsvh2892-2L-e",
    platform="xilinx_u280_gen3x16_xdma_1_202211_1",
    tools=("2022.1", "2023.2"),
    slrs=_rows(_U280_SLOTS),
    slots=_U280_SLOTS,
    hbm=_hbm(256 << 20),
    memory_slr=0,
    masters=MASTERS,
    port=PORT,
    wires=(11_520 + 5_277, 11_520 + 7_253),
    wire_budget=WIRE_BUDGET,
    prudent_wires=PRUDENT_WIRES,
    caps=CAPS,
    crossing_cycles=CROSSING_CYCLES,
    routed=ROUTED,
    clock_mhz=250,
    note="The U280 is at its end of life: the last tools that support it are 2023.2.",
)

#: resources: FINN platforms.py, a comment "according to UG1120", in thousands; that they belong to this
#: platform is unconfirmed. No table by column and no wire count of this platform is known: the wires
#: are those of the newer one (the same silicon). Tools: issues of 2022 (Xilinx/xup_vitis_network_example#64,
#: fpgasystems/Vitis_with_100Gbps_TCP-IP#9) show builds for it started with Vitis 2022.1, none later.
U280_XDMA_201920 = replace(
    U280,
    name="u280:xilinx_u280_xdma_201920_3",
    title="AMD Alveo U280 (platform of 2019.2)",
    platform="xilinx_u280_xdma_201920_3",
    tools=("2022.1", "2022.1"),
    slrs=(
        Slr(369_000, 746_000, 2 * 507, 2_733, 320),
        Slr(333_000, 675_000, 2 * 468, 2_877, 320),
        Slr(367_000, 729_000, 2 * 512, 2_880, 320),
    ),
    slots=(),
    note=(
        "An old platform: its user region is unconfirmed and no build with tools after 2022.1 is on "
        f"record; prefer {U280.platform}."
    ),
)

#: TAPA u55c.json
_U55C_SLOTS = _slots(
    (220_800, 441_600, 768, 1_440, 128),
    (168_000, 336_000, 432, 1_224, 192),
    (216_960, 433_920, 768, 1_536, 128),
    (147_840, 295_680, 384, 1_248, 192),
    (216_960, 433_920, 768, 1_536, 128),
    (178_080, 356_160, 432, 1_392, 192),
)

#: part and platform: FINN basic.py, TAPA; 16 GB of HBM over 32 pseudo-channels, whose timing is taken
#: to be the U280's (no measurement was found); wires: TAPA wire_cap, 11,520 + 8,640 at both boundaries.
#: The proven budgets are the U280's: none is recorded for this card.
U55C = Board(
    name="u55c",
    title="AMD Alveo U55C",
    part="xcu55c-fsvh2892-2L-e",
    platform="xilinx_u55c_gen3x16_xdma_3_202210_1",
    tools=("2022.1", "2023.2"),
    slrs=_rows(_U55C_SLOTS),
    slots=_U55C_SLOTS,
    hbm=_hbm(512 << 20),
    memory_slr=0,
    masters=MASTERS,
    port=PORT,
    wires=(11_520 + 8_640, 11_520 + 8_640),
    wire_budget=WIRE_BUDGET,
    prudent_wires=PRUDENT_WIRES,
    caps=CAPS,
    crossing_cycles=CROSSING_CYCLES,
    routed=ROUTED,
    clock_mhz=250,
    note="Projects are written for tools up to 2023.2, the releases this project knows the syntax of.",
)

#: by name
BOARDS = {board.name: board for board in (U280, U280_XDMA_201920, U55C)}


def board_at(name: str, clock_mhz: float) -> Board:
    """The board of that name, for a design that is planned with another clock.

    Raises:
        CompileError: with the names there are.
    """
    clock = int(clock_mhz) if clock_mhz == int(clock_mhz) else clock_mhz
    return replace(board_named(name), clock_mhz=clock)


def board_named(name: str) -> Board:
    """The board of that name: a card, a platform, or ``card:platform``.

    Raises:
        CompileError: with the names there are.
    """
    for board in BOARDS.values():
        card = board.name.partition(":")[0]
        if name in (board.name, board.platform, f"{card}:{board.platform}"):
            return board
    raise CompileError(f"unknown board {name!r}; there are {sorted(BOARDS)}")
