# SPDX-License-Identifier: Apache-2.0
"""What a FIFO costs, by where it is kept (``storage_of``)."""

from __future__ import annotations

from torch2fpga.design import Design, Estimate, Stream, ceil_div
from torch2fpga.plan.fifo import storage_of

#: (width, depth) of a RAMB18 as simple dual port (UG573): the cheapest shape counts
BRAM18_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
#: a URAM288 has one shape (UG974)
URAM_SHAPE = (72, 4096)
#: bits that one LUT keeps as a shift register (SRL32)
SRL = 32


def fifo_cost(depth: int, token_bytes: int) -> Estimate:
    """LUTs of the shift registers, or memory blocks, of one FIFO of ``depth`` tokens."""
    width = token_bytes * 8
    kind = storage_of(depth, token_bytes)
    if kind == "srl":
        return Estimate(lut=width * ceil_div(depth, SRL))
    if kind == "uram":
        return Estimate(uram=ceil_div(width, URAM_SHAPE[0]) * ceil_div(depth, URAM_SHAPE[1]))
    return Estimate(bram18=min(ceil_div(width, w) * ceil_div(depth, d) for w, d in BRAM18_SHAPES))


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
