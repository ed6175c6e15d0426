# SPDX-License-Identifier: Apache-2.0
"""Planned designs: timed latency, how busy multipliers are, what the plan takes of the card, planning time.

    python -m benchmarks.planned --json benchmarks/results/planned.json

Latencies are cycles of the emitted C++ under the clock (obtained "timed"), from launch to the last word
of the output. Each prefill figure is given within the caps of the card and within two budgets that
somebody has routed on it (``Board.routed``). Random weights, but for MiniLM: cycles do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from torch import Tensor, nn

import torch2fpga
from benchmarks import common
from benchmarks.common import Results
from examples import minilm
from torch2fpga.boards import U280, Routed
from torch2fpga.timing.inputs import random_inputs

CALIBRATION = 8


@dataclass(frozen=True)
class Case:
    """A model to plan and time.

    Attributes:
        key, title: of its figures.
        make: options of ``compile`` -> compiled model.
        tokens: a sequence.
        most_ms: aim of the latency within the caps; ``goal_ms`` is what later work aims at.
        options: of ``compile``.
        routed: also within the routed budgets.
    """

    key: str
    title: str
    make: Callable[[int, dict[str, Any]], Any]
    tokens: int
    most_ms: float
    goal_ms: float
    options: dict[str, Any] = field(default_factory=dict)
    routed: bool = True


class LastLogits(nn.Module):
    """A causal model's scores for the token behind the prompt: the head sees the last position only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids, logits_to_keep=1, use_cache=False).logits


def _ids(vocabulary: int, tokens: int, seed: int) -> Tensor:
    return torch.randint(vocabulary, (1, tokens), generator=torch.Generator().manual_seed(seed))


def bert(tokens: int, options: dict[str, Any]) -> Any:
    """BERT-base as published."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(), add_pooling_layer=False).eval()
    made = [
        {"input_ids": _ids(30522, tokens, s), "attention_mask": torch.ones(1, tokens, dtype=torch.int64)}
        for s in range(CALIBRATION)
    ]
    return torch2fpga.compile(model, made[0], calibration=made, **options)


def gpt2_medium(tokens: int, options: dict[str, Any]) -> Any:
    """GPT-2 medium as published: prefill, with the head for the last position."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    model = LastLogits(GPT2LMHeadModel(config)).eval()
    made = [(_ids(config.vocab_size, tokens, s),) for s in range(CALIBRATION)]
    return torch2fpga.compile(model, made[0], calibration=made, **options)


def real_minilm(tokens: int, options: dict[str, Any]) -> Any:
    """MiniLM with its weights."""
    loaded = minilm.load(tokens=tokens)
    calibration = loaded.encode(minilm.sentences("calibration"))
    return torch2fpga.compile(loaded.model, loaded.example, calibration=calibration, **options)


CASES = (
    Case("bert128", "BERT-base, 128 tokens, W8A8", bert, 128, 10.0, 4.5),
    Case("bert512", "BERT-base, 512 tokens, W8A8", bert, 512, 40.0, 19.0),
    Case("gpt2m", "GPT-2 medium prefill, 128 tokens, W8A8", gpt2_medium, 128, 60.0, 16.0),
    Case("gpt2m_w4", "GPT-2 medium prefill, 128 tokens, W4A8", gpt2_medium, 128, 60.0, 16.0,
         {"precision": "w4a8"}),
    Case("minilm", "MiniLM, 128 tokens, W8A8", real_minilm, 128, 1.0, 0.6, routed=False),
    Case("minilm_resident", "MiniLM, weights of all layers on the chip", real_minilm, 128, 1.0, 0.6,
         {"plan": {"weights": "resident"}}, routed=False),
)  # fmt: skip


class PlanningClock:
    """Progress of ``compile``: how long planning took."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def __call__(self, phase: str, part: float) -> None:
        if phase == "plan" and self._since is None:
            self._since = time.perf_counter()
        elif phase == "done" and self._since is not None:
            self.seconds = time.perf_counter() - self._since


def budget_of(routed: Routed) -> dict[str, Any]:
    """Options of ``compile`` that keep to a routed budget."""
    plan: dict[str, Any] = {"clock_mhz": routed.clock_mhz}
    if routed.macs is not None:
        plan["multipliers"] = routed.macs
    if routed.dsp is not None:
        plan["budget"] = round(routed.dsp / (U280.total.dsp * U280.caps.dsp), 3)
    return plan


def measure(case: Case, results: Results, console: Console) -> None:
    """The figures of one model."""
    console.print(case.title, highlight=False)
    clock = PlanningClock()
    compiled = case.make(case.tokens, {**case.options, "progress": clock})
    if case.key == "gpt2m":
        results.add("gpt2m_plan_s", f"{case.title}: planning", round(clock.seconds, 1), "s", ("<=", 10.0),
                    note="three tile sizes, arrays, places, what binds; constants split")  # fmt: skip
    _latency(case, compiled, results, "", "within the caps", ("<=", case.most_ms))
    _plan(case, compiled, results)
    if case.options.get("plan", {}).get("weights") == "resident":
        _without_load(case, compiled, results)
    for routed in U280.routed if case.routed else ():
        plan = {**case.options.get("plan", {}), **budget_of(routed)}
        compiled = case.make(case.tokens, {**case.options, "plan": plan})
        _latency(case, compiled, results, f"_{routed.name}", routed.what, None)


def _latency(
    case: Case, compiled: Any, results: Results, suffix: str, within: str, bound: tuple[str, float] | None
) -> None:
    plan = compiled.plan
    inputs = random_inputs(compiled, 1, case.tokens)
    report = compiled.time(**inputs, clock_mhz=plan.clock_mhz, spread=False, interval=case.key == "minilm")
    if report.deadlock is not None:
        raise SystemExit(f"{case.title}: {report.deadlock}")
    ms = report.cycles / plan.clock_mhz / 1000
    dsp = sum(r.resources["dsp"][0] for r in plan.regions)
    lut = sum(r.resources["lut"][0] for r in plan.regions)
    note = (
        f"{report.cycles:,} cycles at {plan.clock_mhz:g} MHz, not synthesised; {within}; "
        f"{plan.products:,} products a cycle, {dsp:,} DSP, {lut:,} LUT"
    )
    if bound is not None:
        note += f"; goal {case.goal_ms:g} ms"
    name = f"{case.title}, {suffix[1:]}" if suffix else case.title
    results.add(f"{case.key}{suffix}_ms", name, round(ms, 3), "ms", bound, "timed", note)
    busy = 100 * plan.macs / (plan.products * report.cycles)
    aim = (">=", 50.0) if bound is not None and not case.key.startswith("minilm") else None
    title = f"{name}: multipliers busy"
    note = f"{plan.macs / 1e9:.2f} G useful products over the same run"
    results.add(f"{case.key}{suffix}_busy", title, round(busy, 1), "%", aim, "timed", note)
    error = 100 * (plan.cycles / report.cycles - 1)
    results.add(f"{case.key}{suffix}_model", f"{name}: the plan's own estimate", plan.cycles, "cycles",
                obtained="modelled", note=f"{error:+.1f} % against the timed run")  # fmt: skip
    if case.key == "minilm" and report.interval:
        rate = plan.clock_mhz * 1e6 / report.interval
        title, note = "MiniLM: launches back to back", f"{report.interval:,} cycles apart; goal 1,800"
        results.add("minilm_rate", title, round(rate), "sentences/s", (">=", 1000.0), "timed", note)


def _without_load(case: Case, compiled: Any, results: Results) -> None:
    """The latency less the time in which the weights of all layers arrive, which comes first."""
    plan = compiled.plan
    beat = U280.hbm.beat_cycles(64, plan.clock_mhz)
    load = max(c.moved / 64 * beat for c in plan.channels if c.role == "weights") / plan.clock_mhz / 1000
    title, rest = f"{case.title}: of that, initial load", results.figures[f"{case.key}_ms"].value - load
    results.add(f"{case.key}_load_ms", title, round(load, 3), "ms", obtained="modelled",
                note="the port with the most weights, at the sustained rate")  # fmt: skip
    title = f"{case.title}: without the initial load"
    results.add(f"{case.key}_loaded_ms", title, round(rest, 3), "ms", ("<=", case.most_ms), "modelled",
                "timed latency less the modelled load")  # fmt: skip


def _plan(case: Case, compiled: Any, results: Results) -> None:
    """What the plan takes of each region and boundary, and what binds."""
    plan = compiled.plan
    for region in plan.regions:
        shares = {r: 100 * used / have for r, (used, have, _) in region.resources.items()}
        most = max(region.resources, key=lambda r: shares[r] / region.resources[r][2])
        cap = 100 * region.resources[most][2]
        text = ", ".join(f"{r.upper()} {share:.0f} %" for r, share in shares.items())
        title = f"{case.title}: SLR{region.slr}, fullest resource"
        results.add(f"{case.key}_slr{region.slr}", title, round(shares[most], 1), "%", ("<=", cap),
                    "modelled", f"{most.upper()}; {text}")  # fmt: skip
    for use in plan.boundaries:
        title = f"{case.title}: wires SLR{use.boundary}-{use.boundary + 1}"
        results.add(f"{case.key}_wires{use.boundary}", title, use.wires, "wires", ("<=", use.budget),
                    "modelled", str(use))  # fmt: skip
    binding = "; ".join(str(g) for g in plan.binding) or "nothing of the card"
    results.add(f"{case.key}_binding", f"{case.title}: limits that bind", len(plan.binding), "limits",
                obtained="modelled", note=binding)  # fmt: skip


def child() -> int:
    """Plan a configuration of 7 thousand million parameters; seconds, memory and cycles as JSON."""
    from transformers import LlamaConfig

    from torch2fpga.plan.outline import outline

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32000, max_position_embeddings=4096,
    )  # fmt: skip
    seconds, report = common.seconds(lambda: outline(config, tokens=128, precision="w4a8"))
    print(json.dumps({"seconds": seconds, "bytes": common.peak_bytes(), "cycles": report.cycles}))
    return 0


def without_weights(results: Results, console: Console) -> None:
    """How long a configuration of 7 thousand million parameters takes to plan, in a process of its own,
    whose memory is then nothing else's."""
    title = "Llama-2-7B (configuration), 128 tokens, W4A8"
    console.print(title, highlight=False)
    command = [sys.executable, "-m", "benchmarks.planned", "--child"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=common.ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    results.add("llama7b_plan_s", f"{title}: planning", round(found["seconds"], 1), "s", ("<=", 30.0),
                note="outline(): capture, passes, lowering, optimiser; without imports")  # fmt: skip
    results.add("llama7b_plan_mb", f"{title}: memory", round(found["bytes"] / 1e6), "MB", ("<=", 2000.0),
                note="largest resident set of the process (VmHWM)")  # fmt: skip
    results.add("llama7b_model", f"{title}: the plan's own estimate", found["cycles"], "cycles",
                obtained="modelled", note="weights streamed again for every tile of rows")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument(
        "--only", nargs="*", metavar="KEY",
        help=f"measure only these of {', '.join(c.key for c in CASES)}, llama7b; the file keeps the others",
    )  # fmt: skip
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child()
    console, results = Console(), Results("planned")
    for case in CASES:
        if not arguments.only or case.key in arguments.only:
            measure(case, results, console)
    if not arguments.only or "llama7b" in arguments.only:
        without_weights(results, console)
    if arguments.only and arguments.json:
        results.keep(arguments.json)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
