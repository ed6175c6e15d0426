# SPDX-License-Identifier: Apache-2.0
"""``estimate``: its formulas by hand-computed numbers, published tables, refusals, and its verb."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import torch2fpga
from tests.cli import program
from torch2fpga.boards import U55C, U280
from torch2fpga.errors import CompileError, InputError
from torch2fpga.hub import ModelSpecError
from torch2fpga.plan import roofline
from torch2fpga.plan.roofline import PRECISIONS, Machine, block_time, cards_needed, machines, on_chip_bytes
from torch2fpga.plan.workload import Block, Stack, Workload
from torch2fpga.plan.workload_attention import Attention

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.hf

GPT2_MEDIUM = {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16}
LLAMA_1B = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": True,
}  # fmt: skip
QWEN_1B = {
    "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
    "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


# -- tables that were published before -------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "weights_mb", "kv_mb", "tokens_per_s", "dsp"),
    [
        ({"model_type": "gpt2"}, 65.6, 18.9, 5_550, 1_370),
        (GPT2_MEDIUM, 187.8, 50.3, 1_938, 1_370),
        (LLAMA_1B, 656.5, 16.8, 554, 1_370),
        (QWEN_1B, 820, 14.7, 444, 1_370),
        ({"model_type": "llama"}, 3_510, 268, 104, 1_370),
    ],
    ids=["gpt2", "gpt2-medium", "llama-3.2-1b", "qwen2.5-1.5b", "llama-2-7b"],
)
def test_the_decode_table_of_the_founding_design(
    config: dict[str, Any], weights_mb: float, kv_mb: float, tokens_per_s: float, dsp: int
) -> None:
    """28 ports at 13.0 GB/s, int4 weights with scales of 0.25 bit, int8 keys and values of 1,024 tokens."""
    found = torch2fpga.estimate(config, "u280", "w4a8", context=1024)
    decode = found.decode
    assert decode is not None and (decode.ports, decode.gbs) == (28, 364)
    assert decode.weight_bytes / 1e6 == pytest.approx(weights_mb, rel=0.001)
    assert decode.kv_bytes / 1e6 == pytest.approx(kv_mb, rel=0.005)
    # the table's rate is of weights alone; with keys and values it is lower in the same proportion
    assert 364e9 / decode.weight_bytes == pytest.approx(tokens_per_s, rel=0.005)
    assert found.tokens_per_s == pytest.approx(364e9 / (decode.weight_bytes + decode.kv_bytes))
    # products that keep up with the ports: one for each weight of 4.25 bits
    a_cycle = 364e9 * 8 / 4.25 / 250e6
    assert a_cycle / PRECISIONS["w4a8"].products == pytest.approx(dsp, rel=0.001)


def test_the_floors_of_bert_base() -> None:
    """11.2 and 48.3 GMAC on 80 % of the user region's multipliers, two products each, at 250 MHz."""
    for tokens, gmac, floor in ((128, 11.2, 3.4), (512, 48.3, 14.5)):
        found = torch2fpga.estimate({"model_type": "bert"}, prompt=tokens)
        assert found.size.prompt_macs / 1e9 == pytest.approx(gmac, rel=0.005)
        caps = found.prefill[0]
        assert caps.multipliers == int(0.8 * 8304) and caps.macs_per_cycle == 13_286
        assert caps.floor_ms == pytest.approx(found.size.prompt_macs / 13_286 / 250_000)
        assert caps.floor_ms == pytest.approx(floor, abs=0.05)
        assert found.binds["prefill"].resource == "multipliers"
        assert caps.expected_ms > caps.floor_ms and found.decode is None and found.first_token_ms is None


def test_budgets_that_were_routed() -> None:
    found = {p.budget: p for p in torch2fpga.estimate({"model_type": "bert"}).prefill}
    assert list(found) == ["caps", "arrays", "cascades"]
    assert (found["arrays"].macs_per_cycle, found["arrays"].clock_mhz) == (2_304, 250)
    assert (found["cascades"].multipliers, found["cascades"].clock_mhz) == (6_345, 225)
    slow = torch2fpga.estimate({"model_type": "bert"}, clock_mhz=200)
    assert {p.clock_mhz for p in slow.prefill} == {200}
    # four products a multiplier instead of two; attention stays int8
    four = torch2fpga.estimate({"model_type": "bert"}, precision="w4a4").prefill[0]
    pairs = 12 * 2 * 128 * 128 * 768
    whole = torch2fpga.estimate({"model_type": "bert"}).size.prompt_macs
    assert four.floor_ms == pytest.approx(((whole - pairs) / 4 + pairs / 2) / 6643 / 250_000)


# -- formulas by hand ------------------------------------------------------------------------------

#: ten channels of 1,000 bytes, 8 masters of which 4 read, at 1 MHz: 64 bytes a port and cycle
TINY = replace(
    U280,
    hbm=replace(U280.hbm, channels=10, channel_bytes=1_000),
    masters=8,
    wire_budget=80,
    clock_mhz=1,
)


def machine(on_chip: int = 10**9, dsp: int = 10, near: int = 5, clock: float = 1.0) -> Machine:
    return Machine(TINY, PRECISIONS["w8a8"], "caps", clock, dsp, near, on_chip)


def block(**changes: Any) -> Block:
    """1,000 weights; 8 products a pair of tokens; 16 values kept of a token; chain of five."""
    base = Block("b", 1_000, 1_000, 0, 100, 10, 100, Attention(kept=16, score=4, value=4), 5)
    return replace(base, **changes)


def test_rates_of_a_machine() -> None:
    found = machine()
    # 64 bytes a microsecond are below 13 GB/s: the ports' width binds
    assert found.ports == 4 and found.bytes_per_ms == pytest.approx(4 * 64_000)
    assert machine(clock=250).bytes_per_ms == pytest.approx(4 * 13e6)
    assert found.crossing_per_ms == pytest.approx(10_000) and found.far_share == 0.5
    assert found.compute_ms(2_000, 200) == pytest.approx((1_000 + 100) / 10 / 1000)
    assert replace(found, precision=PRECISIONS["w4a8"]).weight_bytes(64) == 34


def test_on_chip_memory_within_the_caps() -> None:
    # URAM to 0.8; BRAM to what a mean of 0.7 leaves, 0.5, less 15 blocks for each of 28 ports
    uram, bram = 768 * 36_864, (1_776 - 15 * 28) * 2_304
    assert on_chip_bytes(U280) == int(8 / 9 * (uram + bram))


def test_a_block_that_stays_on_chip() -> None:
    found = block_time(block(), machine(), 1, 40, whole=False, cross=False)
    # 40 * 1,000 products and 40 * 40 * 8 pairs, two a multiplier, ten multipliers, 1 MHz
    compute = (40_000 + 12_800) / 20 / 1000
    assert (found.compute_ms, found.tile, found.loads, found.ahead) == (pytest.approx(compute), 4, 1, True)
    # five products of a chain each hold a tile of 4 of 40 rows
    assert found.fill_ms == pytest.approx(compute * 5 * 4 / 40)
    assert found.once_ms == pytest.approx(1_000 / 256_000) and found.cross_ms == pytest.approx(0.05)
    assert found.ms == pytest.approx(found.compute_ms + found.fill_ms)
    # a second sequence keeps the arrays busy meanwhile
    two = block_time(block(), machine(), 2, 40, whole=False, cross=False)
    assert two.fill_ms == 0 and two.compute_ms == pytest.approx(2 * compute)


def test_a_block_whose_weights_come_again() -> None:
    # weights 1,000 with keys and values of 2 * 640 fit once, but not beside the next ones
    once = block_time(block(), machine(on_chip=2_500), 1, 40, whole=False, cross=False)
    assert once.fewest == 1
    # 1,400 bytes hold ten rows of 100 channels and a residual of 4 * 10 bytes: at least four passes
    found = block_time(block(), machine(on_chip=1_400), 1, 40, whole=False, cross=False)
    assert (found.tile, found.loads, found.fewest) == (4, 10, 4)  # the smallest fill: weights come fast
    # over four wires weights take 1 ms: ten passes 10 ms, five 5 ms, while the longer tile works 5.28 ms
    slow = replace(machine(on_chip=1_400), board=replace(TINY, wire_budget=4))
    found = block_time(block(), slow, 1, 40, whole=False, cross=False)
    assert (found.tile, found.loads, found.feed_ms) == (8, 5, pytest.approx(5))
    assert found.ms == pytest.approx(2.64 * (1 + 5 * 8 / 40))
    # without room for a pass ahead, the whole block in one pass is the other way to go
    single = replace(slow, on_chip=2_300)
    alone = block_time(block(), single, 1, 40, whole=False, cross=False)
    assert (alone.tile, alone.loads, alone.ahead) == (4, 1, False)
    assert alone.ms == pytest.approx(2.64 * (1 + 5 * 4 / 40) + 1)


def work(blocks: int, **changes: Any) -> Workload:
    stack = Stack("layers", "decoder", tuple(block() for _ in range(blocks)))
    return replace(Workload("tiny", (stack,), 0, 0, 0, 500, 50, 0, None), **changes)


def test_cards_hold_whole_blocks() -> None:
    # a block: 1,000 weights, 100 channels of 8 bytes, 16 values of 100 tokens: 3,400 bytes; cards of 10,000
    needed = [cards_needed(work(n), machine(), 1, 100, 10) for n in (1, 2, 3, 4, 5)]
    assert needed == [1, 1, 2, 2, 3]
    # two blocks leave 3,200 bytes less 100 of the table: the head of 500 finds room there
    assert cards_needed(work(2), machine(), 1, 100, 10) == 1
    # a block that no card holds is cut: 1 * (1,800 + 16,000) + 600 bytes
    assert cards_needed(work(1), machine(), 10, 100, 10) == 2


def test_a_token_reads_weights_keys_values_and_head() -> None:
    size = roofline.token_bytes(work(3), machine(), 2, 100, 10, whole=False)
    assert size == 3 * 1_000 + 500 + 2 * 3 * 1_600
    assert roofline.token_bytes(work(3), machine(), 2, 100, 10, whole=True) == 500 + 2 * 3 * 1_600
    assert roofline.token_products(work(3), 100, 10) == (3 * 1_000 + 500, 3 * 100 * 8)
    window = replace(block().attention, window=30)
    short = work(1, stacks=(Stack("layers", "decoder", (block(attention=window),), 2),))
    assert roofline.token_bytes(short, machine(), 1, 100, 10, whole=False) == 2 * (1_000 + 480) + 500
    assert roofline.token_products(short, 100, 10) == (2_500, 2 * 30 * 8)


def test_wires_bind_where_multipliers_beside_the_memory_are_too_few() -> None:
    config = {"model_type": "gpt2"}
    assert torch2fpga.estimate(config).decode.limits[2].ms == 0  # type: ignore[union-attr]
    many = torch2fpga.estimate(config, batch=64, context=1024, precision="w4a8").decode
    assert many is not None and many.limits[2].ms > 0
    assert many.binds.resource == max(many.limits, key=lambda limit: limit.ms).resource


# -- answers ---------------------------------------------------------------------------------------


def test_70b_without_weights_in_two_seconds() -> None:
    start = time.process_time()
    found = torch2fpga.estimate(LLAMA_70B, precision="w4a8")
    assert time.process_time() - start < 2
    assert found.cards == 5 and not found.fits and found.size.parameters == 68_976_648_192
    bound = found.binds["memory"]
    assert (bound.resource, bound.next) == ("HBM capacity", "one card")
    assert bound.times == pytest.approx(found.memory.needed_bytes / (8 << 30))
    assert found.nearest == ("3 u55c at w4a8", "5 u280 at w4a8, blocks in order")


def test_what_would_fit_is_named() -> None:
    seven = {"model_type": "llama", "max_position_embeddings": 16_384}
    assert torch2fpga.estimate(seven, context=4096).nearest == ()
    long = torch2fpga.estimate(seven, context=16_384)
    assert long.cards == 2 and long.nearest[1:] == (
        "1 u280 at w4a8", "1 u55c at w8a8", "1 u55c at w4a8", "2 u280 at w8a8, blocks in order"
    )  # fmt: skip
    tokens = int(long.nearest[0].removeprefix("a context of ").split()[0].replace(",", ""))
    assert torch2fpga.estimate(seven, context=tokens).fits
    assert not torch2fpga.estimate(seven, context=tokens + 1).fits
    assert torch2fpga.estimate(seven, "u55c", context=16_384).fits


def test_where_weights_stay() -> None:
    mini = {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    assert torch2fpga.estimate(mini).memory.on_chip == "whole"
    assert torch2fpga.estimate(mini).memory.blocks_bytes == 6 * 12 * 384**2
    assert torch2fpga.estimate(GPT2_MEDIUM).memory.on_chip == "one block"
    seven = torch2fpga.estimate({"model_type": "llama"}, prompt=2048, context=2048)
    assert seven.memory.on_chip == "streamed" and seven.prefill[0].loads > 1
    limits = {limit.resource: limit.ms for limit in seven.prefill[0].limits}
    assert limits["on-chip capacity"] > 0 and limits["HBM bandwidth"] > 0


def test_the_first_token_waits_for_prompt_and_head() -> None:
    found = torch2fpga.estimate(GPT2_MEDIUM)
    head = 50_257 * 1024 / 364e6
    assert found.first_token_ms == pytest.approx(found.prefill[0].expected_ms + head)
    joint = torch2fpga.estimate({"model_type": "t5"})
    token = torch2fpga.estimate({"model_type": "t5"}, context=1).decode
    assert joint.first_token_ms is not None and token is not None
    assert joint.first_token_ms == pytest.approx(joint.prefill[0].expected_ms + token.step_ms)


def test_text_and_json_say_modelled() -> None:
    found = torch2fpga.estimate({"model_type": "mixtral", "num_local_experts": 8}, precision="w4a8")
    text = str(found)
    assert "modelled" in text and "of them a token" in text and "not one card: HBM capacity" in text
    data = json.loads(json.dumps(found.to_json()))
    assert (data["obtained"], data["fits"], data["memory"]["cards"]) == ("modelled", False, found.cards)
    assert data["prefill"][0]["binds"]["resource"] and data["decode"]["tokens_per_s"] == found.tokens_per_s


def test_sources_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GPT2_MEDIUM | {"quantization_config": {"bits": 4}}))
    want = torch2fpga.estimate(GPT2_MEDIUM)
    config = transformers.GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    given = (tmp_path, str(tmp_path / "config.json"), config, transformers.GPT2LMHeadModel(config))
    for each in given[:3]:
        assert replace(torch2fpga.estimate(each), name=want.name) == want
    assert torch2fpga.estimate(given[3]).size == want.size
    headless = torch2fpga.estimate(GPT2_MEDIUM | {"architectures": ["GPT2Model"]})
    assert headless.size.head_weights == 0 and "no language-model head" in " ".join(headless.assumptions)


@pytest.mark.parametrize(
    ("config", "options", "error", "message"),
    [
        (
            {"model_type": "gpt2"},
            {"precision": "w2a8"},
            InputError,
            "unknown precision 'w2a8'; there are w8a8",
        ),
        ({"model_type": "gpt2"}, {"board": "vck190"}, CompileError, "unknown board 'vck190'; there are"),
        (
            {"model_type": "gpt2"},
            {"context": 2048},
            InputError,
            "gpt2 has 1024 positions; context 2048 is more",
        ),
        ({"model_type": "bert"}, {"prompt": 513}, InputError, "bert has 512 positions; prompt 513 is more"),
        ({"model_type": "gpt2"}, {"context": 64, "prompt": 65}, InputError, "does not hold a prompt of 65"),
        ({"model_type": "gpt2"}, {"batch": 0}, InputError, "batch is 0; give a number greater than zero"),
        ({"model_type": "gpt2"}, {"clock_mhz": -1}, InputError, "clock_mhz is -1"),
        ({"model_type": "nothing"}, {}, CompileError, "no model type 'nothing'; give the module"),
        ({"hidden_size": 3}, {}, CompileError, "no model type None"),
        ({"model_type": "gpt2", "auto_map": {}}, {}, CompileError, "code of its own"),
        ({"model_type": "gpt2", "architectures": ["os"]}, {}, CompileError, "no architecture 'os'"),
        ({"model_type": "llama", "hidden_size": "x"}, {}, CompileError, "llama"),
        (3, {}, InputError, "not int"),
        ("bert-base-uncased", {}, ModelSpecError, "no file or folder here; .*nothing is fetched"),
        (nn.Linear(4, 4), {}, CompileError, "no repeated block with linear layers"),
    ],
)
def test_refusals_say_what_is_allowed(config: Any, options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        torch2fpga.estimate(config, **options)


# -- the verb --------------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return program.run("estimate", *arguments)


def test_the_verb(tmp_path: Path) -> None:
    config, figures = tmp_path / "config.json", tmp_path / "out" / "figures.json"
    config.write_text(json.dumps(GPT2_MEDIUM))
    result = run(config, "--precision", "w4a8", "--board", "u55c", "--prompt", 64, "--json", figures)
    assert result.exit_code == 0 and "modelled" in result.output and "tokens/s" in result.output
    want = torch2fpga.estimate(config, "u55c", "w4a8", prompt=64)
    assert json.loads(figures.read_text()) == json.loads(json.dumps(want.to_json()))
    assert run(tmp_path).exit_code == 0
    assert run("examples.encoder:factory").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gpt2",), 2, "no file or folder here"),
        (("CONFIG", "--precision", "w2a8"), 1, "there are w8a8, w4a8, w4a4"),
        (("CONFIG", "--context", "2000"), 1, "1024 positions"),
        (("CONFIG", "--batch", "0"), 2, "--batch"),
    ],
)
def test_the_verb_refuses(tmp_path: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2"}))
    result = run(*(config if a == "CONFIG" else a for a in arguments))
    assert result.exit_code == code and message in result.output


def test_every_card_has_budgets() -> None:
    for board in (U280, U55C):
        for precision in PRECISIONS.values():
            for found in machines(board, precision, board.clock_mhz):
                assert 0 < found.near < found.dsp <= board.total.dsp and found.on_chip > 20e6
