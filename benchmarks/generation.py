# SPDX-License-Identifier: Apache-2.0
"""Text generation: tokens a second of planned decoders, and that what they generate is exact.

    python -m benchmarks.generation --json benchmarks/results/generation.json

Speed is that of the timed run of the emitted C++ on the U280 plan, of two tokens that follow each other up
to the context that is said, caches read from memory. It needs no weights: large models are planned from
their configuration and timed on zeros, which take the same time. Exactness is that of the functional run
against the quantised reference, every stream of every launch.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console

import torch2fpga
from benchmarks.common import Results
from torch2fpga.boards import Board
from torch2fpga.compiler import wanted_plan
from torch2fpga.design import Design
from torch2fpga.plan.outline import outlined
from torch2fpga.plan.resources import design_cost
from torch2fpga.plan.summary import summarise
from torch2fpga.plan.sums import add_sums
from torch2fpga.plan.traffic import bytes_moved, model_bytes
from torch2fpga.runtime.generation import follow, request, verify_generation
from torch2fpga.simulate.launch import Launch
from torch2fpga.timing.run import time_design

#: GB/s of the card's memory
PEAK_GBS = 460.0
#: tokens that follow each other in a timed launch
TURNS = 2
#: tokens of a prompt that a launch takes
PROMPT = 16
#: roles of ports that carry activations of the model
ACTIVATIONS = ("rows", "mask", "output")


@dataclass(frozen=True)
class Case:
    """A decoder that is timed.

    Attributes:
        config: class and settings of a transformers configuration.
        context: tokens that the last one looks back on, itself included.
        aim: tokens a second.
        step_seconds: most that the timed run of a step may take here, without its build.
        checksums: measure what they cost.
    """

    key: str
    title: str
    config: tuple[str, dict[str, Any]]
    precision: str
    context: int
    aim: float
    step_seconds: float | None = None
    checksums: bool = False


GPT2_MEDIUM = ("GPT2Config", {"n_layer": 24, "n_embd": 1024, "n_head": 16})
LLAMA_1B = (
    "LlamaConfig",
    {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
    },
)  # fmt: skip
LLAMA_7B = (
    "LlamaConfig",
    {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    },
)  # fmt: skip
CASES = (
    Case("gpt2m_w4_128", "GPT-2 medium, W4A8, context 128", GPT2_MEDIUM, "w4a8", 128, 1000.0, 10.0, True),
    Case("gpt2m_w4_1024", "GPT-2 medium, W4A8, context 1,024", GPT2_MEDIUM, "w4a8", 1024, 800.0, 10.0),
    Case("gpt2m_w8_128", "GPT-2 medium, W8A8, context 128", GPT2_MEDIUM, "w8a8", 128, 500.0, 10.0),
    Case("llama1b_w4_1024", "Llama-3.2-1B, W4A8, context 1,024", LLAMA_1B, "w4a8", 1024, 280.0),
    Case("llama7b_w4_512", "Llama-2-7B, W4A8, context 512", LLAMA_7B, "w4a8", 512, 55.0),
)


def timed(case: Case, results: Results, console: Console) -> None:
    """Tokens a second, bytes and share of the memory's peak of one decoder."""
    import transformers

    console.print(case.title, highlight=False)
    name, settings = case.config
    started = time.perf_counter()
    config = getattr(transformers, name)(**settings)
    wanted = wanted_plan(None, board="u280")
    planned, board = outlined(config, PROMPT, 1, wanted, precision=case.precision, length=case.context)
    design, launch = planned.design, Launch(1, 1, case.context - TURNS, TURNS)
    report = time_design(design, board, launch)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    time_design(design, board, Launch(1, 1, case.context - 1, 1))
    step = time.perf_counter() - started
    bound = ("<=", case.step_seconds) if case.step_seconds is not None else None
    results.add(f"{case.key}_step_seconds", f"{case.title}: timed run of one step", round(step, 2), "s",
                bound, note="all layers and the head, without planning and building")  # fmt: skip
    moved = bytes_moved(design, 1, 1, launch.past, TURNS)
    useful = model_bytes(design, launch.past, TURNS)
    share = useful / report.seconds / (PEAK_GBS * 1e9)
    note = (
        f"{planned.plan.lanes} lanes, {report.cycles // TURNS:,} cycles a token at {report.clock_mhz:g} MHz, "
        "not synthesised"
    )
    results.add(f"{case.key}_tokens", f"{case.title}: decode", round(report.tokens_per_second, 1), "tokens/s",
                (">=", case.aim), "timed", note)  # fmt: skip
    note = (
        f"{useful / TURNS / 1e6:,.1f} MB of weights, scales and cache a token, padding left out, "
        f"of {PEAK_GBS:g} GB/s"
    )
    results.add(f"{case.key}_share", f"{case.title}: share of the memory's peak", round(100 * share, 1), "%",
                (">=", 40.0), "timed", note)  # fmt: skip
    summary = summarise(design, board, planned.plan)
    over = sum(used > share * have for r in summary.regions for used, have, share in r.resources.values())
    over += sum(b.wires > b.budget for b in summary.boundaries)
    results.add(f"{case.key}_over", f"{case.title}: caps and wire budgets that are exceeded", over, "",
                ("==", 0), "modelled", "; ".join(str(b) for b in summary.boundaries))  # fmt: skip
    other = sum(moved[p.kernel, p.name] for p in design.ports if p.role in ACTIVATIONS)
    results.add(f"{case.key}_activations", f"{case.title}: activations to or from memory", other, "bytes",
                ("==", 0), "timed", "beside cache, ids and the embedding row of the token")  # fmt: skip
    results.add(f"{case.key}_seconds", f"{case.title}: plan, build and time", round(seconds, 1), "s",
                note="on this machine, without weights")  # fmt: skip
    if case.checksums:
        checksums(case, design, board, launch, report.cycles, results)


def checksums(
    case: Case, design: Design, board: Board, launch: Launch, cycles: int, results: Results
) -> None:
    """What it costs that kernels add up the weights and parameters that they read."""
    with_sums = add_sums(design)
    late = time_design(with_sums, board, launch).cycles - cycles
    luts = [sum(cost.lut for cost in design_cost(d, board).values()) for d in (design, with_sums)]
    note = (
        f"{late:,} cycles more a launch of {launch.turns} tokens; {luts[1] - luts[0]:,} LUTs more (modelled)"
    )
    results.add(f"{case.key}_checksums", f"{case.title}: time that checksums cost",
                round(100 * late / cycles, 3), "%", ("<=", 1.0), "timed", note)  # fmt: skip


def exact(results: Results, console: Console) -> None:
    """GPT-2 124M with random weights, and the small one that speaks: 64 tokens, however they are cut."""
    import transformers

    from examples import speaker

    torch.manual_seed(0)
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    ids = torch.randint(50257, (1, 9), generator=torch.Generator().manual_seed(1))
    random = torch.Generator().manual_seed(2)
    samples = [{"input_ids": torch.randint(50257, (1, 32), generator=random)} for _ in range(8)]
    small = speaker.load()
    text = speaker.encode(small.tokenizer, "def __init__(self, name):\n")
    prompt = torch.tensor([text])
    documents = [speaker.encode(small.tokenizer, d.text)[:96] for d in speaker.held_out()[:8]]
    cases: list[tuple[str, str, Any, torch.Tensor, Any, str]] = [
        ("gpt2", "GPT-2 124M, random weights, W8A8", gpt2, ids, samples, "w8a8"),
        ("speaker_w8", "examples/speaker, W8A8", small.model, prompt, documents, "w8a8"),
        ("speaker_w4", "examples/speaker, W4A8", small.model, prompt, documents, "w4a8"),
    ]
    for key, title, model, given, calibration, precision in cases:
        console.print(title, highlight=False)
        inputs = [x if isinstance(x, dict) else {"input_ids": torch.tensor([x])} for x in calibration]
        compiled = torch2fpga.compile(
            model, {"input_ids": given}, generate=True, max_length=128, precision=precision,
            calibration=inputs,
        )  # fmt: skip
        for splits in ((1, 31, 32), (64,)):
            report = verify_generation(compiled, given, splits)
            wrong = sum(report.wrong.values()) + (not report.bit_exact)
            cut = " + ".join(map(str, splits))
            results.add(
                f"{key}_{len(splits)}", f"{title}: values that differ, launches of {cut} tokens", wrong, "",
                ("==", 0), note=f"{report.compared:,} compared, {len(report.tokens)} tokens",
            )  # fmt: skip
        if key == "speaker_w8":
            launches(compiled, given, results)


class Listener:
    """A streamer that counts what it hears."""

    heard = 0

    def put(self, value: torch.Tensor) -> None:
        self.heard += value.numel()

    def end(self) -> None:
        pass


def launches(model: Any, prompt: torch.Tensor, results: Results) -> None:
    """Launches a generated token, with somebody who listens and without."""
    listener, count = Listener(), 64
    _, session = follow(model, request(model, prompt, max_new_tokens=count), listener)
    _, alone = follow(model, request(model, prompt, max_new_tokens=count))
    if listener.heard != prompt.numel() + count:
        raise RuntimeError(f"the streamer heard {listener.heard} tokens of {prompt.numel() + count}")
    made = len(session.launches)
    results.add("launches", "launches a generated token, with a streamer", made / count, "", ("<=", 1 / 16),
                note=f"{made} for {count} tokens of examples/speaker; without a streamer "
                     f"{len(alone.launches)}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument(
        "--only", nargs="*", metavar="KEY",
        help=f"only these of {', '.join(c.key for c in CASES)}, exact; the file keeps the others",
    )  # fmt: skip
    arguments = parser.parse_args()
    console, results = Console(), Results("generation")
    for case in CASES:
        if not arguments.only or case.key in arguments.only:
            timed(case, results, console)
    if not arguments.only or "exact" in arguments.only:
        exact(results, console)
    if arguments.only and arguments.json:
        results.keep(arguments.json)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
