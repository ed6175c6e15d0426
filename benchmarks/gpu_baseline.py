# SPDX-License-Identifier: Apache-2.0
"""The same models on a GPU with plain Hugging Face: what a card has to be held against.

    python -m benchmarks.gpu_baseline --json benchmarks/results/gpu_baseline.json

Batch 1, published configurations, random weights (no step's time depends on them; nothing is downloaded).
Four ways each: as it is (eager); torch.compile with CUDA graphs and a static cache; the same with weight-only
int8; with weight-only int4. Prompts of 32, 128 and 512 tokens, one token behind 128 and 1,024 positions,
encoders at their lengths. Each figure is the median over --steps steps, each timed alone with CUDA events;
energy is NVML's counter of the whole board over at least --energy-seconds; the share of the memory's
bandwidth counts weights once a step, keys and values.

Needed: an NVIDIA GPU of 24 GB (8 without Llama-2-7B), its driver, a CUDA build of torch, a C++
compiler for torch.compile, and for the energy `pip install nvidia-ml-py`. How long: the energy alone is
5 s for each of 176 latencies, 15 minutes; most of the rest is torch.compile, which has not been timed
on a GPU (expect hours; --models and --ways take parts). What did not run is listed with its reason.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import common
from benchmarks.common import Results
from benchmarks.gpu_device import Device, NoGpu, NotMeasured
from benchmarks.gpu_models import DEFAULT, MODELS, Model, kv_bytes, weight_bytes
from benchmarks.gpu_steps import GREEDY, WAYS, Call, Decoder, Runner, Way

WARM_UP = 10
#: fewest steps of a figure, and fewest seconds of an energy
LEAST_STEPS, LEAST_SECONDS = 100, 5.0
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class GpuResults(Results):
    """Figures, what did not run (figure or quantity -> reason), and the device."""

    device: dict[str, Any] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def circumstances(self) -> dict[str, Any]:
        """The machine is the GPU and its host."""
        host = common.machine()
        machine = {**host, "class": f"{self.device['name']}; host: {host['class']}"}
        return {"machine": machine, "versions": versions(), "device": self.device}

    def to_json(self) -> dict[str, Any]:
        """Plain data, with what did not run."""
        return {**super().to_json(), "not_run": self.not_run}


def versions() -> dict[str, str]:
    """Versions on which a figure can depend; those of ``common.versions`` ask for g++, which is no part."""
    import transformers

    import torch2fpga

    return {
        "torch2fpga": torch2fpga.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda or "none",
    }


@dataclass(frozen=True)
class Options:
    """What is measured, and how long."""

    device: Device
    dtype: torch.dtype
    prefill: Sequence[int]
    context: Sequence[int]
    steps: int
    energy_seconds: float
    backend: str = "inductor"


class Measurement:
    """One model in one way: its figures go into ``results``."""

    def __init__(self, model: Model, way: Way, options: Options, results: GpuResults, peak: float) -> None:
        self.model, self.way, self.options, self.results = model, way, options, results
        self.peak = peak
        self.prefix = f"{model.key}_{way.key}".replace("-", "_").replace(".", "_")
        built = model.build(options.device.torch, options.dtype)
        self.runner = Runner(built, way, options.dtype, options.backend)
        self.bytes = weight_bytes(built)

    def run(self) -> None:
        """All figures; one that fails is listed, the others go on."""
        for tokens in self.model.rows or self.options.prefill:
            self._one(f"prefill{tokens}", f"{tokens} tokens", tokens)
        for context in () if self.model.encoder else self.options.context:
            self._one(f"decode{context}", f"one token, {context} positions", context, decode=True)

    def _one(self, name: str, what: str, tokens: int, decode: bool = False) -> None:
        key = f"{self.prefix}_{name}"
        title = f"{self.model.title}, {'' if self.model.encoder or decode else 'prefill of '}{what}"
        room = getattr(self.runner.model.config, "max_position_embeddings", tokens)
        if tokens > room:
            self.results.not_run[key] = f"the model has {room} positions"
            return
        ids = self._ids(tokens)
        try:
            with self.runner.fresh():
                if decode:
                    decoder = self.runner.decode(ids)
                    self._greedy(key, title, decoder)
                    self._figures(key, title, decoder.call(), tokens)
                else:
                    self._figures(key, title, self.runner.prompt(ids), None)
        except Exception as error:  # out of memory, no such operator, no compiler: listed, the rest goes on
            self.results.not_run[key] = reason(error)

    def _ids(self, tokens: int) -> Tensor:
        drawn = torch.Generator().manual_seed(1)
        config: Any = self.runner.model.config
        return torch.randint(config.vocab_size, (1, tokens), generator=drawn).to(self.options.device.torch)

    def _greedy(self, key: str, title: str, decoder: Decoder) -> None:
        """Hold the way against the same weights uncompiled with a growing cache."""
        if not self.way.compiled:
            return
        count = min(GREEDY, decoder.ids.shape[1] - 1)
        want = self.runner.decode_as_it_is(decoder.ids).greedy(count)
        got = decoder.greedy(count)
        same = sum(a == b for a, b in zip(got, want, strict=True))
        note = f"{self.way.title}; of {count}; one that rounding decides otherwise changes all behind it"
        self.results.add(f"{key}_same", f"{title}: greedy tokens as uncompiled", same, "tokens", note=note)

    def _figures(self, key: str, title: str, call: Call, context: int | None) -> None:
        """Median, and behind a context tokens a second and the share of the bandwidth; energy."""
        options = self.options
        times = sorted(options.device.milliseconds(call.run, call.prepare, options.steps, WARM_UP))
        median = statistics.median(times)
        spread = f"median of {len(times)} steps, {times[0]:.3g} to {times[-1]:.3g} ms"
        dtype = str(options.dtype).removeprefix("torch.")
        note = f"{self.way.title}; {dtype}; {spread}; {self.runner.graphs()}; {self.runner.note}"
        self.results.add(f"{key}_ms", title, median, "ms", note=note)
        if context is not None:
            moved = self.bytes + kv_bytes(self.runner.model.config, context, options.dtype.itemsize)
            note = f"{self.way.title}; from the median of its latency"
            self.results.add(f"{key}_rate", f"{title}: rate", 1000 / median, "tokens/s", note=note)
            if self.peak:
                share = 100 * moved / (median * 1e6 * self.peak)
                note = f"{self.way.title}; {moved / 1e6:.1f} MB a step, counted; of {self.peak:,.0f} GB/s"
                self.results.add(f"{key}_share", f"{title}: memory bandwidth", share, "%", note=note)
        if options.energy_seconds > 0:
            self._energy(key, title, call)

    def _energy(self, key: str, title: str, call: Call) -> None:
        try:
            used = self.options.device.energy(call.run, call.prepare, self.options.energy_seconds)
        except NotMeasured as error:
            self.results.not_run.setdefault("energy", f"not measured: {error}")
            return
        note = (
            f"{self.way.title}; whole board, {used.watts:.0f} W over {used.seconds:.1f} s, {used.calls} calls"
        )
        self.results.add(f"{key}_mj", f"{title}: energy", used.millijoules, "mJ", note=note)


def reason(error: BaseException) -> str:
    """The first line of an error that says something, with its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def bandwidth(device: Device, results: GpuResults) -> float:
    """File what is known of the memory; the peak in GB/s, or the copy's figure where none is known."""
    copied = device.copy_bandwidth()
    results.add("copy_gbs", "memory, measured copy", copied.gbs, "GB/s", note=copied.how)
    try:
        peak = device.peak_bandwidth()
    except NotMeasured as error:
        results.not_run["peak_gbs"] = f"not known: {error}; shares are of the measured copy"
        return copied.gbs
    results.add("peak_gbs", "memory, peak", peak.gbs, "GB/s", obtained=peak.obtained, note=peak.how)
    return peak.gbs


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = common.arguments(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, or cpu to try the program")
    names = ", ".join(MODELS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(DEFAULT), metavar="MODEL",
                        help=f"of {names} (default: all that are not tiny)")  # fmt: skip
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--prefill", nargs="*", type=int, default=[32, 128, 512], help="lengths of prompts")
    parser.add_argument("--context", nargs="*", type=int, default=[128, 1024],
                        help="positions that a new token attends to, itself included")  # fmt: skip
    parser.add_argument("--steps", type=int, default=200, help=f"of each figure, {LEAST_STEPS} or more")
    parser.add_argument("--energy-seconds", type=float, default=LEAST_SECONDS,
                        help=f"of each energy, {LEAST_SECONDS:g} or more; 0: no energy")  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16",
                        help="of activations; torch's int4 kernel for GPUs takes bfloat16 only")  # fmt: skip
    parser.add_argument("--backend", default="inductor", help="of torch.compile, to try the program quickly")
    found = parser.parse_args(argv)
    on_gpu = found.device != "cpu"
    if found.steps < (LEAST_STEPS if on_gpu else 1):
        parser.error(f"--steps {found.steps}: a figure is a median over {LEAST_STEPS} steps or more")
    if on_gpu and 0 < found.energy_seconds < LEAST_SECONDS:
        parser.error(
            f"--energy-seconds {found.energy_seconds:g}: the counter needs {LEAST_SECONDS:g} s or more"
        )
    if any(n < 2 for n in (*found.context, *found.prefill)):
        parser.error("prompts and contexts have 2 tokens or more")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; exit status 1 if no latency was measured, 2 without the device."""
    arguments = parse(argv)
    try:
        device = Device(arguments.device)
    except NoGpu as error:
        print(error, file=sys.stderr)
        return 2
    console, results = Console(), GpuResults("gpu_baseline", device=device.details())
    options = Options(device, DTYPES[arguments.dtype], arguments.prefill, arguments.context,
                      arguments.steps, arguments.energy_seconds, arguments.backend)  # fmt: skip
    peak = bandwidth(device, results)
    for model in (MODELS[key] for key in arguments.models):
        for way in (WAYS[key] for key in arguments.ways):
            console.print(f"{model.title}: {way.title}", highlight=False)
            try:
                Measurement(model, way, options, results, peak).run()
            except Exception as error:  # the model does not fit, say
                results.not_run[f"{model.key}_{way.key}"] = reason(error)
            gc.collect()  # a model leaves before the next one comes
            if device.cuda:
                torch.cuda.empty_cache()
            if arguments.json is not None:  # what is measured stays, whatever comes
                common.write_json(arguments.json, results.to_json())
    return finish(results, console, arguments)


def finish(results: GpuResults, console: Console, arguments: argparse.Namespace) -> int:
    """Print the table and what did not run; the exit status."""
    table = results.table()
    table.title = f"{results.benchmark}: {results.device['name']}"
    console.print(table)
    for key, why in results.not_run.items():
        console.print(f"{key}: not run: {why}", style="yellow", highlight=False, markup=False)
    if arguments.json is not None:
        console.print(f"written to {arguments.json}", highlight=False)
    if any(key.endswith("_ms") for key in results.figures):
        return 0
    console.print("no latency was measured", style="bold red")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
