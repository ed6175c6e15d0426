# SPDX-License-Identifier: Apache-2.0
"""Captured ATen graph -> canonical graph: a few operators on (batch, seq, channels) tensors.

The captured graph is interpreted once with abstract values (see values.py); every operator's
handler either emits canonical nodes or refuses. All refusals are collected before any is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from torch2fpga.errors import DesignError, Refusal, UnsupportedModel
from torch2fpga.lower.registry import HANDLERS, OPERATORS
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Axis, Const, HostValue, Poison, Refused, RowValue


class _SwapRows(Exception):
    """The model puts tokens first and batch second: start again with the axes swapped."""


class Canonicaliser:
    """One walk over a captured graph; what handlers see as ``ctx``.

    Args:
        module: captured GraphModule, folded and without no-ops.
        swapped: the first dimension of inputs is the token dimension.
    """

    def __init__(self, module: fx.GraphModule, swapped: bool = False) -> None:
        self.module = module
        self.swapped = swapped
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.values: dict[Node, Any] = {}
        self.refusals: list[Refusal] = []
        self.mask_cache: dict[Any, Any] = {}
        self.frequencies: dict[tuple[float, ...], Tensor] = {}
        self.single_row = Axis(1)
        self.mapping: list[tuple[str, str, str]] = []
        self.output_views: list[dict[str, Any]] = []
        self._rows: tuple[Axis, Axis] | None = None
        self._inputs: dict[Node, Node] = {}
        self._constants: dict[int, tuple[Tensor, Node]] = {}
        self._current: Node | None = None

    # -- what handlers call ---------------------------------------------------------------

    def rows(self, batch: int, seq: int) -> tuple[Axis, Axis]:
        """The model's row axes; every input must agree on their sizes."""
        if self._rows is None:
            self._rows = (Axis(batch), Axis(seq))
        have = (self._rows[0].size, self._rows[1].size)
        if have != (batch, seq):
            raise Refused(f"inputs disagree: {have[0]} x {have[1]} rows and {batch} x {seq} rows")
        return self._rows

    def swap_rows(self, reason: str) -> None:
        """Attention runs over what was taken for the batch: start again the other way round."""
        if not self.swapped:
            raise _SwapRows(reason)

    def emit(
        self, source: Node, function: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None
    ) -> Node:
        """A canonical node that carries the path of the captured node it comes from."""
        node = self.graph.call_function(function, tuple(args), kwargs or {})
        node.meta["path"] = module_path(source)
        node.meta["class"] = module_class(source)
        node.meta["source"] = source.name
        self.mapping.append((source.name, module_path(source), function.__name__))
        return node

    def constant(self, value: Tensor, name: str) -> Node:
        """A parameter or constant of the canonical graph (the same tensor only once)."""
        key = id(value)
        if key in self._constants:
            return self._constants[key][1]
        base = (name or "constant").replace(".", "__")
        target, i = base, 0
        while hasattr(self.root, target):
            i += 1
            target = f"{base}_{i}"
        self.root.register_buffer(target, value.detach())
        node = self.graph.get_attr(target)
        node.meta["path"] = name
        self._constants[key] = (value, node)
        return node

    def tensor(self, node: Node) -> Tensor:
        """The value behind a canonical constant."""
        return getattr(self.root, str(node.target))

    def input(self, placeholder: Node) -> Node:
        """The canonical input for a captured placeholder."""
        return self._inputs[placeholder]

    def host_inputs(self, node: Node) -> list[Node]:
        """Placeholders that a host value depends on."""
        found: list[Node] = []
        todo, seen = [node], set()
        while todo:
            item = todo.pop()
            if item in seen:
                continue
            seen.add(item)
            if item.op == "placeholder":
                found.append(item)
            todo += item.all_input_nodes
        return found

    def evaluate(self, node: Node, known: dict[Node, Tensor]) -> Tensor:
        """Run the part of the captured graph that computes ``node``."""
        if node not in known:
            if node.op == "get_attr":
                known[node] = attribute(self.module, str(node.target))
            else:
                for dependency in node.all_input_nodes:
                    self.evaluate(dependency, known)
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
                assert callable(node.target)
                known[node] = node.target(*args, **kwargs)
        return known[node]

    # -- the walk -------------------------------------------------------------------------

    def run(self) -> fx.GraphModule:
        """The canonical module.

        Raises:
            UnsupportedModel: with every refusal.
        """
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._guard(node, self._placeholder)
            elif node.op == "get_attr":
                self.values[node] = Const(attribute(self.module, str(node.target)), node.target)
            elif node.op == "call_function":
                self.values[node] = self._guard(node, self._call)
            elif node.op == "output":
                self._guard(node, self._output)
        if self.refusals:
            raise UnsupportedModel(self.refusals)
        self.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
        module = fx.GraphModule(self.root, self.graph)
        module.meta["mapping"] = self.mapping
        module.meta["swapped"] = self.swapped
        module.meta["output_views"] = self.output_views
        return module

    def _guard(self, node: Node, action: Any) -> Any:
        try:
            return action(node)
        except Refused as refused:
            target = str(node.target).removeprefix("aten.")
            self.refusals.append(Refusal(node.name, target, module_path(node), refused.reason, refused.help))
            return Poison()

    def _placeholder(self, node: Node) -> Any:
        value = node.meta["val"]
        new = self.graph.placeholder(node.name)
        new.meta.update(path=node.name, shape=tuple(value.shape), dtype=value.dtype)
        self._inputs[node] = new
        if value.dtype.is_floating_point:
            return self._float_input(node, new, value)
        if value.dim() != 2:
            raise Refused(f"an integer input of shape {tuple(value.shape)}", "use (batch, tokens)")
        batch, seq = value.shape
        self.rows(batch, seq)
        new.meta["kind"] = "ids"
        return HostValue(node, tuple(value.shape))

    def _float_input(self, node: Node, new: Node, value: Tensor) -> RowValue:
        if value.dtype != torch.float32:
            raise Refused(f"a {value.dtype} input", "use a float32 model and inputs")
        shape = tuple(value.shape)
        if len(shape) == 2:
            batch, seq = self.rows(1, shape[0])
        elif len(shape) == 3:
            batch, seq = self.rows(*((shape[1], shape[0]) if self.swapped else shape[:2]))
        else:
            raise Refused(
                f"a float input of shape {shape}", "use (rows, channels) or (batch, rows, channels)"
            )
        new.meta["kind"] = "rows"
        channel = Axis(shape[-1])
        order = [seq] if len(shape) == 2 else ([seq, batch] if self.swapped else [batch, seq])
        dims = tuple((a,) if a.size != 1 else () for a in order)
        return RowValue(new, (*dims, (channel,)), batch, seq, (channel,))

    def _call(self, node: Node) -> Any:
        inputs = [self.values[n] for n in node.all_input_nodes]
        if any(isinstance(v, Poison) for v in inputs):
            if node.target not in HANDLERS:  # a reason of its own, whatever came before it
                raise Refused("this operator is not supported")
            return Poison()
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        if all(isinstance(v, Const) for v in inputs):
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.values[n].value)
            assert callable(node.target)
            result = node.target(*args, **kwargs)
            return Const(result, self._derived(node)) if isinstance(result, Tensor) else result
        if not any(isinstance(v, RowValue) or not isinstance(v, Const | HostValue) for v in inputs):
            value = node.meta["val"]
            handler = HANDLERS.get(node.target)
            if handler is None or node.target is not torch.ops.aten.embedding.default:
                return HostValue(node, tuple(value.shape) if isinstance(value, Tensor) else ())
        handler = HANDLERS.get(node.target)
        if handler is None:
            raise Refused("this operator is not supported")
        return handler(self, node, list(args), dict(kwargs))

    def _derived(self, node: Node) -> str:
        names = [self.values[n].name for n in node.all_input_nodes]
        return f"{next((n for n in names if n), 'constant')}_{node.name}"

    def _output(self, node: Node) -> None:
        results = []
        for i, item in enumerate(node.args[0] if isinstance(node.args[0], tuple | list) else [node.args[0]]):
            value = self.values[item] if isinstance(item, fx.Node) else item
            if isinstance(value, Poison):
                continue
            if not isinstance(value, RowValue):
                raise Refused(f"output {i} does not come from the model's data")
            if any(a not in (value.batch, value.seq, *value.channels) for d in value.dims for a in d):
                raise Refused(f"output {i} is a repetition of the model's data")
            results.append(value)
        self.graph.output(tuple(v.node for v in results))
        self.output_views = [_view_recipe(v) for v in results]


def _view_recipe(value: RowValue) -> dict[str, Any]:
    """How the host turns (batch, seq, channels) into the user's shape: order of axes, then shape."""
    names: dict[Axis, int] = {value.batch: 0, value.seq: 1}
    for i, axis in enumerate(value.channels):
        names[axis] = 2 + i
    order = [names[a] for d in value.dims for a in d]
    return {
        "channels": [a.size for a in value.channels],
        "order": order + [i for i in range(2 + len(value.channels)) if i not in order],
        "shape": [[names[a] for a in d] for d in value.dims],
    }


def module_path(node: Node) -> str:
    """Dotted path of the module a captured node comes from, without the wrapper's prefix."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    path = str(path).removeprefix("L['self'].")
    return path.removeprefix("model.") if path != "model" else ""


def module_class(node: Node) -> str:
    """Class name of that module."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return ""
    kind = next(reversed(stack.values()))[1]
    return str(kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]


class Canonicalise(GraphPass):
    """The captured graph as a new graph of canonical operators."""

    name = "canonicalise"
    requires = ("functional", "no_noops", "folded", "gelu")
    ensures = ("canonical",)

    def replace(self, module: fx.GraphModule) -> fx.GraphModule:
        return canonicalise(module)

    def verify(self, module: fx.GraphModule) -> None:
        """Only registered operators, wired in order; every result has a module path."""
        unknown = [
            n.name
            for n in module.graph.nodes
            if n.op not in ("placeholder", "get_attr", "output")
            and (n.op != "call_function" or n.target not in OPERATORS)
        ]
        lost = [n.name for n in module.graph.nodes if n.op == "call_function" and "path" not in n.meta]
        if unknown or lost:
            raise DesignError(f"canonicalise left foreign nodes {unknown} or lost the path of {lost}")


def canonicalise(module: fx.GraphModule) -> fx.GraphModule:
    """Bring a captured, folded graph to canonical form.

    Raises:
        UnsupportedModel: with every node that cannot be expressed exactly.
    """
    import torch2fpga.lower.operators  # noqa: F401  registers all handlers

    try:
        return Canonicaliser(module).run()
    except _SwapRows:
        return Canonicaliser(module, swapped=True).run()
