# SPDX-License-Identifier: Apache-2.0
"""The host program on the emulated card: what it costs, and what it does when the card fails.

    python -m benchmarks.card --json benchmarks/results/card.json

The project is that of examples/speaker (W8A8). Its host program generates a text through XRT's real
library and the emulated card, one launch a token, while every kind of fault is injected at many points of
the text: each start of a kernel, each transfer, each allocation. A run must end by itself within a few
time-outs, and either give the tokens that it gives without a fault, or say what is wrong and exit with 1.
The same project with checksums has bits of the card's memory flipped while a text is generated.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console

import torch2fpga
from benchmarks.common import Results, arguments, progress_bar
from torch2fpga.emit.manifest import read_manifest
from torch2fpga.host.build import host_program
from torch2fpga.simulate.card import emulated_environment

#: new tokens of a text, each of them a launch
TOKENS = 24
#: points at which a fault is injected, at least
POINTS = 20
#: longest wait for a launch, in ms; a launch of the emulated card takes a tenth of it on a busy machine
TIMEOUT_MS = 2000
#: seconds within which a run must be over: loading, the text twice, and every wait that it may make
LIMIT_S = 60.0
#: own time of the host program a token, in microseconds
MOST_US = 20.0


@dataclass(frozen=True)
class Kind:
    """A kind of fault, injected once a point.

    Attributes:
        faults: of each point, for ``T2F_CARD_FAULTS``.
        options: of the host program.
        good: outcomes that are right.
        texts: what the program must say at each point; nothing: any text.
    """

    key: str
    title: str
    faults: tuple[str, ...]
    options: tuple[str, ...]
    good: tuple[str, ...]
    note: str = ""
    texts: tuple[str, ...] = ()


def kinds(kernels: list[str], ports: list[Mapping[str, Any]]) -> list[Kind]:
    """Every kind, at as many points of the text as it has, but ``POINTS`` at least."""
    launches = range(1, TOKENS + 1)
    images = [p["argument"] for p in ports if p["role"] in ("weights", "table", "params")]
    buffers = len({p["hbm"] for p in ports})

    def starts(kind: str, more: str = "") -> tuple[str, ...]:
        return tuple(f"{kind}:{kernels[n % len(kernels)]}@launch={n}{more}" for n in launches)

    reads = tuple(f"corrupt-read:tokens_out@sync={n}:bit={n * 5 % 32}" for n in launches)
    flips = tuple(
        f"corrupt-weights:{images[n % len(images)]}@sync=1:bit={n * 977}"
        for n in range(max(POINTS, len(images)))
    )
    allocations = tuple(f"alloc@n={n % buffers + 1}" for n in range(max(POINTS, buffers)))
    recover, late = ("--recover",), f":ms={2 * TIMEOUT_MS}"
    said, same = ("said",), ("same tokens",)
    return [
        Kind("hang", "a kernel hangs", starts("hang"), (), said, "the kernels that are not done are named"),
        Kind("hang_recover", "a kernel hangs, --recover", starts("hang"), recover, same),
        Kind("late", "a kernel is late, within the time-out", starts("timeout", ":ms=200"), (), same),
        Kind("timeout", "a kernel is late, beyond the time-out", starts("timeout", late), (), said),
        Kind("reset", "the device resets in mid run", starts("reset"), (), said),
        Kind("reset_recover", "the device resets, --recover", starts("reset"), recover, same),
        Kind("alloc", "an allocation fails", allocations, (), said, "every buffer in turn"),
        Kind(
            "read", "a bit of a token flips on its way to the host", reads, (), said,
            "bits 0 to 31; every token is fetched twice",
        ),
        Kind(
            "weights", "a bit of the weights flips on its way to the card", flips, (), said,
            "every image; they are read back and compared",
        ),
    ]  # fmt: skip


def memory_kinds(ports: list[Mapping[str, Any]]) -> list[Kind]:
    """Bits that change on the card, at every launch of the text and in every image that is added up."""
    images = [p for p in ports if p["role"] in ("weights", "params")]
    faults, texts = [], []
    for n in range(max(POINTS, TOKENS, len(images))):
        port, launch = images[n % len(images)], n % TOKENS + 1
        bit = n * 977 % (8 * port["bytes"])
        faults.append(f"corrupt-memory:{port['argument']}@launch={launch}:bit={bit}")
        texts.append(
            f"launch {launch}, turn 1: kernel {port['kernel']} read other bytes from {port['argument']} than "
            f"{port['file']} holds"
        )
    title, points = "checksums: a bit flips in the card's memory", tuple(faults)
    note = f"all {len(images)} images of weights and parameters; the port and the launch are named"
    return [
        Kind("memory", title, points, (), ("said",), note, tuple(texts)),
        Kind("memory_recover", f"{title}, --recover", points, ("--recover",), ("same tokens",)),
    ]


@dataclass
class Host:
    """The host program of a project, and what it gives without faults."""

    folder: Path
    program: Path
    prompt: str
    wanted: list[int]

    def run(self, faults: str, *options: str) -> tuple[str, float, str]:
        """(outcome, seconds, standard error); outcomes: same tokens, said, WRONG tokens, silent, HANGS."""
        command = [
            str(self.program), "--prompt-ids", self.prompt, "--tokens", str(TOKENS),
            "--tokens-per-launch", "1", "--timeout-ms", str(TIMEOUT_MS), *options,
        ]  # fmt: skip
        environment = emulated_environment(self.folder, faults=faults)
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return "HANGS", LIMIT_S, ""
        took = time.perf_counter() - began
        if done.returncode == 0:
            tokens = [int(t) for t in done.stdout.split()]
            return ("same tokens" if tokens == self.wanted else "WRONG tokens"), took, done.stderr
        return ("said" if done.returncode == 1 and done.stderr.strip() else "silent"), took, done.stderr


def inject(host: Host, kind: Kind, results: Results, console: Console) -> None:
    """One run a point."""
    found: dict[str, int] = {}
    longest = 0.0
    with progress_bar(console) as bar:
        for n, fault in enumerate(bar.track(kind.faults, description=kind.title)):
            outcome, took, said = host.run(fault, *kind.options)
            if outcome == "said" and kind.texts and kind.texts[n] not in said:
                outcome = "said something else"
            longest = max(longest, took)
            found[outcome] = found.get(outcome, 0) + 1
            if outcome not in kind.good:
                console.print(f"  {fault}: {outcome} {said.strip()[-300:]}", highlight=False)
    right = sum(found.get(outcome, 0) for outcome in kind.good)
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items()))
    note = "; ".join(text for text in (kind.note, outcomes, f"longest run {longest:.1f} s") if text)
    results.add(f"fault_{kind.key}", f"{kind.title}: right of {len(kind.faults)} points", right, "",
                ("==", len(kind.faults)), note=note)  # fmt: skip


def overhead(host: Host, results: Results, before: str = "", name: str = "host program") -> None:
    """Own time of the host program a token, one launch a token and as many as compiled for.

    Args:
        before: in front of the keys of the figures.
        name: of the program in their titles.
    """
    cases = {
        "each": ("one launch a token", ("--tokens-per-launch", "1"), 1.0),
        "whole": ("one launch a text", (), 1 / TOKENS),
    }
    for key, (title, step, most) in cases.items():
        path = host.folder / f"bench_{key}.json"
        command = [
            str(host.program), "--bench", "--prompt-ids", host.prompt, "--tokens", str(TOKENS),
            "--json", str(path), *step,
        ]  # fmt: skip
        log = host.folder / f"card_{key}.log"
        environment = emulated_environment(host.folder, log=log)
        subprocess.run(
            command, cwd=host.folder, env=environment, check=True, capture_output=True, timeout=300
        )
        found = json.loads(path.read_text(encoding="utf-8"))
        emulation = _calls_ns(log, found["launches"]) / found["tokens"] / 1e3
        note = (
            f"by the clock, outside of waits and without {emulation:.3g} us in which the emulation answers "
            f"calls; {found['tokens']:,} tokens"
        )
        results.add(
            f"{before}overhead_{key}", f"{name}, {title}: own time a token",
            round(found["host_us_per_token"] - emulation, 3), "us", ("<=", MOST_US), note=note,
        )  # fmt: skip
        launches = found["launches"] / found["tokens"]
        results.add(f"{before}launches_{key}", f"{name}, {title}: launches a token", launches, "",
                    ("<=", most))  # fmt: skip


def _calls_ns(log: Path, launches: int) -> int:
    """Time in calls that the emulation answers, of the launches that were measured: the last ones.

    Raises:
        ValueError: if the log does not have them, and the warm-up's in front of them.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    over = [line for line in lines if line["event"] == "completed"]
    last = [line["calls_ns"] for line in over if line["kernel"] == over[-1]["kernel"]]
    if len(last) <= launches:
        raise ValueError(f"{log.name} has {len(last)} launches, {launches} were measured")
    return int(last[-1] - last[-1 - launches])


def prepared(project: Path, checksums: bool) -> Host:
    """The project of examples/speaker in that folder, its program, and the tokens that are right."""
    from examples import speaker

    small = speaker.load()
    text = speaker.encode(small.tokenizer, "def __init__(self, name):\n")
    documents = [speaker.encode(small.tokenizer, d.text)[:64] for d in speaker.held_out()[:8]]
    prompt = torch.tensor([text])
    compiled = torch2fpga.compile(
        small.model, {"input_ids": prompt}, generate=True, max_length=64, checksums=checksums,
        calibration=[{"input_ids": torch.tensor([d])} for d in documents],
    )  # fmt: skip
    compiled.write(project)
    wanted = compiled.generate(prompt, max_new_tokens=TOKENS)[0, len(text) :].tolist()
    return Host(project, host_program(project), ",".join(map(str, text)), wanted)


def no_fault(host: Host, results: Results, key: str, title: str) -> None:
    """The tokens of an undisturbed run."""
    outcome, took, said = host.run("")
    results.add(
        key, f"{title} that differ from generate's", 0 if outcome == "same tokens" else TOKENS, "",
        ("==", 0), note=f"{TOKENS} tokens, {took:.1f} s with loading {said}".strip(),
    )  # fmt: skip


def main() -> int:
    parser = arguments(__doc__)
    given = parser.parse_args()
    console, results = Console(), Results("card")
    with tempfile.TemporaryDirectory(prefix="t2f_card_") as folder:
        host = prepared(Path(folder) / "project", checksums=False)
        no_fault(host, results, "no_fault", "tokens of the host program on the emulated card")
        data = read_manifest(host.folder)
        for kind in kinds([k["name"] for k in data["kernels"]], data["ports"]):
            inject(host, kind, results, console)
        overhead(host, results)
        host = prepared(Path(folder) / "summed", checksums=True)
        no_fault(host, results, "sums_no_fault", "checksums: tokens of the host program")
        for kind in memory_kinds(read_manifest(host.folder)["ports"]):
            inject(host, kind, results, console)
        overhead(host, results, "sums_", "checksums, host program")
    return results.finish(console, given.json)


if __name__ == "__main__":
    raise SystemExit(main())
