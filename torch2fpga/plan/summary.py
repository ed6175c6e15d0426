# SPDX-License-Identifier: Apache-2.0
"""What a plan makes of a card, as data, tables and JSON (``compiled.plan``). Everything here is modelled.

Roofline: products a cycle that the arrays can make, against those that memory can feed (products per
byte that passes a memory port, times the ports' sustained rate).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Stage, nominal_depth
from torch2fpga.emit.link import channels
from torch2fpga.emit.ports import SUMS
from torch2fpga.lower.attention import ScoresStage, ValuesStage
from torch2fpga.lower.lanes import LaneStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.plan.latency import estimate_latency
from torch2fpga.plan.plan import Plan
from torch2fpga.plan.resources import RESOURCES, design_cost
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.plan.wires import BoundaryUse, boundary_use, crossings

TITLES = {"dsp": "DSP", "lut": "LUT", "ff": "FF", "bram18": "BRAM18", "uram": "URAM"}
EXTRA = {"ports": "memory ports", "products": "products a cycle", "mean": "mean of BRAM, URAM, DSP"}


@dataclass(frozen=True)
class Gain:
    """What more of a limit would buy.

    Attributes:
        name: ``ports``, ``products``, ``mean`` or a resource.
        used, limit: of the plan.
        saved: share of the objective that a tenth more of the limit saves.
    """

    name: str
    used: float
    limit: float
    saved: float

    def __str__(self) -> str:
        title = {**TITLES, **EXTRA}[self.name]
        return f"{title}: {self.used:,.4g} of {self.limit:,.4g}; 10 % more would save {self.saved:.1%}"


@dataclass(frozen=True)
class StageUse:
    """One stage in the plan.

    Attributes:
        slr: where it lies.
        products: its multipliers' products a cycle (0: no array).
        busy: cycles of a launch of the largest size in which it works.
        share: of the pacing stage's cycles.
    """

    name: str
    path: str
    slr: int
    products: int
    dsp: int
    busy: int
    share: float


@dataclass(frozen=True)
class RegionUse:
    """One SLR: resource -> (used, there are, share that the caps allow)."""

    slr: int
    kernel: str
    resources: Mapping[str, tuple[int, int, float]]


@dataclass(frozen=True)
class ChannelUse:
    """One memory channel: its port, and the bytes that a launch of the largest size moves."""

    channel: int
    port: str
    role: str
    moved: int


@dataclass(frozen=True)
class Roofline:
    """Products a cycle: what the caps allow, what the plan has, what memory feeds, what is reached.

    Attributes:
        intensity: products per byte that passes a memory port.
    """

    card: float
    arrays: float
    memory: float
    reached: float
    intensity: float


@dataclass(frozen=True)
class PlanReport:
    """See the module's text.

    Attributes:
        plan: complete; ``to_toml()`` of it can be edited and given back.
        cycles: of one launch of the largest size (modelled).
        pace: the stage that works longest.
        macs: useful products of such a launch.
        gains: what more of each limit would buy; empty where nothing was optimised.
    """

    plan: Plan
    title: str
    clock_mhz: float
    batch: int
    seq: int
    cycles: int
    pace: str
    macs: int
    stages: tuple[StageUse, ...]
    regions: tuple[RegionUse, ...]
    boundaries: tuple[BoundaryUse, ...]
    channels: tuple[ChannelUse, ...]
    roofline: Roofline
    gains: tuple[Gain, ...] = ()

    @property
    def products(self) -> int:
        """Products a cycle of all arrays."""
        return sum(s.products for s in self.stages)

    @property
    def busy(self) -> float:
        """Share of the plan's multipliers that make a useful product in a cycle of the launch."""
        return self.macs / (self.products * self.cycles) if self.products and self.cycles else 0.0

    @property
    def binding(self) -> tuple[Gain, ...]:
        """Limits of which a tenth more would save something."""
        return tuple(g for g in self.gains if g.saved > 0.002)

    def to_toml(self) -> str:
        """The plan as TOML; edit it and give it to ``compile(plan=...)``."""
        return self.plan.to_toml()

    def save(self, path: str | Path) -> Path:
        """Write the plan as TOML."""
        return self.plan.save(path)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found["plan"] = self.plan.to_json()
        derived = {"products": self.products, "busy": self.busy, "binding": [g.name for g in self.binding]}
        text = json.dumps({**found, **derived}, default=_plain)
        return {"obtained": "modelled", **json.loads(text)}

    def __str__(self) -> str:
        from torch2fpga.plan.tables import text

        return text(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value))


def summarise(design: Design, board: Board, plan: Plan, gains: Sequence[Gain] = ()) -> PlanReport:
    """What a planned design takes of the card, and how fast it is (modelled)."""
    s, clock = design.shape, plan.clock_mhz
    latency = estimate_latency(design, board, s.max_batch, s.max_seq, clock)
    region = {name: k.slr for k in design.kernels for name in k.stages}
    busy = {x.name: x.cycles(design, s.max_batch, s.max_seq, nominal_depth) for x in design.stages}
    most = max(busy.values())
    stages = tuple(
        StageUse(x.name, x.path, region[x.name], products_of(design, x), x.cost(design).dsp,
                 busy[x.name], busy[x.name] / most)
        for x in design.stages
    )  # fmt: skip
    macs = sum(macs_of(design, x) for x in design.logic or design.stages)
    moved = bytes_moved(design, s.max_batch, s.max_seq)
    ports = tuple(
        ChannelUse(channel, name, _role(design, name), moved[kernel, name])
        for (kernel, name), channel in sorted(channels(design, board).items(), key=lambda x: x[1])
    )
    return PlanReport(
        plan=plan,
        title=board.title,
        clock_mhz=clock,
        batch=s.max_batch,
        seq=s.max_seq,
        cycles=latency.cycles,
        pace=latency.pace,
        macs=macs,
        stages=stages,
        regions=_regions(design, board),
        boundaries=tuple(boundary_use(crossings(design), board)),
        channels=ports,
        roofline=_roofline(board, clock, stages, macs, ports, latency.cycles),
        gains=tuple(gains),
    )


def products_of(design: Design, stage: Stage) -> int:
    """Products a cycle of a stage's array."""
    s = design.shape
    if isinstance(stage, MatmulStage):
        return stage.products(design)
    if isinstance(stage, LaneStage):
        return s.tile * s.lanes * stage.columns(design)
    if isinstance(stage, ScoresStage | ValuesStage):
        rows = 1 if stage.one_row else s.tile
        return rows * s.lanes * stage.columns
    return 0


def macs_of(design: Design, stage: Stage) -> int:
    """Useful products of a launch of the largest size."""
    s = design.shape
    if isinstance(stage, MatmulStage):
        return stage.macs(design)
    if isinstance(stage, ScoresStage | ValuesStage):
        return stage.steps * s.max_batch * s.max_seq**2 * stage.layout.channels
    return 0


def _role(design: Design, name: str) -> str:
    if name == SUMS:
        return SUMS
    return next((p.role for p in design.ports if p.name == name), "params")


def _regions(design: Design, board: Board) -> tuple[RegionUse, ...]:
    costs = design_cost(design, board)
    kernels = {k.slr: k.name for k in design.kernels}
    return tuple(
        RegionUse(
            number,
            kernels.get(number, ""),
            {
                r: (getattr(costs.get(number, Estimate()), r), getattr(there, r), board.caps.share_of(r))
                for r in RESOURCES
            },
        )
        for number, there in enumerate(board.slrs)
    )


def _roofline(
    board: Board,
    clock: float,
    stages: Sequence[StageUse],
    macs: int,
    ports: Sequence[ChannelUse],
    cycles: int,
) -> Roofline:
    moved = sum(p.moved for p in ports)
    intensity = macs / moved if moved else 0.0
    bandwidth = board.hbm.sequential_gbs * board.hbm_channels / clock * 1000  # bytes a cycle
    card = 2 * board.total.dsp * board.caps.dsp
    products = float(sum(s.products for s in stages))
    return Roofline(card, products, intensity * bandwidth, macs / max(1, cycles), intensity)
