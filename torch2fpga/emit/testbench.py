# SPDX-License-Identifier: Apache-2.0
"""Text of the test bench: every kernel and every stage on golden tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch2fpga.design import Design, Kernel, Port, Stage
from torch2fpga.emit.golden import Golden, golden_path
from torch2fpga.emit.images import image_name
from torch2fpga.emit.kernel import (
    KernelPort,
    all_ports,
    comment_text,
    config_file,
    kernel_ports,
    parameter_words_of,
    parameterised,
    port_call,
    render,
    stage_call,
)
from torch2fpga.emit.layout import listed
from torch2fpga.emit.link import port_bytes

#: files that are the same in every project
FIXED = ("bench.hpp", "sha256.hpp", "tb.cpp")
TEMPLATES = Path(__file__).resolve().parent / "templates"


def weights_path(kernel: Kernel, port: KernelPort) -> str:
    """Path in the project of a port's image."""
    return f"weights/{image_name(kernel, port)}.bin"


def _source(kernel: Kernel, port: KernelPort) -> dict[str, Any]:
    """Where a port's content comes from in the test bench."""
    constant = port.role in ("weights", "table", "params")
    return {
        "name": port.name,
        "write": port.write,
        "bytes": port_bytes(port),
        "method": "image" if constant else "input",
        "type": "int32_t" if port.role == "ids" else "t2f::word",
        "file": weights_path(kernel, port) if constant else golden_path(port.name),
    }


def _pointer(source: dict[str, Any]) -> str:
    """Declaration of a port's memory."""
    if source["write"]:
        return f"t2f::word *{source['name']} = test.output({source['bytes']});"
    head = f"const {source['type']} *{source['name']} = test.{source['method']}<{source['type']}>"
    return listed(head, [f'"{source["file"]}"', str(source["bytes"])], ";", 2)


def _stream(design: Design, name: str) -> str:
    stream = design.streams[name]
    return f'hls::stream<{stream.cpp_type(design.shape.lanes)}> {name}("{name}");'


def _check(method: str, name: str, text: str) -> str:
    return listed(f"test.{method}", [name, f'"{text}"'], ";", 2)


def kernel_test(design: Design, kernel: Kernel, golden: Golden) -> dict[str, Any]:
    """The kernel as a whole, as Vitis C simulation runs it."""
    sources = [_source(kernel, p) for p in kernel_ports(design, kernel)]
    lines = [_pointer(s) for s in sources]
    lines += [_stream(design, n) for n in (*kernel.axis_in, *kernel.axis_out)]
    for name in kernel.axis_in:
        lines.append(_check("fill", name, golden.sources[name]))
    names = [*(s["name"] for s in sources), *kernel.axis_in, *kernel.axis_out, "batch", "seq"]
    lines.append(listed(kernel.name, names, ";", 2))
    for name in kernel.axis_out:
        lines.append(_check("compare", name, golden.sources[name]))
    for s in sources:
        if s["write"]:
            items = [s["name"], str(s["bytes"]), f'"{s["file"]}"']
            lines.append(listed("test.compare_memory", items, ";", 2))
    for name in kernel.axis_in:
        lines.append(_check("drained", name, name))
    return {"kind": "kernel", "name": kernel.name, "comment": "", "lines": lines}


def parameter_slice(design: Design, kernel: Kernel, stage: Stage) -> tuple[int, int, int, int]:
    """(first word, words a step, words between steps, steps) of a stage's parameters in the
    kernel's image."""
    first = 0
    for group in ("before", "loop", "after"):
        members = [s for s in parameterised(design, kernel) if s.group == group]
        stride = sum(parameter_words_of(s, design) for s in members)
        for member in members:
            words = parameter_words_of(member, design)
            if member.name == stage.name:
                return first, words, stride, stage.steps
            first += words
        # `first` is behind the first step: skip the others.
        first += stride * ((design.steps if group == "loop" else 1) - 1)
    raise AssertionError(f"{stage.name} has no parameters in {kernel.name}")


def _ports_of(design: Design, stage: Stage) -> list[Port]:
    """Access processes at the stage's word streams, the reader of ids before the gather."""
    own = {*stage.inputs, *stage.outputs}
    found = [p for p in design.ports if own & set(p.streams)]
    ids = {p.config["ids"] for p in found if "ids" in p.config}
    return [p for p in design.ports if ids & set(p.streams)] + found


def stage_test(design: Design, kernel: Kernel, stage: Stage, golden: Golden) -> dict[str, Any]:
    """One stage on its own, with the access processes at its word streams."""
    ports = _ports_of(design, stage)
    by_name = {p.name: p for p in kernel_ports(design, kernel)}
    sources = [_source(kernel, by_name[p.name]) for p in ports]
    lines = [_pointer(s) for s in sources]
    params = [stage.params] if stage.params else []
    streams = dict.fromkeys([*(x for p in ports for x in p.streams), *stage.inputs, *params, *stage.outputs])
    lines += [_stream(design, n) for n in streams]
    values = [n for n in stage.inputs if n in golden.sources]
    for name in values:
        lines.append(_check("fill", name, golden.sources[name]))
    if stage.params:
        port = by_name["parameters"]
        numbers = [str(n) for n in (port_bytes(port), *parameter_slice(design, kernel, stage))]
        image = f'"{weights_path(kernel, port)}"'
        lines.append(listed("test.parameters", [stage.params, image, *numbers], ";", 2))
    lines += [port_call(p).statement() for p in ports if p.direction == "read"]
    lines.append(stage_call(stage).statement())
    for access, source in zip(ports, sources, strict=True):
        if source["write"]:
            lines.append(port_call(access).statement())
            items = [source["name"], str(source["bytes"]), f'"{source["file"]}"']
            lines.append(listed("test.compare_memory", items, ";", 2))
    for name in stage.outputs:
        if name in golden.sources:
            lines.append(_check("compare", name, golden.sources[name]))
    for name in streams:
        if name not in stage.outputs:
            lines.append(_check("drained", name, name))
    return {"kind": "stage", "name": stage.name, "comment": comment_text(stage.path), "lines": lines}


def testbench_files(design: Design, golden: Golden) -> dict[str, str]:
    """Path -> text of everything in ``tb/``."""
    files = {f"tb/{name}": (TEMPLATES / name).read_text() for name in FIXED}
    for order, kernel in enumerate(design.kernels):
        tests = [kernel_test(design, kernel, golden)]
        tests += [stage_test(design, kernel, design.stage(s), golden) for s in kernel.stages]
        files[f"tb/{kernel.name}_tb.cpp"] = render(
            "kernel_tb.cpp.j2",
            kernel=kernel.name,
            config=config_file(kernel),
            batch=golden.batch,
            seq=golden.seq,
            tests=tests,
            order=order,
        )
    files["tb/design_tb.cpp"] = render(
        "design_tb.cpp.j2",
        design=design.name,
        ports=[_source(k, p) for k, p in all_ports(design)],
        batch=golden.batch,
        seq=golden.seq,
        order=len(design.kernels),
    )
    return files
