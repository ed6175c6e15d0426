# SPDX-License-Identifier: Apache-2.0
"""Stages that only move tokens: every token arrives once, in order, where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import cxx_cache
from torch2fpga.design import Layout, Shape, Stage, Stream
from torch2fpga.lower.plumbing import (
    ForkStage,
    LoopEnterStage,
    LoopExitStage,
    PackStage,
    RelayStage,
    UnpackStage,
)

__all__ = ["cxx_cache"]
LIKE = Stream("x", "rows", "int16", Layout(3, 7))
EXPONENTS = Stream("x", "exponents")
STEPS = 3


def _flow(stage: Stage, like: Stream) -> tuple[Stage, tuple[Stream, ...]]:
    names = dict.fromkeys((*stage.inputs, *stage.outputs))
    return stage, tuple(Stream(n, like.kind, like.element, like.layout) for n in names)


def _words(stage: PackStage | UnpackStage, values: str) -> tuple[Stage, tuple[Stream, ...]]:
    kind = "mask" if isinstance(stage, UnpackStage) and stage.mask else "rows"
    return stage, (Stream("w", "words"), Stream(values, kind, stage.element, stage.layout))


STAGES: dict[str, tuple[Stage, tuple[Stream, ...]]] = {
    "fork2": _flow(ForkStage("f", "", "loop", STEPS, ("x",), ("a", "b"), like=LIKE), LIKE),
    "fork3": _flow(ForkStage("f", "", "loop", STEPS, ("x",), ("a", "b", "c"), like=EXPONENTS), EXPONENTS),
    "relay": _flow(RelayStage("r", "", "loop", STEPS, ("x",), ("y",), like=LIKE, uses=2), LIKE),
    "enter": _flow(LoopEnterStage("e", "", "loop", STEPS, ("x", "back"), ("y",), like=LIKE), LIKE),
    "both": _flow(LoopExitStage("o", "", "loop", STEPS, ("x",), ("back", "y"), like=LIKE), LIKE),
    "back": _flow(LoopExitStage("o", "", "loop", STEPS, ("x",), ("back",), like=LIKE, mode="back"), LIKE),
    "last": _flow(LoopExitStage("o", "", "loop", STEPS, ("x",), ("y",), like=LIKE, mode="last"), LIKE),
}
PACKED = {
    (element, direction): (
        PackStage("p", "", "after", 1, ("v",), ("w",), layout=Layout(3, 7), element=element)
        if direction == "pack"
        else UnpackStage("p", "", "before", 1, ("w",), ("v",), layout=Layout(3, 7), element=element)
    )
    for element in ("int8", "int16", "int32")
    for direction in ("pack", "unpack")
}
MASK = UnpackStage("m", "", "before", 1, ("w",), ("v",), mask=True)
NAMES = (*STAGES, *PACKED, "mask")


@pytest.fixture(scope="module")
def library() -> Library:
    made = [*STAGES.values(), *(_words(s, "v") for s in PACKED.values()), _words(MASK, "v")]
    return Library(
        [
            Bench(stage, streams, Shape(*SHAPES[i % len(SHAPES)], MAX_BATCH, MAX_SEQ))
            for i, (stage, streams) in enumerate(made)
        ]
    )


def _tokens(bench: Bench, passes: int, batch: int, seq: int, seed: int = 0) -> NDArray[np.uint8]:
    like = STAGES["fork3"][1][0] if "c" in bench.stage.outputs else LIKE
    lanes = bench.shape.lanes
    count = passes * batch * seq * (1 if like.kind == "exponents" else like.layout.blocks(lanes))
    generator = torch.Generator().manual_seed(seed)
    size = count * like.token_bytes(lanes)
    return torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8).numpy()


#: name -> passes of each input, and for each output which parts of the inputs (slot, pass) it carries
FLOWS: dict[str, tuple[tuple[int, ...], tuple[tuple[tuple[int, int], ...], ...]]] = {
    "fork2": ((3,), (((0, 0), (0, 1), (0, 2)),) * 2),
    "fork3": ((3,), (((0, 0), (0, 1), (0, 2)),) * 3),
    "relay": ((2,), (((0, 0), (0, 1)),)),
    "enter": ((1, 2), (((0, 0), (1, 0), (1, 1)),)),
    "both": ((3,), (((0, 0), (0, 1)), ((0, 2),))),
    "back": ((3,), (((0, 0), (0, 1)),)),
    "last": ((3,), (((0, 2),),)),
}


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("name", STAGES)
def test_flow(library: Library, name: str, batch: int, seq: int) -> None:
    index = NAMES.index(name)
    bench = library.benches[index]
    passes, carried = FLOWS[name]
    feeds = [_tokens(bench, n, batch, seq, seed) for seed, n in enumerate(passes)]
    parts = [np.split(feed, n) for feed, n in zip(feeds, passes, strict=True)]
    want = [np.concatenate([parts[slot][at] for slot, at in one]) for one in carried]
    got = library.tokens(index, feeds, [w.size for w in want], batch, seq)
    assert all(np.array_equal(g, w) for g, w in zip(got, want, strict=True))


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("key", PACKED, ids=str)
def test_words(library: Library, key: tuple[str, str], batch: int, seq: int) -> None:
    """Memory holds the tokens one behind the other; the last word is filled up with zeros."""
    index = NAMES.index(key)
    bench = library.benches[index]
    stream = next(s for s in bench.streams if s.kind == "rows")
    size = batch * seq * stream.layout.blocks(bench.shape.lanes) * stream.token_bytes(bench.shape.lanes)
    vectors = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
    words = np.concatenate([vectors, np.zeros(-size % 64, dtype=np.uint8)])
    source, wanted = (vectors, words) if key[1] == "pack" else (words, vectors)
    (got,) = library.tokens(index, [source], [wanted.size], batch, seq)
    assert np.array_equal(got, wanted)


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
def test_mask_words(library: Library, batch: int, seq: int) -> None:
    index = NAMES.index("mask")
    lanes = library.benches[index].shape.lanes
    size = batch * -(-seq // lanes) * lanes
    flags = np.random.default_rng(0).integers(0, 2, size, dtype=np.uint8)
    words = np.concatenate([flags, np.zeros(-size % 64, dtype=np.uint8)])
    (got,) = library.tokens(index, [words], [size], batch, seq)
    assert np.array_equal(got, flags)


@pytest.mark.gxx
def test_missing_tokens_are_seen(library: Library) -> None:
    """The bench itself: too few tokens are an error, not a hang or a pass."""
    index = NAMES.index("relay")
    feed = _tokens(library.benches[index], 2, 2, 5)
    with pytest.raises(AssertionError, match="token counts are wrong"):
        library.tokens(index, [feed[:-64]], [feed.size], 2, 5)
    with pytest.raises(AssertionError, match="token counts are wrong"):
        library.tokens(index, [np.concatenate([feed, feed[:64]])], [feed.size], 2, 5)
