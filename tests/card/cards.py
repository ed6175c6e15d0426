# SPDX-License-Identifier: Apache-2.0
"""Host programs for the emulated card, line by line (driver.cpp), and projects to run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch2fpga.simulate.build import cache_directory, compiler
from torch2fpga.simulate.card import emulated_environment

COMPLETED, ERROR, ABORT, TIMEOUT = "4", "5", "6", "8"
DRIVER = Path(__file__).resolve().parent / "driver.cpp"


def driver() -> Path:
    """The host program of these tests, compiled against the real headers and library."""
    command = [compiler(), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-isystem/usr/include/xrt"]
    digest = hashlib.sha256(" ".join(command).encode() + DRIVER.read_bytes()).hexdigest()
    target = cache_directory() / f"card-driver-{digest[:24]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        libraries = ["-lxrt_coreutil", "-luuid", "-pthread"]
        subprocess.run([*command, str(DRIVER), "-o", str(fresh), *libraries], check=True)
        os.replace(fresh, target)
    return target


@dataclass
class Answers:
    """What each line was answered with, and what the card logged."""

    lines: list[tuple[str, str]]
    log: list[dict[str, Any]]
    errors: str

    def of(self, line: str) -> str:
        """The answer to the last line that begins so."""
        found = [answer for asked, answer in self.lines if asked.startswith(line)]
        assert found, f"no line {line!r} among {self.lines}"
        return found[-1]

    def refused(self) -> list[str]:
        """All refusals."""
        return [answer.removeprefix("refused ") for _, answer in self.lines if answer.startswith("refused")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log."""
        return [line for line in self.log if line["event"] == name]


@dataclass
class Card:
    """An emulated card with a project's xclbin.

    Attributes:
        folder: the project.
        work: for files of this test.
    """

    folder: Path
    work: Path
    environment: dict[str, str]
    manifest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, work: Path) -> Card:
        manifest = json.loads((folder / "manifest.json").read_text())
        return cls(folder, work, emulated_environment(folder, log=work / "log"), manifest)

    @property
    def kernels(self) -> list[str]:
        return [k["name"] for k in self.manifest["kernels"]]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Ports that a launch writes, without caches."""
        return [p for p in self.manifest["ports"] if p["direction"] == "write" and p["role"] != "cache"]

    @property
    def xclbin(self) -> Path:
        return self.folder / "emulation" / f"{self.manifest['design']}.xclbin"

    def numbers(self) -> list[int]:
        """Of the golden launch."""
        golden = self.manifest["golden"]
        return [golden["batch"], golden["seq"], *([0, golden["turns"]] if "turns" in golden else [])]

    def opened(self) -> list[str]:
        """A device with the xclbin, every kernel and a run of each."""
        made = [f"kernel {k} {k}" for k in self.kernels] + [f"run {k} {k}" for k in self.kernels]
        return ["device", f"load {self.xclbin}", *made]

    def filled(self, skip: Sequence[str] = ()) -> list[str]:
        """Buffers of the golden launch; those of ``skip`` are filled, but not brought to the card."""
        lines: list[str] = []
        caches: dict[str, str] = {}
        for port in self.manifest["ports"]:
            name = caches.get(port["binding"], port["argument"])
            if name == port["argument"]:
                lines.append(f"bo {name} {port['bytes']} {port['hbm']}")
                source = self._content(port)
                lines += [source] if source else []
                if source and name not in skip:
                    lines.append(f"to {name}")
            if port["role"] == "cache":
                caches[port["binding"]] = name
            lines.append(f"arg {port['kernel']} {port['index']} bo {name}")
        return [*lines, *self.scalars(self.numbers())]

    def _content(self, port: dict[str, Any]) -> str:
        name = port["argument"]
        if port["role"] == "cache":
            return f"byte {name} 128"
        if port["file"]:
            return f"fill {name} {self.folder / port['file']}"
        return f"fill {name} {self.folder}/golden/{name}.bin" if port["direction"] == "read" else ""

    def scalars(self, values: Sequence[int]) -> list[str]:
        """Numbers behind each kernel's memory ports and streams."""
        lines = []
        for kernel in self.manifest["kernels"]:
            ports = sum(p["kernel"] == kernel["name"] for p in self.manifest["ports"])
            first = ports + len(kernel["axis_in"]) + len(kernel["axis_out"])
            lines += [f"arg {kernel['name']} {first + i} int {v}" for i, v in enumerate(values)]
        return lines

    def launched(self, order: Sequence[str] | None = None, ms: int = 20_000) -> list[str]:
        """Starts in that order, then waits."""
        return [f"start {k}" for k in order or self.kernels] + [f"wait {k} {ms}" for k in self.kernels]

    def fetched(self) -> list[str]:
        """Outputs in files of ``work``."""
        names = [p["argument"] for p in self.outputs]
        return [line for n in names for line in (f"from {n}", f"save {n} {self.work / n}")]

    def differing(self) -> list[str]:
        """Outputs in ``work`` that are not the golden ones."""
        found = []
        for port in self.outputs:
            golden = (self.folder / "golden" / f"{port['argument']}.bin").read_bytes()
            if (self.work / port["argument"]).read_bytes()[: len(golden)] != golden:
                found.append(port["argument"])
        return found

    def run(self, lines: Sequence[str], faults: str = "", timeout: float = 60, **extra: str) -> Answers:
        """The answers of a host program that does these things."""
        log = self.work / "log"
        log.unlink(missing_ok=True)
        environment = self.environment | ({"T2F_CARD_FAULTS": faults} if faults else {}) | extra
        done = subprocess.run(
            [str(driver())], input="\n".join(lines) + "\n", env=environment,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
        answers = [line for line in done.stdout.splitlines() if line.startswith(("ok", "refused"))]
        assert len(answers) == len(lines), (lines, done.stdout)
        text = log.read_text() if log.exists() else ""
        return Answers(
            list(zip(lines, answers, strict=True)), [json.loads(x) for x in text.splitlines()], done.stderr
        )
