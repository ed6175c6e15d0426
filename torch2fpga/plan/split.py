# SPDX-License-Identifier: Apache-2.0
"""Rewrite the multiplier arrays of a design: more copies, other widths, weights kept elsewhere.

All functions take a design before kernels are cut and FIFOs are sized, and give a new one that computes
the same values on every stream that both have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

from torch import Tensor

from torch2fpga.design import Design, Layout, Port, Stage, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.deal import DealStage
from torch2fpga.lower.gather import MOST, GatherStage, blocks_of
from torch2fpga.lower.linear import MatmulStage, pad_channels
from torch2fpga.lower.plumbing import ForkStage
from torch2fpga.weights.store import kept_tensor

#: outputs of a fork
FORK_WIDTH = 3

Data = Mapping[str, Sequence[Mapping[str, Any]]]
Constants = dict[str, list[Mapping[str, Any]]]
T = TypeVar("T", Stage, Port)


def copy_name(name: str, number: int) -> str:
    """Name of one of several arrays of a linear layer (``fc_1`` is what a second layer ``fc`` is called)."""
    return f"{name}_array{number}"


def split_linear(
    design: Design, data: Data, name: str, copies: int, ports: int = 0
) -> tuple[Design, Constants]:
    """Make a linear layer of several arrays, each of which makes every ``copies``-th output block.

    The stage ``name`` becomes ``name_array0`` ...; its input is forked to all of them and their outputs are
    gathered into the stream that it wrote. Each array has a memory port of its own, or some share one.
    Row exponents are not touched: they go around the array.

    Args:
        design: without kernels.
        data: constants of every stage, one dictionary a step; not changed. A layer that has none (in
            a design planned without weights) is split without them.
            A stage without an entry is split without constants.
        copies: 1 (nothing happens) to 16, and no more than output blocks.
        ports: memory ports of all copies; 0: one each. Streamed weights do not share ports.
    Raises:
        DesignError: if there is no such linear layer, or it has fewer blocks.
    """
    stage = _array(design, name)
    blocks = stage.layout_out.blocks(design.shape.lanes)
    if not 1 <= copies <= min(MOST, blocks):
        raise DesignError(
            f"{name} makes {blocks} channel blocks: it can have 1 to {min(MOST, blocks)} arrays, not {copies}"
        )
    if copies == 1:
        return design, {k: list(v) for k, v in data.items()}
    parts = [_copy(design, stage, i, n) for i, n in enumerate(blocks_of(blocks, copies))]
    taken = {s.name for s in design.stages} | set(design.streams) | {p.name for p in design.ports}
    new = {n for p in parts for n in (p.name, *p.inputs, *p.outputs)}
    forks, streams = _forks(design, stage, [p.inputs[0] for p in parts])
    new |= {f.name for f in forks} | set(streams)
    gather = GatherStage(
        f"{name}_gather", stage.path, stage.group, stage.steps, tuple(p.outputs[0] for p in parts),
        stage.outputs, one_row=stage.one_row, layout=stage.layout_out, lanes=design.shape.lanes,
    )  # fmt: skip
    new.add(gather.name)
    if new & taken:
        raise DesignError(f"{name} cannot be split: {', '.join(sorted(new & taken))} exist already")
    for part in parts:
        streams[part.inputs[1]] = replace(design.streams[stage.inputs[1]], name=part.inputs[1])
        out = replace(design.streams[stage.outputs[0]], name=part.outputs[0], layout=part.layout_out)
        streams[out.name] = out
    found: Constants = {k: list(v) for k, v in data.items() if k != name}
    for i, part in enumerate(parts if name in data else ()):
        found[part.name] = [_constants(design, stage, step, i, copies) for step in data.get(name, ())]
    for extra in (*forks, gather):
        found[extra.name] = [{} for _ in range(extra.steps)]
    changed = replace(
        design,
        stages=_instead(design.stages, name, (*forks, *parts, gather)),
        streams={**{k: s for k, s in design.streams.items() if k != stage.inputs[1]}, **streams},
    )
    own = _weight_port(design, stage).name
    if not 0 <= ports <= copies or (stage.streamed and ports not in (0, copies)):
        raise DesignError(f"{copies} arrays of {name} cannot share {ports} ports")
    shared = [parts[a:b] for a, b in pairwise(shares(copies, ports or copies))]
    found_ports = []
    for number, group in enumerate(shared):
        port = group[0].weight_port(changed, group[0].inputs[1])
        if len(group) > 1:
            deal, words = _deal(changed, stage, number, group)
            changed = replace(
                changed,
                stages=_instead(changed.stages, group[0].name, (deal, group[0])),
                streams={**changed.streams, words.name: words},
            )
            found[deal.name] = [{} for _ in range(deal.steps)]
            port = _dealt_port(port, deal)
        found_ports.append(port)
    return replace(changed, ports=_instead(design.ports, own, tuple(found_ports))), found


def shares(copies: int, ports: int) -> list[int]:
    """Where the copies of each port begin, and the end."""
    return [number * copies // ports for number in range(ports + 1)]


def _deal(
    design: Design, stage: MatmulStage, number: int, group: Sequence[MatmulStage]
) -> tuple[DealStage, Stream]:
    """The stage that hands a port's words to some copies, and the stream that brings them."""
    name = f"{stage.name}_deal_{number}"
    words = Stream(f"{name}_words", "words", depth=design.streams[group[0].inputs[1]].depth)
    deal = DealStage(
        name, stage.path, stage.group, stage.steps, (words.name,), tuple(c.inputs[1] for c in group),
        one_row=stage.one_row, words=tuple(c.weight_words(design) for c in group),
        arrays=tuple(c.name for c in group),
    )  # fmt: skip
    return deal, words


def _dealt_port(port: Port, deal: DealStage) -> Port:
    """The memory port in front of it: the words of its copies, step by step."""
    words = sum(deal.words)
    return replace(
        port,
        name=f"{deal.name}_weights_in",
        binding=deal.name,
        words=words * deal.steps,
        streams=deal.inputs,
        config={**port.config, "words": words},
    )


def set_columns(design: Design, name: str, columns: int) -> Design:
    """Give an array (of a linear layer or of attention) another number of output channels a cycle.

    Raises:
        DesignError: if there is no such stage, it has no array, or the number is none it can have.
    """
    stage = _stage(design, name)
    if not hasattr(stage, "columns"):
        raise DesignError(f"{name} has no multiplier array")
    if columns < 1 or design.shape.lanes % columns:
        raise DesignError(f"{name}: columns divide the {design.shape.lanes} lanes, {columns} do not")
    changed: Stage = replace(stage, columns=columns)  # type: ignore[call-arg]
    changed.config(design)  # refuses fewer weights a cycle than a memory word
    return replace(design, stages=_instead(design.stages, name, (changed,)))


def set_keep(design: Design, name: str, keep: str) -> Design:
    """Say where the weights of a linear layer are while rows pass (``MatmulStage.keep``).

    Raises:
        DesignError: if there is no such linear layer or place.
    """
    stage = _array(design, name)
    changed = replace(stage, keep=keep)
    port = _weight_port(design, stage)
    other = changed.weight_port(design, changed.inputs[1])
    ports = _instead(design.ports, port.name, (replace(other, name=port.name),))
    return replace(design, stages=_instead(design.stages, name, (changed,)), ports=ports)


def _stage(design: Design, name: str) -> Stage:
    if design.kernels:
        raise DesignError("stages are rewritten before kernels are cut")
    found = next((s for s in design.stages if s.name == name), None)
    if found is None:
        raise DesignError(f"there is no stage {name}")
    return found


def _array(design: Design, name: str) -> MatmulStage:
    stage = _stage(design, name)
    if not isinstance(stage, MatmulStage):
        raise DesignError(f"{name} is no linear layer")
    return stage


def _weight_port(design: Design, stage: MatmulStage) -> Port:
    return next(p for p in design.ports if p.streams == (stage.inputs[1],))


def _instead(items: tuple[T, ...], name: str, new: tuple[T, ...]) -> tuple[T, ...]:
    """The items with others in the place of one."""
    at = next(i for i, item in enumerate(items) if item.name == name)
    return items[:at] + new + items[at + 1 :]


def _copy(design: Design, stage: MatmulStage, number: int, blocks: int) -> MatmulStage:
    name = copy_name(stage.name, number)
    return replace(
        stage,
        name=name,
        inputs=(f"{stage.inputs[0]}_to_{name}", f"{name}_weights"),
        outputs=(f"{name}_acc",),
        layout_out=Layout(1, blocks * design.shape.lanes),
    )


def _constants(
    design: Design, stage: MatmulStage, step: Mapping[str, Any], number: int, copies: int
) -> Mapping[str, Any]:
    """Weights of every ``copies``-th output block; channels that only fill up a block are zero."""
    lanes = design.shape.lanes
    found = dict(step)
    for key in stage.by_output:
        given = (step[key], stage.layout_out, lanes, number, copies)
        what = f"{key} of {copy_name(stage.name, number)}"
        found[key] = kept_tensor(what, ("copy", *given), step[key].numel() // copies, partial(_own, *given))
    return found


def _own(value: Tensor, layout: Layout, lanes: int, number: int, copies: int) -> Tensor:
    rows = pad_channels(value, layout, lanes, 0)
    blocks = rows.reshape(-1, lanes, rows.shape[1])[number::copies]
    return blocks.reshape(-1, rows.shape[1]).contiguous()


def copy_of(design: Design, stage: MatmulStage, number: int, copies: int) -> MatmulStage:
    """The array that makes every ``copies``-th output block of a layer from ``number`` on, streamed."""
    blocks = blocks_of(stage.layout_out.blocks(design.shape.lanes), copies)[number]
    return replace(_copy(design, stage, number, blocks), keep="streamed")


def constants_of(
    design: Design, stage: MatmulStage, step: Mapping[str, Any], number: int, copies: int
) -> Mapping[str, Any]:
    """The constants of that array for a step."""
    return _constants(design, stage, step, number, copies)


def _forks(
    design: Design, stage: MatmulStage, wanted: list[str]
) -> tuple[list[ForkStage], dict[str, Stream]]:
    """Forks from the stage's input to the wanted streams, one behind the other, and their streams."""
    source = design.streams[stage.inputs[0]]
    streams: dict[str, Stream] = {n: replace(source, name=n) for n in wanted}
    made: list[ForkStage] = []
    left, reads = list(wanted), source.name
    while left:
        outputs, left = left[:FORK_WIDTH], left[FORK_WIDTH:]
        if left:  # the last output goes on to the next fork
            left.insert(0, outputs[-1])
            outputs[-1] = f"{stage.name}_rest_{len(made)}"
            streams[outputs[-1]] = replace(source, name=outputs[-1])
        made.append(
            ForkStage(
                f"{stage.name}_fork_{len(made)}", stage.path, stage.group, stage.steps, (reads,),
                tuple(outputs), one_row=source.one_row, like=source,
            )
        )  # fmt: skip
        reads = outputs[-1]
    return made, streams
