# SPDX-License-Identifier: Apache-2.0
"""Drop nodes that change nothing: assertions, copies, dropout in eval mode, same-shape views."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from torch2fpga.errors import DesignError
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node

aten = torch.ops.aten

ERASED = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range_for_size.default,
}
#: bypassed where shape and dtype are unchanged
SAME = {
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.slice.Tensor,
    aten.type_as.default,
}
DROPOUT = {aten.dropout.default, aten.feature_dropout.default, aten.dropout_.default}
VIEWS = {aten.view.default, aten._unsafe_view.default}


def _unchanged(node: Node) -> bool:
    source = node.args[0]
    if not isinstance(source, fx.Node):
        return False
    a, b = source.meta.get("val"), node.meta.get("val")
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.dtype == b.dtype


class DropNoops(GraphPass):
    """Views become reshapes, because a dropped copy may leave a
    non-contiguous tensor in front of them."""

    name = "drop_noops"
    requires = ("functional",)
    ensures = ("no_noops",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in list(module.graph.nodes):
            if node.op != "call_function":
                continue
            if node.target in ERASED:
                module.graph.erase_node(node)
                modified = True
            elif (node.target in SAME and _unchanged(node)) or (
                node.target in DROPOUT and not (len(node.args) > 2 and node.args[2])
            ):
                node.replace_all_uses_with(node.args[0])
                module.graph.erase_node(node)
                modified = True
            elif node.target in VIEWS:
                node.target = aten.reshape.default
                modified = True
        module.graph.eliminate_dead_code()
        return modified

    def verify(self, module: fx.GraphModule) -> None:
        left = [n.name for n in module.graph.nodes if n.target in ERASED or n.target in VIEWS]
        if left:
            raise DesignError(f"drop_noops left {left}")
