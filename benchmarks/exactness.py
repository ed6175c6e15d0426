# SPDX-License-Identifier: Apache-2.0
"""All 12 layers of BERT-base and GPT-2 124M: exactness at every stage, times, sizes.

    python -m benchmarks.exactness --json benchmarks/results/exactness.json

Both from their published configurations with random weights (fixed seed): exactness does not depend
on what a model has learnt, and nothing has to be fetched. Accuracy would, so none is given here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

import torch2fpga
from benchmarks import common
from benchmarks.common import Results
from torch2fpga.emit.project import project_files
from torch2fpga.plan.plan import Plan

TOKENS = 128
CALIBRATION = 8
#: tokens of the inputs that are verified, besides the full length
LENGTHS = (1, 5, 37)
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A model to measure.

    Attributes:
        key: of its figures.
        title: for the table.
        make: layers -> model with random weights.
        mask: it takes a padding mask.
        compile_s: what compile() may take, if the project has a figure for it.
    """

    key: str
    title: str
    make: Callable[[int], nn.Module]
    mask: bool
    compile_s: float | None = None


def bert(layers: int) -> nn.Module:
    """BERT-base as published; its configuration is the library's default."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig(num_hidden_layers=layers)).eval()


def gpt2(layers: int) -> nn.Module:
    """GPT-2 124M as published, with the head over its whole vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=layers)).eval()


CASES = (
    Case("bert", "BERT-base", bert, mask=True),
    Case("gpt2", "GPT-2 124M", gpt2, mask=False, compile_s=30.0),
)


def inputs(case: Case, model: nn.Module, tokens: int, seed: int) -> Inputs:
    """Random tokens; with a mask the last quarter of them is padding."""
    random = torch.Generator().manual_seed(seed)
    config: Any = model.config
    made = {"input_ids": torch.randint(config.vocab_size, (1, tokens), generator=random)}
    if case.mask:
        mask = torch.ones_like(made["input_ids"])
        mask[:, max(1, tokens - tokens // 4) :] = 0
        made["attention_mask"] = mask
    return made


def compile_case(case: Case, model: nn.Module, plan: Plan | None = None) -> Any:
    """The compiled model; planned, or by a plan."""
    calibration = [inputs(case, model, TOKENS, seed) for seed in range(CALIBRATION)]
    return torch2fpga.compile(model, inputs(case, model, TOKENS, 0), calibration=calibration, plan=plan)


def measure(case: Case, layers: int, results: Results, console: Console) -> None:
    """Every figure of one model."""
    model = case.make(layers)
    config = f"{layers} layers, {TOKENS} tokens, random weights"
    cpu = time.process_time()
    took, compiled = common.seconds(lambda: compile_case(case, model))
    cpu = time.process_time() - cpu
    bound = ("<=", case.compile_s) if case.compile_s is not None else None
    note = f"{config}, {CALIBRATION} calibration inputs, without g++; {cpu:.0f} s of processor time"
    results.add(f"{case.key}_compile_s", f"{case.title}: compile()", took, "s", bound, note=note)
    with common.fresh_build_cache():
        took, _ = common.seconds(lambda: compiled.functional)
    results.add(f"{case.key}_gxx_s", f"{case.title}: g++", took, "s", ("<=", 60.0), note="empty cache")
    _exactness(case, model, compiled, config, results, console)
    row = inputs(case, model, TOKENS, 200)
    common.add_rates(results, compiled, model, row, f"{case.key}_", f"{case.title}: ")
    _size(case, compiled, layers, results)


def _exactness(
    case: Case, model: nn.Module, compiled: Any, config: str, results: Results, console: Console
) -> None:
    mismatches, compared, stages, cosine = 0, 0, 0, 1.0
    lengths = (*LENGTHS, TOKENS)
    with common.progress_bar(console) as bar:
        for seed, tokens in enumerate(bar.track(lengths, description=f"{case.title}: exactness")):
            report = compiled.verify(**inputs(case, model, tokens, 100 + seed))
            wrong = sum(stage.mismatches for stage in report.stages)
            mismatches += wrong or int(not report.bit_exact)
            compared += sum(stage.compared for stage in report.stages)
            stages, cosine = len(report.stages), min(cosine, report.cosine)
    note = (
        f"{config}; inputs of {', '.join(map(str, lengths))} tokens; {compared:,} values of {stages} stages"
    )
    title = f"{case.title}: values that differ from the reference"
    results.add(f"{case.key}_mismatches", title, mismatches, bound=("==", 0), note=note)
    note = "random weights: says nothing about the accuracy of a trained model"
    results.add(f"{case.key}_cosine", f"{case.title}: cosine of the output to float", cosine, note=note)


def _size(case: Case, compiled: Any, layers: int, results: Results) -> None:
    """The text of one plan must not grow with the layers; that 12 has a digit more than 2 is all that may
    change."""
    plan = compiled.plan.plan
    many, few = project_files(compiled), project_files(compile_case(case, case.make(2), plan))
    size = sum(len(text.encode()) for text in many.values()) / 1000
    title = f"{case.title}: project text without weights"
    results.add(f"{case.key}_text_kb", title, size, "kB", ("<=", 1000.0), note=f"{layers} layers")
    growth = sum(map(len, map(_form, many.values()))) - sum(map(len, map(_form, few.values())))
    note = "bytes, numbers, checksums and line breaks left aside; compared with 2 layers and the same plan"
    title = f"{case.title}: growth of the text with the layers"
    results.add(f"{case.key}_text_growth", title, growth, "B", ("==", 0), note=note)


def _form(text: str) -> str:
    """A text without what depends on how large its numbers are."""
    return "".join(re.sub(r"\b[0-9a-f]{64}\b|\d[\d,.]*", "0", text).split())


def main() -> int:
    """Run the chosen models; the exit status is 1 if an aim was missed."""
    parser = common.arguments(__doc__)
    parser.add_argument("--model", choices=[case.key for case in CASES], help="only this one")
    parser.add_argument("--layers", type=int, default=12, help="layers (published: 12)")
    arguments = parser.parse_args()
    console, results = Console(), Results("exactness")
    for case in CASES:
        if arguments.model in (None, case.key):
            console.print(case.title, style="dim")
            with common.one_core():
                measure(case, arguments.layers, results, console)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
