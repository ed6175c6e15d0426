# SPDX-License-Identifier: Apache-2.0
"""What ``torch2fpga.estimate`` returns: figures, a table of them, and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: binds when the memory of one card does not hold the model
CAPACITY = "HBM capacity"


@dataclass(frozen=True)
class Limit:
    """The least time that one resource allows, ms."""

    resource: str
    ms: float


@dataclass(frozen=True)
class Binding:
    """What limits something.

    Attributes:
        resource: which one.
        times: how many times as much as the next limit it asks for; None where there is no other.
        next: the next one.
    """

    resource: str
    times: float | None
    next: str | None

    def __str__(self) -> str:
        if self.times is None:
            return self.resource
        return f"{self.resource}, {self.times:.3g} times {self.next}"


def binding(limits: tuple[Limit, ...]) -> Binding:
    """The largest limit, against the next."""
    first, second = sorted(limits, key=lambda limit: -limit.ms)[:2]
    if second.ms <= 0:
        return Binding(first.resource, None, None)
    return Binding(first.resource, first.ms / second.ms, second.resource)


@dataclass(frozen=True)
class Size:
    """The model.

    Attributes:
        parameters: all, shared ones once.
        layers: blocks that a row passes.
        block_weights, active_weights: of all blocks' matrices as stored, and those that a token meets.
        head_weights, table_values: of the language model's head, and in embedding tables.
        weight_bytes: of all matrices at the precision, scales included.
        kv_bytes_per_token: keys and values.
        prompt_macs, token_macs: multiply-accumulates of one sequence's prompt, with the head for its last
            position, and of the token that makes the context full; products with masked keys are counted.
    """

    parameters: int
    layers: int
    block_weights: int
    active_weights: int
    head_weights: int
    table_values: int
    weight_bytes: float
    kv_bytes_per_token: int
    prompt_macs: int
    token_macs: int


@dataclass(frozen=True)
class Memory:
    """Where it would lie, bytes.

    Attributes:
        weight_bytes, table_bytes, constant_bytes, kv_bytes: in the card's memory: matrices, embedding
            tables (int16), a multiplier and a bias for every output channel, keys and values of the
            context.
        capacity_bytes: of one card's memory.
        cards: that hold all of it.
        on_chip_bytes: of URAM and BRAM under the caps.
        blocks_bytes: weights of all blocks.
        block_bytes: of the largest block's weights with the keys and values of a prompt, twice.
        on_chip: what stays there while it is used: "whole" (all blocks), "one block", or "streamed".
    """

    weight_bytes: float
    table_bytes: float
    constant_bytes: float
    kv_bytes: float
    capacity_bytes: int
    cards: int
    on_chip_bytes: int
    blocks_bytes: float
    block_bytes: float
    on_chip: str

    @property
    def needed_bytes(self) -> float:
        """In the card's memory."""
        return self.weight_bytes + self.table_bytes + self.constant_bytes + self.kv_bytes

    @property
    def share(self) -> float:
        """Of one card's memory."""
        return self.needed_bytes / self.capacity_bytes


@dataclass(frozen=True)
class Prefill:
    """A prompt with one budget of multipliers.

    Attributes:
        budget: "caps", or what somebody has routed.
        limits: floors; the largest binds.
        expected_ms: of the tile pipeline: weights of the first block, then for every block the larger of
            its arithmetic with the chain's fill and the next one's weights, and what is outside of them.
        fill_ms, first_load_ms: of that, the fills of all blocks and the first weights.
        tile_rows, loads: rows that share a pass over a block's weights, and passes.
        memory_bound: the pipeline waits for weights more than for arithmetic.
        first_token_ms: with the head for the last position; None for encoders.
    """

    budget: str
    multipliers: int
    clock_mhz: float
    macs_per_cycle: int
    limits: tuple[Limit, ...]
    expected_ms: float
    fill_ms: float
    first_load_ms: float
    tile_rows: int
    loads: int
    memory_bound: bool
    first_token_ms: float | None

    @property
    def floor_ms(self) -> float:
        """No design within the budget is faster."""
        return max(limit.ms for limit in self.limits)

    @property
    def binds(self) -> Binding:
        """What limits it."""
        return binding(self.limits)


@dataclass(frozen=True)
class Decode:
    """A token of every sequence behind the context.

    Attributes:
        batch: sequences.
        limits: floors, ms a step.
        weight_bytes, kv_bytes: from memory for a step: weights that are needed with the head; keys and
            values.
        ports, gbs: that read, and what they sustain together.
    """

    batch: int
    limits: tuple[Limit, ...]
    weight_bytes: float
    kv_bytes: float
    ports: int
    gbs: float

    @property
    def bytes_per_step(self) -> float:
        """From memory."""
        return self.weight_bytes + self.kv_bytes

    @property
    def tokens_per_s(self) -> float:
        """Of all sequences."""
        return self.batch * 1000 / self.step_ms

    @property
    def step_ms(self) -> float:
        """One token of every sequence."""
        return max(limit.ms for limit in self.limits)

    @property
    def binds(self) -> Binding:
        """What limits it."""
        return binding(self.limits)


@dataclass(frozen=True)
class ModelEstimate:
    """A model on a card, modelled.

    Attributes:
        name, board, precision, clock_mhz, batch, prompt, context: what was asked (no context for
            encoders).
        prefill: within the caps first, then within what has been routed.
        decode: None for encoders.
        nearest: what would hold the model if one card does not, nearest first.
        assumptions: what was taken for granted about the model.
    """

    name: str
    board: str
    precision: str
    clock_mhz: float
    batch: int
    prompt: int
    context: int | None
    size: Size
    memory: Memory
    prefill: tuple[Prefill, ...]
    decode: Decode | None
    nearest: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether one card's memory holds it."""
        return self.memory.cards == 1

    @property
    def cards(self) -> int:
        """Cards whose memory holds it."""
        return self.memory.cards

    @property
    def first_token_ms(self) -> float | None:
        """Time to the first token within the caps; None for encoders."""
        return self.prefill[0].first_token_ms

    @property
    def tokens_per_s(self) -> float | None:
        """Decoded tokens of all sequences; None for encoders."""
        return None if self.decode is None else self.decode.tokens_per_s

    @property
    def binds(self) -> dict[str, Binding]:
        """What limits each phase, within the caps; and the memory if one card does not hold the model."""
        found = {"prefill": self.prefill[0].binds}
        if self.decode is not None:
            found["decode"] = self.decode.binds
        if not self.fits:
            found["memory"] = Binding(CAPACITY, self.memory.share, "one card")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data; every figure in it is modelled."""
        found = asdict(self)
        found["obtained"] = "modelled"
        found["fits"] = self.fits
        found["memory"] |= {"needed_bytes": self.memory.needed_bytes, "share": self.memory.share}
        for plain, prefill in zip(found["prefill"], self.prefill, strict=True):
            plain["floor_ms"], plain["binds"] = prefill.floor_ms, asdict(prefill.binds)
        if self.decode is not None:
            found["decode"] |= {
                "bytes_per_step": self.decode.bytes_per_step,
                "step_ms": self.decode.step_ms,
                "tokens_per_s": self.decode.tokens_per_s,
                "binds": asdict(self.decode.binds),
            }
        found["binds"] = {phase: asdict(bound) for phase, bound in self.binds.items()}
        return found

    def table(self) -> Table:
        """For a console that draws rich tables."""
        table = Table(
            title=Text(f"{self.name} on {self.board}, {self.precision}, {self.clock_mhz:g} MHz: modelled"),
            title_justify="left",
            show_header=False,
        )
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in self.rows():
            table.add_row(name, Text(text))
        return table

    def rows(self) -> list[tuple[str, str]]:
        """(what, figure) of the table."""
        found = [*self._model_rows(), *(self._prefill_row(prefill) for prefill in self.prefill)]
        if self.decode is not None:
            found.append(self._decode_row(self.decode))
        return found + [("assumed", text) for text in self.assumptions]

    def _model_rows(self) -> list[tuple[str, str]]:
        size, memory = self.size, self.memory
        weights = f"{_count(size.block_weights)} weights"
        if size.active_weights < size.block_weights:  # experts
            weights += f", {_count(size.active_weights)} of them a token"
        parts = [
            ("weights", memory.weight_bytes),
            ("tables", memory.table_bytes),
            ("constants", memory.constant_bytes),
        ]
        each = ""
        if self.decode is not None:
            parts.append(("keys and values", memory.kv_bytes))
            each = f" ({_bytes(size.kv_bytes_per_token)} a token)"
        needed = ", ".join(f"{name} {_bytes(value)}" for name, value in parts)
        fits = "one card's memory"
        if not self.fits:
            fits = f"not one card: {self.binds['memory']}; would fit: {'; '.join(self.nearest)}"
        tokens = f"{self.batch} x {self.prompt}" if self.batch > 1 else f"{self.prompt}"
        return [
            (
                "parameters",
                f"{_count(size.parameters)}: {size.layers} layers, {weights}; "
                f"head {_count(size.head_weights)}, tables {_count(size.table_values)}",
            ),
            (
                "memory",
                f"{_bytes(memory.needed_bytes)} of {_bytes(memory.capacity_bytes)} ({memory.share:.0%}): "
                f"{needed}{each}",
            ),
            ("fits", fits),
            (
                "on chip",
                f"{memory.on_chip}: of {_bytes(memory.on_chip_bytes)} all blocks take "
                f"{_bytes(memory.blocks_bytes)}, the largest with its keys and values "
                f"{_bytes(memory.block_bytes)}",
            ),
            ("prompt", f"{tokens} tokens, {_count(self.batch * size.prompt_macs)} MAC"),
        ]

    def _prefill_row(self, prefill: Prefill) -> tuple[str, str]:
        again = f", weights read {prefill.loads} times" if prefill.loads > 1 else ""
        bound = ", memory-bound" if prefill.memory_bound else ""
        first = f"; first token {_ms(prefill.first_token_ms)}" if prefill.first_token_ms else ""
        tiles = f"tiles of {prefill.tile_rows} rows{again}{bound}"
        return (
            f"  {prefill.budget}",
            f"{prefill.macs_per_cycle:,} MAC/cycle at {prefill.clock_mhz:g} MHz: floor "
            f"{_ms(prefill.floor_ms)} ({prefill.binds}); tile pipeline {_ms(prefill.expected_ms)} "
            f"({tiles}){first}",
        )

    def _decode_row(self, decode: Decode) -> tuple[str, str]:
        return (
            "decode",
            f"{decode.tokens_per_s:,.4g} tokens/s behind {self.context:,} tokens: "
            f"{_bytes(decode.bytes_per_step)} a step ({_bytes(decode.kv_bytes)} of it keys and values) over "
            f"{decode.ports} ports, {decode.gbs:.0f} GB/s; {decode.binds}",
        )

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=110).print(self.table())
        return text.getvalue().rstrip("\n")


def _count(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:g}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _bytes(value: float) -> str:
    return f"{_count(value)}B" if value >= 1e3 else f"{value:.0f} B"
