# SPDX-License-Identifier: Apache-2.0
"""The dataflow design as plain frozen data: stages, streams, ports, kernels, and its verifier.

Token order of every row stream: for sequence, for tile of rows, for channel block, for row in the
tile; a token is one vector of ``lanes`` channels of one row (see ``hls/include/t2f/core.hpp``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from torch2fpga.errors import DesignError

#: element name -> (C++ type, bytes)
ELEMENTS: dict[str, tuple[str, int]] = {
    "int8": ("int8_t", 1),
    "uint8": ("uint8_t", 1),
    "int16": ("int16_t", 2),
    "int32": ("int32_t", 4),
}

#: constants of one stage: one dictionary a step
StepData = Sequence[Mapping[str, Any]]

#: processes that hand out parameters: from memory, and what came over a link to another kernel
PARAMETER_READER, PARAMETER_DEALER = "read_parameters", "deal_parameters"

#: label of a pipelined loop -> its depth in cycles
Depths = Callable[[str], int]

#: of sequences a launch and of rows a sequence: the C++ multiplies 16-bit numbers (``rows_of``)
LARGEST = (1 << 16) - 1

#: cycles to enter a pipelined loop and to leave it (UG1399: one each)
LOOP_OVERHEAD = 2

#: pipeline depth that a modelled cost takes for every loop (the checker derives the real ones)
NOMINAL_DEPTH = 12


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def pipelined(iterations: int, depth: int, ii: int = 1) -> int:
    """Cycles of one entry of a pipelined loop: enter, issue every ``ii``, drain, leave."""
    return (iterations - 1) * ii + depth + LOOP_OVERHEAD if iterations > 0 else 0


def tiled(rows: int, tile: int, per_row: int, depth: int) -> int:
    """Cycles of a pipelined loop that a sequence of ``rows`` rows enters once a tile.

    ``per_row`` iterations for each row of the tile, at II 1; the last tile may hold fewer rows.
    """
    return per_row * rows + ceil_div(rows, tile) * (pipelined(1, depth) - 1)


def nominal_depth(label: str) -> int:
    """The depth of a modelled cost, the same for every loop."""
    return NOMINAL_DEPTH


@dataclass(frozen=True)
class Shape:
    """Compile-time sizes of a design.

    Attributes:
        lanes: channels a token (8 or 16).
        tile: rows that share one pass over the weights.
        max_batch: sequences a launch.
        max_seq: rows a sequence.
        max_keys: rows that attention may look back on, where a cache keeps those of earlier launches
            (0: those of the launch, no cache).
    """

    lanes: int
    tile: int
    max_batch: int
    max_seq: int
    max_keys: int = 0

    def __post_init__(self) -> None:
        if self.lanes not in (8, 16):
            raise DesignError(f"lanes must be 8 or 16, not {self.lanes}")
        if min(self.tile, self.max_batch, self.max_seq) < 1:
            raise DesignError(f"tile, max_batch and max_seq must be at least 1: {self}")
        if max(self.max_batch, self.max_seq, self.max_keys) > LARGEST:
            raise DesignError(f"max_batch, max_seq and max_keys must be at most {LARGEST:,}: {self}")
        if self.max_keys and (self.max_batch != 1 or self.max_keys < self.max_seq):
            raise DesignError(f"a cache takes one sequence, and no fewer keys than rows: {self}")

    @property
    def keys(self) -> int:
        """Rows that attention looks back on at most."""
        return self.max_keys or self.max_seq


@dataclass(frozen=True)
class Layout:
    """Channels of a row: ``groups`` times ``size``; each group fills whole tokens."""

    groups: int
    size: int

    @property
    def channels(self) -> int:
        return self.groups * self.size

    def group_blocks(self, lanes: int) -> int:
        return ceil_div(self.size, lanes)

    def blocks(self, lanes: int) -> int:
        return self.groups * self.group_blocks(lanes)

    @property
    def closed(self) -> Layout:
        """The same channels as one group, without gaps."""
        return Layout(1, self.channels)

    def in_tokens(self, lanes: int) -> Layout:
        """Equal for two layouts that put the same channels into the same tokens and lanes."""
        return self.closed if self.size % lanes == 0 else self


#: one channel: the default where a stage has no channels of its own
SCALAR = Layout(1, 1)


@dataclass(frozen=True)
class Stream:
    """A FIFO between two stages.

    Attributes:
        kind: what a token is: ``rows`` (a vector of channels), ``scores`` (a vector of keys),
            ``exponents`` (one int8 a row), ``mask`` (a vector of keys, once a launch),
            ``ids`` (one int32 a row), ``words`` (512 bits of memory), ``tiles`` (a channel block of every row
            of a tile, as many as ``element`` says) or ``sums`` (a vector of channels of changing layers).
        element: element type of a vector.
        layout: channels of a row (``rows``), or heads and head size (``scores``).
        one_row: one row a sequence (behind a row selection) instead of all of them.
        depth: tokens that the FIFO holds.
        link: AXI stream between two kernels.
    """

    name: str
    kind: str
    element: str = "int8"
    layout: Layout = SCALAR
    one_row: bool = False
    depth: int = 2
    link: bool = False

    def cpp_type(self, lanes: int) -> str:
        """The token's C++ type."""
        if self.kind == "words":
            return "t2f::word"
        if self.kind == "exponents":
            return "int8_t"
        if self.kind == "ids":
            return "int32_t"
        if self.kind == "tiles":
            return f"t2f::tile_block<{self.element}, {lanes}>"
        return f"t2f::vec<{ELEMENTS[self.element][0]}, {lanes}>"

    def token_bytes(self, lanes: int) -> int:
        """Bytes of a token."""
        if self.kind == "tiles":
            return int(self.element) * lanes
        fixed = {"words": 64, "exponents": 1, "ids": 4}
        return fixed.get(self.kind, ELEMENTS[self.element][1] * lanes)

    def tokens_per_row(self, shape: Shape) -> int:
        """Tokens that one row takes (``scores``: at the longest sequence)."""
        if self.kind == "rows":
            return self.layout.blocks(shape.lanes)
        if self.kind == "scores":
            return self.layout.groups * ceil_div(shape.keys, shape.lanes)
        return 1


@dataclass(frozen=True)
class Tokens:
    """What a stage's template takes from, or writes to, one of its streams (see ``Stream``)."""

    kind: str
    element: str = "int8"
    layout: Layout = SCALAR
    one_row: bool = False

    @staticmethod
    def of(stream: Stream) -> Tokens:
        """What a stream is declared to carry."""
        return Tokens(stream.kind, stream.element, stream.layout, stream.one_row)

    def seen(self, lanes: int) -> Tokens:
        """Equal for two that are the same tokens: what does not matter for the kind is left out."""
        if self.kind in ("rows", "scores"):
            layout = self.layout.in_tokens(lanes) if self.kind == "rows" else self.layout
            return Tokens(self.kind, self.element, layout, self.one_row)
        return Tokens(self.kind, one_row=self.one_row and self.kind == "exponents")

    def __str__(self) -> str:
        rows = f"{self.kind} of {self.element}, {self.layout.groups} x {self.layout.size}"
        text = rows if self.kind in ("rows", "scores") else self.kind
        return f"{text}, one a sequence" if self.one_row else text


#: memory words
WORDS = Tokens("words")


@dataclass(frozen=True)
class Estimate:
    """Hardware cost, modelled; adds up."""

    dsp: int = 0
    lut: int = 0
    ff: int = 0
    bram18: int = 0
    uram: int = 0
    cycles: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.dsp + other.dsp,
            self.lut + other.lut,
            self.ff + other.ff,
            self.bram18 + other.bram18,
            self.uram + other.uram,
            max(self.cycles, other.cycles),
        )


@dataclass(frozen=True)
class Fifo:
    """A FIFO inside of a stage: C++ name, C++ type and bytes of a token, tokens that it holds."""

    name: str
    token: str
    token_bytes: int
    depth: int


@dataclass(frozen=True)
class Front:
    """A process of its own in front of a stage's main one, which prepares the stage's first input while
    the main one works, and the FIFO that joins the two. Both have the stage's configuration.

    Attributes:
        name: process.
        template: its C++ template: (first input, ``stream``, ``beside``, runtime arguments).
        stream: C++ name of the FIFO, which stands in the main process for the first input.
        token: its C++ type.
        token_bytes: width of a token.
        depth: tokens that it holds.
        beside: another FIFO between the two, behind the first one in both argument lists.
    """

    name: str
    template: str
    stream: str
    token: str
    token_bytes: int
    depth: int
    beside: Fifo | None = None

    @property
    def fifos(self) -> tuple[Fifo, ...]:
        """All FIFOs between the two processes, in the order of their arguments."""
        first = Fifo(self.stream, self.token, self.token_bytes, self.depth)
        return (first,) if self.beside is None else (first, self.beside)


@dataclass(frozen=True)
class Stage:
    """A hardware unit made from one canonical node (or a part of one).

    Attributes:
        name: C++ identifier, unique in the design.
        path: module path in the user's model ("*" stands for the repeated block's index).
        group: ``before``, ``loop`` or ``after`` the layer loop.
        steps: how often it is used per launch (layers of the loop, or 1).
        inputs, outputs: stream names, in the order of the C++ template.
        params: word stream with the step's parameters, if it has any.
        one_row: works on one row a sequence.
    """

    name: str
    path: str
    group: str
    steps: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: str | None = None
    one_row: bool = False

    template: ClassVar[str] = ""
    header: ClassVar[str] = ""
    #: rows that go in before the first row comes out (``tile`` or ``seq``), for FIFO depths
    hold: ClassVar[str] = ""
    #: inputs of which a whole sequence is read before the other inputs are touched
    whole_first: ClassVar[tuple[int, ...]] = ()
    #: inputs that are not touched before a tile of the others is read
    tile_late: ClassVar[tuple[int, ...]] = ()

    @property
    def shares_array(self) -> bool:
        """Has it an array together with other layers, which it waits for?"""
        return False

    def config(self, design: Design) -> dict[str, Any]:
        """Members of the stage's C++ configuration struct."""
        raise NotImplementedError

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        """What ``inputs`` and ``outputs`` have to carry; ``torch2fpga.verifier`` holds the streams to it."""
        raise NotImplementedError

    def result_bits(self) -> int:
        """Width that the values of the first output are known to fit; 0 is that of their element."""
        return 0

    def rows(self, element: str, layout: Layout) -> Tokens:
        """Rows of channels, as many a sequence as the stage works on."""
        return Tokens("rows", element, layout, self.one_row)

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        """Integer result of one step; int64 tensors of shape (batch, seq, channels)."""
        raise NotImplementedError

    def parameter_words(self, data: Mapping[str, Any], design: Design) -> bytes:
        """The step's parameter words in the order in which the stage reads them."""
        return b""

    def cost(self, design: Design) -> Estimate:
        """Modelled cost at the compiled maximum."""
        return Estimate()

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        """Cycles of one launch, start to end, when no input is late and no output is full (of the main
        process where there is another one in front of it).

        The closed form of the C++ template, derived by hand; the timed run has to agree.

        Args:
            depth: pipeline depth (iteration latency in cycles) of the loop with that label.
        """
        raise NotImplementedError

    def turn_cycles(self, design: Design, seq: int, past: int, depth: Depths) -> int:
        """Cycles of one turn of a design that generates: ``seq`` rows behind ``past`` that are cached."""
        return self.cycles(design, 1, seq, depth)

    def front(self, design: Design) -> Front | None:
        """The process in front of the main one, if the stage has one."""
        return None

    def front_cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        """Cycles of the process in front, as ``cycles`` are those of the main one."""
        return 0

    def nominal_cycles(self, design: Design) -> int:
        """Cycles of a launch of the largest size, with one depth for all loops."""
        return self.cycles(design, design.shape.max_batch, design.shape.max_seq, nominal_depth)

    def call_arguments(self) -> list[str]:
        """Stream arguments in template order."""
        return [*self.inputs, *([self.params] if self.params else []), *self.outputs]

    def runtime_arguments(self) -> list[str]:
        """Scalars behind the streams."""
        return ["batch", "1" if self.one_row else "seq"]

    def arguments(self) -> list[str]:
        """All arguments of the C++ template, in its order."""
        return [*self.call_arguments(), *self.runtime_arguments()]


@dataclass(frozen=True)
class Port:
    """A memory interface of a kernel.

    Attributes:
        name: argument name.
        kernel: kernel that owns it.
        direction: ``read`` or ``write``.
        role: ``weights``, ``params``, ``table``, ``ids``, ``mask``, ``rows`` or ``output``; where tokens are
            generated ``cache``, ``settings`` and ``tokens``.
        binding: weight image, model input or model output it carries.
        words: buffer size in 64-byte words at the compiled maximum.
        template: access process of ``memory.hpp``/``embed.hpp``.
        streams: streams it feeds or drains.
        config: members of its C++ configuration struct.
        awaits: stream with a token that the process awaits each turn before it reads.
        reports: stream that gets a token each turn when all of it is written.
        sums: stream that gets the sum of what was read each turn; of a port of results, the streams whose
            sums its process writes beside them (``sums.hpp``).
    """

    name: str
    kernel: str
    direction: str
    role: str
    binding: str
    words: int
    template: str
    streams: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    awaits: str = ""
    reports: str = ""
    sums: tuple[str, ...] = ()

    @property
    def takes(self) -> tuple[str, ...]:
        """Streams that its process reads."""
        ids = (str(self.config["ids"]),) if "ids" in self.config else ()
        awaited = (self.awaits,) if self.awaits else ()
        written = (*self.streams, *self.sums) if self.direction == "write" else ()
        return (*written, *ids, *awaited)

    @property
    def gives(self) -> tuple[str, ...]:
        """Streams that its process writes."""
        return (
            *((*self.streams, *self.sums) if self.direction == "read" else ()),
            *((self.reports,) if self.reports else ()),
        )


@dataclass(frozen=True)
class Kernel:
    """What is linked as one unit: its stages in order, and the AXI streams at its edge.

    Attributes:
        stages: in the order of the design's; none where only memory ports live.
        axis_in, axis_out: links that it reads and writes.
        slr: super logic region.
        parameters: link that brings its stages' parameters; None where it reads them itself, or
            where no stage has any.
        parameters_sum: stream that gets the sum of the parameters that it reads, with checksums.
    """

    name: str
    stages: tuple[str, ...]
    axis_in: tuple[str, ...]
    axis_out: tuple[str, ...]
    slr: int
    parameters: str | None = None
    parameters_sum: str | None = None


@dataclass(frozen=True)
class Design:
    """All of it.

    Attributes:
        stages: every stream is written before it is read, except what the layer loop returns.
        steps: layers in the loop (1 without a loop).
        turns: most tokens that a launch generates, each fed back on the device (0: none; a launch is then
            one pass over its rows). A launch has as many turns; the first takes its rows, later ones the
            token before.
        logic: what is computed, where some stages do the work of others (layers that share an array); the
            reference goes by it. Empty: ``stages`` say it.
        channels: memory channel of ports that have been given one, by argument.
    """

    name: str
    shape: Shape
    stages: tuple[Stage, ...]
    streams: Mapping[str, Stream]
    ports: tuple[Port, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    steps: int = 1
    channels: Mapping[str, int] = field(default_factory=dict)
    turns: int = 0
    logic: tuple[Stage, ...] = ()

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(s for s in (*self.stages, *self.logic) if s.name == name)

    def port_of(self, role: str) -> Port:
        """The one port of a role; its name may be another than a model without such a module gives it."""
        (found,) = (p for p in self.ports if p.role == role)
        return found

    def writers(self) -> dict[str, str]:
        """stream -> stage, port or parameter process that writes it."""
        found = {out: s.name for s in self.stages for out in s.outputs}
        dealt = {s for k in self.kernels if k.parameters for s in k.stages}
        if self.kernels:
            found |= {
                s.params: PARAMETER_DEALER if s.name in dealt else PARAMETER_READER
                for s in self.stages
                if s.params
            }
        found |= {k.parameters: PARAMETER_READER for k in self.kernels if k.parameters}
        found |= {k.parameters_sum: PARAMETER_READER for k in self.kernels if k.parameters_sum}
        for port in self.ports:
            found.update(dict.fromkeys(port.gives, port.name))
        return found

    def readers(self) -> dict[str, str]:
        """stream -> stage, port or parameter process that reads it."""
        found = {i: s.name for s in self.stages for i in (*s.inputs, *([s.params] if s.params else []))}
        found |= {k.parameters: PARAMETER_DEALER for k in self.kernels if k.parameters}
        for port in self.ports:
            found.update(dict.fromkeys(port.takes, port.name))
        return found

    def estimate(self) -> Estimate:
        """Sum of the stages' modelled cost (cycles: the slowest stage)."""
        total = Estimate()
        for stage in self.stages:
            total = total + stage.cost(self)
        return total
