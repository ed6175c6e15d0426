# SPDX-License-Identifier: Apache-2.0
"""Weights, inputs and golden outputs of the hand-written perceptron, with plain numpy integers.

    python examples/handwritten_mlp/generate.py build/handwritten_mlp/data --batch 2 --seq 7

Nothing of torch2fpga is imported: the formulas and the memory layouts are written out from
docs/stage-library.md a second time, so that the library is checked against something outside it.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

LANES, TILE = 16, 4
INPUTS, HIDDEN, OUTPUTS = 20, 36, 10


@dataclass(frozen=True)
class Layer:
    """y = clip(floor((x @ weight.T * multiplier + bias * 2^bias_shift + 2^(shift-1)) / 2^shift))."""

    weight: Ints
    multiplier: Ints
    bias: Ints
    shift: int
    bias_shift: int
    low: int
    high: int

    def __call__(self, x: Ints) -> Ints:
        """One row at a time would give the same: no rounding depends on another row."""
        total = (x @ self.weight.T) * self.multiplier + self.bias * 2**self.bias_shift
        rounded = np.floor_divide(total + 2 ** (self.shift - 1), 2**self.shift)
        return np.clip(rounded, self.low, self.high)


def layers(generator: np.random.Generator) -> tuple[Layer, Layer]:
    """Random layers whose results fill their formats, and overflow them now and then."""

    def draw(low: int, high: int, *shape: int) -> Ints:
        return generator.integers(low, high + 1, shape, dtype=np.int64)

    hidden = Layer(
        weight=draw(-127, 127, HIDDEN, INPUTS),
        multiplier=draw(20_000, 120_000, HIDDEN),
        bias=draw(-(2**20), 2**20, HIDDEN),
        shift=24,
        bias_shift=9,
        low=0,  # ReLU on a symmetric int8
        high=127,
    )
    scores = Layer(
        weight=draw(-127, 127, OUTPUTS, HIDDEN),
        multiplier=draw(50_000, 120_000, OUTPUTS),
        bias=draw(-(2**28), 2**28, OUTPUTS),
        shift=17,
        bias_shift=0,
        low=-(2**15),
        high=2**15 - 1,
    )
    # Channel 0 halves its accumulator: every odd one is a tie, which must go up.
    scores.multiplier[0], scores.bias[0] = 2 ** (scores.shift - 1), 0
    return hidden, scores


def blocks(channels: int) -> int:
    """Tokens of LANES channels that one row takes."""
    return -(-channels // LANES)


def row_tokens(rows: Ints, dtype: str) -> bytes:
    """(batch, seq, channels): for sequence, for tile, for channel block, for row in the tile."""
    batch, seq, channels = rows.shape
    out = bytearray()
    for b in range(batch):
        for first in range(0, seq, TILE):
            for block in range(blocks(channels)):
                for t in range(first, min(first + TILE, seq)):
                    token = np.zeros(LANES, dtype=dtype)
                    part = rows[b, t, block * LANES : (block + 1) * LANES]
                    token[: part.size] = part
                    out += token.tobytes()
    return bytes(out) + bytes(-len(out) % 64)


def weight_words(weight: Ints) -> bytes:
    """(out, in): for output block, for input block, LANES x LANES bytes, output channel outermost."""
    outputs, inputs = weight.shape
    padded = np.zeros((blocks(outputs) * LANES, blocks(inputs) * LANES), dtype=np.int8)
    padded[:outputs, :inputs] = weight
    out = bytearray()
    for o in range(0, padded.shape[0], LANES):
        for i in range(0, padded.shape[1], LANES):
            out += padded[o : o + LANES, i : i + LANES].tobytes()
    return bytes(out)


def parameter_words(layer: Layer) -> bytes:
    """A header word, then for each channel block a word of multipliers and a word of biases."""
    out = bytearray(struct.pack("<16i", layer.shift, layer.bias_shift, *[0] * 14))
    for start in range(0, layer.bias.size, LANES):
        for values in (layer.multiplier, layer.bias):
            part = values[start : start + LANES].tolist()
            out += struct.pack("<16i", *part, *[0] * (16 - len(part)))
    return bytes(out)


def write(folder: Path, batch: int, seq: int, seed: int = 0) -> Ints:
    """Write every file that tb.cpp reads.

    Returns:
        (batch, seq, OUTPUTS) golden scores.
    """
    generator = np.random.default_rng(seed)
    hidden, scores = layers(generator)
    x = generator.integers(-127, 128, (batch, seq, INPUTS), dtype=np.int64)
    golden = scores(hidden(x))
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "input": row_tokens(x, "<i1"),
        "hidden_weights": weight_words(hidden.weight),
        "hidden_params": parameter_words(hidden),
        "scores_weights": weight_words(scores.weight),
        "scores_params": parameter_words(scores),
        "golden": row_tokens(golden, "<i2"),
    }
    for name, content in files.items():
        (folder / f"{name}.bin").write_bytes(content)
    return golden


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seq", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    golden = write(chosen.folder, chosen.batch, chosen.seq, chosen.seed)
    print(f"{golden.shape[0]} x {golden.shape[1]} rows in {chosen.folder}")


if __name__ == "__main__":
    main()
