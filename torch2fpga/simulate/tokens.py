# SPDX-License-Identifier: Apache-2.0
"""Logical tensors <-> token order on streams and in memory.

Row streams: for sequence, for tile of rows, for channel block, for row in the tile, ``lanes``
channels. Score streams: for sequence, for query tile, for head, for key block, for row in the
tile, ``lanes`` keys.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import Layout, Shape, Stream, ceil_div
from torch2fpga.lower.linear import pad_channels

Array = NDArray[np.generic]
DTYPES = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "int32": np.int32}


def rows_to_tokens(value: Tensor, layout: Layout, element: str, shape: Shape) -> Array:
    """(batch, seq, channels) integers as a flat array in token order."""
    batch, seq, _ = value.shape
    lanes, tile = shape.lanes, shape.tile
    padded = pad_channels(value, layout, lanes, 2).numpy().astype(DTYPES[element])
    blocks = padded.shape[2] // lanes
    rows = padded.reshape(batch, seq, blocks, lanes)
    whole = seq // tile * tile
    full = rows[:, :whole].reshape(batch, whole // tile, tile, blocks, lanes).transpose(0, 1, 3, 2, 4)
    rest = rows[:, whole:].transpose(0, 2, 1, 3)
    parts = [full.reshape(batch, -1), rest.reshape(batch, -1)]
    return np.concatenate(parts, axis=1).reshape(-1)


def tokens_to_rows(tokens: Array, layout: Layout, batch: int, seq: int, shape: Shape) -> Tensor:
    """The inverse of ``rows_to_tokens`` (padding channels dropped), int32."""
    lanes, tile, blocks = shape.lanes, shape.tile, layout.blocks(shape.lanes)
    data = tokens.reshape(batch, -1)
    whole = seq // tile * tile
    cut = whole * blocks * lanes
    full = data[:, :cut].reshape(batch, whole // tile, blocks, tile, lanes).transpose(0, 1, 3, 2, 4)
    rest = data[:, cut:].reshape(batch, blocks, seq - whole, lanes).transpose(0, 2, 1, 3)
    parts = [full.reshape(batch, whole, blocks * lanes), rest.reshape(batch, seq - whole, blocks * lanes)]
    rows = np.concatenate(parts, axis=1)
    grouped = rows.reshape(batch, seq, layout.groups, layout.group_blocks(lanes) * lanes)
    used = np.ascontiguousarray(grouped[..., : layout.size]).reshape(batch, seq, layout.channels)
    return torch.from_numpy(used.astype(np.int32))


def scores_to_tokens(value: Tensor, element: str, shape: Shape) -> Array:
    """(batch, heads, query, key) integers as a flat array in token order; padding keys are 0."""
    batch, heads, seq, keys = value.shape
    lanes, tile = shape.lanes, shape.tile
    blocks = ceil_div(keys, lanes)
    padded = np.zeros((batch, heads, seq, blocks * lanes), dtype=DTYPES[element])
    padded[..., :keys] = value.numpy()
    data = padded.reshape(batch, heads, seq, blocks, lanes)
    parts = []
    for first in range(0, seq, tile):
        part = data[:, :, first : first + tile].transpose(0, 1, 3, 2, 4)
        parts.append(part.reshape(batch, -1))
    return np.concatenate(parts, axis=1).reshape(-1)


def mask_to_tokens(mask: Tensor, shape: Shape) -> Array:
    """(batch, seq) flags as bytes, every sequence filled up to whole tokens."""
    batch, seq = mask.shape
    padded = np.zeros((batch, ceil_div(seq, shape.lanes) * shape.lanes), dtype=np.int8)
    padded[:, :seq] = (mask != 0).numpy()
    return padded.reshape(-1)


def stream_tokens(value: Tensor, stream: Stream, shape: Shape) -> Array:
    """A logical tensor in the token order of a stream."""
    if stream.kind == "rows":
        return rows_to_tokens(value, stream.layout, stream.element, shape)
    if stream.kind == "scores":
        return scores_to_tokens(value, stream.element, shape)
    if stream.kind == "mask":
        return mask_to_tokens(value, shape)
    if stream.kind == "exponents":
        return value.reshape(-1).numpy().astype(np.int8)
    raise ValueError(f"stream {stream.name} carries {stream.kind}, not values")
