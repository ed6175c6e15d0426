# SPDX-License-Identifier: Apache-2.0
"""What ``make demo`` runs: the real all-MiniLM-L6-v2, from its weights to sentences through emitted C++.

python -m examples.demo
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from torch import Tensor

import torch2fpga
from examples import minilm
from torch2fpga.cli import NOT_PROVEN, phases
from torch2fpga.hub import LoadedModel

PROJECT = Path("build/demo/project")
REPORT = Path("build/demo/report.html")
#: sentences a launch
BATCH = 4
SENTENCES = (
    "The cat sleeps on the warm roof of the car.",
    "A kitten is napping on top of a vehicle.",
    "Interest rates will rise again next month.",
    "The central bank is about to make borrowing more expensive.",
    "How do I bake bread without an oven?",
    "You can make a loaf in a covered pan over low heat.",
    "The telescope found water in the atmosphere of a distant planet.",
    "Astronomers detected steam around a far-away world.",
)


def padded_batches(loaded: LoadedModel) -> list[dict[str, Tensor]]:
    """The sentences in batches, padded to the longest of each, with masks."""
    batches = []
    for start in range(0, len(SENTENCES), BATCH):
        texts = list(SENTENCES[start : start + BATCH])
        fields = loaded.tokenizer(texts, return_tensors="pt", padding=True)
        batches.append({name: fields[name] for name in ("input_ids", "attention_mask")})
    return batches


def compile_model(loaded: LoadedModel, console: Console) -> Any:
    """Compile, then build the C++ with g++ (kept for the next time)."""
    calibration = loaded.encode(minilm.sentences("calibration"))
    with phases(console) as progress:
        compiled = torch2fpga.compile(
            loaded.model, loaded.example, board="u280", calibration=calibration, progress=progress
        )
    with console.status("g++ builds the emitted C++ (once)"):
        _ = compiled.functional
    return compiled


def run(compiled: Any, loaded: LoadedModel, console: Console) -> tuple[Tensor, Tensor, list[Any]]:
    """(float embeddings, embeddings from the emitted C++, verification of each batch)."""
    exact, emitted, reports = [], [], []
    with phases(console) as progress:
        batches = padded_batches(loaded)
        for number, batch in enumerate(batches):
            progress("sentences run through the emitted C++", number / len(batches))
            with torch.no_grad():
                exact.append(minilm.embed(loaded.model(**batch), batch["attention_mask"]))
            emitted.append(minilm.embed(compiled(**batch), batch["attention_mask"]))
            reports.append(compiled.verify(**batch))
    return torch.cat(exact), torch.cat(emitted), reports


def neighbours(embeddings: Tensor) -> Table:
    """Pairs of sentences that are each other's nearest, by the embeddings of the emitted C++."""
    similarity = embeddings @ embeddings.t() - 2 * torch.eye(len(embeddings))
    nearest = similarity.argmax(1).tolist()
    table = Table(title="nearest pairs, from the emitted C++", title_justify="left")
    for name in ("sentence", "nearest"):
        table.add_column(name, ratio=1)
    table.add_column("cosine", justify="right")
    for first, second in enumerate(nearest):
        if first > second and nearest[second] == first:
            continue  # said already
        cosine = f"{float(similarity[first, second]):.3f}"
        table.add_row(escape(SENTENCES[first]), escape(SENTENCES[second]), cosine)
    return table


def summary(compiled: Any, exact: Tensor, emitted: Tensor, reports: Sequence[Any], files: int) -> Panel:
    """What a reader takes away."""
    design = compiled.design
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("model", f"{minilm.NAME}, unmodified, up to {BATCH} x {minilm.TOKENS} tokens")
    table.add_row("card", compiled.board.name)
    table.add_row(
        "stages",
        f"{len(design.stages)} in {len(design.kernels)} kernels; "
        f"{design.steps} layers share one block of hardware, the layer loop runs on the device",
    )
    table.add_row("precision", "int8 weights (per channel) and activations, integer arithmetic throughout")
    compared = sum(stage.compared for report in reports for stage in report.stages)
    wrong = sum(stage.mismatches for report in reports for stage in report.stages)
    same = all(report.bit_exact for report in reports)
    table.add_row(
        "exactness",
        f"[green]bit-exact[/]: all {compared:,} values of all stages equal the PyTorch reference"
        if same
        else f"[red]NOT bit-exact[/]: {wrong:,} of {compared:,} values differ",
    )
    cosines = (exact * emitted).sum(1)
    table.add_row(
        "accuracy",
        f"cosine to the float model: mean {float(cosines.mean()):.4f}, worst {float(cosines.min()):.4f} "
        f"(these {len(cosines)} sentences; benchmarks/ judges many more)",
    )
    table.add_row("project", f"{PROJECT} ({files} files; start with its README.md)")
    table.add_row("report", str(REPORT))
    table.add_row("not proven", NOT_PROVEN)
    return Panel(table, title="torch2fpga", title_align="left")


def main() -> int:
    """Run the demo; the exit status is 1 if a single value is not exact."""
    console = Console()
    with console.status("loading the model"):
        loaded = minilm.load(batch=BATCH)
    compiled = compile_model(loaded, console)
    exact, emitted, reports = run(compiled, loaded, console)
    with console.status("writing project and report"):
        files = compiled.write(PROJECT)
        compiled.report(REPORT, reports[0])
    console.print(neighbours(emitted))
    console.print(summary(compiled, exact, emitted, reports, len(files)))
    return 0 if all(report.bit_exact for report in reports) else 1


if __name__ == "__main__":
    raise SystemExit(main())
