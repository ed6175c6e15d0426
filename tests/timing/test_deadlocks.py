# SPDX-License-Identifier: Apache-2.0
"""Deadlocks and other bad input: the report names exactly the streams, sides, processes and the cycle.

Every case has a twin with one token more that runs. The designs are in
``tests/hls/sim/deadlock_cases.cpp``; the last part does the same with a compiled model.
"""

from __future__ import annotations

import pytest

from tests.hls.timed_program import Program, Result
from tests.tiny import cxx_cache, seeded

__all__ = ["cxx_cache", "seeded"]
pytestmark = pytest.mark.gxx
TIMED, UNTIMED = Program("deadlock_cases"), Program("deadlock_cases", timed=False)
PROGRAMS = pytest.mark.parametrize("program", [TIMED, UNTIMED], ids=["timed", "untimed"])

#: process -> (stream, side, tokens held, depth, peer, since)
Waits = dict[str, tuple[str, str, int, int, str | None, int]]


def _waits(found: Result) -> Waits:
    return {
        w["process"]: (w["stream"], w["side"], w["held"], w["depth"], w["peer"], w["cycle"])
        for w in found.report["deadlock"]["waits"]
    }


def _turned(ring: list[str]) -> list[str]:
    """A wait cycle from its first name on, by letter."""
    at = ring.index(min(ring))
    return ring[at:] + ring[:at]


def _stopped(found: Result, waits: Waits, *rings: list[str]) -> None:
    assert found.message.startswith(f"deadlock: {len(waits)} of ")
    assert _waits(found) == waits
    assert [_turned(r) for r in found.report["deadlock"]["cycles"]] == [_turned(r) for r in rings]
    for process, (stream, side, held, depth, _, since) in waits.items():
        state = "empty" if side == "read" else "full"
        line = f"{process} waits to {side} {stream} ({state}, {held} of {depth} tokens), "
        assert line in found.message
        assert any(line in text and text.endswith(f"since cycle {since}") for text in found.message.split("\n"))


def test_a_bypass_shorter_than_what_the_layer_takes_in() -> None:
    """The layer wants 64 tokens before its first comes out; the bypass takes 63 of them.

    The fork issues token 0 at 9 and token 63 at 72, where it waits. The layer has read token 62 at
    79, and token 63 at 80 (the fork wrote it before it looked at the bypass): it goes on to drain,
    and what it drains waits for the bypass no longer: with 63 tokens the add reads both sides.
    One token shorter, the fork stops before token 63 is written to the layer.
    """
    settings = ["fifo k/bypass 62"]
    found = TIMED.run("residual", 64, 0, settings=settings)
    _stopped(
        found,
        {
            "k/source": ("k/x", "write", 2, 2, "k/fork", 65),
            "k/fork": ("k/bypass", "write", 62, 62, "k/add", 71),
            "k/layer": ("k/to_layer", "read", 0, 2, "k/fork", 80),
            "k/add": ("k/from_layer", "read", 0, 2, "k/layer", 1),
        },
        ["k/fork", "k/add", "k/layer"],
    )
    assert found.stream("bypass")["high_water"] == 62
    assert "deadlock" in UNTIMED.run("residual", 64, 0).message
    twin = TIMED.run("residual", 64, 0, settings=["fifo k/bypass 63"])
    assert twin.message == "" and twin.stream("bypass")["high_water"] == 63
    assert twin.values == tuple(2 * i for i in range(192))
