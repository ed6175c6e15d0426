# SPDX-License-Identifier: Apache-2.0
"""What every stream carries in a launch that goes through turns, from a reference of all rows at once.

The reference runs over the whole sequence (prompt and generated tokens), without a cache. Every row
depends on itself and on the keys in front of it only, so that a turn's rows are a part of it: where
the C++ gives the same bits, prefill and decode agree however the sequence was cut into launches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import Design, Stream
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.reference import Trace
from torch2fpga.simulate.tokens import stream_tokens
from torch2fpga.simulate.verify import differing


def launch_tokens(
    values: Sequence[Tensor], stream: Stream, design: Design, launch: Launch
) -> NDArray[np.generic]:
    """Tokens of a stream in a launch, as one flat array.

    Args:
        values: the stream's value at each use of a step, for all rows from the first on.
    """
    parts = [
        part
        for first, rows in launch.rows()
        for value in values
        for part in _turn_tokens(value, stream, design, first, rows)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int8)


def _turn_tokens(
    value: Tensor, stream: Stream, design: Design, first: int, rows: int
) -> list[NDArray[np.generic]]:
    """Those of the rows [first, first + rows)."""
    end, shape = first + rows, design.shape
    if stream.kind == "scores":
        return [stream_tokens(value[:, :, first:end, :end], stream, shape)]
    if stream.one_row:
        return [stream_tokens(value[:, end - 1 : end], stream, shape)]
    return [stream_tokens(value[:, first:end], stream, shape)]


def compare_launch(
    design: Design, trace: Trace, taps: Mapping[str, NDArray[np.uint8]], launch: Launch
) -> dict[str, tuple[int, int]]:
    """stream -> (values that differ, values compared), over all turns of a launch."""
    found: dict[str, tuple[int, int]] = {}
    for name, tap in taps.items():
        want = launch_tokens(trace.get(name, []), design.streams[name], design, launch)
        found[name] = differing(tap, want)
    return found
