# SPDX-License-Identifier: Apache-2.0
"""torch2fpga: unmodified PyTorch and Hugging Face models to dataflow accelerators on AMD Alveo.

>>> compiled = torch2fpga.compile(model, example_inputs)        # doctest: +SKIP
>>> compiled(*inputs)             # runs the emitted C++, bit for bit as the card would
>>> compiled.write("project")     # the Vitis project
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch2fpga.errors import (
    CaptureError,
    CompileError,
    DesignError,
    Error,
    InputError,
    MissingTool,
    Refusal,
    SimulationError,
    UnsupportedModel,
    WeightsError,
)
from torch2fpga.version import __version__

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.compiler import Explanation, compile, explain
    from torch2fpga.persist import load
    from torch2fpga.plan.estimate import estimate
    from torch2fpga.plan.model_estimate import ModelEstimate
    from torch2fpga.plan.outline import outline
    from torch2fpga.plan.summary import PlanReport
    from torch2fpga.weights.pack import pack
    from torch2fpga.weights.unpacked import emit_outline

#: public names that need torch: imported when first used
_LAZY = {
    "compile": "torch2fpga.compiler",
    "explain": "torch2fpga.compiler",
    "Explanation": "torch2fpga.compiler",
    "CompiledModel": "torch2fpga.compiled",
    "load": "torch2fpga.persist",
    "estimate": "torch2fpga.plan.estimate",
    "ModelEstimate": "torch2fpga.plan.model_estimate",
    "outline": "torch2fpga.plan.outline",
    "PlanReport": "torch2fpga.plan.summary",
    "emit_outline": "torch2fpga.weights.unpacked",
    "pack": "torch2fpga.weights.pack",
}

__all__ = [
    "CaptureError",
    "CompileError",
    "CompiledModel",
    "DesignError",
    "Error",
    "Explanation",
    "InputError",
    "MissingTool",
    "ModelEstimate",
    "PlanReport",
    "Refusal",
    "SimulationError",
    "UnsupportedModel",
    "WeightsError",
    "__version__",
    "compile",
    "emit_outline",
    "estimate",
    "explain",
    "load",
    "outline",
    "pack",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'torch2fpga' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
