# SPDX-License-Identifier: Apache-2.0
"""torch's own ``nn.TransformerEncoder``: two layers whose hardware is emitted once.

Try ``torch2fpga compile examples.encoder:factory``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def factory() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model with random weights (the same every time), and example inputs."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        d_model=48, nhead=3, dim_feedforward=80, dropout=0.0, activation="gelu", batch_first=True
    )
    # nested tensors are a fast path for padding that this model does not use
    encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    return encoder.eval(), (torch.randn(2, 20, 48),)
