# SPDX-License-Identifier: Apache-2.0
"""Calibration whose statistics are kept in the store in use as soon as they are complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from torch2fpga.passes.calibrate import Calibrate, Statistics
from torch2fpga.passes.fold_constants import attribute
from torch2fpga.weights.store import Item, current, pieces


class KeptCalibrate(Calibrate):
    """As ``Calibrate``; where a store is in use, statistics of the same graph, constants and inputs are
    taken from it."""

    def call(self, module: fx.GraphModule) -> bool:
        store = current()
        if store is None:
            return super().call(module)
        found = store.kept("calibration", _key(module, self.samples, self.every), lambda: self._made(module))
        # Those that were just made are the same: they need no longer be in memory.
        module.meta["statistics"] = _statistics(found)
        return False

    def _made(self, module: fx.GraphModule) -> dict[str, Tensor | Item]:
        super().call(module)
        found: dict[str, Tensor | Item] = {}
        for name, seen in module.meta.pop("statistics").items():
            found[f"{name}/largest"] = seen.largest
            if seen.rows:
                found[f"{name}/rows"] = _joined(seen.rows)
        return found


def _joined(rows: Sequence[Tensor]) -> Item:
    """All rows, one part after the other."""
    count = sum(len(part) for part in rows)

    def parts() -> Iterator[Tensor]:
        for part in rows:
            yield from pieces(part)

    return Item(rows[0].dtype, (count, *rows[0].shape[1:]), parts)


def _statistics(tensors: Mapping[str, Tensor]) -> dict[str, Statistics]:
    found = {
        name.removesuffix("/largest"): Statistics(value)
        for name, value in tensors.items()
        if name.endswith("/largest")
    }
    for name, seen in found.items():
        if f"{name}/rows" in tensors:
            seen.rows.append(tensors[f"{name}/rows"])
    return found


def _key(module: fx.GraphModule, samples: Sequence[Mapping[str, Tensor]], every: bool) -> Iterator[Any]:
    """All that statistics depend on."""
    yield "calibration"
    yield every
    for node in module.graph.nodes:
        yield node.op, node.name, _function(node.target), str(node.args), str(node.kwargs)
        if node.op == "get_attr":
            yield attribute(module, str(node.target))
    for sample in samples:
        for name in sorted(sample):
            yield name
            yield sample[name]


def _function(target: Any) -> str:
    """A name that is the same in every run."""
    return target if isinstance(target, str) else str(getattr(target, "__qualname__", target))
