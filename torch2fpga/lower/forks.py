# SPDX-License-Identifier: Apache-2.0
"""A stream has one reader: duplicate those that have more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch2fpga.design import Stage
from torch2fpga.lower.plumbing import ForkStage, LoopExitStage

if TYPE_CHECKING:
    from torch2fpga.lower.builder import Builder


def insert_forks(b: Builder) -> None:
    """A stream has one reader: duplicate those that have more."""
    readers: dict[str, list[tuple[int, int]]] = {}
    for number, stage in enumerate(b.stages):
        for slot, name in enumerate(stage.inputs):
            readers.setdefault(name, []).append((number, slot))
    insert: list[tuple[int, Stage]] = []
    for name, uses in readers.items():
        if len(uses) > 1:
            insert += _fork_one(b, name, uses)
    for before, stage in sorted(insert, key=lambda x: -x[0]):
        b.stages.insert(before, stage)


def fork_to(b: Builder, source: str, wanted: list[str], group: str, path: str) -> list[Stage]:
    """Forks one behind the other from a stream to the wanted ones (two at least), of one use a launch.

    The caller says where they stand.
    """
    made: list[Stage] = []
    left = list(wanted)
    while left:
        own, left = (left[:2], left[2:]) if len(left) > 3 else (left, [])
        like = b.streams[source]
        more = [b.unique(f"{source}_on")] if left else []
        b.streams.update({n: replace(like, name=n) for n in more})
        stage = ForkStage(
            b.unique(f"fork_{source}"), path, group, 1, (source,), (*own, *more),
            one_row=like.one_row, like=like,
        )  # fmt: skip
        b.data[stage.name] = [{}]
        made.append(stage)
        source = (more or [source])[0]
    return made


def _fork_one(b: Builder, name: str, uses: list[tuple[int, int]]) -> list[tuple[int, Stage]]:
    stream, made = b.streams[name], []
    source = name
    left = list(uses)
    reader_stage = b.stages[uses[0][0]]
    while len(left) > 1:
        width = min(3, len(left))
        more = len(left) > width
        outputs = [b.unique(f"{name}_copy") for _ in range(width)]
        b.streams.update({o: replace(stream, name=o) for o in outputs})
        own = len(outputs) - (1 if more else 0)
        for (number, slot), out in zip(left[:own], outputs, strict=False):
            inputs = list(b.stages[number].inputs)
            inputs[slot] = out
            b.stages[number] = replace(b.stages[number], inputs=tuple(inputs))
        left = left[own:]
        writer = next((s for s in b.stages if name in s.outputs), None)
        group = reader_stage.group if writer is None else writer.group
        if writer is not None and isinstance(writer, LoopExitStage):
            group = "after"
        steps = b.loop.steps if group == "loop" and b.loop is not None else 1
        stage = ForkStage(
            b.unique(f"fork_{name}"), writer.path if writer else "", group, steps, (source,),
            tuple(outputs), one_row=stream.one_row, like=stream,
        )  # fmt: skip
        b.data[stage.name] = [{} for _ in range(steps)]
        made.append((uses[0][0], stage))
        source = outputs[-1]
    return list(reversed(made))
