# SPDX-License-Identifier: Apache-2.0
"""Kernels: any stage in any SLR, memory ports in one, links at every crossing, the layer loop returns."""

from __future__ import annotations

import dataclasses

import pytest

from tests.plan.placements import placed, random_place, without_kernels
from tests.tiny import compiled, named
from torch2fpga.boards import U280
from torch2fpga.design import Design, Layout, Shape, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower.attention import ValuesStage
from torch2fpga.lower.plumbing import LoopEnterStage, LoopExitStage, RelayStage
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.partition import LINK_DEPTH, contiguous, link_depth, partition
from torch2fpga.verifier import verify_design

NAMES = named("bert", "gpt2", "distilbert", "encoder", "mlp3d")


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_and_port_has_one_kernel(name: str) -> None:
    design = compiled(name).design
    stages = [s for k in design.kernels for s in k.stages]
    assert sorted(stages) == sorted(s.name for s in design.stages)
    assert {p.kernel for p in design.ports} == {design.kernels[0].name}
    assert len(design.kernels) == (1 if name == "mlp3d" else 3)
    assert [k.slr for k in design.kernels] == list(range(len(design.kernels)))


@pytest.mark.parametrize("name", NAMES)
def test_links_go_forward_except_the_loop(name: str) -> None:
    design = compiled(name).design
    position = {s: i for i, k in enumerate(design.kernels) for s in k.stages}
    writers, readers = design.writers(), design.readers()
    backwards = []
    for stream in design.streams.values():
        if stream.kind == "words" or stream.name not in readers or writers.get(stream.name) not in position:
            continue
        here, there = position[writers[stream.name]], position[readers[stream.name]]
        assert stream.link == (here != there), stream.name
        if there < here:
            backwards.append(stream.name)
    back = {s.outputs[0] for s in design.stages if isinstance(s, LoopExitStage) and s.mode != "last"}
    assert set(backwards) == back


@pytest.mark.parametrize("name", NAMES)
def test_links_between_stages_end_in_relays(name: str) -> None:
    """Words of memory go straight to the stage (or the process) that takes them."""
    design = compiled(name).design
    writers, readers = design.writers(), design.readers()
    stages = {s.name: s for s in design.stages}
    links = [s for s in design.streams.values() if s.link]
    for link in links:
        relayed = isinstance(stages.get(readers[link.name]), RelayStage)
        assert relayed == (writers[link.name] in stages and readers[link.name] in stages), link.name
        assert relayed or link.kind == "words"
    for kernel in design.kernels:
        assert {*kernel.axis_in, *kernel.axis_out} <= {s.name for s in links}
    ends = [n for k in design.kernels for n in k.axis_in], [n for k in design.kernels for n in k.axis_out]
    assert sorted(ends[0]) == sorted(ends[1]) == sorted(s.name for s in links)


@pytest.mark.parametrize("name", NAMES)
def test_within_a_kernel_every_stream_is_written_before_it_is_read(name: str) -> None:
    design = compiled(name).design
    for kernel in design.kernels:
        done = set(kernel.axis_in)
        done |= {x for p in design.ports if p.kernel == kernel.name for x in p.streams}
        assert kernel.parameters is None or kernel.parameters in done
        for stage in (design.stage(s) for s in kernel.stages):
            assert set(stage.inputs) <= done, (stage.name, set(stage.inputs) - done)
            done |= set(stage.outputs)


def test_the_loop_opens_in_the_first_kernel_and_closes_in_the_last() -> None:
    design = compiled("encoder").design
    where = {s: i for i, k in enumerate(design.kernels) for s in k.stages}
    assert {where[s.name] for s in design.stages if isinstance(s, LoopEnterStage)} == {0}
    assert {where[s.name] for s in design.stages if isinstance(s, LoopExitStage)} == {len(design.kernels) - 1}


# -- any stage in any SLR ---------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_one_assignment_of_many(name: str) -> None:
    design = compiled(name).design
    bare = without_kernels(design)
    slr = {s: k.slr for k in design.kernels for s in k.stages}
    default = contiguous(bare, len(design.kernels))
    assert default == {s.name: slr[s.name] for s in bare.stages}
    assert size_fifos(partition(bare, default)) == size_fifos(partition(bare, count=len(design.kernels)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES)
def test_random_assignments(name: str, seed: int) -> None:
    bare = without_kernels(compiled(name).design)
    place = random_place(bare, seed)
    design = placed(bare, place)  # verified: no cycle inside a kernel, links at the edges
    assert [k.slr for k in design.kernels] == sorted({0, *place.values()})
    where = {s: k.slr for k in design.kernels for s in k.stages}
    assert {n: where[n] for n in place} == place
    assert {p.kernel for p in design.ports} == {f"{design.name}_0"}
    writers, readers = design.writers(), design.readers()
    for stream, end in bare.writers().items():  # what ports write or read lies in SLR0
        crosses = place.get(end, 0) != place.get(bare.readers()[stream], 0)
        assert design.streams[stream].link == crosses, stream
    for kernel in design.kernels:
        with_parameters = any(design.stage(s).params for s in kernel.stages)
        assert (kernel.parameters is not None) == (with_parameters and kernel.slr != 0)
    for link in (s for s in design.streams.values() if s.link and s.kind != "words"):
        relay = design.stage(readers[link.name])
        assert isinstance(relay, RelayStage) and writers[link.name] in where


def test_a_kernel_without_stages_holds_the_ports() -> None:
    bare = without_kernels(compiled("mlp3d").design)
    design = placed(bare, {s.name: 2 for s in bare.stages})
    ports, stages = design.kernels
    assert (ports.slr, stages.slr) == (0, 2)
    assert ports.stages == () and set(stages.stages) == {s.name for s in bare.stages}
    words = [x for p in design.ports for x in p.streams]
    assert sorted([*words, str(stages.parameters)]) == sorted([*ports.axis_in, *ports.axis_out])
    assert {design.streams[x].depth for x in words} == {link_depth(U280, 0, 2)}


def test_links_hold_a_round_trip() -> None:
    assert link_depth(U280, 0, 1) == link_depth(U280, 2, 0) == LINK_DEPTH
    slow = dataclasses.replace(U280, crossing_cycles=9)
    assert link_depth(slow, 0, 2) == link_depth(slow, 2, 0) == 40


def _refused(design: Design, place: dict[str, int]) -> str:
    with pytest.raises(DesignError) as error:
        partition(design, place)
    return str(error.value)


def test_impossible_assignments_are_refused() -> None:
    bare = without_kernels(compiled("encoder").design)
    place = random_place(bare, 0)
    enter = next(s for s in bare.stages if isinstance(s, LoopEnterStage))
    leave = next(s for s in bare.stages if enter.inputs[1] in s.outputs)
    text = _refused(bare, {**place, leave.name: place[enter.name]})
    assert f"the layer loop returns from {leave.name} to {enter.name} inside SLR{place[enter.name]}" in text
    first, second = bare.stages[0].name, bare.stages[1].name
    text = _refused(bare, {n: 3 if n == second else s for n, s in place.items() if n != first} | {"none": 1})
    assert f"stage {first} has no SLR" in text and "there is no stage none" in text
    assert f"stage {second} in SLR 3: the u280 has SLR0 to SLR2" in text
    with pytest.raises(DesignError, match="has kernels already"):
        partition(partition(bare, place), place)


def test_the_verifier_holds_kernels_to_their_edges() -> None:
    design = compiled("encoder").design
    link = next(s for s in design.streams.values() if s.link and s.kind == "rows")
    inside = {**design.streams, link.name: dataclasses.replace(link, link=False)}
    assert f"stream {link.name} goes from kernel" in (text := _broken(design, streams=inside))
    assert "without a link" in text
    bare = without_kernels(design)
    one = placed(
        without_kernels(compiled("mlp3d").design), {s.name: 0 for s in compiled("mlp3d").design.stages}
    )
    (kernel,) = one.kernels
    name = next(n for n in one.stage(kernel.stages[1]).inputs)
    other = {**one.streams, name: dataclasses.replace(one.streams[name], link=True)}
    edges = dataclasses.replace(kernel, axis_in=(name,), axis_out=(name,))
    assert f"link {name} begins and ends in kernel" in _broken(one, streams=other, kernels=(edges,))
    assert f"link {name} is not at the edge" in _broken(one, streams=other)
    names = tuple(s.name for s in bare.stages)
    ports = tuple(dataclasses.replace(p, kernel="k") for p in bare.ports)
    whole = dataclasses.replace(design.kernels[0], name="k", stages=names, axis_in=(), axis_out=())
    text = _broken(bare, kernels=(whole,), ports=ports)
    assert "kernel k holds a cycle through enter_" in text and "must leave through a link" in text


# -- the verifier -----------------------------------------------------------------------------


def _broken(design: Design, **changes: object) -> str:
    with pytest.raises(DesignError) as error:
        verify_design(dataclasses.replace(design, **changes))  # type: ignore[arg-type]
    return str(error.value)


def test_the_verifier_finds_defects() -> None:
    design = compiled("mlp3d").design
    verify_design(design)
    stages, streams = design.stages, dict(design.streams)
    assert "two stages or ports called" in _broken(design, stages=(*stages, stages[0]))
    assert "has 0 readers, not one" in _broken(design, streams={**streams, "more": Stream("more", "rows")})
    name = stages[1].inputs[0]
    less = {k: v for k, v in streams.items() if k != name}
    assert f"stream {name} is used but not declared" in _broken(design, streams=less)
    zero = {**streams, name: dataclasses.replace(streams[name], depth=0)}
    assert f"stream {name} has depth 0" in _broken(design, streams=zero)
    other = {**streams, name: dataclasses.replace(streams[name], name="other")}
    assert "is filed under" in _broken(design, streams=other)
    (kernel,) = design.kernels
    fewer = (dataclasses.replace(kernel, stages=kernel.stages[:-1]),)
    assert "is in no kernel" in _broken(design, kernels=fewer)
    assert "AXI masters, the card has 32" in _broken(design, ports=design.ports * 20)


@pytest.mark.parametrize("name", NAMES)
def test_every_end_of_a_stream_carries_the_same(name: str) -> None:
    """Each stage's own idea of its tokens, against another layout, element and number of rows."""
    design = compiled(name).design
    for stage in design.stages:
        inputs, outputs = stage.carried()
        names = (*stage.inputs, *stage.outputs)
        for at, tokens in zip(names, (*inputs, *outputs), strict=True):
            stream = design.streams[at]
            changes: list[dict[str, object]] = [{"kind": "scores" if stream.kind == "rows" else "rows"}]
            if tokens.kind == "rows":
                wrong = "int16" if stream.element != "int16" else "int32"
                layout = Layout(7, 5) if stream.layout != Layout(7, 5) else Layout(5, 7)
                changes += [{"element": wrong}, {"layout": layout}, {"one_row": not stream.one_row}]
            for change in changes:
                other = {**design.streams, at: dataclasses.replace(stream, **change)}  # type: ignore[arg-type]
                assert f"stream {at} carries" in (text := _broken(design, streams=other))
                assert f"stage {stage.name}" in text


def test_layouts_that_only_agree_in_the_number_of_tokens_are_refused() -> None:
    design = compiled("encoder").design
    (heads,) = {s.layout for s in design.stages if isinstance(s, ValuesStage)}
    assert heads == Layout(3, 7) and heads.blocks(8) == Layout(1, 21).blocks(8)
    stage = next(s for s in design.stages if isinstance(s, ValuesStage))
    streams = {**design.streams, stage.outputs[0]: Stream(stage.outputs[0], "rows", "int32", Layout(1, 21))}
    text = _broken(design, streams=streams)
    assert f"carries rows of int32, 1 x 21, but stage {stage.name} (layers.*.self_attn) writes" in text


def test_wrong_numbers_of_streams_and_wrong_ports_are_refused() -> None:
    design = compiled("mlp3d").design
    port = next(p for p in design.ports if p.role == "output")
    (words,) = port.streams
    rows = {**design.streams, words: Stream(words, "rows")}
    assert f"stream {words} carries rows of int8, 1 x 1, but port {port.name} reads words" in _broken(
        design, streams=rows
    )
    stages = [dataclasses.replace(s, outputs=(*s.outputs, "more")) for s in design.stages[:1]]
    text = _broken(design, stages=(*stages, *design.stages[1:]))
    assert "1 inputs and 2 outputs, its template 1 and 1" in text


def test_all_defects_are_in_one_error() -> None:
    design = compiled("mlp3d").design
    text = _broken(design, stages=design.stages[1:], streams={})
    assert text.count("\n  - ") > 5


@pytest.mark.parametrize(
    ("layout", "lanes", "blocks"),
    [(Layout(3, 7), 8, 3), (Layout(1, 21), 8, 3), (Layout(2, 13), 8, 4), (Layout(1, 40), 16, 3)],
)
def test_layouts(layout: Layout, lanes: int, blocks: int) -> None:
    assert layout.blocks(lanes) == blocks and layout.channels == layout.groups * layout.size


def test_shapes_are_checked() -> None:
    for values in ((8, 0, 1, 1), (8, 1, 0, 1), (8, 1, 1, 0), (32, 1, 1, 1)):
        with pytest.raises(DesignError):
            Shape(*values)
