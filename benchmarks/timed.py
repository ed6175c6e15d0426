# SPDX-License-Identifier: Apache-2.0
"""The timed run: its own speed and memory, the cycles of three models, the estimate, FIFO sizes.

    python -m benchmarks.timed --json benchmarks/results/timed.json

Cycles are those of the emitted C++ under the clock (basis "timed"), at 128 tokens and the board's planned
clock. Each model is timed in a process of its own that has loaded the compiled model from a folder, so that
its memory is that of the timed run and not of the compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

from rich.console import Console

import torch2fpga
from benchmarks import common, exactness
from benchmarks.common import ROOT, Results
from examples import minilm
from torch2fpga.plan.latency import estimate_latency
from torch2fpga.simulate.build import FLAGS, INCLUDE, SIM, compiler
from torch2fpga.simulate.timed import TimedRun
from torch2fpga.timing.inputs import random_inputs

TOKENS = 128
SIZE = (1, TOKENS)
STREAMS = ROOT / "tests" / "hls" / "bench_streams.cpp"


@dataclass(frozen=True)
class Case:
    """A model to time.

    Attributes:
        key, title: of its figures.
        make: the compiled model.
        seconds: what the timed run may take.
        memory: resident bytes that it may take, in GB.
        shrink: also cut its FIFOs.
    """

    key: str
    title: str
    make: Callable[[], Any]
    seconds: float
    memory: float | None = None
    shrink: bool = False


def real_minilm() -> Any:
    """MiniLM with its weights; one sequence of 128 tokens."""
    loaded = minilm.load(tokens=TOKENS)
    calibration = loaded.encode(minilm.sentences("calibration"))
    return torch2fpga.compile(loaded.model, loaded.example, calibration=calibration)


def published(index: int) -> Any:
    """BERT-base or GPT-2 124M from its configuration, with random weights."""
    case = exactness.CASES[index]
    return exactness.compile_case(case, case.make(12))


CASES = (
    Case("minilm", "MiniLM", real_minilm, 20.0, shrink=True),
    Case("bert", "BERT-base", lambda: published(0), 120.0, shrink=True),
    Case("gpt2", "GPT-2 124M", lambda: published(1), 120.0, memory=2.0),
)


def transfers(results: Results) -> None:
    """Transfers per second of the simulation itself, with the clock."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bench_streams"
        flags = [f for f in FLAGS if f not in ("-fPIC", "-Werror")]
        command = [compiler(), *flags, *TimedRun.flags, f"-I{INCLUDE}", f"-I{SIM}", str(STREAMS)]
        subprocess.run([*command, "-o", str(program)], check=True)
        text = subprocess.run([str(program), "--json"], check=True, capture_output=True, text=True).stdout
    streams = json.loads(text)["streams"]
    rates = {int(r["depth"]): float(r["transfers_per_second"]) for r in streams if not r["recorded"]}
    for depth, aim in ((2, 20.0), (16, 60.0), (64, 60.0)):
        results.add(
            f"transfers_{depth}",
            f"timed run: stream transfers a second, depth {depth}",
            round(rates[depth] / 1e6, 1),
            "M/s",
            (">=", aim),
            note="64-byte tokens, one core, best of five",
        )


def child(folder: Path) -> int:
    """Time the compiled model in a folder; JSON on the standard output."""
    compiled = torch2fpga.load(folder)
    build, _ = common.seconds(lambda: compiled.timed)
    inputs: dict[str, Any] = dict(random_inputs(compiled, *SIZE))
    once, _ = common.seconds(lambda: compiled.time(**inputs, spread=False, interval=False))
    took, report = common.seconds(lambda: compiled.time(**inputs))
    peak = common.peak_bytes()
    found = {
        "build_s": build,
        "once_s": once,
        "time_s": took,
        "peak_bytes": peak,
        "cycles": report.cycles,
        "half": report.half_depth,
        "double": report.double_depth,
        "interval": report.interval,
        "tokens": sum(s.tokens for s in report.streams),
        "clock_mhz": report.clock_mhz,
    }
    print(json.dumps(found))
    return 0


def measure(case: Case, results: Results) -> None:
    """Every figure of one model."""
    compiled = case.make()
    with tempfile.TemporaryDirectory() as folder, common.fresh_build_cache():
        path = compiled.save(Path(folder) / "model")
        command = [sys.executable, "-m", "benchmarks.timed", "--child", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    found = json.loads(done.stdout.splitlines()[-1])
    _figures(case, compiled, found, results)
    if case.shrink:
        _fifos(case, compiled, results)


def _figures(case: Case, compiled: Any, found: dict[str, Any], results: Results) -> None:
    def add(key: str, title: str, value: float, unit: str, *rest: Any, **more: Any) -> None:
        results.add(f"{case.key}_{key}", f"{case.title}: {title}", value, unit, *rest, **more)

    clock = found["clock_mhz"]
    cycles = found["cycles"]
    add("run_s", "time(): everything", round(found["time_s"], 2), "s", ("<=", case.seconds),
        note=f"{TOKENS} tokens; four runs (depths as estimated, half, twice; three launches)")  # fmt: skip
    add("once_s", "one timed run, with the analysis of all loops", round(found["once_s"], 2), "s",
        note=f"{found['tokens']:,} stream transfers")  # fmt: skip
    add("gxx_s", "g++ of the timed run", round(found["build_s"], 1), "s", ("<=", 60.0), note="empty cache")
    bound = ("<=", case.memory) if case.memory is not None else None
    add("peak_gb", "peak memory of the process", round(found["peak_bytes"] / 1e9, 2), "GB", bound)
    add("cycles", f"latency of {TOKENS} tokens", cycles, "cycles", obtained="timed",
        note=f"half pipeline depths {found['half']:,}, twice {found['double']:,}")  # fmt: skip
    add("ms", f"the same at {clock:.0f} MHz", round(cycles / clock / 1000, 3), "ms", obtained="timed")
    add("interval", "steady interval of launches back to back", found["interval"], "cycles", obtained="timed")
    estimate = estimate_latency(compiled.design, compiled.board, *SIZE)
    add("estimate", "analytical estimate", estimate.cycles, "cycles", obtained="modelled",
        note=f"busiest stage: {estimate.pace}")  # fmt: skip
    error = 100 * (estimate.cycles / cycles - 1)
    add("estimate_error", "estimate against timed run", round(abs(error), 2), "%", ("<=", 10.0), "timed",
        note=f"{error:+.2f} %")  # fmt: skip


def _fifos(case: Case, compiled: Any, results: Results) -> None:
    took, report = common.seconds(lambda: compiled.shrink_fifos())
    for which, title in (
        ("whole_tensor", "whole tensors"),
        ("computed", "computed depths"),
        ("depth", "after timed runs"),
    ):
        cost = report.cost(which)
        results.add(
            f"{case.key}_fifo_{which}_kib",
            f"{case.title}: FIFOs, {title}",
            round(report.bytes(which) / 1024),
            "KiB",
            obtained="timed" if which == "depth" else "modelled",
            note=f"{cost.lut:,} LUT as shift registers, {cost.bram18:,} BRAM18, {cost.uram:,} URAM",
        )
    saving = 100 * (1 - report.bytes("depth") / report.bytes("whole_tensor"))
    title = f"{case.title}: FIFO memory saved against whole tensors"
    sizes = ", ".join(f"{b} x {n}" for b, n in report.cycles)
    note = f"no cycle lost at {sizes} tokens; {report.runs} timed runs"
    results.add(f"{case.key}_fifo_saving", title, round(saving, 1), "%", obtained="timed", note=note)
    lost = sum(after - before for before, after in report.cycles.values())
    title = f"{case.title}: cycles lost to smaller FIFOs"
    note = f"found in {took:.0f} s"
    results.add(f"{case.key}_fifo_lost", title, lost, "cycles", ("==", 0), "timed", note=note)


def main() -> int:
    """Run everything; the exit status is 1 if an aim was missed."""
    parser = common.arguments(__doc__)
    parser.add_argument("--model", choices=[case.key for case in CASES], help="only this one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with common.one_core():
        if arguments.child is not None:
            return child(arguments.child)
        console, results = Console(), Results("timed")
        transfers(results)
        for case in CASES:
            if arguments.model in (None, case.key):
                console.print(case.title, style="dim")
                measure(case, results)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
