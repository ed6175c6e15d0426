# SPDX-License-Identifier: Apache-2.0
"""What is too much for one memory channel or port: embedding tables in several channels, caches in parts,
and the one process that writes all caches."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

import torch2fpga
from tests.emit.projects import make, write
from tests.tiny import cxx_cache, seeded
from torch2fpga.boards import U280, Board
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Layout
from torch2fpga.emit.check import check_source
from torch2fpga.emit.link import channels
from torch2fpga.emit.ports import all_ports, bundle, masters
from torch2fpga.errors import DesignError
from torch2fpga.lower.embedding import EmbedStage
from torch2fpga.lower.heads import JoinHeadsStage, SplitHeadsStage
from torch2fpga.lower.large_table import MOST, MergeRowsStage
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.runtime.generation import verify_generation
from torch2fpga.timing.depths import depths_of, pipelined_loops

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.hf
WORDS, ROWS, LENGTH = 101, 7, 29
#: 37 rows of 36 int16 channels, of two words each
CHANNEL = 37 * 2 * 64


def text(rows: int, seed: int = 3) -> Tensor:
    return torch.randint(WORDS, (1, rows), generator=torch.Generator().manual_seed(seed))


def llama(heads: int, shared: int) -> torch.nn.Module:
    """Two layers with heads of 12 channels, which do not fill a token."""
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 12 * heads, "intermediate_size": 75, "num_hidden_layers": 2, "head_dim": 12}
    config = transformers.LlamaConfig(
        num_attention_heads=heads, num_key_value_heads=heads // shared, vocab_size=WORDS,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=0, **sizes,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> torch.nn.Module:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2, n_embd=36, n_head=3, vocab_size=WORDS, n_positions=40, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config).eval()


def compiled(model: torch.nn.Module, **options: Any) -> CompiledModel:
    samples = [{"input_ids": text(20, seed)} for seed in range(8)]
    return torch2fpga.compile(
        model, {"input_ids": text(ROWS)}, generate=True, max_length=LENGTH, tile=2, calibration=samples,
        **options,
    )  # fmt: skip


@lru_cache
def in_channels() -> CompiledModel:
    """A model whose word table takes three channels of a board that has small ones."""
    small = replace(U280, hbm=replace(U280.hbm, channel_bytes=CHANNEL))

    def board(*_: Any) -> Board:
        return small

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch2fpga.compiler.board_at", board)
        model = compiled(gpt2())
    model.board = U280  # whose channels hold the weights too
    return model


@lru_cache
def in_parts(heads: int, shared: int, caches: int) -> CompiledModel:
    return compiled(llama(heads, shared), plan={"caches": caches})


# -- tables ---------------------------------------------------------------------------------------------


def test_a_table_lies_in_as_many_channels_as_it_takes() -> None:
    model = in_channels()
    parts = [p for p in model.design.ports if p.template == "gather_part"]
    assert [(p.config["first"], p.config["rows"]) for p in parts] == [(0, 37), (37, 37), (74, 27)]
    assert all(p.words * 64 <= CHANNEL for p in parts)
    stage = next(s for s in model.design.stages if isinstance(s, EmbedStage))
    whole = model.data[stage.name][0]["table0"]
    for port, size in zip(parts, (37, 37, 27), strict=True):
        image = torch.frombuffer(bytearray(model.images[port.name]), dtype=torch.int16).reshape(size, 64)
        first = int(port.config["first"])
        assert torch.equal(image[:, :36], whole[first : first + size]) and not bool(image[:, 36:].any())


@pytest.mark.parametrize("splits", [(1,), (3, 4)])
def test_rows_come_from_the_channel_that_has_them(splits: tuple[int, ...]) -> None:
    ids = torch.tensor([[0, 36, 37, 73, 74, 100, 5]])  # the ends of all parts
    report = verify_generation(in_channels(), ids, splits)
    assert report.bit_exact, str(report)


def test_a_table_in_parts_takes_the_time_of_its_closed_form() -> None:
    model = in_channels()
    report = model.time_generation(text(ROWS), tokens=2, spread=False, interval=False)
    stage = next(s for s in model.design.stages if isinstance(s, MergeRowsStage))
    depths = depths_of(pipelined_loops(model.design, 250.0), stage.name)
    want = sum(stage.turn_cycles(model.design, rows, past, depths) for past, rows in ((0, ROWS), (ROWS, 1)))
    assert report.stage(stage.name).busy == want
    moved = bytes_moved(model.design, 1, ROWS, 0, 2)
    parts = {p.name for p in model.design.ports if p.template == "gather_part"}
    assert sum(p.bytes for p in report.ports if p.name in parts) == sum(
        n for (_, name), n in moved.items() if name in parts
    )


def test_a_table_of_too_many_channels_is_refused() -> None:
    small = replace(U280, hbm=replace(U280.hbm, channel_bytes=2 * 64 * 11))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch2fpga.compiler.board_at", lambda *_: small)
        with pytest.raises(DesignError, match=f"101 rows takes 10 memory channels; at most {MOST}"):
            compiled(gpt2())


# -- heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "shared", "caches"), [(3, 1, 2), (3, 1, 3), (4, 2, 2), (6, 2, 2)])
def test_attention_in_parts_is_the_same(heads: int, shared: int, caches: int) -> None:
    model = in_parts(heads, shared, caches)
    stages = model.design.stages
    assert sum(s.template == "attention_scores" for s in stages) == caches
    assert sum(isinstance(s, SplitHeadsStage) for s in stages) == 3 * (caches - 1)
    assert sum(isinstance(s, JoinHeadsStage) for s in stages) == caches - 1
    for splits in ((3, 4, 2), (9,)):
        report = verify_generation(model, text(ROWS), splits)
        assert report.bit_exact, str(report)
    one = in_parts(heads, shared, 1)
    assert torch.equal(model.generate(text(5), max_new_tokens=12), one.generate(text(5), max_new_tokens=12))


def test_more_parts_than_heads_are_as_many_as_heads() -> None:
    assert len(in_parts(4, 2, 2).data) == len(compiled(llama(4, 2), plan={"caches": 16}).data)


def test_parts_keep_to_their_closed_forms() -> None:
    model = in_parts(3, 1, 2)
    report = model.time_generation(text(ROWS), tokens=2, context=5, spread=False, interval=False)
    loops = pipelined_loops(model.design, 250.0)
    compared = 0
    for stage in model.design.stages:
        if isinstance(stage, SplitHeadsStage | JoinHeadsStage):
            depths = depths_of(loops, stage.name)
            turns = ((5, ROWS), (5 + ROWS, 1))
            want = sum(stage.turn_cycles(model.design, rows, past, depths) for past, rows in turns)
            assert report.stage(stage.name).busy == want, stage.name
            compared += 1
    assert compared == 4


def test_the_parts_of_a_split() -> None:
    model = in_parts(3, 1, 2)
    split = next(s for s in model.design.stages if isinstance(s, SplitHeadsStage))
    value = torch.arange(2 * 36).reshape(1, 2, 36)
    first, others = split.reference({}, [value])
    assert split.halves() == (Layout(split.first, 12), Layout(3 - split.first, 12))
    assert torch.equal(torch.cat((first, others), -1), value) and first.shape[-1] == 12 * split.first


@pytest.mark.needs("g++")
def test_a_project_with_parts_passes_its_test_bench(tmp_path_factory: pytest.TempPathFactory) -> None:
    printed = make(write(in_parts(4, 2, 2), tmp_path_factory, "parts"), "csim_gxx")
    assert ", 0 failed" in printed and "0 passed" not in printed


# -- one writer -----------------------------------------------------------------------------------------


def test_all_caches_have_one_master_and_channels_of_their_own() -> None:
    model = in_parts(3, 1, 3)
    ports = [p for _, p in all_ports(model.design) if p.role == "cache"]
    writers = [p for p in ports if p.write]
    assert len(writers) == 6 and {bundle(p) for p in writers} == {"gmem_caches"}
    assert masters(model.design) == len(all_ports(model.design)) - 5
    where = {name: channel for (_, name), channel in channels(model.design, U280).items()}
    for reader in (p for p in ports if not p.write):
        same = [p.name for p in writers if p.binding == reader.binding]
        assert len(same) == 1 and where[same[0]] == where[reader.name]
    assert len({where[p.name] for p in writers}) == 6


SHARED = """
#include <cstdint>
#include <hls_stream.h>
#include "t2f/core.hpp"
#include "t2f/memory.hpp"
struct C {{
  static constexpr int steps = 1, words = 4, max_words = 4, blocks = 1, vectors_per_word = 1;
  static constexpr int rows_per_vector = 1, lanes = 16, tile = 1, max_batch = 1, max_seq = 4;
}};
static void both({pointers}, hls::stream<t2f::word> &in) {{
#pragma HLS inline off
WRITE:
  for (int i = 0; i < 4; ++i) {{
    T2F_PIPELINE(1);
    const t2f::word w = in.read();
    {write}
  }}
}}
static void other(t2f::word *b) {{
#pragma HLS inline off
WRITE:
  for (int i = 0; i < 4; ++i) {{
    T2F_PIPELINE(1);
    b[i] = t2f::word();
  }}
}}
extern "C" void top(t2f::word *a, t2f::word *b, const t2f::word *m) {{
#pragma HLS INTERFACE m_axi port=a offset=slave bundle=gmem depth=4 latency=64 num_write_outstanding=16 max_write_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=b offset=slave bundle=gmem depth=4 latency=64 num_write_outstanding=16 max_write_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE m_axi port=m offset=slave bundle={other} depth=4 latency=64 num_read_outstanding=16 max_read_burst_length=32 max_widen_bitwidth=512
#pragma HLS INTERFACE s_axilite port=a
#pragma HLS INTERFACE s_axilite port=b
#pragma HLS INTERFACE s_axilite port=m
#pragma HLS INTERFACE s_axilite port=return
#pragma HLS dataflow
  hls::stream<t2f::word, 2> words("words");
  T2F_PROCESS("read", t2f::read_words<C>(m, words));
  T2F_PROCESS("both", both({arguments}, words));
  {second}
  T2F_DATAFLOW_END;
}}
"""  # noqa: E501
TOGETHER = {
    "pointers": "t2f::word *a, t2f::word *b",
    "write": "if (i < 2) { a[i] = w; } else { b[i] = w; }",
    "arguments": "a, b",
    "second": "",
    "other": "gmem_m",
}
APART = {
    **TOGETHER,
    "pointers": "t2f::word *a",
    "write": "a[i] = w;",
    "arguments": "a",
    "second": 'T2F_PROCESS("other", other(b));',
}


@pytest.mark.parametrize(
    ("values", "found"),
    [(TOGETHER, False), (APART, True), ({**TOGETHER, "other": "gmem"}, True)],
    ids=["one process", "two processes", "a reader too"],
)
@pytest.mark.needs("clang")
def test_pointers_share_a_bundle_where_one_process_writes_them(values: dict[str, str], found: bool) -> None:
    from torch2fpga.simulate.build import INCLUDE

    rules = {f.rule for f in check_source(SHARED.format(**values), include_dirs=[INCLUDE])}
    assert ("interface-bundle" in rules) == found, rules


def test_a_calibration_input_that_is_too_large_is_refused() -> None:
    with pytest.raises(torch2fpga.CaptureError, match=r"calibration input 0: input_ids is \(1, 30\), larger"):
        torch2fpga.compile(
            gpt2(), {"input_ids": text(ROWS)}, generate=True, max_length=LENGTH,
            calibration=[{"input_ids": text(LENGTH + 1)}],
        )  # fmt: skip
