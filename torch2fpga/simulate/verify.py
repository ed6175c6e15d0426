# SPDX-License-Identifier: Apache-2.0
"""Compare rungs of the ladder: functional run against reference at every stream, both with float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from torch2fpga.design import Design
from torch2fpga.passes.calibrate import masks_of
from torch2fpga.passes.nodes import Node
from torch2fpga.simulate.fixed import limits
from torch2fpga.simulate.tokens import stream_tokens

if TYPE_CHECKING:
    from torch2fpga.compiled import Origin

VALUES = ("rows", "scores", "exponents", "mask")


def recorded_streams(design: Design) -> tuple[str, ...]:
    """Streams that carry values (not memory words or ids)."""
    return tuple(name for name, s in design.streams.items() if s.kind in VALUES)


@dataclass(frozen=True)
class Accuracy:
    """One stream against float at one use."""

    cosine: float
    max_error: float


@dataclass(frozen=True)
class StageResult:
    """One stage of a verification.

    Attributes:
        name, path: stage and its module path.
        equal: every value on its outputs equals the reference.
        mismatches: values that differ.
        compared: values compared.
        cosine: lowest cosine to float over its uses (None where there is no float value).
        max_error: largest difference to float.
        steps: (cosine, max error) of each use.
        saturated: values at an end of the range that the stage clamps to (see ``saturations``).
    """

    name: str
    path: str
    equal: bool
    mismatches: int
    compared: int
    cosine: float | None
    max_error: float | None
    steps: tuple[Accuracy, ...] = ()
    saturated: int = 0

    @property
    def module_path(self) -> str:
        """The same as ``path``."""
        return self.path


@dataclass(frozen=True)
class VerifyReport:
    """Result of ``CompiledModel.verify``.

    Attributes:
        bit_exact: functional run and reference agree on every value of every stage.
        stages: one row a stage.
        cosine: cosine of the model's (first) output to float, or None without the float model.
        outputs: cosine of each output.
    """

    bit_exact: bool
    stages: tuple[StageResult, ...]
    cosine: float | None
    outputs: tuple[float, ...]

    @staticmethod
    def build(
        design: Design,
        rows: Mapping[str, tuple[int, int]],
        accuracy: Mapping[str, list[Accuracy]],
        outputs_equal: Sequence[bool],
        cosines: tuple[float, ...],
        saturated: Mapping[str, int] | None = None,
    ) -> VerifyReport:
        """Collect stream comparisons by stage."""
        stages = []
        for stage in design.stages:
            found = [rows[o] for o in stage.outputs if o in rows]
            uses = [a for o in stage.outputs for a in accuracy.get(o, [])]
            mismatches = sum(m for m, _ in found)
            stages.append(
                StageResult(
                    stage.name,
                    stage.path,
                    mismatches == 0,
                    mismatches,
                    sum(n for _, n in found),
                    min((a.cosine for a in uses), default=None),
                    max((a.max_error for a in uses), default=None),
                    tuple(uses),
                    (saturated or {}).get(stage.name, 0),
                )
            )
        good = all(s.equal for s in stages) and all(outputs_equal)
        return VerifyReport(good, tuple(stages), cosines[0] if cosines else None, cosines)

    def __str__(self) -> str:
        wrong = [s for s in self.stages if not s.equal]
        compared = sum(s.compared for s in self.stages)
        head = "bit-exact" if self.bit_exact else f"NOT bit-exact: {len(wrong)} stages differ"
        lines = [f"{head}; {compared:,} values of {len(self.stages)} stages compared"]
        if self.cosine is not None:
            lines.append("cosine to float of each output: " + ", ".join(f"{c:.6f}" for c in self.outputs))
        full = sum(s.saturated for s in self.stages)
        if full:
            lines.append(f"{full:,} values at an end of their range (saturated, or just there)")
        width = max(len(s.name) for s in self.stages)
        for s in self.stages:
            mark = "equal" if s.equal else f"{s.mismatches:,} of {s.compared:,} differ"
            near = "" if s.cosine is None else f"  cosine {s.cosine:.6f}  max error {s.max_error:.4g}"
            near += f"  {s.saturated:,} at an end" if s.saturated else ""
            lines.append(f"  {s.name:<{width}}  {mark:<8}{near}  {s.path}")
        return "\n".join(lines)


def compare_taps(
    design: Design, trace: Mapping[str, list[Tensor]], taps: Mapping[str, NDArray[np.uint8]]
) -> dict[str, tuple[int, int]]:
    """stream -> (values that differ, values compared), over all tokens of the run."""
    found: dict[str, tuple[int, int]] = {}
    for name, tap in taps.items():
        stream = design.streams[name]
        parts = [stream_tokens(v, stream, design.shape) for v in trace.get(name, [])]
        found[name] = differing(tap, np.concatenate(parts) if parts else np.zeros(0, dtype=np.int8))
    return found


def differing(tap: NDArray[np.uint8], want: NDArray[np.generic]) -> tuple[int, int]:
    """(values that differ, values compared) of a recorded stream; all differ where the counts do."""
    got = tap.view(want.dtype) if tap.size % want.dtype.itemsize == 0 else tap
    most = max(got.size, want.size)
    return (int((got != want).sum()) if got.shape == want.shape else most), most


def saturations(design: Design, trace: Mapping[str, list[Tensor]]) -> dict[str, int]:
    """stage -> values of its first output at an end of the range that it clamps to.

    Counted of stages that clamp: requantisation and sums. A value that is there without having been
    clamped counts too; a layer that lets go of a format (nobody wants it there) gives zeros.
    """
    found: dict[str, int] = {}
    for stage in design.logic or design.stages:
        bits = getattr(stage, "bits", 0)
        if not bits:
            continue
        low, high = limits(int(bits))
        values = trace.get(stage.outputs[0], [])
        found[stage.name] = sum(int(((v <= low) | (v >= high)).sum()) for v in values)
    return {name: count for name, count in found.items() if count}


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two tensors as flat vectors; 1 where both are zero."""
    x, y = a.reshape(-1).double(), b.reshape(-1).double()
    norm = float(x.norm() * y.norm())
    return float(x @ y) / norm if norm > 0 else float(bool(x.norm() == y.norm()))


def valid_rows(origin: Origin, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """(batch, seq) flags of the tokens that are real, or None where nothing is padding."""
    masks = masks_of(origin.canonical) if origin.canonical is not None else []
    return inputs[masks[0]] != 0 if masks else None


def _kept(value: Tensor, valid: Tensor | None) -> Tensor:
    """Rows that count; what a model gives for padding is nobody's business."""
    return value[valid] if valid is not None and value.shape[:2] == valid.shape else value


def output_cosines(
    real: Sequence[Tensor], exact: Sequence[Tensor], valid: Tensor | None
) -> tuple[float, ...]:
    """Cosine of each output to float, over the real rows."""
    if not exact:
        return ()
    return tuple(cosine(_kept(a, valid), _kept(b, valid)) for a, b in zip(real, exact, strict=True))


class _Keep(fx.Interpreter):
    """Keeps every node's float value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def compare_float(
    origin: Origin, inputs: Mapping[str, Tensor], trace: Mapping[str, list[Tensor]]
) -> dict[str, list[Accuracy]]:
    """stream -> accuracy against float at each use, for streams with a real meaning."""
    module = origin.canonical
    if module is None:
        return {}
    keep = _Keep(module)
    with torch.no_grad():
        keep.run(*[inputs[str(n.target)] for n in module.graph.nodes if n.op == "placeholder"])
    found: dict[str, list[Accuracy]] = {}
    valid = valid_rows(origin, inputs)
    for name, (role, nodes) in origin.native.items():
        values = trace.get(name, [])
        exponents = trace.get(origin.exponents.get(name, ""), [])
        if len(values) != len(nodes) or (role == "raw" and nodes[0].meta.get("relu")):
            continue
        for use, (node, value) in enumerate(zip(nodes, values, strict=True)):
            if role != "raw" and role not in node.meta["formats"]:
                continue  # this use is dropped: nobody wants the format
            real = _real(node, role, value, exponents[use] if exponents else None)
            want = keep.values[node].double().expand_as(real)
            real, want = _kept(real, valid), _kept(want, valid)
            error = float((real - want).abs().max())
            found.setdefault(name, []).append(Accuracy(cosine(real, want), error))
    return found


def _real(node: Node, role: str, value: Tensor, exponent: Tensor | None) -> Tensor:
    """What an integer tensor stands for."""
    number = value.double()
    if exponent is not None and role == "raw":
        number = number + node.meta["offset"]
    elif exponent is not None:
        number = number + node.meta["formats"][role].zero_point
    if exponent is not None:
        number = number * torch.exp2(exponent.double())[..., None]
    if role == "raw":
        factor, offset = node.meta["affine"]
        return number * factor + offset
    return number * node.meta["formats"][role].scale
