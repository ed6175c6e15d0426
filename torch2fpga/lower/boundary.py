# SPDX-License-Identifier: Apache-2.0
"""Where data comes in and goes out: float and integer inputs, outputs, their memory ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch2fpga.design import Port
from torch2fpga.errors import CompileError
from torch2fpga.lower.attention import attention
from torch2fpga.lower.plumbing import PackStage, UnpackStage, word_config
from torch2fpga.lower.turns import leave_tokens
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.passes.nodes import Node
from torch2fpga.passes.quantise import Format, demands, wide_element

if TYPE_CHECKING:
    from torch2fpga.lower.builder import Builder


def integer_input(b: Builder, node: Node) -> None:
    used_as_mask = any(u.target is attention for u in node.users)
    entry = {"name": str(node.target), "kind": "mask" if used_as_mask else "ids"}
    sizes = [
        attribute(b.module, str(user.args[1][user.args[0].index(node)].target)).shape[0]
        for user in node.users
        if user.target is not attention
    ]
    if sizes:
        entry["entries"] = min(sizes)
    if used_as_mask and sizes:
        entry["kind"] = "both"
    b.inputs.append(entry)


def float_input(b: Builder, node: Node) -> None:
    """A float input: the host quantises it, a port streams it in."""
    roles = sorted(demands(node))
    role = "mac" if roles == ["mac"] else "wide"
    fmt: Format = node.meta["formats"].setdefault(role, node.meta["formats"].get(role))
    layout, name = b.closed(node), b.unique(f"{b.input_name(node)}_input")
    element = "int8" if role == "mac" else wide_element(fmt.bits)
    words = b.stream(f"{name}_words", "words")
    out = b.stream(f"{name}_rows", "rows", element=element, layout=layout)
    stage = UnpackStage(name, str(node.target), "before", 1, (words,), (out,), layout=layout, element=element)
    b.add(stage, [{}])
    config = word_config(layout, element, b.snapshot(), False)
    port = Port(b.unique(f"{name}_in"), "", "read", "rows", str(node.target), config["max_words"],
                 "read_rows",
                (words,), config)  # fmt: skip
    b.ports.append(port)
    b.inputs.append(
        {"name": str(node.target), "kind": "rows", "scale": fmt.scale, "bits": fmt.bits, "stream": out}
    )
    b.native[out] = (role, (node,))
    b.values[node, role] = out
    b.formats(node, (node,), out, role, set(roles) - {role})


def outputs(b: Builder, node: Node) -> None:
    views = b.module.meta["output_views"]
    results = node.args[0]
    assert isinstance(results, list | tuple)
    if b.turns:
        return token_output(b, results)
    for i, (result, view) in enumerate(zip(results, views, strict=True)):
        fmt: Format = result.meta["formats"]["wide"]
        source = b.values[result, "wide"]
        layout, element = b.layout(source), wide_element(fmt.bits)
        one = bool(result.meta.get("one_row", False))
        words = b.stream(f"output{i}_words", "words")
        stage = PackStage(
            b.unique(f"output{i}"), f"output {i}", b.group, 1, (source,), (words,),
            one_row=one, layout=layout, element=element,
        )  # fmt: skip
        b.add(stage, [{}])
        config = word_config(layout, element, b.snapshot(), False)
        port = Port(f"output{i}_out", "", "write", "output", f"output{i}", config["max_words"], "write_rows",
                    (words,), {**config, "one_row": one})  # fmt: skip
        b.ports.append(port)
        b.outputs.append(
            {"stream": source, "scale": fmt.scale, "element": element, "layout": layout,
             "one_row": one, "view": view, "port": port.name}
        )  # fmt: skip


def token_output(b: Builder, results: Sequence[Node]) -> None:
    """What a model that generates gives out: the token that its logits choose.

    Raises:
        CompileError: if the model gives something else than logits of one scale.
    """
    (result,) = results
    fmt: Format = result.meta["formats"]["wide"]
    scale = fmt.scale.reshape(-1)
    if not bool((scale == scale[0]).all()):
        raise CompileError("the logits have a scale for each channel: they cannot be compared on the device")
    leave_tokens(b, b.values[result, "wide"], float(scale[0]))
