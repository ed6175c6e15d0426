# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.compile`` and ``torch2fpga.explain``: the stages of compilation in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

import torch2fpga.lower.operators  # noqa: F401  fills the tables
from torch2fpga.boards import board_at
from torch2fpga.capture import Captured, Inputs, capture
from torch2fpga.compiled import CompiledModel, Origin
from torch2fpga.decoding import decoding
from torch2fpga.design import Shape
from torch2fpga.errors import CompileError, Refusal, UnsupportedModel, summary
from torch2fpga.lower.builder import Builder, Lowered
from torch2fpga.lower.weight_formats import WEIGHT_FORMATS, WeightFormat
from torch2fpga.passes.canonicalise import Canonicalise
from torch2fpga.passes.drop_noops import DropNoops
from torch2fpga.passes.fold_constants import FoldConstants
from torch2fpga.passes.fuse import FuseRelu, SplitLinears
from torch2fpga.passes.gelu import RecogniseGelu
from torch2fpga.passes.manager import GraphPass, PassManager
from torch2fpga.passes.quantise import Quantise
from torch2fpga.passes.rms_norm import RecogniseRmsNorm
from torch2fpga.passes.roll import Roll
from torch2fpga.passes.rotary import PairRotary, RecogniseRotary
from torch2fpga.plan.effect import Planned, put_into_effect
from torch2fpga.plan.plan import Plan, load_plan, plan_values
from torch2fpga.runtime.host import InputSpec, Interface, OutputItem, TokenItem
from torch2fpga.samples import calibration_samples, canonical_inputs, placeholders
from torch2fpga.verifier import verify_design
from torch2fpga.weights.calibration import KeptCalibrate
from torch2fpga.weights.store import working

Progress = Callable[[str, float], None]
PRECISIONS = tuple(WEIGHT_FORMATS)
#: rows of a tile where nothing chooses them
SIMPLE_TILE = 4
#: largest difference between the canonical graph and the model that is rounding, relative
FLOAT_TOLERANCE = 1e-4


class CheckFloat(GraphPass):
    """The canonical graph must compute what the model computes, before anything is quantised."""

    name = "check_float"
    requires = ("canonical",)

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    def call(self, module: fx.GraphModule) -> bool:
        check_float(module, self.captured)
        return False


def canonical_passes(captured: Captured) -> list[GraphPass]:
    """From the captured graph to the canonical, rolled graph. torch.export with an empty
    decomposition table has functionalised the captured graph already."""
    return [
        DropNoops(),
        FoldConstants(),
        DropNoops(),
        RecogniseGelu(),
        RecogniseRmsNorm(),
        RecogniseRotary(),
        Canonicalise(),
        SplitLinears(),
        FuseRelu(),
        SplitLinears(),  # a ReLU may have stood between a linear and its slices
        PairRotary(),
        CheckFloat(captured),
        Roll(),
    ]


@dataclass(frozen=True)
class Explanation:
    """What maps to what, and every refusal with its reason.

    Attributes:
        ok: nothing was refused.
        refusals: see ``torch2fpga.errors.Refusal``.
        mapping: (captured node, module path, canonical operator).
        layers: how often the repeated block is used, and its path (0 where nothing repeats).
    """

    ok: bool
    refusals: tuple[Refusal, ...]
    mapping: tuple[tuple[str, str, str], ...]
    layers: tuple[int, str] = (0, "")

    def __str__(self) -> str:
        if not self.ok:
            lines = [f"{len(self.refusals)} refused:", *(f"  - {line}" for line in summary(self.refusals))]
            return "\n".join(lines)
        count, prefix = self.layers
        lines = [f"supported: {len(self.mapping)} nodes map to hardware"]
        if count:
            lines.append(f"repeated block {prefix}.*: {count} layers, one block of hardware")
        width = max((len(p) for _, p, _ in self.mapping), default=0)
        lines += [f"  {path:<{width}}  {op}" for _, path, op in self.mapping]
        return "\n".join(lines)


def explain(model: nn.Module, example_inputs: Inputs) -> Explanation:
    """Say what maps to what and what is refused, without compiling.

    Args:
        model: a torch module in eval mode.
        example_inputs: tuple of tensors, or dict of keyword tensors.
    Raises:
        CaptureError: if the model cannot be captured at all.
    """
    try:
        captured = capture(model, example_inputs)
        module = PassManager(canonical_passes(captured), given=("functional",)).run(captured.module)
    except UnsupportedModel as error:
        return Explanation(False, error.refusals, ())
    loop = module.meta["loop"]
    layers = (loop.steps, loop.prefix) if loop is not None else (0, "")
    return Explanation(True, (), tuple(module.meta["mapping"]), layers)


def compile(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    board: str = "u280",
    precision: str = "w8a8",
    calibration: Iterable[Inputs] | None = None,
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    objective: str = "latency",
    budget: float = 1.0,
    clock_mhz: float | None = None,
    lanes: int = 16,
    tile: int | None = None,
    checksums: bool = False,
    generate: bool = False,
    max_length: int | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile an unmodified PyTorch or Hugging Face model to a dataflow design.

    Args:
        model: a float32 module in eval mode.
        example_inputs: tuple of tensors or dict of keyword tensors; their (batch, tokens) sizes
            are the largest that the compiled model takes.
        board: name of a board table (``u280``, ``u55c``).
        precision: ``w8a8`` (int8 weights per output channel, int8 activations) or ``w4a8`` (int4 weights
            that share a scale in groups of 64 input channels; it takes 16 lanes).
        calibration: inputs like ``example_inputs``, up to their sizes; without it, or with fewer
            than 8, a warning is given and recorded in the report.
        plan: how wide arrays are and where everything goes (``compiled.plan.to_toml()`` shows one): a
            ``Plan``, its values, or a TOML file. What it leaves out is chosen by the optimiser;
            without a plan, all of it. ``"simple"`` is one array a layer, cut evenly, without optimiser.
        objective: ``latency`` of one launch, or ``throughput`` of many sequences.
        budget: share of the card that may be used (1.0 is all that its caps leave).
        clock_mhz: kernel clock to plan with (the board's if not given).
        lanes, tile: channels a token (8 or 16), and rows that share a pass over the weights (chosen
            if not given).
        checksums: kernels add up the weights and parameters that they read, and write the sums beside every
            result; the host program compares them (docs/host-program.md).
        generate: the model is a causal language model that generates text: ``compiled.generate(...)``. Its
            keys and values are cached, the next token is chosen and fed back on the device, and the tokens
            of the example are the most that one launch takes of a prompt. Example and calibration are token
            ids alone.
        max_length: most tokens of a text, with what is generated (the model's positions, at most 1,024, if
            not given).
        work: folder for large constants, for models that memory does not hold: they are written there as
            they are made and memory-mapped, and a run that was interrupted goes on with them
            (docs/packing.md). The compiled model needs the folder too.
        progress: called with a phase's name and the fraction done.
    Returns:
        A model that runs through the emitted C++.
    Raises:
        UnsupportedModel: with every part of the model that cannot be lowered exactly.
        CaptureError, CompileError: see their texts.
    """
    with working(work, progress) as say:
        wanted = wanted_plan(
            plan,
            board=board,
            objective=objective,
            budget=budget,
            clock_mhz=clock_mhz,
            tile=tile,
            checksums=checksums,
        )
        table = board_at(wanted.board, wanted.clock_mhz)
        weights = weight_format(precision, lanes)
        say("capture", 0.0)
        decoder = decoding(model, example_inputs, max_length) if generate else None
        if decoder is None and max_length is not None:
            raise CompileError("max_length is for generate=True")
        captured = decoder.capture(model) if decoder is not None else capture(model, example_inputs)
        notes: list[str] = []
        module = PassManager(
            canonical_passes(captured),
            given=("functional",),
            progress=lambda name, part: say(name, 0.15 + 0.15 * part),
        ).run(captured.module)
        samples = calibration_samples(module, captured, calibration, notes)
        quantising: list[GraphPass] = [
            KeptCalibrate(
                samples,
                lambda done: say("calibrate", 0.3 + 0.3 * done / len(samples)),
                weights.by_rows,
            ),
            Quantise(weights),
        ]
        PassManager(
            quantising, given=("rolled",), progress=lambda name, part: say(name, 0.3 + 0.6 * part)
        ).run(module)
        say("lower", 0.85)
        shape = Shape(lanes, wanted.tile or SIMPLE_TILE, *_largest(captured, module))
        if decoder is not None:
            shape = replace(shape, max_seq=decoder.prompt, max_keys=decoder.length)
        turns = decoder.length if decoder is not None else 0
        lowered = Builder(module, shape, module.meta["loop"], design_name(model), turns=turns,
                          channel_bytes=table.hbm_bytes,
            caches=wanted.caches).run()  # fmt: skip
        say("plan", 0.9)
        planned = put_into_effect(
            lowered.design,
            lowered.data,
            wanted,
            table,
            simple=plan == "simple",
            progress=lambda name, part: say(name, 0.9 + 0.1 * part),
        )
        verify_design(planned.design)
        interface = interface_of(module, lowered, captured)
        origin = _origin(model, captured, module, samples, notes, precision, lowered, planned)
        say("done", 1.0)
        data = {name: list(steps) for name, steps in planned.data.items()}
        return CompiledModel(planned.design, data, interface, captured.output, table, origin)


def weight_format(precision: str, lanes: int) -> WeightFormat:
    """The weights of a precision.

    Raises:
        CompileError: for a precision that is not there, or lanes that its arrays cannot have.
    """
    if precision not in PRECISIONS:
        raise CompileError(f"precision {precision!r} is not supported; use one of {list(PRECISIONS)}")
    found = WEIGHT_FORMATS[precision]
    if lanes not in found.lanes:
        numbers = " or ".join(map(str, found.lanes))
        raise CompileError(f"lanes must be {numbers} for precision {precision!r}, not {lanes}")
    return found


def wanted_plan(
    plan: Plan | Mapping[str, Any] | str | Path | None, checksums: bool = False, **head: Any
) -> Plan:
    """What is asked for: the plan's own values go before the other arguments, but checksums that are asked
    for are there whatever the plan says."""
    said = {key: value for key, value in head.items() if value is not None}
    if isinstance(plan, Plan):
        found = plan
    elif plan is None or plan == "simple":
        found = load_plan(said)
    else:
        found = load_plan({**said, **(plan if isinstance(plan, Mapping) else plan_values(plan))})
    return replace(found, checksums=True) if checksums else found


def design_name(model: nn.Module) -> str:
    """Name of a model's kernels, from its class."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", type(model).__name__)
    name = re.sub(r"[^a-z0-9_]", "", "_".join(words).lower())[:32] or "model"
    return name if name[0].isalpha() else f"m_{name}"


def check_float(module: fx.GraphModule, captured: Captured) -> None:
    """The canonical graph must compute what the model computes, before anything is quantised."""
    inputs = canonical_inputs(module, captured.example)
    with torch.no_grad():
        results = module(*[inputs[str(n.target)] for n in placeholders(module)])
    for i, (got, want) in enumerate(zip(results, captured.expected, strict=True)):
        same = got.numel() == want.numel()
        view = module.meta["output_views"][i]
        if same:
            got = _shaped(got, view)
            scale = max(float(want.abs().max()), 1e-6)
            same = float((got - want).abs().max()) <= FLOAT_TOLERANCE * scale
        if not same:
            raise CompileError(
                f"output {i} of the canonical graph differs from the model's: a defect of torch2fpga"
            )


def _shaped(value: Tensor, view: Mapping[str, Any]) -> Tensor:
    sizes = [*value.shape[:2], *view["channels"]]
    moved = value.reshape(sizes).permute(*view["order"])
    return moved.reshape([_product(sizes[a] for a in axes) for axes in view["shape"]])


def _product(values: Iterable[int]) -> int:
    total = 1
    for value in values:
        total *= value
    return total


def _largest(captured: Captured, module: fx.GraphModule) -> tuple[int, int]:
    inputs = canonical_inputs(module, captured.example)
    batch, seq = next(iter(inputs.values())).shape[:2]
    return int(batch), int(seq)


def interface_of(module: fx.GraphModule, lowered: Lowered, captured: Captured) -> Interface:
    """How the host packs inputs and reads outputs of what was lowered."""
    by_name = {entry["name"]: entry for entry in lowered.inputs}
    inputs = []
    for node in placeholders(module):
        entry = by_name[str(node.target)]
        rank = captured.example[str(node.target)].dim()
        spec = InputSpec(str(node.target), entry["kind"], rank=rank, entries=entry.get("entries", 0))
        if entry["kind"] == "rows":
            stream = lowered.design.streams[entry["stream"]]
            spec = replace(
                spec, scale=entry["scale"], bits=entry["bits"], element=stream.element, layout=stream.layout,
                swapped=bool(module.meta["swapped"]),
            )  # fmt: skip
        inputs.append(spec)
    if lowered.design.turns:
        (out,) = lowered.outputs
        return Interface(tuple(inputs), (), TokenItem(out["logits"], out["scale"]))
    outputs = [
        OutputItem(o["stream"], o["port"], o["scale"], o["element"], o["layout"], o["one_row"], o["view"])
        for o in lowered.outputs
    ]
    return Interface(tuple(inputs), tuple(outputs))


def _origin(
    model: nn.Module,
    captured: Captured,
    module: fx.GraphModule,
    samples: list[dict[str, Tensor]],
    notes: list[str],
    precision: str,
    lowered: Lowered,
    planned: Planned,
) -> Origin:
    return Origin(
        model_class=type(model).__name__,
        parameters=sum(p.numel() for p in {id(p): p for p in model.parameters()}.values()),
        precision=precision,
        calibration_samples=len(samples),
        plan=planned.plan,
        gains=planned.gains,
        notes=tuple(notes),
        mapping=tuple(module.meta["mapping"]),
        canonical=module,
        native=lowered.native,
        exponents=lowered.exponents,
    )


__all__ = ["Explanation", "compile", "explain"]
