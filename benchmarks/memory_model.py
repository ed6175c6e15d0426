# SPDX-License-Identifier: Apache-2.0
"""The timed run's memory model against published measurements of one HBM pseudo-channel.

    python -m benchmarks.memory_model --json benchmarks/results/memory_model.json

Published: the vendor's tutorial "Using HBM" (Vitis-Tutorials, 07-using-hbm/3_BW_Explorations), one
master, read only, 512 bit, on a U50, whose HBM2 subsystem is the same. Two of the random points
(64 bytes in one channel and over two) and the mean of the sequential ones set the model's three constants;
the others are predictions.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from torch2fpga.boards import U280
from torch2fpga.simulate.build import FLAGS, build_library
from torch2fpga.simulate.timed import FRACTION, PortSetting, Settings

SOURCE = Path(__file__).with_suffix(".cpp")
TRANSACTIONS = 4000
CLOCK_MHZ = 250.0
#: for traffic that is not sequential the vendor's examples keep 32 to 64 transactions under way
OUTSTANDING = 64
SIZES = (64, 128, 256, 512, 1024)
#: GB/s by bytes a transaction, in the order of SIZES
PUBLISHED = {
    "sequential": (13.10, 13.07, 13.10, 13.07, 13.04),
    "random1": (4.75, 9.60, 12.62, 13.13, 13.16),
    "random2": (0.76, 1.50, 2.71, 4.50, 6.55),
    "random4": (0.55, 1.07, 1.99, 3.50, 5.53),
}
TITLES = {
    "sequential": "sequential reads, one channel",
    "random1": "random reads, one channel",
    "random2": "random reads over two channels",
    "random4": "random reads over four channels",
}
CHANNELS = {"sequential": 1, "random1": 1, "random2": 2, "random4": 4}
#: what the model's constants were set from
FITTED = {("random1", 64), ("random2", 64)}
#: largest error that the predictions may have
TOLERANCE = 6.0


@dataclass(frozen=True)
class Point:
    """One cell of the published table, and what the model gives (GB/s)."""

    pattern: str
    size: int
    published: float
    modelled: float

    @property
    def error(self) -> float:
        """Percent."""
        return 100 * (self.modelled / self.published - 1)


class Generator:
    """The traffic generator, compiled with the clock; reads from a buffer of four channels."""

    def __init__(self) -> None:
        library = build_library({SOURCE.name: SOURCE.read_text(encoding="utf-8")}, (*FLAGS, "-DT2F_TIMED"))
        self._call = ctypes.CDLL(str(library)).memory_model
        self._call.restype = ctypes.c_char_p
        self.memory = np.zeros(4 * U280.hbm_bytes + 64, dtype=np.uint8)  # untouched pages take no memory
        self.base = self.memory.ctypes.data + -self.memory.ctypes.data % 64

    def gbs(self, pattern: str, size: int) -> float:
        """GB/s of transactions of ``size`` bytes."""
        hbm, cycles = U280.hbm, CLOCK_MHZ / 1000
        port = PortSetting(
            "k/memory", 0, False, 4 * hbm.channel_bytes,
            round(hbm.beat_cycles(64, CLOCK_MHZ) * FRACTION), 64,
            round(hbm.row_ns * cycles * FRACTION), round(hbm.cross_ns * cycles * FRACTION),
            hbm.channel_bytes, hbm.latency_cycles, OUTSTANDING, max(32, size // 64),
        )  # fmt: skip
        words = size // 64
        if pattern == "sequential":
            starts = np.arange(TRANSACTIONS) * words
        else:
            places = CHANNELS[pattern] * hbm.channel_bytes // size
            starts = np.random.default_rng(0).integers(0, places, TRANSACTIONS) * words
        starts = np.ascontiguousarray(starts, dtype=np.int64)
        text = Settings().text_of_run([port.line()])
        raw = self._call(
            ctypes.c_void_p(self.base), ctypes.c_void_p(starts.ctypes.data), ctypes.c_long(TRANSACTIONS),
            ctypes.c_long(words), text.encode(),
        ).decode()  # fmt: skip
        if raw.startswith("!"):
            raise RuntimeError(raw[1:])
        (found,) = json.loads(raw)["ports"]
        return float(found["bytes"] / ((found["last"] - found["first"]) / CLOCK_MHZ * 1000))


def points() -> Iterator[Point]:
    """Every cell of the table."""
    generator = Generator()
    for pattern, row in PUBLISHED.items():
        for size, published in zip(SIZES, row, strict=True):
            yield Point(pattern, size, published, generator.gbs(pattern, size))


def main() -> int:
    """Compare, print, write; the exit status is 1 if a prediction is further off than the tolerance."""
    arguments = common.arguments(__doc__).parse_args()
    results = Results("memory_model")
    worst = 0.0
    for point in points():
        fitted = (point.pattern, point.size) in FITTED
        if not fitted:
            worst = max(worst, abs(point.error))
        results.add(
            f"{point.pattern}_{point.size}",
            f"{TITLES[point.pattern]}, {point.size} bytes each",
            round(point.modelled, 2),
            "GB/s",
            obtained="timed",
            note=f"published {point.published:.2f} GB/s, difference {point.error:+.1f} %"
            + ("; sets one of the model's constants" if fitted else ""),
        )
    title = "largest difference of a predicted point"
    results.add("worst", title, round(worst, 1), "%", ("<=", TOLERANCE), "timed")
    return results.finish(Console(), arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
