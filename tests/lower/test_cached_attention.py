# SPDX-License-Identifier: Apache-2.0
"""Attention behind a cache: every stage against its reference, banks, cycles, and whole models."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

import torch2fpga
from tests.loop_count import odd_depth, total_cycles
from tests.lower.cached_bench import (
    MOST_ROWS,
    CachedLibrary,
    array,
    cache,
    header,
    memory_rows,
    rotary,
    softmax,
)
from tests.tiny import WORDS, cxx_cache, rotating, seeded
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design, Kernel, Layout, Shape, Tokens
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import project_files
from torch2fpga.errors import SimulationError
from torch2fpga.lower.attention import ScoresStage, ValuesStage
from torch2fpga.lower.attention_arrays import KeyedArray
from torch2fpga.plan.fifo import size_fifos
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.runtime.generation import verify_generation
from torch2fpga.simulate import functional
from torch2fpga.simulate.build import build_library
from torch2fpga.timing.depths import depths_of, pipelined_loops

__all__ = ["cxx_cache", "seeded"]

#: lanes, tile, heads and head size, queries a head of keys, keys a cycle: rows of less than a word, of whole
#: words and of a part more; more banks than blocks of a word, as many, fewer, and one
ARRAYS = (
    (16, 3, Layout(4, 12), 2, 16),
    (16, 4, Layout(6, 36), 2, 8),
    (16, 1, Layout(4, 20), 1, 4),
    (16, 2, Layout(3, 36), 1, 2),
    (16, 3, Layout(6, 20), 3, 1),
    (16, 5, Layout(5, 7), 1, 1),
    (8, 3, Layout(4, 12), 2, 16),
    (8, 4, Layout(3, 36), 1, 4),
    (8, 1, Layout(6, 20), 2, 2),
    (8, 2, Layout(4, 12), 4, 1),
    (8, 3, Layout(2, 36), 1, 8),
)
#: banks that only URAM is deep enough for
DEEP = 600
ROWS = (
    (16, 3, Layout(2, 12)),
    (16, 1, Layout(3, 36)),
    (8, 4, Layout(3, 20)),
    (8, 2, Layout(1, 64)),
)
BENCHES = [
    *(array(kind, *case) for kind in (ScoresStage, ValuesStage) for case in ARRAYS),
    *(array(kind, 16, 2, Layout(2, 64), 1, 1, DEEP) for kind in (ScoresStage, ValuesStage)),
    *(cache(*case) for case in ROWS),
    *(softmax(*case, windowed) for case, windowed in zip(ROWS, (False, True, True, True), strict=True)),
    *(rotary(*case) for case in ROWS),
]
NAMES = [f"{i}-{type(b.stage).__name__}-{b.shape.lanes}" for i, b in enumerate(BENCHES)]


def turns(shape: Shape) -> list[tuple[int, int]]:
    """(rows in the cache, rows of the turn): no rows, up to a block of keys and one more, and as many as
    there can be; one row of a turn, and several tiles."""
    many = shape.max_keys - MOST_ROWS
    return [(past, seq) for past in (0, 1, shape.lanes - 1, shape.lanes, many) for seq in (1, MOST_ROWS)]


@pytest.fixture(scope="module")
def library() -> CachedLibrary:
    return CachedLibrary(BENCHES)


@pytest.mark.gxx
@pytest.mark.parametrize("index", range(len(BENCHES)), ids=NAMES)
def test_a_turn_equals_the_reference_of_all_rows(library: CachedLibrary, index: int) -> None:
    for past, seq in turns(BENCHES[index].shape):
        assert library.turn_mismatches(index, past, seq) == 0, (past, seq)


@pytest.mark.gxx
@pytest.mark.parametrize("index", range(len(BENCHES)), ids=NAMES)
def test_cycles_are_those_of_every_loop_entry(library: CachedLibrary, index: int) -> None:
    bench = BENCHES[index]
    for past, seq in turns(bench.shape):
        entries = library.turn_entries(index, past, seq)
        want = bench.stage.turn_cycles(bench.design, seq, past, odd_depth)
        assert want == total_cycles(entries, odd_depth), (past, seq)
        if isinstance(bench.stage, KeyedArray):
            # PAST first, so that words of the next step come in behind the last row of this one.
            once = [*(["PAST"] if past else []), "KEEP", bench.stage.label]
            assert [e.label for e in entries] == 2 * once


@pytest.mark.gxx
def test_a_word_a_cycle(library: CachedLibrary) -> None:
    """4 blocks of 16 lanes, 8 of 8: a row of 9 blocks takes 3 words."""
    index = ARRAYS.index((16, 2, Layout(3, 36), 1, 2))
    assert [e.iterations for e in library.turn_entries(index, 50, 1) if e.label == "PAST"] == [150, 150]
    index = ARRAYS.index((8, 4, Layout(3, 36), 1, 4))
    assert [e.iterations for e in library.turn_entries(index, 50, 1) if e.label == "PAST"] == [100, 100]


@pytest.mark.gxx
def test_values_at_the_ends_of_their_ranges(library: CachedLibrary) -> None:
    """Every channel of a row of keys is another number, then all are the smallest."""
    for index, (_, _, layout, shared, _) in enumerate(ARRAYS):
        width, past, seq = layout.channels // shared, 20, 3
        counted = (torch.arange((past + seq) * width) % 255 - 127).to(torch.int32).reshape(1, -1, width)
        q = torch.full((1, past + seq, layout.channels), -128, dtype=torch.int32)
        low = torch.full_like(counted, -127)
        assert library.turn_mismatches(index, past, seq, [[q, x, x] for x in (counted, low)]) == 0


def test_the_memory_of_the_banks() -> None:
    """As many memories as before where there are as many columns as blocks of a word, and none larger."""
    found = {
        (case[0], case[4]): (bench.stage.banks(bench.design), bench.stage.split(bench.design))
        for case, bench in zip(ARRAYS, BENCHES, strict=False)
        if isinstance(bench.stage, KeyedArray)
    }
    wide = {16: (16, 1), 8: (8, 1), 4: (4, 1), 2: (2, 2), 1: (1, 4)}
    narrow = {16: (8, 1), 8: (8, 1), 4: (4, 2), 2: (2, 4), 1: (1, 8)}
    assert found == {(16, c): n for c, n in wide.items()} | {(8, c): n for c, n in narrow.items()}
    kinds = {b.stage.storage(b.design) for b in BENCHES if isinstance(b.stage, KeyedArray)}
    assert kinds == {"lutram", "bram", "uram"}


@pytest.mark.parametrize("columns", [1, 2, 4, 8, 16])
def test_a_cache_costs_no_memory_for_its_words(columns: int) -> None:
    """GPT-2 medium at 1,024 keys: 1 MB of keys in 32 URAM, with or without a cache."""
    for kind in (ScoresStage, ValuesStage):
        cached = array(kind, 16, 1, Layout(16, 64), 1, columns, 1024)
        shape = Shape(16, 1, 1, 1024)
        fields = {"layout": Layout(16, 64), "columns": columns}
        plain = kind("a", "", "loop", 2, ("a", "b"), ("c",), **fields)
        alone = plain.cost(Design("d", shape, (plain,), {}))
        cost = cached.stage.cost(cached.design)
        assert (cost.uram, cost.bram18, cost.dsp) == (alone.uram, alone.bram18, alone.dsp)
        assert cost.uram == 32 and 0 < cost.lut - alone.lut < 8192


@pytest.mark.parametrize(
    ("layout", "shared", "columns", "keys", "link", "depth"),
    [
        (Layout(3, 12), 1, 16, 40, False, 9),  # 3 heads of a block, 3 blocks of keys
        (Layout(12, 64), 1, 16, 512, False, 1536),  # 48 blocks, 32 of keys
        (Layout(12, 64), 1, 16, 512, True, 512),
        (Layout(12, 64), 1, 4, 512, False, 4096),  # 6,144 cycles, but no more than a URAM
        (Layout(32, 64), 32, 16, 512, False, 512),  # a row of one word
    ],
)
def test_words_wait_in_front_of_the_arrays(
    layout: Layout, shared: int, columns: int, keys: int, link: bool, depth: int
) -> None:
    """As many as come in while a row is multiplied, up to what a memory holds."""
    for kind in (ScoresStage, ValuesStage):
        made = array(kind, 16, 1, layout, shared, columns, keys).design
        if link:
            kernels = (Kernel("m", (), (), ("words",), 0), Kernel("k", ("a",), ("words",), (), 1))
            streams = {**made.streams, "words": replace(made.streams["words"], link=True)}
            made = replace(made, streams=streams, kernels=kernels)
        assert size_fifos(made).streams["words"].depth == depth


def test_what_the_stages_carry() -> None:
    layout = Layout(4, 12)
    scores, plain = array(ScoresStage, 16, 3, layout, 2, 16).stage, ScoresStage("s", "", "loop", 1, (), ())
    kept = Tokens("rows", "int8", Layout(2, 12))
    assert scores.carried()[0] == [Tokens("rows", "int8", layout), kept, Tokens("words")]
    assert scores.arguments() == ["q", "k", "words", "s", "batch", "seq", "past"]
    assert [t.kind for t in plain.carried()[0]] == ["rows", "rows"]
    rows = cache(16, 3, layout).stage
    assert rows.arguments() == ["x", "y", "words", "seq"]


def test_rows_in_memory() -> None:
    """Two heads of 5 channels in tokens of 8: a word a row, zero behind each head and row."""
    value = torch.arange(1, 21, dtype=torch.int32).reshape(1, 2, 10)
    found = memory_rows(value, Layout(2, 5), 8).reshape(2, 64)
    assert found[1].tolist() == [*range(11, 16), 0, 0, 0, *range(16, 21), *[0] * 51]


#: places of attention_common.hpp, and what they are changed to: banks that are not turned (a word's blocks
#: then meet in one bank), the part of the block before, a block beside its own
FAULTS = (
    ("(s + b / split % turns) % C::columns", "s % C::columns"),
    ("rows[j] = kept[j][b % split][place]", "rows[j] = kept[j][(b + 1) % split][place]"),
    ("static_cast<int>(taken) * split + part)", "static_cast<int>(taken) * split)"),
    ("(b / split % turns >> level) % 2 != 0", "((b / split + 1) % turns >> level) % 2 != 0"),
    ("++row;\n    }\n  }\n}\n\n// Read all rows", "row += 2;\n    }\n  }\n}\n\n// Read all rows"),
)


@pytest.mark.gxx
@pytest.mark.parametrize(("right", "wrong"), FAULTS)
def test_a_block_in_the_wrong_bank_is_found(right: str, wrong: str) -> None:
    benches = BENCHES[2:6]  # 8, 4, 2 and 1 columns of scores
    broken = CachedLibrary(benches, header("attention_common.hpp", right, wrong))
    assert any(broken.turn_mismatches(index, 15, MOST_ROWS) for index in range(len(benches)))


# -- whole models -----------------------------------------------------------------------------------

ROWS_A_LAUNCH, LENGTH = 7, 40


def _text(rows: int, seed: int = 5) -> Tensor:
    return torch.randint(WORDS, (1, rows), generator=torch.Generator().manual_seed(seed))


#: heads of 12 channels in tokens of 16; grouped heads of 20 in tokens of 8, that see a window
MODELS = ("gpt2", "mistral")


@lru_cache
def _model(name: str) -> CompiledModel:
    import transformers

    torch.manual_seed(0)
    if name == "gpt2":
        sizes = {"n_layer": 2, "n_embd": 36, "n_head": 3, "vocab_size": WORDS, "n_positions": 64}
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends))
    else:
        model = rotating("Mistral", head_dim=20, sliding_window=9)
    samples = [{"input_ids": _text(20, seed)} for seed in range(8)]
    lanes, tile = (16, 3) if name == "gpt2" else (8, 2)
    return torch2fpga.compile(
        model.eval(), {"input_ids": _text(ROWS_A_LAUNCH)}, plan="simple", lanes=lanes, tile=tile,
        calibration=samples, generate=True, max_length=LENGTH,
    )  # fmt: skip


def _again(model: CompiledModel) -> CompiledModel:
    """The same, not built yet."""
    return CompiledModel(model.design, model.data, model.interface, model.output, model.board, model.origin)


@pytest.mark.hf
@pytest.mark.gxx
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("splits", [(1,), (3, 4, 2), (17,)])
def test_a_text_is_the_same_however_it_is_cut(name: str, splits: tuple[int, ...]) -> None:
    report = verify_generation(_model(name), _text(ROWS_A_LAUNCH), splits)
    assert report.bit_exact, str(report)
    assert len(report.tokens) == sum(splits) and report.compared > 10_000


ONCE = {"spread": False, "interval": False}


@pytest.mark.hf
@pytest.mark.gxx
@pytest.mark.parametrize("name", MODELS)
def test_every_stage_takes_what_its_formula_says(name: str) -> None:
    model = _model(name)
    loops = pipelined_loops(model.design, U280.clock_mhz)
    for context, rows, tokens in ((0, ROWS_A_LAUNCH, 3), (21, 1, 2), (16, 5, 1)):
        report = model.time_generation(
            _text(rows), tokens=tokens, context=context, clock_mhz=U280.clock_mhz, **ONCE
        )
        work = [(context, rows), *((context + rows + i, 1) for i in range(tokens - 1))]
        for stage in model.design.stages:
            depth = depths_of(loops, stage.name)
            want = sum(stage.turn_cycles(model.design, n, past, depth) for past, n in work)
            assert report.stage(stage.name).busy == want, stage.name
        moved = bytes_moved(model.design, 1, rows, context, tokens)
        assert {(p.kernel, p.name): p.bytes for p in report.ports} == moved


@pytest.mark.hf
@pytest.mark.gxx
@pytest.mark.parametrize("name", MODELS)
def test_the_checker_accepts_the_project(name: str) -> None:
    model = _model(name)
    past = [loop for loop in pipelined_loops(model.design, 300) if loop.label in ("PAST", "KEEP", "NEW")]
    assert len(past) == 6 and {(loop.ii, loop.minimum_ii) for loop in past} == {(1, 1)}
    assert check_project(project_files(model), include_dirs=[]) == []


# Without the cache's read port waiting for the beginning of a turn.
NO_WAIT = (
    "    begun = go.read();\n  }\n  (void)begun;\n",
    "  }\n  (void)begun;\n",
    "      stored.write(T2F_MEMORY(memory, step * C::step_words + i));\n    }\n  }\n",
)


@pytest.mark.hf
@pytest.mark.gxx
@pytest.mark.parametrize("fault", ["the reader does not wait", "a block is looked for in another bank"])
def test_a_fault_in_the_way_of_the_cache_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "the reader does not wait":
        read, nothing, loop = NO_WAIT
        text = header("cache.hpp", read, nothing)
        assert text.count(loop) == 1
        text = text.replace(loop, loop + "  begun = go.read();\n")
    else:
        text = header("attention_common.hpp", *FAULTS[3])
    real = functional.functional_sources

    def changed(design: Design) -> dict[str, str]:
        files = real(design)
        for file in [f for f in files if f.endswith("_config.hpp")]:
            files[file] = '#include "changed.hpp"\n' + files[file]
        return {**files, "changed.hpp": text}

    monkeypatch.setattr(functional, "functional_sources", changed)
    monkeypatch.setattr(functional, "build_library", lambda files, flags, stages: build_library(files, flags))
    try:
        report = verify_generation(_again(_model("gpt2")), _text(ROWS_A_LAUNCH), (4,))
    except SimulationError as error:
        assert "deadlock" not in str(error)
    else:
        assert not report.bit_exact
