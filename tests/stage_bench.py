# SPDX-License-Identifier: Apache-2.0
"""One stage on its own: its C++ template against its Python reference, without a design around it.

The benches of a test file share one translation unit. Streams are unbounded here, because no
scheduler runs; FIFO depths are tested with whole designs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import Design, Shape, Stage, Stream
from torch2fpga.emit.kernel import config_lines
from torch2fpga.simulate.build import build_library
from torch2fpga.simulate.tokens import stream_tokens

Bytes = NDArray[np.uint8]
#: (lanes, tile) of most benches
SHAPES = ((8, 1), (8, 3), (16, 2), (16, 4))
#: (batch, seq) of most runs, for MAX_SEQ = 19
MAX_BATCH, MAX_SEQ = 2, 19
RUNS = ((2, 5), (1, 1), (2, 19))

_PRELUDE = """
#include <cstring>
#include <exception>
#include <hls_stream.h>
template <typename T> void feed(hls::stream<T> &s, const void *from, long tokens) {
  for (long i = 0; i < tokens; ++i) {
    T v;
    std::memcpy(&v, static_cast<const char *>(from) + i * sizeof(T), sizeof(T));
    s.write(v);
  }
}
template <typename T> int take(hls::stream<T> &s, void *to, long tokens) {
  for (long i = 0; i < tokens; ++i) {
    if (s.empty()) return 1;
    const T v = s.read();
    std::memcpy(static_cast<char *>(to) + i * sizeof(T), &v, sizeof(T));
  }
  return s.empty() ? 0 : 2;
}
"""


@dataclass(frozen=True)
class Bench:
    """A stage, its streams and the sizes that it is compiled for."""

    stage: Stage
    streams: tuple[Stream, ...]
    shape: Shape

    @property
    def design(self) -> Design:
        """The stage as a design of its own."""
        streams = {s.name: s for s in self.streams}
        return Design("bench", self.shape, (self.stage,), streams, steps=self.stage.steps)

    def source(self, index: int) -> str:
        """C++ of the bench's entry."""
        shape, stage, lanes = self.shape, self.stage, self.shape.lanes
        sizes = {"lanes": lanes, "tile": shape.tile, "max_batch": shape.max_batch, "max_seq": shape.max_seq}
        lines = config_lines({**sizes, "steps": stage.steps, **stage.config(self.design)})
        names = stage.call_arguments()
        body = [f"hls::stream<{self._type(n)}> {n};" for n in names]
        called, front = stage.arguments(), stage.front(self.design)
        between = list(front.fifos) if front is not None else []
        if between:
            called[:1] = [fifo.name for fifo in between]
        body += [f"hls::stream<{fifo.token}> {fifo.name};" for fifo in between]
        inputs = [n for n in names if n not in stage.outputs]
        body += [f"feed({n}, in[{i}], have[{i}]);" for i, n in enumerate(inputs)]
        if front is not None:
            before = ", ".join([names[0], *(f.name for f in between), *stage.runtime_arguments()])
            body.append(f"t2f::{front.template}<Config{index}>({before});")
        body += [f"t2f::{stage.template}<Config{index}>({', '.join(called)});", "int bad = 0;"]
        left = [*inputs, *(fifo.name for fifo in between)]
        body += [f"if (!{n}.empty()) bad |= 4;" for n in left]
        body += [f"bad |= take({n}, out[{i}], want[{i}]);" for i, n in enumerate(stage.outputs)]
        arguments = "const void *const *in, const long *have, void *const *out, const long *want"
        return (
            f'#include "t2f/{stage.header}"\n'
            f"struct Config{index} {{\n  " + "\n  ".join(lines) + "\n};\n"
            f'extern "C" int run{index}({arguments}, int batch, int seq) {{\n  try {{\n    '
            + "\n    ".join(body)
            + "\n    return bad;\n  } catch (const std::exception &) {\n    return 8;\n  }\n}\n"
        )

    def _type(self, name: str) -> str:
        if name == self.stage.params:
            return "t2f::word"
        return self.design.streams[name].cpp_type(self.shape.lanes)


class Library:
    """Benches in one shared library."""

    def __init__(self, benches: Sequence[Bench]) -> None:
        self.benches = tuple(benches)
        text = _PRELUDE + "\n".join(b.source(i) for i, b in enumerate(self.benches))
        self._library = ctypes.CDLL(str(build_library({"benches.cpp": text})))

    def tokens(
        self, index: int, inputs: Sequence[Bytes], sizes: Sequence[int], batch: int, seq: int
    ) -> list[Bytes]:
        """Run on raw tokens; output sizes in bytes.

        Raises:
            AssertionError: if tokens are left over on an input or output, or missing.
        """
        bench = self.benches[index]
        names = bench.stage.call_arguments()
        widths = [self._width(bench, n) for n in names]
        split = len(names) - len(bench.stage.outputs)
        held = [np.ascontiguousarray(i) for i in inputs]
        assert len(held) == split, "one array an input stream"
        results = [np.zeros(size, dtype=np.uint8) for size in sizes]
        status = getattr(self._library, f"run{index}")(
            (ctypes.c_void_p * split)(*[a.ctypes.data for a in held]),
            (ctypes.c_long * split)(*[a.size // w for a, w in zip(held, widths, strict=False)]),
            (ctypes.c_void_p * len(results))(*[a.ctypes.data for a in results]),
            (ctypes.c_long * len(results))(
                *[a.size // w for a, w in zip(results, widths[split:], strict=True)]
            ),
            batch,
            seq,
        )
        assert status == 0, f"token counts are wrong (1 few, 2 many out, 4 left in, 8 empty read): {status}"
        return results

    @staticmethod
    def _width(bench: Bench, name: str) -> int:
        return 64 if name == bench.stage.params else bench.design.streams[name].token_bytes(bench.shape.lanes)

    def mismatches(
        self,
        index: int,
        inputs: Sequence[Sequence[Tensor]],
        batch: int,
        seq: int,
        data: Sequence[Mapping[str, Any]] | None = None,
        words: Mapping[str, bytes] | None = None,
    ) -> int:
        """Values in which the template and the reference differ.

        Args:
            inputs: for each step the stage's logical inputs (None for streams of words).
            data: constants of each step.
            words: what lies on streams of words.
        """
        bench = self.benches[index]
        stage, design = bench.stage, bench.design
        data = data if data is not None else [{}] * stage.steps
        feeds = []
        for slot, name in enumerate(stage.inputs):
            if words is not None and name in words:
                feeds.append(np.frombuffer(words[name], dtype=np.uint8))
                continue
            steps = inputs[:1] if design.streams[name].kind == "mask" else inputs
            feeds.append(self._tokens([step[slot] for step in steps], design.streams[name], bench.shape))
        if stage.params:
            content = b"".join(stage.parameter_words(d, design) for d in data)
            feeds.append(np.frombuffer(content, dtype=np.uint8))
        wanted = [stage.reference(d, i) for d, i in zip(data, inputs, strict=True)]
        expected = [
            self._tokens([w[slot] for w in wanted], design.streams[name], bench.shape)
            for slot, name in enumerate(stage.outputs)
        ]
        got = self.tokens(index, feeds, [e.size for e in expected], batch, seq)
        assert all(e.size for e in expected)
        return sum(int((g != e).sum()) for g, e in zip(got, expected, strict=True))

    @staticmethod
    def _tokens(values: Sequence[Tensor], stream: Stream, shape: Shape) -> Bytes:
        return np.concatenate([stream_tokens(v, stream, shape) for v in values]).view(np.uint8)
