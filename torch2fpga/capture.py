# SPDX-License-Identifier: Apache-2.0
"""Model -> torch.fx GraphModule of ATen operators, by torch.export.

Non-strict export and an empty decomposition table: what is one stage (linear, layer_norm,
attention, gelu, embedding) stays one node. Reasons and measurements:
docs/decisions.md.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from torch2fpga.errors import CaptureError

Inputs = Sequence[Any] | Mapping[str, Any]


@dataclass
class Captured:
    """A captured model.

    Attributes:
        module: GraphModule of ATen nodes; placeholders are the tensor inputs in order.
        names: names of the tensor inputs.
        output: how to rebuild the model's output from its tensors.
        example: the example input tensors, by name.
        expected: the model's float output tensors for them.
    """

    module: fx.GraphModule
    names: list[str]
    output: OutputSpec
    example: dict[str, Tensor]
    expected: list[Tensor]


@dataclass(frozen=True)
class OutputSpec:
    """Structure of a model's output: kind, names of the tensors, class for model outputs."""

    kind: str
    names: tuple[str, ...] = ()
    class_name: str = ""
    keep: tuple[int, ...] = field(default=())

    def build(self, tensors: Sequence[Tensor]) -> Any:
        """The output object with these tensors in it."""
        if self.kind == "tensor":
            return tensors[0]
        if self.kind in ("tuple", "list"):
            return (tuple if self.kind == "tuple" else list)(tensors)
        values = dict(zip(self.names, tensors, strict=True))
        if self.kind == "model_output":
            with contextlib.suppress(ImportError, AttributeError):
                from transformers import modeling_outputs

                return getattr(modeling_outputs, self.class_name)(**values)
        return values


def _describe_output(value: Any) -> tuple[OutputSpec, list[Tensor]]:
    """The structure of an output and its tensors."""
    if isinstance(value, Tensor):
        return OutputSpec("tensor"), [value]
    if isinstance(value, tuple | list) and value and all(isinstance(v, Tensor) for v in value):
        return OutputSpec("tuple" if isinstance(value, tuple) else "list"), list(value)
    if isinstance(value, Mapping):
        items = [(k, v) for k, v in value.items() if v is not None]
        if items and all(isinstance(v, Tensor) for _, v in items):
            names = tuple(str(k) for k, _ in items)
            kind = "dict" if type(value) is dict else "model_output"
            return OutputSpec(kind, names, type(value).__name__), [v for _, v in items]
    leaves = [type(v).__name__ for v in pytree.tree_leaves(value)]
    raise CaptureError(
        f"the model returns {type(value).__name__} with {leaves[:6]}; expected a tensor, a tuple, "
        "list or dict of tensors, or a transformers model output without cache"
    )


class _Wrapper(nn.Module):
    """Fixed keyword inputs, no cache, a flat tuple of tensors out."""

    def __init__(
        self, model: nn.Module, names: Sequence[str] | None, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._names = names
        self._options = dict(options or {})

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_describe_output(call_model(self.model, self._names, tensors, self._options))[1])


def call_model(
    model: nn.Module,
    names: Sequence[str] | None,
    tensors: Sequence[Tensor],
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Run the user's model as it is captured (no cache where the model has one)."""
    options = dict(options or {})
    if getattr(getattr(model, "config", None), "use_cache", None) is not None:
        options["use_cache"] = False
    if names is None:
        return model(*tensors, **options)
    return model(**dict(zip(names, tensors, strict=True)), **options)


def split_inputs(inputs: Inputs | Tensor) -> tuple[list[str] | None, list[Tensor]]:
    """(keyword names or None for positional, tensors).

    Raises:
        CaptureError: if something is not a tensor.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if isinstance(inputs, Mapping):
        names: list[str] | None = [str(k) for k in inputs]
        values = list(inputs.values())
    else:
        names, values = None, list(inputs)
    for i, value in enumerate(values):
        if not isinstance(value, Tensor):
            which = names[i] if names else f"number {i}"
            raise CaptureError(
                f"example input {which} is a {type(value).__name__}; expected tensors "
                "(a tuple of them, or a dict of keyword tensors)"
            )
    if not values:
        raise CaptureError("there are no example inputs; give a tuple or dict of tensors")
    return names, values


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """torch.export prints whole graphs when it fails; keep that for the error text."""
    text = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        warnings.simplefilter("ignore")
        yield text


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise CaptureError(f"expected a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        if any(c in "\"'\\" or not c.isprintable() for c in path):
            raise CaptureError(
                f"module name {path!r} holds quotes or control characters, which torch.export cannot "
                "capture; rename it"
            )
        active = isinstance(module, nn.Dropout) and module.p > 0 and module.training
        if active or (module.training and isinstance(module, nn.modules.batchnorm._BatchNorm)):
            raise CaptureError(
                f"{path or 'the model'} is in training mode ({type(module).__name__} is active); "
                "call model.eval() first"
            )
    if model.training and any(
        isinstance(m, nn.MultiheadAttention) and m.dropout > 0 for m in model.modules()
    ):
        raise CaptureError("the model is in training mode with dropout; call model.eval() first")
    for name, parameter in model.named_parameters():
        if (
            parameter.is_floating_point()
            and not parameter.is_meta
            and not bool(torch.isfinite(parameter).all())
        ):
            raise CaptureError(f"{name} holds values that are not finite (inf or nan)")
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise CaptureError(f"{name} is {parameter.dtype}; convert the model first: model.float()")


def capture(model: nn.Module, example_inputs: Inputs, options: Mapping[str, Any] | None = None) -> Captured:
    """Capture ``model`` with static shapes from ``example_inputs``.

    Args:
        model: an unmodified model in eval mode, float32.
        example_inputs: tuple of tensors, or dict of keyword tensors.
        options: more keywords of the call, constants of the capture.
    Raises:
        CaptureError: training mode, non-finite weights, wrong inputs, data-dependent control flow.
    """
    _check_model(model)
    names, tensors = split_inputs(example_inputs)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            expected = _run_once(model, names, tensors, options)
            program = _export(_Wrapper(model, names, options).eval(), tensors)
    finally:
        for part, training in modes.items():
            part.training = training
    spec, outputs = expected
    module = program.module(check_guards=False)
    placeholders = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    labels = names if names is not None else _argument_names(model, len(tensors))
    rename = dict(zip(placeholders, labels, strict=True))
    for node in module.graph.nodes:
        if node.op == "placeholder":
            node.name = rename[node.name]
            node.target = node.name
    return Captured(module, list(labels), spec, dict(zip(labels, tensors, strict=True)), outputs)


def _argument_names(model: nn.Module, count: int) -> list[str]:
    """Names of the first ``count`` arguments of the model's forward."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    if len(parameters) >= count and all(p.kind != p.VAR_POSITIONAL for p in parameters[:count]):
        return [p.name for p in parameters[:count]]
    return [f"input_{i}" for i in range(count)]


def _run_once(
    model: nn.Module,
    names: Sequence[str] | None,
    tensors: Sequence[Tensor],
    options: Mapping[str, Any] | None,
) -> tuple[OutputSpec, list[Tensor]]:
    try:
        result = call_model(model, names, tensors, options)
    except CaptureError:
        raise
    except Exception as error:
        shapes = [tuple(t.shape) for t in tensors]
        raise CaptureError(
            f"the model does not run on the example inputs {names or ''} {shapes}: "
            f"{type(error).__name__}: {error}"
        ) from error
    spec, outputs = _describe_output(result)
    return spec, [o.detach().clone() for o in outputs]


def _export(wrapper: nn.Module, tensors: Sequence[Tensor]) -> Any:
    with _quiet():
        try:
            program = torch.export.export(wrapper, tuple(tensors), strict=False)
            return program.run_decompositions({})
        except Exception as error:
            first = str(error).strip().splitlines()
            raise CaptureError(
                "torch.export cannot capture the model (data-dependent control flow, or an operator "
                f"without a meta kernel): {type(error).__name__}: {' '.join(first[:3])}"
            ) from error
