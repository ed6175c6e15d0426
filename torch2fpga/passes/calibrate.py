# SPDX-License-Identifier: Apache-2.0
"""Run the canonical graph in float on calibration inputs and keep what quantisation needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from torch2fpga.errors import CompileError, DesignError
from torch2fpga.passes.manager import GraphPass
from torch2fpga.passes.nodes import Node
from torch2fpga.weights.store import scratch

#: rows of each node that are kept to search smoothing exponents on
SAMPLE_ROWS = 384
#: rows kept where rounding of weights looks at them too
MANY_ROWS = 2048


@dataclass
class Statistics:
    """What calibration saw of one node.

    Attributes:
        largest: (channels,) largest magnitude.
        rows: up to ``SAMPLE_ROWS`` or ``MANY_ROWS`` rows, (rows, channels).
    """

    largest: Tensor
    rows: list[Tensor] = field(default_factory=list)

    def sample(self, most: int | None = None) -> Tensor:
        """The kept rows as one matrix; only every so many-th, if there are more than ``most``."""
        rows = torch.cat(self.rows)
        return rows if most is None else rows[:: max(1, -(-rows.shape[0] // most))]


class _Recorder(fx.Interpreter):
    """Records every (batch, seq, channels) result; rows of padding are left out."""

    def __init__(self, module: fx.GraphModule, stats: dict[str, Statistics], sampled: set[str]) -> None:
        super().__init__(module)
        self.stats = stats
        self.sampled = sampled
        self.valid: Tensor | None = None
        self.budget = SAMPLE_ROWS

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        data = n.op in ("call_function", "placeholder") and isinstance(result, Tensor)
        if data and result.dim() == 3 and result.is_floating_point():
            self._record(n.name, result)
        return result

    def _record(self, name: str, value: Tensor) -> None:
        rows = value.reshape(-1, value.shape[-1])
        if self.valid is not None and self.valid.numel() == rows.shape[0]:
            rows = rows[self.valid.reshape(-1)]
        largest = rows.abs().amax(0)
        seen = self.stats.get(name)
        if seen is None:
            self.stats[name] = seen = Statistics(largest)
        else:
            seen.largest = torch.maximum(seen.largest, largest)
        if name in self.sampled:
            step = max(1, -(-rows.shape[0] // self.budget))
            seen.rows.append(scratch(rows[::step].clone()))


class Calibrate(GraphPass):
    """Leaves the statistics of every value in ``module.meta["statistics"]``.

    Args:
        samples: inputs by placeholder name, canonical shapes.
        progress: called with the number of samples done.
        every: keep rows of the inputs of all linear layers, and more of them.
    """

    name = "calibrate"
    requires = ("rolled",)
    ensures = ("calibrated",)

    def __init__(
        self,
        samples: Sequence[Mapping[str, Tensor]],
        progress: Callable[[int], None] | None = None,
        every: bool = False,
    ) -> None:
        self.samples = samples
        self.every = every
        self.progress = progress

    def call(self, module: fx.GraphModule) -> bool:
        from torch2fpga.passes.quantise import sampled_nodes

        module.meta["statistics"] = run_calibration(
            module,
            self.samples,
            len(self.samples),
            sampled_nodes(module, self.every),
            self.progress,
            MANY_ROWS if self.every else SAMPLE_ROWS,
        )
        return False

    def verify(self, module: fx.GraphModule) -> None:
        """Every value was seen, and none was infinite."""
        stats = module.meta["statistics"]
        for node in module.graph.nodes:
            if node.op == "call_function" and node.name not in stats:
                raise DesignError(f"calibrate saw no value of {node.name}")
        bad = [name for name, s in stats.items() if not bool(torch.isfinite(s.largest).all())]
        if bad:
            raise CompileError(f"the float model gives values that are not finite: {bad[:5]}")


def masks_of(module: fx.GraphModule) -> list[str]:
    """Inputs that say which tokens are real."""
    from torch2fpga.lower.attention import attention

    uses = [n for n in module.graph.nodes if n.target is attention and n.args[3] is not None]
    return sorted({str(n.args[3].target) for n in uses})


def run_calibration(
    module: fx.GraphModule,
    samples: Iterable[Mapping[str, Tensor]],
    count: int,
    sampled: set[str],
    progress: Callable[[int], None] | None = None,
    most: int = SAMPLE_ROWS,
) -> dict[str, Statistics]:
    """Float statistics of every node.

    Args:
        module: canonical module.
        samples: inputs by placeholder name, canonical shapes.
        count: how many samples there are (spreads the row budget).
        sampled: names of nodes whose rows are kept.
        most: rows that are kept of each.
    """
    stats: dict[str, Statistics] = {}
    masks = masks_of(module)
    names = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    with torch.no_grad():
        for i, sample in enumerate(samples):
            recorder = _Recorder(module, stats, sampled)
            recorder.budget = max(1, most // max(count, 1))
            recorder.valid = sample[masks[0]] != 0 if masks else None
            recorder.run(*[sample[name] for name in names])
            if progress is not None:
                progress(i + 1)
    return stats
