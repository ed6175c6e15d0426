# SPDX-License-Identifier: Apache-2.0
"""The clock of the timed run: every expected number is worked out by hand.

A pipelined loop of N iterations that enters at cycle 0 issues at 1, 1 + II, ... and is left at
1 + (N - 1) * II + depth + 1. What an iteration writes can be read ``depth`` cycles behind its issue.
The depth is 8 where a test says nothing else. The designs are in ``sim/timed_cases.cpp``.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.hls.timed_program import Program, Result
from tests.tiny import cxx_cache
from torch2fpga.simulate.build import INCLUDE, SIM, compiler

__all__ = ["cxx_cache"]
pytestmark = pytest.mark.gxx
DEPTH = 8
TIMED, UNTIMED = Program("timed_cases"), Program("timed_cases", timed=False)


def run(case: str, *arguments: int, **settings: int) -> Result:
    return TIMED.run(case, *arguments, settings=settings)


# -- loops and streams ---------------------------------------------------------------------


def test_a_loop_alone() -> None:
    assert run("alone", 10).cycles == 1 + 9 + 8 + 1
    assert run("alone", 1).cycles == 1 + 0 + 8 + 1
    assert run("alone", 0).cycles == 0  # no iteration, not entered
    assert run("alone_slow", 10).cycles == 1 + 9 * 3 + 8 + 1
    assert run("alone", 10, default_depth=1).cycles == 1 + 9 + 1 + 1


def test_a_chain_adds_its_depths() -> None:
    """Source issues at 1 + i, relay at 9 + i, sink at 17 + i, and leaves at 26 + 8 + 1."""
    found = run("chain", 10)
    assert found.cycles == 35
    assert [found.process(p)["ends"] for p in ("source", "relay", "sink")] == [[19], [27], [35]]
    assert found.stalls("source") == (0, 0, 0)
    assert found.stalls("relay") == (8, 0, 0)
    assert found.stalls("sink") == (16, 0, 0)
    assert (found.stream("x")["stalled_reads"], found.stream("y")["stalled_reads"]) == (8, 16)


def test_the_slowest_stage_sets_the_pace() -> None:
    """Relay issues at 9 + 3 i, sink at 17 + 3 i: 44 + 9.

    The source has two slots: its token i waits for the slot of token i - 2, free at 10 + 3 (i - 2),
    seven cycles behind its issue: issues are at 1, 2, 3, then at 3 i - 3, the last at 24 instead of 10.
    """
    found = run("chain_slow", 10)
    assert found.cycles == 53
    assert found.stalls("source") == (0, 14, 0)
    assert found.process("source")["ends"] == [24 + 8 + 1]
    assert found.stalls("sink") == (16 + 9 * 2, 0, 0)
    assert found.stream("x")["stalled_writes"] == 14


@pytest.mark.parametrize(("depth", "cycles"), [(1, 1 + 9 * 2 + 8 + 9), (2, 1 + 9 + 8 + 9), (16, 27)])
def test_two_slots_carry_a_token_a_cycle_and_one_slot_half(depth: int, cycles: int) -> None:
    """A token is written, read in the next cycle, and its slot is free in the one behind that."""
    found = run(f"pair{depth}", 10)
    assert found.cycles == cycles
    assert found.stalls("source") == (0, cycles - 27, 0)
    assert found.stalls("sink") == (8 + cycles - 27, 0, 0)
    assert found.stream("x")["high_water"] == min(2, depth)


def test_a_drain_between_two_loops_of_a_process() -> None:
    """Two rows of five, each filled (1 + 4 + 8 + 1 cycles) and drained (the same), behind 8 of input.

    The last token leaves at 55, is read at 63, and the sink leaves at 72.
    """
    found = run("rows", 2, 5)
    assert found.process("by_row")["ends"] == [8 + 2 * 2 * 14]
    assert found.stalls("by_row") == (8, 0, 0)
    assert found.cycles == 72
    loops = found.process("by_row")["loops"]
    assert [(u["entries"], u["iterations"], u["input"]) for u in loops] == [(2, 10, 8), (2, 10, 0)]


def test_entries_drain_and_flat_nests_do_not() -> None:
    found = run("entries", 3)
    assert found.process("again")["ends"] == [3 * (1 + 4 + 8 + 1)]
    assert found.process("nest")["ends"] == [1 + 14 + 8 + 1]
    assert [u["entries"] for u in found.process("again")["loops"]] == [3]
    assert [u["entries"] for u in found.process("nest")["loops"]] == [1]


@pytest.mark.parametrize("swapped", [0, 1])
def test_reads_of_an_iteration_happen_together(swapped: int) -> None:
    """Slow tokens can be read at 9 + 5 i, so the join issues there and frees both slots at 10 + 5 i.

    The fast source waits for the slot of its token i - 2: issues at 1, 2, 3, then 5 i - 7, the last
    at 18 instead of 6, in whatever order the join's statements are.
    """
    found = run("together", 6, swapped)
    assert found.cycles == 9 + 25 + 8 + 1
    assert found.stalls("fast") == (0, 12, 0)
    assert found.process("fast")["ends"] == [18 + 8 + 1]
    assert found.stalls("join") == (34 - 1 - 5, 0, 0)
    assert found.values == tuple(2 * i for i in range(6))


def test_launches_back_to_back() -> None:
    """Every process is busy for 1 + 9 + 8 + 1 cycles, and starts again at once: that is the interval."""
    found = run("chain", 10, launches=3)
    assert found.process("source")["ends"] == [19, 38, 57]
    assert found.process("relay")["ends"] == [27, 46, 65]
    assert found.process("sink")["ends"] == [35, 54, 73]
    assert found.process("sink")["begins"] == [0, 35, 54]
    assert found.values == 3 * tuple(range(1, 11))
    slow = run("chain_slow", 10, launches=4).process("relay")["ends"]
    assert [b - a for a, b in pairwise(slow)] == [1 + 9 * 3 + 8 + 1] * 3


def test_launches_of_a_region_inside_of_a_process() -> None:
    """The inner region runs once for each launch of its process: 2 * 10 tokens pass, not 4 * 10."""
    found = run("nested", 10, launches=2)
    assert found.message == ""
    assert found.values == 2 * tuple(range(2, 12))
    assert found.process("inner")["begins"][0] == 0 and len(found.process("inner")["ends"]) == 2
    once = run("nested", 10)
    assert once.cycles == 1 + 9 + 4 * 8 + 1
    assert once.process("inner")["ends"] == [27 + 8]  # when its last process is through


# -- settings ----------------------------------------------------------------------------------


def test_depth_of_one_loop_of_one_process() -> None:
    line = TIMED.line("RELAY")
    assert TIMED.run("chain", 10, settings=[f"depth k/relay {line} 20"]).cycles == 35 + 12
    assert TIMED.run("chain", 10, settings=[f"depth k/other {line} 20"]).cycles == 35
    both = [f"depth k/relay {line} 20", f"depth k/sink {TIMED.line('SINK')} 1"]
    assert TIMED.run("chain", 10, settings=both).cycles == 35 + 12 - 7


@pytest.mark.parametrize(
    ("depth", "percent", "cycles"),
    [(8, 50, 10 + 3 * 4), (8, 200, 10 + 3 * 16), (7, 50, 10 + 3 * 4), (1, 10, 10 + 3 * 1)],
)
def test_depths_are_scaled(depth: int, percent: int, cycles: int) -> None:
    """3.5 cycles are 4, and none is less than 1."""
    assert run("chain", 10, default_depth=depth, depth_percent=percent).cycles == 1 + cycles


def test_fifo_depths_are_settings() -> None:
    assert TIMED.run("pair16", 10, settings=["fifo k/x 1"]).cycles == 36
    deeper = TIMED.run("pair1", 10, settings=["fifo k/x 2"])
    assert (deeper.cycles, deeper.stream("x")["depth"]) == (27, 2)


def test_a_link_is_later_and_needs_slots_for_what_is_on_the_way() -> None:
    """Three cycles on the way: a token holds its slot for 5. Two slots then carry 2 tokens in 5 cycles:
    token 10 is written 25 cycles behind token 0, at 33, read at 37."""
    deep = TIMED.run("pair16", 10, settings=["latency k/x 3"])
    assert (deep.cycles, deep.stream("x")["high_water"]) == (27 + 3, 5)
    assert TIMED.run("pair2", 11, settings=["latency k/x 3"]).cycles == 37 + 8 + 1


# -- what the report says ------------------------------------------------------------------------


def test_most_tokens_at_once() -> None:
    """Written at 8 + i, slots free at 10 + 3 i: when the tenth comes at 17 three are gone."""
    found = TIMED.run("phases", 0, 1, 1, 10, 1, 10, 3, settings=["fifo k/x 16"])
    assert found.stream("x")["high_water"] == 7


def _issues(phases: list[tuple[int, int]]) -> Iterator[int]:
    """For each token the interval to the one before, 0 for the first of a phase."""
    for count, ii in phases:
        yield 0
        yield from [ii] * (count - 1)


def _by_recurrence(
    writes: list[tuple[int, int]], reads: list[tuple[int, int]], slots: int, latency: int
) -> dict[str, int]:
    """One writer and one reader: times of every token, and what follows from them."""
    now = {"w": 0, "r": 0}
    stalls = {"w": 0, "r": 0}
    written: list[int] = []
    freed: list[int] = []

    def issue(side: str, first: bool, interval: int) -> None:
        drain = DEPTH + 1 if first and now[side] else 0
        now[side] += drain + 1 if first else interval

    for i, (w, r) in enumerate(zip(_issues(writes), _issues(reads), strict=True)):
        issue("w", w == 0, w)
        late = 0 if i < slots else max(0, freed[i - slots] - (now["w"] + DEPTH - 1))
        now["w"] += late
        stalls["w"] += late
        written.append(now["w"] + DEPTH - 1)
        issue("r", r == 0, r)
        late = max(0, written[i] + 1 + latency - now["r"])
        now["r"] += late
        stalls["r"] += late
        freed.append(now["r"] + 1)
    held = [sum(w <= at for w in written) - sum(f <= at for f in freed) for at in written]
    return {
        "cycles": max(now.values()) + DEPTH + 1,
        "high_water": max(held),
        "output": stalls["w"],
        "input": stalls["r"],
    }


def _cut(draw: random.Random, tokens: int) -> list[tuple[int, int]]:
    """Phases of other speeds that make up so many tokens."""
    found = []
    while tokens:
        count = draw.randint(1, tokens)
        found.append((count, draw.choice([1, 2, 3, 7])))
        tokens -= count
    return found


@pytest.mark.parametrize("seed", range(40))
def test_times_do_not_depend_on_who_runs_first(seed: int) -> None:
    """Against a recurrence over the tokens, with the reader and with the writer started first."""
    draw = random.Random(seed)
    tokens = draw.randint(1, 80)
    writes, reads = _cut(draw, tokens), _cut(draw, tokens)
    slots, latency = draw.choice([1, 2, 3, 5, 16, 40]), draw.choice([0, 0, 1, 4])
    want = _by_recurrence(writes, reads, slots, latency)
    flat = [n for phase in (*writes, *reads) for n in phase]
    settings = [f"fifo k/x {slots}", f"latency k/x {latency}"]
    for reader_first in (0, 1):
        found = TIMED.run("phases", reader_first, len(writes), len(reads), *flat, settings=settings)
        got = {
            "cycles": found.cycles,
            "high_water": found.stream("x")["high_water"],
            "output": found.stalls("source")[1],
            "input": found.stalls("sink")[0],
        }
        assert got == want
        assert found.stream("x")["stalled_writes"] == want["output"]
        assert found.stream("x")["stalled_reads"] == want["input"]


def _sorted(report: dict[str, Any]) -> list[Any]:
    return [report["cycles"], sorted(report["processes"], key=lambda p: str(p["path"])), report["streams"]]


@pytest.mark.parametrize("depths", [(1, 1, 1), (2, 1, 1), (3, 2, 3), (3, 2, 16)])
def test_a_write_between_two_reads_times_the_same_in_every_order(depths: tuple[int, int, int]) -> None:
    """The slot of what was read before a write is free behind it, whether the write has to wait or not."""
    settings = [f"fifo k/{name} {depth}" for name, depth in zip("xyz", depths, strict=True)]
    found = [TIMED.run("write_between", 9, order, settings=settings) for order in range(4)]
    assert all(_sorted(f.report) == _sorted(found[0].report) for f in found)
    assert found[0].message == "" and found[0].stalls("source")[1] > 0


@pytest.mark.parametrize(("tokens", "bucket"), [(10, 16), (10_000, 64)])
def test_the_timeline_adds_up_to_the_stalls(tokens: int, bucket: int) -> None:
    """512 buckets of 16 cycles, then of 32, 64, ...: 30,000 cycles need 64."""
    found = run("chain_slow", tokens)
    assert found.report["bucket"] == bucket
    for name in ("source", "relay", "sink"):
        process = found.process(name)
        assert tuple(map(sum, zip(*process["lost"], strict=True))) == found.stalls(name)
        assert all(sum(lost) <= bucket for lost in process["lost"])
        assert sum(found.stalls(name)) == sum(
            u["input"] + u["output"] + u["memory"] for u in process["loops"]
        )
        assert process["ends"][0] == 1 + (tokens - 1) * (3 if name == "relay" else 1) + 9 + sum(
            found.stalls(name)
        )


ALL: dict[str, tuple[int, ...]] = {
    "alone": (10,), "alone_slow": (4,), "chain": (50,), "chain_slow": (50,), "pair1": (9,), "pair2": (9,),
    "pair16": (90,), "rows": (3, 7), "entries": (3,), "together": (8, 1), "write_between": (9, 2),
    "phases": (1, 2, 1, 3, 2, 4, 7, 7, 1), "nested": (8,), "polled": (5,), "reads": (2, 20, 3),
    "reads_late": (20, 50), "writes": (2, 10),
}  # fmt: skip


@pytest.mark.parametrize("case", ALL)
def test_a_run_is_repeatable_and_computes_what_the_untimed_one_does(case: str) -> None:
    first, again, plain = run(case, *ALL[case]), run(case, *ALL[case]), UNTIMED.run(case, *ALL[case])
    assert first.message == plain.message == ""
    assert first.text == again.text
    assert first.values == plain.values
    assert plain.text == ""


def test_a_token_that_was_read_is_not_seen_again() -> None:
    """Until the reads of its iteration are complete it keeps its slot, but nobody may poll it."""
    assert run("polled", 5).values == UNTIMED.run("polled", 5).values == tuple(range(5))


@pytest.mark.parametrize("timed", [False, True])
def test_the_benchmark_of_streams_prints_json(timed: bool, tmp_path: Path) -> None:
    """A source and a sink, as in ``pair``: one slot carries a token every second cycle."""
    program, here = tmp_path / "bench", Path(__file__).resolve().parent
    include = [f"-I{INCLUDE}", f"-I{SIM}"]
    macros = ["-DT2F_SIM", *(["-DT2F_TIMED"] if timed else [])]
    command = [compiler(), "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", *macros, *include]
    subprocess.run([*command, str(here / "bench_streams.cpp"), "-o", str(program)], check=True)
    done = subprocess.run([str(program), "--json", "8000"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert (found["timed"], found["transfers"]) == (timed, 8000)
    streams = {(s["depth"], s["recorded"]): s for s in found["streams"]}
    assert [d for d, recorded in streams if not recorded] == [1, 2, 4, 16, 64, 512, 4096]
    assert all(s["transfers_per_second"] > 0 for s in found["streams"])
    if timed:
        assert streams[1, False]["cycles"] == 1 + 2 * 7999 + 8 + 8 + 1
        assert {s["cycles"] for k, s in streams.items() if k[0] != 1 and not k[1]} == {1 + 7999 + 8 + 8 + 1}
    else:
        assert all("cycles" not in s for s in found["streams"])
