# SPDX-License-Identifier: Apache-2.0
"""The analytical model of Chen et al. (arXiv 2312.15159v2, TRETS 2024), equations 2 to 14, and what they
leave out.

Section 3.1 of the paper counts multiply-accumulates (table 1), 3.2 states constraints (equations 2 to 7),
3.3 estimates latency on one device (8 to 12), 3.4 on several (13, 14). Symbols: l tokens, d hidden width,
d_ffn width of the feed-forward network, N layers of the model, C layers unrolled on the device, M MAC a
cycle of an operator, r MACs that share a loaded weight, b_W and b_A bits of a weight and of an activation.

An equation here is a pure function of numbers. Latencies are milliseconds, clocks MHz, bandwidths GB/s
(10^9 bytes), memory bits where a name says so. ``plan/published_cases.py`` evaluates designs with them and
with what they leave out; docs/published-model.md compares with published measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, isqrt
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.errors import InputError

#: operators with weights, and those of attention, as table 1 names them
LINEAR = ("q", "k", "v", "p", "f1", "f2")
ATTENTION = ("a1", "a2")
#: port widths of a BRAM, bits (section 3.2.3)
BRAM_WIDTHS = (1, 2, 4, 9, 18, 36, 72)

#: types of Hugging Face configurations whose layers the equations describe, and whether their
#: feed-forward network has a gate
_CONFIGS: Mapping[str, bool] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "distilbert", "gpt2", "opt"), False),
    **dict.fromkeys(("llama", "mistral", "qwen2"), True),
}


def positive(where: str, **values: float) -> None:
    """Refuse numbers that no model, device or design can have."""
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{where}: {name} is {value}; give a number greater than zero")


@dataclass(frozen=True)
class TransformerShape:
    """What the equations take of a transformer.

    Attributes:
        hidden, ffn, layers, vocab: d, d_ffn, N and the rows of the head (0 without one).
        kv_hidden: width of k and v; None is ``hidden``. Below it in grouped-query attention.
        gated: the feed-forward network has a gate: f1 is two matrices.
    """

    hidden: int
    ffn: int
    layers: int
    vocab: int = 0
    kv_hidden: int | None = None
    gated: bool = False

    def __post_init__(self) -> None:
        positive("shape", hidden=self.hidden, ffn=self.ffn, layers=self.layers, kv_hidden=self.kv_width)

    @property
    def kv_width(self) -> int:
        """Width of k and v."""
        return self.hidden if self.kv_hidden is None else self.kv_hidden

    @property
    def weights(self) -> dict[str, int]:
        """Weights of each operator of a layer (the sizes s_i of section 3.2.2)."""
        d, kv = self.hidden, self.kv_width
        f1 = d * self.ffn * (2 if self.gated else 1)
        return {"q": d * d, "k": d * kv, "v": d * kv, "p": d * d, "f1": f1, "f2": d * self.ffn}

    @classmethod
    def of(cls, config: Any) -> TransformerShape:
        """The shape in a Hugging Face configuration; no weights are needed.

        Raises:
            InputError: if the equations do not describe that type of model.
        """
        kind = str(getattr(config, "model_type", "none"))
        if kind not in _CONFIGS:
            raise InputError(
                f"configurations of type {kind!r} ({type(config).__name__}) are not known to follow "
                f"the layer that the equations describe; known are {', '.join(sorted(_CONFIGS))}. "
                "If it does, give the numbers: TransformerShape(hidden=..., ffn=..., layers=..., vocab=...)"
            )
        hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
        head = getattr(config, "head_dim", None) or hidden // heads
        if head * heads != hidden:
            raise InputError(
                f"{heads} heads of {head} are not the hidden width {hidden}, and the equations know only one "
                "width; such a model is outside of them"
            )
        names = ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim")
        ffn = next((v for v in (getattr(config, n, None) for n in names) if v), 4 * hidden)
        kv = head * int(getattr(config, "num_key_value_heads", None) or heads)
        return cls(
            hidden, int(ffn), int(config.num_hidden_layers), int(config.vocab_size), kv, _CONFIGS[kind]
        )


@dataclass(frozen=True)
class Device:
    """What the equations take of a card.

    Attributes:
        dsp: multiplier blocks.
        channels: memory channels.
        peak_gbs, sustained_gbs: of one channel.
    """

    name: str
    dsp: int
    channels: int
    peak_gbs: float
    sustained_gbs: float

    def __post_init__(self) -> None:
        positive(self.name, dsp=self.dsp, channels=self.channels, peak_gbs=self.peak_gbs)
        positive(self.name, sustained_gbs=self.sustained_gbs)

    @classmethod
    def of(cls, board: Board) -> Device:
        """The user region of a board, with its high-bandwidth memory."""
        hbm = board.hbm
        dsp = sum(slr.dsp for slr in board.slrs)
        return cls(board.title, dsp, hbm.channels, hbm.peak_gbs, hbm.sequential_gbs)


@dataclass(frozen=True)
class Parallelism:
    """MAC a cycle of each operator (M_i of section 3.2.1)."""

    q: int
    k: int
    v: int
    a1: int
    a2: int
    p: int
    f1: int
    f2: int

    def __post_init__(self) -> None:
        positive("parallelism", **asdict(self))

    @classmethod
    def of(cls, linear: int, attention: int, ffn: int) -> Parallelism:
        """The same for q, k, v and p; for both products of attention; for both of the feed-forward."""
        return cls(linear, linear, linear, attention, attention, linear, ffn, ffn)

    @property
    def each(self) -> dict[str, int]:
        """By operator."""
        return asdict(self)


@dataclass(frozen=True)
class PublishedDesign:
    """An accelerator as published.

    Attributes:
        parallelism: MAC a cycle of each operator; of an overlay, of its one engine, in every field.
        tile_tokens: tokens that share a loaded weight (r) and that operators pass on together.
        port_bits: width of a weight port; None if it is not published.
        operator_channels: memory channels of each operator's weights; None if not published: then the
            operators share the device's bandwidth.
        kv_channels: channels that keys and values are read from; 0 if they stay on chip.
        launches: kernel starts in each layer that the measurement contains.
        head: whether the measurement contains the head.
        overlay: one engine executes the operators one after the other (no equation of the paper).
        unrolled: layers on the device at the same time (C).
    """

    name: str
    clock_mhz: float
    parallelism: Parallelism
    weight_bits: float
    activation_bits: int
    tile_tokens: int = 1
    port_bits: int | None = None
    operator_channels: int | None = None
    kv_channels: int = 0
    launches: int = 0
    head: bool = False
    overlay: bool = False
    unrolled: int = 1

    def __post_init__(self) -> None:
        positive(self.name, clock_mhz=self.clock_mhz, weight_bits=self.weight_bits, unrolled=self.unrolled)
        positive(self.name, tile_tokens=self.tile_tokens)


# -- table 1 and equations ----------------------------------------------------------------------


def prefill_macs(shape: TransformerShape, tokens: int) -> dict[str, int]:
    """Table 1, column prefill: MACs of each operator of a layer for ``tokens`` tokens."""
    linear = {name: tokens * size for name, size in shape.weights.items()}
    return linear | dict.fromkeys(ATTENTION, tokens * tokens * shape.hidden)


def decode_macs(shape: TransformerShape, context: int) -> dict[str, int]:
    """Table 1, column decode: MACs of each operator of a layer for the token behind ``context``."""
    return dict(shape.weights) | dict.fromkeys(ATTENTION, (context + 1) * shape.hidden)


def macs_available(blocks: int, macs_per_block: float, block_mhz: float, clock_mhz: float) -> float:
    """M_tot of eq. 2, MAC a cycle of the fabric clock: hard blocks may run faster (section 3.2.1).

    Raises:
        InputError: without multipliers or without a clock.
    """
    positive("device", dsp=blocks, macs_per_block=macs_per_block, block_mhz=block_mhz, clock_mhz=clock_mhz)
    return blocks * macs_per_block * block_mhz / clock_mhz


def computes_within(parallelism: Parallelism, unrolled: int, available: float) -> bool:
    """Eq. 2: C * sum of M_i < M_tot."""
    return unrolled * sum(parallelism.each.values()) < available


def parameter_bits(shape: TransformerShape, weight_bits: float) -> float:
    """S_param of eq. 3: (4 d^2 + 2 d d_ffn) b_W, bits of a layer's weights."""
    return sum(shape.weights.values()) * weight_bits


def tile_bits(parallelism: Parallelism, weight_bits: float) -> float:
    """S_tile of eq. 3, with its double buffer: 2 * sum of M_i b_W over the operators with weights."""
    return 2 * sum(parallelism.each[name] for name in LINEAR) * weight_bits


def kv_bits(shape: TransformerShape, longest: int, activation_bits: int) -> int:
    """S_KV of eq. 3: 4 l_max d b_A, keys and values, each double-buffered."""
    return 4 * longest * shape.kv_width * activation_bits


def fifo_bits(shape: TransformerShape, tokens: int, depth: int, activation_bits: int) -> int:
    """S_FIFO of eq. 3: 16 s b_A + l d b_A; the second term is the bypass of the feed-forward network."""
    return 16 * depth * activation_bits + tokens * shape.hidden * activation_bits


def fits(unrolled: int, parameters: float, dram: float, on_chip: float, sram: float) -> bool:
    """Eq. 3: C S_param < DRAM and C (S_tile + S_KV + S_FIFO) < SRAM; all in bits."""
    return unrolled * parameters < dram and unrolled * on_chip < sram


def memory_blocks(size: int, bits: int, macs: int, reuse: int, block_bits: int, packed: int = 1) -> int:
    """R_i of eq. 4, and of eq. 6 with ``packed`` > 1: memory blocks of one operator's weights on chip.

    Args:
        size: weights (s_i); of a tile that is streamed from memory M_i, and twice that for its double buffer.
        bits: of a weight; a word of ``packed`` weights takes the narrowest port that holds it.
        macs, reuse: M_i and r_i; ``block_bits`` the capacity of a block (S_BRAM).

    Raises:
        InputError: if a packed word is wider than a port.
    """
    width = next((w for w in BRAM_WIDTHS if w >= bits * packed), None)
    if width is None:
        raise InputError(f"{packed} weights of {bits} bits are wider than a port; pack {72 // bits} or fewer")
    parts = macs / reuse
    return ceil(ceil(size * width / (parts * block_bits)) * parts / packed)


def blocks_needed(blocks: Mapping[str, int], unrolled: int) -> int:
    """Left side of eq. 5: C * sum of R_i, those of attention twice (double buffer)."""
    return unrolled * (sum(blocks[n] for n in LINEAR) + 2 * sum(blocks[n] for n in ATTENTION))


def bandwidth_gbs(weight_bits: float, macs: float, reuse: int, clock_mhz: float) -> float:
    """B_i of eq. 7: b_W (M_i / r_i) freq, GB/s that one operator's weights take."""
    return weight_bits / 8 * macs / reuse * clock_mhz / 1000


def milliseconds(cycles: float, clock_mhz: float) -> float:
    """Cycles of a clock in MHz as milliseconds."""
    return cycles / (clock_mhz * 1000)


def layers_ms(layers: int, unrolled: int, first: float, longest: float, clock_mhz: float) -> float:
    """Eq. 8 and 9: (1/f) (N/C) [first + C * longest], ms.

    Args:
        first: cycles until k and v are complete, l d^2 / M_k (decode: l = 1).
        longest: cycles of the slowest of projection, attention, feed-forward network and memory.
    """
    return milliseconds(layers / unrolled * (first + unrolled * longest), clock_mhz)


def balanced(macs: float, shape: TransformerShape, tokens: int) -> tuple[float, float]:
    """Eq. 10 and 11: (M_a, M_f) that take as long as M for q, k, v and p: M l/d and M d_ffn/d."""
    return macs * tokens / shape.hidden, macs * shape.ffn / shape.hidden


def balanced_prefill_ms(
    shape: TransformerShape, tokens: int, macs: float, unrolled: int, clock_mhz: float
) -> float:
    """Eq. 12: (1/f) N (1 + 1/C) l d^2 / M, ms."""
    return milliseconds(shape.layers * (1 + 1 / unrolled) * tokens * shape.hidden**2 / macs, clock_mhz)


def all_reduce_ms(
    shape: TransformerShape, tokens: int, activation_bits: int, link_gbit: float, efficiency: float
) -> float:
    """Eq. 13: l d b_A / (alpha B), ms; the link in Gbit/s, alpha its measured efficiency (0 to 1)."""
    return tokens * shape.hidden * activation_bits / (efficiency * link_gbit * 1e6)


def several_devices_ms(
    layers: int, tensor: int, pipeline: int, unrolled: int,
    first: float, longest: float, memory: float, communication: float, clock_mhz: float,
) -> float:  # fmt: skip
    """Eq. 14: (1/f) N/(p2 C) [first/p1 + p2 C max(longest/p1, T_mem, T_comm)], ms; the rest in cycles.

    ``tensor`` (p1) devices share each operator, ``pipeline`` (p2) groups of them the layers.
    """
    stages = pipeline * unrolled
    slowest = max(longest / tensor, memory, communication)
    return milliseconds(layers / stages * (first / tensor + stages * slowest), clock_mhz)


def longest_sequence(shape: TransformerShape, macs: float) -> int:
    """Most tokens whose prefill (table 1, all layers) takes at most ``macs`` MACs."""
    linear, square = sum(shape.weights.values()), 2 * shape.hidden
    budget = int(macs / shape.layers)
    return (isqrt(linear * linear + 4 * square * budget) - linear) // (2 * square)


def sequence_of_ratio(shape: TransformerShape, parallelism: Parallelism, ratio: float) -> float:
    """Tokens at which a1 takes ``ratio`` times as long as q: (l^2 d / M_a1) / (l d^2 / M_q).

    That is l M_q / (d M_a1); it depends neither on the clock nor on the number of layers.
    """
    return ratio * shape.hidden * parallelism.a1 / parallelism.q
