# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings: recognised in the captured graph, then brought to neighbouring pairs.

transformers rotates channel i of a head with channel i + half of it: x * cos + rotate_half(x) * sin
(Su et al., RoFormer, 2021, in the halves of GPT-NeoX). On the card a pair must lie in one token, so the
weights in front are put in another order: query and key in the same one, so that their product is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from torch2fpga.errors import Refusal, UnsupportedModel
from torch2fpga.lower.attention import attention
from torch2fpga.lower.linear import linear
from torch2fpga.lower.rms_norm import rms_norm
from torch2fpga.lower.rotary import rotary, rotate_half
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.fuse import _add_constant
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node
from torch2fpga.weights.store import kept_tensor

aten = torch.ops.aten


def _is(node: Any, *targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in targets


def _half(node: Any, x: Node, start: int, end: int) -> bool:
    """Is ``node`` the channels [start, end) of ``x``?"""
    if not _is(node, aten.slice.Tensor) or node.args[0] is not x or len(node.args) < 4:
        return False
    dim, last = node.args[1], x.meta["val"].dim() - 1
    size = x.meta["val"].shape[-1]
    step = node.args[4] if len(node.args) > 4 else 1
    at = (int(node.args[2] or 0), min(int(node.args[3]), size))
    return dim in (-1, last) and step == 1 and at == (start, end)


def _turned(node: Any, x: Node) -> bool:
    """Is ``node`` the channels of ``x`` with the second half, negated, in front?"""
    size = x.meta["val"].shape[-1]
    if not _is(node, aten.cat.default) or size % 2 or len(node.args[0]) != 2:
        return False
    dim = node.args[1] if len(node.args) > 1 else 0
    second, first = node.args[0]
    return (
        dim in (-1, x.meta["val"].dim() - 1)
        and _is(second, aten.neg.default)
        and _half(second.args[0], x, size // 2, size)
        and _half(first, x, 0, size // 2)
    )


def _factors(node: Any) -> list[tuple[Node, Node]]:
    """(data, table) of a product of two nodes, both ways round."""
    if not _is(node, aten.mul.Tensor) or not all(isinstance(a, fx.Node) for a in node.args):
        return []
    a, b = node.args
    return [(a, b), (b, a)]


def _rotation(node: Node) -> tuple[Node, Node, Node] | None:
    """(x, cos, sin) where ``node`` is x * cos + turned(x) * sin, else None."""
    if not _is(node, aten.add.Tensor) or node.kwargs or len(node.args) != 2:
        return None
    for straight, crossed in (node.args, reversed(node.args)):
        for x, cos in _factors(straight):
            for turned, sin in _factors(crossed):
                if _turned(turned, x):
                    return x, cos, sin
    return None


class RecogniseRotary(GraphPass):
    """Seven nodes become ``rotate_half(x, cos, sin)``."""

    name = "recognise_rotary"
    requires = ("functional",)
    ensures = ("rotary",)

    def call(self, module: fx.GraphModule) -> bool:
        modified = False
        for node in list(module.graph.nodes):
            found = _rotation(node)
            if found is None:
                continue
            with module.graph.inserting_before(node):
                new = module.graph.call_function(rotate_half, found)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            modified = True
        if modified:
            module.graph.eliminate_dead_code()
        return modified


def neighbours(channels: int, groups: int) -> Tensor:
    """Order in which channel i of a group and channel i + half of it stand side by side.

    Args:
        channels: of all groups.
    Returns:
        (channels,) old channel of each new one.
    """
    return torch.arange(channels).reshape(groups, 2, -1).transpose(1, 2).reshape(-1)


class PairRotary(GraphPass):
    """Halves of a head become neighbours: in the linear layer before, and the norm between them."""

    name = "pair_rotary"
    requires = ("split",)
    ensures = ("paired",)

    def call(self, module: fx.GraphModule) -> bool:
        nodes = [n for n in module.graph.nodes if n.target is rotary and not n.kwargs["paired"]]
        refusals = [r for r in (_refusal(n) for n in nodes) if r is not None]
        if refusals:
            raise UnsupportedModel(refusals)
        for node in nodes:
            heads = node.kwargs["heads"]
            for source in _sources(node):
                size = 1 if source.target is rms_norm else heads
                _reorder(module, source, size)
            node.kwargs = {**node.kwargs, "paired": True}
        return bool(nodes)


def _sources(node: Node) -> list[Node]:
    """The norm, if there is one, and the linear layer in front of a rotation."""
    found: list[Node] = [node.args[0]]
    if found[0].target is rms_norm and found[0].kwargs["heads"] == node.kwargs["heads"]:
        found.append(found[0].args[0])
    return found


def _refusal(node: Node) -> Refusal | None:
    """Why the channels in front of a rotation cannot be put in another order."""
    sources = _sources(node)
    reason = ""
    if sources[-1].target is not linear:
        reason = "rotates something other than the output of a linear layer (or its norm over a head)"
    elif any(len(s.users) != 1 for s in sources):
        reason = "rotates a value that is also used elsewhere"
    elif not all(_is_query_or_key(node, user) for user in node.users):
        reason = "the rotated value is not only query or key of an attention that rotates both"
    if not reason:
        return None
    return Refusal(str(node.meta.get("source", node.name)), "rotary", node.meta.get("path", ""), reason, "")


def _is_query_or_key(node: Node, user: Node) -> bool:
    if user.target is not attention:
        return False
    q, k, v = user.args[:3]
    return q.target is rotary and k.target is rotary and node is not v


def _paired(value: Tensor, groups: int, parameter: Node) -> Tensor:
    """A parameter's rows in the other order."""
    order = neighbours(value.shape[0], groups)
    return kept_tensor(
        f"{parameter.meta.get('path', parameter.target)} in pairs",
        ("paired", value, groups),
        value.numel() * value.dtype.itemsize,
        lambda: value[order],
    )


def _reorder(module: fx.GraphModule, node: Node, groups: int) -> None:
    """Put the channels that ``node`` makes in another order, by its parameters."""
    args: Sequence[Any] = node.args
    new = list(args)
    for i, parameter in enumerate(args):
        if i == 0 or not isinstance(parameter, fx.Node):
            continue
        value = attribute(module, str(parameter.target))
        name = _add_constant(module, _paired(value, groups, parameter), f"{parameter.target}_paired")
        with module.graph.inserting_before(node):
            new[i] = module.graph.get_attr(name)
        new[i].meta = dict(parameter.meta)
    node.args = tuple(new)
