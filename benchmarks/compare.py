# SPDX-License-Identifier: Apache-2.0
"""This project's timed figures beside a GPU's and published ones, each with how it was obtained.

    python -m benchmarks.compare                                       the table
    python -m benchmarks.compare --markdown docs/gpu-baseline.md       the same between the page's marks
    python -m benchmarks.compare --markdown docs/gpu-baseline.md --check    only say whether it differs

Read are benchmarks/results/gpu_baseline.json (made on a GPU by benchmarks.gpu_baseline), planned.json,
generation.json, timed.json and minilm.json, and what others published (torch2fpga/plan/published_points.py
and PUBLISHED below). Nothing runs. An input that is not there is named, and no figure takes its place.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import OBTAINED, ROOT, format_number
from benchmarks.gpu_models import MODELS
from benchmarks.gpu_steps import WAYS
from torch2fpga.plan.published_points import BERT_LAYER, GPT2_MEDIUM, LLAMA2_7B, POINTS

RESULTS = ROOT / "benchmarks" / "results"
#: file -> what makes it
INPUTS = {
    "gpu_baseline": "on a machine with an NVIDIA GPU",
    "planned": "20 minutes",
    "generation": "15 minutes",
    "timed": "5 minutes",
    "minilm": "3 minutes",
}
#: files whose designs the optimiser has not planned as a whole
UNPLANNED = ("timed", "minilm")
#: beginning of a figure's key in these files -> model, work, tokens
OURS = {
    "bert128": ("BERT-base", "encode", 128),
    "bert512": ("BERT-base", "encode", 512),
    "bert": ("BERT-base", "encode", 128),
    "gpt2m": ("GPT-2 medium", "prefill", 128),
    "gpt2": ("GPT-2 124M", "prefill", 128),
    "minilm": ("MiniLM", "encode", 128),
    "gpt2m_w4_128": ("GPT-2 medium", "decode", 128),
    "gpt2m_w4_1024": ("GPT-2 medium", "decode", 1024),
    "gpt2m_w8_128": ("GPT-2 medium", "decode", 128),
    "llama1b_w4_1024": ("Llama-3.2-1B", "decode", 1024),
    "llama7b_w4_512": ("Llama-2-7B", "decode", 512),
}
SHAPES = {GPT2_MEDIUM: "GPT-2 medium", BERT_LAYER: "BERT-base, one layer", LLAMA2_7B: "Llama-2-7B"}
REGION = re.compile(r"(<!-- compare -->\n).*?(<!-- /compare -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A latency at batch 1.

    Attributes:
        model, work: what ran; work is "encode", "prefill" or "decode" (one token).
        tokens: of the sequence or prompt; in decode the positions behind which the token comes.
        system: what it ran on, and how.
        ms: milliseconds.
        obtained: one of ``OBTAINED``.
        note: conditions.
        at: the length in words, where it is not one number; ``tokens`` then only says where the row stands.
    """

    model: str
    work: str
    tokens: int
    system: str
    ms: float
    obtained: str
    note: str
    at: str = ""

    def __post_init__(self) -> None:
        if self.obtained not in OBTAINED:
            raise ValueError(f"a figure is obtained by one of {OBTAINED}, not by {self.obtained!r}")

    @property
    def what(self) -> str:
        """Model, work and length in words."""
        if self.work == "decode":
            return f"{self.model}, one token, {self.at or f'{self.tokens:,} positions'}"
        return f"{self.model}, {'prefill of ' if self.work == 'prefill' else ''}{self.tokens:,} tokens"


_S = "StreamTensor, arXiv 2509.13694, table of GPT-2"
_C = "CODO, ISCA 2026"
_F = "FlightLLM, arXiv 2401.03868 and its demo"
_MEDIUM, _LLAMA = "GPT-2 medium", "Llama-2-7B"
_SPAN = "mean over 32 tokens in, 32 out"
_MIXED = "several lengths"
#: systems that published_points.py does not hold, GPUs first; tokens/s are given as ms a token
PUBLISHED = (
    Row(_MEDIUM, "prefill", 32, "A100 80 GB", 8.72, "published", f"{_S}; as long as one token"),
    Row(_MEDIUM, "decode", 32, "A100 80 GB", 1000 / 113.3, "published", f"{_S}; 113.3 tokens/s", _SPAN),
    Row(_MEDIUM, "prefill", 32, "RTX 2080 Ti", 25.0, "published", _S),
    Row(_MEDIUM, "decode", 32, "RTX 2080 Ti", 1000 / 64.9, "published", f"{_S}; 64.9 tokens/s", _SPAN),
    Row(_LLAMA, "decode", 0, "A100, HF eager", 1000 / 45, "published", f"{_F}; 45 tokens/s", _MIXED),
    Row(_LLAMA, "decode", 0, "A100, gpt-fast int4", 1000 / 196.8, "published", f"{_F}; 196.8 tokens/s",
        _MIXED),
    Row(_MEDIUM, "prefill", 32, "StreamTensor, U55C, W4A8", 34.59, "published", _S),
    Row(_MEDIUM, "decode", 32, "StreamTensor, U55C, W4A8", 1000 / 199.5, "published", f"{_S}; 199.5 tokens/s",
        _SPAN),
    Row(_MEDIUM, "prefill", 32, "CODO, U280, W4A8", 20.4, "published", _C),
    Row(_MEDIUM, "prefill", 128, "CODO, U280, W4A8", 110.4, "published", _C),
    Row(_MEDIUM, "decode", 0, "CODO, U280, W4A8", 1000 / 231.48, "published",
        f"{_C}; 231.48 tokens/s; its published kernels keep no keys and values and have no head",
        "length not stated"),
    Row("Llama-3.2-1B", "decode", 1000, "FlexLLM, U280, W4A4", 6.94, "published",
        "arXiv 2601.15710; 6.94 s for 1,000 tokens", "mean over 1,000 tokens"),
)  # fmt: skip


@dataclass
class Comparison:
    """All rows, what is missing (a line each), and where the rows come from (a line each)."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def ordered(self) -> list[Row]:
        """By model (as in MODELS), work and length; ours first, then measured, then published."""
        models = [model.title for model in MODELS.values()]
        place = {title: i for i, title in enumerate(models)}
        works, kinds = ("encode", "prefill", "decode"), ("timed", "modelled", "measured here", "published")

        def key(row: Row) -> tuple[Any, ...]:
            name = row.model.split(",")[0]
            at = (place.get(name, len(models)), row.model, works.index(row.work), row.tokens, row.at)
            return *at, kinds.index(row.obtained), row.ms

        return sorted(self.rows, key=key)


def ours(data: dict[str, Any], comparison: Comparison) -> None:
    """Latencies of emitted designs that were timed: figures in ms, and tokens/s of a text that goes on."""
    file = data["benchmark"]
    for key, figure in data["figures"].items():
        stem, _, unit = key.rpartition("_")
        decodes = (unit, figure["unit"]) == ("tokens", "tokens/s")
        if not decodes and (unit, figure["unit"]) != ("ms", "ms"):
            continue
        name = stem if decodes else stem.split("_")[0]
        ms = 1000 / figure["value"] if decodes else figure["value"]
        if name not in OURS:
            comparison.missing.append(f"{file}.json: what {key} runs is not known to benchmarks.compare")
            continue
        system = "torch2fpga, U280" + (", not planned" if file in UNPLANNED else ", planned")
        note = f"{figure['title']}; {figure['note']}" if figure["note"] else figure["title"]
        note = f"{note}; {figure['value']:g} tokens/s" if decodes else note
        comparison.rows.append(Row(*OURS[name], system, ms, figure["obtained"], note))


def gpu(data: dict[str, Any], comparison: Comparison) -> None:
    """Latencies measured on a GPU, with their energy; what did not run there is missing."""
    figures = data["figures"]
    for (model, way, work, tokens), key in _gpu_keys(figures):
        figure, energy = figures[f"{key}_ms"], figures.get(f"{key}_mj")
        note = figure["note"].removeprefix(f"{way.title}; ")
        if energy is not None:
            note = f"{format_number(energy['value'])} mJ; {note}"
        system = f"{data['device']['name']}, {way.title}"
        row = Row(model.title, work, tokens, system, figure["value"], figure["obtained"], note)
        comparison.rows.append(row)
    comparison.missing += [f"gpu_baseline.json: {key}: {why}" for key, why in data["not_run"].items()]


def _gpu_keys(figures: dict[str, Any]) -> Iterator[tuple[tuple[Any, Any, str, int], str]]:
    for model in MODELS.values():
        for way in WAYS.values():
            prefix = re.sub(r"\W", "_", f"{model.key}_{way.key}")
            for name in figures:
                match = re.fullmatch(rf"({prefix}_(prefill|decode)(\d+))_ms", name)
                if match:
                    work = "encode" if model.encoder else match[2]
                    yield (model, way, work, int(match[3])), match[1]


def published(comparison: Comparison) -> None:
    """What others published; a measurement that several readings share is shown once."""
    seen = set()
    for point in POINTS:
        case = point.case
        same = (case.shape, case.phase, case.tokens, point.measured_ms)
        if same in seen:
            continue
        seen.add(same)
        work = "encode" if case.shape == BERT_LAYER else case.phase
        note = f"inputs {point.status}: {point.basis}"
        at = point.title.partition("medium, ")[2] if point.key == "dfx_end" else ""
        system, model = f"{case.design.name}, U280", SHAPES[case.shape]
        row = Row(model, work, case.tokens, system, point.measured_ms, "published", note, at)
        comparison.rows.append(row)
    comparison.rows += PUBLISHED


def compare(results: Path) -> Comparison:
    """Everything that is there.

    Args:
        results: folder of the JSON files.
    """
    found = Comparison()
    for name, needs in INPUTS.items():
        path = results / f"{name}.json"
        if not path.is_file():
            command = f"python -m benchmarks.{name} --json benchmarks/results/{name}.json"
            found.missing.append(f"{name}.json is not there; {needs}: {command}")
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        before = len(found.rows)
        (gpu if name == "gpu_baseline" else ours)(data, found)
        count = len(found.rows) - before
        versions = f"torch {data['versions']['torch']}, transformers {data['versions']['transformers']}"
        source = f"{name}.json: {count} latencies, {data['date']}, {data['machine']['class']}; {versions}"
        found.sources.append(source)
    published(found)
    timed = {row.model for row in found.rows if row.obtained == "timed"}
    without = sorted({row.model for row in found.rows} - timed)
    if without:
        found.missing.append(f"no timed figure of this project for: {'; '.join(without)}")
    if not any(row.work == "decode" and row.obtained == "timed" for row in found.rows):
        found.missing.append("no timed figure of this project for a token of decode, of any model")
    return found


def terminal(found: Comparison) -> Table:
    """The table for a terminal."""
    table = Table(title="latency at batch 1", title_justify="left")
    for name in ("work", "system", "ms", "obtained", "conditions"):
        table.add_column(name, justify="right" if name == "ms" else "left", overflow="fold")
    last = ""
    for row in found.ordered():
        if last and row.what != last:
            table.add_section()
        shown = "" if row.what == last else row.what
        table.add_row(shown, row.system, format_number(row.ms), row.obtained, row.note)
        last = row.what
    return table


def markdown(found: Comparison) -> str:
    """The same for a page, with what is missing and the sources."""
    lines = ["| work | system | ms | obtained | conditions |", "|---|---|---:|---|---|"]
    for row in found.ordered():
        cells = (row.what, row.system, format_number(row.ms), row.obtained, row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for title, items in (("Missing", found.missing), ("Read", found.sources)):
        if items:
            # rows of a table, because they may be longer than a line of text
            lines += ["", f"| {title.lower()} |", "|---|"]
            lines += ["| " + item.replace("|", "\\|") + " |" for item in items]
    return "\n".join(lines) + "\n"


def fill(page: Path, text: str, check: bool) -> int:
    """Put ``text`` between the marks of a page; the exit status is 1 if it has none or, checked, differs."""
    old = page.read_text(encoding="utf-8")
    new, count = REGION.subn(lambda match: match[1] + text + match[2], old)
    if count != 1:
        print(f"{page} needs one pair of <!-- compare --> and <!-- /compare -->", file=sys.stderr)
        return 1
    if new == old:
        return 0
    if check:
        print(f"{page} differs; run: python -m benchmarks.compare --markdown {page}", file=sys.stderr)
        return 1
    page.write_text(new, encoding="utf-8")
    print(f"{page} brought up to date")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write; exit status 1 if a page cannot be filled or, with --check, differs."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="fill the marked region of this page")
    parser.add_argument("--check", action="store_true", help="with --markdown: change nothing")
    arguments = parser.parse_args(argv)
    found = compare(arguments.results)
    if arguments.markdown is not None:
        return fill(arguments.markdown, markdown(found), arguments.check)
    console = Console()
    console.print(terminal(found))
    for title, lines in (("missing", found.missing), ("read", found.sources)):
        for line in lines:
            console.print(f"{title}: {line}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
