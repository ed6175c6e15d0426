# SPDX-License-Identifier: Apache-2.0
"""Shared lanes on their own: from the inputs of layers and the images of ports to the layers' sums.

All stages of a case run one after the other with unbounded streams, as ``stage_bench.py`` does with one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.loop_count import _COUNTING, Entry, _label
from tests.stage_bench import _PRELUDE, Bytes
from torch2fpga.design import Design, Kernel, Layout, Port, Shape, Stage, Stream
from torch2fpga.emit.kernel import config_lines, port_call, stage_call, type_name
from torch2fpga.lower.lanes import LanesDealStage, LaneStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.linear4 import Int4MatmulStage
from torch2fpga.plan.share import lane_weights, made_lanes
from torch2fpga.simulate.build import build_library
from torch2fpga.simulate.functional import aligned
from torch2fpga.simulate.tokens import rows_to_tokens

MAX_SEQ = 23

_CHAIN = """
#ifndef MARK
#define MARK(k)
#endif
"""
#: counts the words that are read, and where the entries of each call end
_COUNTED = """
namespace counting {
inline long words[64], last[64], bounds[64];
inline int at = 0;
inline long access(long i) { ++words[at]; if (i > last[at]) last[at] = i; return i; }
inline void mark(int k) { bounds[k] = static_cast<long>(entries.size()); inside = false; at = k + 1; }
}
extern "C" void numbers(int k, long *to) {
  to[0] = counting::bounds[k];
  to[1] = counting::words[k];
  to[2] = counting::last[k];
}
extern "C" void start() {
  for (int k = 0; k < 64; ++k) counting::words[k] = counting::last[k] = 0;
  counting::at = 0;
}
#undef T2F_MEMORY
#define T2F_MEMORY(pointer, index) (pointer)[counting::access(index)]
#define MARK(k) counting::mark(k)
"""


@dataclass(frozen=True)
class Case:
    """Layers that share lanes.

    Attributes:
        layouts: (input, output) of every layer.
        after: how many of them, the last ones, stand behind the layer loop and work on one row.
        targets: kernel that works on the sums of each layer; empty: all are dealt at once.
        group: input channels that share a scale (int4 weights); 0: int8 weights.
    """

    layouts: tuple[tuple[Layout, Layout], ...]
    count: int
    after: int = 1
    lanes: int = 16
    tile: int = 2
    steps: int = 1
    group: int = 0
    targets: tuple[int, ...] = ()

    def layers(self) -> tuple[MatmulStage, ...]:
        """The layers as stages of their own."""
        found = []
        for i, (layout_in, layout_out) in enumerate(self.layouts):
            behind = i >= len(self.layouts) - self.after
            common: dict[str, Any] = {
                "name": f"fc{i}", "path": "", "group": "after" if behind else "loop",
                "steps": 1 if behind else self.steps, "inputs": (f"x{i}", f"w{i}"), "outputs": (f"y{i}",),
                "one_row": behind, "layout_in": layout_in, "layout_out": layout_out, "keep": "streamed",
                "lanes": self.count,
            }  # fmt: skip
            found.append(
                Int4MatmulStage(**common, group_size=self.group) if self.group else MatmulStage(**common)
            )
        return tuple(found)

    @cached_property
    def logic(self) -> Design:
        """The layers."""
        shape = Shape(self.lanes, self.tile, 1, MAX_SEQ)
        streams = {}
        for layer in self.layers():
            streams[layer.inputs[0]] = Stream(layer.inputs[0], "rows", "int8", layer.layout_in, layer.one_row)
            streams[layer.outputs[0]] = Stream(
                layer.outputs[0], "rows", "int32", layer.layout_out, layer.one_row
            )
        return Design("lanes", shape, self.layers(), streams, steps=self.steps)

    @cached_property
    def parts(self) -> tuple[list[Stage], dict[str, Stream], list[Port]]:
        """Stages, streams and ports of the lanes."""
        stages, streams, ports = made_lanes(self.logic, list(self.layers()), 64)
        if self.targets:
            (deal,) = stages[-1:]
            assert isinstance(deal, LanesDealStage)
            stages[-1:] = self._deals(deal)
            links = [d.inputs[0] for d in stages if isinstance(d, LanesDealStage)]
            streams |= {n: Stream(n, "sums", "int32") for n in links}
        return stages, streams, ports

    def _deals(self, deal: LanesDealStage) -> list[LanesDealStage]:
        """A stage for every kernel: it deals out what is for the kernel and hands on the rest."""
        found, last = [], max(self.targets)
        for target in range(last + 1):
            own = [n for n, t in zip(deal.outputs, self.targets, strict=True) if t == target]
            slots = (
                own.index(n) if t == target else len(own) if t > target else -1
                for n, t in zip(deal.outputs, self.targets, strict=True)
            )  # fmt: skip
            onward = [f"sums_{target + 1}"] if target < last else []
            source = deal.inputs if target == 0 else (f"sums_{target}",)
            outputs = (*own, *onward)
            found.append(
                replace(deal, name=f"deal_{target}", inputs=source, outputs=outputs, slots=tuple(slots))
            )
        return found

    @cached_property
    def design(self) -> Design:
        """The lanes, without the stages around them."""
        stages, streams, ports = self.parts
        kernel = Kernel("k", tuple(s.name for s in stages), (), (), 0)
        return replace(
            self.logic, stages=tuple(stages), streams={**self.logic.streams, **streams}, kernels=(kernel,),
            ports=tuple(replace(p, kernel="k") for p in ports), logic=self.logic.stages,
        )  # fmt: skip

    def calls(self) -> list[str]:
        """Calls of the processes: ports, then stages."""
        stages, _, ports = self.parts
        return [*(port_call(p).statement() for p in ports), *(stage_call(s).statement() for s in stages)]

    def source(self, index: int) -> str:
        """C++ of the case's entry."""
        stages, _, ports = self.parts
        sizes = {"lanes": self.lanes, "tile": self.tile, "max_batch": 1, "max_seq": MAX_SEQ}
        configs = {p.name: {**sizes, **p.config} for p in ports}
        configs |= {s.name: {**sizes, "steps": s.steps, **s.config(self.design)} for s in stages}
        lines = [f"namespace case{index} {{"]
        for name, config in configs.items():
            members = "\n  ".join(config_lines(config))
            lines.append(f"struct {type_name(name)} {{\n  {members}\n}};")
        used = dict.fromkeys(n for s in stages for n in (*s.inputs, *s.outputs))
        streams = self.design.streams
        body = [f"hls::stream<{streams[n].cpp_type(self.lanes)}> {n};" for n in used]
        body += [f"feed(x{i}, in[{i}], have[{i}]);" for i in range(len(self.layouts))]
        body += [f"const t2f::word *{p.name} = image[{i}];" for i, p in enumerate(ports)]
        for i, call in enumerate(self.calls()):
            body += [call, f"MARK({i});"]
        body += ["int bad = 0;"]
        body += [f"bad |= take(y{i}, out[{i}], want[{i}]);" for i in range(len(self.layouts))]
        body += [f"if (!{n}.empty()) bad |= 4;" for n in used]
        arguments = "const void *const *in, const long *have, const t2f::word *const *image, "
        arguments += "void *const *out, const long *want, int seq"
        lines.append(f'extern "C" int run{index}({arguments}) {{\n  try {{\n    ' + "\n    ".join(body))
        lines.append("return bad;\n  } catch (const std::exception &) {\n    return 8;\n  }\n}\n}\n")
        return "\n".join(lines)

    def data(self, seed: int = 0) -> dict[str, list[dict[str, Tensor]]]:
        """Random constants of every layer, a dictionary a step."""
        generator = torch.Generator().manual_seed(seed)
        return {
            layer.name: [self._step(layer, generator) for _ in range(layer.steps)] for layer in self.layers()
        }

    def _step(self, layer: MatmulStage, generator: torch.Generator) -> dict[str, Tensor]:
        size = (layer.layout_out.channels, layer.layout_in.channels)
        if not self.group:
            return {"weight": torch.randint(-127, 128, size, generator=generator, dtype=torch.int8)}
        groups = -(-layer.layout_in.blocks(16) // (self.group // 16))
        q = torch.randint(-8, 8, size, generator=generator, dtype=torch.int8)
        m = torch.randint(1, 128, (size[0], groups), generator=generator, dtype=torch.int8)
        return {"weight": q, "scales": m}

    def inputs(self, seq: int, seed: int = 0) -> list[list[Tensor]]:
        """Random rows: for every layer, for every step (1, rows, channels)."""
        generator = torch.Generator().manual_seed(seed)
        return [
            [
                torch.randint(
                    -127, 128, (1, 1 if layer.one_row else seq, layer.layout_in.channels), generator=generator
                )
                for _ in range(layer.steps)
            ]
            for layer in self.layers()
        ]  # fmt: skip

    def images(self, data: dict[str, list[dict[str, Tensor]]]) -> list[bytes]:
        """The image of every lane's port."""
        lanes = [s for s in self.parts[0] if isinstance(s, LaneStage)]
        return [b"".join(lane_weights(self.design, data, lane)) for lane in lanes]


class LanesLibrary:
    """Cases in one shared library."""

    def __init__(self, cases: Sequence[Case], counted: bool = False) -> None:
        self.cases = tuple(cases)
        head = (_COUNTING + _COUNTED if counted else "") + _PRELUDE + _CHAIN + '#include "t2f/lanes.hpp"\n'
        text = head + "\n".join(c.source(i) for i, c in enumerate(self.cases))
        self._library = ctypes.CDLL(str(build_library({"lanes.cpp": text})))
        if counted:
            self._library.entry.restype = ctypes.c_char_p
            self._library.counted.restype = ctypes.c_long

    def run(self, index: int, xs: list[list[Tensor]], images: Sequence[bytes], seq: int) -> list[Bytes]:
        """The sums of every layer, as raw tokens.

        Raises:
            AssertionError: if tokens are left over on a stream, or missing.
        """
        case, shape = self.cases[index], self.cases[index].logic.shape
        layers = case.layers()
        feeds = [
            np.concatenate([rows_to_tokens(x, layer.layout_in, "int8", shape) for x in steps])
            for layer, steps in zip(layers, xs, strict=True)
        ]
        blocks = [layer.layout_out.blocks(case.lanes) for layer in layers]
        want = [b * sum(x.shape[1] for x in steps) for b, steps in zip(blocks, xs, strict=True)]
        out = [np.zeros(n * case.lanes * 4, dtype=np.uint8) for n in want]
        memory = [aligned(np.frombuffer(image, dtype=np.uint8)) for image in images]
        many = len(layers)
        status = getattr(self._library, f"run{index}")(
            (ctypes.c_void_p * many)(*[f.ctypes.data for f in feeds]),
            (ctypes.c_long * many)(*[f.size // case.lanes for f in feeds]),
            (ctypes.c_void_p * len(memory))(*[m.ctypes.data for m in memory]),
            (ctypes.c_void_p * many)(*[o.ctypes.data for o in out]),
            (ctypes.c_long * many)(*want),
            seq,
        )
        assert status == 0, f"token counts are wrong (1 few, 2 many out, 4 left in, 8 empty read): {status}"
        return out

    def counts(self, index: int, seq: int) -> list[tuple[list[Entry], int, int]]:
        """(loop entries, words that are read, last address) of every call, ports first, in a run."""
        case = self.cases[index]
        self._library.forget()
        self._library.start()
        self.run(index, case.inputs(seq), case.images(case.data()), seq)
        found, first = [], 0
        for k in range(len(case.calls())):
            numbers = (ctypes.c_long * 3)()
            self._library.numbers(k, numbers)
            found.append(([self._entry(i) for i in range(first, numbers[0])], numbers[1], numbers[2]))
            first = numbers[0]
        return found

    def _entry(self, at: int) -> Entry:
        numbers = (ctypes.c_long * 3)()
        file = self._library.entry(ctypes.c_long(at), numbers).decode()
        line, iterations, ii = numbers
        return Entry(_label(file.rsplit("/", 1)[-1], line), line, iterations, ii)


def expected(case: Case, xs: list[list[Tensor]], data: dict[str, list[dict[str, Tensor]]]) -> list[Bytes]:
    """What the layers themselves say, as raw tokens."""
    found = []
    for layer, steps in zip(case.layers(), xs, strict=True):
        ys = [layer.reference(d, [x, None])[0] for d, x in zip(data[layer.name], steps, strict=True)]
        tokens = [rows_to_tokens(y, layer.layout_out, "int32", case.logic.shape) for y in ys]
        found.append(np.concatenate(tokens).view(np.uint8))
    return found
