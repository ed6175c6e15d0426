# SPDX-License-Identifier: Apache-2.0
"""The one verifier of a design: what every stage, stream, port and kernel must agree on."""

from __future__ import annotations

from torch2fpga.design import WORDS, Design, Tokens
from torch2fpga.errors import DesignError


def verify_design(design: Design) -> None:
    """Check names, one writer and one reader a stream, tokens at both ends, kernel membership.

    Raises:
        DesignError: with every defect found.
    """
    problems: list[str] = []
    names = [s.name for s in design.stages] + [p.name for p in design.ports]
    problems += [f"two stages or ports called {n}" for n in sorted({n for n in names if names.count(n) > 1})]
    uses_out = [o for s in design.stages for o in s.outputs] + [
        x for p in design.ports if p.direction == "read" for x in p.streams
    ]
    uses_out += [s.params for s in design.stages if s.params]  # by the kernel's parameter reader
    uses_in = [i for s in design.stages for i in (*s.inputs, *([s.params] if s.params else []))] + [
        x for p in design.ports if p.direction == "write" for x in p.streams
    ]
    uses_in += [p.config["ids"] for p in design.ports if p.role == "table" and "ids" in p.config]
    writers, readers = design.writers(), design.readers()
    for name, stream in design.streams.items():
        if name != stream.name:
            problems.append(f"stream {stream.name} is filed under {name}")
        if uses_out.count(name) != 1:
            problems.append(f"stream {name} has {uses_out.count(name)} writers, not one")
        if uses_in.count(name) != 1:
            problems.append(f"stream {name} has {uses_in.count(name)} readers, not one")
        if stream.depth < 1:
            ends = f"written by {writers.get(name, 'nobody')} and read by {readers.get(name, 'nobody')}"
            problems.append(f"stream {name} has depth {stream.depth} ({ends}): it must hold a token")
    for used in (*uses_in, *uses_out):
        if used not in design.streams:
            problems.append(f"stream {used} is used but not declared")
    problems += _wrong_tokens(design)
    owner = {s: k.name for k in design.kernels for s in k.stages}
    if design.kernels:
        problems += [f"stage {s.name} is in no kernel" for s in design.stages if s.name not in owner]
        if sum(1 for _ in design.ports) > 32:
            problems.append(f"{len(design.ports)} memory ports, the card has 32")
    if problems:
        raise DesignError("the design is inconsistent:\n" + "\n".join(f"  - {p}" for p in problems))


def _wrong_tokens(design: Design) -> list[str]:
    """Streams that carry something other than the stage or port at one of their ends works on.

    Tokens of another layout are as many and as wide where the counts happen to agree, so that
    nothing else would notice: the values come out in the wrong channels.
    """
    ends: list[tuple[str, str, Tokens]] = []
    problems: list[str] = []
    for stage in design.stages:
        inputs, outputs = stage.carried()
        if (len(inputs), len(outputs)) != (len(stage.inputs), len(stage.outputs)):
            problems.append(
                f"stage {stage.name} has {len(stage.inputs)} inputs and {len(stage.outputs)} outputs, "
                f"its template {len(inputs)} and {len(outputs)}"
            )
        where = f"stage {stage.name} ({stage.path})" if stage.path else f"stage {stage.name}"
        ends += [(n, f"{where} reads", t) for n, t in zip(stage.inputs, inputs, strict=False)]
        ends += [(n, f"{where} writes", t) for n, t in zip(stage.outputs, outputs, strict=False)]
        ends += [(stage.params, f"{where} reads", WORDS)] if stage.params else []
    for port in design.ports:
        verb = "writes" if port.direction == "read" else "reads"
        carried = Tokens("ids") if port.role == "ids" else WORDS
        ends += [(n, f"port {port.name} {verb}", carried) for n in port.streams]
        if port.role == "table" and "ids" in port.config:
            ends.append((port.config["ids"], f"port {port.name} reads", Tokens("ids")))
    lanes = design.shape.lanes
    for name, user, wanted in ends:
        stream = design.streams.get(name)
        if stream is not None and Tokens.of(stream).seen(lanes) != wanted.seen(lanes):
            problems.append(f"stream {name} carries {Tokens.of(stream)}, but {user} {wanted}")
    return problems
