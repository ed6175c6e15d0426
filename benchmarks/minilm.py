# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2 with its real weights: exactness, accuracy, speed, size.

    python -m benchmarks.minilm --json benchmarks/results/minilm.json

Compiled at 256 tokens, calibrated on the committed calibration sentences, judged on others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from torch import Tensor

import torch2fpga
from benchmarks import common
from benchmarks.common import Results
from examples import minilm
from torch2fpga.emit.project import project_files
from torch2fpga.hub import LoadedModel
from torch2fpga.simulate.functional import functional_sources

#: sequences a launch of the compiled model
BATCH = 4
#: exactness is checked on this many sentences and on the edge cases of ``edge_cases``
EXACT = 72
Inputs = dict[str, Tensor]


def compile_model(loaded: LoadedModel, results: Results) -> Any:
    """compile(), g++ and the project's text, each timed or counted."""
    calibration = loaded.encode(minilm.sentences("calibration"))
    cpu = time.process_time()
    took, compiled = common.seconds(
        lambda: torch2fpga.compile(loaded.model, loaded.example, calibration=calibration)
    )
    cpu = time.process_time() - cpu
    note = (
        f"{len(calibration)} calibration sentences, {minilm.TOKENS} tokens, without g++; "
        f"{cpu:.0f} s of processor time"
    )
    results.add("compile_s", "compile()", took, "s", ("<=", 15.0), note=note)
    with common.fresh_build_cache():
        took, _ = common.seconds(lambda: compiled.functional)
    results.add("gxx_s", "g++ of the functional run", took, "s", ("<=", 60.0), note="empty cache")
    size = sum(len(text.encode()) for text in project_files(compiled).values()) / 1000
    results.add("text_kb", "project text without weights", size, "kB", ("<=", 1000.0))
    kernels = sum(map(len, functional_sources(compiled.design).values())) / 1000
    results.add("kernels_kb", "of which kernels", kernels, "kB", note="without the stage library")
    return compiled


def padded(rows: Sequence[Inputs]) -> Inputs:
    """One batch of several inputs, padded on the right with a mask."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    fill = torch.nn.functional.pad
    return {
        name: torch.cat([fill(row[name], (0, longest - row[name].shape[1])) for row in rows])
        for name in rows[0]
    }


def spread(rows: Sequence[Inputs], count: int) -> list[Inputs]:
    """``count`` inputs over all lengths, the longest among them."""
    ordered = sorted(rows, key=lambda row: row["input_ids"].shape[1], reverse=True)
    # the long ones, then evenly down to the shortest
    rest = ordered[8:]
    return ordered[:8] + [rest[i * (len(rest) - 1) // (count - 9)] for i in range(count - 8)]


def edge_cases(rows: Sequence[Inputs]) -> Iterator[Inputs]:
    """Lengths and masks that no tokenizer gives, but a user can."""
    one = rows[0]
    yield {name: value[:, :1] for name, value in one.items()}
    yield {name: value[:, :2] for name, value in one.items()}
    full = rows[0]["input_ids"].shape[1]
    holes = (torch.arange(full)[None] % 3 != 1).long()
    yield {"input_ids": one["input_ids"], "attention_mask": holes}
    left = (torch.arange(full)[None] >= full // 2).long()
    yield {"input_ids": one["input_ids"], "attention_mask": left}


def check_exactness(compiled: Any, rows: Sequence[Inputs], results: Results, console: Console) -> None:
    """Functional run against reference at every stage: alone, in padded batches, with odd masks."""
    chosen = spread(rows, EXACT)
    half = len(chosen) // 2
    alone, together = chosen[::2], chosen[1::2]
    batches = [padded(together[i : i + BATCH]) for i in range(0, half, BATCH)]
    cases = [*alone, *batches, *edge_cases(chosen)]
    mismatches, compared, stages = 0, 0, 0
    with common.progress_bar(console) as bar:
        for case in bar.track(cases, description="exactness"):
            report = compiled.verify(**case)
            mismatches += sum(stage.mismatches for stage in report.stages)
            mismatches += int(not report.bit_exact and mismatches == 0)
            compared += sum(stage.compared for stage in report.stages)
            stages = len(report.stages)
    lengths = [int(row["attention_mask"].sum()) for row in chosen]
    note = (
        f"{len(chosen)} sentences of {min(lengths)} to {max(lengths)} tokens, {half} of them in padded "
        f"batches of {BATCH}; 1 and 2 tokens; masks with holes and on the left; {stages} stages"
    )
    results.add("sentences", "sentences verified", len(chosen), bound=(">=", 64))
    results.add("mismatches", "values that differ from the reference", mismatches, bound=("==", 0), note=note)
    results.add("compared", "values compared", compared)


def embeddings(
    compiled: Any, loaded: LoadedModel, rows: Sequence[Inputs], console: Console
) -> tuple[Tensor, Tensor, Tensor]:
    """(float embeddings, quantised embeddings, cosines of the model's second output, its pooler).

    The quantised ones come from the emitted C++.
    """
    exact, quantised, pooled = [], [], []
    with common.progress_bar(console) as bar, torch.no_grad():
        for row in bar.track(rows, description="accuracy"):
            float_output, output = loaded.model(**row), compiled(**row)
            exact.append(minilm.embed(float_output, row["attention_mask"]))
            quantised.append(minilm.embed(output, row["attention_mask"]))
            pooled.append(torch.cosine_similarity(float_output.pooler_output, output.pooler_output))
    return torch.cat(exact).double(), torch.cat(quantised).double(), torch.cat(pooled)


def ranks(values: Tensor) -> Tensor:
    """Ranks with ties shared, as Spearman's correlation wants them."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation."""
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


def pair_similarities(unit: Tensor) -> Tensor:
    """Cosine of every pair of rows."""
    upper = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.t())[upper[0], upper[1]]


def check_accuracy(
    compiled: Any, loaded: LoadedModel, rows: Sequence[Inputs], results: Results, console: Console
) -> None:
    """Mean-pooled embeddings of unseen sentences against float."""
    exact, quantised, pooled = embeddings(compiled, loaded, rows, console)
    cosines = (exact * quantised).sum(1)
    rank = spearman(pair_similarities(exact), pair_similarities(quantised))
    lengths = [row["input_ids"].shape[1] for row in rows]
    note = f"{len(rows)} sentences of {min(lengths)} to {max(lengths)} tokens, none used to calibrate"
    worst = minilm.sentences("evaluation")[int(cosines.argmin())]
    results.add("judged", "sentences judged", len(rows), bound=(">=", 200))
    mean = float(cosines.mean())
    results.add("cosine_mean", "cosine to float, mean", mean, bound=(">=", 0.996), note=note)
    low = float(cosines.min())
    results.add("cosine_worst", "cosine to float, worst", low, bound=(">=", 0.98), note=f"on {worst[:40]!r}")
    pairs = f"{len(rows) * (len(rows) - 1) // 2:,} pairs"
    results.add("spearman", "Spearman of pair similarities", rank, bound=(">=", 0.995), note=pairs)
    full = torch.tensor([length == minilm.TOKENS for length in lengths])
    long_mean = float(cosines[full].mean())
    results.add("cosine_256", "mean over texts of 256 tokens", long_mean, note=f"{int(full.sum())} texts")
    note = f"worst {float(pooled.min()):.4f}; no sentence embedding uses it"
    results.add("pooler_mean", "pooler output: cosine to float, mean", float(pooled.mean()), note=note)


def main() -> int:
    """Run everything; the exit status is 1 if an aim was missed."""
    arguments = common.arguments(__doc__).parse_args()
    console, results = Console(), Results("minilm")
    with common.one_core():
        loaded = minilm.load(batch=BATCH)
        rows = loaded.encode(minilm.sentences("evaluation"))
        compiled = compile_model(loaded, results)
        longest = max(rows, key=lambda row: row["input_ids"].shape[1])
        common.add_rates(results, compiled, loaded.model, longest)
        check_exactness(compiled, rows, results, console)
        check_accuracy(compiled, loaded, rows, results, console)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
