# SPDX-License-Identifier: Apache-2.0
"""Projects that run on the emulated card: written once, their C++ compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import torch2fpga
from tests.card.cards import Card
from torch2fpga.compiled import CompiledModel


@pytest.fixture(scope="session")
def plain_model() -> CompiledModel:
    """A perceptron: one kernel, no streams between kernels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 20)).eval()
    samples = [(torch.randn(1, 5, 24),) for _ in range(8)]
    return torch2fpga.compile(model, (torch.randn(2, 5, 24),), calibration=samples)


@pytest.fixture(scope="session")
def plain_project(plain_model: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "project"
    plain_model.write(folder)
    return folder


@pytest.fixture(scope="session")
def generating_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers: three kernels, joined by streams; two turns a golden launch."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 36, "n_head": 3, "vocab_size": 101, "n_positions": 80}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config).eval()
    samples = [{"input_ids": torch.randint(101, (1, 20))} for _ in range(8)]
    compiled = torch2fpga.compile(
        model, {"input_ids": torch.randint(101, (1, 7))}, generate=True, max_length=30, calibration=samples
    )
    folder = tmp_path_factory.mktemp("generating") / "project"
    compiled.write(folder)
    return folder


@pytest.fixture
def plain(plain_project: Path, tmp_path: Path) -> Card:
    return Card.of(plain_project, tmp_path)


@pytest.fixture
def generating(generating_project: Path, tmp_path: Path) -> Card:
    return Card.of(generating_project, tmp_path)
