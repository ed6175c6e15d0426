# SPDX-License-Identifier: Apache-2.0
"""Evaluate everything that depends on no input and no parameter (masks, positions, tables)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torch2fpga.errors import DesignError
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node


def attribute(module: torch.nn.Module, target: str) -> Any:
    """The attribute behind a dotted name."""
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value


class FoldConstants(GraphPass):
    """Boundary values become buffers ``_const_<i>``; random and mutating operators are left."""

    name = "fold_constants"
    requires = ("functional",)
    ensures = ("folded",)

    def call(self, module: fx.GraphModule) -> bool:
        parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        known: dict[Node, Any] = {}
        for node in module.graph.nodes:
            value = self._evaluate(module, node, parameters, known)
            if value is not None:
                known[node] = value
        modified = False
        for node, value in known.items():
            if node.op == "get_attr" or not isinstance(value, Tensor):
                continue
            if all(user in known for user in node.users):
                continue
            name = f"_const_{len([n for n, _ in module.named_buffers() if n.startswith('_const_')])}"
            module.register_buffer(name, value)
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(name)
            constant.meta = {k: node.meta[k] for k in ("val", "nn_module_stack") if k in node.meta}
            node.replace_all_uses_with(constant)
            modified = True
        module.graph.eliminate_dead_code()
        return modified

    @staticmethod
    def _evaluate(module: fx.GraphModule, node: Node, parameters: set[str], known: dict[Node, Any]) -> Any:
        if node.op == "get_attr":
            return None if node.target in parameters else attribute(module, str(node.target))
        if node.op != "call_function" or any(n not in known for n in node.all_input_nodes):
            return None
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            return None
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def verify(self, module: fx.GraphModule) -> None:
        for node in module.graph.nodes:
            if node.op == "get_attr":
                try:
                    attribute(module, str(node.target))
                except AttributeError as error:
                    raise DesignError(f"fold_constants left {node.target} without a value") from error
