# SPDX-License-Identifier: Apache-2.0
"""Channels that are rotated into each other become neighbours; nothing else of the model changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from tests.tiny import HEAD, KV_HEADS, Q_HEADS, build, float_error, lowered, named, seeded
from torch2fpga.lower.linear import linear
from torch2fpga.lower.rms_norm import rms_norm
from torch2fpga.lower.rotary import rotary
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.rotary import neighbours

__all__ = ["seeded"]


def _reordered(model: nn.Module, module: fx.GraphModule, parameter: Node, order: Tensor) -> None:
    value = attribute(model, str(parameter.meta["path"]).removeprefix("model."))
    assert torch.equal(attribute(module, str(parameter.target)), value[order])


@pytest.mark.parametrize("name", named("llama", "qwen2", "qwen3"))
def test_only_queries_and_keys_are_in_another_order(name: str) -> None:
    """Weights, biases and the norm of a head; all layers read one constant of frequencies."""
    model, inputs = build(name)
    module, _ = lowered(model, inputs)
    rotations = [n for n in module.graph.nodes if n.target is rotary]
    assert len({n.args[1].target for n in rotations}) == 1
    assert [n.kwargs["heads"] for n in rotations] == [Q_HEADS, KV_HEADS] * 2
    for node in rotations:
        source = node.args[0]
        if source.target is rms_norm:
            norm, source = source, source.args[0]
            _reordered(model, module, norm.args[1], neighbours(HEAD, 1))
        assert source.target is linear
        order = neighbours(node.kwargs["heads"] * HEAD, node.kwargs["heads"])
        for parameter in source.args[1:]:
            _reordered(model, module, parameter, order)
    paired = {str(n.target) for n in module.graph.nodes if n.op == "get_attr" and "_paired" in str(n.target)}
    each = {"llama": 2, "qwen2": 4, "qwen3": 4}[name]
    assert len(paired) == 2 * each
    assert float_error(model, inputs) <= 1e-5
