# SPDX-License-Identifier: Apache-2.0
"""Design -> C++ text of its kernels, their shared header and the functional run's entry."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from torch2fpga.design import (
    PARAMETER_DEALER,
    PARAMETER_READER,
    Design,
    Kernel,
    Port,
    Stage,
    Stream,
)
from torch2fpga.emit.caches import caches_call, caches_process, written_here
from torch2fpga.emit.layout import Call, listed
from torch2fpga.emit.ports import (
    SUMS,
    all_ports,
    bundle,
    kernel_ports,
    links,
    parameter_targets,
    parameter_words_of,
    shares,
)
from torch2fpga.emit.turns import LAUNCH, launch_numbers, turns_of
from torch2fpga.plan.fifo import storage_of
from torch2fpga.version import __version__

READ_OPTIONS = "num_read_outstanding=16 max_read_burst_length=32"
WRITE_OPTIONS = "num_write_outstanding=16 max_write_burst_length=32"

PORT_HEADERS = {
    "gather_rows": "embed.hpp",
    "gather_part": "embed.hpp",
    "read_positions": "embed.hpp",
    "read_positions_from": "embed.hpp",
    "read_ids": "embed.hpp",
    "read_cache": "cache.hpp",
    "write_cache": "cache.hpp",
    "write_tokens": "turns.hpp",
    "read_lane_words": "lanes.hpp",
}


@lru_cache
def environment() -> Environment:
    """Jinja2 environment of the emitted text (no HTML, so no escaping: names are identifiers)."""
    return Environment(
        loader=PackageLoader("torch2fpga.emit", "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )


def render(template: str, **values: Any) -> str:
    """Text of a template."""
    return environment().get_template(template).render(version=__version__, **values)


def type_name(name: str) -> str:
    """Configuration struct of a stage or port: CamelCase of its name.

    Different names give different structs (``fc_1`` and ``fc1``, ``a__b`` and ``a_b``), and the
    suffix keeps them apart from macros and from what else is called ``Design`` or ``EOF``.
    """
    words = (word.capitalize() if word[:1].isalpha() else f"_{word}" for word in name.split("_"))
    return "".join(words) + "Config"


def config_lines(config: Mapping[str, Any]) -> list[str]:
    """Members of a configuration struct."""
    lines = []
    for key, value in config.items():
        if isinstance(value, bool):
            lines.append(f"static constexpr bool {key} = {'true' if value else 'false'};")
        elif isinstance(value, int):
            lines.append(f"static constexpr int {key} = {value};")
        elif isinstance(value, tuple):
            lines += _chosen(key, value)
        else:
            lines.append(f"using {key} = {value};")
    return lines


def _chosen(name: str, values: tuple[int, ...]) -> list[str]:
    """A member function: the value of that number."""
    choice = str(values[-1])
    for number in range(len(values) - 2, -1, -1):
        if str(values[number]) != choice:  # the same value needs no question
            choice = (
                f"i == {number} ? {values[number]} : {choice}"
                if number
                else f"i == 0 ? {values[0]} : {choice}"
            )
    return [f"static constexpr int {name}(int i) {{ return {choice}; }}"]


def comment_text(path: str) -> str:
    """A module path as a harmless one-line comment (names come from the user's model)."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " ._*-[]()/") else "?" for c in path)[:120]


def arguments(design: Design, kernel: Kernel) -> list[str]:
    """Parameter list of a kernel's top function."""
    lanes = design.shape.lanes
    found = [f"{p.ctype}{p.name}" for p in kernel_ports(design, kernel)]
    for name in (*kernel.axis_in, *kernel.axis_out):
        found.append(f"hls::stream<{design.streams[name].cpp_type(lanes)}> &{name}")
    return [*found, *(f"int {name}" for name in scalars(design, kernel))]


def scalars(design: Design, kernel: Kernel) -> list[str]:
    """Numbers that a kernel is launched with, in order: where tokens are generated those that it uses."""
    if not design.turns:
        return ["batch", "seq"]
    return launch_numbers([a for call in _calls(design, kernel) for a in call.arguments])


def _stage_config(stage: Stage, design: Design) -> dict[str, Any]:
    config: dict[str, Any] = {"steps": stage.steps}
    if stage.one_row:
        config["max_seq"] = 1
    config.update(stage.config(design))
    return config


def _port_config(port: Port, design: Design) -> dict[str, Any]:
    s = design.shape
    left_out = ("ids", "one_row", "value_t", "value_bytes", "max_vectors")
    config = {k: v for k, v in port.config.items() if k not in left_out}
    if port.config.get("one_row"):
        config["max_seq"] = 1
    if port.role in ("ids", "table"):
        config["max_rows"] = s.max_batch * s.max_seq
        config["max_row_words"] = s.max_seq * int(port.config.get("row_words", 1))
    return config


def _configs(design: Design, kernel: Kernel, ports: list[Port]) -> list[dict[str, Any]]:
    found = []
    for port in ports:
        lines = config_lines(_port_config(port, design))
        found.append({"name": type_name(port.name), "comment": f"port {port.name}", "lines": lines})
    for name in kernel.stages:
        stage = design.stage(name)
        text = comment_text(stage.path) or "model"
        found.append(
            {"name": type_name(name), "comment": f"{text}: {stage.template}",
             "lines": config_lines(_stage_config(stage, design))}
        )  # fmt: skip
    return found


def port_call(port: Port) -> Call:
    """Call of a port's access process; the pointer argument is the port's name."""
    (stream,) = port.streams
    function = f"t2f::{port.template}<{type_name(port.name)}>"
    rows = ("batch", "1" if port.config.get("one_row") else "seq")
    if port.template == "read_words":
        arguments: tuple[str, ...] = (port.name, stream)
    elif port.template in ("gather_rows", "gather_part"):
        arguments = (port.name, str(port.config["ids"]), stream, "batch", "seq")
    elif port.template == "read_lane_words":
        arguments = (port.name, stream, "seq")
    elif port.template == "read_positions_from":
        arguments = (port.name, stream, "seq", "past")
    elif port.template == "read_cache":
        arguments = (port.name, port.awaits, stream, "past")
    elif port.template == "write_cache":
        arguments = (stream, port.name, port.reports, "seq", "past")
    elif port.template == "write_tokens":
        arguments = (stream, port.name, "turn")
    elif port.direction == "write":
        arguments = (stream, port.name, *rows)
    else:
        arguments = (port.name, stream, *rows)
    if port.sums:
        arguments = (*arguments, *((SUMS,) if port.direction == "write" else ()), *port.sums)
    return Call(port.name, function, arguments)


def stage_call(stage: Stage) -> Call:
    """Call of a stage's template."""
    function = f"t2f::{stage.template}<{type_name(stage.name)}>"
    return Call(stage.name, function, tuple(stage.arguments()), comment_text(stage.path))


def stage_calls(stage: Stage, design: Design) -> list[Call]:
    """Calls of a stage's processes: what prepares its first input, then the main one."""
    front, call = stage.front(design), stage_call(stage)
    if front is None:
        return [call]
    first, *rest = call.arguments
    function = f"t2f::{front.template}<{type_name(stage.name)}>"
    between = [fifo.name for fifo in front.fifos]
    before = Call(front.name, function, (first, *between, *stage.runtime_arguments()), call.comment)
    return [before, Call(call.name, call.function, (*between, *rest), call.comment)]


def _stream_line(stream: Stream, design: Design) -> dict[str, Any]:
    lanes = design.shape.lanes
    return _fifo_line(stream.name, stream.cpp_type(lanes), stream.depth, stream.token_bytes(lanes))


def _fifo_line(name: str, token: str, depth: int, token_bytes: int) -> dict[str, Any]:
    storage = storage_of(depth, token_bytes)
    return {"name": name, "type": token, "depth": depth, "storage": "" if storage == "srl" else storage}


def _front_lines(design: Design, kernel: Kernel) -> list[dict[str, Any]]:
    """FIFOs inside of stages."""
    fronts = [design.stage(name).front(design) for name in kernel.stages]
    return [
        _fifo_line(fifo.name, fifo.token, fifo.depth, fifo.token_bytes)
        for front in fronts
        if front is not None
        for fifo in front.fifos
    ]


def kernel_streams(design: Design, kernel: Kernel) -> list[Stream]:
    """Streams that live inside a kernel."""
    outside = {*kernel.axis_in, *kernel.axis_out}
    used: dict[str, None] = {}
    for port in design.ports:
        if port.kernel == kernel.name:
            used.update(dict.fromkeys((*port.gives, *port.takes)))
    used.update(dict.fromkeys([kernel.parameters_sum] if kernel.parameters_sum else []))
    for name in kernel.stages:
        stage = design.stage(name)
        used.update(dict.fromkeys((*stage.inputs, *([stage.params] if stage.params else []), *stage.outputs)))
    return [design.streams[n] for n in used if n not in outside]


def config_file(kernel: Kernel) -> str:
    """File name of a kernel's configuration header."""
    return f"{kernel.name}_config.hpp"


def config_header(design: Design, kernel: Kernel) -> str:
    """Text of a kernel's configuration header: one struct a stage and a port."""
    ports = [p for p in design.ports if p.kernel == kernel.name]
    headers = {design.stage(s).header for s in kernel.stages} | {"core.hpp"}
    headers |= {PORT_HEADERS.get(p.template, "memory.hpp") for p in ports}
    headers |= {"turns.hpp"} if design.turns else set()
    return render(
        "kernel_config.hpp.j2",
        kernel=kernel,
        guard=f"{kernel.name}_config_hpp".upper(),
        headers=sorted(headers),
        configs=_configs(design, kernel, ports),
    )


def _calls(design: Design, kernel: Kernel) -> list[Call]:
    """Processes of a kernel, every stream written before it is read."""
    ports = [p for p in design.ports if p.kernel == kernel.name]
    reads = [p for p in ports if p.direction == "read"]
    # What reads a stream of the kernel comes behind what writes it: the stages first where a process
    # waits for one of them, ids before the gather that reads them.
    made = {out for name in kernel.stages for out in design.stage(name).outputs}
    early = [p for p in reads if not made & set(p.takes)]
    early.sort(key=lambda p: p.template.startswith("gather_"))
    calls = [port_call(p) for p in early]
    targets = list(dict.fromkeys(stream for _, stream in parameter_targets(design, kernel)))
    if targets:
        name, source = _parameter_source(kernel)
        summed = [kernel.parameters_sum] if kernel.parameters_sum else []
        calls.append(Call(name, name, (source, *targets, *summed)))
    waiting = [p for p in reads if made & set(p.takes)]
    done: set[str] = set()
    for name in kernel.stages:
        stage = design.stage(name)
        calls += stage_calls(stage, design)
        done |= set(stage.outputs)
        calls += [port_call(p) for p in waiting if made & set(p.takes) <= done]
        waiting = [p for p in waiting if not made & set(p.takes) <= done]
    writes = [p for p in ports if p.direction == "write"]
    caches = [p for p in writes if written_here(p)]
    calls += [caches_call(caches)] if caches else []
    return calls + [port_call(p) for p in writes if not written_here(p)]


def _parameter_source(kernel: Kernel) -> tuple[str, str]:
    """Process that hands out a kernel's parameters, and the port or link that it takes them from."""
    if kernel.parameters is not None:
        return PARAMETER_DEALER, kernel.parameters
    return PARAMETER_READER, "parameters"


def _parameter_process(design: Design, kernel: Kernel) -> dict[str, Any] | None:
    """What the kernel's parameter process hands out, by group; None where it has none.

    Stages one behind the other whose words go over the same link are one entry.
    """
    targets = parameter_targets(design, kernel)
    if not targets:
        return None
    found: dict[str, Any] = {}
    for group in ("before", "loop", "after"):
        runs: list[dict[str, Any]] = []
        for stage, stream in targets:
            if stage.group != group:
                continue
            words = parameter_words_of(stage, design)
            if runs and runs[-1]["stream"] == stream:
                runs[-1]["words"] += words
            else:
                runs.append({"stream": stream, "words": words})
        found[group] = runs
    streams = [f"hls::stream<t2f::word> &{name}" for name in dict.fromkeys(s for _, s in targets)]
    name, _ = _parameter_source(kernel)
    linked = kernel.parameters is not None
    source = "hls::stream<t2f::word> &words" if linked else "const t2f::word *memory"
    if kernel.parameters_sum:
        streams.append(f"hls::stream<int32_t> &{kernel.parameters_sum}")
    found["word"] = "words.read()" if linked else "T2F_MEMORY(memory, i)"
    found["head"] = listed(f"static void {name}", [source, *streams], " {")
    return found


def kernel_source(design: Design, kernel: Kernel) -> str:
    """C++ text of one kernel."""
    calls, loops = _calls(design, kernel), []
    caches = [p for p in design.ports if p.kernel == kernel.name and written_here(p)]
    names = {p.name: type_name(p.name) for p in caches}
    if design.turns:
        types, once = _parameter_types(design, kernel), {p.name for p in design.ports if p.role == "ids"}
        loops = [turns_of(call, types, design.turns) for call in calls if call.name not in once]
        around = {loop.call.name: loop.call for loop in loops}
        calls = [around.get(call.name, call) for call in calls]
    return render(
        "kernel.cpp.j2",
        design=design,
        kernel=kernel,
        config=config_file(kernel),
        params=_parameter_process(design, kernel),
        loops=loops,
        scalars=scalars(design, kernel),
        caches=caches_process(caches, _parameter_types(design, kernel), names) if caches else None,
        head=listed(f'extern "C" void {kernel.name}', arguments(design, kernel), " {"),
        ports=[
            {"name": p.name, "bundle": bundle(p), "depth": p.words,
             "options": WRITE_OPTIONS if p.write else READ_OPTIONS}
            for p in kernel_ports(design, kernel)
        ],
        axis=[*kernel.axis_in, *kernel.axis_out],
        streams=[
            *(_stream_line(s, design) for s in kernel_streams(design, kernel)),
            *_front_lines(design, kernel),
        ],
        calls=calls,
    )  # fmt: skip


def _parameter_types(design: Design, kernel: Kernel) -> dict[str, str]:
    """Streams and memory of a kernel -> their declarations as parameters."""
    lanes = design.shape.lanes
    found = {n: f"hls::stream<{s.cpp_type(lanes)}> &{n}" for n, s in design.streams.items()}
    for name in kernel.stages:
        front = design.stage(name).front(design)
        for fifo in front.fifos if front is not None else ():
            found[fifo.name] = f"hls::stream<{fifo.token}> &{fifo.name}"
    return found | {p.name: f"{p.ctype}{p.name}" for p in kernel_ports(design, kernel)}


def design_header(design: Design) -> str:
    """Text of ``kernels/design.hpp``."""
    heads = [listed(f'extern "C" void {k.name}', arguments(design, k), ";") for k in design.kernels]
    return render("design.hpp.j2", design=design, heads=heads)


def functional_source(design: Design) -> str:
    """Text of the functional run's entry (``sim/functional.cpp``)."""
    lanes = design.shape.lanes
    index = {(k.name, p.name): i for i, (k, p) in enumerate(all_ports(design))}
    kernels = []
    for kernel in design.kernels:
        values = []
        for p in kernel_ports(design, kernel):
            i = index[kernel.name, p.name]
            given = f"input<{p.element}>(buffers, {i})"
            values.append(f"static_cast<{p.element} *>(results[{i}])" if p.write else given)
        call = [*values, *kernel.axis_in, *kernel.axis_out, *scalars(design, kernel)]
        kernels.append({"name": kernel.name, "call": listed(kernel.name, call, ";", 4)})
    items = [{"name": s.name, "type": s.cpp_type(lanes), "depth": s.depth} for s in links(design)]
    return render(
        "functional.cpp.j2", design=design, kernels=kernels, links=items, sizes=sizes(design),
        caches=_caches(design),
    )  # fmt: skip


def sizes(design: Design) -> tuple[str, ...]:
    """Numbers of a launch of all kernels."""
    return LAUNCH if design.turns else LAUNCH[:2]


def _caches(design: Design) -> list[dict[str, int]]:
    """Numbers of the ports that write and read one memory, and its bytes."""
    ports = [p for _, p in all_ports(design)]
    return [
        {"writer": i, "reader": j, "bytes": a.words * 64}
        for i, a in enumerate(ports)
        for j, b in enumerate(ports)
        if shares(a, b)
    ]
