# SPDX-License-Identifier: Apache-2.0
"""Products and quotients with a scalar: folded into attention scores or the linear layer before. Products
of two values are those of multiply.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch2fpga.lower.attention import scale_scores
from torch2fpga.lower.linear import linear
from torch2fpga.lower.multiply import product
from torch2fpga.lower.registry import takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue, Scores

aten = torch.ops.aten


def _scalar(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Const) and value.value.numel() == 1:
        return float(value.value)
    return None


def _scaled(ctx: Any, node: Node, x: Any, factor: float) -> Any:
    if isinstance(x, Scores):
        return scale_scores(x, factor)
    if isinstance(x, RowValue) and x.node.target is linear and not x.node.users and not x.node.kwargs:
        args = list(x.node.args)
        for i, parameter in enumerate(args[1:], 1):
            tensor = ctx.tensor(parameter) * factor
            args[i] = ctx.constant(tensor, f"{parameter.target}_scaled")
        return RowValue(ctx.emit(node, linear, args), x.dims, x.batch, x.seq, x.channels)
    raise Refused("scales something other than attention scores or the output of a linear layer")


@takes(aten.mul.Tensor, aten.mul.Scalar)
def _mul(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    a, b = args
    for x, factor in ((a, _scalar(b)), (b, _scalar(a))):
        if factor is not None:
            return _scaled(ctx, node, x, factor)
    return product(ctx, node, a, b)


@takes(aten.div.Tensor, aten.div.Scalar)
def _div(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    divisor = _scalar(args[1])
    if not divisor:
        raise Refused("divides by something other than a nonzero scalar")
    return _scaled(ctx, node, args[0], 1.0 / divisor)
