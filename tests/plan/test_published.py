# SPDX-License-Identifier: Apache-2.0
"""The published model: every equation by hand-computed numbers, every term by what it must add."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from torch2fpga.boards import U280
from torch2fpga.errors import InputError
from torch2fpga.plan import published as model
from torch2fpga.plan import published_points as points
from torch2fpga.plan.published import Device, Parallelism, PublishedDesign, TransformerShape
from torch2fpga.plan.published_cases import LAUNCH_US, TERMS, Case, latency_ms, predict

#: small enough to compute by hand: 4 d^2 + 2 d d_ffn = 4 * 16 + 2 * 4 * 8 = 128 weights a layer
TINY = TransformerShape(hidden=4, ffn=8, layers=3, vocab=10)
#: ten channels of 1 GB/s peak, 0.5 sustained
SLOW = Device("slow", 100, 10, 1.0, 0.5)


def tiny_case(phase: Any = "prefill", tokens: int = 2, **changes: Any) -> Case:
    """M = 2 for all at 1 MHz (a cycle is a microsecond), 8-bit weights, tiles of one token."""
    design = PublishedDesign("tiny", 1.0, Parallelism.of(2, 2, 2), 8, 8)
    return Case(TINY, SLOW, replace(design, **changes), phase, tokens)


# -- equations ------------------------------------------------------------------------------------


def test_table_1() -> None:
    linear = {"q": 32, "k": 32, "v": 32, "p": 32, "f1": 64, "f2": 64}
    assert model.prefill_macs(TINY, 2) == linear | {"a1": 16, "a2": 16}
    assert model.decode_macs(TINY, 2) == {n: m // 2 for n, m in linear.items()} | {"a1": 12, "a2": 12}


def test_grouped_keys_and_gates_change_their_operators_only() -> None:
    other = replace(TINY, kv_hidden=2, gated=True)
    assert other.weights == {"q": 16, "k": 8, "v": 8, "p": 16, "f1": 64, "f2": 32}


def test_equation_2() -> None:
    # the paper's example: 400 AI engines of 128 MAC at 1 GHz are 204,800 MAC a cycle at 250 MHz
    assert model.macs_available(400, 128, 1000, 250) == 204_800
    eight = Parallelism.of(1, 1, 1)
    assert model.computes_within(eight, 1, 9) and not model.computes_within(eight, 1, 8)
    assert not model.computes_within(eight, 2, 16)


def test_equation_3() -> None:
    assert model.parameter_bits(TINY, 4) == 128 * 4
    assert model.tile_bits(Parallelism.of(2, 7, 3), 4) == 2 * (4 * 2 + 2 * 3) * 4
    assert model.kv_bits(TINY, 5, 8) == 4 * 5 * 4 * 8
    assert model.fifo_bits(TINY, 5, 3, 8) == 16 * 3 * 8 + 5 * 4 * 8
    assert model.fits(2, 49, 99, 10, 21)
    assert not model.fits(2, 50, 99, 10, 20) and not model.fits(2, 50, 100, 1, 21)


def test_equations_4_to_6() -> None:
    # 2^20 weights of 8 bit take words of 9; 32 parts of 2^15 * 9 bit are 16 blocks of 18 Kbit each
    assert model.memory_blocks(1 << 20, 8, 256, 8, 18 * 1024) == 16 * 32
    # 4 packed to 36 bit: words of 36, ceil(2^20 * 36 / (32 * 18432)) = 64, 64 * 32 / 4
    assert model.memory_blocks(1 << 20, 8, 256, 8, 18 * 1024, packed=4) == 64 * 32 // 4
    # a streamed tile is M_i weights: one block for each MAC
    assert model.memory_blocks(256, 8, 256, 1, 18 * 1024) == 256
    with pytest.raises(InputError, match="pack 9 or fewer"):
        model.memory_blocks(64, 8, 4, 1, 18 * 1024, packed=10)
    each = dict.fromkeys((*model.LINEAR, *model.ATTENTION), 1)
    assert model.blocks_needed(each, 3) == 3 * (6 + 4)


def test_equation_7() -> None:
    # 256 MAC, 8 on one weight, 1 byte each: 32 bytes a cycle at 250 MHz are 8 GB/s
    assert model.bandwidth_gbs(8, 256, 8, 250) == pytest.approx(8.0)
    assert model.bandwidth_gbs(4, 256, 1, 250) == pytest.approx(32.0)


def test_equations_8_and_9() -> None:
    # 24 layers at 250 MHz: a wrong power of ten in either unit would show
    assert model.layers_ms(24, 1, 1_048_576, 2_097_152, 250) == pytest.approx(301.989888)
    # C = 2: N/C * (first + 2 longest) = 12 * (100 + 2 * 1000) = 25,200 cycles of a microsecond
    assert model.layers_ms(24, 2, 100, 1000, 1.0) == pytest.approx(25.2)


def test_equations_10_to_12_are_8_when_balanced() -> None:
    shape, tokens, macs = TransformerShape(1024, 4096, 24), 128, 64
    attention, ffn = model.balanced(macs, shape, tokens)
    assert (attention, ffn) == (8, 256)
    cycles = tokens * 1024**2 / macs
    for unrolled in (1, 4):
        want = model.layers_ms(24, unrolled, cycles, cycles, 250)
        assert model.balanced_prefill_ms(shape, tokens, macs, unrolled, 250) == pytest.approx(want)
    # 24 * 2 * 128 * 1024^2 / 64 cycles of 4 ns
    assert model.balanced_prefill_ms(shape, tokens, macs, 1, 250) == pytest.approx(402.653184)


def test_equations_13_and_14() -> None:
    # 128 * 1024 bytes over 100 Gbit/s at half its rate: 1,048,576 bit / 50e9 = 0.02097 ms
    shape = TransformerShape(1024, 4096, 24)
    assert model.all_reduce_ms(shape, 128, 8, 100, 0.5) == pytest.approx(0.02097152)
    one = model.several_devices_ms(24, 1, 1, 1, 100, 1000, 0, 0, 1.0)
    assert one == pytest.approx(model.layers_ms(24, 1, 100, 1000, 1.0))
    # p1 = 2, p2 = 3, C = 1: 8 * (50 + 3 * 500) cycles; then bound by the link: 8 * (50 + 3 * 800)
    assert model.several_devices_ms(24, 2, 3, 1, 100, 1000, 400, 300, 1.0) == pytest.approx(12.4)
    assert model.several_devices_ms(24, 2, 3, 1, 100, 1000, 400, 800, 1.0) == pytest.approx(19.6)


def test_longest_sequence_is_the_last_that_fits() -> None:
    def total(tokens: int) -> int:
        return points.BERT_BASE.layers * sum(model.prefill_macs(points.BERT_BASE, tokens).values())

    for tokens in (1, 77, 512):
        assert model.longest_sequence(points.BERT_BASE, total(tokens)) == tokens
        assert model.longest_sequence(points.BERT_BASE, total(tokens) - 1) == tokens - 1


def test_the_ratio_of_two_operators_gives_the_length() -> None:
    parallelism = Parallelism.of(256, 64, 256)
    macs = model.prefill_macs(points.BERT_BASE, 384)
    ratio = (macs["a1"] / 64) / (macs["q"] / 256)
    assert model.sequence_of_ratio(points.BERT_BASE, parallelism, ratio) == pytest.approx(384)


# -- terms ----------------------------------------------------------------------------------------


def test_without_terms_a_case_is_equation_8_or_9() -> None:
    # prefill of 2: k takes 16 cycles, f1 32; three layers: 3 * (16 + 32) us
    assert latency_ms(tiny_case()) == pytest.approx(0.144)
    # decode behind 9: k 8, a1 10 * 4 / 2 = 20, f1 16
    assert latency_ms(tiny_case("decode", 9)) == pytest.approx(3 * (8 + 20) / 1000)


def test_memory_of_the_whole_device_binds() -> None:
    # 128 bytes a layer over 10 GB/s at 1000 MHz are 12.8 cycles of 1 ns, far more than the arithmetic's 0.16
    case = tiny_case("decode", 1, clock_mhz=1000.0, parallelism=Parallelism.of(1000, 1000, 1000))
    assert latency_ms(case) == pytest.approx(3 * (0.016 + 12.8) * 1e-6)
    assert latency_ms(case, ["efficiency"]) == pytest.approx(3 * (0.016 + 25.6) * 1e-6)
    half = replace(case, weight_bytes=3 * 64)
    assert latency_ms(half) == pytest.approx(3 * (0.016 + 6.4) * 1e-6)


def test_the_tile_adds_the_chain_but_its_slowest() -> None:
    # a1 and a2 8 cycles, p 16, f1 and f2 32: half of the tokens are a tile, so (8 + 8 + 16 + 32) / 2
    case = tiny_case()
    assert latency_ms(case, ["tile"]) - latency_ms(case) == pytest.approx(3 * 32 / 1000)
    # a tile cannot be longer than the prompt
    whole = tiny_case(tile_tokens=16)
    assert latency_ms(whole, ["tile"]) - latency_ms(whole) == pytest.approx(3 * 64 / 1000)


def test_a_port_binds_its_operator() -> None:
    # 8 bits at 1 MHz are 1 byte a cycle: f1 loads its 32 weights for both tokens in 64 cycles, k 16 in 32
    case = tiny_case(port_bits=8, operator_channels=1)
    assert latency_ms(case, ["port"]) == pytest.approx(3 * (32 + 64) / 1000)
    # two tokens share a load: as fast as the arithmetic again
    shared = tiny_case(port_bits=8, operator_channels=1, tile_tokens=2)
    assert latency_ms(shared, ["port"]) == latency_ms(shared)
    assert latency_ms(tiny_case(), ["port"]) == latency_ms(tiny_case())  # ports unknown: nothing is claimed


def test_efficiency_slows_a_channel_but_not_a_narrow_port() -> None:
    fast = Device("fast", 1, 1, 2e-3, 1e-3)  # 2 bytes a cycle of 1 us at peak, 1 sustained
    case = replace(tiny_case(operator_channels=1, port_bits=64), device=fast)
    both = latency_ms(case, ["port", "efficiency"])
    assert both == pytest.approx(3 * (32 + 256) / 1000)  # T_mem: 256 bytes on the only channel
    narrow = replace(case, design=replace(case.design, port_bits=8))
    assert latency_ms(narrow, ["port", "efficiency"]) == latency_ms(narrow, ["port"])


def test_keys_and_values_take_time_in_decode_only() -> None:
    # 100 keys of 4 bytes on one channel of 1e-3 GB/s: 400 cycles; a1's arithmetic takes 202
    slow = Device("slow", 1, 1, 1e-3, 1e-3)
    case = replace(tiny_case("decode", 100, kv_channels=1), device=slow)
    assert latency_ms(case) == pytest.approx(3 * (8 + 202) / 1000)
    assert latency_ms(case, ["kv"]) == pytest.approx(3 * (8 + 400) / 1000)
    # bits so wide that they would bind a prompt too, if it read them
    wide = replace(case, design=replace(case.design, activation_bits=80_000))
    assert latency_ms(wide, ["kv"]) > 1000 * latency_ms(wide)
    prompt = replace(wide, phase="prefill", tokens=2)
    assert latency_ms(prompt, ["kv"]) == latency_ms(prompt)


def test_launches_and_head_are_added_where_they_were_measured() -> None:
    case = tiny_case(launches=2)
    added = latency_ms(case, ["launch"]) - latency_ms(case)
    assert added == pytest.approx(3 * 2 * 0.045) and LAUNCH_US == (30.0, 60.0)
    assert latency_ms(tiny_case(), ["launch"]) == latency_ms(tiny_case())
    head = tiny_case(head=True)  # 40 weights, 2 a cycle
    assert latency_ms(head, ["head"]) - latency_ms(head) == pytest.approx(0.020)
    assert latency_ms(tiny_case(), ["head"]) == latency_ms(tiny_case())


def test_an_overlay_takes_its_operators_one_after_the_other() -> None:
    case = tiny_case(overlay=True)  # 288 MACs a layer, 2 a cycle
    assert latency_ms(case) == pytest.approx(3 * (4 * 32 + 2 * 64 + 2 * 16) / 2 / 1000)
    assert latency_ms(case, ["tile"]) == latency_ms(case)


def test_terms_add_up_in_any_order() -> None:
    for point in points.POINTS:
        found = predict(point.case)
        assert list(found.terms_ms) == list(TERMS)
        assert found.bare_ms == latency_ms(point.case)
        assert found.extended_ms == pytest.approx(latency_ms(point.case, list(TERMS)))


# -- published points ------------------------------------------------------------------------------


def test_every_term_of_a_point_that_counts_has_a_figure_or_a_reason() -> None:
    for point in points.POINTS:
        if point.status in ("known", "assumed"):
            found = predict(point.case).terms_ms
            assert set(point.absent) == {name for name, value in found.items() if value == 0}


def test_dfx_end_to_end_is_the_rate_of_its_tokens() -> None:
    both = {p.key: p.measured_ms for p in points.POINTS}
    assert both["dfx_end"] == pytest.approx(687.4 / 128, rel=1e-3)
    assert both["dfx_end"] == pytest.approx(both["dfx"], rel=0.01)


def test_prefill_of_gpt2_medium() -> None:
    """24 * (128 * 1024^2 / 128 + 128 * 1024 * 4096 / 256) cycles at 250 MHz, and a tile of 8 tokens."""
    point = {p.key: p for p in points.POINTS}["prefill"]
    found = predict(point.case)
    assert found.bare_ms == pytest.approx(301.989888)
    tile = 24 * (2 * 131_072 + 1_048_576 + 2_097_152) / 16 / 250_000
    assert found.terms_ms["tile"] == pytest.approx(tile)
    assert {n for n, v in found.terms_ms.items() if v} == {"tile"}
    assert found.extended_ms == pytest.approx(point.measured_ms, rel=0.02)
    assert point.measured_ms == pytest.approx(2.547 * 128, rel=1e-3)


def test_decode_of_gpt2_medium() -> None:
    """The operators one after the other: 8192 + 2 * 1032 + 8192 + 2 * 16384 cycles a layer."""
    point = {p.key: p for p in points.POINTS}["decode"]
    found = predict(point.case)
    assert found.bare_ms == pytest.approx(24 * (8192 + 16_384) / 250_000)
    assert found.extended_ms == pytest.approx(24 * 51_216 / 250_000)
    assert found.extended_ms == pytest.approx(1000 / 204.05, rel=0.02)


def test_the_bare_equations_with_the_int4_arrays_are_those_of_the_literature_notes() -> None:
    found = {p.key: latency_ms(p.case) for p in points.POINTS}
    assert found["int4_prefill"] == pytest.approx(251.66, abs=0.01)
    assert found["int4_decode"] == pytest.approx(1.966, abs=0.001)


def test_bert_of_512_tokens_and_12_layers_is_impossible() -> None:
    cycles = 26.01 * 245_000
    needed = 12 * sum(model.prefill_macs(points.BERT_BASE, 512).values())
    assert needed == pytest.approx(48.3e9, rel=1e-3)
    assert needed > 2 * cycles * 2 * points.BERT_DSP  # not even with four products a multiplier
    assert model.longest_sequence(points.BERT_BASE, 2 * points.BERT_DSP * cycles) == 253


def test_every_published_design_fits_its_multipliers() -> None:
    for design in (points.CHEN_W8A8, points.CHEN_W4A8):
        within = model.macs_available(points.BERT_DSP, 2, design.clock_mhz, design.clock_mhz)
        assert model.computes_within(design.parallelism, design.unrolled, within)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.hf
def test_shapes_of_configurations() -> None:
    from transformers import BertConfig, DistilBertConfig, GPT2Config, LlamaConfig, OPTConfig

    medium = GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    assert TransformerShape.of(medium) == replace(points.GPT2_MEDIUM, kv_hidden=1024)
    assert TransformerShape.of(BertConfig()) == TransformerShape(768, 3072, 12, 30_522, 768)
    assert TransformerShape.of(DistilBertConfig()) == TransformerShape(768, 3072, 6, 30_522, 768)
    assert TransformerShape.of(OPTConfig(ffn_dim=8192, hidden_size=2048, num_attention_heads=32)).ffn == 8192
    llama = LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8)
    assert (TransformerShape.of(llama).kv_width, TransformerShape.of(llama).gated) == (1024, True)


def test_refusals_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"'mamba'.*give the numbers: TransformerShape"):
        TransformerShape.of(SimpleNamespace(model_type="mamba"))
    with pytest.raises(InputError, match="known are bert"):
        TransformerShape.of(object())
    wide = SimpleNamespace(model_type="llama", hidden_size=64, num_attention_heads=4, head_dim=32)
    with pytest.raises(InputError, match="4 heads of 32 are not the hidden width 64"):
        TransformerShape.of(wide)
    with pytest.raises(InputError, match="dsp is 0; give a number greater than zero"):
        Device("none", 0, 32, 14.0, 13.0)
    with pytest.raises(InputError, match="dsp is 0; give"):
        model.macs_available(0, 2, 250, 250)
    with pytest.raises(InputError, match="a1 is 0"):
        Parallelism.of(1, 0, 1)
    with pytest.raises(InputError, match="layers is 0"):
        TransformerShape(4, 8, 0)
    with pytest.raises(InputError, match="clock_mhz is -1"):
        replace(points.CHEN_W8A8, clock_mhz=-1)
    with pytest.raises(InputError, match="'prefill' or 'decode'"):
        tiny_case("training")
    with pytest.raises(InputError, match="tokens is 0"):
        tiny_case(tokens=0)
    with pytest.raises(InputError, match=r"no terms \['magic'\]; there are tile"):
        latency_ms(tiny_case(), ["magic"])


def test_a_board_is_a_device() -> None:
    device = Device.of(U280)
    assert (device.dsp, device.channels, device.peak_gbs) == (8304, 32, 14.375)
    assert device.channels * device.peak_gbs == 460
