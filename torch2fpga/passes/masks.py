# SPDX-License-Identifier: Apache-2.0
"""Attention masks are recognised by what they hold, not by how the model computes them.

A mask may be a constant (all true, or lower triangular), or computed from one integer input
(batch, seq) of ones and zeros. In the second case the part of the graph that computes it is run
on a few masks, and must give ``key is real and allowed(query, key)`` on each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch2fpga.passes.nodes import Node
from torch2fpga.passes.values import Const, HostValue, Refused, RowValue


@dataclass(frozen=True)
class Mask:
    """What a mask means.

    Attributes:
        input: one flag a key, or None.
        causal: no key behind the query.
        window: a causal query sees this many keys, itself included; 0 is all of them.
    """

    input: Node | None
    causal: bool
    window: int = 0


def _as_bool(value: Tensor) -> Tensor:
    """Boolean form of a boolean or additive mask."""
    if value.dtype == torch.bool:
        return value
    allowed = value == 0
    blocked = value <= -1e4
    if not bool((allowed | blocked).all()):
        raise Refused("an additive mask with values other than 0 and very negative ones (a position bias)")
    return allowed


def band(seq: int, causal: bool, window: int) -> Tensor:
    """(query, key) pairs that a mask allows."""
    allowed = torch.ones(seq, seq, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    return allowed.triu(1 - window) if window else allowed


def _pattern(value: Tensor, seq: int) -> tuple[bool, int]:
    """(causal, window) of a mask without padding; (False, 0) where all is allowed."""
    flat = _as_bool(value)
    while flat.dim() > 2:
        if not bool((flat == flat[:1]).all()):
            raise Refused("a mask that differs between sequences or heads")
        flat = flat[0]
    if bool(flat.all()):
        return False, 0
    if flat.shape == (seq, seq):
        window = int(flat[-1].sum())
        for found in (0, window):
            if torch.equal(flat, band(seq, True, found)):
                return True, found
    raise Refused(
        "a mask that is neither padding nor causal (nor a causal sliding window)",
        "windows to both sides and biases come later",
    )


def _probes(batch: int, seq: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = [torch.ones(batch, seq, dtype=torch.int64)]
    for _ in range(3):
        mask = (torch.rand(batch, seq, generator=generator) < 0.6).to(torch.int64)
        mask[:, 0] = 1
        masks.append(mask)
    return masks


def classify_mask(ctx: Any, mask: Any, query: RowValue) -> Mask:
    """What ``mask`` (None, a constant or a computed tensor) means for attention over ``query``.

    Raises:
        Refused: if it is not padding, causal (perhaps with a sliding window) or both.
    """
    batch, seq = query.batch.size, query.seq.size
    if mask is None:
        return Mask(None, False)
    if isinstance(mask, Const):
        return Mask(None, *_pattern(mask.value, seq))
    if not isinstance(mask, HostValue):
        raise Refused("an attention mask that is computed from the model's data")
    inputs = ctx.host_inputs(mask.node)
    if len(inputs) != 1 or tuple(inputs[0].meta["val"].shape) != (batch, seq):
        raise Refused(f"an attention mask that is not computed from one (batch, seq) input: {inputs}")
    key = (mask.node, inputs[0])
    if key in ctx.mask_cache:
        return ctx.mask_cache[key]
    dtype = inputs[0].meta["val"].dtype
    causal, window = _pattern(ctx.evaluate(mask.node, {inputs[0]: torch.ones(batch, seq).to(dtype)}), seq)
    allowed = band(seq, causal, window)
    for probe in _probes(batch, seq):
        value = _as_bool(ctx.evaluate(mask.node, {inputs[0]: probe.to(dtype)}))
        expected = (probe != 0)[:, None, None, :] & allowed
        if not torch.equal(value.expand(batch, 1, seq, seq), expected):
            raise Refused("a computed mask that is not padding of keys (and causal)")
    found = Mask(ctx.input(inputs[0]), causal, window)
    ctx.mask_cache[key] = found
    return found
