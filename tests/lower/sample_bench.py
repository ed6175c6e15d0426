# SPDX-License-Identifier: Apache-2.0
"""The sampler on its own: its C++ on raw tokens, its kernel for the checker, its timed run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.hls.timed_program import HERE, Result
from tests.loop_count import CountingLibrary, Entry
from tests.stage_bench import Bench, Bytes
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.emit.checker.schedule import PipelinedLoop, analyse
from torch2fpga.emit.kernel import config_lines
from torch2fpga.lower.sample import SampleStage
from torch2fpga.simulate.build import FLAGS, INCLUDE, build_library
from torch2fpga.simulate.tokens import DTYPES
from torch2fpga.timing.depths import depth_settings

Logits = NDArray[np.int64]
#: lanes, element, vocabulary: one logit, less than a token, whole tokens, fewer than 64, groups that are
#: full and not, as many groups as blocks in one
CASES = (
    (8, "int32", 1),
    (16, "int32", 1),
    (8, "int32", 5),
    (16, "int32", 16),
    (16, "int16", 37),
    (8, "int16", 100),
    (16, "int32", 100),
    (8, "int32", 512),
    (8, "int16", 523),
    (16, "int32", 1000),
    (16, "int16", 1040),
)
TOP_KS = (1, 2, 5, 63, 64, 65, 2000)


@dataclass(frozen=True)
class SampleBench(Bench):
    """A sampler; its scalars are called otherwise than those of other stages."""

    def source(self, index: int) -> str:
        return super().source(index).replace("int batch, int seq", "int past, int seq")

    @property
    def sampler(self) -> SampleStage:
        assert isinstance(self.stage, SampleStage)
        return self.stage

    @property
    def lanes(self) -> int:
        return self.shape.lanes


def bench(lanes: int, element: str, vocabulary: int) -> SampleBench:
    """A sampler of that many logits."""
    layout = Layout(1, vocabulary)
    stage = SampleStage(
        "sampler", "", "after", 1, ("logits", "settings"), ("token",), one_row=True,
        layout=layout, element=element,
    )  # fmt: skip
    streams = (
        Stream("logits", "rows", element, layout, True),
        Stream("settings", "words"),
        Stream("token", "ids"),
    )
    return SampleBench(stage, streams, Shape(lanes, 1, 1, 1024))


def word(settings: Sequence[int]) -> Bytes:
    """A settings word of the given numbers, zeros behind them."""
    values = np.zeros(16, dtype=np.int64)
    values[: len(settings)] = settings
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.uint8)


class SampleLibrary(CountingLibrary):
    """Samplers that run on logits, and whose loops are counted meanwhile."""

    def sample(
        self,
        index: int,
        logits: Logits,
        settings: Sequence[int],
        position: int = 1,
        past: int = 0,
        padding: int | None = None,
    ) -> int:
        """The id that the C++ gives; the lanes behind the vocabulary hold ``padding`` (the largest value
        of the element where it is not given)."""
        made = self.benches[index]
        assert isinstance(made, SampleBench)
        dtype = DTYPES[made.sampler.element]
        fill = np.iinfo(dtype).max if padding is None else padding
        tokens = np.full(made.sampler.layout.blocks(made.lanes) * made.lanes, fill, dtype=dtype)
        tokens[: logits.size] = logits
        self._library.forget()
        got = self.tokens(index, [tokens.view(np.uint8), word(settings)], [4], past, position - past)
        return int(got[0].view(np.int32)[0])

    def counted(self) -> list[Entry]:
        """Loops that the last sample entered."""
        return [self._entry(at) for at in range(self._library.counted())]


def kernel(made: SampleBench) -> str:
    """A kernel that is a sampler."""
    stage, lanes = made.sampler, made.lanes
    lines = config_lines({"lanes": lanes, **stage.config(made.design)})
    types = [made.design.streams[n].cpp_type(lanes) for n in stage.call_arguments()]
    named = zip(types, stage.call_arguments(), strict=True)
    arguments = [*(f"hls::stream<{t}> &{n}" for t, n in named), "int past", "int seq"]
    ports = [f"#pragma HLS interface axis port={n}" for n in stage.call_arguments()]
    ports += [f"#pragma HLS interface s_axilite port={n}" for n in ("past", "seq", "return")]
    call = f"t2f::{stage.template}<Config>({', '.join(stage.arguments())})"
    return "\n".join(
        [
            f'#include "t2f/{stage.header}"',
            "struct Config {",
            *(f"  {line}" for line in lines),
            "};",
            f'extern "C" void k({", ".join(arguments)}) {{',
            *ports,
            "#pragma HLS dataflow",
            f'  T2F_PROCESS("sampler", {call});',
            "  T2F_DATAFLOW_END;",
            "}",
            "",
        ]
    )


def loops(made: SampleBench, clock_mhz: float = 300) -> tuple[PipelinedLoop, ...]:
    """The sampler's loops with the depths that the checker finds."""
    return analyse({"k.cpp": kernel(made)}, ["k.cpp"], [INCLUDE], clock_mhz)


def timed_logits(made: SampleBench) -> Logits:
    """The logits that the timed program feeds."""
    return np.arange(made.sampler.vocabulary, dtype=np.int64) * 7919 % 1009


_TIMED = """
#include "case_library.hpp"
#include "t2f/sample.hpp"
struct Config {{
  {config}
}};
using Block = t2f::vec<Config::value_t, Config::lanes>;
static void feed(hls::stream<Block> &x) {{
  for (int b = 0; b < Config::blocks; ++b) {{
    T2F_PIPELINE(1);
    Block v;
    for (int i = 0; i < Config::lanes; ++i) {{
      const long id = static_cast<long>(b) * Config::lanes + i;
      v.d[i] = static_cast<Config::value_t>(id * 7919 % 1009);
    }}
    x.write(v);
  }}
}}
static void set(hls::stream<t2f::word> &x, Arguments a) {{
  for (int j = 0; j < 1; ++j) {{
    T2F_PIPELINE(1);
    t2f::word w = {{}};
    for (int i = 0; i < 20; ++i) w.d[i] = static_cast<int8_t>(a[i / 4] >> (8 * (i % 4)));
    x.write(w);
  }}
}}
static void take(hls::stream<int32_t> &x) {{
  for (int j = 0; j < 1; ++j) {{
    T2F_PIPELINE(1);
    kept.push_back(x.read());
  }}
}}
static void all(Arguments a) {{
  hls::stream<Block, 2> logits("logits");
  hls::stream<t2f::word, 2> settings("settings");
  hls::stream<int32_t, 2> token("token");
  const int seq = static_cast<int>(a[5]);
  T2F_PROCESS("feed", feed(logits));
  T2F_PROCESS("set", set(settings, a));
  T2F_PROCESS("sampler", t2f::sample_token<Config>(logits, settings, token, 0, seq));
  T2F_PROCESS("take", take(token));
  T2F_DATAFLOW_END;
}}
const std::map<std::string, void (*)(Arguments)> &cases() {{
  static const std::map<std::string, void (*)(Arguments)> found = {{{{"all", all}}}};
  return found;
}}
"""


class TimedSampler:
    """A sampler that is fed ``timed_logits`` under the clock, with the depths of the checker."""

    def __init__(self, made: SampleBench) -> None:
        lines = config_lines({"lanes": made.lanes, **made.sampler.config(made.design)})
        files = {
            "case_library.hpp": (HERE / "case_library.hpp").read_text(),
            "sampler.cpp": _TIMED.format(config="\n  ".join(lines)),
        }
        self.loops = loops(made)
        self._library = ctypes.CDLL(str(build_library(files, (*FLAGS, "-O1", "-DT2F_TIMED"))))
        for function in ("case_run", "case_message", "case_report", "case_values"):
            getattr(self._library, function).restype = ctypes.c_void_p
        self._library.case_message.restype = self._library.case_report.restype = ctypes.c_char_p
        self._library.case_values.restype = ctypes.c_long
        self._library.case_run.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p]
        for function in ("case_message", "case_report", "case_free"):
            getattr(self._library, function).argtypes = [ctypes.c_void_p]
        self._library.case_values.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

    def run(self, settings: Sequence[int], position: int) -> Result:
        """One launch."""
        numbers = (ctypes.c_long * 6)(*settings[:5], position)
        depths = depth_settings(self.loops)
        text = "".join(f"depth {path} {place} {n}\n" for (path, place), n in depths.items())
        run = self._library.case_run(b"all", numbers, text.encode())
        try:
            values = ctypes.POINTER(ctypes.c_long)()
            count = self._library.case_values(run, ctypes.byref(values))
            return Result(
                self._library.case_message(run).decode(),
                tuple(values[i] for i in range(count)),
                self._library.case_report(run).decode(),
            )
        finally:
            self._library.case_free(run)
