# SPDX-License-Identifier: Apache-2.0
"""Memory ports of the timed run: every expected number is worked out by hand.

A read that issues at cycle t is there at t + 64 at best, and its loop is left 8 + 64 + 1 cycles behind
the last issue; a write reaches the port 7 cycles behind its issue. Beats take one cycle where a test
says nothing else. The designs are in ``sim/timed_cases.cpp``.
"""

from __future__ import annotations

import pytest

from tests.hls.timed_program import Program
from tests.tiny import cxx_cache

__all__ = ["cxx_cache"]
pytestmark = pytest.mark.gxx
TIMED = Program("timed_cases")

ONE = 1024  # a cycle, in the unit of a port's times
LATENCY = 64


def port(write: bool = False, beat: int = ONE, row: int = 0, cross: int = 0, channel: int = 0,
         outstanding: int = 16, burst: int = 32) -> list[str]:  # fmt: skip
    where = "port k/store 1 out" if write else "port k/fetch 0 in"
    numbers = (64 << 14, beat, 64, row, cross, channel, LATENCY, outstanding, burst)
    return [f"{where} {' '.join(map(str, numbers))}"]


def test_sequential_reads_come_at_the_sustained_rate() -> None:
    """Beat i is there at 65 + i * 1253 / 1024; the last of 1024 at 65 + 1251: it issues at 1252.

    The loop is left at 1252 + 8 + 64 + 1, the sink has its last token at 1252 + 8 + 64.
    """
    found = TIMED.run("reads", 1, 1024, 1, settings=port(beat=1253))
    assert found.process("fetch")["ends"] == [1325]
    assert found.stalls("fetch") == (0, 0, 1251 - 1023)
    assert found.cycles == 1324 + 9
    assert found.values == tuple(range(1024))
    assert found.port("k/fetch") == {
        "name": "k/fetch", "bytes": 65536, "transactions": 32, "busy": 1253, "first": 65, "last": 65 + 1253,
    }  # fmt: skip


def test_the_latency_is_paid_once_an_entry() -> None:
    """An entry takes 1 + 9 + 8 + 64 + 1 cycles and is a burst of its own."""
    found = TIMED.run("reads", 3, 10, 1, settings=port())
    assert found.process("fetch")["ends"] == [3 * 83]
    assert found.port("k/fetch")["transactions"] == 3
    (loop,) = found.process("fetch")["loops"]
    assert (loop["latency"], loop["entries"], loop["iterations"]) == (64, 3, 30)


def test_random_reads_start_a_row_apart() -> None:
    """Every seventh line, three cycles a row: issues at 1 + 3 i, the last at 28."""
    found = TIMED.run("reads", 1, 10, 7, settings=port(row=3 * ONE))
    assert found.process("fetch")["ends"] == [28 + 8 + 64 + 1]
    assert found.port("k/fetch")["transactions"] == 10
    assert found.values == tuple(range(0, 70, 7))


def test_reads_in_a_row_do_not_open_it_again() -> None:
    assert TIMED.run("reads", 1, 10, 1, settings=port(row=3 * ONE)).process("fetch")["ends"] == [83]


def test_another_channel_waits_for_the_round_trip() -> None:
    """Four lines a channel, 100 cycles to change: line 4 comes at 69 + 100, so it issues at 105."""
    found = TIMED.run("reads", 1, 8, 1, settings=port(cross=100 * ONE, channel=256))
    assert found.process("fetch")["ends"] == [108 + 8 + 64 + 1]


def test_two_transactions_under_way() -> None:
    """Transaction t is asked for when t - 2 is complete: beats at 65, 66, then 65 cycles later, ...

    The last of ten comes at 66 + 4 * 65 = 326 and issues at 262.
    """
    found = TIMED.run("reads", 1, 10, 7, settings=port(outstanding=2))
    assert found.process("fetch")["ends"] == [262 + 8 + 64 + 1]


def test_the_port_reads_ahead_while_its_process_is_held_up() -> None:
    """The sink starts behind 1 + 499 + 8 + 1 cycles, at 510; the FIFO takes two tokens before.

    Line i (2 cycles each) issues at 1 + 2 i. Token 2 would be written at 5 + 71 = 76: there the pipeline
    stops, with lines up to 37 in it, 2 cycles apart. They are written from 511, when the first slot
    is free, to 511 + 2 * 35 = 581. All others have been read ahead by then and follow every cycle,
    token 99 at 581 + 62 = 643; it is read at 644. With room for 8 beats line 38 waits for memory.
    """
    found = TIMED.run("reads_late", 100, 500, settings=port(beat=2 * ONE))
    assert found.cycles == 644 + 9
    small = TIMED.run("reads_late", 100, 500, settings=port(beat=2 * ONE, outstanding=2, burst=4))
    assert small.cycles > 644 + 9 + 64
    assert found.values == small.values and len(found.values) == 100


def test_writes_are_posted_and_their_answer_awaited() -> None:
    """Writes reach the port at 8 + i, beat i begins at 8 + i * 1253 / 1024; the last is through at 1231.

    The buffer takes them; at 1000 + 8 the loop drains, and waits for the answer at 1231 + 64.
    """
    found = TIMED.run("writes", 1, 1000, settings=port(write=True, beat=1253))
    assert found.process("store")["ends"] == [1295 + 1]
    assert found.stalls("store") == (0, 0, 1295 - 1008)
    assert (found.port("k/store")["bytes"], found.port("k/store")["transactions"]) == (64_000, 32)
    assert found.values == tuple(range(1000))


def test_a_full_write_buffer_stalls() -> None:
    """Room for 4 beats: the last write goes in when beat 995 has gone, 4.9 cycles before 1230.4."""
    found = TIMED.run("writes", 1, 1000, settings=port(write=True, beat=1253, outstanding=1, burst=4))
    assert found.process("store")["ends"] == [1295 + 1]
    assert found.stalls("store") == (0, 0, (1225 - 7 - 1000) + (1295 - 1226))
    assert sum(lost[2] for lost in found.process("store")["lost"][: 1008 // 16]) > 150
    posted = TIMED.run("writes", 1, 1000, settings=port(write=True, beat=1253)).process("store")["lost"]
    assert sum(lost[2] for lost in posted[: 1008 // 16]) == 0  # all of it at the end of the loop


def test_the_answer_is_awaited_at_every_entry() -> None:
    """Ten writes reach the port at 8 to 17, the answer comes at 18 + 64, the loop is left at 83."""
    assert TIMED.run("writes", 2, 10, settings=port(write=True)).process("store")["ends"] == [2 * 83]


def test_memory_without_a_port_costs_nothing() -> None:
    assert TIMED.run("reads", 1, 10, 1).process("fetch")["ends"] == [1 + 9 + 8 + 1]
