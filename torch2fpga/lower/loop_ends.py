# SPDX-License-Identifier: Apache-2.0
"""The two ends of the layer loop: which formats of which values go round, and which go on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch2fpga.errors import CompileError
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage
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
            if source in b.exponents:
                raise CompileError(f"{first.meta['path']}: a value with row exponents crosses layers")
            base = f"{re.sub(r'[^a-z0-9_]', '_', first.name.lower())}_{role}"
            back = b.stream(f"{base}_back", like.kind, element=like.element, layout=like.layout)
            out = b.stream(f"{base}_entered", like.kind, element=like.element, layout=like.layout)
            stage = LoopEnterStage(
                b.unique(f"enter_{base}"), "layer loop", "loop", b.steps, (source, back), (out,),
                like=like,
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


def _one_exit(b: Builder, node: Node, last: Node, role: str, back: bool, on: bool) -> None:
    source = b.values[node, role]
    like = b.streams[source]
    base = source
    outputs: list[str] = []
    if back:
        outputs.append(b.entered[node, f"back:{role}"])
    if on:
        out = b.stream(f"{base}_last", like.kind, element=like.element, layout=like.layout)
        b.values[last, role] = out
        outputs.append(out)
    mode = "both" if back and on else ("back" if back else "last")
    name = b.unique(f"exit_{base}")
    stage = LoopExitStage(
        name, "layer loop", "loop", b.steps, (source,), tuple(outputs), like=like, mode=mode
    )
    b.add(stage, [{} for _ in range(b.steps)])
