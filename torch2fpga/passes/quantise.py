# SPDX-License-Identifier: Apache-2.0
"""Give every value its integer formats and every operator its integer constants.

What each consumer wants decides the formats of a value:

* ``mac``: int8 for a multiplier array; static with a smoothing scale a channel (exponent searched
  on the calibration rows, Xiao et al., SmoothQuant, 2023, equation 4), or, behind a table
  activation or an elementwise product, a power-of-two exponent a row;
* ``attn``: int8 with a scale a channel; query and key channels are balanced against each other;
* ``wide``: the residual, int16 behind norms, 24 bits where adds follow each other (pre-norm);
* ``act``: 24 bits with 14 fraction bits, the input of the activation tables;
* ``factor``: int16 with a scale a channel, the second operand of an elementwise product; smoothing the
  product is in it;
* ``rotary``: int16 with a scale a pair of neighbouring channels, which are rotated into each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from torch2fpga.design import Layout
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.lower.activation import ZERO_POINTS, activation
from torch2fpga.lower.add import add
from torch2fpga.lower.linear import linear, quantise_weight
from torch2fpga.lower.multiply import multiply, product_scale
from torch2fpga.lower.registry import OPERATORS
from torch2fpga.lower.rows import concat_channels, select_row, slice_channels
from torch2fpga.lower.weight_formats import WEIGHT_FORMATS, WeightFormat
from torch2fpga.passes.calibrate import SAMPLE_ROWS, Statistics
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.roll import Loop
from torch2fpga.weights.store import kept_scales

#: smoothing exponents that are tried; None is no smoothing
EXPONENTS = (None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
#: output channels that the search looks at
SEARCH_CHANNELS = 1024
#: a channel counts as at least this fraction of its tensor's largest magnitude
DEAD_CHANNEL = 256
#: head room of residual formats over what calibration saw
WIDE_MARGIN = {16: 2.0, 24: 4.0}
#: weights where nothing else is said
INT8 = WEIGHT_FORMATS["w8a8"]

TRANSPARENT = (add, select_row, slice_channels, concat_channels)


@dataclass(frozen=True)
class Format:
    """An integer format of a value.

    Attributes:
        role: ``mac``, ``attn``, ``wide``, ``act``, ``factor`` or ``rotary``.
        bits: width; 8-bit fields are symmetric.
        scale: (channels,) real value of one unit.
        dynamic: every row carries a power-of-two exponent on top.
        zero_point: what integer 0 stands for, in units (before the exponent).
    """

    role: str
    bits: int
    scale: Tensor
    dynamic: bool = False
    zero_point: int = 0


def demands(node: Node) -> dict[str, list[Node]]:
    """role -> consumers of a canonical node that want it."""
    found: dict[str, list[Node]] = {}
    for user in node.users:
        if user.op == "output":
            found.setdefault("wide", []).append(user)
        elif user.op == "call_function":
            op = OPERATORS[user.target]
            tensors = [a for a in user.args if isinstance(a, fx.Node) and a.op != "get_attr"]
            for role, argument in zip(op.roles, tensors, strict=False):
                if argument is node and user not in found.setdefault(role, []):
                    found[role].append(user)
    return found


class Quantiser:
    """Fills ``meta["formats"]``, ``meta["affine"]`` and ``meta["data"]`` of every node."""

    def __init__(
        self, module: fx.GraphModule, stats: Mapping[str, Statistics], weights: WeightFormat = INT8
    ) -> None:
        self.module = module
        self.stats = stats
        self.weights = weights
        self._wide: dict[Node, Format] = {}

    # -- what operators call --------------------------------------------------------------

    def parameter(self, node: Node) -> Tensor:
        """A constant of the canonical graph."""
        return attribute(self.module, str(node.target)).detach()

    def channels(self, node: Node) -> int:
        """Channels of a value."""
        return self.stats[node.name].largest.numel()

    def format(self, node: Node, role: str) -> Format:
        """The format in which ``node`` is wanted for ``role`` (decided once)."""
        formats = node.meta.setdefault("formats", {})
        if role not in formats:
            make = {"mac": self._mac, "attn": self._attn, "act": self._act, "wide": self._wide_format,
                    "factor": self._factor, "rotary": self._rotary}  # fmt: skip
            formats[role] = make[role](node)
        return formats[role]

    def rows(self, node: Node, fmt: Format) -> Tensor | None:
        """(n, channels) values that calibration kept of ``node``, in units of ``fmt``."""
        kept = self.stats[node.name]
        return kept.sample() / fmt.scale.float() if kept.rows else None

    def _rows_to_search(self, node: Node) -> Tensor:
        return self.stats[node.name].sample(SAMPLE_ROWS if self.weights.by_rows else None)

    # -- the pass -------------------------------------------------------------------------

    def run(self) -> None:
        """Quantise every node in order."""
        self._wide_groups()
        for node in self.module.graph.nodes:
            if node.op not in ("call_function", "placeholder") or node.meta.get("kind") == "ids":
                continue
            node.meta["channels"] = self.channels(node)
            sources = [n for n in node.all_input_nodes if n.meta.get("one_row")]
            node.meta["one_row"] = node.target is select_row or bool(sources)
            node.meta.setdefault("formats", {})
            for role in demands(node):
                self.format(node, role)
            if node.op == "placeholder" and set(demands(node)) != {"mac"}:
                self.format(node, "wide")  # what the host quantises it to
            if node.op == "call_function":
                op = OPERATORS[node.target]
                if op.native == "wide":
                    self.format(node, "wide")
                op.quantise(self, node)

    def _wide_groups(self) -> None:
        """Values joined by adds (and moves) share one residual format; values that are one stream
        of the layer loop share its width (each with a scale of its own)."""
        formats, widths = _Groups(), _Groups()
        for node in self.module.graph.nodes:
            if node.target in TRANSPARENT:
                for source in node.all_input_nodes:
                    formats.join(source, node)
            elif node.op in ("call_function", "placeholder") and node.meta.get("kind") != "ids":
                formats.root(node)
        for together in (*formats.members(), *_looped(self.module.meta.get("loop"))):
            for node in together:
                widths.join(node, together[0])
        bits: dict[Node, int] = {}
        for members in formats.members():
            root = widths.root(members[0])
            bits[root] = max(bits.get(root, 0), _wide_bits(members))
        for members in formats.members():
            shared = self._group_format(members, bits[widths.root(members[0])])
            self._wide.update(dict.fromkeys(members, shared))

    def _group_format(self, members: list[Node], bits: int) -> Format:
        largest = max(float(self.stats[m.name].largest.max()) for m in members)
        scale = max(largest, 1e-20) * WIDE_MARGIN[bits] / 2.0 ** (bits - 1)
        if bits == 24:
            scale = 2.0 ** math.ceil(math.log2(scale))
        return Format("wide", bits, torch.tensor([scale], dtype=torch.float64))

    def _wide_format(self, node: Node) -> Format:
        shared = self._wide[node]
        return Format("wide", shared.bits, shared.scale.expand(self.channels(node)))

    def _act(self, node: Node) -> Format:
        return Format("act", 24, torch.full((self.channels(node),), 2.0**-14, dtype=torch.float64))

    def _attn(self, node: Node) -> Format:
        (user,) = {u for u in demands(node)["attn"]}
        q, k, v = user.args[:3]
        if node is v and node not in (q, k):
            return Format("attn", 8, self._largest(node) / 127)
        if node not in (q, k) or q is k or q is v or k is v:
            raise CompileError(f"{user.meta['path']}: query, key and value must be different tensors")
        heads, shared = int(user.kwargs["heads"]), int(user.kwargs["kv_groups"])
        groups = heads // shared
        largest_q = self._largest(q).reshape(groups, shared, -1)
        largest_k = self._largest(k).reshape(groups, 1, -1)
        # One balance a head of keys: within a head of queries the products of scales are one constant.
        balance = (largest_q.amax(1, keepdim=True) / largest_k).sqrt()
        scaled = largest_q / balance if node is q else largest_k * balance
        unit = scaled.amax(2, keepdim=True) / 127
        return Format("attn", 8, (unit * balance if node is q else unit / balance).reshape(-1))

    def _factor(self, node: Node) -> Format:
        least = self._largest(node) * WIDE_MARGIN[16] / 2.0**15
        products = [u for u in demands(node)["factor"] if "mac" in demands(u)]
        if len(products) != 1:
            return Format("factor", 16, least)
        rows, largest = self._rows_to_search(products[0]), self._largest(products[0])
        return Format("factor", 16, search_factor(rows, largest, least, *self._weights_behind(products[0])))

    def _rotary(self, node: Node) -> Format:
        pairs = self._largest(node).reshape(-1, 2).amax(1, keepdim=True)
        return Format("rotary", 16, (pairs * WIDE_MARGIN[16] / 2.0**15).expand(-1, 2).reshape(-1))

    def _largest(self, node: Node) -> Tensor:
        """Largest magnitude of each channel, bounded from below by the tensor's.

        A channel that calibration saw only near zero would get a tiny scale; its multiplier would
        then set the shift that all channels of a requant stage share, and theirs would lose bits.
        """
        largest = self.stats[node.name].largest.to(torch.float64)
        return largest.clamp(min=max(float(largest.max()) / DEAD_CHANNEL, 1e-6))

    def _mac(self, node: Node) -> Format:
        if node.target is activation:
            scale = torch.full((self.channels(node),), 2.0**-14, dtype=torch.float64)
            return Format("mac", 8, scale, True, ZERO_POINTS[str(node.kwargs["kind"])])
        if node.target is multiply:
            return Format("mac", 8, product_scale(self.format(node.args[1], "factor").scale), dynamic=True)
        largest, behind = self._largest(node), self._weights_behind(node)
        return Format("mac", 8, search_smoothing(self._rows_to_search(node), largest, *behind, self.weights))

    def _weights_behind(self, node: Node) -> tuple[Tensor, Tensor]:
        """(in,) largest weight of each channel, and (some, in) rows of all linears that read a value:
        every so many-th, up to twice ``SEARCH_CHANNELS``."""
        matrices = [self.parameter(u.args[1]) for u in demands(node)["mac"]]
        step = max(1, sum(len(m) for m in matrices) // SEARCH_CHANNELS)
        parts, start = [], 0
        for matrix in matrices:
            parts.append(matrix[start % step :: step])
            start -= len(matrix)
        ends = [m.aminmax(dim=0) for m in matrices]
        largest = torch.stack([torch.maximum(e.max, -e.min) for e in ends]).amax(0)
        return largest.to(torch.float64).clamp(min=1e-6), torch.cat(parts).float()


class _Groups:
    """Nodes that share something, joined two by two."""

    def __init__(self) -> None:
        self._parent: dict[Node, Node] = {}

    def root(self, node: Node) -> Node:
        """The node that stands for the group."""
        while self._parent.setdefault(node, node) is not node:
            node = self._parent[node]
        return node

    def join(self, a: Node, b: Node) -> None:
        """The groups of both become one, for which ``b``'s stands."""
        self._parent[self.root(a)] = self.root(b)

    def members(self) -> list[list[Node]]:
        """All groups."""
        found: dict[Node, list[Node]] = {}
        for node in list(self._parent):
            found.setdefault(self.root(node), []).append(node)
        return list(found.values())


def _wide_bits(members: list[Node]) -> int:
    """Bits of a residual format: 24 where adds follow each other, and for logits."""
    adds = sum(m.target is add for m in members)
    logits = len(members) == 1 and members[0].target is linear
    return 24 if adds > 1 or logits else 16


def _looped(loop: Loop | None) -> list[list[Node]]:
    """Nodes whose residuals are one stream: the same position of all layers, and what enters there."""
    if loop is None:
        return []
    found = []
    for nodes in zip(*loop.instances, strict=True):
        native = OPERATORS[nodes[0].target].native == "wide"
        found.append([n for n in nodes if native or "wide" in demands(n)])
    inside = set(loop.instances[0])
    for first, position in loop.carried:
        if any(user in inside for user in demands(first).get("wide", [])):
            found.append([first, loop.instances[0][position]])
    return [nodes for nodes in found if nodes]


@kept_scales
def search_smoothing(
    rows: Tensor, largest: Tensor, weight_largest: Tensor, part: Tensor, form: WeightFormat = INT8
) -> Tensor:
    """Per-channel activation scale whose quantised product comes closest to the float one.

    Args:
        rows: (n, in) calibration rows.
        largest: (in,) largest magnitude of each channel.
        weight_largest: (in,) largest weight of each channel in all linears that read these rows.
        part: (out, in) the output channels of them that are compared.
        form: of the quantised weights.
    Returns:
        (in,) float64 scale of one int8 unit.
    """
    exact = rows @ part.t()
    best, best_error = largest / 127, math.inf
    for exponent in EXPONENTS:
        smooth = torch.ones_like(largest)
        if exponent is not None:
            smooth = largest**exponent / weight_largest ** (1 - exponent)
        unit = float((largest / smooth).max()) / 127
        scale = smooth * unit
        q = torch.floor(rows / scale.float() + 0.5).clamp(-127, 127)
        found = form.integers(part * scale.float(), Layout(1, part.shape[1]), None)
        product = (q @ found.products.float().t()) * found.scale.float()
        error = float(((product - exact) ** 2).mean())
        if error < best_error:
            best, best_error = scale, error
    return best


@kept_scales
def search_factor(
    rows: Tensor, largest: Tensor, least: Tensor, weight_largest: Tensor, part: Tensor
) -> Tensor:
    """Per-channel scale of a factor, whose product with rows' own exponents comes closest to the float one
    behind the weights that read it.

    Args:
        rows: (n, channels) calibration rows of the elementwise product.
        largest: (channels,) largest magnitude of each channel of it.
        least: (channels,) smallest scale with which the factor fits its format.
        weight_largest, part: as in ``search_smoothing``.
    Returns:
        (channels,) float64 scale of one unit of the factor.
    """
    exact = rows @ part.t()
    best, best_error = least, math.inf
    for exponent in EXPONENTS:
        factor = least
        if exponent is not None:
            smooth = largest**exponent / weight_largest ** (1 - exponent)
            factor = smooth * float((least / smooth).max())
        scale = product_scale(factor)
        units = rows / scale.float()
        unit = torch.exp2(torch.log2(units.abs().amax(1, keepdim=True) / 127).ceil().clamp(min=0))
        data, weight_scale = quantise_weight(part, scale)
        product = (torch.floor(units / unit + 0.5) * unit) @ data.float().t() * weight_scale.float()
        error = float(((product - exact) ** 2).mean())
        if error < best_error:
            best, best_error = factor, error
    return best


def sampled_nodes(module: fx.GraphModule, every: bool = False) -> set[str]:
    """Names of nodes whose calibration rows the search needs, or of every input of a linear layer."""
    found = set()
    for node in module.graph.nodes:
        data = node.op in ("call_function", "placeholder")
        data = data and (every or node.target is not activation)
        if data and "mac" in demands(node):
            found.add(node.name)
    return found


class Quantise(GraphPass):
    """Formats of every value, integer constants of every operator."""

    name = "quantise"
    requires = ("calibrated",)
    ensures = ("quantised",)

    def __init__(self, weights: WeightFormat = INT8) -> None:
        self.weights = weights

    def call(self, module: fx.GraphModule) -> bool:
        Quantiser(module, module.meta["statistics"], self.weights).run()
        return False

    def verify(self, module: fx.GraphModule) -> None:
        """Every demanded format is there with positive, finite scales; weights are symmetric."""
        for node in module.graph.nodes:
            if node.op not in ("call_function", "placeholder") or node.meta.get("kind") == "ids":
                continue
            formats = node.meta["formats"]
            missing = [role for role in demands(node) if role not in formats]
            scales = [f.scale for f in formats.values()]
            if missing or not all(bool((s > 0).all() & torch.isfinite(s).all()) for s in scales):
                raise DesignError(f"quantise left {node.name} without formats {missing} or with bad scales")
            weight = node.meta.get("data", {}).get("weight")
            if weight is not None and int(weight.min()) < -127:
                raise DesignError(f"{node.name}: int8 weights must lie in [-127, 127]")


def wide_element(bits: int) -> str:
    """Element type that holds a residual of ``bits`` bits."""
    return "int16" if bits <= 16 else "int32"
