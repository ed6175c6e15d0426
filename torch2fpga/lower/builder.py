# SPDX-License-Identifier: Apache-2.0
"""Canonical, quantised graph -> stages and streams.

Nodes before the loop, the first instance of the repeated block (with the constants of all
instances as step data), nodes behind the loop. Each node's file makes its stages; this file gives
every value the formats its consumers want, closes the layer loop and duplicates streams that have
several readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from torch2fpga.design import Design, Layout, Port, Shape, Stage, Stream, ceil_div
from torch2fpga.lower.boundary import float_input, integer_input, outputs
from torch2fpga.lower.embedding import row_words
from torch2fpga.lower.forks import insert_forks
from torch2fpga.lower.large_table import large_table
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.loop_ends import close_loop, open_loop
from torch2fpga.lower.plumbing import (
    UnpackStage,
    word_config,
)
from torch2fpga.lower.quantize_rows import QuantizeRowsStage
from torch2fpga.lower.registry import operator_of
from torch2fpga.lower.regroup import regrouped
from torch2fpga.lower.requant import RequantStage, multiplier
from torch2fpga.lower.turns import deal_beginnings, enter_tokens
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.quantise import Format, demands, wide_element
from torch2fpga.passes.roll import Loop

#: ports that bring weights, and cycles of a layer in which they bring those of the next one: what a cache
#: has time for
WEIGHT_PORTS, GAP_CYCLES = 20, 1500

#: element type of a role's format, where it is always the same
ELEMENT_OF = {"mac": "int8", "attn": "int8", "act": "int32", "factor": "int16", "rotary": "int16"}


@dataclass
class Lowered:
    """Result of lowering.

    Attributes:
        design: stages and streams (no kernels yet).
        data: stage name -> constants of each step.
        inputs, outputs: how the host packs and unpacks (see runtime/host.py).
        native: stream -> (role, canonical nodes, one a step), for comparison with float.
        exponents: row stream -> stream of its row exponents.
    """

    design: Design
    data: dict[str, list[Mapping[str, Any]]]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    native: dict[str, tuple[str, tuple[Node, ...]]]
    exponents: dict[str, str]


@dataclass
class Builder:
    """Collects stages; operators' ``lower`` functions call it (as ``b``).

    Attributes:
        turns: most tokens that a launch generates (0: none).
        caches: parts of an attention with a cache each (0: as many as it takes).
        channel_bytes: of a memory channel; larger embedding tables lie in several.
        go, back: streams of the loop over tokens: a turn begins, and its token goes round.
        beginnings, reports: what awaits the one, and what a turn's end waits for.
    """

    module: fx.GraphModule
    shape: Shape
    loop: Loop | None
    name_of_design: str
    stages: list[Stage] = field(default_factory=list)
    data: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    ports: list[Port] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    native: dict[str, tuple[str, tuple[Node, ...]]] = field(default_factory=dict)
    turns: int = 0
    channel_bytes: int = 1 << 28
    caches: int = 0

    def __post_init__(self) -> None:
        self.go: str | None = None
        self.back: str | None = None
        self.beginnings: list[str] = []
        self.reports: list[str] = []
        self.group = "before"
        self.values: dict[tuple[Node, str], str] = {}
        self.exponents: dict[str, str] = {}
        self.instances: dict[Node, tuple[Node, ...]] = {}
        self.inside: set[Node] = set()
        self.entered: dict[tuple[Node, str], str] = {}
        self.regrouped: dict[tuple[str, Layout], str] = {}
        self.names: dict[str, int] = {}
        if self.loop is not None:
            for nodes in zip(*self.loop.instances, strict=True):
                self.instances[nodes[0]] = nodes
            self.inside = {n for instance in self.loop.instances for n in instance}

    # -- what operators call --------------------------------------------------------------

    def demand(self, node: Node, role: str, layout: Layout | None = None) -> str:
        """Stream that carries ``node`` in the format of ``role`` (one use).

        Args:
            layout: of its channels; without one the consumer takes what the producer writes.
        """
        entered = self.entered.get((node, role)) if self.group == "loop" else None
        stream = entered or self.values[node, role]
        return stream if layout is None else regrouped(self, node, stream, layout)

    def closed(self, node: Node) -> Layout:
        """All channels of a value, without gaps."""
        return Layout(1, int(node.meta["channels"]))

    def layout(self, stream: str) -> Layout:
        """How the channels of a stream's rows lie in tokens."""
        return self.streams[stream].layout

    def element(self, stream: str) -> str:
        """Element type of a stream."""
        return self.streams[stream].element

    def name(self, node: Node) -> str:
        """A C++ identifier for a node's stages, from its module path."""
        path = node.meta.get("path", "") or node.name
        if node in self.inside and self.loop is not None:
            path = re.sub(r"^\.?\d+\.?", "", path.removeprefix(self.loop.prefix).lstrip("."))
        words = [w for w in re.split(r"[^A-Za-z0-9]+", path) if w and not w.isdigit()][-3:]
        base = "_".join(words).lower() or operator_of(node).name
        kind = operator_of(node).name if node.op == "call_function" else "input"
        if kind not in ("linear", "layer_norm") or base in self.names:
            base = f"{base}_{kind}" if not base.endswith(kind) else base
        return self.unique(re.sub(r"[^a-z0-9_]", "", base)[:48])

    def unique(self, base: str) -> str:
        """``base``, numbered where it is taken; never a C++ keyword (always has a letter first)."""
        base = base if base[:1].isalpha() else f"s_{base}"
        count = self.names.get(base, 0)
        self.names[base] = count + 1
        return base if count == 0 else self.unique(f"{base}_{count}")

    def common(
        self,
        node: Node,
        name: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        params: str | None = None,
    ) -> dict[str, Any]:
        """Fields that every stage has."""
        path = node.meta.get("path", "")
        if node in self.inside and self.loop is not None:
            prefix = self.loop.prefix
            path = re.sub(rf"^{re.escape(prefix)}\.?\d+", f"{prefix}.*" if prefix else "*", path)
        return {
            "name": name,
            "path": path,
            "group": self.group,
            "steps": self.steps,
            "inputs": inputs,
            "outputs": outputs,
            "params": params,
            "one_row": bool(node.meta.get("one_row", False)),
        }

    @property
    def steps(self) -> int:
        """Uses per launch of what is being lowered."""
        return self.loop.steps if self.group == "loop" and self.loop is not None else 1

    def add(self, stage: Stage, data: Sequence[Mapping[str, Any]]) -> None:
        """Add a stage with its constants, one dictionary a step."""
        self.stages.append(stage)
        self.data[stage.name] = list(data)

    def stream(self, name: str, kind: str, **fields: Any) -> str:
        """Declare a stream."""
        name = self.unique(name)
        self.streams[name] = Stream(name, kind, **fields)
        return name

    def raw(self, name: str, layout: Layout, node: Node) -> str:
        """An int32 row stream."""
        one = bool(node.meta.get("one_row", False))
        return self.stream(name, "rows", element="int32", layout=layout, one_row=one)

    def wide(self, name: str, layout: Layout, node: Node) -> str:
        """A row stream in the node's residual format."""
        one = bool(node.meta.get("one_row", False))
        element = wide_element(node.meta["formats"]["wide"].bits)
        return self.stream(name, "rows", element=element, layout=layout, one_row=one)

    def words(self, name: str) -> str:
        """A stream of memory words."""
        return self.stream(name, "words", depth=8)

    def follow_exponents(self, x: str, out: str) -> None:
        """Rows of ``out`` carry the exponents of the rows of ``x``."""
        if x in self.exponents:
            self.exponents[out] = self.exponents[x]

    def scores(self, name: str, layout: Layout, element: str) -> str:
        """A stream of attention scores or weights."""
        return self.stream(name, "scores", element=element, layout=layout, depth=32)

    def weight_port(self, stage: MatmulStage, stream: str) -> None:
        """A memory port for a multiplier array's weights."""
        self.ports.append(stage.weight_port(self.snapshot(), stream))

    def table_port(self, name: str, table: Node, rows: str, layout: Layout, ids: str | None) -> None:
        """A memory port for an embedding table."""
        words = row_words(layout, self.shape.lanes)
        entries = attribute(self.module, str(table.target)).shape[0]
        if ids is not None and entries * words * 64 > self.channel_bytes:
            path = str(table.target)
            return large_table(self, name, name, entries, words, ids, rows, path)
        config: dict[str, Any] = {"row_words": words}
        if ids is not None:
            config["ids"] = ids
        positions = "read_positions_from" if self.turns else "read_positions"
        template = "gather_rows" if ids is not None else positions
        self.ports.append(
            Port(
                self.unique(f"{name}_in"),
                "",
                "read",
                "table",
                name,
                entries * words,
                template,
                (rows,),
                config,
            )
        )

    def ids(self, node: Node) -> str:
        """Ids of an input, from a port of their own."""
        stream = self.stream(f"{self.input_name(node)}_ids", "ids", depth=8)
        words = -(-self.shape.max_batch * self.shape.max_seq * 4 // 64)
        self.ports.append(
            Port(
                self.unique(f"{stream}_in"), "", "read", "ids", str(node.target), words, "read_ids", (stream,)
            )
        )
        return enter_tokens(self, stream) if self.turns else stream

    def cache_parts(self, kept: Layout) -> list[int]:
        """Heads of keys in each part of an attention; a part has arrays and a cache of its own.

        There are as many parts as ports are needed to read keys (or values) of the longest text in the
        time in which the weights of a step come in, or as ``caches`` says.
        """
        if not self.shape.max_keys:
            return [kept.groups]
        count = self.caches
        if not count:
            words = ceil_div(kept.blocks(self.shape.lanes) * self.shape.lanes, 64) * self.shape.max_keys
            count = max(1, int(words / (self._step_bytes() / 64 / WEIGHT_PORTS + GAP_CYCLES)))
        count = min(count, kept.groups)
        return [(kept.groups + i) // count for i in range(count)]

    def _step_bytes(self) -> int:
        """Bytes of the weights of a layer of the loop."""
        nodes = self.loop.instances[0] if self.loop is not None else list(self.module.graph.nodes)
        linear = [n for n in nodes if n.op == "call_function" and "weights" in n.meta]
        sizes = [attribute(self.module, str(n.args[1].target)).numel() for n in linear]
        return sum(sizes) * (linear[0].meta["weights"].array.weight_bits if linear else 8) // 8

    def begins(self) -> str:
        """A stream with a token each turn, for a process that awaits its beginning."""
        self.beginnings.append(self.stream("turn_begins", "ids", one_row=True))
        return self.beginnings[-1]

    def written(self, name: str) -> str:
        """A stream with a token each turn from a process that has written all of it."""
        self.reports.append(self.stream(f"{name}_written", "ids", one_row=True))
        return self.reports[-1]

    def input_name(self, node: Node) -> str:
        """Identifier for a model input (or for a value by its node's name)."""
        return re.sub(r"[^a-z0-9_]", "_", str(node.target).lower())[:40] or "input"

    def mask(self, node: Node) -> str:
        """Key mask of an input, from a port of its own."""
        base = self.input_name(node)
        words = self.stream(f"{base}_words", "words")
        out = self.stream(f"{base}_mask", "mask", depth=8)
        stage = UnpackStage(
            self.unique(f"{base}_unpack"), str(node.target), "before", 1, (words,), (out,), mask=True
        )
        self.add(stage, [{}])
        config = word_config(stage.layout, "int8", self.snapshot(), True)
        self.ports.append(
            Port(self.unique(f"{base}_in"), "", "read", "mask", str(node.target), config["max_words"],
                 "read_rows",
                 (words,), config)
        )  # fmt: skip
        return out

    def snapshot(self) -> Design:
        """The design so far (for sizes)."""
        return Design(
            self.name_of_design, self.shape, tuple(self.stages), dict(self.streams), turns=self.turns
        )

    # -- the walk -------------------------------------------------------------------------

    def run(self) -> Lowered:
        """Lower every node."""
        after = self._after_loop()
        nodes = list(self.module.graph.nodes)
        for node in nodes:
            if node.op == "placeholder" and node.meta.get("kind") == "rows":
                float_input(self, node)
            elif node.op == "placeholder":
                integer_input(self, node)
            elif node.op == "call_function" and node not in self.inside and node not in after:
                self._node(node, (node,))
        if self.loop is not None:
            self.group = "loop"
            open_loop(self)
            for node in self.loop.instances[0]:
                self._node(node, self.instances[node])
            close_loop(self)
            self.group = "after"
            for node in nodes:
                if node.op == "call_function" and node in after:
                    self._node(node, (node,))
        self.group = "after" if self.loop is not None else "before"
        outputs(self, nodes[-1])
        insert_forks(self)
        if self.turns:
            deal_beginnings(self)
        design = replace(self.snapshot(), ports=tuple(self.ports), steps=self.loop.steps if self.loop else 1)
        return Lowered(design, self.data, self.inputs, self.outputs, self.native, self.exponents)

    def _after_loop(self) -> set[Node]:
        found: set[Node] = set()
        for node in self.module.graph.nodes:
            if node not in self.inside and any(s in self.inside or s in found for s in node.all_input_nodes):
                found.add(node)
        return found

    def _node(self, node: Node, nodes: tuple[Node, ...]) -> None:
        op = operator_of(node)
        out = op.lower(self, nodes)
        roles = {role for n in nodes for role in demands(n)}
        self.native[out] = (op.native, nodes)
        if op.native == "wide":
            self.values[node, "wide"] = out
            roles.discard("wide")
        self.formats(node, nodes, out, "wide" if op.native == "wide" else "raw", roles)

    def formats(self, node: Node, nodes: tuple[Node, ...], out: str, native: str, roles: set[str]) -> None:
        """Requant stages for every format that is wanted besides the native one."""
        for role in sorted(roles):
            fmt = next(n.meta["formats"][role] for n in nodes if role in n.meta["formats"])
            base = f"{out.rsplit('_', 1)[0]}_{role}"
            layout, one = self.layout(out), bool(node.meta.get("one_row", False))
            if fmt.dynamic:
                self._quantize_rows(node, nodes, out, base, fmt)
                continue
            element = ELEMENT_OF.get(role) or wide_element(fmt.bits)
            stream = self.stream(base, "rows", element=element, layout=layout, one_row=one)
            name, params = self.unique(f"{base}_requant"), self.words(f"{base}_params")
            inputs = (out,) if out not in self.exponents else (out, self.exponents[out])
            stage = RequantStage(
                **self.common(node, name, inputs, (stream,), params),
                layout=layout,
                in_element=self.element(out),
                out_element=element,
                bits=fmt.bits,
                relu=bool(node.meta.get("relu", False)),
                scaled=out in self.exponents,
                value_bits=self._value_bits(out),
            )
            self.add(stage, [self._requant_data(n, native, role, stage.scaled) for n in nodes])
            self.native[stream] = (role, nodes)
            self.values[node, role] = stream
            self._alias(nodes, role, stream)

    def _value_bits(self, stream: str) -> int:
        """Width that the values of a stream are known to fit, 0 if nothing is known."""
        return next((s.result_bits() for s in self.stages if s.outputs[:1] == (stream,)), 0)

    def _alias(self, nodes: tuple[Node, ...], role: str, stream: str) -> None:
        for n in nodes:
            self.values.setdefault((n, role), stream)

    def _requant_data(self, node: Node, native: str, role: str, scaled: bool) -> dict[str, Any]:
        fmt: Format | None = node.meta["formats"].get(role)
        if native == "raw":
            factor, offset = node.meta["affine"]
        else:
            factor = node.meta["formats"][native].scale
            offset = torch.zeros_like(factor)
        if fmt is None:  # this layer's value is not wanted in that format: it is dropped behind
            zero = torch.zeros_like(factor)
            data = multiplier(zero, zero, "").data()
        else:
            path = node.meta.get("path", "")
            data = multiplier(factor / fmt.scale, offset / fmt.scale, path).data()
        return {**data, "offset": node.meta["offset"]} if scaled else data

    def _quantize_rows(self, node: Node, nodes: tuple[Node, ...], out: str, base: str, fmt: Format) -> None:
        one, layout = bool(node.meta.get("one_row", False)), self.layout(out)
        stream = self.stream(base, "rows", element="int8", layout=layout, one_row=one)
        exponents = self.stream(f"{base}_exponents", "exponents", one_row=one)
        name = self.unique(f"{base}_quantize")
        stage = QuantizeRowsStage(
            **self.common(node, name, (out,), (stream, exponents)),
            layout=layout,
            zero_point=fmt.zero_point,
        )
        self.add(stage, [{} for _ in nodes])
        self.native[stream] = ("mac", nodes)
        self.values[node, "mac"] = stream
        self.exponents[stream] = exponents
