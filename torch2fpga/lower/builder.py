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

from torch2fpga.design import Design, Layout, Port, Shape, Stage, Stream
from torch2fpga.errors import CompileError
from torch2fpga.lower.activation import activation
from torch2fpga.lower.attention import attention
from torch2fpga.lower.embedding import row_words
from torch2fpga.lower.linear import MatmulStage, linear
from torch2fpga.lower.plumbing import (
    ForkStage,
    LoopEnterStage,
    LoopExitStage,
    PackStage,
    UnpackStage,
    word_config,
)
from torch2fpga.lower.quantize_rows import QuantizeRowsStage
from torch2fpga.lower.registry import operator_of
from torch2fpga.lower.requant import RequantStage, multiplier
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.quantise import Format, demands
from torch2fpga.passes.roll import Loop


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
    native: dict[str, tuple[str, tuple[fx.Node, ...]]]
    exponents: dict[str, str]


@dataclass
class Builder:
    """Collects stages; operators' ``lower`` functions call it (as ``b``)."""

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
    native: dict[str, tuple[str, tuple[fx.Node, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.group = "before"
        self.values: dict[tuple[fx.Node, str], str] = {}
        self.exponents: dict[str, str] = {}
        self.instances: dict[fx.Node, tuple[fx.Node, ...]] = {}
        self.inside: set[fx.Node] = set()
        self.entered: dict[tuple[fx.Node, str], str] = {}
        self.names: dict[str, int] = {}
        if self.loop is not None:
            for nodes in zip(*self.loop.instances, strict=True):
                self.instances[nodes[0]] = nodes
            self.inside = {n for instance in self.loop.instances for n in instance}

    # -- what operators call --------------------------------------------------------------

    def demand(self, node: fx.Node, role: str) -> str:
        """Stream that carries ``node`` in the format of ``role`` (one use)."""
        if self.group == "loop" and (node, role) in self.entered:
            return self.entered[node, role]
        return self.values[node, role]

    def layout(self, node: fx.Node) -> Layout:
        """Channels of a value: grouped by heads around attention."""
        channels = int(node.meta["channels"])
        users = [u for u in node.users if u.target is attention]
        source = node if node.target is attention else None
        if node.target is linear and users:
            source = users[0]
        if source is not None:
            heads = int(source.kwargs["heads"])
            return Layout(heads, channels // heads)
        if node.target in (activation,) and node.op == "call_function":
            return self.layout(node.args[0])  # type: ignore[arg-type]
        return Layout(1, channels)

    def element(self, stream: str) -> str:
        """Element type of a stream."""
        return self.streams[stream].element

    def name(self, node: fx.Node) -> str:
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
        node: fx.Node,
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

    def raw(self, name: str, layout: Layout, node: fx.Node) -> str:
        """An int32 row stream."""
        one = bool(node.meta.get("one_row", False))
        return self.stream(name, "rows", element="int32", layout=layout, one_row=one)

    def wide(self, name: str, layout: Layout, node: fx.Node) -> str:
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
        design = self.snapshot()
        words = stage.weight_words(design)
        template = "read_words_per_tile" if stage.streamed else "read_words"
        config = {"steps": stage.steps, "words": words, "one_row": stage.one_row}
        port = Port(
            f"{stage.name}_weights_in", "", "read", "weights", stage.name, words * stage.steps,
            template, (stream,), config,
        )  # fmt: skip
        self.ports.append(port)

    def table_port(self, name: str, table: fx.Node, rows: str, layout: Layout, ids: str | None) -> None:
        """A memory port for an embedding table."""
        words = row_words(layout, self.shape.lanes)
        entries = attribute(self.module, str(table.target)).shape[0]
        config: dict[str, Any] = {"row_words": words}
        if ids is not None:
            config["ids"] = ids
        template = "gather_rows" if ids is not None else "read_positions"
        self.ports.append(
            Port(self.unique(f"{name}_in"), "", "read", "table", name, entries * words, template, (rows,), config)
        )

    def ids(self, node: fx.Node) -> str:
        """Ids of an input, from a port of their own."""
        stream = self.stream(f"{self.input_name(node)}_ids", "ids", depth=8)
        words = -(-self.shape.max_batch * self.shape.max_seq * 4 // 64)
        self.ports.append(
            Port(self.unique(f"{stream}_in"), "", "read", "ids", str(node.target), words, "read_ids", (stream,))
        )
        return stream

    def input_name(self, node: fx.Node) -> str:
        """Identifier for a model input (or for a value by its node's name)."""
        return re.sub(r"[^a-z0-9_]", "_", str(node.target).lower())[:40] or "input"

    def mask(self, node: fx.Node) -> str:
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
            Port(self.unique(f"{base}_in"), "", "read", "mask", str(node.target), config["max_words"], "read_rows",
                 (words,), config)
        )  # fmt: skip
        return out

    def snapshot(self) -> Design:
        """The design so far (for sizes)."""
        return Design(self.name_of_design, self.shape, tuple(self.stages), dict(self.streams))

    # -- the walk -------------------------------------------------------------------------

    def run(self) -> Lowered:
        """Lower every node."""
        after = self._after_loop()
        nodes = list(self.module.graph.nodes)
        for node in nodes:
            if node.op == "placeholder" and node.meta.get("kind") == "rows":
                self._input(node)
            elif node.op == "placeholder":
                self._integer_input(node)
            elif node.op == "call_function" and node not in self.inside and node not in after:
                self._node(node, (node,))
        if self.loop is not None:
            self.group = "loop"
            self._enter()
            for node in self.loop.instances[0]:
                self._node(node, self.instances[node])
            self._exit()
            self.group = "after"
            for node in nodes:
                if node.op == "call_function" and node in after:
                    self._node(node, (node,))
        self.group = "after" if self.loop is not None else "before"
        self._output(nodes[-1])
        self._fork()
        design = replace(self.snapshot(), ports=tuple(self.ports), steps=self.loop.steps if self.loop else 1)
        return Lowered(design, self.data, self.inputs, self.outputs, self.native, self.exponents)

    def _after_loop(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        for node in self.module.graph.nodes:
            if node not in self.inside and any(s in self.inside or s in found for s in node.all_input_nodes):
                found.add(node)
        return found

    def _integer_input(self, node: fx.Node) -> None:
        used_as_mask = any(u.target is attention for u in node.users)
        entry = {"name": str(node.target), "kind": "mask" if used_as_mask else "ids"}
        sizes = [
            attribute(self.module, str(user.args[1][user.args[0].index(node)].target)).shape[0]
            for user in node.users
            if user.target is not attention
        ]
        if sizes:
            entry["entries"] = min(sizes)
        if used_as_mask and sizes:
            entry["kind"] = "both"
        self.inputs.append(entry)

    def _input(self, node: fx.Node) -> None:
        """A float input: the host quantises it, a port streams it in."""
        roles = sorted(demands(node))
        role = "mac" if roles == ["mac"] else "wide"
        fmt: Format = node.meta["formats"].setdefault(role, node.meta["formats"].get(role))
        layout, name = self.layout(node), self.unique(f"{self.input_name(node)}_input")
        element = "int8" if role == "mac" else wide_element(fmt.bits)
        words = self.stream(f"{name}_words", "words")
        out = self.stream(f"{name}_rows", "rows", element=element, layout=layout)
        stage = UnpackStage(name, str(node.target), "before", 1, (words,), (out,), layout=layout, element=element)
        self.add(stage, [{}])
        config = word_config(layout, element, self.snapshot(), False)
        port = Port(self.unique(f"{name}_in"), "", "read", "rows", str(node.target), config["max_words"], "read_rows",
                    (words,), config)  # fmt: skip
        self.ports.append(port)
        self.inputs.append(
            {"name": str(node.target), "kind": "rows", "scale": fmt.scale, "bits": fmt.bits, "stream": out}
        )
        self.native[out] = (role, (node,))
        self.values[node, role] = out
        self._formats(node, (node,), out, role, set(roles) - {role})

    def _node(self, node: fx.Node, nodes: tuple[fx.Node, ...]) -> None:
        op = operator_of(node)
        out = op.lower(self, nodes)
        roles = {role for n in nodes for role in demands(n)}
        self.native[out] = (op.native, nodes)
        if op.native == "wide":
            self.values[node, "wide"] = out
            roles.discard("wide")
        self._formats(node, nodes, out, "wide" if op.native == "wide" else "raw", roles)

    def _formats(
        self, node: fx.Node, nodes: tuple[fx.Node, ...], out: str, native: str, roles: set[str]
    ) -> None:
        """Requant stages for every format that is wanted besides the native one."""
        for role in sorted(roles):
            fmt = next(n.meta["formats"][role] for n in nodes if role in n.meta["formats"])
            base = f"{out.rsplit('_', 1)[0]}_{role}"
            layout, one = self.layout(node), bool(node.meta.get("one_row", False))
            if fmt.dynamic:
                self._quantize_rows(node, nodes, out, base, layout)
                continue
            element = {"mac": "int8", "attn": "int8", "act": "int32", "wide": wide_element(fmt.bits)}[role]
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
            )
            self.add(stage, [self._requant_data(n, native, role, stage.scaled) for n in nodes])
            self.native[stream] = (role, nodes)
            self.values[node, role] = stream
            self._alias(nodes, role, stream)

    def _alias(self, nodes: tuple[fx.Node, ...], role: str, stream: str) -> None:
        for n in nodes:
            self.values.setdefault((n, role), stream)

    def _requant_data(self, node: fx.Node, native: str, role: str, scaled: bool) -> dict[str, Any]:
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

    def _quantize_rows(
        self, node: fx.Node, nodes: tuple[fx.Node, ...], out: str, base: str, layout: Layout
    ) -> None:
        one = bool(node.meta.get("one_row", False))
        stream = self.stream(base, "rows", element="int8", layout=layout, one_row=one)
        exponents = self.stream(f"{base}_exponents", "exponents", one_row=one)
        name = self.unique(f"{base}_quantize")
        stage = QuantizeRowsStage(
            **self.common(node, name, (out,), (stream, exponents)),
            layout=layout,
            zero_point=node.meta["formats"]["mac"].zero_point,
        )
        self.add(stage, [{} for _ in nodes])
        self.native[stream] = ("mac", nodes)
        self.values[node, "mac"] = stream
        self.exponents[stream] = exponents

    # -- the layer loop -------------------------------------------------------------------

    def _carried_roles(self, position: int) -> tuple[set[str], set[str]]:
        """Roles that the next layer, and that the code behind the loop, want of a node."""
        assert self.loop is not None
        back: set[str] = set()
        for instance, following in zip(self.loop.instances, self.loop.instances[1:], strict=False):
            inside = set(following)
            back |= {r for r, users in demands(instance[position]).items() if any(u in inside for u in users)}
        last = set(self.loop.instances[-1])
        on = {
            r
            for r, users in demands(self.loop.instances[-1][position]).items()
            if any(u not in last for u in users)
        }
        return back, on

    def _enter(self) -> None:
        assert self.loop is not None
        for first, position in self.loop.carried:
            for role in sorted(self._carried_roles(position)[0]):
                source = self.values[first, role]
                like = self.streams[source]
                if source in self.exponents:
                    raise CompileError(f"{first.meta['path']}: a value with row exponents crosses layers")
                base = f"{re.sub(r'[^a-z0-9_]', '_', first.name.lower())}_{role}"
                back = self.stream(f"{base}_back", like.kind, element=like.element, layout=like.layout)
                out = self.stream(f"{base}_entered", like.kind, element=like.element, layout=like.layout)
                stage = LoopEnterStage(
                    self.unique(f"enter_{base}"), "layer loop", "loop", self.steps, (source, back), (out,),
                    like=like,
                )  # fmt: skip
                self.add(stage, [{} for _ in range(self.steps)])
                self.entered[first, role] = out
                self.entered[self.loop.instances[0][position], f"back:{role}"] = back
                sources = (first, *(i[position] for i in self.loop.instances[:-1]))
                self.native[out] = (role, sources)

    def _exit(self) -> None:
        assert self.loop is not None
        positions = {p for _, p in self.loop.carried}
        for position, node in enumerate(self.loop.instances[0]):
            last = self.loop.instances[-1][position]
            back_roles, on_roles = self._carried_roles(position)
            if position not in positions:
                back_roles = set()
            for role in sorted(back_roles | on_roles):
                self._one_exit(node, last, role, role in back_roles, role in on_roles)

    def _one_exit(self, node: fx.Node, last: fx.Node, role: str, back: bool, on: bool) -> None:
        source = self.values[node, role]
        like = self.streams[source]
        base = source
        outputs: list[str] = []
        if back:
            outputs.append(self.entered[node, f"back:{role}"])
        if on:
            out = self.stream(f"{base}_last", like.kind, element=like.element, layout=like.layout)
            self.values[last, role] = out
            outputs.append(out)
        mode = "both" if back and on else ("back" if back else "last")
        name = self.unique(f"exit_{base}")
        stage = LoopExitStage(
            name, "layer loop", "loop", self.steps, (source,), tuple(outputs), like=like, mode=mode
        )
        self.add(stage, [{} for _ in range(self.steps)])

    # -- the end --------------------------------------------------------------------------

    def _output(self, node: fx.Node) -> None:
        views = self.module.meta["output_views"]
        results = node.args[0]
        assert isinstance(results, list | tuple)
        for i, (result, view) in enumerate(zip(results, views, strict=True)):
            assert isinstance(result, fx.Node)
            fmt: Format = result.meta["formats"]["wide"]
            source = self.values[result, "wide"]
            layout, element = self.layout(result), wide_element(fmt.bits)
            one = bool(result.meta.get("one_row", False))
            words = self.stream(f"output{i}_words", "words")
            stage = PackStage(
                self.unique(f"output{i}"), f"output {i}", self.group, 1, (source,), (words,),
                one_row=one, layout=layout, element=element,
            )  # fmt: skip
            self.add(stage, [{}])
            config = word_config(layout, element, self.snapshot(), False)
            port = Port(f"output{i}_out", "", "write", "output", f"output{i}", config["max_words"], "write_rows",
                        (words,), {**config, "one_row": one})  # fmt: skip
            self.ports.append(port)
            self.outputs.append(
                {"stream": source, "scale": fmt.scale, "element": element, "layout": layout,
                 "one_row": one, "view": view, "port": port.name}
            )  # fmt: skip

    def _fork(self) -> None:
        """A stream has one reader: duplicate those that have more."""
        readers: dict[str, list[tuple[int, int]]] = {}
        for number, stage in enumerate(self.stages):
            for slot, name in enumerate(stage.inputs):
                readers.setdefault(name, []).append((number, slot))
        insert: list[tuple[int, Stage]] = []
        for name, uses in readers.items():
            if len(uses) > 1:
                insert += self._fork_one(name, uses)
        for before, stage in sorted(insert, key=lambda x: -x[0]):
            self.stages.insert(before, stage)

    def _fork_one(self, name: str, uses: list[tuple[int, int]]) -> list[tuple[int, Stage]]:
        stream, made = self.streams[name], []
        source = name
        left = list(uses)
        reader_stage = self.stages[uses[0][0]]
        while len(left) > 1:
            width = min(3, len(left))
            more = len(left) > width
            outputs = [self.unique(f"{name}_copy") for _ in range(width)]
            self.streams.update({o: replace(stream, name=o) for o in outputs})
            own = len(outputs) - (1 if more else 0)
            for (number, slot), out in zip(left[:own], outputs, strict=False):
                inputs = list(self.stages[number].inputs)
                inputs[slot] = out
                self.stages[number] = replace(self.stages[number], inputs=tuple(inputs))
            left = left[own:]
            writer = next((s for s in self.stages if name in s.outputs), None)
            group = reader_stage.group if writer is None else writer.group
            if writer is not None and isinstance(writer, LoopExitStage):
                group = "after"
            steps = self.loop.steps if group == "loop" and self.loop is not None else 1
            stage = ForkStage(
                self.unique(f"fork_{name}"), writer.path if writer else "", group, steps, (source,),
                tuple(outputs), one_row=stream.one_row, like=stream,
            )  # fmt: skip
            self.data[stage.name] = [{} for _ in range(steps)]
            made.append((uses[0][0], stage))
            source = outputs[-1]
        return list(reversed(made))


def wide_element(bits: int) -> str:
    """Element type that holds a residual of ``bits`` bits."""
    return "int16" if bits <= 16 else "int32"
