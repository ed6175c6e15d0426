# SPDX-License-Identifier: Apache-2.0
"""Recognise repeated blocks: they will be one piece of hardware used once a layer.

Nodes are grouped by the outermost ``<prefix>.<int>`` of their module path; groups with the same
operators, attributes, shapes and wiring are instances of one block. So are layers that differ only in
how far a row sees (full and sliding attention in turn): the window is one of a step's numbers. Every
instance must take its data from the one before (the layer recurrence) or from outside all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from torch2fpga.lower.activation import activation
from torch2fpga.lower.attention import attention
from torch2fpga.lower.embedding import embed
from torch2fpga.lower.layer_norm import layer_norm
from torch2fpga.lower.linear import linear
from torch2fpga.lower.multiply import multiply
from torch2fpga.lower.rows import concat_channels, slice_channels
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node

_INDEXED = re.compile(r"^(.*?)\.?(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Loop:
    """The layer loop.

    Attributes:
        prefix: module path of the repeated list.
        instances: nodes of each instance, in corresponding order.
        carried: positions (within an instance) of nodes that the next instance reads, in the
            order in which an instance reads them, with the node that the first instance reads.
    """

    prefix: str
    instances: tuple[tuple[Node, ...], ...]
    carried: tuple[tuple[Node, int], ...]

    @property
    def steps(self) -> int:
        return len(self.instances)


def _block_key(node: Node) -> tuple[str, int] | None:
    match = _INDEXED.match(node.meta.get("path", ""))
    return (match.group(1), int(match.group(2))) if match and node.op == "call_function" else None


def _signature(module: fx.GraphModule, nodes: Sequence[Node]) -> tuple[Any, ...]:
    """Operators, attributes, shapes and wiring; constants that are no weights by content."""
    inside = {n: i for i, n in enumerate(nodes)}
    outside: dict[Node, int] = {}

    def describe(value: Any) -> Any:
        if isinstance(value, fx.Node):
            if value in inside:
                return ("inside", inside[value])
            if value.op == "get_attr":
                tensor = attribute(module, str(value.target))
                shape = tuple(tensor.shape)
                parameter = bool(value.meta.get("path"))
                return ("constant", shape) if parameter else ("constant", shape, _content(tensor))
            return ("outside", outside.setdefault(value, len(outside)))
        if isinstance(value, list | tuple):
            return tuple(describe(v) for v in value)
        return value

    return tuple(
        (n.target, describe(n.args), tuple(sorted((k, describe(v)) for k, v in _structure(n).items())))
        for n in nodes
    )


def _structure(node: Node) -> dict[str, Any]:
    """Attributes that hardware is made for; the window of causal attention is one of a step's numbers."""
    kwargs = dict(node.kwargs)
    if node.target is attention and kwargs["causal"]:
        del kwargs["window"]
    return kwargs


def _content(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.flatten().tolist())


def find_loop(module: fx.GraphModule) -> Loop | None:
    """The layer loop of a canonical graph, or None where nothing repeats (or not in a chain)."""
    groups: dict[tuple[str, int], list[Node]] = {}
    for node in module.graph.nodes:
        key = _block_key(node)
        if key is not None:
            groups.setdefault(key, []).append(node)
    best: Loop | None = None
    for prefix in dict.fromkeys(p for p, _ in groups):
        indices = sorted(i for p, i in groups if p == prefix)
        loop = _loop_of(module, prefix, [groups[prefix, i] for i in indices])
        if loop is not None and (best is None or _size(loop) > _size(best)):
            best = loop
    return best


def _size(loop: Loop) -> int:
    return loop.steps * len(loop.instances[0])


def _loop_of(module: fx.GraphModule, prefix: str, blocks: list[list[Node]]) -> Loop | None:
    if len(blocks) < 2:
        return None
    signature = _signature(module, blocks[0])
    if any(_signature(module, block) != signature for block in blocks[1:]):
        return None
    carried = _carried(blocks)
    if carried and _layers_differ(module, blocks, carried):
        return None
    return Loop(prefix, tuple(tuple(b) for b in blocks), carried) if carried else None


def _outside(block: Sequence[Node]) -> list[Node]:
    """Data nodes that a block reads from outside, in order of first use."""
    inside, found = set(block), dict[Node, None]()
    for node in block:
        for source in node.all_input_nodes:
            if source not in inside and source.op != "get_attr":
                found[source] = None
    return list(found)


def _carried(blocks: list[list[Node]]) -> tuple[tuple[Node, int], ...] | None:
    """Loop-carried values, or None where the blocks are no chain."""
    inputs = [_outside(b) for b in blocks]
    carried: list[tuple[Node, int]] = []
    for slot, first in enumerate(inputs[0]):
        sources = [i[slot] for i in inputs]
        if all(s is first for s in sources) and first.op == "placeholder":
            continue  # the same input (a mask) for every layer
        previous = [b.index(s) if s in b else -1 for s, b in zip(sources[1:], blocks, strict=False)]
        if len(set(previous)) != 1 or previous[0] < 0:
            return None
        carried.append((first, previous[0]))
    positions = {p for _, p in carried}
    if len(positions) != len(carried):
        return None
    for number, block in enumerate(blocks):
        following = set(blocks[number + 1]) if number + 1 < len(blocks) else None
        for position, node in enumerate(block):
            for user in node.users:
                if user in block or (following is not None and user in following and position in positions):
                    continue
                if following is not None or position not in positions:
                    return None
    return tuple(carried)


def _layers_differ(
    module: fx.GraphModule, blocks: list[list[Node]], carried: tuple[tuple[Node, int], ...]
) -> bool:
    """Would one stream have to carry values of different kinds from layer to layer?

    Rows with exponents of their own (behind a table, for a linear layer) come with another stream,
    and rows of another width have other tokens. Such layers stay flat.
    """
    width = widths_of(module)
    for first, position in carried:
        enters = [u for u in first.users if u in blocks[0]]
        sources = [(first, enters), *((b[position], list(b[position].users)) for b in blocks[:-1])]
        if any(
            n.target in (activation, multiply) and any(u.target is linear for u in users)
            for n, users in sources
        ):
            return True
        if len({width[first], *(width[b[position]] for b in blocks)}) > 1:
            return True
    return False


def widths_of(module: fx.GraphModule) -> dict[Node, int]:
    """Channels of every value of a canonical graph."""
    found: dict[Node, int] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node] = int(node.meta["shape"][-1])
        elif node.target in (linear, layer_norm):
            found[node] = attribute(module, str(node.args[1].target)).shape[0]
        elif node.target is embed:
            table = node.args[1][0] if node.args[1] else node.args[2]
            found[node] = attribute(module, str(table.target)).shape[1]
        elif node.target is slice_channels:
            found[node] = node.args[2]
        elif node.target is concat_channels:
            found[node] = sum(found[a] for a in node.args)
        elif node.op == "call_function":
            found[node] = found[node.args[0]]
    return found


class Roll(GraphPass):
    """Leaves the loop in ``module.meta["loop"]`` (None where there is none)."""

    name = "roll"
    requires = ("fused",)
    ensures = ("rolled",)

    def call(self, module: fx.GraphModule) -> bool:
        module.meta["loop"] = find_loop(module)
        return False
