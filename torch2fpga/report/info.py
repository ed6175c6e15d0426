# SPDX-License-Identifier: Apache-2.0
"""What a report knows beside the design itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch2fpga.boards import Board
from torch2fpga.plan.summary import PlanReport
from torch2fpga.simulate.verify import StageResult
from torch2fpga.timing.report import TimeReport

#: printed on every report until a card has run something
DISCLAIMER = "No board has run this; nothing here has been synthesised."


@dataclass(frozen=True)
class MappingRow:
    """A captured node, the canonical operator it became, and the stages of that.

    Without stages the node costs no hardware of its own.
    """

    node: str
    operator: str
    stages: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True)
class Obtained:
    """How a figure was obtained: ``measured``, ``timed``, ``modelled``, ``counted``, ..."""

    figure: str
    how: str
    detail: str = ""


OBTAINED = (
    Obtained(
        "cycles, DSP, LUT, FF, BRAM18, URAM",
        "modelled",
        "a formula a stage, at the compiled maximum of batch and tokens; no tool has confirmed them",
    ),
    Obtained(
        "FIFO depth and bytes", "counted", "from the design: rows that the longer of two paths holds back"
    ),
    Obtained("memory port bytes", "counted", "size of the buffer at the compiled maximum"),
    Obtained(
        "equal, mismatches",
        "functional run",
        "the emitted C++, compiled with g++, against the quantised reference, integer by integer",
    ),
    Obtained(
        "cosine, largest error",
        "functional run",
        "integers as the real numbers that they stand for, against the float model in PyTorch, on the "
        "inputs that were verified",
    ),
)

#: of the figures of a timed run
TIMED = Obtained(
    "cycles busy and waiting, times, GB/s, tokens most held",
    "timed",
    "the emitted C++, compiled with g++, with a clock in every process: intervals as declared, depths of "
    "pipelines estimated from the code, FIFOs and HBM modelled; not synthesised",
)

#: of the figures of a plan
PLANNED = Obtained(
    "plan: resources of regions, wires, products a cycle, bytes a launch, what a limit would save",
    "modelled",
    "formulas of stages, FIFOs and memory ports against the card's tables; what a limit would save is the "
    "optimiser's answer with a tenth more of it; not synthesised",
)


@dataclass(frozen=True)
class ReportInfo:
    """Everything that is not in the design; what is unknown stays out of the page.

    Attributes:
        title: what the page is about, usually the model's name.
        calibration_samples: how many inputs the scales were taken from.
        bit_exact, cosine: result of ``verify`` at the outputs; None before it has run.
        accuracy: result of ``verify``, one row a stage.
        channels: (kernel, memory port) -> pseudo-channel.
        timing: a timed run.
        plan: where everything is and what it takes of the card; None for a design that nobody planned.
        obtained: one line for each kind of figure.
    """

    title: str
    model_class: str = ""
    precision: str = ""
    board: Board | None = None
    parameters: int | None = None
    calibration_samples: int | None = None
    bit_exact: bool | None = None
    cosine: float | None = None
    accuracy: tuple[StageResult, ...] = ()
    mapping: tuple[MappingRow, ...] = ()
    channels: Mapping[tuple[str, str], str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    obtained: tuple[Obtained, ...] = OBTAINED
    timing: TimeReport | None = None
    plan: PlanReport | None = None
