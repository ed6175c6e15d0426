# SPDX-License-Identifier: Apache-2.0
"""The two ends of the layer loop: which formats of which values go round, and which go on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch2fpga.design import Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage
from torch2fpga.lower.regroup import regrouped
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.quantise import demands

if TYPE_CHECKING:
    from torch2fpga.lower.builder import Builder


def _carried_roles(b: Builder, position: int) -> tuple[set[str], set[str]]:
    """Roles that the next layer, and that the code behind the loop, want of a node."""
    assert b.loop is not None
    back: set[str] = set()
    for instance, following in zip(b.loop.instances, b.loop.instances[1:], strict=False):
        inside = set(following)
        back |= {r for r, users in demands(instance[position]).items() if any(u in inside for u in users)}
    last = set(b.loop.instances[-1])
    on = {
        r for r, users in demands(b.loop.instances[-1][position]).items() if any(u not in last for u in users)
    }
    return back, on


def open_loop(b: Builder) -> None:
    assert b.loop is not None
    for first, position in b.loop.carried:
        for role in sorted(_carried_roles(b, position)[0]):
            source = b.values[first, role]
            like = b.streams[source]
            if source in b.exponents:  # find_loop gives no such loop
                raise DesignError(f"{first.meta['path']}: a value with row exponents crosses layers")
            base = f"{re.sub(r'[^a-z0-9_]', '_', first.name.lower())}_{role}"
            back, out = (_another(b, f"{base}_{end}", like) for end in ("back", "entered"))
            stage = LoopEnterStage(
                b.unique(f"enter_{base}"), "layer loop", "loop", b.steps, (source, back), (out,),
                one_row=like.one_row, like=like,
            )  # fmt: skip
            b.add(stage, [{} for _ in range(b.steps)])
            b.entered[first, role] = out
            b.entered[b.loop.instances[0][position], f"back:{role}"] = back
            sources = (first, *(i[position] for i in b.loop.instances[:-1]))
            b.native[out] = (role, sources)


def close_loop(b: Builder) -> None:
    assert b.loop is not None
    positions = {p for _, p in b.loop.carried}
    for position, node in enumerate(b.loop.instances[0]):
        last = b.loop.instances[-1][position]
        back_roles, on_roles = _carried_roles(b, position)
        if position not in positions:
            back_roles = set()
        for role in sorted(back_roles | on_roles):
            _one_exit(b, node, last, role, role in back_roles, role in on_roles)


def _another(b: Builder, name: str, like: Stream) -> str:
    """A stream of the same tokens."""
    return b.stream(name, like.kind, element=like.element, layout=like.layout, one_row=like.one_row)


def _one_exit(b: Builder, node: Node, last: Node, role: str, back: bool, on: bool) -> None:
    source = b.values[node, role]
    outputs: list[str] = []
    if back:
        outputs.append(b.entered[node, f"back:{role}"])
        source = regrouped(b, node, source, b.layout(outputs[0]))  # as the first layer gets it
    if on:
        b.values[last, role] = _another(b, f"{source}_last", b.streams[source])
        outputs.append(b.values[last, role])
    _exit(b, source, tuple(outputs), "both" if back and on else ("back" if back else "last"))
    if source in b.exponents:
        exponents = b.exponents[source]
        b.exponents[b.values[last, role]] = _another(b, f"{exponents}_last", b.streams[exponents])
        _exit(b, exponents, (b.exponents[b.values[last, role]],), "last")


def _exit(b: Builder, source: str, outputs: tuple[str, ...], mode: str) -> None:
    like = b.streams[source]
    stage = LoopExitStage(
        b.unique(f"exit_{source}"), "layer loop", "loop", b.steps, (source,), outputs, one_row=like.one_row,
        like=like, mode=mode,
    )  # fmt: skip
    b.add(stage, [{} for _ in range(b.steps)])
