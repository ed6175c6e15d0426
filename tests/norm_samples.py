# SPDX-License-Identifier: Apache-2.0
"""What the tests of both norms share: a bench of the stage, its data, rows that are hard to normalise."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.stage_bench import MAX_BATCH, MAX_SEQ, Bench
from torch2fpga.design import Layout, Shape, Stage, Stream
from torch2fpga.passes.quantise import Format


class _Quantiser:
    """As much of the quantiser as a norm asks for."""

    def __init__(self, bits: int, unit: float, channels: int) -> None:
        self.fmt = Format("wide", bits, torch.full((channels,), unit, dtype=torch.float64))

    def format(self, node: Any, role: str) -> Format:
        return self.fmt

    def parameter(self, value: Tensor) -> Tensor:
        return value


def norm_data(
    quantise: Callable[[Any, Any], None], bits: int, unit: float, channels: int, *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Step data that ``quantise`` makes for a norm with these arguments behind its input."""
    node = SimpleNamespace(args=(None, *args), kwargs=kwargs, meta={})
    quantise(_Quantiser(bits, unit, channels), node)
    return dict(node.meta["data"])


def norm_bench(
    stage: Callable[..., Stage], shape: tuple[int, int], layout: Layout, element: str, ways: int = 16
) -> Bench:
    """The stage between rows of ``element`` and of int32."""
    made = stage("n", "norm", "loop", 2, ("x",), ("y",), "p", layout=layout, element=element, ways=ways)
    streams = (Stream("x", "rows", element, layout), Stream("y", "rows", "int32", layout))
    return Bench(made, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


def value_bits(element: str) -> int:
    """Bits of the values in a stream of ``element``."""
    return 16 if element == "int16" else 24


def norm_rows(bits: int, shape: tuple[int, ...]) -> list[Tensor]:
    """Random rows, rows with one channel 3,000 times as large, extremes, one unit."""
    top = 2 ** (bits - 1) - 1
    generator = torch.Generator().manual_seed(bits)
    plain = torch.randint(-top, top + 1, shape, generator=generator)
    small = torch.randint(-top // 3000, top // 3000 + 1, shape, generator=generator)
    small[..., 5] = top
    edges = torch.full(shape, top)
    edges[..., ::2] = -top - 1
    step = torch.zeros(shape, dtype=torch.int64)
    step[..., 0] = 1
    return [v.to(torch.int32) for v in (plain, small, edges, step)]
