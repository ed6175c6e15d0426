# SPDX-License-Identifier: Apache-2.0
"""A plain perceptron with sizes that are no multiples of anything.

Try ``torch2fpga compile examples.mlp:factory``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Three linears with ReLU and tanh in between; 16 digits of 7 x 9 pixels at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(63, 100),
            nn.ReLU(),
            nn.Linear(100, 37),
            nn.Tanh(),
            nn.Linear(37, 10),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(images, 63) brightness -> (images, 10) scores."""
        scores: Tensor = self.layers(pixels)
        return scores


def factory() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model with random weights (the same every time), and example inputs."""
    torch.manual_seed(0)
    return Perceptron().eval(), (torch.randn(16, 63),)
