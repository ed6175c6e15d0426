# SPDX-License-Identifier: Apache-2.0
"""Deadlocks and other bad input: the report names exactly the streams, sides, processes and the cycle.

Every case has a twin with one token more that runs. The designs are in
``tests/hls/sim/deadlock_cases.cpp``; the last part does the same with a compiled model.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

import torch2fpga
from tests.hls.timed_program import Program, Result
from tests.tiny import WIDTH, compile_model, cxx_cache, encoder, exact, rows, run, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.errors import DesignError
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.timed import Settings, TimedResult
from torch2fpga.timing.report import Deadlock, Wait, build_report
from torch2fpga.verifier import verify_design

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
        assert any(
            line in text and text.endswith(f"since cycle {since}") for text in found.message.split("\n")
        )


def _twins(stops: tuple[str, tuple[int, ...]], runs: tuple[str, tuple[int, ...]]) -> tuple[Result, Result]:
    """Timed results of a case that stops and of its twin; without a clock they agree."""
    found, twin = TIMED.run(stops[0], *stops[1]), TIMED.run(runs[0], *runs[1])
    plain, plain_twin = UNTIMED.run(stops[0], *stops[1]), UNTIMED.run(runs[0], *runs[1])
    assert twin.message == plain_twin.message == "" and twin.values == plain_twin.values != ()
    assert twin.report["deadlock"] is None

    def stuck(text: str) -> list[str]:
        return [line.split(", since")[0] for line in text.split("wait cycle:")[-1].split("\n")]

    assert stuck(found.message) == stuck(plain.message)
    return found, twin


def test_a_bypass_shorter_than_what_the_layer_takes_in() -> None:
    """The layer wants 64 tokens before its first comes out; the fork writes to it first.

    Token i is forked at 9 + i and read by the layer at 17 + i. With 62 slots the fork stops at token
    62, at 71; the layer has that one at 79 and waits at 80. The source is two tokens ahead of the
    fork and stops at its token 65, at 66. With 63 slots the layer gets all of its 64.
    """
    found, twin = _twins(("residual62", (64, 0)), ("residual63", (64, 0)))
    _stopped(
        found,
        {
            "k/source": ("k/x", "write", 2, 2, "k/fork", 66),
            "k/fork": ("k/bypass", "write", 62, 62, "k/add", 71),
            "k/layer": ("k/to_layer", "read", 0, 2, "k/fork", 80),
            "k/add": ("k/from_layer", "read", 0, 2, "k/layer", 1),
        },
        ["k/fork", "k/add", "k/layer"],
    )
    assert found.stream("bypass")["high_water"] == 62
    assert twin.stream("bypass")["high_water"] == 63
    short = TIMED.run("residual63", 64, 0, settings=["fifo k/bypass 62"])
    assert short.text == found.text


def test_a_join_holds_no_token_beyond_the_fifo() -> None:
    """The add may name the bypass first: its reads happen together, so it takes none ahead."""
    found = TIMED.run("residual62", 64, 1)
    assert _waits(found)["k/fork"] == ("k/bypass", "write", 62, 62, "k/add", 71)
    assert _waits(found)["k/add"] == ("k/from_layer", "read", 0, 2, "k/layer", 17)
    assert found.stream("bypass")["high_water"] == 62


def test_keys_before_queries() -> None:
    """All 40 keys are read before the first query; q holds 36, project_q one, to_q two, and the fork
    writes queries first: it stops at query 39, so key 39 is never written.

    Token i is forked at 9 + i, projected at 17 + i, read at 25 + i. project_q stops at token 36, the
    fork at 39; project_k has token 38 at 55, attend at 63, and both wait in the cycle behind.
    """
    found, twin = _twins(("attention36", (40,)), ("attention37", (40,)))
    _stopped(
        found,
        {
            "k/fork": ("k/to_q", "write", 2, 2, "k/project_q", 48),
            "k/project_q": ("k/q", "write", 36, 36, "k/attend", 53),
            "k/attend": ("k/k", "read", 0, 2, "k/project_k", 64),
            "k/project_k": ("k/to_k", "read", 0, 2, "k/fork", 56),
        },
        ["k/fork", "k/project_q", "k/attend", "k/project_k"],
    )
    assert twin.stream("q")["high_water"] == 37


def test_scores_that_are_read_twice() -> None:
    """Softmax wants ten scores for their maximum before it reads the first again.

    The fork stops at score 8, at 17, which the first pass still gets; it waits for the tenth. The
    sink is no part of the cycle.
    """
    found, twin = _twins(("softmax8", (10,)), ("softmax9", (10,)))
    _stopped(
        found,
        {
            "k/fork": ("k/again", "write", 8, 8, "k/softmax", 17),
            "k/softmax": ("k/first", "read", 0, 2, "k/fork", 26),
            "k/sink": ("k/weights", "read", 0, 2, "k/softmax", 1),
        },
        ["k/fork", "k/softmax"],
    )
    assert twin.stream("again")["high_water"] == 9


def test_two_processes_that_read_each_other_first() -> None:
    found, _ = _twins(("crossed", (5, 0)), ("crossed", (5, 1)))
    _stopped(
        found,
        {"k/a": ("k/ba", "read", 0, 4, "k/b", 1), "k/b": ("k/ab", "read", 0, 4, "k/a", 1)},
        ["k/a", "k/b"],
    )


# -- token counts that disagree ------------------------------------------------------------------


@PROGRAMS
def test_more_tokens_written_than_read(program: Program) -> None:
    found = program.run("counts", 10, 7)
    assert found.message == (
        "stream k/x: 3 tokens were never read (written by k/source, read by k/sink): "
        "the two disagree on how many there are"
    )
    assert program.run("counts", 10, 10).message == ""


def test_more_tokens_read_than_written() -> None:
    """The sink has token 6 at 15 and waits at 16 for a source that has finished."""
    found, _ = _twins(("counts", (7, 8)), ("counts", (8, 8)))
    _stopped(found, {"k/sink": ("k/x", "read", 0, 16, "k/source", 16)})
    assert "written by k/source, which has finished" in found.message


def test_more_tokens_written_than_anybody_reads_or_the_fifo_holds() -> None:
    """Seven are read and 16 held: the source stops at token 23, at 24."""
    found, _ = _twins(("counts", (24, 7)), ("counts", (7, 7)))
    _stopped(found, {"k/source": ("k/x", "write", 16, 16, "k/sink", 24)})
    assert "read by k/sink, which has finished" in found.message


# -- other bad input --------------------------------------------------------------------------------


def test_a_stage_that_never_ends() -> None:
    started = time.monotonic()
    found = TIMED.run("never_ends", settings=["cycle_limit 100000"])
    assert time.monotonic() - started < 10
    assert found.message == (
        f"process k/endless: the cycle limit of 100000 is passed in the loop at {TIMED.line('ENDLESS')}: "
        "the process does not terminate, or the limit is too low for this run"
    )
    assert TIMED.run("counts", 10, 10, settings=["cycle_limit 27"]).message == ""
    low = TIMED.run("counts", 10, 10, settings=["cycle_limit 10"]).message
    assert low.startswith(
        "process k/source: the cycle limit of 10 is passed in the loop at case_library.hpp:"
    )


@PROGRAMS
def test_a_stack_that_overflows(program: Program) -> None:
    """4 KiB a level: a million levels do not fit into 64 MiB. Later runs are not disturbed."""
    for _ in range(2):
        found = program.run("overflow", 1 << 20)
        assert found.message.startswith("process k/deep: stack overflow (its guard page was hit): ")
        assert "64 MiB" in found.message and "T2F_FIBER_STACK" in found.message
        assert found.values == (0, 1)
        fits = program.run("overflow", 10)
        assert fits.message == "" and fits.values == (0, 1, 55, 3)
    assert "deadlock" in program.run("crossed", 5, 0).message


@pytest.mark.parametrize(
    "line",
    [
        "fifo k/x",
        "fifo k/x two",
        "fifo k/x -1",
        "fifo k/x 4 5",
        "default_depth -8",
        "default_depth 8.5",
        "launches 0",
        "cycle_limit",
        "latency k/x",
        "depth k/source 8",
        "port k/m 0 in 64",
        "port k/m 0 sideways 64 1024 64 0 0 0 64 16 32",
        "unheard of 1",
        "",
    ],
)
def test_a_setting_that_is_not_understood(line: str) -> None:
    found = TIMED.run("counts", 10, 10, settings=["default_depth 8", line])
    assert found.message == f"setting not understood: {line}"
    assert found.text == "" and found.values == ()


def test_a_stream_without_room_names_the_processes_at_its_ends() -> None:
    found = TIMED.run("counts", 10, 10, settings=["fifo k/x 0"])
    assert found.message.endswith(
        "stream k/x, written by k/source and read by k/sink, has depth 0: a FIFO holds at least one token"
    )


# -- compiled models ----------------------------------------------------------------------------------

INPUTS = (rows(2, 19, WIDTH),)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return compile_model(encoder(1, batch_first=True), INPUTS)


def _around(design: Design) -> str:
    """The stream that goes around the attention."""
    add = next(s for s in design.stages if s.template == "add")
    return max(add.inputs, key=lambda n: design.streams[n].depth)


def _timed(made: CompiledModel, fifos: dict[str, int]) -> TimedResult:
    inputs = made.interface.bind(INPUTS, {}, made.design)
    return made.timed.time(made.buffers(inputs), Launch(2, 19), Settings(fifos=fifos))


def _deadlock(made: CompiledModel, result: TimedResult) -> Deadlock:
    report = build_report(result.report, made.design, made.board, 250.0, Launch(2, 19), {}, result.message)
    assert report.deadlock is not None
    return report.deadlock


def test_a_short_residual_of_a_model(model: CompiledModel) -> None:
    """The stream, its side and its ends are those of the design, and all waits of the cycle fit together."""
    design, name = model.design, _around(model.design)
    found = _deadlock(model, _timed(model, {name: 2}))
    (wait,) = [w for w in found.waits if w.stream == name]
    writer, reader = design.writers()[name], design.readers()[name]
    assert wait == Wait(writer, name, "write", 2, 2, reader, wait.cycle)
    assert wait in found.cycle and name in str(found)
    for one, following in zip(found.cycle, (*found.cycle[1:], found.cycle[0]), strict=True):
        assert one.peer == following.stage
    writers, readers = design.writers(), design.readers()
    for stage in design.stages:  # what prepares a stage's first input takes it, and hands it on
        front = stage.front(design)
        if front is not None:
            readers[stage.inputs[0]] = front.name
            writers |= {fifo.name: front.name for fifo in front.fifos}
            readers |= {fifo.name: stage.name for fifo in front.fifos}
    for one in found.waits:
        ends = (writers[one.stream], readers[one.stream])
        assert (one.peer, one.stage) == (ends if one.side == "read" else ends[::-1])
    exact(model, INPUTS, cosine=None)  # the functional library is not disturbed


def test_the_untimed_run_agrees_on_the_depth_that_is_needed(model: CompiledModel) -> None:
    """By bisection over runs with a clock; then with the design itself changed, without one.

    There the add, which names the bypass first, takes one token of it ahead of the other side; with
    a clock, as in a pipeline, the reads of an iteration happen together.
    """
    name = _around(model.design)
    low, high = 1, model.design.streams[name].depth
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if not _timed(model, {name: middle}).message else (middle, high)
    assert "deadlock" in _timed(model, {name: low}).message
    for depth in (low - 1, high):
        stream = dataclasses.replace(model.design.streams[name], depth=depth)
        design = dataclasses.replace(model.design, streams={**model.design.streams, name: stream})
        changed = CompiledModel(design, model.data, model.interface, model.output, model.board, model.origin)
        if depth == high:
            exact(changed, INPUTS, cosine=None)
        else:
            with pytest.raises(torch2fpga.SimulationError, match=f"waits to write .*/{name} "):
                run(changed, INPUTS)


def test_depth_zero_names_the_stages_at_both_ends(model: CompiledModel) -> None:
    design, name = model.design, _around(model.design)
    writer, reader = design.writers()[name], design.readers()[name]
    stream = dataclasses.replace(design.streams[name], depth=0)
    broken = dataclasses.replace(design, streams={**design.streams, name: stream})
    ends = f"written by {writer} and read by {reader}"
    with pytest.raises(DesignError, match=rf"stream {name} has depth 0 \({ends}\): it must hold a token"):
        verify_design(broken)
    verify_design(design)
    message = _timed(model, {name: 0}).message
    assert f"/{writer} " in message and f"/{reader}, has depth 0" in message
