# SPDX-License-Identifier: Apache-2.0
"""Stages with Verilog that asks a synthesiser for the same, and what the cost model says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.rtl.verilator import roots
from torch2fpga import costs
from torch2fpga.design import Design, Estimate, Layout, Shape, Stage
from torch2fpga.lower.activation import ActivationStage, table_bits
from torch2fpga.lower.add import AddStage
from torch2fpga.lower.layer_norm import NormalizeStage
from torch2fpga.lower.requant import RequantStage
from torch2fpga.lower.rows import ConcatStage
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.simulate.tables import activation_table

HERE = Path(__file__).resolve().parent
RTL = HERE.parent / "rtl"
TILE, SEQ = 4, 128
#: of the stages that may work on fewer channels a cycle
LANES = 8
#: Verilog of flat loops, of tokens that are taken in parts, of loops over sequences and tiles
FLAT = ("flat_loop.v", "times_constant.v")
PARTS = ("take_lanes.v", "put_lanes.v")
WALK = ("walk.v", "pipelined_loop.v", "delay.v")
X, Y = ("x",), ("y",)


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name, title: a key, and words.
        top, parameters: module and what it is set to.
        sources: Verilog files, in this folder or in that of the simulated stages.
        estimate: the model's figures.
        note: what is compared with what.
        quick: fast enough to synthesise in a test.
    """

    name: str
    title: str
    top: str
    parameters: Mapping[str, int | str]
    sources: tuple[str, ...]
    estimate: Callable[[], Estimate]
    files: Callable[[], Mapping[str, str]] = field(default=dict)
    note: str = ""
    quick: bool = False

    @property
    def paths(self) -> list[Path]:
        """The Verilog files."""
        return [HERE / s if (HERE / s).exists() else RTL / s for s in self.sources]


def _suffix(ways: int) -> str:
    return "" if ways == LANES else "_ways"


def _words(ways: int) -> str:
    return "" if ways == LANES else f", {ways} of {LANES} channels a cycle"


def _cost(stage: Stage, lanes: int) -> Callable[[], Estimate]:
    design = Design("d", Shape(lanes, TILE, 1, SEQ), (), {})
    return lambda: stage.cost(design)


def _gelu() -> Mapping[str, str]:
    bits = table_bits("gelu")
    return {"table.hex": "\n".join(f"{v & ((1 << bits) - 1):x}" for v in activation_table("gelu"))}


def _unfolded(lanes: int, columns: int) -> Estimate:
    """The array with the sums of its chains in LUTs: the open synthesiser uses no cascade."""
    chains = -(-lanes // costs.CHAIN)
    sums = costs.times(columns * (lanes - chains), costs.add(38))  # of 35-bit products, eight of them
    return costs.multiplier_array(2, columns, lanes) + sums


def _requant(scaled: bool, ways: int = LANES) -> Case:
    inputs = ("x", "e") if scaled else X
    stage = RequantStage(
        "r", "", "loop", 12, inputs, Y, "p", layout=Layout(1, 384), scaled=scaled, value_bits=25, ways=ways
    )
    title = "requantisation of rows with exponents" if scaled else "requantisation to int8"
    return Case(
        ("requant_scaled" if scaled else "requant") + _suffix(ways), title + _words(ways), "requant",
        {"LANES": LANES, "WAYS": ways, "TILE": TILE, "BLOCKS": 48, "VALUE_BITS": stage.in_bits,
         "SCALED": int(scaled)},
        ("requant.v", "token_place.v", "times_constant.v", *PARTS), _cost(stage, LANES),
    )  # fmt: skip


def _activation(ways: int) -> Case:
    stage = ActivationStage("a", "", "loop", 12, X, Y, layout=Layout(1, 3072), ways=ways)
    return Case(
        "activation" + _suffix(ways), "GELU by table" + _words(ways), "activation",
        {"LANES": LANES, "WAYS": ways, "TABLE_BITS": 19, "PASSES": 12 * 384, "TABLE": "table.hex"},
        ("activation.v", *FLAT, *PARTS), _cost(stage, LANES), _gelu,
    )  # fmt: skip


def _normalize(ways: int) -> Case:
    stage = NormalizeStage("n", "", "loop", 12, X, Y, "p", layout=Layout(1, 768), ways=ways)
    return Case(
        "normalize" + _suffix(ways), "layer norm of 768 channels" + _words(ways), "layer_norm",
        {"LANES": LANES, "WAYS": ways, "TILE": TILE, "BLOCKS": 96, "CHANNELS": 768, "IN_BITS": 16,
         "STEPS": 12},
        ("layer_norm.v", "times_constant.v", *WALK, *PARTS), _cost(stage, LANES), roots,
    )  # fmt: skip


def _fifo(name: str, depth: int, token: int, style: str, *, quick: bool = False) -> Case:
    return Case(
        name, f"FIFO of {depth} tokens of {token} bytes", "stream_fifo",
        {"WIDTH": 8 * token, "DEPTH": depth, "STYLE": style}, ("stream_fifo.v",),
        lambda: fifo_cost(depth, token), note="the model counts its data, not its pointers", quick=quick,
    )  # fmt: skip


CASES = (
    _requant(False),
    _requant(True),
    _requant(True, 2),
    Case(
        "add", "residual sum, int16", "add", {"LANES": 16, "BITS": 16, "PASSES": 12 * 48}, ("add.v", *FLAT),
        _cost(AddStage("s", "", "loop", 12, ("a", "b"), Y, layout=Layout(1, 768)), 16), quick=True,
    ),
    _activation(LANES),
    _activation(2),
    Case(
        "concat", "channels joined inside a block", "concat",
        {"LANES": 16, "BITS": 16, "TILE": TILE, "A_CHANNELS": 21, "B_CHANNELS": 40, "STEPS": 2},
        ("concat.v", "token_place.v", *FLAT),
        _cost(
            ConcatStage(
                "j", "", "loop", 2, ("a", "b"), Y, layout_a=Layout(1, 21), layout_b=Layout(1, 40)
            ),
            16,
        ),
    ),
    _normalize(LANES),
    _normalize(2),
    Case(
        "packed_dot", "two rows times two columns, 16 channels", "packed_dot", {"LANES": 16, "COLUMNS": 2},
        ("packed_dot.v",), lambda: _unfolded(16, 2), quick=True,
        note="chains are summed in LUTs on both sides: the open synthesiser uses no cascade",
    ),
    _fifo("fifo_srl", 16, 16, "srl"),
    _fifo("fifo_bram", 512, 16, "block", quick=True),
    _fifo("fifo_uram", 2048, 64, "ultra"),
)  # fmt: skip
