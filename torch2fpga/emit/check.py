# SPDX-License-Identifier: Apache-2.0
"""A strict checker of emitted HLS projects, for machines without Vitis.

The real front end drops a malformed pragma with a warning and accepts dataflow bodies that then
run one after the other; here both are errors.  Rules and their sources: the modules of
`torch2fpga.emit.checker`.  The code is read through libclang on two paths: plain (as C simulation
compiles it: parse errors only) and with __SYNTHESIS__ (all rules); the processes of kernels are
read a third time, instantiated, for the intervals of their loops.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch2fpga.emit.checker import (
    rules_arrays,
    rules_code,
    rules_dataflow,
    rules_interface,
    rules_link,
    rules_pragmas,
    rules_schedule,
    rules_text,
    vendor,
)
from torch2fpga.emit.checker.directions import Directions
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.rules_interface import Kernel
from torch2fpga.emit.checker.source import Source
from torch2fpga.emit.checker.syntax import Unit

__all__ = ["Finding", "check_library", "check_project", "check_source"]

LIBRARY = "t2f"
KERNELS = "kernels"
SYNTHESIS = "__SYNTHESIS__"
_libraries: dict[str, tuple[Finding, ...]] = {}


def check_project(files: Mapping[str, str], *, include_dirs: Sequence[Path]) -> list[Finding]:
    """Check an emitted project: kernels, what they include, and link.cfg.

    Args:
        files: path inside the project -> text.
        include_dirs: where "t2f/..." is found; a library found there is checked too (once per
            process as long as it does not change).  <hls_stream.h> is always the checker's own
            declaration of the vendor's interface (`torch2fpga.emit.checker.vendor`).
    """
    findings: set[Finding] = set()
    for label, text in files.items():
        if label.endswith(rules_text.CXX_SUFFIXES) or label == rules_link.FILE:
            findings.update(rules_text.check_text(label, text))
    with tempfile.TemporaryDirectory(prefix="t2f_check_") as folder:
        checker = _Checker(files, Path(folder).resolve(), include_dirs)
        for label in sorted(files):
            if label.startswith(f"{KERNELS}/") and label.endswith(".cpp"):
                findings.update(checker.unit(label))
        kernels = checker.kernels
        findings.update(_tops(files, kernels))
    if rules_link.FILE in files:
        findings.update(rules_link.check(files[rules_link.FILE], kernels))
    elif kernels:
        message = "the project has no link configuration"
        findings.add(Finding(rules_link.FILE, 1, "link-config", message))
    if not _own_library(files):
        for path in include_dirs:
            findings.update(check_library(path))
    return sorted(findings)


def check_source(text: str, *, path: str = "source.cpp", include_dirs: Sequence[Path] = ()) -> list[Finding]:
    """Check one C++ file by itself; functions with C linkage are taken as top functions."""
    findings = set(rules_text.check_text(path, text))
    with tempfile.TemporaryDirectory(prefix="t2f_check_") as folder:
        checker = _Checker({path: text}, Path(folder).resolve(), include_dirs)
        findings.update(checker.unit(path))
    return sorted(findings)


def check_library(include_dir: Path) -> list[Finding]:
    """Check the stage library headers `t2f/*.hpp` of an include directory, templates included."""
    headers = sorted((include_dir / LIBRARY).glob("*.hpp"))
    if not headers:
        return []
    texts = {f"{LIBRARY}/{path.name}": path.read_text(encoding="utf-8") for path in headers}
    digest = hashlib.sha256(repr((str(include_dir), texts)).encode()).hexdigest()
    if digest not in _libraries:
        found: set[Finding] = set()
        for label, text in texts.items():
            found.update(rules_text.check_text(label, text))
        with tempfile.TemporaryDirectory(prefix="t2f_check_") as folder:
            main = "".join(f'#include "{label}"\n' for label in texts)
            sources = {**texts, "all.cpp": main}
            checker = _Checker(sources, Path(folder).resolve(), [])
            found.update(checker.unit("all.cpp"))
        _libraries[digest] = tuple(sorted(found))
    return list(_libraries[digest])


def _own_library(files: Mapping[str, str]) -> bool:
    return any(f"{LIBRARY}/" in label and label.endswith(".hpp") for label in files)


def _tops(files: Mapping[str, str], kernels: Sequence[Kernel]) -> Iterator[Finding]:
    """One kernel per file, of the file's name."""
    for label in files:
        if label.startswith(f"{KERNELS}/") and label.endswith(".cpp"):
            names = [kernel.name for kernel in kernels if kernel.path == label]
            if names != [Path(label).stem]:
                message = f"the file defines {names or 'no kernels'}, not just {Path(label).stem}"
                yield Finding(label, 1, "top", message)


class _Checker:
    """Writes a project into a folder and checks its units there."""

    def __init__(self, files: Mapping[str, str], root: Path, dirs: Sequence[Path]) -> None:
        self.files = files
        self.root = root
        self.kernels: list[Kernel] = []
        self.directions = Directions()
        self._done: set[str] = set()
        own = {root}
        for label, text in files.items():
            path = root / label
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
            if path.parent.name == LIBRARY:
                own.add(path.parent.parent)
        standard = root / ".standard"
        standard.mkdir()
        (standard / vendor.NAME).write_text(vendor.HEADER, encoding="utf-8")
        self.dirs = [standard, *sorted(own), *(Path(path).resolve() for path in dirs)]

    def unit(self, label: str) -> Iterator[Finding]:
        """Check one C++ file and the project's headers that it includes."""
        main = self.root / label
        for defines in ((), (SYNTHESIS,)):
            unit = Unit(main, self.dirs, defines)
            for path, line, text in unit.errors():
                yield Finding(self._label(path), line, "parse", text)
        for path in unit.paths(self._is_new):
            self._done.add(self._label(path))
            yield from self._source(unit, path)
        yield from rules_schedule.check(main, self.dirs, self._label)

    def _source(self, unit: Unit, path: str) -> Iterator[Finding]:
        label = self._label(path)
        source = Source(unit, path, label, self.files[label].encode())
        yield from rules_pragmas.check(source)
        yield from rules_dataflow.check(source, self.directions)
        yield from rules_code.check(source)
        yield from rules_arrays.check(source)
        yield from rules_text.check(source, self.files)
        for top in source.entries:
            kernel = rules_interface.kernel_of(source, top, self.directions)
            self.kernels.append(kernel)
            yield from rules_interface.check(source, top, kernel)

    def _is_new(self, path: str) -> bool:
        label = self._label(path)
        return label not in self._done and label in self.files

    def _label(self, path: str) -> str:
        """A path as it is shown: inside the project or an include directory, never absolute."""
        plain = Path(os.path.normpath(path))
        for folder in (self.root, *self.dirs):
            if plain.is_relative_to(folder):
                return plain.relative_to(folder).as_posix()
        return plain.name
