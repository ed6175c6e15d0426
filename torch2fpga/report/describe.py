# SPDX-License-Identifier: Apache-2.0
"""Words and figures about a design, shared by the page, the drawing and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from torch2fpga.design import Design, Estimate, Layout, Port, Stage, Stream
from torch2fpga.emit.ports import parameter_targets, parameter_word_count, reads_parameters
from torch2fpga.plan.fifo import storage_of

#: family -> (label, templates); what a stage mostly is, for colours and legends
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "multiply": (
        "multiplier array",
        (
            "matmul",
            "matmul_streamed",
            "matmul4",
            "matmul4_streamed",
            "lane",
            "lane4",
            "attention_scores",
            "attention_values",
        ),
    ),
    "function": (
        "norm, softmax, activation",
        ("normalize", "rms_norm", "softmax_weights", "activation", "rotary", "sample_token"),
    ),
    "convert": ("number format, sum", ("requant", "requant_scaled", "quantize_rows", "add")),
    "memory": ("to and from memory", ("embed_sum", "unpack", "pack", "cache_rows", "merge_rows")),
    "move": ("moves tokens only", ()),
}

#: memory port role -> (mark in the drawing, word)
ROLES: dict[str, tuple[str, str]] = {
    "weights": ("W", "weights"),
    "params": ("P", "parameters"),
    "table": ("T", "table"),
    "ids": ("I", "token ids"),
    "mask": ("M", "mask"),
    "rows": ("X", "input rows"),
    "output": ("O", "output"),
    "cache": ("C", "keys and values"),
    "settings": ("S", "sampling"),
    "tokens": ("N", "new tokens"),
    "sums": ("+", "checksums"),
}

GROUPS = {"before": "before the layer loop", "loop": "layer loop", "after": "after the layer loop"}

#: storage of ``plan.fifo.storage_of`` -> word
STORAGE = {"srl": "shift registers", "bram": "block RAM", "uram": "URAM"}

RESOURCES = (("lut", "LUT"), ("ff", "FF"), ("bram18", "BRAM18"), ("dsp", "DSP"), ("uram", "URAM"))


def family(stage: Stage) -> str:
    """Key of ``FAMILIES``."""
    return next((key for key, (_, names) in FAMILIES.items() if stage.template in names), "move")


def layout_text(layout: Layout) -> str:
    """Channels of a row, with its groups where it has several."""
    return f"{layout.groups}×{layout.size}" if layout.groups > 1 else f"{layout.size}"


def stream_text(stream: Stream) -> str:
    """What a row of a stream holds: ``384 int8``."""
    if stream.kind == "rows":
        return f"{layout_text(stream.layout)} {stream.element}"
    if stream.kind == "scores":
        return f"{stream.layout.groups}×keys {stream.element}"
    return {"words": "memory"}.get(stream.kind, stream.kind)


def shape_text(stage: Stage, design: Design) -> str:
    """What goes in and what comes out of a stage, by its widest-known streams."""
    sides = []
    for names in (stage.inputs, stage.outputs):
        streams = [design.streams[n] for n in names if n in design.streams]
        data = [s for s in streams if s.kind in ("rows", "scores")] or streams
        sides.append(list(dict.fromkeys(stream_text(s) for s in data)))
    left, right = (" + ".join(s) for s in sides)
    return left if left == right else f"{left or '–'} → {right or '–'}"


def owners(design: Design) -> dict[str, str]:
    """stage name -> kernel name (stages outside of all kernels are left out)."""
    return {stage: kernel.name for kernel in design.kernels for stage in kernel.stages}


def fifo_storage(stream: Stream, lanes: int) -> str:
    """Where the FIFO of a stream lies."""
    if stream.link:
        return "AXI stream"
    kind = storage_of(stream.depth, stream.token_bytes(lanes))
    return STORAGE.get(kind, kind)


def memory_ports(design: Design) -> list[Port]:
    """Every memory port: those of the design, and the parameter port of the kernel that has it."""
    found = list(design.ports)
    for kernel in design.kernels:
        if reads_parameters(design, kernel):
            streams = tuple(str(s.params) for s, _ in parameter_targets(design, kernel))
            words = parameter_word_count(design, kernel)
            found.append(
                Port(
                    "parameters",
                    kernel.name,
                    "read",
                    "params",
                    kernel.name,
                    words,
                    "read_parameters",
                    streams,
                )
            )
    return found


def port_text(port: Port) -> str:
    """One line about a memory port."""
    word = ROLES.get(port.role, ("?", port.role))[1]
    return f"{port.name}: {port.direction}, {word} of {port.binding}, {size_text(port.words * 64)}"


def count_text(number: int, thing: str) -> str:
    """``1 stage``, ``2 stages``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def size_text(size: int) -> str:
    """Bytes with a unit of 1,000."""
    value, unit = float(size), "B"
    for bigger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, bigger
    return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"


def cosine_text(value: float | None) -> str:
    """A cosine with the digits that tell it from 1."""
    if value is None:
        return "–"
    text = f"{value:.6f}"
    return "> 0.999999" if text == "1.000000" and value < 1 else text


@dataclass(frozen=True)
class Costed:
    """A stage with what the tables show of it."""

    stage: Stage
    kernel: str
    family: str
    shape: str
    cost: Estimate


def costed(design: Design) -> list[Costed]:
    """Every stage of a design, in order."""
    kernels = owners(design)
    return [
        Costed(s, kernels.get(s.name, ""), family(s), shape_text(s, design), s.cost(design))
        for s in design.stages
    ]
