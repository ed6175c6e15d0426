# SPDX-License-Identifier: Apache-2.0
"""Published designs in the model of ``plan/published.py``, and the terms that its equations leave out.

``predict`` evaluates a case with the bare equations and adds the ``TERMS`` one after the other. Every input
is a published number; nothing is fitted to a measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch2fpga.errors import InputError
from torch2fpga.plan.published import (
    ATTENTION,
    LINEAR,
    Device,
    PublishedDesign,
    TransformerShape,
    decode_macs,
    layers_ms,
    milliseconds,
    positive,
    prefill_macs,
)

#: operators that stream into each other once k and v of a layer are complete (section 3.3)
STREAMED = ("a1", "a2", "p", "f1", "f2")
#: what the equations leave out -> where the term comes from; applied in this order
TERMS = {
    "tile": "operators hand on tiles of tokens, and a tile is complete before the next operator uses it "
    "(loops of the published kernels); eq. 8 and 9 let all operators of the chain run from the start",
    "port": "width and clock of each operator's own ports (eq. 7, per operator and channel)",
    "efficiency": "sustained instead of peak bandwidth of a channel (the board's table)",
    "kv": "keys and values read from memory",
    "launch": "starts of kernels in each layer",
    "head": "the language model's head",
}
#: us a start; "the overhead of dispatching the command and arguments to the FPGA is between 30us and 60us"
#: (SDAccel guide 2018.2, Reducing Overhead of Kernel Enqueing). The middle is used.
LAUNCH_US = (30.0, 60.0)


@dataclass(frozen=True)
class Case:
    """A model on a design.

    Attributes:
        tokens: of the prompt, or the context in front of the decoded token.
        weight_bytes: of all layers, where it does not follow from the shape (sparse or mixed weights).
    """

    shape: TransformerShape
    device: Device
    design: PublishedDesign
    phase: Literal["prefill", "decode"]
    tokens: int
    weight_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.phase not in ("prefill", "decode"):
            raise InputError(f"there is no phase {self.phase!r}; it is 'prefill' or 'decode'")
        positive("case", tokens=self.tokens)

    @property
    def rows(self) -> int:
        """Tokens that go through the layers."""
        return self.tokens if self.phase == "prefill" else 1

    @property
    def macs(self) -> dict[str, int]:
        """Of each operator of a layer."""
        return (prefill_macs if self.phase == "prefill" else decode_macs)(self.shape, self.tokens)

    @property
    def loaded_bytes(self) -> dict[str, float]:
        """Weights that a layer's operators load: once for every tile of rows (section 3.2.3, r)."""
        loads = max(1.0, self.rows / self.design.tile_tokens)
        weights = self.shape.weights
        each = {name: size * self.design.weight_bits / 8 for name, size in weights.items()}
        if self.weight_bytes is not None:
            share = self.weight_bytes / self.shape.layers / sum(weights.values())
            each = {name: size * share for name, size in weights.items()}
        return {name: size * loads for name, size in each.items()}


@dataclass(frozen=True)
class Prediction:
    """Milliseconds: of the bare equations, and what each term adds to them."""

    bare_ms: float
    terms_ms: Mapping[str, float]

    @property
    def extended_ms(self) -> float:
        """Bare equations and all terms."""
        return self.bare_ms + sum(self.terms_ms.values())


def predict(case: Case) -> Prediction:
    """The bare equations, then ``TERMS`` one after the other; shares depend on that order, their sum not."""
    names = list(TERMS)
    totals = [latency_ms(case, names[:count]) for count in range(len(names) + 1)]
    return Prediction(totals[0], {n: totals[i + 1] - totals[i] for i, n in enumerate(names)})


def latency_ms(case: Case, terms: Collection[str] = ()) -> float:
    """Milliseconds of all layers with the given ``TERMS``; without any, equation 8 or 9.

    Raises:
        InputError: for a term that there is not.
    """
    unknown = set(terms) - set(TERMS)
    if unknown:
        raise InputError(f"there are no terms {sorted(unknown)}; there are {', '.join(TERMS)}")
    shape, design = case.shape, case.design
    total = _overlay_ms(case, terms) if design.overlay else _spatial_ms(case, terms)
    if "launch" in terms:
        total += shape.layers * design.launches * sum(LAUNCH_US) / 2 / 1000
    if "head" in terms and design.head:
        size = shape.vocab * shape.hidden
        memory = _load_cycles(case, size * design.weight_bits / 8, design.operator_channels, terms)
        total += milliseconds(max(size / design.parallelism.f2, memory), design.clock_mhz)
    return total


def _spatial_ms(case: Case, terms: Collection[str]) -> float:
    """Equation 8 or 9, with longer operators and the tile that fills and drains their chain."""
    shape, design = case.shape, case.design
    cycles = _operator_cycles(case, terms)
    first = max(cycles[name] for name in ("k", "v"))
    longest = max(max(cycles[name] for name in STREAMED), _shared_memory_cycles(case, terms))
    total = layers_ms(shape.layers, design.unrolled, first, longest, design.clock_mhz)
    if "tile" in terms:
        chain = [cycles[name] for name in STREAMED]
        share = min(1.0, design.tile_tokens / case.rows)
        total += milliseconds(shape.layers * share * (sum(chain) - max(chain)), design.clock_mhz)
    return total


def _overlay_ms(case: Case, terms: Collection[str]) -> float:
    """One engine: operators one after the other, not an equation of the paper; memory streams meanwhile."""
    cycles = _operator_cycles(case, terms)
    memory = _shared_memory_cycles(case, terms) + 2 * _kv_cycles(case, terms)
    layer = max(sum(cycles.values()), memory)
    return milliseconds(case.shape.layers * layer, case.design.clock_mhz)


def _operator_cycles(case: Case, terms: Collection[str]) -> dict[str, float]:
    """Cycles of each operator of a layer: its MACs, or its own channels if they are slower."""
    design = case.design
    parallelism = design.parallelism.each
    cycles = {name: macs / parallelism[name] for name, macs in case.macs.items()}
    if "port" in terms and design.operator_channels is not None:
        for name in LINEAR:
            load = _load_cycles(case, case.loaded_bytes[name], design.operator_channels, terms)
            cycles[name] = max(cycles[name], load)
    if not design.overlay:
        cycles |= {name: max(cycles[name], _kv_cycles(case, terms)) for name in ATTENTION}
    return cycles


def _kv_cycles(case: Case, terms: Collection[str]) -> float:
    """Cycles in which the keys (or the values) of a layer arrive for one token; 0 if they stay on chip."""
    design = case.design
    if "kv" not in terms or not design.kv_channels or case.phase != "decode":
        return 0.0
    size = case.tokens * case.shape.kv_width * design.activation_bits / 8
    return _load_cycles(case, size, design.kv_channels, terms)


def _shared_memory_cycles(case: Case, terms: Collection[str]) -> float:
    """T_mem of equation 8 and 9: a layer's weights over all channels of the device."""
    return _load_cycles(case, sum(case.loaded_bytes.values()), None, terms)


def _load_cycles(case: Case, size: float, channels: int | None, terms: Collection[str]) -> float:
    """Cycles of the design's clock in which channels (None: all of the device) deliver bytes."""
    device, design = case.device, case.design
    rate = device.sustained_gbs if "efficiency" in terms else device.peak_gbs
    if "port" in terms and design.port_bits is not None:
        rate = min(rate, design.port_bits / 8 * design.clock_mhz / 1000)
    return size / (rate * (channels or device.channels)) * design.clock_mhz / 1000
