# SPDX-License-Identifier: Apache-2.0
"""The analytical model of Chen et al. against published measurements, bare and extended.

    python -m benchmarks.published --json benchmarks/results/published.json

Points and inputs are those of torch2fpga/plan/published_points.py. The aim counts the points whose inputs
are published, or all but one that is named; the others are shown with their residuals.
"""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from torch2fpga.plan.published import longest_sequence, prefill_macs, sequence_of_ratio
from torch2fpga.plan.published_cases import LAUNCH_US, latency_ms, predict
from torch2fpga.plan.published_points import (
    BERT_BASE,
    BERT_DSP,
    BERT_REGIONS_MS,
    CHEN_W4A8,
    GPT2_MEDIUM,
    HLS_REPORT,
    HLS_REPORT_TOKENS,
    POINTS,
    Point,
)

#: largest difference of the extended model from a point that counts, percent
TOLERANCE = 15.0
COUNTED = ("known", "assumed")
#: products of int8 and int4 that the BERT design's multipliers do at once (section 5.1: packed in pairs)
PRODUCTS_A_DSP = 2


def percent(modelled: float, measured: float) -> float:
    """Difference of a prediction from a measurement."""
    return 100 * (modelled / measured - 1)


def add_point(results: Results, point: Point) -> float:
    """Measured, bare, each term that is not zero, extended; returns the last one's difference in percent."""
    found = predict(point.case)
    note = f"inputs {point.status}: {point.basis}"
    title = f"{point.title}: measured"
    results.add(point.key, title, point.measured_ms, "ms", obtained="published", note=note)

    def add(name: str, title: str, value: float, note: str) -> None:
        title = f"{point.title}: {title}"
        results.add(f"{point.key}_{name}", title, round(value, 3), "ms", obtained="modelled", note=note)

    gap = point.measured_ms - found.bare_ms
    bare = percent(found.bare_ms, point.measured_ms)
    what = "arithmetic and memory" if point.case.design.overlay else "bare equations"
    add("bare", what, found.bare_ms, f"{bare:+.1f} % of the measurement")
    terms = []
    for name, value in found.terms_ms.items():
        if abs(value) <= 1e-9:
            if name in point.absent:
                add(name, f"term {name}", 0.0, point.absent[name])
        else:
            share = f"{100 * value / gap:.0f} % of the bare residual"
            add(name, f"term {name}", value, share)
            terms.append(f"{name} {value:+.3g} ms ({share})")
    difference = percent(found.extended_ms, point.measured_ms)
    rest = point.measured_ms - found.extended_ms
    note = f"{difference:+.1f} %; terms: {', '.join(terms)}; left {rest:+.2f} ms: {point.unexplained}"
    add("model", "extended model", found.extended_ms, note)
    return difference


def add_operators(results: Results) -> None:
    """Table 1 over M against the HLS report of the published kernels."""
    macs = prefill_macs(GPT2_MEDIUM, HLS_REPORT_TOKENS)
    worst = 0.0
    for name, reported in HLS_REPORT.items():
        cycles = macs[name] / CHEN_W4A8.parallelism.each[name]
        difference = percent(cycles, reported)
        worst = max(worst, abs(difference))
        results.add(
            f"op_{name}",
            f"operator {name}, {HLS_REPORT_TOKENS} tokens",
            cycles,
            "cycles",
            obtained="modelled",
            note=f"published HLS report {reported:,}, difference {difference:+.1f} %",
        )
    title = "largest difference of an operator from the HLS report"
    results.add("op_worst", title, round(worst, 1), "%", ("<=", TOLERANCE), "modelled")


def add_bert(results: Results) -> None:
    """What length and how many layers the 26.01 ms of BERT-base can be."""
    (point,) = (p for p in POINTS if p.key == "bert")
    cycles = point.measured_ms * CHEN_W4A8.clock_mhz * 1000
    arrays = sum(CHEN_W4A8.parallelism.each.values())

    def add(key: str, title: str, value: float, unit: str, note: str) -> None:
        results.add(
            f"bert_{key}", f"BERT-base, 12 layers: {title}", value, unit, obtained="modelled", note=note
        )

    needed = BERT_BASE.layers * sum(prefill_macs(BERT_BASE, 512).values()) / cycles
    peak = BERT_DSP * PRODUCTS_A_DSP
    add(
        "needed", "needed for 512 tokens", round(needed), "MAC/cycle", f"{BERT_DSP:,} multipliers do {peak:,}"
    )
    note = "every multiplier of the design busy in every cycle with two products"
    add(
        "limit_dsp",
        "longest sequence, all multipliers",
        longest_sequence(BERT_BASE, peak * cycles),
        "tokens",
        note,
    )
    note = f"its arrays ({arrays:,} MAC/cycle) busy in every cycle"
    add("limit_arrays", "longest, all arrays", longest_sequence(BERT_BASE, arrays * cycles), "tokens", note)
    chain = prefill_macs(BERT_BASE, 1)
    each = CHEN_W4A8.parallelism.each
    a_token = BERT_BASE.layers * (chain["k"] / each["k"] + chain["f1"] / each["f1"])
    add(
        "limit_chain",
        "longest, equation 8",
        int(cycles / a_token),
        "tokens",
        "attention is shorter than f1 here",
    )
    first, second, third = BERT_REGIONS_MS
    length = sequence_of_ratio(BERT_BASE, CHEN_W4A8.parallelism, second / first)
    note = "published region times, a1 over q; clock and layers cancel; less the excess in the HLS report: "
    macs = prefill_macs(GPT2_MEDIUM, HLS_REPORT_TOKENS)
    excess = {name: HLS_REPORT[name] * each[name] / macs[name] for name in ("a1", "q")}
    note += f"{length * excess['q'] / excess['a1']:.0f}"
    title = "BERT-base, any number of layers: length that the ratio of its regions gives"
    results.add("bert_length", title, round(length), "tokens", obtained="modelled", note=note)
    macs = prefill_macs(BERT_BASE, 512)
    for name, measured in (("q", first), ("a1", second), ("f1", third)):
        value = macs[name] / each[name] / (CHEN_W4A8.clock_mhz * 1000)
        results.add(
            f"bert_{name}",
            f"BERT-base, one layer, 512 tokens: operator {name}",
            round(value, 2),
            "ms",
            obtained="modelled",
            note=f"published time of its region {measured} ms, difference {percent(value, measured):+.1f} %",
        )


def add_consequences(results: Results) -> None:
    """Figures that the text of the page needs."""
    cases = {point.key: point.case for point in POINTS}
    arrays = latency_ms(cases["prefill"]) - latency_ms(cases["int4_prefill"])
    behind = predict(replace(cases["decode"], tokens=1024)).extended_ms
    twelve = BERT_BASE.layers * predict(cases["bert"]).extended_ms
    for key, title, value, note in (
        ("arrays", "prefill of 128 tokens: arrays of the int8 instead of the int4 kernels", arrays, "bare"),
        ("decode_1024", "GPT-2 medium, decode behind 1,024 tokens: extended model", behind, "not measured"),
        ("bert_twelve", "BERT-base, 12 layers, 512 tokens: extended model", twelve, "12 times one layer"),
    ):
        results.add(key, title, round(value, 2), "ms", obtained="modelled", note=note)


def add_launch(results: Results, point: Point) -> None:
    """What starts would add to a measurement if it contained them."""
    for name, each in zip(("low", "high"), LAUNCH_US, strict=True):
        value = point.case.shape.layers * each / 1000
        title = f"{point.title}: one kernel start in each layer, {each:.0f} us"
        note = "not in the sums above: the published host times kernels from start to end"
        results.add(f"launch_{name}", title, round(value, 2), "ms", obtained="modelled", note=note)


def main() -> int:
    """Compare, print, write; the exit status is 1 if a point that counts is too far off."""
    arguments = common.arguments(__doc__).parse_args()
    results = Results("published")
    differences = {point.key: add_point(results, point) for point in POINTS}
    counted = [point for point in POINTS if point.status in COUNTED]
    bare = max(abs(percent(latency_ms(point.case), point.measured_ms)) for point in counted)
    note = ", ".join(f"{point.key}: {point.status}" for point in counted)

    def worst(key: str, title: str, value: float, note: str, bound: tuple[str, float] | None = None) -> None:
        title = f"largest difference, {title}"
        results.add(key, title, round(value, 1), "%", bound, obtained="modelled", note=note)

    worst("worst_bare", "bare equations", bare, note)
    extended = max(abs(differences[point.key]) for point in counted)
    worst("worst", "extended model", extended, note, ("<=", TOLERANCE))
    other = max(abs(differences[f"int4_{point.key}"]) for point in counted)
    worst("worst_int4", "extended model, arrays of the int4 kernels", other, "the other published kernels")
    add_launch(results, next(point for point in counted if point.case.phase == "decode"))
    add_operators(results)
    add_bert(results)
    add_consequences(results)
    return results.finish(Console(), arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
