# SPDX-License-Identifier: Apache-2.0
"""Views: reshape, transpose, permute, squeeze, unsqueeze. No hardware: only the axes move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from torch2fpga.lower.registry import takes
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Axis, Refused, RowValue, Scores, split_axes

aten = torch.ops.aten


def _rows(x: Any) -> RowValue:
    if not isinstance(x, RowValue):
        raise Refused("a view of something that is not the model's data")
    return x


@takes(aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int)
def _reshape(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return split_axes(_rows(args[0]), tuple(node.meta["val"].shape))


@takes(aten.unsqueeze.default)
def _unsqueeze(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x = _rows(args[0])
    at = args[1] if args[1] >= 0 else args[1] + len(x.dims) + 1
    return replace(x, dims=(*x.dims[:at], (), *x.dims[at:]))


@takes(aten.squeeze.dim)
def _squeeze(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x = _rows(args[0])
    at = args[1] % len(x.dims)
    if x.shape[at] != 1:
        return x
    return replace(x, dims=(*x.dims[:at], *x.dims[at + 1 :]))


@takes(aten.transpose.int)
def _transpose(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if isinstance(args[0], Scores):
        raise Refused("transposed attention scores")
    x = _rows(args[0])
    dims = list(x.dims)
    i, j = args[1] % len(dims), args[2] % len(dims)
    dims[i], dims[j] = dims[j], dims[i]
    return replace(x, dims=tuple(dims))


@takes(aten.permute.default)
def _permute(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    x = _rows(args[0])
    return replace(x, dims=tuple(x.dims[i] for i in args[1]))


@takes(aten.expand.default)
def _expand(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Repetition along a dimension of size 1: a new axis, which moves no data.

    It belongs to neither rows nor channels, so that all but attention (whose queries may share heads of
    keys and values) refuse it.
    """
    x, shape = args[0], tuple(node.meta["val"].shape)
    if not isinstance(x, RowValue) or len(shape) != len(x.dims):
        return _copy(ctx, node, args, kwargs)
    dims = tuple(
        (Axis(want),) if have == 1 and want != 1 else dim
        for dim, have, want in zip(x.dims, x.shape, shape, strict=True)
    )
    return replace(x, dims=dims)


@takes(aten.clone.default, aten.contiguous.default, aten._to_copy.default)
def _copy(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    x = args[0]
    if isinstance(x, RowValue) and tuple(node.meta["val"].shape) != x.shape:
        raise Refused(f"broadcasts {x.shape} to {tuple(node.meta['val'].shape)}")
    if node.meta["val"].dtype != torch.float32:
        raise Refused(f"converts to {node.meta['val'].dtype}", "use a float32 model (model.float())")
    return x
