# SPDX-License-Identifier: Apache-2.0
"""Runs the small designs of ``tests/hls/sim``: with a clock under given settings, or without one."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch2fpga.simulate.build import FLAGS, build_library

HERE = Path(__file__).resolve().parent / "sim"


@dataclass(frozen=True)
class Result:
    """What one run of a case left: its error or "", what its processes kept, the clock's report."""

    message: str
    values: tuple[int, ...]
    text: str

    @property
    def report(self) -> dict[str, Any]:
        """The report as data."""
        return dict(json.loads(self.text))

    @property
    def cycles(self) -> int:
        """Cycles of the run, which must have ended well."""
        assert self.message == ""
        return int(self.report["cycles"])

    def process(self, name: str) -> dict[str, Any]:
        """What the clock of process ``k/name`` says."""
        return next(p for p in self.report["processes"] if p["path"] == f"k/{name}")

    def stalls(self, name: str) -> tuple[int, int, int]:
        """Cycles that a process waited for input, output and memory."""
        found = self.process(name)
        return found["input"], found["output"], found["memory"]

    def stream(self, name: str) -> dict[str, Any]:
        """How stream ``k/name`` was used."""
        return next(s for s in self.report["streams"] if s["key"] == f"k/{name}")

    def port(self, name: str) -> dict[str, Any]:
        """What went over a memory port."""
        return next(p for p in self.report["ports"] if p["name"] == name)


@dataclass(frozen=True)
class Program:
    """The cases of one source file, compiled with or without a clock."""

    name: str
    timed: bool = True
    source: str = field(init=False, default="")

    def line(self, label: str) -> str:
        """``file:line`` of the loop behind a label of the case library, as settings name it."""
        for file in ("case_library.hpp", f"{self.name}.cpp"):
            lines = (HERE / file).read_text().splitlines()
            for at, text in enumerate(lines):
                if text.strip() == f"{label}:":
                    mark = next(i for i in range(at, len(lines)) if "T2F_PIPELINE" in lines[i])
                    return f"{file}:{mark + 1}"
        raise KeyError(label)

    def run(self, case: str, *arguments: int, settings: Mapping[str, object] | Sequence[str] = ()) -> Result:
        """Run a case. ``settings``: lines of ``t2f_settings.hpp``, or (name, value) pairs of them."""
        given = [f"{k} {v}" for k, v in settings.items()] if isinstance(settings, Mapping) else settings
        library = _library(self.name, self.timed)
        numbers = (ctypes.c_long * max(1, len(arguments)))(*arguments)
        text = "".join(line + "\n" for line in given)
        handle = library.case_run(case.encode(), numbers, text.encode())
        try:
            values = ctypes.POINTER(ctypes.c_long)()
            count = library.case_values(handle, ctypes.byref(values))
            return Result(
                library.case_message(handle).decode(),
                tuple(values[i] for i in range(count)),
                library.case_report(handle).decode(),
            )
        finally:
            library.case_free(handle)


@lru_cache
def _library(name: str, timed: bool) -> ctypes.CDLL:
    files = {f: (HERE / f).read_text() for f in ("case_library.hpp", f"{name}.cpp")}
    flags = (*FLAGS, "-O1", *(("-DT2F_TIMED",) if timed else ()))
    library = ctypes.CDLL(str(build_library(files, flags)))
    for function in ("case_run", "case_message", "case_report", "case_values"):
        getattr(library, function).restype = ctypes.c_void_p
    library.case_message.restype = library.case_report.restype = ctypes.c_char_p
    library.case_values.restype = ctypes.c_long
    library.case_run.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p]
    for function in ("case_message", "case_report", "case_free"):
        getattr(library, function).argtypes = [ctypes.c_void_p]
    library.case_values.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library
