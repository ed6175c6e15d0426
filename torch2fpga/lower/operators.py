# SPDX-License-Identifier: Apache-2.0
"""Importing this module registers every operator."""

from torch2fpga.lower import (  # noqa: F401
    activation,
    add,
    attention,
    embedding,
    layer_norm,
    linear,
    linear4,
    multiply,
    rms_norm,
    rotary,
    rows,
    scale,
    views,
)
