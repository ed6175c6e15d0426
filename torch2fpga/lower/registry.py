# SPDX-License-Identifier: Apache-2.0
"""The table of operators: which captured nodes are taken, and what a canonical node becomes.

One operator is one file in this folder. It registers
* handlers (``@takes``): captured ATen node -> canonical node, or ``Refused`` with the reason;
* an ``Operator`` for its canonical function: roles of its inputs, quantisation, lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch2fpga.passes.nodes import Node

if TYPE_CHECKING:
    from torch2fpga.lower.builder import Builder
    from torch2fpga.passes.canonicalise import Canonicaliser
    from torch2fpga.passes.quantise import Quantiser

Handler = Callable[["Canonicaliser", Node, Sequence[Any], dict[str, Any]], Any]


@dataclass(frozen=True)
class Operator:
    """A canonical operator.

    Attributes:
        name: the word used in tables and reports.
        function: the canonical function (float semantics on (batch, seq, channels) tensors).
        roles: format that each tensor input is wanted in: ``mac`` (int8 for a multiplier array),
            ``wide`` (residual), ``attn`` (int8, a scale a channel), ``act`` (table input).
        native: ``raw`` (int32 with an affine meaning, formats come from requant stages behind)
            or ``wide`` (already in the residual format).
        quantise: fills ``meta["affine"]`` and ``meta["data"]`` of a node.
        lower: makes the stages of a node (one node a step) and gives the native stream's name.
    """

    name: str
    function: Callable[..., Any]
    roles: tuple[str, ...]
    native: str
    quantise: Callable[[Quantiser, Node], None]
    lower: Callable[[Builder, Sequence[Node]], str]


HANDLERS: dict[Any, Handler] = {}
OPERATORS: dict[Any, Operator] = {}


def takes(*targets: Any) -> Callable[[Handler], Handler]:
    """Register a handler for captured nodes with one of these targets."""

    def register(handler: Handler) -> Handler:
        for target in targets:
            if target in HANDLERS:
                raise ValueError(f"two handlers for {target}")
            HANDLERS[target] = handler
        return handler

    return register


def operator(op: Operator) -> Operator:
    """Register a canonical operator."""
    OPERATORS[op.function] = op
    return op


def operator_of(node: Node) -> Operator:
    """The operator of a canonical node."""
    return OPERATORS[node.target]


def supported() -> dict[str, list[str]]:
    """operator name -> targets that reach it (for documentation and ``explain``)."""
    table: dict[str, list[str]] = {}
    for target, handler in HANDLERS.items():
        module = handler.__module__.rsplit(".", 1)[-1]
        # A function of ours stands for a pattern that a pass has recognised.
        name = target.__name__ if isinstance(target, FunctionType) else str(target)
        table.setdefault(module, []).append(name.removeprefix("aten."))
    return {name: sorted(set(targets)) for name, targets in sorted(table.items())}
