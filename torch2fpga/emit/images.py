# SPDX-License-Identifier: Apache-2.0
"""Binary images of weights, tables and parameters: one a memory port, in the order it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch2fpga.design import Design, Kernel
from torch2fpga.emit.ports import KernelPort, all_ports, parameter_targets
from torch2fpga.errors import DesignError
from torch2fpga.lower.deal import DealStage
from torch2fpga.lower.embedding import EmbedStage, table_image
from torch2fpga.lower.lanes import LaneStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.plan.share import lane_weights

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

#: roles of ports with constants
CONSTANT_ROLES = ("weights", "table", "params")

Data = Mapping[str, list[Mapping[str, Any]]]


def image(design: Design, data: Data, kernel: Kernel, port: KernelPort) -> bytes:
    """The image of one port (roles weights, table and params).

    Raises:
        DesignError: if it does not have the size that the port reads.
    """
    content, wanted = _image(design, data, kernel, port), port.words * 64
    if len(content) != wanted:
        raise DesignError(f"image of {port.name} has {len(content)} bytes, the port reads {wanted}")
    return content


def image_of(compiled: CompiledModel, kernel: Kernel, port: KernelPort) -> bytes:
    """The image of one port of a compiled model; made anew unless all of them are at hand already."""
    known: Mapping[str, bytes] | None = compiled.__dict__.get("images")
    if known is not None:
        return known[image_name(kernel, port)]
    return image(compiled.design, compiled.data, kernel, port)


def _image(design: Design, data: Data, kernel: Kernel, port: KernelPort) -> bytes:
    if port.role == "weights":
        return b"".join(_weights(design, data, port.binding))
    if port.role == "table":
        name, index = port.binding.rsplit("_table", 1)
        stage = design.stage(name)
        assert isinstance(stage, EmbedStage)
        table = data[name][0][f"table{index}"]
        config = next(p.config for p in design.ports if p.name == port.name)
        first = int(config.get("first", 0))
        table = table[first : first + int(config.get("rows", len(table)))]
        return table_image(table, stage.layout, design.shape.lanes)
    return b"".join(_parameters(design, data, kernel))


def _weights(design: Design, data: Data, name: str) -> Iterator[bytes]:
    """Step by step the weights of a linear layer's array, or of those that share a port."""
    stage = design.stage(name)
    if isinstance(stage, LaneStage):
        yield from lane_weights(design, data, stage)
        return
    arrays = [design.stage(x) for x in stage.arrays] if isinstance(stage, DealStage) else [stage]
    for step in range(stage.steps):
        for array in arrays:
            assert isinstance(array, MatmulStage)
            yield array.weight_image(data[array.name][step], design)


def _parameters(design: Design, data: Data, kernel: Kernel) -> Iterator[bytes]:
    """Words of every stage that the kernel hands them out to, step by step."""
    stages = [stage for stage, _ in parameter_targets(design, kernel)]
    for group in ("before", "loop", "after"):
        members = [s for s in stages if s.group == group]
        for step in range(design.steps if group == "loop" else 1):
            for stage in members:
                yield stage.parameter_words(data[stage.name][step], design)


def images(design: Design, data: Data) -> dict[str, bytes]:
    """port name -> image, for every port with constants.

    Raises:
        DesignError: if an image does not have the size that its port reads.
    """
    return {
        image_name(kernel, port): image(design, data, kernel, port)
        for kernel, port in all_ports(design)
        if port.role in CONSTANT_ROLES
    }


def image_name(kernel: Kernel, port: KernelPort) -> str:
    """File stem of a port's image."""
    return f"{kernel.name}_{port.name}" if port.role == "params" else port.name
