# SPDX-License-Identifier: Apache-2.0
"""Fusions on the canonical graph: split linears, ReLU into the linear before it."""

from __future__ import annotations

import torch
from torch import fx

from torch2fpga.errors import DesignError
from torch2fpga.lower.activation import activation
from torch2fpga.lower.linear import linear
from torch2fpga.lower.rows import slice_channels
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node


def _add_constant(module: fx.GraphModule, value: torch.Tensor, base: str) -> str:
    name, i = base, 0
    while hasattr(module, name):
        i += 1
        name = f"{base}_{i}"
    module.register_buffer(name, value)
    return name


class SplitLinears(GraphPass):
    """A linear whose output is only ever sliced (packed q, k, v) becomes one linear a slice.

    Exact: each output channel depends on its own weight row alone.
    """

    name = "split_linears"
    requires = ("canonical",)
    ensures = ("split",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in list(module.graph.nodes):
            if node.target is not linear or not node.users:
                continue
            if any(user.target is not slice_channels for user in node.users):
                continue
            for user in list(node.users):
                self._one(module, node, user)
            module.graph.erase_node(node)
            modified = True
        return modified

    @staticmethod
    def _one(module: fx.GraphModule, node: Node, user: Node) -> None:
        start, size = user.args[1], user.args[2]
        assert isinstance(start, int) and isinstance(size, int)
        args: list[fx.node.Argument] = [node.args[0]]
        with module.graph.inserting_before(user):
            for parameter in node.args[1:]:
                assert isinstance(parameter, fx.Node)
                value = attribute(module, str(parameter.target))[start : start + size]
                name = _add_constant(module, value, f"{parameter.target}_from_{start}")
                constant = module.graph.get_attr(name)
                constant.meta = dict(parameter.meta)
                args.append(constant)
            new = module.graph.call_function(linear, tuple(args), dict(node.kwargs))
        new.meta = {**node.meta, "part": start}
        user.replace_all_uses_with(new)
        module.graph.erase_node(user)

    def verify(self, module: fx.GraphModule) -> None:
        for node in module.graph.nodes:
            if node.target is slice_channels and node.args[0].target is linear:
                users = node.args[0].users
                if all(u.target is slice_channels for u in users):
                    raise DesignError(f"{node.name} still slices a linear that could be split")


class FuseRelu(GraphPass):
    """linear + ReLU: the requantisation behind the linear clamps at zero."""

    name = "fuse_relu"
    requires = ("split",)
    ensures = ("fused",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in list(module.graph.nodes):
            if node.target is not activation or node.kwargs["kind"] != "relu":
                continue
            source = node.args[0]
            if source.target is linear and len(source.users) == 1 and not source.kwargs.get("relu"):
                source.kwargs = {**source.kwargs, "relu": True}
                node.replace_all_uses_with(source)
                module.graph.erase_node(node)
                modified = True
        return modified
