# SPDX-License-Identifier: Apache-2.0
"""What single choices of the number formats are worth on MiniLM: the zero point behind GELU, and
the bound for channels that calibration saw only near zero.

    python -m benchmarks.ablation --json benchmarks/results/ablation.json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from examples import minilm
from torch2fpga.hub import LoadedModel
from torch2fpga.lower import activation
from torch2fpga.passes import quantise

ZERO_POINTS = (0, 48, 64, 80, 88, 96)
#: a bound so low that it never acts
NO_BOUND = 1e12
#: every how many-th evaluation sentence is judged
EVERY = 3


def cosines(loaded: LoadedModel, rows: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sentence embeddings', pooler output's) cosine to float of each row, by the reference."""
    import torch2fpga

    calibration = loaded.encode(minilm.sentences("calibration"))
    compiled = torch2fpga.compile(loaded.model, loaded.example, calibration=calibration)
    near, pooled = [], []
    with torch.no_grad():
        for row in rows:
            exact, got, mask = loaded.model(**row), compiled.reference(**row), row["attention_mask"]
            near.append((minilm.embed(exact, mask) * minilm.embed(got, mask)).sum(1))
            pooled.append(torch.cosine_similarity(exact.pooler_output, got.pooler_output))
    return torch.cat(near), torch.cat(pooled)


def main() -> int:
    """Run every variant."""
    arguments = common.arguments(__doc__).parse_args()
    console, results = Console(), Results("ablation")
    with common.one_core():
        loaded = minilm.load()
        rows = loaded.encode(minilm.sentences("evaluation"))[::EVERY]
        for point in ZERO_POINTS:
            with mock.patch.dict(activation.ZERO_POINTS, gelu=point):
                near, _ = cosines(loaded, rows)
            note = f"worst {float(near.min()):.4f}; {len(rows)} unseen sentences"
            results.add(f"zero_{point}", f"zero point {point}: mean cosine", float(near.mean()), note=note)
        for key, title, bound in (("dead_none", "no bound", NO_BOUND), ("dead_256", "bound 1/256", 256)):
            with mock.patch.object(quantise, "DEAD_CHANNEL", bound):
                near, pooled = cosines(loaded, rows)
            note = f"worst {float(pooled.min()):.4f}; sentence embeddings {float(near.mean()):.4f}"
            name = f"dead channels, {title}: mean cosine of the pooler"
            results.add(key, name, float(pooled.mean()), note=note)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
