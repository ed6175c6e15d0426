# SPDX-License-Identifier: Apache-2.0
"""How the weights of linear layers become integers: one entry a precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from torch2fpga.design import Layout

if TYPE_CHECKING:
    from torch2fpga.lower.linear import MatmulStage


@dataclass(frozen=True)
class IntegerWeights:
    """The weights of a step as its array takes them.

    Attributes:
        data: constants of the step (``Stage.reference``, ``MatmulStage.weight_image``).
        scale: (out,) float64 real value of one unit of the accumulator.
        products: (out, in) the integers that inputs are multiplied by in effect.
    """

    data: Mapping[str, Tensor]
    scale: Tensor
    products: Tensor


@dataclass(frozen=True)
class WeightFormat:
    """Integer weights, and the array that takes them.

    Attributes:
        precision: as users write it.
        integers: (out, in) weights, the input's scales folded in, how the input's channels lie in tokens,
            and (n, in) rows of inputs in integer units or None -> integers. Raises CompileError for sizes
            that the array cannot have.
        by_rows: rounding looks at rows.
        by_layout: the integers depend on how channels lie in tokens, which only lowering knows.
        array: class of the stage.
        lanes: channels a token that the array can have.
    """

    precision: str
    integers: Callable[[Tensor, Layout, Tensor | None], IntegerWeights]
    by_rows: bool
    by_layout: bool
    array: type[MatmulStage]
    lanes: tuple[int, ...]


#: by precision; lower/linear.py and lower/linear4.py put theirs in
WEIGHT_FORMATS: dict[str, WeightFormat] = {}
