# SPDX-License-Identifier: Apache-2.0
"""The stages that have a Verilog twin, their sizes, their tokens and the traffic around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.rtl.comparison import Case, Pattern, Stage, Tokens

Numbers = Mapping[str, int]


def _generator(n: Numbers) -> np.random.Generator:
    return np.random.default_rng(sorted(n.values()))


def _bytes(values: NDArray[Any], token: int) -> Tokens:
    """Numbers as tokens of so many bytes."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1, token)


def _rows(n: Numbers) -> int:
    """Rows over all steps."""
    return n["steps"] * n["batch"] * n["seq"]


def _shape(n: Numbers) -> dict[str, Any]:
    members = {key: n[key] for key in ("lanes", "tile", "steps")}
    return {**members, "max_batch": n["batch"], "max_seq": n["seq"]}


def _words(parameters: NDArray[np.int32]) -> Tokens:
    """Rows of up to 16 parameters as memory words."""
    words = np.zeros((len(parameters), 16), np.int32)
    words[:, : parameters.shape[1]] = parameters
    return _bytes(words, 64)


def _matmul_inputs(n: Numbers) -> dict[str, Tokens]:
    random = _generator(n)
    x = random.integers(-127, 128, (_rows(n) * n["in_blocks"], n["lanes"]), np.int8)
    blocks = n["steps"] * n["out_blocks"] * n["in_blocks"]
    w = random.integers(-127, 128, (blocks, n["lanes"] ** 2), np.int8)
    return {"x": _bytes(x, n["lanes"]), "w": _bytes(w, 64)}


def _layer_norm_inputs(n: Numbers) -> dict[str, Tokens]:
    """Rows of all magnitudes and means, zero behind the last channel, in the order of their tokens."""
    random = _generator(n)
    width = n["blocks"] * n["lanes"]
    bits = min(n["in_bits"], 24)  # of the values
    scale = 2.0 ** random.integers(0, bits - 3, (_rows(n), 1))
    rows = random.normal(0.3, 1, (_rows(n), width)) * scale
    rows[:, n["channels"] :] = 0
    rows = rows.round().clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    tiles = []
    for sequence in rows.reshape(-1, n["seq"], n["blocks"], n["lanes"]):
        tiles += [sequence[at : at + n["tile"]].swapaxes(0, 1) for at in range(0, n["seq"], n["tile"])]
    tokens = np.concatenate([tile.reshape(-1, n["lanes"]) for tile in tiles])
    shift = bits + math.floor(math.log2(n["channels"]))
    eps = n["channels"] * 37
    parameters = [[eps, 0, round(2.0**shift / n["channels"]), shift]] * n["steps"]
    element = np.int16 if n["in_bits"] == 16 else np.int32
    x = _bytes(tokens.astype(element), n["lanes"] * n["in_bits"] // 8)
    return {"x": x, "params": _words(np.array(parameters, np.int32))}


def _keys(n: Numbers) -> int:
    return -(-n["seq"] // n["lanes"])


def _softmax_inputs(n: Numbers) -> dict[str, Tokens]:
    """Scores over a range in which weights are small, large and zero; a quarter of the keys is padding."""
    random = _generator(n)
    scores = random.integers(-20000, 20000, (_softmax_outputs(n), n["lanes"]), np.int32)
    mask = (random.random((n["batch"] * _keys(n), n["lanes"])) < 0.75).astype(np.int8)
    words = []
    for _ in range(n["steps"]):
        heads = np.zeros(16 * -(-n["heads"] // 16), np.int32)
        heads[: n["heads"]] = random.integers(1000, 9000, n["heads"])
        words += [[16] + [0] * 15, *heads.reshape(-1, 16).tolist()]
    return {
        "scores": _bytes(scores, 4 * n["lanes"]),
        "mask": _bytes(mask, n["lanes"]),
        "params": _words(np.array(words, np.int32)),
    }


def _softmax_outputs(n: Numbers) -> int:
    return _rows(n) * n["heads"] * _keys(n)


def _sequences(n: Numbers) -> int:
    """Over all steps."""
    return n["steps"] * n["batch"]


def _tiles(n: Numbers) -> int:
    """Over all steps."""
    return _sequences(n) * -(-n["seq"] // n["tile"])


MATMUL = Stage(
    "matmul",
    "matmul.hpp",
    ("JOIN", "LOAD", "REDUCE"),
    lambda n: {
        **_shape(n), "columns": n["columns"], "in_blocks": n["in_blocks"], "out_blocks": n["out_blocks"],
        "resident": False,
    },
    ("lanes", "tile", "columns", "in_blocks", "out_blocks", "steps"),
    _matmul_inputs,
    lambda n: _rows(n) * n["out_blocks"],
    _sequences,
    ("JOIN",),
)  # fmt: skip
LAYER_NORM = Stage(
    "layer_norm",
    "normalize.hpp",
    ("LOAD", "SUM", "INVERSE", "OUTPUT"),
    lambda n: {
        **_shape(n), "in_t": f"int{n['in_bits']}_t", "blocks": n["blocks"], "channels": n["channels"],
        "ways": n["ways"],
    },
    ("lanes", "ways", "tile", "blocks", "channels", "in_bits", "steps"),
    _layer_norm_inputs,
    lambda n: _rows(n) * n["blocks"],
    _tiles,
)  # fmt: skip
SOFTMAX = Stage(
    "softmax",
    "attention_softmax.hpp",
    ("MASK", "LOAD", "ROWS"),
    lambda n: {
        **_shape(n), "heads": n["heads"], "head_blocks": 1, "key_blocks": _keys(n),
        "causal": bool(n["causal"]), "masked": True, "windowed": False,
    },
    ("lanes", "tile", "heads", "key_blocks", "max_batch", "causal", "steps"),
    _softmax_inputs,
    _softmax_outputs,
    _tiles,
)  # fmt: skip


def _case(stage: Stage, name: str, depths: tuple[int, ...], fifo: int, **numbers: int) -> Case:
    """A case whose numbers include what follows from the others."""
    if stage is SOFTMAX:
        numbers |= {"key_blocks": _keys(numbers), "max_batch": numbers["batch"]}
    return Case(stage, name, numbers, depths, fifo)


#: nothing divides anything in the small ones; the last of each stage has the width of MiniLM
CASES = (
    _case(MATMUL, "13x3 rows, 16 to 24 channels", (3, 2, 9), 2,
          lanes=8, tile=3, columns=8, steps=2, batch=3, seq=13, in_blocks=2, out_blocks=3),
    _case(MATMUL, "11 rows, 80 to 32 channels, 4 columns", (2, 4, 13), 16,
          lanes=16, tile=2, columns=4, steps=1, batch=1, seq=11, in_blocks=5, out_blocks=2),
    _case(MATMUL, "7x2 rows, 32 to 16 channels, 8 columns", (4, 3, 6), 2,
          lanes=16, tile=4, columns=8, steps=2, batch=2, seq=7, in_blocks=2, out_blocks=1),
    _case(MATMUL, "21 rows, 384 to 384 channels", (3, 3, 14), 16,
          lanes=16, tile=4, columns=16, steps=1, batch=1, seq=21, in_blocks=24, out_blocks=24),
    _case(LAYER_NORM, "13x3 rows of 13", (2, 5, 33, 11), 2,
          lanes=8, ways=8, tile=3, steps=2, batch=3, seq=13, blocks=2, channels=13, in_bits=16),
    _case(LAYER_NORM, "7x2 rows of 40, tile 1", (1, 4, 9, 6), 16,
          lanes=8, ways=8, tile=1, steps=1, batch=2, seq=7, blocks=5, channels=40, in_bits=32),
    _case(LAYER_NORM, "11x2 rows of 29, 2 of 8 channels a cycle", (2, 4, 12, 8), 2,
          lanes=8, ways=2, tile=4, steps=2, batch=2, seq=11, blocks=4, channels=29, in_bits=32),
    _case(LAYER_NORM, "50 rows of 384", (2, 7, 40, 12), 16,
          lanes=16, ways=16, tile=4, steps=1, batch=1, seq=50, blocks=24, channels=384, in_bits=16),
    _case(SOFTMAX, "19x2 rows, 2 heads", (3, 2, 11), 2,
          lanes=8, tile=3, steps=2, batch=2, seq=19, heads=2, causal=0),
    _case(SOFTMAX, "11x2 rows, 3 heads, causal", (2, 3, 8), 16,
          lanes=8, tile=2, steps=1, batch=2, seq=11, heads=3, causal=1),
    _case(SOFTMAX, "50 rows, 12 heads", (3, 3, 17), 16,
          lanes=16, tile=4, steps=1, batch=1, seq=50, heads=12, causal=0),
)  # fmt: skip


#: a FIFO's worth of tokens comes in and leaves in turn
SHORT_BURSTS = Pattern(period=13, burst=7)


def traffic(case: Case) -> dict[str, dict[str, Pattern]]:
    """What is around the stage, by name; a stream that is not named moves a token a cycle."""
    first = next(iter(case.inputs))
    slow, bursts = Pattern(ii=3), Pattern(period=40, burst=9)
    return {
        "free": {},
        "slow source": {first: slow},
        "source in bursts": {first: bursts},
        "slow sink": {"y": slow},
        "sink in bursts": {"y": bursts},
        "both slow": {first: slow, "y": slow},
        "both in bursts": {first: bursts, "y": Pattern(period=56, burst=17)},
        "both in short bursts": {first: SHORT_BURSTS, "y": SHORT_BURSTS},
    }
