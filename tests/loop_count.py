# SPDX-License-Identifier: Apache-2.0
"""Entries and iterations of a stage's pipelined loops, counted while its template runs.

``T2F_PIPELINE`` marks every iteration and ``T2F_LOOP_ENTRY`` every entry that the marks alone do not
show, so that the closed form of a stage can be held against its code, loop by loop.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tests.stage_bench import _PRELUDE, Bench, Library
from torch2fpga.design import Depths, pipelined
from torch2fpga.simulate.build import INCLUDE, build_library

#: tokens of zeros on every input; no bench takes more
PLENTY = 40_000

_COUNTING = """
#include <cstring>
#include <vector>
#include "t2f/dataflow.hpp"
namespace counting {
struct Entry { const char *file; int line; int ii; long iterations; };
inline std::vector<Entry> entries;
inline bool inside = false;
inline void iteration(const char *file, int line, int ii) {
  if (!inside || entries.back().line != line || std::strcmp(entries.back().file, file) != 0) {
    entries.push_back({file, line, ii, 0});
  }
  inside = true;
  ++entries.back().iterations;
}
}
extern "C" long counted() { return static_cast<long>(counting::entries.size()); }
extern "C" const char *entry(long at, long *numbers) {
  const counting::Entry &e = counting::entries[static_cast<unsigned long>(at)];
  numbers[0] = e.line;
  numbers[1] = e.iterations;
  numbers[2] = e.ii;
  return e.file;
}
extern "C" void forget() { counting::entries.clear(); counting::inside = false; }
#undef T2F_PIPELINE
#define T2F_PIPELINE(ii) counting::iteration(__FILE__, __LINE__, ii)
#undef T2F_LOOP_ENTRY
#define T2F_LOOP_ENTRY (counting::inside = false)
"""


@dataclass(frozen=True)
class Entry:
    """One entry of a pipelined loop."""

    label: str
    line: int
    iterations: int
    ii: int


@lru_cache
def _lines(header: str) -> tuple[str, ...]:
    return tuple((INCLUDE / "t2f" / header).read_text().splitlines())


def _label(header: str, line: int) -> str:
    """The label in front of the loop whose mark is in that line."""
    above = reversed(_lines(header)[: line - 1])
    found = next(m for text in above if (m := re.fullmatch(r"\s*([A-Z_]+):", text)))
    return found.group(1)


class CountingLibrary(Library):
    """Benches whose loops are counted."""

    def __init__(self, benches: Sequence[Bench]) -> None:
        self.benches = tuple(benches)
        text = _COUNTING + _PRELUDE + "\n".join(b.source(i) for i, b in enumerate(self.benches))
        self._library = ctypes.CDLL(str(build_library({"counted.cpp": text})))
        self._library.entry.restype = ctypes.c_char_p
        self._library.counted.restype = ctypes.c_long

    def entries(self, index: int, batch: int, seq: int) -> list[Entry]:
        """The loops that a launch enters, in order, on rows of zeros.

        Raises:
            AssertionError: if the stage wants more input than there is.
        """
        bench = self.benches[index]
        names = bench.stage.call_arguments()
        split = len(names) - len(bench.stage.outputs)
        feeds = [np.zeros(PLENTY * self._width(bench, n), dtype=np.uint8) for n in names[:split]]
        self._library.forget()
        status = getattr(self._library, f"run{index}")(
            (ctypes.c_void_p * split)(*[f.ctypes.data for f in feeds]),
            (ctypes.c_long * split)(*[PLENTY] * split),
            (ctypes.c_void_p * len(bench.stage.outputs))(),
            (ctypes.c_long * len(bench.stage.outputs))(),
            batch,
            seq,
        )
        assert status & 8 == 0, "a read from an empty stream"
        return [self._entry(at) for at in range(self._library.counted())]

    def _entry(self, at: int) -> Entry:
        numbers = (ctypes.c_long * 3)()
        file = self._library.entry(ctypes.c_long(at), numbers).decode()
        line, iterations, ii = numbers
        return Entry(_label(file.rsplit("/", 1)[-1], line), line, iterations, ii)


def total_cycles(entries: Sequence[Entry], depth: Depths) -> int:
    """Cycles of loops entered one after the other."""
    return sum(pipelined(e.iterations, depth(e.label), e.ii) for e in entries)


def lines_by_label(entries: Sequence[Entry]) -> Mapping[str, set[int]]:
    """label -> lines of the marks that it stands for (one, if labels are distinct)."""
    found: dict[str, set[int]] = {}
    for e in entries:
        found.setdefault(e.label, set()).add(e.line)
    return found


def odd_depth(label: str) -> int:
    """A depth of its own for every label, so that a closed form that mixes two up is wrong."""
    return 7 + int.from_bytes(label.encode(), "big") % 8191
