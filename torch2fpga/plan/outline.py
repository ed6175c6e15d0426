# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.outline``: the plan of a Hugging Face configuration, without weights.

The same capture, passes, lowering, optimiser and costs as ``compile``, on a model that has nothing in it:

* Two of its layers are built; where they become the layer loop, the loop is given as many steps as the
  configuration has layers: with and without a window, one of each. Layers that differ more are all built.
* Large parameters are windows into one short row of random numbers each, so they take no memory.
* Nothing is calibrated, and weights are not rounded: formats come from made-up statistics, and linear
  layers get constants of the right shape. What a stage costs depends on shapes, apart from the shifts of
  requantisation, which do not change a plan.

Everything in the report is *modelled*. ``torch2fpga.estimate`` is quicker and takes any architecture, but
knows no stages.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from torch2fpga.boards import Board, board_at
from torch2fpga.capture import Captured, capture
from torch2fpga.compiled import Origin
from torch2fpga.compiler import (
    SIMPLE_TILE,
    CheckFloat,
    canonical_passes,
    design_name,
    interface_of,
    wanted_plan,
    weight_format,
)
from torch2fpga.decoding import decoding, positions_of
from torch2fpga.design import Design, Layout, Port, Shape
from torch2fpga.errors import CompileError, InputError
from torch2fpga.lower.builder import Builder
from torch2fpga.lower.linear import MatmulStage, quantise_weight
from torch2fpga.lower.weight_formats import IntegerWeights
from torch2fpga.passes.calibrate import Statistics
from torch2fpga.passes.manager import GraphPass, PassManager
from torch2fpga.passes.quantise import Quantise
from torch2fpga.passes.roll import Loop, widths_of
from torch2fpga.plan.effect import Planned, put_into_effect
from torch2fpga.plan.meta_model import build, read_config
from torch2fpga.plan.optimise import Progress
from torch2fpga.plan.plan import Plan
from torch2fpga.plan.summary import PlanReport, summarise
from torch2fpga.runtime.host import Interface

#: parameters with more elements are windows into a row
LARGE = 1 << 16
#: standard deviation of made-up weights
SPREAD = 0.02
#: made-up rows of each value
ROWS = 8
#: layers that are built of a model whose layers are alike
FEW = 2
#: kinds of attention that differ only in how far a row sees
WINDOWS = {"full_attention", "sliding_attention"}


def outline(
    config: Any,
    tokens: int = 128,
    batch: int = 1,
    *,
    board: str = "u280",
    precision: str = "w8a8",
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    objective: str = "latency",
    budget: float = 1.0,
    clock_mhz: float | None = None,
    lanes: int = 16,
    tile: int | None = None,
    checksums: bool = False,
    generate: bool = False,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> PlanReport:
    """How a Hugging Face configuration would be laid out on a card, without weights.

    >>> print(torch2fpga.outline("Llama-2-7b-hf", tokens=128, precision="w4a8"))  # doctest: +SKIP

    Language models are planned for a prompt of ``tokens`` up to the scores of the next token, others with
    an attention mask. The other arguments are those of ``compile``.

    Args:
        config: a configuration of transformers, its settings as a mapping, the path of a ``config.json``
            or of its folder (nothing is fetched).
        tokens, batch: sizes of a launch.
        generate, max_length: as of ``compile``; ``tokens`` are those of a prompt then.
    Returns:
        What ``compiled.plan`` is of a compiled model; all of it modelled.
    Raises:
        UnsupportedModel: with every part of the model that cannot be lowered exactly.
        InputError: for sizes that the model cannot take.
        CaptureError, CompileError, ModelSpecError: see their texts.
    """
    wanted = wanted_plan(
        plan,
        board=board,
        objective=objective,
        budget=budget,
        clock_mhz=clock_mhz,
        tile=tile,
        checksums=checksums,
    )
    planned, table = outlined(
        config, tokens, batch, wanted, simple=plan == "simple", precision=precision, lanes=lanes,
        length=(max_length or 0) if generate else None, progress=progress,
    )  # fmt: skip
    return summarise(planned.design, table, planned.plan, planned.gains)


@dataclass(frozen=True)
class Outline:
    """A planned design without constants.

    Attributes:
        interface: inputs and outputs of a call; its scales are made up.
        origin: class and size of the whole model; nothing was calibrated.
    """

    planned: Planned
    board: Board
    interface: Interface
    origin: Origin


def outlined(
    config: Any,
    tokens: int,
    batch: int,
    wanted: Plan,
    *,
    simple: bool = False,
    precision: str = "w8a8",
    lanes: int = 16,
    length: int | None = None,
    progress: Progress | None = None,
) -> tuple[Planned, Board]:
    """The planned design of a configuration and its card; the arguments are those of ``sketch``."""
    found = sketch(
        config, tokens, batch, wanted, simple=simple, precision=precision, lanes=lanes, length=length,
        progress=progress,
    )  # fmt: skip
    return found.planned, found.board


def sketch(
    config: Any,
    tokens: int,
    batch: int,
    wanted: Plan,
    *,
    simple: bool = False,
    precision: str = "w8a8",
    lanes: int = 16,
    length: int | None = None,
    progress: Progress | None = None,
) -> Outline:
    """The planned design of a configuration, without constants; see ``outline``.

    Args:
        length: most tokens of a text that is generated (0: chosen as ``compile`` does); None generates none.
    """
    say = progress or (lambda phase, part: None)
    table = board_at(wanted.board, wanted.clock_mhz)
    weights = replace(weight_format(precision, lanes), integers=_unread, by_rows=False, by_layout=False)
    settings, name = read_config(config)
    say("capture", 0.0)
    model, layers, parameters = _empty_model(settings)
    example = example_of(model, settings, name, tokens, batch)
    decoder = None
    if length is not None:
        if not isinstance(model, Prompt):
            raise CompileError(f"{name} is no causal language model: it generates nothing")
        model = model.model
        decoder = decoding(model, example, length or None)
    captured = decoder.capture(model) if decoder is not None else capture(model, example)
    module = PassManager(_passes(captured), given=("functional",)).run(captured.module)
    say("quantise", 0.5)
    PassManager([MadeUp(), Quantise(weights)], given=("rolled",)).run(module)
    most = decoder.length if decoder is not None else 0
    shape = Shape(lanes, wanted.tile or SIMPLE_TILE, batch, tokens, most)
    lowered = Builder(module, shape, module.meta["loop"], design_name(model), turns=most,
                      channel_bytes=table.hbm_bytes,
        caches=wanted.caches).run()  # fmt: skip
    design = _with_steps(lowered.design, module.meta["loop"], layers, model)
    planned = put_into_effect(
        design, {}, wanted, table, simple, lambda phase, part: say(phase, 0.6 + 0.4 * part)
    )
    say("done", 1.0)
    origin = Origin(type(model).__name__, parameters, precision, 0, planned.plan, planned.gains)
    return Outline(planned, table, interface_of(module, lowered, captured), origin)


class Prompt(nn.Module):
    """A language model as far as the scores of the token behind the prompt."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids, logits_to_keep=1, use_cache=False).logits
        return scores


class Windows(TorchFunctionMode):
    """Large tensors made under this mode are windows into a row of random numbers: the element at (i, j)
    is the row's (i + j)-th, so rows and columns differ and a matrix takes no memory. They cannot be
    written; initialisation of them does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones):
            size = torch.Size(args[0] if args and isinstance(args[0], tuple | list | torch.Size) else args)
            if len(size) == 2 and size.numel() > LARGE:
                row = torch.randn(sum(size), generator=self.random) * SPREAD
                return row.as_strided(size, (1, 1))
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        target = args[0] if args else kwargs.get("tensor")
        if writes and isinstance(target, Tensor) and _is_window(target):
            return target
        return func(*args, **kwargs)


def _is_window(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.stride() == (1, 1) and min(tensor.shape) > 1


def _empty_model(config: Any) -> tuple[nn.Module, int, int]:
    """The model to capture, how many layers the configuration has (0: all are built), and how many
    parameters all of them have."""
    count = int(getattr(config, "num_hidden_layers", 0) or 0)
    kinds = getattr(config, "layer_types", None)
    few = copy.deepcopy(config)
    some = _some_of_each(kinds, getattr(config, "rope_parameters", None))
    cut = count > FEW and len(some) <= FEW
    if cut:
        few.num_hidden_layers = FEW
        if kinds is not None:
            few.layer_types = some
    whole = build(config)
    parameters = sum(p.numel() for p in {id(p): p for p in whole.parameters()}.values())
    if cut and not _alike(whole, build(few), count):
        cut, few = False, config
    model = build(few, Windows()).eval().requires_grad_(False)
    return prompted(model), count if cut else 0, parameters


def prompted(model: nn.Module) -> nn.Module:
    """A language model as ``Prompt``; others as they are."""
    causal = "logits_to_keep" in inspect.signature(model.forward).parameters
    return Prompt(model).eval() if causal else model


def _some_of_each(kinds: list[str] | None, rotation: Any) -> list[str]:
    """The least layers that have all kinds, ``FEW`` at least. Layers with and without a window become one
    loop; those that also rotate by other angles do not, and all of them are needed."""
    apart = list(dict.fromkeys(kinds or ()))
    if kinds and len(apart) > 1 and (not set(apart) <= WINDOWS or set(apart) & set(rotation or ())):
        return list(kinds)
    return apart if len(apart) > 1 else (apart or [""]) * FEW


def _alike(whole: nn.Module, few: nn.Module, count: int) -> bool:
    """Do the layers that are left out have the parameters of those that are there?"""
    rest = Counter(p.shape for p in whole.parameters())
    rest.subtract(p.shape for p in few.parameters())
    return all(left >= 0 and left % (count - FEW) == 0 for left in rest.values())


def example_of(model: nn.Module, config: Any, name: str, tokens: int, batch: int) -> dict[str, Tensor]:
    """Inputs that a model of a configuration is captured with; ``model`` is ``prompted``.

    Raises:
        InputError: for sizes that the model cannot take.
        CompileError: for a model that takes no token ids.
    """
    longest = positions_of(config)
    if tokens < 1 or batch < 1:
        raise InputError(f"a launch has at least one token and one sequence, not {tokens} and {batch}")
    if longest and tokens > longest:
        raise InputError(f"{name} has {longest} positions; {tokens} tokens are more than that")
    vocabulary = getattr(config, "vocab_size", None)
    if not vocabulary:
        raise CompileError(f"{name} takes no token identifiers; compile the module instead")
    ids = torch.randint(vocabulary, (batch, tokens), generator=torch.Generator().manual_seed(0))
    if isinstance(model, Prompt):
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _passes(captured: Captured) -> list[GraphPass]:
    """All of ``compile``'s but the comparison with the float model, whose numbers mean nothing here."""
    return [p for p in canonical_passes(captured) if not isinstance(p, CheckFloat)]


class MadeUp(GraphPass):
    """Statistics that no calibration saw: every value is normally distributed."""

    name = "made_up_statistics"
    requires = ("rolled",)
    ensures = ("calibrated",)

    def call(self, module: fx.GraphModule) -> bool:
        random = torch.Generator().manual_seed(0)
        module.meta["statistics"] = {
            node.name: Statistics(
                torch.full((channels,), 4.0), [torch.randn(ROWS, channels, generator=random)]
            )
            for node, channels in widths_of(module).items()
        }
        return False


def _unread(scaled: Tensor, layout: Layout, rows: Tensor | None) -> IntegerWeights:
    """No weights, with scales that they could have."""
    few = scaled[:, :ROWS]
    _, scale = quantise_weight(few, torch.ones(few.shape[1]))
    nothing = torch.zeros(1, dtype=torch.int8).expand(scaled.shape)
    return IntegerWeights({"weight": nothing}, scale, nothing)


def _longer(port: Port, layers: int) -> Port:
    """A port of a cache with the rows of all layers."""
    if port.role != "cache" or int(port.config["steps"]) == 1:
        return port
    return replace(port, words=port.words // FEW * layers, config={**port.config, "steps": layers})


def _with_steps(design: Design, loop: Loop | None, layers: int, model: nn.Module) -> Design:
    """The design with the layer loop of the whole model."""
    if not layers:
        return design
    if loop is None or loop.steps != FEW:
        raise CompileError(
            f"the layers of {type(model).__name__} do not become one layer loop, so they cannot be "
            "planned without all of them; compile the module instead"
        )
    stages = tuple(replace(s, steps=layers) if s.group == "loop" else s for s in design.stages)
    design = replace(design, stages=stages, steps=layers)
    arrays = {s.name: s for s in stages if isinstance(s, MatmulStage)}
    ports = [
        arrays[p.binding].weight_port(design, p.streams[0]) if p.role == "weights" else _longer(p, layers)
        for p in design.ports
    ]
    return replace(design, ports=tuple(ports))
