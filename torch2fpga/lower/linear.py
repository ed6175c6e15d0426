# SPDX-License-Identifier: Apache-2.0
"""Linear layers: ``aten.linear``, ``addmm`` (GPT-2's Conv1D), ``matmul`` with a constant.

Weights are int8 per output channel, symmetric, or int4 in groups (linear4.py); the smoothing scales of the
input are folded in. One stage is one multiplier array; its accumulators (int32) leave to requant stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch2fpga import costs
from torch2fpga.design import (
    SCALAR,
    WORDS,
    Depths,
    Design,
    Estimate,
    Front,
    Layout,
    Port,
    Stage,
    Tokens,
    ceil_div,
    nominal_depth,
    pipelined,
)
from torch2fpga.errors import DesignError
from torch2fpga.lower.registry import Operator, operator, takes
from torch2fpga.lower.weight_formats import WEIGHT_FORMATS, IntegerWeights, WeightFormat
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, Refused, RowValue, contiguous_channels
from torch2fpga.plan.storage import fifo_cost
from torch2fpga.weights.rounding import FloatWeights, int8, make_integers
from torch2fpga.weights.store import kept_tensor

aten = torch.ops.aten

#: largest weight image of a step that is kept in URAM; larger ones are streamed for every tile
KEEP_BYTES = 4 << 20
#: where weights may be while rows pass (see ``MatmulStage.keep``)
KEEPS = ("step", "resident", "streamed")
#: float32 products of int8 operands are exact up to this many summands (2^24 / 127^2)
EXACT_FLOAT_SUMMANDS = 1024


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """x (batch, seq, in) times weight (out, in) plus bias (out), then ReLU if asked for."""
    y = torch.nn.functional.linear(x, weight, bias)
    return torch.relu(y) if relu else y


def _emit(ctx: Any, node: Node, x: Any, weight: Any, bias: Any, transposed: bool) -> RowValue:
    if not isinstance(x, RowValue):
        raise Refused("the input of a linear layer must come from the model's data")
    if not isinstance(weight, Const) or weight.value.dim() != 2:
        raise Refused("the weight must be a constant matrix")
    if bias is not None and (not isinstance(bias, Const) or bias.value.dim() != 1):
        raise Refused("the bias must be a constant vector")
    width = weight.value.shape[0 if transposed else 1]
    if not x.channels_last() or x.width != width:
        raise Refused(
            f"contracts over {width} values, but the last dimension of {x.shape} is not exactly the channels",
            "a linear layer over tokens (transposed input) is not supported",
        )
    w = _transposed(weight) if transposed else weight.value
    name = weight.name + ("_t" if transposed else "")
    args = [x.node, ctx.constant(w, name)]
    if bias is not None:
        args.append(ctx.constant(bias.value, bias.name))
    return contiguous_channels(ctx.emit(node, linear, args), x, w.shape[0])


def _transposed(weight: Const) -> Tensor:
    value = weight.value
    return kept_tensor(
        f"{weight.name}, transposed",
        ("transposed", value),
        value.numel() * value.dtype.itemsize,
        lambda: value.t().contiguous(),
    )


@takes(aten.linear.default)
def _linear(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    return _emit(ctx, node, args[0], args[1], args[2] if len(args) > 2 else None, False)


@takes(aten.addmm.default)
def _addmm(ctx: Any, node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> RowValue:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise Refused("addmm with alpha or beta other than 1")
    return _emit(ctx, node, args[1], args[2], args[0], True)


def matmul_const(ctx: Any, node: Node, x: RowValue, weight: Const) -> RowValue:
    """``x @ constant``: called by the matmul handler of attention.py."""
    return _emit(ctx, node, x, weight, None, True)


def quantise_weight(weight: Tensor, input_scale: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights and the accumulator's scale per output channel.

    Args:
        weight: (out, in) float.
        input_scale: (in,) real value of one unit of each input channel.
    Returns:
        (out, in) int8 tensor in [-127, 127] and (out,) float64 scales.
    """
    return int8(weight.to(torch.float32) * input_scale.to(torch.float32))


def _int8_weights(scaled: Tensor, layout: Layout, rows: Tensor | None = None) -> IntegerWeights:
    data, scale = int8(scaled)
    return IntegerWeights({"weight": data}, scale, data)


def _quantise(q: Any, node: Node) -> None:
    fmt = q.format(node.args[0], "mac")
    weight = q.parameter(node.args[1])
    bias = q.parameter(node.args[2]) if len(node.args) > 2 else torch.zeros(weight.shape[0])
    node.meta["relu"] = bool(node.kwargs.get("relu", False))
    node.meta["weights"] = q.weights
    by_rows = bool(q.weights.by_rows)
    node.meta["float"] = FloatWeights(
        weight, fmt.scale, bias.to(torch.float64), fmt.zero_point,
        lambda: q.rows(node.args[0], fmt) if by_rows else None,
    )  # fmt: skip
    if not q.weights.by_layout:
        make_integers(node, Layout(1, weight.shape[1]))


def _written(b: Any, node: Node) -> Layout:
    """Heads where attention reads the product; the weights' rows lie in that order at no cost."""
    closed: Layout = b.closed(node)
    for user in node.users:
        if user.op == "call_function" and "heads" in user.kwargs:
            heads = int(user.kwargs["heads"])
            if node in user.args[1:3]:  # keys and values have fewer where heads of queries share them
                heads //= int(user.kwargs.get("kv_groups", 1))
            return Layout(heads, closed.channels // heads)
    return closed


def _lower(b: Any, nodes: Sequence[Node]) -> str:
    node = nodes[0]
    x = b.demand(node.args[0], "mac")
    layout_in, layout_out = b.layout(x), _written(b, node)
    name = b.name(node)
    out = b.raw(f"{name}_acc", layout_out, node)
    weights = b.words(f"{name}_weights")
    for n in nodes:
        if "float" in n.meta:
            make_integers(n, layout_in)
    stage = node.meta["weights"].array(
        **b.common(node, name, (x, weights), (out,)), layout_in=layout_in, layout_out=layout_out
    )
    b.add(stage, [n.meta["data"] for n in nodes])
    b.weight_port(stage, weights)
    b.follow_exponents(x, out)
    return out


operator(Operator("linear", linear, ("mac",), "raw", _quantise, _lower))


def matmul_exact(x: Tensor, weight: Tensor, summands: int = EXACT_FLOAT_SUMMANDS) -> Tensor:
    """Exact integer product x (rows, in) times weight (out, in) by float32 matrix products.

    Sums of at most 1,024 products of int8 values stay below 2^24, where float32 is exact; longer
    ones are cut into such pieces and added as integers. Larger weights take fewer ``summands``.
    """
    total: Tensor | None = None
    for start in range(0, weight.shape[1], summands):
        part = slice(start, start + summands)
        product = (x[:, part].float() @ weight[:, part].float().t()).to(torch.int32)
        total = product if total is None else total + product
    assert total is not None
    return total


@dataclass(frozen=True)
class MatmulStage(Stage):
    """One multiplier array: rows * lanes * columns products a cycle, and the process in front of it
    that puts the rows of a tile side by side while the array works on the tile before.

    Cycles of the array: a step loads its weights (LOAD, one word a cycle; once a launch where those of
    all steps are kept, never where they are streamed). A sequence of t tiles is one entry of REDUCE with
    t * out_blocks * parts * max(in_blocks, rows of a tile) + seq iterations, parts = lanes / columns.
    The process in front takes steps * batch * seq * in_blocks iterations (JOIN).

    Attributes:
        columns: output channels a cycle, a divisor of ``lanes`` with at least 64 weights a cycle (a
            memory word). More than ``lanes`` counts as ``lanes``; streamed weights arrive a word a
            cycle, which feeds 64 / lanes columns whatever is asked for.
        lanes: of the array that it shares with other layers (``lower/lanes.py``); 0: an array of its own.
        keep: ``step`` (weights of a step on chip while its rows pass), ``resident`` (those of all steps,
            loaded once a launch), ``streamed`` (read again for every tile); "" is ``step`` up to
            ``KEEP_BYTES`` a step, else ``streamed``.
    """

    layout_in: Layout = SCALAR
    layout_out: Layout = SCALAR
    columns: int = 16
    keep: str = ""
    lanes: int = 0

    weight_bits: ClassVar[int] = 8
    #: constants of a step that have a row for every output channel
    by_output: ClassVar[tuple[str, ...]] = ("weight",)
    header: ClassVar[str] = "matmul.hpp"

    @property
    def shares_array(self) -> bool:
        return self.lanes > 0

    @property
    def hold(self) -> str:  # type: ignore[override]
        """Shared lanes hold all rows while other layers have their turn (see ``plan/fifo.py``)."""
        return "" if self.lanes else "tile"

    def __post_init__(self) -> None:
        if self.keep and self.keep not in KEEPS:
            raise DesignError(f"{self.name}: keep is one of {list(KEEPS)} or empty, not {self.keep!r}")
        if self.columns not in (4, 8, 16):
            raise DesignError(f"{self.name}: an array has 4, 8 or 16 columns, not {self.columns}")

    @property
    def weights_kept(self) -> str:
        """``step``, ``resident`` or ``streamed``: where the weights are while rows pass."""
        if self.keep:
            return self.keep
        size = self.layout_in.channels * self.layout_out.channels * self.weight_bits // 8
        return "streamed" if size > KEEP_BYTES else "step"

    @property
    def word_weights(self) -> int:
        """Weights of a 64-byte word, the least that the array takes a cycle."""
        return 512 // self.weight_bits

    @property
    def streamed(self) -> bool:
        """Weights are read again for every tile."""
        return self.weights_kept == "streamed"

    @property
    def template(self) -> str:  # type: ignore[override]
        return "matmul_streamed" if self.streamed else "matmul"

    def result_bits(self) -> int:
        """Operands are symmetric: 127 * 127 at most, for every input channel."""
        return (127 * 127 * self.layout_in.channels).bit_length() + 1

    def rows_a_tile(self, design: Design) -> int:
        """Rows that share a pass over the weights."""
        return 1 if self.one_row else design.shape.tile

    def width(self, design: Design) -> int:
        """Output channels a cycle.

        Raises:
            DesignError: for so few columns that a cycle takes less than a memory word of weights.
        """
        lanes, least = design.shape.lanes, self.word_weights // design.shape.lanes
        if least > lanes or (not self.streamed and self.columns < least):
            raise DesignError(
                f"{self.name}: {self.columns} columns of {lanes} lanes are no 64-byte word of "
                f"{self.word_weights} weights"
            )
        return least if self.streamed else min(self.columns, lanes)

    def places(self, design: Design) -> int:
        """Iterations of a part: an input block each, and no fewer than a tile has rows."""
        return max(self.layout_in.blocks(design.shape.lanes), self.rows_a_tile(design))

    def parts(self, design: Design) -> int:
        """Passes over the input channels that make an output block."""
        return design.shape.lanes // self.width(design)

    def products(self, design: Design) -> int:
        """Products a cycle."""
        return self.rows_a_tile(design) * design.shape.lanes * self.width(design)

    def carried(self) -> tuple[list[Tokens], list[Tokens]]:
        return [self.rows("int8", self.layout_in), WORDS], [self.rows("int32", self.layout_out)]

    def front(self, design: Design) -> Front:
        """The process that joins the rows of a tile; the FIFO behind it holds one tile."""
        lanes, rows = design.shape.lanes, self.rows_a_tile(design)
        return Front(
            f"{self.name}_join", "join_rows", f"{self.name}_tiles", f"t2f::tile_block<{rows}, {lanes}>",
            rows * lanes, max(2, self.layout_in.blocks(lanes)),
        )  # fmt: skip

    def config(self, design: Design) -> dict[str, Any]:
        lanes = design.shape.lanes
        found: dict[str, Any] = {"tile": 1} if self.one_row else {}
        found |= {"in_blocks": self.layout_in.blocks(lanes), "out_blocks": self.layout_out.blocks(lanes)}
        if not self.streamed:
            found |= {"columns": self.width(design), "resident": self.weights_kept == "resident"}
        return found

    def reference(self, data: Mapping[str, Any], inputs: Sequence[Tensor | None]) -> list[Tensor]:
        x = inputs[0]
        assert x is not None
        product = self.product(x.reshape(-1, x.shape[-1]), data)
        return [product.reshape(*x.shape[:-1], -1)]

    def product(self, x: Tensor, data: Mapping[str, Any]) -> Tensor:
        """Exact accumulators (rows, out) of rows (rows, in)."""
        return matmul_exact(x, data["weight"])

    def weight_words(self, design: Design) -> int:
        """64-byte words of a step's image."""
        lanes = design.shape.lanes
        return self.layout_in.blocks(lanes) * self.layout_out.blocks(lanes) * lanes * lanes // 64

    def weight_image(self, data: Mapping[str, Any], design: Design) -> bytes:
        """The step's weights in the order in which the stage reads them: for output block, for part of
        its columns, for input block, columns x lanes bytes."""
        lanes, columns = design.shape.lanes, self.width(design)
        w = pad_channels(pad_channels(data["weight"], self.layout_in, lanes, 1), self.layout_out, lanes, 0)
        parts, in_blocks = w.shape[0] // columns, w.shape[1] // lanes
        blocks = w.reshape(parts, columns, in_blocks, lanes).permute(0, 2, 1, 3)
        return bytes(blocks.contiguous().numpy().tobytes())

    def weight_port(self, design: Design, stream: str) -> Port:
        """The memory port that feeds the stage's word stream."""
        words = self.weight_words(design)
        template = "read_words_per_tile" if self.streamed else "read_words"
        config = {"steps": self.steps, "words": words, "one_row": self.one_row}
        return Port(
            f"{self.name}_weights_in", "", "read", "weights", self.name, words * self.steps, template,
            (stream,), config,
        )  # fmt: skip

    def cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        lanes, tile = design.shape.lanes, self.rows_a_tile(design)
        rows = 1 if self.one_row else seq
        a_tile = self.layout_out.blocks(lanes) * self.parts(design) * self.places(design)
        reduce = pipelined(ceil_div(rows, tile) * a_tile + rows, depth("REDUCE"))
        passes = {"step": self.steps, "resident": 1, "streamed": 0}[self.weights_kept]
        words = self.weight_words(design) * self.steps // max(1, passes)
        load = passes * pipelined(words, depth("LOAD")) if passes else 0
        return load + self.steps * batch * reduce

    def front_cycles(self, design: Design, batch: int, seq: int, depth: Depths) -> int:
        rows = 1 if self.one_row else seq
        blocks = self.layout_in.blocks(design.shape.lanes)
        return pipelined(self.steps * batch * rows * blocks, depth("JOIN"))

    def nominal_cycles(self, design: Design) -> int:
        size = design.shape.max_batch, design.shape.max_seq
        front = self.front_cycles(design, *size, nominal_depth)
        return max(front, self.cycles(design, *size, nominal_depth))

    def cost(self, design: Design) -> Estimate:
        lanes, rows = design.shape.lanes, self.rows_a_tile(design)
        in_blocks = self.layout_in.blocks(lanes)
        array = costs.matmul_cost(
            rows,
            self.width(design),
            lanes,
            in_blocks,
            self.layout_out.blocks(lanes),
            steps_kept=self.steps if self.weights_kept == "resident" else 1,
            streamed=self.streamed,
        )
        front = self.front(design)
        fifo = fifo_cost(front.depth, front.token_bytes)
        walk = costs.loop() + costs.place(rows, in_blocks) + costs.launch_size(self.steps * in_blocks)
        join = walk + costs.register(rows * lanes * 8) + costs.port(lanes * 8)
        return replace(array + fifo + join, cycles=self.nominal_cycles(design))

    def macs(self, design: Design) -> int:
        """Useful products per launch at the compiled maximum."""
        rows = design.shape.max_batch * (1 if self.one_row else design.shape.max_seq)
        return self.steps * rows * self.layout_in.channels * self.layout_out.channels


def pad_channels(value: Tensor, layout: Layout, lanes: int, dim: int) -> Tensor:
    """Fill each channel group of ``dim`` with zeros up to whole tokens."""
    groups, size, padded = layout.groups, layout.size, layout.group_blocks(lanes) * lanes
    if size == padded:
        return value
    shape = list(value.shape)
    grouped = value.reshape(*shape[:dim], groups, size, *shape[dim + 1 :])
    out = torch.zeros(*shape[:dim], groups, padded, *shape[dim + 1 :], dtype=value.dtype)
    out.narrow(dim + 1, 0, size).copy_(grouped)
    return out.reshape(*shape[:dim], groups * padded, *shape[dim + 1 :])


WEIGHT_FORMATS["w8a8"] = WeightFormat("w8a8", _int8_weights, False, False, MatmulStage, (8, 16))
