# SPDX-License-Identifier: Apache-2.0
"""The one verifier of a design: what every stage, stream, port and kernel must agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch2fpga.design import WORDS, Design, Tokens
from torch2fpga.emit.ports import masters
from torch2fpga.errors import DesignError


def verify_design(design: Design) -> None:
    """Check names, one writer and one reader a stream, tokens at both ends, kernel membership.

    Raises:
        DesignError: with every defect found.
    """
    problems: list[str] = []
    names = [s.name for s in design.stages] + [p.name for p in design.ports]
    problems += [f"two stages or ports called {n}" for n in sorted({n for n in names if names.count(n) > 1})]
    uses_out = [o for s in design.stages for o in s.outputs] + [x for p in design.ports for x in p.gives]
    uses_out += [s.params for s in design.stages if s.params]  # by a parameter process
    links = [k.parameters for k in design.kernels if k.parameters]  # between two of them
    uses_out += links
    uses_out += [k.parameters_sum for k in design.kernels if k.parameters_sum]
    uses_in = [i for s in design.stages for i in (*s.inputs, *([s.params] if s.params else []))]
    uses_in += [x for p in design.ports for x in p.takes] + links
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
        problems += _wrong_kernels(design)
        if masters(design) > 32:
            problems.append(f"{masters(design)} AXI masters, the card has 32")
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
    ends += [(k.parameters, f"kernel {k.name} reads", WORDS) for k in design.kernels if k.parameters]
    for port in design.ports:
        moved = Tokens("ids") if port.role in ("ids", "tokens") else WORDS
        for verb, names in (("writes", port.gives), ("reads", port.takes)):
            ends += [
                (n, f"port {port.name} {verb}", moved if n in port.streams else Tokens("ids")) for n in names
            ]
    lanes = design.shape.lanes
    for name, user, wanted in ends:
        stream = design.streams.get(name)
        if wanted.kind == "any":  # held to what the layer in `logic` carries
            continue
        if stream is not None and Tokens.of(stream).seen(lanes) != wanted.seen(lanes):
            problems.append(f"stream {name} carries {Tokens.of(stream)}, but {user} {wanted}")
    return problems


def _wrong_kernels(design: Design) -> list[str]:
    """Streams that leave a kernel otherwise than by a link, and cycles inside of kernels.

    A dataflow region takes no feedback: what returns must leave through a link.
    """
    problems: list[str] = []
    owner = {s: k.name for k in design.kernels for s in k.stages} | {p.name: p.kernel for p in design.ports}
    ends_in = {n: k.name for k in design.kernels for n in k.axis_in}
    ends_out = {n: k.name for k in design.kernels for n in k.axis_out}
    writers, readers = design.writers(), design.readers()
    after: dict[str, set[str]] = {}
    for name, stream in design.streams.items():
        a, b = writers.get(name, ""), readers.get(name, "")
        here, there = owner.get(a, ends_out.get(name)), owner.get(b, ends_in.get(name))
        if stream.link and (ends_out.get(name), ends_in.get(name)) != (here, there):
            problems.append(f"link {name} is not at the edge of the kernels of {a} and {b}")
        elif stream.link and here == there:
            problems.append(f"link {name} begins and ends in kernel {here}")
        elif not stream.link and None not in (here, there) and here != there:
            problems.append(f"stream {name} goes from kernel {here} to {there} without a link")
        if not stream.link:
            after.setdefault(a, set()).add(b)
    for kernel in design.kernels:
        left = _in_cycles(kernel.stages, after)
        if left:
            problems.append(
                f"kernel {kernel.name} holds a cycle through {', '.join(left)}: a dataflow region takes "
                "no feedback, it must leave through a link"
            )
    return problems


def _in_cycles(stages: Sequence[str], after: Mapping[str, set[str]]) -> list[str]:
    """Stages on a cycle or behind one, in order."""
    left = dict.fromkeys(stages)
    while True:
        fed = {b for a in left for b in after.get(a, ())}
        free = [s for s in left if s not in fed]
        if not free or not left:
            return list(left)
        for stage in free:
            del left[stage]
