# SPDX-License-Identifier: Apache-2.0
"""Recognise the RMS norm that language models spell out in six nodes.

transformers' ``LlamaRMSNorm`` and its copies: weight * (x * rsqrt(mean(x^2) + eps)), over the last
dimension (Zhang and Sennrich, Root Mean Square Layer Normalization, 2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node

aten = torch.ops.aten


def _is(node: Any, *targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in targets


def _square_of(node: Any, x: Node) -> bool:
    """Is ``node`` the square of ``x``?"""
    if _is(node, aten.pow.Tensor_Scalar):
        return node.args[0] is x and node.args[1] == 2
    return _is(node, aten.mul.Tensor) and node.args[0] is x and node.args[1] is x


def _inverse_root(node: Any, x: Node) -> float | None:
    """eps where ``node`` is rsqrt(mean(x^2, last dimension) + eps), else None."""
    if not _is(node, aten.rsqrt.default) or not _is(node.args[0], aten.add.Tensor, aten.add.Scalar):
        return None
    mean, eps = node.args[0].args[:2]
    if not isinstance(eps, int | float) or node.args[0].kwargs or not _is(mean, aten.mean.dim):
        return None
    dims, keep = mean.args[1], len(mean.args) > 2 and mean.args[2]
    last = x.meta["val"].dim() - 1
    if list(dims) not in ([-1], [last]) or not keep or not _square_of(mean.args[0], x):
        return None
    return float(eps)


def _normalised(node: Any) -> tuple[Node, float] | None:
    """(x, eps) where ``node`` is x * rsqrt(mean(x^2) + eps), in either order."""
    if not _is(node, aten.mul.Tensor):
        return None
    for x, inverse in (node.args, reversed(node.args)):
        if isinstance(x, fx.Node):
            eps = _inverse_root(inverse, x)
            if eps is not None:
                return x, eps
    return None


def _weighted(node: Node) -> tuple[Node, Node] | None:
    """(product without weight, weight) where ``node`` is weight * product, weight one value a channel."""
    if not _is(node, aten.mul.Tensor):
        return None
    for weight, product in (node.args, reversed(node.args)):
        if not isinstance(weight, fx.Node) or _normalised(product) is None:
            continue
        value = weight.meta.get("val")
        if isinstance(value, Tensor) and value.shape == product.meta["val"].shape[-1:]:
            return product, weight
    return None


class RecogniseRmsNorm(GraphPass):
    """Six nodes (five without a weight) become ``aten.rms_norm(x, [n], weight, eps)``."""

    name = "recognise_rms_norm"
    requires = ("functional",)
    ensures = ("rms_norm",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in reversed(list(module.graph.nodes)):  # a weight before the product that it scales
            weighted = _weighted(node)
            product, weight = weighted or (node, None)
            found = _normalised(product)
            if found is None:
                continue
            x, eps = found
            with module.graph.inserting_before(node):
                args = (x, [x.meta["val"].shape[-1]], weight, eps)
                new = module.graph.call_function(aten.rms_norm.default, args)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            module.graph.erase_node(node)
            modified = True
        if modified:
            module.graph.eliminate_dead_code()
        return modified
