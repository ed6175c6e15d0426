# SPDX-License-Identifier: Apache-2.0
"""Weight-only int8 and int4 for the GPU baseline, in plain PyTorch.

int8: symmetric, one scale an output channel. int4: groups along the input, each with a scale and a zero, in
the form of torch's int4 kernels: weight = (q - 8) * scale + zero, q in 0..15. Activations keep their type.
Where torch has no kernel for the device, weights are widened inside the matrix product, which torch.compile
makes one kernel of (as gpt-fast does, github.com/pytorch-labs/gpt-fast); ``Quantised.note`` says which ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: inputs that share a scale, largest first
GROUPS = (128, 64, 32)
#: outputs are padded to this many, which every kernel takes
OUTPUTS = 16
#: largest difference of torch's int4 kernel from widened weights, as a share of the largest output; a bf16
#: product of 256 terms stays below 2 %, a wrong order of nibbles is beyond 50 %
PROBE = 0.05
aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Quantised:
    """What became of a model.

    Attributes:
        layers: matrices that hold integers now.
        kept: names of those that do not, because no group divides their inputs.
        note: which kernel runs, and why not another.
    """

    layers: int
    kept: tuple[str, ...]
    note: str


class Int8Linear(nn.Module):
    """A linear layer with int8 weights.

    Args:
        weight: (out, in), in the type of the activations.
        bias: (out,) or None.
        kernel: "packed" (torch._weight_int8pack_mm) or "widened".
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: str) -> None:
        super().__init__()
        scale = weight.float().abs().amax(1).clamp(min=1e-8) / 127
        rounded = (weight.float() / scale[:, None]).round().clamp(-127, 127)
        self.kernel = kernel
        self.register_buffer("weight", rounded.to(torch.int8))
        self.register_buffer("scale", scale.to(weight.dtype))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        weight, scale, bias = self.get_buffer("weight"), self.get_buffer("scale"), self._buffers["bias"]
        if self.kernel == "packed":
            rows = x.reshape(-1, x.shape[-1])
            y = torch._weight_int8pack_mm(rows, weight, scale).view(*x.shape[:-1], -1)
        else:
            y = functional.linear(x, weight.to(x.dtype)) * scale
        return y if bias is None else y + bias


class Int4Linear(nn.Module):
    """A linear layer with int4 weights in groups; arguments as above.

    Args:
        kernel: "tinygemm" (aten._weight_int4pack_mm, CUDA), "cpu" (its sibling for the CPU) or "widened".
        group: inputs that share a scale; divides half of the inputs.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: str, group: int) -> None:
        super().__init__()
        self.kernel, self.group, self.outputs = kernel, group, weight.shape[0]
        spare = -weight.shape[0] % OUTPUTS
        q, scale, zero = int4_groups(functional.pad(weight, (0, 0, 0, spare)), group)
        self.register_buffer("bias", bias)
        if kernel == "widened":
            half = q.shape[1] // 2
            self.register_buffer("weight", q[:, :half] | q[:, half:] << 4)  # a byte: column k and k + half
            self.register_buffer("scale", scale)
            self.register_buffer("zero", zero)
            return
        self.register_buffer("scale", torch.stack((scale.T, zero.T), dim=2).contiguous())
        if kernel == "cpu":
            packed = aten._convert_weight_to_int4pack_for_cpu(q.to(torch.int32), 2)
        else:
            packed = aten._convert_weight_to_int4pack(q[:, ::2] << 4 | q[:, 1::2], 2)
        self.register_buffer("weight", packed)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        weight, scale, bias = self.get_buffer("weight"), self.get_buffer("scale"), self._buffers["bias"]
        rows = x.reshape(-1, x.shape[-1])
        if self.kernel == "tinygemm":
            y = aten._weight_int4pack_mm(rows, weight, self.group, scale)
        elif self.kernel == "cpu":
            y = aten._weight_int4pack_mm_for_cpu(rows, weight, self.group, scale)
        else:
            half, groups = weight.shape[1], weight.shape[1] // self.group
            zero = self.get_buffer("zero")
            low = _widened(weight & 15, scale[:, :groups], zero[:, :groups], x.dtype)
            high = _widened(weight >> 4, scale[:, groups:], zero[:, groups:], x.dtype)
            y = functional.linear(rows[:, :half], low) + functional.linear(rows[:, half:], high)
        y = y[:, : self.outputs].view(*x.shape[:-1], -1)
        return y if bias is None else y + bias


def int4_groups(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(q, scale, zero) of a (out, in) matrix: uint8 (out, in) in 0..15, and twice (out, in / group)."""
    grouped = weight.float().unflatten(1, (-1, group))
    low, high = grouped.amin(2), grouped.amax(2)
    scale = ((high - low) / 15).clamp(min=1e-6)
    q = ((grouped - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.uint8)
    return q.flatten(1), scale.to(weight.dtype), (low + 8 * scale).to(weight.dtype)


def _widened(q: Tensor, scale: Tensor, zero: Tensor, dtype: torch.dtype) -> Tensor:
    grouped = q.unflatten(1, (scale.shape[1], -1)).to(dtype) - 8
    return (grouped * scale[..., None] + zero[..., None]).flatten(1)


def kernel_for(bits: int, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """(kernel, what a reader should know of the choice).

    torch's int4 kernel is tried on a small matrix first: it takes only some GPUs and types.
    """
    if bits == 8:
        if device.type == "cpu":
            return "packed", "torch._weight_int8pack_mm"
        return "widened", "int8 weights widened inside the product by torch.compile"
    fitting = "cpu" if device.type == "cpu" else "tinygemm"
    operator = "aten._weight_int4pack_mm" + ("_for_cpu" if fitting == "cpu" else "")
    widened = "int4 weights widened inside the product by torch.compile"
    drawn = torch.randn(32, 256, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    try:
        got = Int4Linear(drawn, None, fitting, 64)(drawn).float()
    except (RuntimeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return "widened", f"{widened}; {operator} not run: {reason}"
    want = Int4Linear(drawn, None, "widened", 64)(drawn).float()
    wrong = float((got - want).abs().max() / want.abs().max())
    if not wrong < PROBE:
        return "widened", f"{widened}; {operator} not run: off by {wrong:.0%} on a test matrix"
    return fitting, operator


def quantise_weights(model: nn.Module, bits: int, dtype: torch.dtype) -> Quantised:
    """Replace all linear layers (and GPT-2's Conv1D) in place, the head too; embedding tables stay.

    Args:
        bits: 8 or 4.
        dtype: type of the activations.
    """
    from transformers.pytorch_utils import Conv1D

    device = next(model.parameters()).device
    kernel, note = kernel_for(bits, device, dtype)
    layers, kept = 0, []
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        weight = module.weight.detach()
        weight = weight.T.contiguous() if isinstance(module, Conv1D) else weight
        bias = None if module.bias is None else module.bias.detach()
        new: nn.Module
        if bits == 8:
            new = Int8Linear(weight, bias, kernel)
        else:
            group = next((g for g in GROUPS if weight.shape[1] % (2 * g) == 0), None)
            if group is None:
                kept.append(name)
                continue
            new = Int4Linear(weight, bias, kernel, group)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, new)
        layers += 1
    if kept:
        note += f"; {len(kept)} matrices stay as they are, no group of {GROUPS} divides half of their inputs"
    return Quantised(layers, tuple(kept), note)
