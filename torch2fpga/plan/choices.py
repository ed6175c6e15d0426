# SPDX-License-Identifier: Apache-2.0
"""What the optimiser may choose for every stage, and what each choice costs.

All figures come from the stages themselves (``Stage.cycles``, ``Stage.cost``): a choice is a stage
with other fields, so that what is planned is what is emitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch2fpga import costs
from torch2fpga.boards import Board
from torch2fpga.design import Design, Estimate, Layout, Stage, ceil_div, nominal_depth
from torch2fpga.errors import CompileError
from torch2fpga.lower.attention import ScoresStage, ValuesStage
from torch2fpga.lower.deal import DealStage
from torch2fpga.lower.gather import GatherStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.ways import WaysStage
from torch2fpga.plan.plan import COLUMNS, Array
from torch2fpga.plan.resources import ports_cost

#: memory ports that copies share where nobody says how many
SHARED = (1, 2, 4)
#: a step's weights up to this size are kept while its rows pass, above the other one they never are
LARGE_BYTES, MOST_BYTES = 6 << 20, 16 << 20
#: most copies of a linear layer's array
MAX_COPIES = 16

ArrayStage = MatmulStage | ScoresStage | ValuesStage


@dataclass(frozen=True)
class Choice:
    """One way to build a stage.

    Attributes:
        array: what it is, None for a stage without arrays.
        busy: cycles of a step for the whole launch, its weights apart.
        load: cycles in which the weights of a step arrive.
        tile: cycles that it works on a tile of rows.
        cost: of all copies, with what joins them.
        ports: memory ports of its weights.
        products: a cycle, of all copies.
        bytes: of the weights of all steps behind one of the ports.
        ways: channels a cycle of a stage without arrays, 0 where there is nothing to choose.
    """

    array: Array | None
    busy: float
    load: float
    tile: float
    cost: Estimate
    ports: int = 0
    products: int = 0
    bytes: int = 0
    ways: int = 0


def choices(
    design: Design, stage: Stage, board: Board, clock_mhz: float, keep: str = "", every: bool = False
) -> list[Choice]:
    """Every way to build a stage of a design that is not split yet.

    Args:
        keep: where weights are kept, if it is not to be chosen.
        every: also choices that are in nothing better than another one.
    Raises:
        CompileError: for weights that no number of ports holds.
    """
    if isinstance(stage, MatmulStage):
        beat = board.hbm.beat_cycles(64, clock_mhz)
        found = [
            _matmul(design, way, *widths, beat)
            for way in _keeping(design, stage, keep)
            for widths in _widths(design, way, every)
        ]
        found = _held(stage, found, board)
        found = [replace(c, cost=c.cost + ports_cost(board, c.ports)) for c in found]
        found = found if every else _worth(found)
    elif isinstance(stage, ScoresStage | ValuesStage):
        widths = [c for c in COLUMNS if c <= design.shape.lanes]
        found = [_attention(design, replace(stage, columns=c)) for c in widths]
    elif isinstance(stage, WaysStage):
        widths = [w for w in COLUMNS if w <= design.shape.lanes]
        found = [_elementwise(design, replace(stage, ways=w), w) for w in widths]
    else:
        found = [_elementwise(design, stage, 0)]
    return found


def _keeping(design: Design, stage: MatmulStage, keep: str) -> list[MatmulStage]:
    """Where the weights may be while rows pass: on the chip, or for large ones also in memory alone."""
    if keep:
        return [replace(stage, keep=keep)]
    size = 64 * stage.weight_words(design)
    kept = ["step"] if size <= LARGE_BYTES else ["streamed"] if size > MOST_BYTES else ["step", "streamed"]
    return [replace(stage, keep=k) for k in kept]


def _held(stage: MatmulStage, found: Sequence[Choice], board: Board) -> list[Choice]:
    """Choices whose ports each find their weights in one memory channel."""
    held = [c for c in found if c.bytes <= board.hbm_bytes]
    if found and not held:
        least = min(found, key=lambda c: c.bytes)
        raise CompileError(
            f"{stage.path}: the weights of {stage.steps} steps are {least.bytes * least.ports / 1e9:.1f} GB, "
            f"more than {least.ports} memory channels of {board.hbm_bytes:,} bytes hold"
        )
    return held


def _worth(found: Iterable[Choice]) -> list[Choice]:
    """Choices that are better than each other one in something."""
    every = [(_measures(c), c) for c in found]
    kept: list[tuple[tuple[float, ...], Choice]] = []
    for measures, choice in sorted(every, key=lambda x: x[0]):
        if not any(all(a <= b for a, b in zip(other, measures, strict=True)) for other, _ in kept):
            kept.append((measures, choice))
    return [choice for _, choice in kept]


def _measures(c: Choice) -> tuple[float, ...]:
    """What counts about a choice, less is better. Memory blocks and logic are compared roughly: a
    thousandth of the card is nothing to choose by."""
    cost = c.cost
    return (c.busy, c.load, c.tile, cost.dsp, cost.uram, cost.bram18 // 16, cost.lut // 4000, c.ports)


def _widths(design: Design, stage: MatmulStage, every: bool) -> Iterator[tuple[int, int, int]]:
    """Columns, copies and ports of a linear layer, without copies that would shorten nothing."""
    lanes = design.shape.lanes
    blocks = stage.layout_out.blocks(lanes)
    least = stage.word_weights // lanes
    widths = [c for c in COLUMNS if least <= c <= (least if stage.streamed else lanes)]
    for copies in range(1, min(MAX_COPIES, blocks) + 1):
        if copies > 1 and ceil_div(blocks, copies) == ceil_div(blocks, copies - 1):
            continue
        ports = [copies] if stage.streamed else [p for p in range(1, copies + 1) if every or p in SHARED]
        yield from ((columns, copies, p) for columns in widths for p in ports)


def tiles_of(design: Design, stage: Stage) -> int:
    """Tiles of rows of a launch of the largest size."""
    s = design.shape
    return s.max_batch * (1 if stage.one_row else ceil_div(s.max_seq, s.tile))


def _busy(design: Design, stage: Stage) -> float:
    """Cycles of a step."""
    s = design.shape
    return stage.cycles(design, s.max_batch, s.max_seq, nominal_depth) / stage.steps


def _elementwise(design: Design, stage: Stage, ways: int) -> Choice:
    busy = _busy(design, stage)
    return Choice(None, busy, 0.0, busy / tiles_of(design, stage), stage.cost(design), ways=ways)


def _attention(design: Design, stage: ScoresStage | ValuesStage) -> Choice:
    busy, cost = _busy(design, stage), stage.cost(design)
    products = design.shape.tile * design.shape.lanes * stage.columns
    tile = busy / tiles_of(design, stage)
    return Choice(Array(1, stage.columns), busy, 0.0, tile, cost, products=products)


def _matmul(design: Design, stage: MatmulStage, columns: int, copies: int, ports: int, beat: float) -> Choice:
    s = design.shape
    blocks = ceil_div(stage.layout_out.blocks(s.lanes), copies)
    layout = stage.layout_out if copies == 1 else Layout(1, blocks * s.lanes)
    one = replace(stage, columns=columns, layout_out=layout)
    busy = _busy(design, one)
    words, kept = one.weight_words(design), one.weights_kept
    load = words * ceil_div(copies, ports) * beat
    tiles = tiles_of(design, stage)
    if kept == "streamed":  # the port sets the pace
        busy, load = max(busy, tiles * load), 0.0
    else:
        busy -= words
        load = load if kept == "step" else 0.0  # resident: loaded before the first step
    cost = costs.times(copies, one.cost(design))
    if copies > 1:
        cost = cost + gather_of(design, stage, copies).cost(design)
    if ports < copies:
        cost = cost + costs.times(ports, deal_of(stage, ceil_div(copies, ports), words).cost(design))
    array = Array(copies, columns, kept, ports)
    behind = 64 * words * ceil_div(copies, ports) * stage.steps
    return Choice(array, busy, load, busy / tiles, cost, ports, copies * one.products(design), behind)


def gather_of(design: Design, stage: MatmulStage, copies: int) -> GatherStage:
    """The stage that joins the outputs of copies, for its cost."""
    inputs = tuple(f"{stage.name}_{i}" for i in range(copies))
    return GatherStage(
        f"{stage.name}_gather", stage.path, stage.group, stage.steps, inputs, stage.outputs,
        one_row=stage.one_row, layout=stage.layout_out, lanes=design.shape.lanes,
    )  # fmt: skip


def deal_of(stage: MatmulStage, copies: int, words: int) -> DealStage:
    """The stage that hands a port's words to copies, for its cost."""
    outputs = tuple(f"{stage.name}_{i}" for i in range(copies))
    return DealStage(
        f"{stage.name}_deal", stage.path, stage.group, stage.steps, ("words",), outputs,
        words=(words,) * copies, arrays=outputs,
    )  # fmt: skip
