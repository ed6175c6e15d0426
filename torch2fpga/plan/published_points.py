# SPDX-License-Identifier: Apache-2.0
"""Published measurements that the model of ``plan/published.py`` is held against, with their inputs.

This list and the inputs are fixed: a comparison changes neither. A point whose inputs are not all published
says so in ``status``; it is not dropped. Inputs that were settled with a measured figure in view say so in
``basis``.

Sources: [C] Chen et al., arXiv 2312.15159v2 (TRETS 2024); [A1] cornell-zhang/allo-pldi24-artifact commit
169cd20, llm/*.cpp, kernels for int8 weights; [A2] the same repository, ac27a5d and later, kernels for
int4 weights, and its HLS reports; [S] StreamTensor, arXiv 2509.13694, table of GPT-2; [D] DFX, MICRO 2022,
section 5 and 6; [F] FlightLLM, arXiv 2401.03868, re-measured package of 3.43 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch2fpga.boards import U280
from torch2fpga.plan.published import Device, Parallelism, PublishedDesign, TransformerShape
from torch2fpga.plan.published_cases import Case

GPT2_MEDIUM = TransformerShape(hidden=1024, ffn=4096, layers=24, vocab=50_257)
BERT_BASE = TransformerShape(hidden=768, ffn=3072, layers=12)
#: one layer of it, as the published regions are
BERT_LAYER = TransformerShape(hidden=768, ffn=3072, layers=1)
LLAMA2_7B = TransformerShape(hidden=4096, ffn=11_008, layers=32, vocab=32_000, gated=True)

#: multipliers of the whole device (UltraScale+ XCU280): published designs state shares of it
DEVICE = Device("AMD Alveo U280", 9024, U280.hbm.channels, U280.hbm.peak_gbs, U280.hbm.sequential_gbs)

#: [A1]: tiles of 8 tokens; q, k, v, p and both products of attention 8 x 16 MAC, f1 and f2 8 x 32; a weight
#: port of f1 and f2 is 256 bit wide (those of q, k, v and p 128 bit, which is the same for half the MACs);
#: each weight matrix on its own channel (kernel.cfg). Clock [C]. The host adds up the time from start to end
#: of the last kernel of each layer, so launches are outside; embedding and head are not on the device
CHEN_W8A8 = PublishedDesign(
    "Chen et al., W8A8",
    clock_mhz=250,
    parallelism=Parallelism.of(linear=128, attention=128, ffn=256),
    weight_bits=8,
    activation_bits=8,
    tile_tokens=8,
    port_bits=256,
    operator_channels=1,
)
#: the same arrays for one token. The decode kernels are not published: nothing is known of their ports, so
#: equation 7 is taken as met by the device as a whole
CHEN_W8A8_DECODE = PublishedDesign(
    "Chen et al., W8A8, decode",
    clock_mhz=250,
    parallelism=CHEN_W8A8.parallelism,
    weight_bits=8,
    activation_bits=8,
)
#: [A2] and [C] section 5.2: 8 x 16 cells of two products for q, k, v, p, f1 and f2, 8 x 8 cells of one for
#: attention; weight ports of 128 bit. 245 MHz is the clock of the BERT design
CHEN_W4A8 = PublishedDesign(
    "Chen et al., W4A8",
    clock_mhz=245,
    parallelism=Parallelism.of(linear=256, attention=64, ffn=256),
    weight_bits=4,
    activation_bits=8,
    tile_tokens=8,
    port_bits=128,
    operator_channels=1,
)
#: the same at the clock of the GPT-2 designs, and for one token
CHEN_W4A8_GPT2 = replace(CHEN_W4A8, name="Chen et al., W4A8, GPT-2", clock_mhz=250)
CHEN_W4A8_DECODE = replace(CHEN_W4A8_GPT2, tile_tokens=1, port_bits=None, operator_channels=None)
#: decode with the channels of the prefill kernels: one for each weight matrix, at the widest port
ONE_CHANNEL_DECODE = replace(CHEN_W8A8_DECODE, port_bits=512, operator_channels=1)
#: [D]: 64 x 16 FP16 multipliers, 32 ports of 512 bit at 200 MHz; keys and values in HBM; argmax on the
#: device, so the head is; one start for all tokens
DFX = PublishedDesign(
    "DFX",
    clock_mhz=200,
    parallelism=Parallelism.of(1024, 1024, 1024),
    weight_bits=16,
    activation_bits=16,
    port_bits=512,
    kv_channels=32,
    head=True,
    overlay=True,
)
#: [F]: 6,345 multipliers (whole device), of which the matrix engine's share is not published: every one is
#: taken, so that arithmetic cannot bind; the head is part of the package
FLIGHTLLM = PublishedDesign(
    "FlightLLM",
    clock_mhz=225,
    parallelism=Parallelism.of(6345, 6345, 6345),
    weight_bits=3.5,
    activation_bits=8,
    kv_channels=32,
    overlay=True,
)


@dataclass(frozen=True)
class Point:
    """A measurement.

    Attributes:
        key, title: short name (also of its figures), and what was measured.
        measured_ms: as published.
        case: inputs.
        status: "known" (all inputs that the model takes are published), "assumed" (but for one, which
            ``basis`` names), "reading" (another reading of a source, or one of several) or "outside" (not a
            design that the equations describe, or inputs missing). The aim counts the first two.
        basis: where inputs and measurement come from.
        unexplained: what can be behind the residual.
        absent: why a term adds nothing, for each that does not.
    """

    key: str
    title: str
    measured_ms: float
    case: Case
    status: Literal["known", "assumed", "reading", "outside"]
    basis: str
    unexplained: str
    absent: Mapping[str, str] = field(default_factory=dict)


def _decode(design: PublishedDesign) -> Case:
    return Case(GPT2_MEDIUM, DEVICE, design, "decode", 128)


def _prefill(design: PublishedDesign, tokens: int = 128) -> Case:
    return Case(GPT2_MEDIUM, DEVICE, design, "prefill", tokens)


#: the measurement is of the published host, which adds up times from a kernel's start to its end
_HOST = {
    "kv": "keys and values of a layer stay on chip",
    "launch": "the published host times kernels from start to end",
    "head": "embedding and head are not on the device",
}

POINTS = (
    Point(
        "prefill",
        "GPT-2 medium, prefill of 128 tokens",
        325.98,
        _prefill(CHEN_W8A8),
        "known",
        "2.547 ms a token [S], W8A8 and 250 MHz [C], arrays and ports of the int8 kernels [A1]; both "
        "published sets of kernels were tried by hand before this list was written, the other stands below",
        "drain of arrays between tiles (0.4 to 12 % of a stage in the HLS report of [A2]); stalls of memory",
        _HOST
        | {
            "port": "256 bit at 250 MHz are 8 GB/s, what f1's 256 MAC on tiles of 8 tokens take",
            "efficiency": "a channel sustains more than the 8 GB/s of such a port",
        },
    ),
    Point(
        "decode",
        "GPT-2 medium, decode behind 128 tokens",
        4.90,
        _decode(CHEN_W8A8_DECODE),
        "assumed",
        "204.05 tokens/s [S], W8A8 and 250 MHz [C]; the decode kernels are not published: it is assumed that "
        "they have the multipliers of [A1], one token wide, and weights for all of them in every cycle",
        "context length of the measurement: [S] gives one rate for all",
        _HOST
        | {
            "port": "the decode kernels' ports are not published; equation 7 is taken as met",
            "efficiency": "302 MB of weights over all channels take less than the arithmetic at either rate",
        },
    ),
    Point(
        "prefill_32",
        "GPT-2 medium, prefill of 32 tokens",
        81.50,
        _prefill(CHEN_W8A8, 32),
        "reading",
        "tabulated by [S], but exactly 32/128 of the figure for 128: one rate, not a second measurement",
        "a chain that fills and drains cannot take time in proportion to the tokens",
    ),
    Point(
        "int4_prefill",
        "GPT-2 medium, prefill of 128 tokens, arrays of the int4 kernels",
        325.98,
        _prefill(CHEN_W4A8_GPT2),
        "reading",
        "as above with the arrays of [A2], which fit the label of [S]; [C] states W8A8",
        "q, k, v and p with half as many multipliers: the int8 kernels",
    ),
    Point(
        "int4_decode",
        "GPT-2 medium, decode behind 128 tokens, arrays of the int4 kernels",
        4.90,
        _decode(CHEN_W4A8_DECODE),
        "reading",
        "as above",
        "as above",
    ),
    Point(
        "channels_decode",
        "GPT-2 medium, decode behind 128 tokens, a channel for each weight matrix",
        4.90,
        _decode(ONE_CHANNEL_DECODE),
        "reading",
        "int8 weights over the channels of the prefill kernels (kernel.cfg of [A1])",
        "excluded: the decode design must use more channels than the published prefill kernels",
    ),
    Point(
        "bert",
        "BERT-base, one layer, 512 tokens",
        26.01,
        Case(BERT_LAYER, DEVICE, CHEN_W4A8, "prefill", 512),
        "reading",
        "26.01 ms, 245 MHz, W4A8 [C, third-party notes]; length and one layer are what the times of "
        "its regions leave",
        "softmax and layer norms in float, drain of arrays",
    ),
    Point(
        "dfx",
        "DFX: GPT-2 medium, one token",
        5.40,
        Case(GPT2_MEDIUM, DEVICE, DFX, "decode", 64),
        "outside",
        "185.19 tokens/s [S]; an overlay that executes instructions, which the equations do not describe",
        "latency of dependent instructions (a floating-point sum of 64 takes 66 cycles), vector operations",
    ),
    Point(
        "dfx_end",
        "DFX: GPT-2 medium, 64 tokens in and 64 out, a step",
        1000 * 64 / 93.10 / 128,
        Case(GPT2_MEDIUM, DEVICE, DFX, "decode", 64),
        "outside",
        "93.10 tokens/s end to end on one card [D]: 64 tokens made in 128 steps, since a prompt's tokens "
        "pass one by one as well ([S]: 5.4 ms for each of them, too)",
        "as above; added after the first comparison, as a second source of the same rate",
    ),
    Point(
        "flight_128",
        "FlightLLM: LLaMA2-7B, decode behind 128 tokens",
        17.5,
        Case(LLAMA2_7B, DEVICE, FLIGHTLLM, "decode", 128, 3_430_000_000),
        "outside",
        "57.1 tokens/s [F]; an overlay; ports, order of access and engine are not published",
        "the paper states 65.9 % of the peak bandwidth, this run moves 43 % of it",
    ),
    Point(
        "flight_512",
        "FlightLLM: LLaMA2-7B, decode behind 512 tokens",
        18.99,
        Case(LLAMA2_7B, DEVICE, FLIGHTLLM, "decode", 512, 3_430_000_000),
        "outside",
        "52.7 tokens/s [F]; as above",
        "as above; the 384 tokens more take 1.49 ms, 68 GB/s for their keys and values",
    ),
)

#: cycles of operators in the HLS reports of [A2] (GPT-2 medium's width, 128 tokens, arrays of CHEN_W4A8);
#: estimates of the tool, not measurements
HLS_REPORT = {"q": 528_822, "a1": 293_201, "a2": 281_937, "p": 528_821, "f1": 2_110_901, "f2": 2_104_773}
HLS_REPORT_TOKENS = 128

#: published times of the three regions of the BERT design, ms: q, k, v; attention and p; f1 and f2
BERT_REGIONS_MS = (4.86, 14.63, 19.81)
#: its multipliers
BERT_DSP = 1780
