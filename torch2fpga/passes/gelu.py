# SPDX-License-Identifier: Apache-2.0
"""Recognise the tanh form of GELU that GPT-2 spells out in seven nodes.

transformers' ``NewGELUActivation``: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node

aten = torch.ops.aten


def _is(node: Any, target: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is target


def _close(value: Any, expected: float) -> bool:
    return isinstance(value, int | float) and math.isclose(value, expected, rel_tol=1e-6)


def _times(node: Any, factor: float) -> Node | None:
    """x where node is x * factor or factor * x."""
    if not _is(node, aten.mul.Tensor):
        return None
    a, b = node.args
    if _close(b, factor):
        return a
    return b if _close(a, factor) else None


def _gelu_tanh(node: Node) -> Node | None:
    """x where node is 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), else None."""
    if node.target is not aten.mul.Tensor or len(node.args) != 2:
        return None
    half, one_plus = node.args
    x = _times(half, 0.5)
    if x is None or not _is(one_plus, aten.add.Tensor):
        return None
    tanh = next((a for a in one_plus.args if _is(a, aten.tanh.default)), None)
    if tanh is None or not any(_close(a, 1.0) for a in one_plus.args):
        return None
    inner = _times(tanh.args[0], math.sqrt(2.0 / math.pi))
    if inner is None or not _is(inner, aten.add.Tensor) or inner.args[0] is not x:
        return None
    cube = _times(inner.args[1], 0.044715)
    if cube is None or not _is(cube, aten.pow.Tensor_Scalar):
        return None
    return x if cube.args[0] is x and _close(cube.args[1], 3.0) else None


class RecogniseGelu(GraphPass):
    """Seven nodes become ``aten.gelu(x, approximate="tanh")``."""

    name = "recognise_gelu"
    requires = ("functional",)
    ensures = ("gelu",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in list(module.graph.nodes):
            x = _gelu_tanh(node) if node.op == "call_function" else None
            if x is None:
                continue
            with module.graph.inserting_before(node):
                new = module.graph.call_function(aten.gelu.default, (x,), {"approximate": "tanh"})
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            modified = True
        if modified:
            module.graph.eliminate_dead_code()
        return modified
