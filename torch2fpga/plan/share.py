# SPDX-License-Identifier: Apache-2.0
"""Put the lanes in the place of the linear layers that share them (``lower/lanes.py``).

This is the last step of a plan: everything that is sized and placed by what the layers mean (FIFOs, links)
is done by then, with layers that give nothing out before a whole sequence is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch2fpga.design import Design, Kernel, Port, Stage, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.lanes import LanesDealStage, LanesGatherStage, LanesSelectStage, LaneStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.plumbing import RelayStage
from torch2fpga.plan.split import constants_of, copy_of

#: words that wait in front of a lane while it waits for its input: a URAM block is so deep
PREFETCH = 4096
#: tiles on the way from a lane to the next
CHAIN = 16


def members(design: Design) -> list[MatmulStage]:
    """The layers that share the lanes, in order."""
    return [s for s in design.logic or design.stages if isinstance(s, MatmulStage) and s.lanes]


def _in_turn(layers: list[MatmulStage]) -> list[MatmulStage]:
    """Layers in the order of their uses: those of the loop, then those behind it."""
    return sorted(layers, key=lambda layer: layer.group != "loop")


def lane_limit(design: Design) -> int:
    """Lanes that no layer makes fewer channel blocks than."""
    lanes = design.shape.lanes
    return min(s.layout_out.blocks(lanes) for s in design.stages if isinstance(s, MatmulStage))


def mark_shared(design: Design, count: int) -> Design:
    """The design with ``count`` lanes for all of its linear layers, which are still stages of their own."""
    stages = tuple(replace(s, lanes=count) if isinstance(s, MatmulStage) else s for s in design.stages)
    return replace(design, stages=stages)


def share_lanes(design: Design, prefetch: int = PREFETCH) -> Design:
    """The lanes in the place of the layers that are marked (``mark_shared``); without such, the same design.

    Args:
        design: with kernels and FIFOs.
        prefetch: words in front of each lane.
    Raises:
        DesignError: for layers that cannot share lanes, in several kernels say, with all of the reasons.
    """
    layers = members(design)
    if not layers:
        return design
    owner = {s: k for k in design.kernels for s in k.stages}
    problems = _problems(design, layers, {owner[layer.name] for layer in layers})
    if problems:
        text = "".join(f"\n  - {p}" for p in problems)
        raise DesignError(
            f"these layers cannot share lanes (lanes = 0 gives each an array of its own):{text}"
        )
    kernel = owner[layers[0].name]
    stages, streams, ports = made_lanes(design, layers, prefetch)
    ways = _ways_out(design, layers, stages[-1], kernel)
    gone = {layer.name for layer in layers} | ways.relays
    kept = tuple(s for s in design.stages if s.name not in gone)
    dropped = {layer.inputs[1] for layer in layers} | {layer.outputs[0] for layer in layers}
    shown = {n: s for n, s in design.streams.items() if n not in dropped}
    old = [p for p in design.ports if not dropped & set(p.streams)]
    stages = stages[:-1]  # what the lanes gather leaves the kernel at once
    changed = [_kernel(k, design, stages, gone, layers[-1].name, kernel) for k in design.kernels]
    return replace(
        design,
        stages=(*ways.deals.values(), *_behind(design.stages, kept, stages, layers[-1].name)),
        streams={**shown, **streams, **ways.links},
        ports=(*(replace(p, kernel=kernel.name) for p in ports), *old),
        kernels=tuple(ways.into(k, kernel, dropped) for k in changed),
        logic=design.stages,
    )


def _problems(design: Design, layers: list[MatmulStage], kernels: set[Kernel]) -> list[str]:
    """Why layers cannot share lanes, and what to do about it."""
    found = []
    memory = {p.kernel for p in design.ports if p.streams[0] in {a.inputs[1] for a in layers}}
    if {k.name for k in kernels} != memory:
        where = ", ".join(f"SLR{slr}" for slr in sorted(k.slr for k in kernels))
        found.append(f"they lie in {where}: all of them belong in the SLR beside the memory")
    if design.shape.max_batch > 1:
        found.append(f"lanes take one sequence a launch, not {design.shape.max_batch}: compile with one")
    if len({(type(a), getattr(a, "group_size", 0)) for a in layers}) > 1:
        found.append("lanes take one format of weights: compile all layers with the same precision")
    if not any(a.group == "loop" for a in layers):
        found.append("there is no layer loop whose layers could take turns")
    for a in layers:
        if a.group == "before":
            found.append(
                f"{a.name} stands in front of the layer loop: lanes are for the layers in and behind it"
            )
        elif a.one_row != (a.group == "after"):
            rows = "one row" if a.one_row else "all rows"
            found.append(
                f"{a.name} works on {rows}: lanes take all rows in the layer loop, one row behind it"
            )
    narrow = {a.name: a.layout_out.blocks(design.shape.lanes) for a in layers}
    narrow = {name: blocks for name, blocks in narrow.items() if blocks < layers[0].lanes}
    if narrow:
        most = ", ".join(f"{name} {blocks}" for name, blocks in narrow.items())
        found.append(f"{layers[0].lanes} lanes are more than the channel blocks that layers make ({most})")
    return found


@dataclass(frozen=True)
class _WaysOut:
    """How sums leave the kernel of the lanes: one link to the nearest kernel, and from there on to the next.

    Attributes:
        deals: kernel -> its stage, which deals out what is for the kernel and hands on the rest.
        links: streams between them; the first one begins behind the lanes.
        relays: stages that were at the near ends of the links that these take the place of.
    """

    deals: Mapping[str, LanesDealStage]
    links: Mapping[str, Stream]
    relays: frozenset[str]

    def into(self, kernel: Kernel, own: Kernel, gone: set[str]) -> Kernel:
        """A kernel with its end of the links, without those that are gone."""
        into = tuple(n for n in kernel.axis_in if n not in gone)
        out = tuple(n for n in kernel.axis_out if n not in gone)
        if kernel.name == own.name:
            return replace(kernel, axis_in=into, axis_out=(*out, *list(self.links)[:1]))
        deal = self.deals.get(kernel.name)
        if deal is None:
            return replace(kernel, axis_in=into, axis_out=out)
        stages = (deal.name, *(s for s in kernel.stages if s not in self.relays))
        onward = tuple(n for n in deal.outputs if n in self.links)
        return replace(kernel, stages=stages, axis_in=(*into, *deal.inputs), axis_out=(*out, *onward))


def _ways_out(design: Design, layers: list[MatmulStage], deal: Stage, kernel: Kernel) -> _WaysOut:
    """Links of sums in the place of one for each layer, which the boundaries would not have wires for."""
    assert isinstance(deal, LanesDealStage)
    reader = {n: k for k in design.kernels for n in k.axis_in}
    relay = {s.inputs[0]: s for s in design.stages if isinstance(s, RelayStage)}
    where = [reader.get(n, kernel).name for n in deal.outputs]
    if kernel.name in where or any(n not in relay for n in deal.outputs):
        raise DesignError(
            f"what layers that share lanes give must be read outside of kernel {kernel.name}: the stages "
            f"behind them must lie in other SLRs than SLR{kernel.slr}"
        )
    targets = sorted({reader[n] for n in deal.outputs}, key=lambda k: abs(k.slr - kernel.slr))
    depth = max(design.streams[n].depth for n in deal.outputs)
    names = [deal.inputs[0], *(f"sums_to_{k.name}" for k in targets[1:])]
    links = {n: Stream(n, "sums", "int32", depth=depth, link=True) for n in names}
    deals = {}
    for number, target in enumerate(targets):
        behind = {k.name for k in targets[number + 1 :]}
        own = [relay[n].outputs[0] for n, w in zip(deal.outputs, where, strict=True) if w == target.name]
        near = (*own, *((names[number + 1],) if behind else ()))
        slots = tuple(
            near.index(relay[n].outputs[0]) if w == target.name else len(own) if w in behind else -1
            for n, w in zip(deal.outputs, where, strict=True)
        )
        deals[target.name] = replace(
            deal, name=f"lanes_deal_{target.name}", inputs=(names[number],), outputs=near, slots=slots
        )
    return _WaysOut(deals, links, frozenset(relay[n].name for n in deal.outputs))


def made_lanes(
    design: Design, layers: list[MatmulStage], prefetch: int
) -> tuple[list[Stage], dict[str, Stream], list[Port]]:
    """Stages, streams and ports of the lanes."""
    s, count = design.shape, layers[0].lanes
    ordered = _in_turn(layers)
    common: dict[str, Any] = {
        "path": "all linear layers",
        "group": "loop",
        "steps": design.steps,
        "in_blocks": tuple(a.layout_in.blocks(s.lanes) for a in ordered),
        "out_blocks": tuple(a.layout_out.blocks(s.lanes) for a in ordered),
        "loop_uses": sum(layer.group == "loop" for layer in layers),
        "count": count,
        "group_blocks": int(getattr(ordered[0], "group_blocks", 0)),
    }
    streams = [Stream(f"lane_{i}_tiles", "tiles", str(s.tile), depth=CHAIN) for i in range(count)]
    streams += [Stream(f"lane_{i}_words", "words", depth=prefetch) for i in range(count)]
    streams += [Stream(f"lane_{i}_sums", "sums", "int32", depth=4 * s.tile) for i in range(count)]
    streams += [Stream("lanes_sums", "sums", "int32", depth=4 * s.tile)]
    chain = [
        LaneStage(
            name=f"lane_{i}",
            inputs=(f"lane_{i}_tiles", f"lane_{i}_words"),
            outputs=(*((f"lane_{i + 1}_tiles",) if i + 1 < count else ()), f"lane_{i}_sums"),
            number=i,
            **common,
        )
        for i in range(count)
    ]
    select = LanesSelectStage(
        name="lanes_select", inputs=tuple(a.inputs[0] for a in ordered), outputs=("lane_0_tiles",), **common
    )
    gather = LanesGatherStage(
        name="lanes_gather", inputs=tuple(f"lane_{i}_sums" for i in range(count)), outputs=("lanes_sums",),
        **common,
    )  # fmt: skip
    deal = LanesDealStage(
        name="lanes_deal", inputs=("lanes_sums",), outputs=tuple(a.outputs[0] for a in ordered),
        slots=tuple(range(len(ordered))), **common,
    )  # fmt: skip
    taken = {x.name for x in design.stages} | set(design.streams)
    new = {"lanes_select", "lanes_gather", "lanes_deal", *(x.name for x in chain), *(x.name for x in streams)}
    if taken & new:
        raise DesignError(f"lanes cannot be made: {', '.join(sorted(taken & new))} exist already")
    ports = [_port(lane, design) for lane in chain]
    return [select, *chain, gather, deal], {x.name: x for x in streams}, ports


def _port(lane: LaneStage, design: Design) -> Port:
    words = lane.words(design)
    step, after = sum(words[: lane.loop_uses]), sum(words[lane.loop_uses :])
    config = {
        "steps": lane.steps,
        "loop_uses": lane.loop_uses,
        "step_words": step,
        "after_words": after,
        "words": words,
    }
    return Port(
        f"{lane.name}_weights_in", "", "read", "weights", lane.name, step * lane.steps + after,
        "read_lane_words", (lane.inputs[1],), config,
    )  # fmt: skip


def _behind(
    stages: tuple[Stage, ...], kept: tuple[Stage, ...], made: list[Stage], last: str
) -> tuple[Stage, ...]:
    """``made`` where the last layer was: what brings the inputs of all stands in front of it."""
    at = next(i for i, s in enumerate(stages) if s.name == last)
    before = {s.name for s in stages[:at]}
    return (*(s for s in kept if s.name in before), *made, *(s for s in kept if s.name not in before))


def _kernel(
    kernel: Kernel, design: Design, made: list[Stage], gone: set[str], last: str, own: Kernel
) -> Kernel:
    if kernel.name != own.name:
        return kernel
    by_name = {s.name: s for s in design.stages}
    stages = tuple(by_name[n] for n in kernel.stages)
    kept = tuple(s for s in stages if s.name not in gone)
    return replace(kernel, stages=tuple(s.name for s in _behind(stages, kept, made, last)))


def dealt_sums(design: Design) -> dict[str, list[tuple[Stream, int]]]:
    """Stream of sums that is dealt out -> (stream of a layer's own, step) that pass over it, in order."""
    layers = _in_turn(members(design))
    own = [Stream(a.outputs[0], "rows", "int32", a.layout_out, a.one_row) for a in layers]
    found = {}
    for deal in (s for s in design.stages if isinstance(s, LanesDealStage)):
        uses = [u for u, slot in enumerate(deal.slots) if slot >= 0]
        loop = [(own[u], step) for step in range(deal.steps) for u in uses if u < deal.loop_uses]
        found[deal.inputs[0]] = [*loop, *((own[u], 0) for u in uses if u >= deal.loop_uses)]
    return found


def lane_weights(design: Design, data: Mapping[str, Any], lane: LaneStage) -> Iterator[bytes]:
    """The image of a lane's port: step by step its blocks of every layer, then those behind the loop."""
    for group in ("loop", "after"):
        layers = [layer for layer in members(design) if layer.group == group]
        for step in range(design.steps if group == "loop" else 1):
            for layer in layers:
                part = copy_of(design, layer, lane.number, lane.count)
                own = constants_of(design, layer, data[layer.name][step], lane.number, lane.count)
                yield part.weight_image(own, design)
