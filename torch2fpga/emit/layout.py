# SPDX-License-Identifier: Apache-2.0
"""Line breaks of emitted C++: calls and parameter lists stay within 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = 100
#: stands for a blank inside an item, where a line may not break
_KEPT = "\x00"


def listed(head: str, items: Sequence[str], tail: str, indent: int = 0) -> str:
    """``head(items)tail``: on one line where it fits, else items four columns in.

    The first line carries no indentation of its own: it goes where the caller puts it.
    """
    line = f"{head}({', '.join(items)}){tail}"
    if indent + len(line) <= COLUMNS:
        return line
    text = " ".join(f"{item},".replace(" ", _KEPT) for item in items)[:-1] + f"){tail}".replace(" ", _KEPT)
    margin = " " * (indent + 4)
    lines = textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join([f"{head}(", *lines]).replace(_KEPT, " ")


@dataclass(frozen=True)
class Call:
    """One call of a library template: a process of a kernel, or a step of the test bench."""

    name: str
    function: str
    arguments: tuple[str, ...]
    comment: str = ""

    def process(self, indent: int = 2) -> str:
        """As a process of a dataflow region."""
        return listed(f'T2F_PROCESS("{self.name}", {self.function}', self.arguments, ");", indent)

    def statement(self, indent: int = 2) -> str:
        """As a plain statement."""
        return listed(self.function, self.arguments, ";", indent)
