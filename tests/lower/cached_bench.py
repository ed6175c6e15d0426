# SPDX-License-Identifier: Apache-2.0
"""Stages behind a cache, one at a time: a turn's rows with the rows before them as words of memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.loop_count import _COUNTING, CountingLibrary, Entry
from tests.stage_bench import _PRELUDE, Bench, Bytes
from torch2fpga.design import Layout, Shape, Stage, Stream
from torch2fpga.lower.attention import ScoresStage, SoftmaxStage
from torch2fpga.lower.attention_arrays import KeyedArray
from torch2fpga.lower.cache import CacheStage
from torch2fpga.lower.rotary import RotaryStage
from torch2fpga.simulate.build import INCLUDE, build_library
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.turns import launch_tokens

#: rows a turn, and keys, at most
MOST_ROWS, MOST_KEYS = 7, 61
#: of steps, those of a stage from another one on
WINDOWS = (5, 0, 1, 20)
WORDS = Stream("words", "words")
_PAST = 'static int past = 0;\nextern "C" void set_past(int rows) { past = rows; }\n'


def array(
    kind: type[KeyedArray],
    lanes: int,
    tile: int,
    layout: Layout,
    shared: int,
    columns: int,
    keys: int = MOST_KEYS,
) -> Bench:
    """One of the two multiplier arrays."""
    kept = Layout(layout.groups // shared, layout.size)
    if kind is ScoresStage:
        streams = [Stream("q", "rows", "int8", layout), Stream("k", "rows", "int8", kept), WORDS]
        streams.append(Stream("s", "scores", "int32", layout))
    else:
        streams = [Stream("w", "scores", "uint8", layout), Stream("v", "rows", "int8", kept), WORDS]
        streams.append(Stream("y", "rows", "int32", layout))
    names = [s.name for s in streams]
    stage = kind(
        "a", "", "loop", 2, tuple(names[:3]), (names[3],), layout=layout, columns=columns,
        kv_groups=shared, cached=True,
    )  # fmt: skip
    return Bench(stage, tuple(streams), Shape(lanes, tile, 1, MOST_ROWS, keys))


def cache(lanes: int, tile: int, layout: Layout) -> Bench:
    """What writes rows to a cache."""
    streams = (Stream("x", "rows", "int8", layout), Stream("y", "rows", "int8", layout), WORDS)
    stage = CacheStage("c", "", "loop", 2, ("x",), ("y", "words"), layout=layout)
    return Bench(stage, streams, Shape(lanes, tile, 1, MOST_ROWS, MOST_KEYS))


def softmax(lanes: int, tile: int, layout: Layout, windowed: bool) -> Bench:
    """Weights from scores."""
    streams = (Stream("s", "scores", "int32", layout), Stream("w", "scores", "uint8", layout))
    stage = SoftmaxStage(
        "sm", "", "loop", 2, ("s",), ("w",), "p", layout=layout, causal=True, windowed=windowed, cached=True
    )
    return Bench(stage, streams, Shape(lanes, tile, 1, MOST_ROWS, MOST_KEYS))


def rotary(lanes: int, tile: int, layout: Layout) -> Bench:
    """The rotation by position."""
    streams = (Stream("x", "rows", "int16", layout), Stream("y", "rows", "int32", layout))
    stage = RotaryStage("r", "", "loop", 2, ("x",), ("y",), "p", layout=layout, cached=True)
    return Bench(stage, streams, Shape(lanes, tile, 1, MOST_ROWS, MOST_KEYS))


def draw(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    """Integers in [low, high)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)


def drawn(stage: Stage, rows: int, seed: int) -> list[Tensor]:
    """A stage's inputs for a text of so many rows, over the whole range of each."""
    if isinstance(stage, KeyedArray):
        kept = draw(-127, 128, 1, rows, stage.kept_layout.channels, seed=seed)
        if isinstance(stage, ScoresStage):
            return [draw(-128, 128, 1, rows, stage.layout.channels, seed=seed + 1), kept, kept]
        weights = draw(0, 256, 1, stage.layout.groups, rows, rows, seed=seed + 1)
        return [weights.tril(), kept, kept]  # no row sees one behind it
    assert isinstance(stage, SoftmaxStage | RotaryStage | CacheStage)
    if isinstance(stage, SoftmaxStage):
        top = 127 * 127 * 7 >> seed
        return [draw(-top, top + 1, 1, stage.layout.groups, rows, rows, seed=seed)]
    high = 127 if isinstance(stage, CacheStage) else 2**15 - 1
    return [draw(-high, high + 1, 1, rows, stage.layout.channels, seed=seed)]


def constants(stage: Stage, seed: int) -> dict[str, Any]:
    """Constants of a step."""
    if isinstance(stage, SoftmaxStage):
        window = WINDOWS[(seed + stage.layout.size // 16) % len(WINDOWS)] if stage.windowed else 0
        m = draw(1, 2**17, stage.layout.groups, seed=seed).long()
        return {"m": m, "shift": 17 + seed, "window": window}
    if isinstance(stage, RotaryStage):
        generator = torch.Generator().manual_seed(seed)
        return {"frequencies": torch.randint(0, 2**32, (stage.layout.size // 2,), generator=generator)}
    return {}


def memory_rows(value: Tensor, layout: Layout, lanes: int) -> Bytes:
    """(rows, bytes): every head filled up to whole tokens, every row to whole words of 64 bytes."""
    heads = value[0].reshape(-1, layout.groups, layout.size)
    filled = torch.nn.functional.pad(heads, (0, -layout.size % lanes)).reshape(len(heads), -1)
    whole = torch.nn.functional.pad(filled, (0, -filled.shape[1] % 64))
    return whole.to(torch.int8).numpy().view(np.uint8)


def written_words(rows: Bytes, tile: int) -> Bytes:
    """Words as they are written: tile by tile, a word of each row of a tile after the other."""
    tiles = [rows[i : i + tile] for i in range(0, len(rows), tile)]
    parts = [t.reshape(len(t), -1, 64).transpose(1, 0, 2).reshape(-1) for t in tiles]
    return np.concatenate(parts)


class CachedLibrary(CountingLibrary):
    """Benches of stages that take ``past``; ``changed`` is the text of a header that is used instead."""

    def __init__(self, benches: Sequence[Bench], changed: str = "") -> None:
        self.benches = tuple(benches)
        bodies = "\n".join(b.source(i) for i, b in enumerate(self.benches))
        self._library = ctypes.CDLL(
            str(build_library({"cached.cpp": _COUNTING + changed + _PRELUDE + _PAST + bodies}))
        )
        self._library.entry.restype = ctypes.c_char_p
        self._library.counted.restype = ctypes.c_long

    def turn_entries(self, index: int, past: int, seq: int) -> list[Entry]:
        """The loops that a turn enters."""
        self._library.set_past(past)
        return self.entries(index, 1, seq)

    def turn_mismatches(
        self, index: int, past: int, seq: int, inputs: Sequence[Sequence[Tensor]] | None = None
    ) -> int:
        """Values in which a turn of ``seq`` rows behind ``past`` ones differs from the reference, which has
        all rows at once."""
        bench = self.benches[index]
        stage, design, launch = bench.stage, bench.design, Launch(1, seq, past)
        steps = inputs or [drawn(stage, past + seq, 5 * step) for step in range(stage.steps)]
        data: list[Mapping[str, Any]] = [constants(stage, step) for step in range(stage.steps)]
        feeds = [
            self._words(bench, [s[slot] for s in steps], 0, past)
            if design.streams[name].kind == "words"
            else launch_tokens([s[slot] for s in steps], design.streams[name], design, launch)
            for slot, name in enumerate(stage.inputs)
        ]
        if stage.params:
            content = b"".join(stage.parameter_words(d, design) for d in data)
            feeds.append(np.frombuffer(content, dtype=np.uint8))
        results = [stage.reference(d, s) for d, s in zip(data, steps, strict=True)]
        expected = [
            self._words(bench, [r[slot] for r in results], past, past + seq)
            if design.streams[name].kind == "words"
            else launch_tokens([r[slot] for r in results], design.streams[name], design, launch)
            for slot, name in enumerate(stage.outputs)
        ]
        self._library.set_past(past)
        sizes = [e.nbytes for e in expected]
        got = self.tokens(index, [f.view(np.uint8) for f in feeds], sizes, 1, seq)
        assert all(sizes)
        return sum(int((g != e.view(np.uint8)).sum()) for g, e in zip(got, expected, strict=True))

    @staticmethod
    def _words(bench: Bench, values: Sequence[Tensor], first: int, end: int) -> Bytes:
        """Rows of a cache as they are read (an input) or written (an output), step by step."""
        stage, shape = bench.stage, bench.shape
        if isinstance(stage, KeyedArray):
            parts = [memory_rows(v, stage.kept_layout, shape.lanes)[first:end].reshape(-1) for v in values]
        else:
            assert isinstance(stage, CacheStage)
            rows = [memory_rows(v, stage.layout, shape.lanes)[first:end] for v in values]
            parts = [written_words(r, shape.tile) for r in rows]
        return np.concatenate(parts)


def header(name: str, old: str, new: str) -> str:
    """Text of a header of the library in which one place is changed; its guard keeps the real one out."""
    text = (INCLUDE / "t2f" / name).read_text()
    assert text.count(old) == 1, f"{name} has {text.count(old)} of {old!r}"
    return text.replace(old, new)
