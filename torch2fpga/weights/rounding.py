# SPDX-License-Identifier: Apache-2.0
"""From the float weights of a linear layer to its integers, one layer after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torch2fpga.design import Layout
from torch2fpga.errors import CompileError
from torch2fpga.lower.weight_formats import WeightFormat
from torch2fpga.passes.nodes import Node
from torch2fpga.weights.store import kept

#: weights that are rounded at once
CHUNK = 1 << 23


def int8(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) int8 weights in [-127, 127] and (out,) float64 scales of float ones."""
    parts = [_int8_rows(scaled[rows]) for rows in chunks(scaled)]
    return (
        parts[0] if len(parts) == 1 else (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))
    )


def chunks(weight: Tensor) -> Iterator[slice]:
    """Rows of a matrix, so many at once that they are about ``CHUNK`` elements."""
    size = max(1, CHUNK // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], size):
        yield slice(start, start + size)


def _int8_rows(scaled: Tensor) -> tuple[Tensor, Tensor]:
    scale = scaled.abs().amax(dim=1).clamp(min=1e-30).to(torch.float64) / 127
    q = torch.floor(scaled / scale.to(torch.float32)[:, None] + 0.5).clamp_(-127, 127)
    return q.to(torch.int8), scale


@dataclass(frozen=True)
class FloatWeights:
    """What a layer's integers are made from, once its neighbours' layout is known; views, no copies.

    Attributes:
        weight: (out, in) of the model.
        scale: (in,) real value of one unit of each input channel.
        bias: (out,).
        zero_point: what integer 0 of the input stands for.
        rows: gives (n, in) inputs seen in calibration in integer units, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    zero_point: int
    rows: Callable[[], Tensor | None]

    def values(self) -> tuple[object, ...]:
        """All of it, but for the rows."""
        return self.weight, self.scale, self.bias, self.zero_point

    def scaled(self, rows: slice = slice(None)) -> Tensor:
        """The weights of some outputs with the input's scales folded in, float32."""
        return self.weight[rows].to(torch.float32) * self.scale.to(torch.float32)


def make_integers(node: Node, layout: Layout) -> None:
    """``data``, ``affine`` and ``offset`` of a node from its float weights, which are not needed then."""
    source: FloatWeights = node.meta.pop("float")
    path, form, rows = node.meta.get("path", node.name), node.meta["weights"], source.rows()
    part = f", channels from {node.meta['part']}" if "part" in node.meta else ""
    found = kept(
        f"weights of {path}{part}",
        source.weight.numel(),
        lambda: ("linear", form.precision, *source.values(), layout, rows),
        lambda: _integers(path, form, source, layout, rows),
    )
    node.meta["affine"] = (found.pop("scale"), found.pop("bias"))
    node.meta["offset"] = found.pop("offset")
    node.meta["data"] = {name.removeprefix("data."): value for name, value in found.items()}


def _integers(
    path: str, form: WeightFormat, source: FloatWeights, layout: Layout, rows: Tensor | None
) -> dict[str, Tensor]:
    """``scale``, ``bias``, ``offset``, and the constants of the array behind ``data.``."""
    bias = source.bias
    try:
        found = form.integers(source.scaled(), layout, rows)
    except CompileError as error:
        raise CompileError(f"{path}: {error}") from error
    if rows is not None:  # the mean of the rounding errors goes to the bias (Nagel et al., 2019)
        mean = rows.double().mean(0)
        rounding = [
            (source.scaled(r).double() - found.products[r].double() * found.scale[r, None]) @ mean
            for r in chunks(source.weight)
        ]
        bias = bias + torch.cat(rounding)
    offset = torch.zeros(len(found.scale), dtype=torch.int64)
    if source.zero_point:
        offset = source.zero_point * found.products.sum(1, dtype=torch.int64)
    data = {f"data.{name}": value for name, value in found.data.items()}
    return {**data, "scale": found.scale, "bias": bias, "offset": offset}
