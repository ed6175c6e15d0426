# SPDX-License-Identifier: Apache-2.0
"""Intervals and depths of pipelined loops: planted faults with good twins, and depths by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch2fpga.emit.check import check_source
from torch2fpga.emit.checker import delays
from torch2fpga.emit.checker.schedule import PipelinedLoop, analyse

LIBRARY = Path(__file__).parents[2] / "torch2fpga" / "hls" / "include"
INT, WORD = "int32_t", "int64_t"


def kernel(process: str, arguments: str = "in, out", locals_: str = "") -> str:
    """A kernel with one process `work`; its two streams are ports."""
    return f"""#include "t2f/core.hpp"
{process}
extern "C" void top(const {INT} *memory, hls::stream<{INT}> &in, hls::stream<{INT}> &out, int n) {{
#pragma HLS dataflow
{locals_}  T2F_PROCESS("work", work({arguments}, n));
  T2F_DATAFLOW_END;
}}
"""


def process(body: str, before: str = "", bound: str = "n", interval: int = 1) -> str:
    """A process of one pipelined loop."""
    return f"""
static void work(hls::stream<{INT}> &in, hls::stream<{INT}> &out, int n) {{
{before}
LOOP:
  for (int i = 0; i < {bound}; ++i) {{
    T2F_PIPELINE({interval});
{body}
  }}
}}
"""


def only(text: str, clock_mhz: float = 250) -> PipelinedLoop:
    """The one loop of a kernel."""
    (loop,) = analyse({"top.cpp": text}, ["top.cpp"], [LIBRARY], clock_mhz)
    return loop


def schedule_rules(text: str) -> list[str]:
    """The schedule rules that the checker finds broken."""
    found = check_source(text, path="top.cpp", include_dirs=[LIBRARY])
    assert "parse" not in {item.rule for item in found}, found
    return [item.rule for item in found if item.rule.startswith("schedule-")]


ARRAY = "  int32_t a[64];\n"
PARTS = "  int32_t a[64];\n#pragma HLS array_partition variable = a {}\n"
EVEN = PARTS.format("cyclic factor = 2")
MAXIMA = """  int32_t top = 0;
  int32_t v[16];
#pragma HLS array_partition variable = v complete
"""
SIXTEEN = "    for (int j = 0; j < 16; ++j) {{\n#pragma HLS unroll\n      {}\n    }}\n"
PAIR = "  word_pair pair[64];\n"
RECORD = "struct word_pair { int32_t d[4]; };\n"
SUM_PAIR = "    out.write(pair[i].d[0] + pair[i].d[1] + pair[i].d[2] + pair[i].d[3]);"

# name, statements before the loop, body, the least interval, what the reason names
FAULTS = [
    ("two reads", "", "    out.write(in.read() + in.read());", 2, "2 reads of stream 'in'"),
    ("unrolled reads", "", SIXTEEN.format("out.write(j);"), 16, "16 writes of stream 'out'"),
    ("one bank", ARRAY, "    a[i] = a[i + 1] + a[i + 2];\n    out.write(in.read());", 2, "array 'a'"),
    (
        "one write port",
        ARRAY + "#pragma HLS bind_storage variable = a type = ram_s2p impl = bram\n",
        "    a[i] = in.read();\n    a[i + 1] = 0;",
        2,
        "2 writes of one bank of array 'a' (ram_s2p)",
    ),
    ("cyclic, all even", EVEN, "    a[4 * i] = a[2 * i] + a[2 * i + 6];", 2, "'a'"),
    ("chain of maxima", MAXIMA, SIXTEEN.format("top = v[j] > top ? v[j] : top;"), 6, "'top'"),
    (
        "wide product",
        "  int64_t x = 1;\n  int64_t f = n;\n",
        "    x = x * f + in.read();\n    out.write(x);",
        3,
        "'x'",
    ),
    ("one address", ARRAY, "    a[n & 63] += in.read();", 2, "'a[..]'"),
    ("members", PAIR, SUM_PAIR, 2, "'pair'"),
]  # fmt: skip
TWINS = [
    ("one read", "", "    out.write(in.read() + 1);"),
    ("one of two branches", "", "    if (i & 1) out.write(in.read());\n    else out.write(-in.read());"),
    ("a read and a write", ARRAY, "    a[i] = a[i + 1];\n    out.write(in.read());"),
    ("one address, twice", ARRAY, "    a[i] = a[i + 1] + a[i + 1] * 3;\n    out.write(in.read());"),
    ("registers", PARTS.format("complete"), "    a[i] = a[i + 1] + a[i + 2];\n    out.write(in.read());"),
    ("cyclic, one odd", EVEN, "    a[4 * i] = a[2 * i] + a[2 * i + 1];"),
    ("tree of sums", MAXIMA.replace("top", "sum"), SIXTEEN.format("sum += v[j];")),
    (
        "maximum ahead",
        MAXIMA,
        "    int32_t most = v[0];\n"
        + SIXTEEN.format("most = v[j] > most ? v[j] : most;")
        + "    top = most > top ? most : top;\n    out.write(top);",
    ),
    ("sum of products", "  int64_t x = 1;\n  int64_t f = n;\n", "    x += f * in.read();\n    out.write(x);"),
    ("moving address", ARRAY, "    a[i] += in.read();"),
    ("aggregated", PAIR + "#pragma HLS aggregate variable = pair\n", SUM_PAIR),
    (
        "constant table",
        "  static const int32_t table[4] = {1, 2, 3, 4};\n",
        "    int32_t sum = 0;\n"
        + SIXTEEN.format("sum += table[(i + j * j) & 3];")
        + "    out.write(sum);",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "body", "least", "names"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_an_interval_that_cannot_be_reached(before: str, body: str, least: int, names: str) -> None:
    record = RECORD if "pair" in before else ""
    text = kernel(record + process(body, before))
    loop = only(text)
    assert (loop.minimum_ii, loop.ii) == (least, 1)
    assert names in loop.reason
    assert schedule_rules(text) == ["schedule-interval"]
    slower = kernel(record + process(body, before, interval=least))
    assert schedule_rules(slower) == []


@pytest.mark.parametrize(("before", "body"), [t[1:] for t in TWINS], ids=[t[0] for t in TWINS])
def test_an_interval_of_one(before: str, body: str) -> None:
    text = kernel((RECORD if "pair" in before else "") + process(body, before))
    loop = only(text)
    assert (loop.minimum_ii, loop.reason) == (1, "")
    assert schedule_rules(text) == []


@pytest.mark.parametrize(("body", "least"), [("m[i] + m[i + 1]", 2), ("m[i]", 1)])
def test_accesses_to_a_memory_port(body: str, least: int) -> None:
    signature = f"static void work(const {INT} *m, hls::stream<{INT}> &out, int n) {{\n"
    loop = f"  for (int i = 0; i < n; ++i) {{\n    T2F_PIPELINE(1);\n    out.write({body});\n  }}\n}}\n"
    text = kernel(signature + loop, "memory, out")
    assert only(text).minimum_ii == least
    assert schedule_rules(text) == ["schedule-interval"] * (least > 1)


def test_what_a_finding_says() -> None:
    text = kernel(process("    out.write(in.read() + in.read());"))
    (finding,) = [
        f for f in check_source(text, path="top.cpp", include_dirs=[LIBRARY]) if "schedule" in f.rule
    ]
    assert text.splitlines()[finding.line - 1].strip() == "T2F_PIPELINE(1);"
    for part in ("LOOP", "'work'", "'in'", "every 2"):
        assert part in finding.message


INNER = "    T2F_PIPELINE(1);\n    out.write(in.read());\n"
NEST = "  for (int o = 0; o < n; ++o) {{\n{}    for (int i = 0; i < {}; ++i) {{\n" + INNER + "    }}\n  }}\n"
OTHER = "    for (int i = 0; i < 4; ++i) {\n      T2F_PIPELINE(1);\n      out.write(i);\n    }\n"


@pytest.mark.parametrize(
    ("loops", "rules"),
    [
        ("  out.write(in.read());\n", ["schedule-outside"] * 2),
        ("  for (int i = 0; i < n; ++i) {\n" + INNER + "  }\n", []),
        (NEST.format("", "n"), ["schedule-entry"]),
        (NEST.format("    T2F_LOOP_ENTRY;\n", "n"), []),
        (NEST.format("", "8"), []),  # flattened
        (
            NEST.format("    const int twice = 2 * o;\n    (void)twice;\n", "8"),
            ["schedule-entry"],
        ),  # not perfect
        (NEST.format(OTHER, "n"), []),
        ("  for (int s = 0; s < 2; ++s) {\n" + NEST.replace("o < n", "o < 4").format("", "8") + "  }\n", []),
        ("  for (int s = 0; s < 2; ++s) {\n" + NEST.format("", "8") + "  }\n", ["schedule-entry"]),
        ("  for (int s = 0; s < n; ++s) {\n" + NEST.format("", "8") + "  }\n", ["schedule-entry"]),
        ("  for (int s = 0; s < 1; ++s) {\n" + NEST.format("", "8") + "  }\n", []),
    ],
    ids=[
        "outside",
        "inside",
        "re-entered",
        "said",
        "flattened",
        "imperfect",
        "other",
        "constant",
        "n inside",
        "n",
        "once",
    ],
)
def test_what_a_clock_must_see(loops: str, rules: list[str]) -> None:
    signature = f"static void work(hls::stream<{INT}> &in, hls::stream<{INT}> &out, int n) {{\n"
    assert schedule_rules(kernel(signature + loops + "}\n")) == rules


# By hand at 250 MHz, 2.92 ns usable of 4 ns. A stream's read and write are a cycle each; a write
# needs 1.54 ns of its cycle, so up to 1.38 ns of logic fit in front of it.
DEPTHS = [
    ("out.write(in.read());", 2),  # read, write
    ("out.write(in.read() + 1);", 2),  # 0.81 ns ahead of the write
    ("out.write(((in.read() ^ n) + 1) ^ i);", 3),  # 0.32 + 0.81 + 0.32 = 1.45 > 1.38: one more
    ("const int32_t v = in.read();\n    out.write(v * v);", 7),  # 1 + 5 (32x32) + 1
    ("const int8_t v = int8_t(in.read());\n    out.write(v * v);", 5),  # 1 + 3 (8x8) + 1
    ("const int16_t v = int16_t(in.read());\n    out.write(v * v);", 5),  # 1 + 3 (16x16) + 1
    ("out.write(a[in.read() & 63]);", 4),  # 1 + 2 (load) + 1
    ("a[in.read() & 63] = i;", 2),  # 1 + 1 (store)
    ("out.write(in.read() / 3);", 34),  # 1 + 32 (divider of 2.29 ns) + 1
    ("out.write(in.read() << 3);", 2),  # wires
    ("if (n > 5 && false) out.write(in.read() / 3);", 1),  # never: only the loop is left
]  # fmt: skip


@pytest.mark.parametrize(("body", "depth"), DEPTHS)
def test_depth_by_hand(body: str, depth: int) -> None:
    assert only(kernel(process("    " + body, ARRAY))).depth == depth


def reduction(lanes: int, balanced: bool) -> str:
    """Sum or maximum of registers."""
    step = "s += v[j] ^ x;" if balanced else "s = (v[j] ^ x) > s ? (v[j] ^ x) : s;"
    before = f"  int32_t v[{lanes}];\n#pragma HLS array_partition variable = v complete\n"
    loop = f"    for (int j = 0; j < {lanes}; ++j) {{\n#pragma HLS unroll\n      {step}\n    }}\n"
    return kernel(
        process("    const int32_t x = in.read();\n    int32_t s = 0;\n" + loop + "    out.write(s);", before)
    )


def test_depth_grows_with_the_lanes() -> None:
    sums = [only(reduction(lanes, True)).depth for lanes in (2, 8, 32, 128)]
    maxima = [only(reduction(lanes, False)).depth for lanes in (2, 8, 32, 128)]
    assert sums == sorted(sums)
    assert sums[0] < sums[-1]
    assert maxima == sorted(set(maxima))
    # A tree of 128 has 7 levels, of which three fit into a period; a chain has 128 links, two in each.
    assert sums[-1] <= 1 + 3 + 1
    assert maxima[-1] >= 64


def test_a_priority_encoder_is_a_tree() -> None:
    body = (
        "    const int32_t v = in.read();\n    int top = 0;\n    for (int b = 1; b < 32; ++b) {\n"
        "#pragma HLS unroll\n      if ((v >> b) & 1) top = b;\n    }\n    out.write(top);"
    )
    # 5 levels of 0.57 ns after the read: a cycle of logic, and the write.
    assert only(kernel(process(body))).depth == 3


def test_a_slower_clock_needs_less() -> None:
    text = kernel(
        process("    x = x * f + in.read();\n    out.write(x);", "  int64_t x = 1;\n  int64_t f = n;\n")
    )
    fast, slow = only(text, 300), only(text, 100)
    assert fast.minimum_ii > slow.minimum_ii
    assert fast.depth >= slow.depth


def test_bind_op_gives_the_latency() -> None:
    body = (
        "    const int16_t v = int16_t(in.read());\n    const int32_t p = v * v;\n"
        "#pragma HLS bind_op variable = p op = mul impl = dsp latency = 4\n    out.write(p);"
    )
    assert only(kernel(process(body))).depth == 6


def test_helpers_and_templates_are_looked_into() -> None:
    helper = (
        "template <int N>\nstatic int32_t twice(hls::stream<int32_t> &s) {\n  int32_t sum = 0;\n"
        "  for (int j = 0; j < N; ++j) {\n#pragma HLS unroll\n    sum += s.read();\n  }\n  return sum;\n}\n"
    )
    loop = only(kernel(helper + process("    out.write(twice<3>(in));")))
    assert (loop.minimum_ii, loop.path, loop.label) == (3, "top/work", "LOOP")


def test_processes_that_share_a_function() -> None:
    text = kernel(process("    out.write(in.read());"), "in, mid", f"  hls::stream<{INT}, 2> mid;\n")
    text = text.replace(
        "  T2F_DATAFLOW_END;", '  T2F_PROCESS("again", work(mid, out, n));\n  T2F_DATAFLOW_END;'
    )
    loops = analyse({"top.cpp": text}, ["top.cpp"], [LIBRARY])
    assert [loop.path for loop in loops] == ["top/work", "top/again"]
    assert loops == analyse({"top.cpp": text}, ["top.cpp"], [LIBRARY])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"top\.cpp:1"):
        analyse({"top.cpp": "int x = y;\n"}, ["top.cpp"], [LIBRARY])
    with pytest.raises(ValueError, match="MHz"):
        delays.usable_ns(0)


@pytest.mark.parametrize(
    ("a", "b", "cycles"),
    [(8, 8, 3), (9, 8, 3), (27, 18, 3), (28, 18, 5), (32, 32, 5), (33, 32, 6), (64, 64, 6)],
)
def test_products_by_width(a: int, b: int, cycles: int) -> None:
    assert delays.multiply(a, b, delays.usable_ns(250))[0] == cycles
    assert delays.multiply(b, a, delays.usable_ns(250))[0] == cycles


def test_wider_is_never_faster() -> None:
    inputs = [delays.mux(n) for n in range(1, 300)]
    assert inputs == sorted(inputs)
    assert [delays.signed_digits(n) for n in (0, 1, 7, 8, 10, 11, 255)] == [0, 1, 2, 1, 2, 3, 2]
