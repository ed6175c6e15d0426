# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: figures that say how they were obtained, timing, counting, output."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

#: ways in which a figure can be obtained; never two of them in one unlabelled column
OBTAINED = ("measured here", "timed", "modelled", "published")
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: what was measured.
        value: the number.
        unit: its unit, or nothing.
        bound: what the project aims at, as (">=" or "<=" or "==", number), if anything.
        obtained: one of ``OBTAINED``.
        note: conditions that a reader needs.
    """

    title: str
    value: float
    unit: str = ""
    bound: tuple[str, float] | None = None
    obtained: str = "measured here"
    note: str = ""

    def __post_init__(self) -> None:
        if self.obtained not in OBTAINED:
            raise ValueError(f"a figure is obtained by one of {OBTAINED}, not by {self.obtained!r}")

    @property
    def reached(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.bound is None:
            return None
        sign, aim = self.bound
        return {">=": self.value >= aim, "<=": self.value <= aim, "==": self.value == aim}[sign]


@dataclass
class Results:
    """The figures of one benchmark, in the order in which they are shown."""

    benchmark: str
    figures: dict[str, Figure] = field(default_factory=dict)

    def add(
        self,
        key: str,
        title: str,
        value: float,
        unit: str = "",
        bound: tuple[str, float] | None = None,
        obtained: str = "measured here",
        note: str = "",
    ) -> None:
        """File a figure under a key that stays the same from run to run; see ``Figure``."""
        if key in self.figures:
            raise ValueError(f"there are two figures called {key}")
        self.figures[key] = Figure(title, value, unit, bound, obtained, note)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the circumstances."""
        return {
            "benchmark": self.benchmark,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            **self.circumstances(),
            "figures": {k: {**asdict(f), "reached": f.reached} for k, f in self.figures.items()},
        }

    def circumstances(self) -> dict[str, Any]:
        """On what machine, with which versions."""
        return {"machine": machine(), "versions": versions()}

    def keep(self, path: Path) -> None:
        """Take over the figures of a file that were not measured now: a benchmark may be run in parts."""
        if path.is_file():
            for key, values in json.loads(path.read_text(encoding="utf-8"))["figures"].items():
                values.pop("reached")
                values["bound"] = tuple(values["bound"]) if values["bound"] else None
                self.figures.setdefault(key, Figure(**values))

    def finish(self, console: Console, path: Path | None) -> int:
        """Print the table, write the JSON, and return the exit status: 1 if an aim was missed."""
        console.print(self.table())
        console.print(
            "one core, except g++; no board and no Vitis was involved in any of these figures", style="dim"
        )
        if path is not None:
            write_json(path, self.to_json())
            console.print(f"written to {path}", highlight=False)
        missed = [f.title for f in self.figures.values() if f.reached is False]
        if missed:
            console.print("missed: " + "; ".join(missed), style="bold red", highlight=False)
        return 1 if missed else 0

    def table(self) -> Table:
        """What is printed."""
        table = Table(title=f"{self.benchmark}: {machine()['class']}", title_justify="left")
        for name in ("figure", "result", "aim", "obtained", "note"):
            table.add_column(name, justify="right" if name == "result" else "left", overflow="fold")
        for figure in self.figures.values():
            colour = {True: "green", False: "red", None: ""}[figure.reached]
            value = f"{format_number(figure.value)} {figure.unit}".strip()
            aim = f"{figure.bound[0]} {format_number(figure.bound[1])}" if figure.bound else ""
            shown = f"[{colour}]{value}[/]" if colour else value
            table.add_row(figure.title, shown, aim, figure.obtained, figure.note)
        return table


def format_number(value: float) -> str:
    """Enough digits to compare, not more."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) < 1 and abs(value) > 0.9:
        return f"{value:.5f}".rstrip("0")
    return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write beside, then rename: an interrupted benchmark leaves the old figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def machine() -> dict[str, Any]:
    """Class of the machine, enough to judge a time; no name, no address."""
    model, flags = platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        model = fields.get("model name", model)
        known = set(fields.get("flags", "").split())
        flags = " ".join(f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if f in known)
    cores = len(os.sched_getaffinity(0))
    return {
        "class": f"{cores} cores of {model}" + (f" ({flags})" if flags else ""),
        "cores": cores,
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def versions() -> dict[str, str]:
    """Versions on which a figure can depend."""
    import transformers

    import torch2fpga

    gxx = subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=False)
    return {
        "torch2fpga": torch2fpga.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "g++": gxx.stdout.strip(),
    }


def seconds(call: Callable[[], Any], *, repeat: int = 1) -> tuple[float, Any]:
    """(median wall-clock seconds, last result) of a call."""
    times, result = [], None
    for _ in range(repeat):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def peak_bytes() -> int:
    """Most memory that this process has had (ru_maxrss would count the parent's at the fork)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@contextmanager
def one_core() -> Iterator[None]:
    """One thread of torch: rates are those of one core, and a busy machine distorts times less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fresh_build_cache() -> Iterator[None]:
    """An empty cache of g++ results, so that a build is a build."""
    before = os.environ.get("TORCH2FPGA_CACHE")
    with tempfile.TemporaryDirectory(prefix="t2f_bench_") as folder:
        os.environ["TORCH2FPGA_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["TORCH2FPGA_CACHE"]
            else:
                os.environ["TORCH2FPGA_CACHE"] = before


def arguments(text: str | None) -> argparse.ArgumentParser:
    """The command line that every benchmark has."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=text, formatter_class=style)
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser


def progress_bar(console: Console) -> Progress:
    """A bar that counts, gone at the end; silent where nobody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def multiply_accumulates(model: nn.Module, batch: int, tokens: int) -> int:
    """MACs of one call of a transformer: its linears, and both products of every attention.

    A linear that works on one row a sequence (a pooling head) is counted for one row; products with
    masked or future keys are counted, because the hardware computes them too.
    """
    from transformers.pytorch_utils import Conv1D

    total = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            total += module.weight.numel() * batch * (1 if "pooler" in name else tokens)
    config: Any = model.config
    return total + 2 * config.num_hidden_layers * batch * tokens * tokens * config.hidden_size


def add_rates(
    results: Results,
    compiled: Any,
    model: nn.Module,
    row: Mapping[str, Tensor],
    key: str = "",
    title: str = "",
) -> None:
    """Rates of the functional run and of the quantised reference for one sequence."""
    batch, tokens = row["input_ids"].shape
    macs = multiply_accumulates(model, batch, tokens)
    note = f"one sequence of {tokens} tokens, {macs / 1e9:.2f} GMAC, packing of inputs included"
    compiled(**row)  # builds, and loads the weights
    took, _ = seconds(lambda: compiled(**row), repeat=3)
    rate = macs / took / 1e9
    results.add(f"{key}functional_gmacs", f"{title}functional run", rate, "GMAC/s", (">=", 1.0), note=note)
    took, _ = seconds(lambda: compiled.reference(**row), repeat=3)
    rate = macs / took / 1e9
    results.add(
        f"{key}reference_gmacs", f"{title}quantised reference", rate, "GMAC/s", (">=", 5.0), note=note
    )
