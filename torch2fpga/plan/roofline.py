# SPDX-License-Identifier: Apache-2.0
"""How long a card must take for a model's prompt and for a token: the limits, and the tile pipeline.

All functions are formulas over a ``Workload`` and a ``Machine``; docs/estimate.md writes them out with
their sources. Nothing here looks at an emitted design, and no constant is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from torch2fpga.boards import Board
from torch2fpga.design import ceil_div
from torch2fpga.plan.packing import products_per_dsp
from torch2fpga.plan.workload import Block, Stack, Workload

#: GB/s that a memory port is planned with: measured 13.17 (U280, 421.3 over 32 channels) and 13.04 to 13.10
#: (one master, same memory); rounded down
PORT_GBS = 13.0
#: bytes of a beat: 512-bit ports
PORT_BYTES = 64
#: masters that do not read weights, keys and values: token ids, embedding rows, writes of keys and
#: values, output
OTHER_MASTERS = 4
#: bytes of on-chip memory blocks (UG573, UG974), and the share of a 9-bit byte that holds data
URAM_BYTES, BRAM18_BYTES, DATA_BITS = 4096 * 9, 2304, 8 / 9
#: rows of the smallest tile, as designs are compiled
TILE = 4
#: bytes of a value in embedding tables, of a multiplier and a bias a channel, of a residual value
TABLE_BYTES, CONSTANT_BYTES, RESIDUAL_BYTES = 2, 8, 4


@dataclass(frozen=True)
class Precision:
    """Number formats.

    Attributes:
        weight_bits: of a weight, the share of a group's scale included.
        products: products of a weight and an activation in one DSP48E2 a cycle.
        pair_products: the same of attention, whose operands are int8 in every format.
        kv_bytes: of a kept value.
    """

    name: str
    weight_bits: float
    products: int
    pair_products: int = products_per_dsp("w8a8")
    kv_bytes: int = 1


#: int4 weights carry a 16-bit scale for every 64 of them: a quarter of a bit each
PRECISIONS = {
    p.name: p
    for p in (
        Precision("w8a8", 8, products_per_dsp("w8a8")),
        Precision("w4a8", 4.25, products_per_dsp("w4a8")),
        Precision("w4a4", 4.25, products_per_dsp("w4a4")),
    )
}


@dataclass(frozen=True)
class Machine:
    """A card at a clock with a budget of multipliers.

    Attributes:
        budget: the name of the budget.
        dsp: multipliers; ``near`` of them in the region that memory attaches to.
        on_chip: bytes for weights, keys and values.
    """

    board: Board
    precision: Precision
    budget: str
    clock_mhz: float
    dsp: int
    near: int
    on_chip: int

    @property
    def ports(self) -> int:
        """Memory ports that read weights, keys and values."""
        return self.board.masters - OTHER_MASTERS

    @property
    def bytes_per_ms(self) -> float:
        """Of all ports: the memory's rate, or the ports' width at a slow clock."""
        rate = min(PORT_GBS, self.board.hbm.sequential_gbs, PORT_BYTES * self.clock_mhz / 1000)
        return self.ports * rate * 1e6

    @property
    def crossing_per_ms(self) -> float:
        """Bytes over the boundary next to the memory's region, within the budget of wires."""
        return self.board.wire_budget / 8 * self.clock_mhz * 1000

    @property
    def far_share(self) -> float:
        """Share of the multipliers beyond that boundary."""
        return 1 - self.near / self.dsp

    def weight_bytes(self, weights: float) -> float:
        """Of weights with their scales."""
        return weights * self.precision.weight_bits / 8

    def compute_ms(self, products: float, pairs: float, dsp: int | None = None) -> float:
        """Of products with weights and of products of attention, every multiplier busy in every cycle."""
        cycles = products / self.precision.products + pairs / self.precision.pair_products
        return cycles / (self.dsp if dsp is None else dsp) / self.clock_mhz / 1000


def on_chip_bytes(board: Board) -> int:
    """Bytes in URAM and BRAM beside full use of the multipliers.

    The caps of DSP and URAM are used up; BRAM gets what their mean leaves, less the burst buffers.
    """
    caps, total = board.caps, board.total
    # rounded: the sum of shares is exact in decimals only
    bram = round(min(caps.bram, 3 * caps.mean - caps.dsp - caps.uram), 6)
    blocks = int(bram * total.bram18) - board.port.bram18 * (board.masters - OTHER_MASTERS)
    return int(DATA_BITS * (int(caps.uram * total.uram) * URAM_BYTES + blocks * BRAM18_BYTES))


def machines(board: Board, precision: Precision, clock_mhz: float) -> tuple[Machine, ...]:
    """The card within its caps, and within each budget that somebody has routed on it."""
    on_chip, memory, total = on_chip_bytes(board), board.slrs[board.memory_slr], board.total
    dsp, near = int(board.caps.dsp * total.dsp), int(board.caps.dsp * memory.dsp)
    found = [Machine(board, precision, "caps", clock_mhz, dsp, near, on_chip)]
    for routed in board.routed:
        # published arrays hold two products of int8 in a multiplier
        count = routed.dsp if routed.dsp is not None else (routed.macs or 0) // products_per_dsp("w8a8")
        clock = min(clock_mhz, routed.clock_mhz)
        near = count * memory.dsp // total.dsp
        found.append(Machine(board, precision, routed.name, clock, count, near, on_chip))
    return tuple(found)


@dataclass(frozen=True)
class BlockTime:
    """One block in a prompt.

    Attributes:
        compute_ms: multipliers all busy.
        once_ms, cross_ms: its weights from memory, and over the wires next to the memory's region, read once.
        fill_ms: what the chain of its products takes until all of them work.
        tile, loads: rows that share one pass over the weights, and passes.
        fewest: passes with the most rows that fit the chip.
        ahead: whether the next weights arrive meanwhile.
    """

    compute_ms: float
    once_ms: float
    cross_ms: float
    fill_ms: float
    tile: int
    loads: int
    fewest: int
    ahead: bool

    @property
    def feed_ms(self) -> float:
        """What its weights take to arrive, as often as they are read."""
        return self.loads * max(self.once_ms, self.cross_ms)

    @property
    def ms(self) -> float:
        """What the block takes, apart from what has arrived ahead."""
        work = self.compute_ms + self.fill_ms
        return max(work, self.feed_ms) if self.ahead else work + self.feed_ms


def resident_bytes(block: Block, machine: Machine, prompt: int) -> float:
    """Of a block's weights on chip, with the keys and values of a prompt, twice (double buffer)."""
    kept = block.attention.kept_of(prompt) + block.attention.cross_kept * prompt
    return machine.weight_bytes(block.stored) + 2 * kept * machine.precision.kv_bytes


def row_bytes(block: Block) -> int:
    """Of one row held between the products of a block: a byte for every channel, and its residual."""
    return block.row_channels + RESIDUAL_BYTES * block.width


def block_time(block: Block, machine: Machine, batch: int, rows: int, whole: bool, cross: bool) -> BlockTime:
    """One block of a prompt.

    Args:
        rows: of one sequence.
        whole: the weights of all blocks stay on chip.
        cross: only the keys and values of an encoder's rows are made.
    """
    every, attention = batch * rows, block.attention
    active = attention.cross_weights if cross else block.active
    pairs = 0 if cross else batch * attention.pairs(rows, rows)
    compute = machine.compute_ms(active * every, pairs)
    size = machine.weight_bytes(active if cross else block.read(every))
    once, wires = size / machine.bytes_per_ms, size * machine.far_share / machine.crossing_per_ms
    needed = resident_bytes(block, machine, rows)
    most = max(TILE, min(every, machine.on_chip // row_bytes(block)))
    fewest = 1 if whole or needed <= machine.on_chip else ceil_div(every, most)

    def made(tile: int, loads: int, ahead: bool) -> BlockTime:
        # with several sequences the next one fills the arrays that wait for keys and values of this one
        share = max(1.0, 1 / batch + block.links * min(1.0, tile / every))
        return BlockTime(compute, once, wires, compute * (share - 1), tile, loads, fewest, ahead)

    if whole or needed + machine.weight_bytes(block.stored) <= machine.on_chip:
        return made(TILE, 1, True)
    tiles = [TILE << n for n in range(most.bit_length()) if TILE << n < most] + [most]
    options = [made(tile, ceil_div(every, tile), True) for tile in tiles]
    if needed <= machine.on_chip:
        options.append(made(TILE, 1, False))
    return min(options, key=lambda option: option.ms)


def stack_rows(stack: Stack, prompt: int) -> int:
    """Rows of one input in a stack."""
    return prompt if stack.rows is None else stack.rows


def prompt_blocks(work: Workload, machine: Machine, batch: int, prompt: int, whole: bool) -> list[BlockTime]:
    """All blocks that a prompt passes, in order.

    An encoder-decoder's prompt passes the encoder, and the decoder makes keys and values of its rows.
    """
    times = []
    for stack in work.stacks:
        rows, cross = stack_rows(stack, prompt), work.joint and stack.role == "decoder"
        made = [block_time(block, machine, batch, rows, whole, cross) for block in stack.blocks]
        times += made * stack.repeat
    return times


def blocks_bytes(work: Workload, machine: Machine) -> float:
    """Of the weights of all blocks."""
    return sum(machine.weight_bytes(b.stored) for b in work.blocks)


def fits_whole(work: Workload, machine: Machine, prompt: int) -> bool:
    """Whether the weights of all blocks stay on chip, beside keys and values of one block."""
    kept = max(resident_bytes(b, machine, prompt) - machine.weight_bytes(b.stored) for b in work.blocks)
    return blocks_bytes(work, machine) + kept <= machine.on_chip


def outside_ms(work: Workload, machine: Machine, batch: int, prompt: int) -> tuple[float, float]:
    """(multipliers, memory) of what lies outside of blocks and in front of the head, ms."""
    rows = work.patches or prompt
    # a masked language model's head works on every row
    head = 0 if work.generative else work.head
    compute = machine.compute_ms(batch * ((work.stem + head) * rows + work.pooled), 0)
    return compute, machine.weight_bytes(work.stem + head + work.pooled) / machine.bytes_per_ms


def token_bytes(
    work: Workload, machine: Machine, batch: int, context: int, prompt: int, whole: bool
) -> float:
    """Bytes from memory for one token of every sequence: weights, keys and values, head."""
    weights = float(work.head + work.stem if only_decoders(work) else work.head)
    kept = 0
    for stack in work.stacks:
        if stack.role != "decoder":
            continue
        for block in stack.blocks:
            attention = block.attention
            weights += 0 if whole else stack.repeat * (block.read(batch) - attention.cross_weights)
            kept += stack.repeat * (attention.kept_of(context) + attention.cross_kept * prompt)
    return machine.weight_bytes(weights) + batch * kept * machine.precision.kv_bytes


def token_products(work: Workload, context: int, prompt: int) -> tuple[int, int]:
    """(products with weights, products of attention) of one token of one sequence."""
    weights, pairs = work.head + (work.stem if only_decoders(work) else 0), 0
    for stack in work.stacks:
        if stack.role != "decoder":
            continue
        for block in stack.blocks:
            attention = block.attention
            seen = context if attention.window is None else min(context, attention.window)
            weights += stack.repeat * (block.active - attention.cross_weights)
            pairs += stack.repeat * (attention.pairs(1, seen) + attention.cross_pairs * prompt)
    return weights, pairs


def only_decoders(work: Workload) -> bool:
    """Whether every matrix outside of blocks serves the tokens that are made."""
    return all(stack.role == "decoder" for stack in work.stacks)


def cards_needed(work: Workload, machine: Machine, batch: int, context: int, prompt: int) -> int:
    """Cards whose memory holds the model: whole blocks in order, with their keys and values.

    A block that no card holds is cut evenly.
    """
    capacity = float(machine.board.hbm_channels * machine.board.hbm_bytes)
    parts = memory_parts(work, machine, batch, context, prompt)
    if max(parts) > capacity:
        return ceil(sum(parts) / capacity)
    cards, room = 1, capacity
    for part in parts:
        if part > room:
            cards, room = cards + 1, capacity
        room -= part
    return cards


def memory_parts(work: Workload, machine: Machine, batch: int, context: int, prompt: int) -> list[float]:
    """Bytes in memory: tables, each block with its constants, keys and values, and the rest."""
    found = [float(work.tables * TABLE_BYTES)]
    for stack in work.stacks:
        for block in stack.blocks:
            size = machine.weight_bytes(block.stored) + block.channels * CONSTANT_BYTES
            if stack.role == "decoder":
                attention = block.attention
                kept = attention.kept_of(context) + attention.cross_kept * prompt
                size += stack.repeat * batch * kept * machine.precision.kv_bytes
            found.append(size)
    rest = work.stem + work.pooled + work.head
    return [*found, machine.weight_bytes(rest) + work.channels * CONSTANT_BYTES]
