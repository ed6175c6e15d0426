# SPDX-License-Identifier: Apache-2.0
"""All errors of the package. Each says what was expected, what came and where in the user's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class Error(Exception):
    """Base of every error that torch2fpga raises on purpose."""


class CompileError(Error):
    """The model is supported, but this compilation cannot go on (reason in the text)."""


class CaptureError(CompileError):
    """torch.export could not capture the model (training mode, wrong inputs, control flow)."""


class InputError(Error):
    """Inputs of a call do not fit the compiled model."""


class WeightsError(Error):
    """A weight image is missing, truncated or does not match its checksum."""


class MissingTool(Error):
    """A tool or optional package is not installed; the text says how to get it."""


class SimulationError(Error):
    """The emitted C++ did not build or did not run to its end (deadlock, exception)."""


class DesignError(CompileError):
    """The verifier found the graph or the design inconsistent: a defect of torch2fpga itself."""


@dataclass(frozen=True)
class Refusal:
    """One node that cannot be lowered exactly as written.

    Attributes:
        node: name of the FX node.
        target: the operator.
        path: where it stands in the user's model (dotted module path).
        reason: what was expected and what came.
        help: what would make it work, if anything.
    """

    node: str
    target: str
    path: str
    reason: str
    help: str = ""

    def __str__(self) -> str:
        text = f"{self.path or '<top>'}: {self.target} ({self.node}): {self.reason}"
        return f"{text}; {self.help}" if self.help else text


def summary(refusals: Sequence[Refusal]) -> list[str]:
    """One line for each operator and reason, with the first place and how many more there are."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.target, refusal.reason), []).append(refusal)
    lines = []
    for same in groups.values():
        more = f" (and {len(same) - 1} more like it)" if len(same) > 1 else ""
        lines.append(f"{same[0]}{more}")
    return lines


class UnsupportedModel(CompileError):
    """The model holds operators or patterns that are not supported; lists all of them."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.refusals = tuple(refusals)
        lines = "\n".join(f"  - {line}" for line in summary(self.refusals))
        count = len(self.refusals)
        super().__init__(f"{count} part{'s' if count != 1 else ''} of the model cannot be lowered:\n{lines}")
