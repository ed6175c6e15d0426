# SPDX-License-Identifier: Apache-2.0
"""Text of the test bench: every kernel and every stage on golden tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch2fpga.design import Design, Kernel, Port, Stage, ceil_div
from torch2fpga.emit.golden import Golden, golden_path
from torch2fpga.emit.images import image_name
from torch2fpga.emit.kernel import comment_text, config_file, port_call, render, scalars, stage_calls
from torch2fpga.emit.layout import Call, listed
from torch2fpga.emit.ports import (
    KernelPort,
    all_ports,
    kernel_ports,
    parameter_targets,
    parameter_words_of,
    port_bytes,
)
from torch2fpga.emit.turns import turns_of
from torch2fpga.lower.deal import DealStage
from torch2fpga.simulate.launch import Launch

#: files that are the same in every project
FIXED = ("bench.hpp", "sha256.hpp", "tb.cpp")
TEMPLATES = Path(__file__).resolve().parent / "templates"


def weights_path(kernel: Kernel, port: KernelPort) -> str:
    """Path in the project of a port's image."""
    return f"weights/{image_name(kernel, port)}.bin"


def _source(design: Design, kernel: Kernel, port: KernelPort, golden: Golden) -> dict[str, Any]:
    """Where a port's content comes from in the test bench."""
    constant, cache = port.role in ("weights", "table", "params"), port.role == "cache"
    name = port.binding if cache else port.name
    found = {
        "name": port.name,
        "write": port.write,
        "bytes": port_bytes(port),
        "method": "image" if constant else "input",
        "type": port.element,
        "file": weights_path(kernel, port) if constant else golden_path(name),
        "cache": "",
    }
    if cache:
        config = next(p for p in design.ports if p.name == port.name).config
        rows = Launch(golden.batch, golden.seq, 0, golden.turns).end
        found["cache"] = f"{rows * int(config['row_words'])}, {config['step_words']}"
    return found


def _pointer(source: dict[str, Any]) -> str:
    """Declaration of a port's memory."""
    name, kind, bytes_ = source["name"], source["type"], str(source["bytes"])
    if source["write"]:
        method = "output" if kind == "t2f::word" else f"output<{kind}>"
        return f"{kind} *{name} = test.{method}({bytes_});"
    if source["cache"]:
        head = f"const t2f::word *{name} = test.cache"
        return listed(head, [f'"{source["file"]}"', bytes_, source["cache"]], ";", 2)
    head = f"const {kind} *{name} = test.{source['method']}<{kind}>"
    return listed(head, [f'"{source["file"]}"', bytes_], ";", 2)


def _memory(source: dict[str, Any]) -> str:
    """Comparison of a buffer that was written."""
    items = [source["name"], str(source["bytes"]), f'"{source["file"]}"']
    if source["cache"]:
        return listed("test.compare_cache", [*items, source["cache"]], ";", 2)
    return listed("test.compare_memory", items, ";", 2)


def _stream(design: Design, name: str) -> str:
    stream = design.streams[name]
    return f'hls::stream<{stream.cpp_type(design.shape.lanes)}> {name}("{name}");'


def _check(method: str, name: str, text: str) -> str:
    return listed(f"test.{method}", [name, f'"{text}"'], ";", 2)


def parameter_slice(design: Design, stage: Stage) -> tuple[int, int, int, int]:
    """(first word, words a step, words between steps, steps) of a stage's parameters in the image."""
    stages = [s for s in design.stages if s.params]
    first = 0
    for group in ("before", "loop", "after"):
        members = [s for s in stages if s.group == group]
        stride = sum(parameter_words_of(s, design) for s in members)
        for member in members:
            words = parameter_words_of(member, design)
            if member.name == stage.name:
                return first, words, stride, stage.steps
            first += words
        # `first` is behind the first step: skip the others.
        first += stride * ((design.steps if group == "loop" else 1) - 1)
    raise AssertionError(f"{stage.name} has no parameters")


def _words(runs: list[tuple[int, int]], stride: int, steps: int, repeats: int = 1) -> str:
    """``bench::Words`` of these runs of words."""
    text = ", ".join(f"{{{first}, {count}}}" for first, count in runs)
    return f"{{{{{text}}}, {stride}, {steps}, {repeats}}}"


def _parameter_orders(design: Design, stages: list[Stage]) -> list[str]:
    """Which words of the image the stages take together, group by group."""
    found = []
    for group in ("before", "loop", "after"):
        slices = [parameter_slice(design, s) for s in stages if s.group == group]
        if slices:
            _, _, stride, steps = slices[0]
            found.append(_words([(first, count) for first, count, _, _ in slices], stride, steps))
    return found


def _weight_order(port: Port, design: Design, golden: Golden, rows: int) -> str:
    """Which words of its image a weight port sends for so many rows."""
    config = port.config
    words, steps = int(config["words"]), int(config["steps"])
    if port.template == "read_words":
        return _words([(0, words)], words, steps)
    rows = 1 if config.get("one_row") else rows
    return _words([(0, words)], words, steps, golden.batch * ceil_div(rows, design.shape.tile))


def _image(design: Design, argument: str) -> list[str]:
    """File and size of the image behind a port, as arguments of the test bench."""
    kernel, port = next((k, p) for k, p in all_ports(design) if p.name == argument)
    return [f'"{weights_path(kernel, port)}"', str(port_bytes(port))]


def _dealt(design: Design, stage: DealStage, name: str) -> list[str]:
    """The image that a stage deals out, and which words of it one of its outputs gets."""
    slot = stage.outputs.index(name)
    port = next(p for p in design.ports if p.binding == stage.name)
    run = (sum(stage.words[:slot]), stage.words[slot])
    return [*_image(design, port.name), _words([run], sum(stage.words), stage.steps)]


def _word_stream(design: Design, golden: Golden, name: str, fill: bool) -> list[str]:
    """Puts what passes over a link of memory words into it, or takes it out and compares: turn by turn."""
    if name in golden.words:
        return [_check("fill" if fill else "compare", name, golden.words[name])]
    launch = Launch(golden.batch, golden.seq, 0, golden.turns)
    return [line for _, rows in launch.rows() for line in _turn_words(design, golden, name, fill, rows)]


def _turn_words(design: Design, golden: Golden, name: str, fill: bool, rows: int) -> list[str]:
    """The constants that pass over a link for so many rows."""
    method = "test.words" if fill else "test.compare_words"
    for kernel in design.kernels:
        if kernel.parameters == name:
            stages = [stage for stage, _ in parameter_targets(design, kernel)]
            head = [name, *_image(design, "parameters")]
            return [listed(method, [*head, o], ";", 2) for o in _parameter_orders(design, stages)]
    for stage in design.stages:
        if isinstance(stage, DealStage) and name in stage.outputs:
            return [listed(method, [name, *_dealt(design, stage, name)], ";", 2)]
    port = next(p for p in design.ports if name in p.streams)
    items = [name, *_image(design, port.name), _weight_order(port, design, golden, rows)]
    return [listed(method, items, ";", 2)]


def _filled(design: Design, golden: Golden, name: str) -> list[str]:
    """Puts golden tokens into a stream."""
    if name in golden.sources:
        return [_check("fill", name, golden.sources[name])]
    return _word_stream(design, golden, name, fill=True)


def _compared(design: Design, golden: Golden, name: str) -> list[str]:
    """Compares the tokens of a stream with golden ones."""
    if name in golden.sources:
        return [_check("compare", name, golden.sources[name])]
    return _word_stream(design, golden, name, fill=False)


def kernel_test(design: Design, kernel: Kernel, golden: Golden) -> dict[str, Any]:
    """The kernel as a whole, as Vitis C simulation runs it."""
    sources = [_source(design, kernel, p, golden) for p in kernel_ports(design, kernel)]
    lines = [_pointer(s) for s in sources]
    lines += [_stream(design, n) for n in (*kernel.axis_in, *kernel.axis_out)]
    for name in kernel.axis_in:
        lines += _filled(design, golden, name)
    names = [*(s["name"] for s in sources), *kernel.axis_in, *kernel.axis_out, *scalars(design, kernel)]
    lines.append(listed(kernel.name, names, ";", 2))
    for name in kernel.axis_out:
        lines += _compared(design, golden, name)
    lines += [_memory(s) for s in sources if s["write"]]
    for name in (*kernel.axis_in, *kernel.axis_out):
        lines.append(_check("drained", name, name))
    return {"kind": "kernel", "name": kernel.name, "comment": "", "lines": lines}


def _ports_of(design: Design, kernel: Kernel, stage: Stage) -> list[Port]:
    """Access processes of the kernel at the stage's word streams, the reader of ids before the gather."""
    own = {*stage.inputs, *stage.outputs}
    found = [p for p in design.ports if p.kernel == kernel.name and own & set(p.streams)]
    ids = {p.config["ids"] for p in found if "ids" in p.config}
    return [p for p in design.ports if ids & set(p.streams)] + found


def _stage_parameters(design: Design, stage: Stage) -> str:
    """Puts a stage's parameters into its stream."""
    first, words, stride, steps = parameter_slice(design, stage)
    items = [str(stage.params), *_image(design, "parameters"), _words([(first, words)], stride, steps)]
    return listed("test.words", items, ";", 2)


def stage_test(design: Design, kernel: Kernel, stage: Stage, golden: Golden) -> dict[str, Any]:
    """One stage on its own, with the access processes at its word streams."""
    ports = [replace(p, sums=()) for p in _ports_of(design, kernel, stage)]  # the kernel's test has them
    by_name = {p.name: p for p in kernel_ports(design, kernel)}
    sources = [_source(design, kernel, by_name[p.name], golden) for p in ports]
    given, taken = {x for p in ports for x in p.gives}, {x for p in ports for x in p.takes}
    local = {x for p in ports for x in p.streams}
    lines = [_pointer(s) for s in sources]
    params = [stage.params] if stage.params else []
    ends = [x for p in ports for x in (*p.takes, *p.gives)] if design.turns else [*local]
    streams = dict.fromkeys([*(x for p in ports for x in p.streams), *ends])
    streams |= dict.fromkeys([*stage.inputs, *params, *stage.outputs])
    lines += [_stream(design, n) for n in streams]
    for name in dict.fromkeys([*stage.inputs, *(n for n in streams if n in taken)]):
        if name not in given and name not in stage.outputs:
            lines += _filled(design, golden, name)
    if stage.params:
        lines += [_stage_parameters(design, stage)] * golden.turns
    lines += [_each_turn(design, port_call(p), p) for p in ports if p.direction == "read"]
    front = stage.front(design)
    for fifo in front.fifos if front is not None else ():
        lines.append(f'hls::stream<{fifo.token}, {fifo.depth}> {fifo.name}("{fifo.name}");')
    lines += [_each_turn(design, call) for call in stage_calls(stage, design)]
    for access, source in zip(ports, sources, strict=True):
        if source["write"]:
            lines += [_each_turn(design, port_call(access), access), _memory(source)]
    outputs = [*stage.outputs, *(p.reports for p in ports if p.reports)]
    for name in outputs:
        if name not in taken:
            lines += _compared(design, golden, name)
    for name in streams:
        if name not in outputs:
            lines.append(_check("drained", name, name))
    return {"kind": "stage", "name": stage.name, "comment": comment_text(stage.path), "lines": lines}


def _each_turn(design: Design, call: Call, port: Port | None = None) -> str:
    """A call, or a loop over the turns of the golden launch around it."""
    if not design.turns or (port is not None and port.role == "ids"):
        return call.statement()
    text = turns_of(call, {}, design.turns).body
    return f"for (int turn = 0; turn < turns; ++turn) {{\n    {text}\n  }}"


def tested_alone(design: Design, stage: Stage, golden: Golden) -> bool:
    """Has the stage a test of its own? What passes between shared lanes is seen in the kernel's only."""
    inner = {n for n in (*stage.inputs, *stage.outputs) if design.streams[n].kind in ("tiles", "sums")}
    return inner <= set(golden.sources)


def testbench_files(design: Design, golden: Golden) -> dict[str, str]:
    """Path -> text of everything in ``tb/``."""
    files = {f"tb/{name}": (TEMPLATES / name).read_text() for name in FIXED}
    for order, kernel in enumerate(design.kernels):
        tests = [kernel_test(design, kernel, golden)]
        stages = [design.stage(s) for s in kernel.stages]
        tests += [stage_test(design, kernel, s, golden) for s in stages if tested_alone(design, s, golden)]
        files[f"tb/{kernel.name}_tb.cpp"] = render(
            "kernel_tb.cpp.j2",
            kernel=kernel.name,
            config=config_file(kernel),
            batch=golden.batch,
            seq=golden.seq,
            turns=golden.turns if design.turns else 0,
            tests=tests,
            order=order,
        )
    files["tb/design_tb.cpp"] = render(
        "design_tb.cpp.j2",
        design=design.name,
        ports=[_source(design, k, p, golden) for k, p in all_ports(design)],
        sizes=golden.sizes(design),
        order=len(design.kernels),
    )
    return files
