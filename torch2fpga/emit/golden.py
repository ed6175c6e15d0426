# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: a small run of the quantised reference, as raw tokens of every stream.

Inputs are made here from a fixed seed, so that the same model gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torch2fpga.design import Design, Port, Stream, ceil_div
from torch2fpga.emit.golden_turns import TURNS, GoldenTurns
from torch2fpga.emit.images import image_of
from torch2fpga.emit.ports import SUMS, all_ports
from torch2fpga.emit.sums import launch_sums, result_port, summed
from torch2fpga.lower.plumbing import ForkStage, PackStage, RelayStage
from torch2fpga.plan.share import dealt_sums
from torch2fpga.runtime.host import InputSpec
from torch2fpga.simulate.fixed import limits
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.reference import Reference, Trace
from torch2fpga.simulate.tokens import rows_to_tokens, stream_tokens
from torch2fpga.simulate.verify import VALUES

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

FOLDER = "golden"
SEED = 2024
#: bytes of golden data that a project aims to stay below
LIMIT = 8_000_000


@dataclass(frozen=True)
class Golden:
    """A golden run.

    Attributes:
        batch, seq: its size.
        files: path in the project -> bytes.
        sources: stream -> path of the file with its tokens.
        words: link of memory words, other than weights and parameters -> path of the file with them.
        turns: tokens that it generates.
    """

    batch: int
    seq: int
    files: Mapping[str, bytes]
    sources: Mapping[str, str]
    words: Mapping[str, str]
    turns: int = 1

    def sizes(self, design: Design) -> list[int]:
        """The numbers that the design is launched with."""
        return Launch(self.batch, self.seq, 0, self.turns).numbers(design)


def golden_path(name: str) -> str:
    """Path in the project of a stream's or port's golden file."""
    return f"{FOLDER}/{name}.bin"


def roots(design: Design) -> dict[str, str]:
    """stream -> the stream that carries the same tokens first (before forks and relays)."""
    found = {name: name for name in design.streams}
    for stage in design.stages:
        if isinstance(stage, ForkStage | RelayStage):
            # A relay of the layer loop stands before the stage that writes its stream: `found`
            # is resolved below.
            found.update(dict.fromkeys(stage.outputs, stage.inputs[0]))
    for name in found:
        while found[name] != found[found[name]]:
            found[name] = found[found[name]]
    return found


def _value_streams(design: Design) -> list[Stream]:
    """Streams whose tokens are kept, each content once."""
    root = roots(design)
    return [s for n, s in design.streams.items() if s.kind in VALUES and root[n] == n]


def estimated_bytes(design: Design, batch: int, seq: int) -> int:
    """About the size of a golden run's files."""
    steps = {o: s.steps for s in design.stages for o in s.outputs}
    total = 0
    for stream in _value_streams(design):
        rows = batch * (1 if stream.one_row else seq)
        tokens = rows * stream.tokens_per_row(design.shape)
        if stream.kind == "scores":
            tokens = rows * stream.layout.groups * ceil_div(seq, design.shape.lanes)
        total += steps.get(stream.name, 1) * tokens * stream.token_bytes(design.shape.lanes)
    return total


def run_size(design: Design) -> tuple[int, int]:
    """(batch, seq) of the golden run: two sequences of two tiles and a row where there is room."""
    s = design.shape
    long, short = min(s.max_seq, 2 * s.tile + 1), min(s.max_seq, s.tile + 1)
    for size in ((min(s.max_batch, 2), long), (1, long), (1, short)):
        if estimated_bytes(design, *size) <= LIMIT:
            return size
    return 1, short


def example_inputs(
    inputs: tuple[InputSpec, ...], batch: int, seq: int, padded: bool = True
) -> dict[str, Tensor]:
    """Random inputs as the stages' host code takes them before it quantises; the same every time.

    Args:
        padded: the last sequence ends in padding, where the model has a mask.
    """
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, Tensor] = {}
    for spec in inputs:
        if spec.kind == "rows":
            assert spec.scale is not None
            noise = torch.randn(batch, seq, spec.layout.channels, generator=generator)
            # A third of the range is one standard deviation: some values saturate.
            found[spec.name] = noise * (spec.scale * limits(spec.bits)[1] / 3).to(torch.float32)
            continue
        high = spec.entries if spec.entries else 2
        value = torch.randint(0, high, (batch, seq), generator=generator)
        if spec.kind in ("mask", "both"):
            keep = torch.arange(seq)[None] < (_lengths(batch, seq)[:, None] if padded else seq)
            value = (torch.ones_like(value) if spec.kind == "mask" else value) * keep
        found[spec.name] = value
    return found


def _lengths(batch: int, seq: int) -> Tensor:
    """Tokens of each sequence that are not padding: all of the first where there are several."""
    lengths = torch.full((batch,), seq)
    lengths[-1] = max(1, seq * 2 // 3)
    return lengths


def golden_run(compiled: CompiledModel) -> Golden:
    """Run the reference and collect what the test bench feeds and expects."""
    design, interface = compiled.design, compiled.interface
    batch, seq = run_size(design)
    if design.turns:
        seq = min(seq, design.shape.keys - TURNS + 1)
    inputs = example_inputs(interface.inputs, batch, seq)
    quantised = interface.quantise(inputs)
    if design.turns:
        return _generation(compiled, quantised)
    with torch.no_grad():
        like = next(iter(quantised.values()))
        _, trace = Reference(design, compiled.data).run(quantised, like, keep=True)
    root = roots(design)
    files: dict[str, bytes] = {}
    sources: dict[str, str] = {}
    for name, stream in design.streams.items():
        if stream.kind not in VALUES:
            continue
        sources[name] = golden_path(root[name])
        if root[name] == name:
            files[sources[name]] = _tokens(trace, stream, design)
    for name, uses in dealt_sums(design).items():
        parts = [stream_tokens(trace[own.name][step], own, design.shape) for own, step in uses]
        sources[name] = golden_path(name)
        files[sources[name]] = np.concatenate(parts).tobytes()
    for _, port in all_ports(design):
        if port.role in ("ids", "mask", "rows"):
            buffer = interface.buffer(port.binding, port.role, quantised, design)
            files[golden_path(port.name)] = buffer.tobytes()
        elif port.write and port.role != SUMS:
            files[golden_path(port.name)] = _packed(trace, port.binding, design)
    words: dict[str, str] = {}
    for access in design.ports:
        for name in access.streams:
            if not design.streams[name].link or access.role == "weights":
                continue
            words[name] = golden_path(name if access.role == "table" else access.name)
            if access.role == "table":
                files[words[name]] = _gathered(compiled, access, quantised, batch, seq)
    files |= _sums(compiled, Launch(batch, seq))
    return Golden(batch, seq, files, sources, words)


def _generation(compiled: CompiledModel, quantised: Mapping[str, Tensor]) -> Golden:
    """The golden launch of a model that generates."""
    design, (spec,) = compiled.design, compiled.interface.inputs
    made = GoldenTurns(compiled, quantised[spec.name])
    root, streams = roots(design), made.streams()
    sources = {name: golden_path(root[name]) for name in design.streams if root[name] in streams}
    files = {path: streams[root[name]] for name, path in sources.items()}
    words: dict[str, str] = {}
    for port in design.ports:
        (name,) = port.streams
        if port.role == "ids":
            buffer = compiled.interface.buffer(port.binding, "ids", quantised, design)
            files[golden_path(port.name)] = buffer.tobytes()
        elif port.role == "settings":
            files[golden_path(port.name)] = made.settings
        elif port.role == "tokens":
            files[golden_path(port.name)] = np.array(made.tokens, dtype=np.int32).tobytes()
        elif port.role == "cache":
            files[golden_path(port.binding)] = made.cache(port)
        if design.streams[name].link and port.role in ("table", "cache", "settings"):
            words[name] = golden_path(name)
            if port.role == "table":
                files[words[name]] = _gathered(compiled, port, {spec.name: made.text}, 1, made.text.shape[1])
            else:
                files[words[name]] = made.words(port)
    launch = made.launch
    files |= _sums(compiled, launch)
    return Golden(launch.batch, launch.seq, files, sources, words, launch.turns)


def _sums(compiled: CompiledModel, launch: Launch) -> dict[str, bytes]:
    """The file of the sums of what a launch reads; none without checksums."""
    design = compiled.design
    if result_port(design) is None:
        return {}
    read = [(k, p) for k, p in all_ports(design) if summed(design, k, p)["place"] >= 0]
    images = {port.name: image_of(compiled, kernel, port) for kernel, port in read}
    return {golden_path(SUMS): launch_sums(design, images, launch)}


def _gathered(
    compiled: CompiledModel, port: Port, quantised: Mapping[str, Tensor], batch: int, seq: int
) -> bytes:
    """Rows of an embedding table in the order in which a launch reads them."""
    kernel, argument = next((k, p) for k, p in all_ports(compiled.design) if p.name == port.name)
    table = np.frombuffer(image_of(compiled, kernel, argument), dtype=np.uint8)
    rows = table.reshape(-1, 64 * int(port.config["row_words"]))
    index: Tensor = torch.arange(seq).repeat(batch)
    if "ids" in port.config:
        bound = [p.binding for p in compiled.design.ports if port.config["ids"] in p.streams]
        (source,) = bound or list(quantised)
        index = quantised[source].reshape(-1).long()
    return rows[index.numpy()].tobytes()


def _tokens(trace: Trace, stream: Stream, design: Design) -> bytes:
    parts = [stream_tokens(value, stream, design.shape) for value in trace.get(stream.name, [])]
    return np.concatenate(parts).tobytes() if parts else b""


def _packed(trace: Trace, stage_name: str, design: Design) -> bytes:
    """What a pack stage leaves in memory: whole words."""
    stage = design.stage(stage_name)
    assert isinstance(stage, PackStage)
    (value,) = trace[stage.outputs[0]]
    content = rows_to_tokens(value, stage.layout, stage.element, design.shape).tobytes()
    return content + bytes(-len(content) % 64)
