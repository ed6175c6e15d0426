# SPDX-License-Identifier: Apache-2.0
"""One stage in two worlds: hand-made Verilog in Verilator, and the stage library in the timed run.

Both get the same tokens, FIFO depths, pipeline depths and traffic; tokens that come out are compared bit for
bit, cycles are those of the end of the stage and of each token's arrival in the sink.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.rtl import verilator
from torch2fpga.emit.kernel import config_lines
from torch2fpga.simulate.build import FLAGS, INCLUDE, build_library

Tokens = NDArray[np.uint8]  # [tokens, bytes]
#: pipeline depth of sources and sinks, as in source.v and sink.v
BENCH_DEPTH = 2
#: cycles after which either world gives up
LIMIT = 2_000_000


@dataclass(frozen=True)
class Pattern:
    """Traffic of a source or sink: an iteration every ``ii`` cycles, ``burst`` in ``period`` move a token."""

    ii: int = 1
    period: int = 1
    burst: int = 1

    def iterations(self, tokens: int) -> int:
        """How many it takes to move so many tokens, the last of them in the last one."""
        whole, rest = divmod(tokens - 1, self.burst)
        return whole * self.period + rest + 1


@dataclass(frozen=True)
class Stage:
    """A stage of the library and its Verilog.

    Attributes:
        header, labels: where its loops are, and their labels in Verilog's order of parameters.
        config: members of the template's configuration from the case's numbers.
        parameters: those of the Verilog that the case's numbers give.
        inputs: makes the tokens of the input streams, in the order of the bench's arguments.
        outputs: tokens that come out.
        entries: how often its last loop is entered.
        front: labels of loops in a process of their own in front of the stage.
    """

    name: str
    header: str
    labels: tuple[str, ...]
    config: Callable[[Mapping[str, int]], dict[str, Any]]
    parameters: tuple[str, ...]
    inputs: Callable[[Mapping[str, int]], dict[str, Tokens]]
    outputs: Callable[[Mapping[str, int]], int]
    entries: Callable[[Mapping[str, int]], int]
    front: tuple[str, ...] = ()

    def process(self, label: str) -> str:
        """The process whose loop it is."""
        return "k/front" if label in self.front else "k/stage"

    def site(self, label: str) -> str:
        """``file:line`` of the loop behind a label, the first of that name."""
        lines = (INCLUDE / "t2f" / self.header).read_text().splitlines()
        at = next(i for i, text in enumerate(lines) if text.strip() == f"{label}:")
        return f"{self.header}:{next(i for i in range(at, len(lines)) if 'T2F_PIPELINE' in lines[i]) + 1}"


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        tokens: of the output stream, in their order.
        arrivals: cycle in which the sink read each.
        stage: cycles until the stage was through.
        sink: cycles until the sink was through.
    """

    tokens: list[bytes]
    arrivals: list[int]
    stage: int
    sink: int


@dataclass(frozen=True)
class Case:
    """A stage of one size.

    Attributes:
        numbers: lanes, tile, steps, batch, seq and the stage's own.
        depths: of its loops, in the order of ``Stage.labels``.
        fifo: depth of every FIFO.
    """

    stage: Stage
    name: str
    numbers: Mapping[str, int]
    depths: tuple[int, ...]
    fifo: int

    @cached_property
    def inputs(self) -> dict[str, Tokens]:
        """Tokens of the input streams."""
        return self.stage.inputs(self.numbers)

    @property
    def loops(self) -> list[tuple[str, int]]:
        """Label and depth of each loop."""
        return list(zip(self.stage.labels, self.depths, strict=True))

    def patterns(self, traffic: Mapping[str, Pattern]) -> dict[str, tuple[int, int, int, int]]:
        """Iterations, II, period and burst of every source and of the sink ``y``."""
        counts = {name: len(tokens) for name, tokens in self.inputs.items()}
        counts["y"] = self.stage.outputs(self.numbers)
        found = {}
        for name, count in counts.items():
            pattern = traffic.get(name, Pattern())
            found[name] = (pattern.iterations(count), pattern.ii, pattern.period, pattern.burst)
        return found

    # -- Verilog ------------------------------------------------------------------------------

    def rtl(self, traffic: Mapping[str, Pattern]) -> Outcome:
        """Run the Verilog."""
        values = {name.upper(): self.numbers[name] for name in self.stage.parameters}
        values |= {f"{label}_DEPTH": depth for label, depth in self.loops}
        simulation = verilator.build(f"bench_{self.stage.name}", {**values, "FIFO": self.fifo})
        files = {f"{name}.hex": verilator.hexadecimal(tokens) for name, tokens in self.inputs.items()}
        files |= verilator.roots()
        for name, pattern in self.patterns(traffic).items():
            files[f"{name}.pattern"] = "".join(f"{n:x}\n" for n in pattern)
        files["run.hex"] = f"{self.numbers['batch']:x}\n{self.numbers['seq']:x}\n"
        tokens, arrivals, ends = [], [], {}
        for line in verilator.run(simulation, files, LIMIT):
            match line.split():
                case "token", cycle, value:
                    arrivals.append(int(cycle))
                    tokens.append(bytes.fromhex(value)[::-1])
                case "end", name, cycle:
                    ends[name] = int(cycle)
        return Outcome(tokens, arrivals, ends["stage"], ends["sink"])

    # -- timed run ----------------------------------------------------------------------------

    def timed(self, traffic: Mapping[str, Pattern]) -> Outcome:
        """Run the stage library under the clock.

        Raises:
            RuntimeError: if the run fails, or knows a loop of the stage by another depth than it should.
        """
        side = _TIMED[_key(self)]
        library = side.library
        arrays = [np.ascontiguousarray(tokens) for tokens in self.inputs.values()]
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        rows = [n for pattern in self.patterns(traffic).values() for n in pattern]
        patterns = (ctypes.c_long * len(rows))(*rows)
        batch, seq = self.numbers["batch"], self.numbers["seq"]
        run = side.entry(pointers, patterns, batch, seq, self._settings().encode())
        try:
            text = library.timed_text(run).decode()
            if text.startswith("!"):
                raise RuntimeError(text[1:])
            count, size = library.timed_count(run), self.out_bytes
            raw = ctypes.string_at(library.timed_tokens(run), count * size)
            cycles = ctypes.cast(library.timed_cycles(run), ctypes.POINTER(ctypes.c_uint64))
            arrivals = [cycles[i] for i in range(count)]
        finally:
            library.timed_free(run)
        processes = {p["path"]: p for p in json.loads(text)["processes"]}
        parts = [processes[path]["loops"] for path in {self.stage.process(n) for n in self.stage.labels}]
        loops = {f"{use['file']}:{use['line']}": use["depth"] for part in parts for use in part}
        expected = {self.stage.site(label): depth for label, depth in self.loops}
        if loops != expected:
            raise RuntimeError(f"loops of the timed run have depths {loops}, not {expected}")
        tokens = [raw[i * size : (i + 1) * size] for i in range(count)]
        return Outcome(tokens, arrivals, processes["k/stage"]["ends"][-1], processes["k/y"]["ends"][-1])

    @property
    def out_bytes(self) -> int:
        """Bytes of an output token."""
        return self.numbers["lanes"] * (1 if self.stage.name == "softmax" else 4)

    def _settings(self) -> str:
        lines = [f"default_depth {BENCH_DEPTH}", f"cycle_limit {LIMIT}"]
        lines += [f"depth {self.stage.process(n)} {self.stage.site(n)} {depth}" for n, depth in self.loops]
        lines += [f"fifo k/{name} {self.fifo}" for name in (*self.inputs, "y")]
        return "\n".join(lines) + "\n"


def differences(rtl: Outcome, timed: Outcome) -> tuple[float, float]:
    """Percent by which the timed run is off: the stage's end, and the arrival of the last token."""
    pairs = ((rtl.stage, timed.stage), (rtl.arrivals[-1], timed.arrivals[-1]))
    first, second = (100 * (b - a) / a for a, b in pairs)
    return first, second


# -- the timed run's library ----------------------------------------------------------------------


@dataclass(frozen=True)
class TimedSide:
    """A compiled bench: its library, and the entry for one stage and its numbers."""

    library: ctypes.CDLL
    entry: Any


_TIMED: dict[tuple[str, tuple[tuple[str, int], ...]], TimedSide] = {}


def prepare(cases: Sequence[Case]) -> None:
    """Compile the timed side of several cases as one library; ``Case.timed`` needs it."""
    wanted = {_key(case): case for case in cases}
    lines = ['#include "timed.hpp"']
    for i, case in enumerate(wanted.values()):
        lines += [f"struct Config{i} {{", *config_lines(case.stage.config(case.numbers)), "};"]
        lines += [
            f'extern "C" void *timed_{i}(const void *const *tokens, const Pattern *patterns, int batch,'
            " int seq, const char *settings) {",
            f"  return timed_run([=](Run &run) {{ {case.stage.name}<Config{i}>(run, batch, seq); }},"
            " tokens, patterns, settings);",
            "}",
        ]
    sources = {"timed.hpp": (verilator.HERE / "timed.hpp").read_text(), "timed.cpp": "\n".join(lines) + "\n"}
    library = ctypes.CDLL(str(build_library(sources, (*FLAGS, "-DT2F_TIMED"))))
    for name in ("timed_text", "timed_tokens", "timed_cycles", "timed_count", "timed_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_void_p
    library.timed_text.restype = ctypes.c_char_p
    library.timed_count.restype = ctypes.c_long
    library.timed_free.restype = None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for i, key in enumerate(wanted):
        entry = getattr(library, f"timed_{i}")
        entry.restype = pointer
        entry.argtypes = [pointer, pointer, number, number, ctypes.c_char_p]
        _TIMED[key] = TimedSide(library, entry)


def _key(case: Case) -> tuple[str, tuple[tuple[str, int], ...]]:
    return case.stage.name, tuple(sorted(case.numbers.items()))
