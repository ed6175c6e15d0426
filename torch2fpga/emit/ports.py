# SPDX-License-Identifier: Apache-2.0
"""Memory ports of kernels as their arguments, and the words of parameters behind one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch2fpga.design import Design, Kernel, Port, Stage, Stream, ceil_div
from torch2fpga.emit.caches import BUNDLE, written_here


@dataclass(frozen=True)
class KernelPort:
    """A kernel argument on a memory port."""

    name: str
    ctype: str
    write: bool
    words: int
    role: str
    binding: str

    @property
    def element(self) -> str:
        """C++ type of what lies in memory."""
        return self.ctype.removeprefix("const ").removesuffix(" *")

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return 4 if self.element == "int32_t" else 64


#: name and role of the argument that the sums of a launch are written to, beside its results
SUMS = "sums"


def kernel_ports(design: Design, kernel: Kernel) -> list[KernelPort]:
    """Memory arguments of a kernel in order: those of its ports, sums, parameters."""
    ports = [p for p in design.ports if p.kernel == kernel.name]
    found = [
        KernelPort(p.name, _pointer(p), p.direction == "write", _depth(p), p.role, p.binding) for p in ports
    ]
    found += [
        KernelPort(SUMS, _pointer(p), True, _sum_words(p, design), SUMS, p.name)
        for p in ports
        if p.sums and p.direction == "write"
    ]
    words = parameter_word_count(design, kernel)
    if words:
        found.append(KernelPort("parameters", "const t2f::word *", False, words, "params", kernel.name))
    return found


def port_bytes(port: KernelPort) -> int:
    """Bytes of a port's buffer at the compiled maximum."""
    return port.words * port.width


def bundle(port: KernelPort) -> str:
    """Master of a port: its own, the one that writes all caches, or that of the results beside sums."""
    if port.role == SUMS:
        return f"gmem_{port.binding}"
    return BUNDLE if port.role == "cache" and port.write else f"gmem_{port.name}"


def masters(design: Design) -> int:
    """AXI masters of all kernels; of a design without kernels, of the ports it declares."""
    if not design.kernels:
        caches = sum(written_here(p) for p in design.ports)
        return len(design.ports) - caches + (1 if caches else 0)
    ports = [(kernel.name, port) for kernel, port in all_ports(design) if port.role != SUMS]
    shared = {name for name, port in ports if bundle(port) == BUNDLE}
    return sum(bundle(port) != BUNDLE for _, port in ports) + len(shared)


def _pointer(port: Port) -> str:
    element = "int32_t" if port.role in ("ids", "tokens") else "t2f::word"
    return f"{element} *" if port.direction == "write" else f"const {element} *"


def _depth(port: Port) -> int:
    return port.words * 16 if port.role == "ids" else port.words


def _sum_words(port: Port, design: Design) -> int:
    """Elements that the sums of a launch take beside results: one each, or sixteen of them in a word."""
    count = len(port.sums)
    return design.turns * count if port.role == "tokens" else ceil_div(count, 16)


def parameter_words_of(stage: Stage, design: Design) -> int:
    """Words of one step's parameters."""
    return PARAMETER_WORDS[type(stage).__name__](stage, design)


#: words a step, from the stage alone (no constants at hand)
PARAMETER_WORDS: dict[str, Any] = {
    "RequantStage": lambda s, d: 1 + (3 if s.scaled else 2) * s.layout.blocks(d.shape.lanes),
    "NormalizeStage": lambda s, d: 1,
    "RmsNormStage": lambda s, d: 1,
    "RotaryStage": lambda s, d: s.layout.group_blocks(d.shape.lanes),
    "SoftmaxStage": lambda s, d: 1 + -(-s.layout.groups // 16),
}


def parameterised(design: Design, kernel: Kernel) -> list[Stage]:
    """Stages of a kernel that take parameters, in order."""
    return [design.stage(s) for s in kernel.stages if design.stage(s).params]


def parameter_targets(design: Design, kernel: Kernel) -> list[tuple[Stage, str]]:
    """(stage, stream that takes its words) in the order in which a kernel's process hands them out.

    The kernel that reads them from memory hands out the words of all stages, in the design's order:
    those of other kernels to their links. Every stage takes a step's words before its first token,
    so that this order is one in which nobody waits for ever.
    """
    if kernel.parameters is not None:
        return [(s, str(s.params)) for s in parameterised(design, kernel)]
    link = {s: k.parameters for k in design.kernels for s in k.stages}
    own, linked = set(kernel.stages), set(kernel.axis_out)
    return [
        (s, link[s.name] or str(s.params))
        for s in design.stages
        if s.params and (s.name in own or link[s.name] in linked)
    ]


def reads_parameters(design: Design, kernel: Kernel) -> bool:
    """Has the kernel a memory port for parameters?"""
    return kernel.parameters is None and bool(parameter_targets(design, kernel))


def parameter_word_count(design: Design, kernel: Kernel) -> int:
    """Words of the image behind a kernel's parameter port; 0 where it has none."""
    if kernel.parameters is not None:
        return 0
    return sum(parameter_words_of(s, design) * s.steps for s, _ in parameter_targets(design, kernel))


def all_ports(design: Design) -> list[tuple[Kernel, KernelPort]]:
    """Every memory port in manifest order."""
    return [(k, p) for k in design.kernels for p in kernel_ports(design, k)]


def links(design: Design) -> list[Stream]:
    """AXI streams between kernels, by name."""
    return sorted((s for s in design.streams.values() if s.link), key=lambda s: s.name)


def beside(port: KernelPort, other: KernelPort) -> bool:
    """Are they sums and the results that come from the same master?"""
    return port.role == SUMS and other.write and port.binding == other.name


def shares(writer: KernelPort, reader: KernelPort) -> bool:
    """Do the two have one memory, a cache that the one writes and the other reads?"""
    both = (writer.role, reader.role) == ("cache", "cache") and writer.binding == reader.binding
    return both and writer.write and not reader.write
