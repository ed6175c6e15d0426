# SPDX-License-Identifier: Apache-2.0
"""Reading the tools' logs: the last line worth showing, the lines that say what went wrong.

The shapes are those of public logs: ``ERROR: [HLS 200-1023] ...``, ``CRITICAL WARNING: [...]``,
``[13:31:18] Run vpl: Step impl: Failed``, and clang's ``file.cpp:12:3: error: ...``.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

_INTERESTING = re.compile(r"^(?:INFO|WARNING|CRITICAL WARNING|ERROR): \[|^\[\d\d:\d\d:\d\d\] ")
_ERROR = re.compile(r"^\s*(?:ERROR: \[|ERROR:|@E )|:\d+:(?:\d+:)? (?:fatal )?error: ", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: of the end of a log
WINDOW = 4 << 20
LONGEST = 300

#: what is known about some messages
HINTS = {
    "HLS 200-1023": "the part is not in this installation: add the device family with the installer, "
    "and mind that releases after 2023.2 do not have the U280",
    "Common 17-345": "a licence is missing: set XILINXD_LICENSE_FILE",
    "did not meet timing": "a clock that the tools cannot lower missed its target: lower kernel_frequency in "
    "link.cfg, or plan again with a slower clock",
    "Out of Memory": "the machine has too little memory: fewer --jobs, or a larger machine",
    "No space left on device": "the disk is full",
}


class Tail:
    """Follows a log that grows; keeps its last interesting line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._rest = b""
        self.line = ""

    def read(self) -> str:
        """Take in what is new; the last interesting line so far."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                new = stream.read(WINDOW)
        except OSError:
            return self.line
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self._rest = self._rest[-WINDOW:]
        for raw in lines:
            line = clean(raw.decode("utf-8", errors="replace"))
            if _INTERESTING.match(line):
                self.line = line
        return self.line


def clean(line: str) -> str:
    """A line that may be shown: no control characters, not too long."""
    text = _CONTROL.sub("", line.rstrip("\r\n"))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def error_lines(path: Path, most: int = 12) -> tuple[str, ...]:
    """The vendor's error lines near the end of a log, in order, without repetitions; its last lines
    where there are none."""
    lines = last_lines(path)
    found = list(dict.fromkeys(line for line in lines if _ERROR.search(line)))
    if not found:
        found = [line for line in lines if line.strip()][-3:]
    return tuple(found[:most] if len(found) <= most else [*found[: most - 1], f"… {len(found)} in all"])


def last_lines(path: Path) -> list[str]:
    """Lines of the end of a log."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - WINDOW))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [clean(line) for line in text.split("\n")]


def hints(lines: tuple[str, ...]) -> tuple[str, ...]:
    """What is known about these lines."""
    text = "\n".join(lines)
    return tuple(hint for mark, hint in HINTS.items() if mark in text)


def ending(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    more = " (the system may have run out of memory)" if -status == signal.SIGKILL else ""
    return f"ended by {name}{more}"
