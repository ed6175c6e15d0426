# SPDX-License-Identifier: Apache-2.0
"""What a FIFO costs, by where it is kept (``storage_of``)."""

from __future__ import annotations

from torch2fpga import costs
from torch2fpga.design import Design, Estimate, Stream, ceil_div
from torch2fpga.plan.fifo import storage_of


def fifo_cost(depth: int, token_bytes: int) -> Estimate:
    """LUTs of the shift registers, or memory blocks, of one FIFO of ``depth`` tokens.

    Its pointers are left out: some 20 LUTs (docs/resources.md).
    """
    width = token_bytes * 8
    kind = storage_of(depth, token_bytes)
    if kind == "srl":
        return Estimate(lut=width * ceil_div(depth, costs.SRL))
    return costs.uram(depth, width) if kind == "uram" else costs.bram(depth, width)


def whole_tensor(design: Design, stream: Stream) -> int:
    """Tokens of everything that passes a stream in one use of it at the compiled maximum: the
    depth that a tool takes which does not size FIFOs (``words`` and ``ids`` streams, which carry
    no tensor of the model, keep theirs)."""
    s = design.shape
    if stream.kind in ("words", "ids"):
        return stream.depth
    if stream.kind == "mask":
        return s.max_batch * ceil_div(s.max_seq, s.lanes)
    rows = s.max_batch * (1 if stream.one_row else s.max_seq)
    return max(stream.depth, rows * stream.tokens_per_row(s))
