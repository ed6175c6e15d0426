# SPDX-License-Identifier: Apache-2.0
"""Launches on the emulated card: results, order, streams between kernels, what a time-out says."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from tests.card.cards import COMPLETED, TIMEOUT, Card
from torch2fpga.compiled import CompiledModel
from torch2fpga.simulate.card import emulated_environment
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.timed import TimedRun
from torch2fpga.timing.run import timed_settings

pytestmark = [pytest.mark.xrt, pytest.mark.gxx]


def test_a_plain_design_computes_its_golden_outputs(plain: Card) -> None:
    answers = plain.run([*plain.opened(), *plain.filled(), *plain.launched(), *plain.fetched()])
    assert not answers.refused()
    assert plain.outputs and plain.differing() == []
    assert [e["kernel"] for e in answers.events("completed")] == plain.kernels


@pytest.mark.hf
def test_a_generating_design_computes_its_golden_tokens_in_any_order_of_starts(generating: Card) -> None:
    lines = [*generating.opened(), *generating.filled()]
    for order in permutations(generating.kernels):
        lines += [*generating.launched(order), *generating.fetched()]
        # before the next order: other tokens on both sides, and the caches as they were
        lines += [x for p in generating.outputs for x in (f"byte {p['argument']} 7", f"to {p['argument']}")]
        lines += _caches(generating)
        answers = generating.run(lines)
        assert not answers.refused()
        assert generating.differing() == []
    assert len(answers.events("completed")) == 6 * 3


def _caches(card: Card) -> list[str]:
    """The caches as they were before the first launch."""
    names = [
        p["argument"] for p in card.manifest["ports"] if p["role"] == "cache" and p["direction"] == "read"
    ]
    return [line for name in names for line in (f"byte {name} 128", f"to {name}")]


@pytest.mark.hf
def test_a_kernel_waits_for_its_neighbours_to_start(generating: Card) -> None:
    first, *others = generating.kernels
    lines = [*generating.opened(), *generating.filled(), f"start {others[0]}", f"start {first}"]
    lines += [f"wait {others[0]} 50", f"state {others[0]}", "sleep 50", f"start {others[1]}"]
    lines += [f"wait {k} 20000" for k in generating.kernels]
    answers = generating.run([*lines, *generating.fetched()])
    assert not answers.refused()
    assert f"ok {TIMEOUT}" in [a for asked, a in answers.lines if asked == f"wait {others[0]} 50"]
    assert answers.of(f"state {others[0]}") == "ok 3"  # still running
    assert [answers.of(f"wait {k} 20000") for k in generating.kernels] == [f"ok {COMPLETED}"] * 3
    assert generating.differing() == []
    (event,) = answers.events("timeout")
    assert event["kernel"] == others[0] and event["ms"] == 50
    assert "waits to read link/" in event["waits"]
    assert f"{others[0]}/" in event["waits"]


@pytest.mark.hf
def test_a_missing_neighbour_is_a_time_out_and_never_a_crash(generating: Card) -> None:
    lines = [*generating.opened(), *generating.filled(), *generating.launched(generating.kernels[:2], ms=40)]
    lines = [x for x in lines if not x.startswith(f"wait {generating.kernels[2]}")]
    answers = generating.run(lines)
    assert answers.of(f"wait {generating.kernels[1]}") == f"ok {TIMEOUT}"
    assert not answers.refused()


def test_a_forgotten_transfer_is_seen(plain: Card) -> None:
    for port in plain.manifest["ports"]:
        if port["direction"] == "write":
            continue
        lines = [*plain.opened(), *plain.filled(skip=[port["argument"]]), *plain.launched(), *plain.fetched()]
        answers = plain.run(lines)
        assert not answers.refused()
        assert plain.differing() != [], port["argument"]


def test_outputs_stay_on_the_card_until_they_are_fetched(plain: Card) -> None:
    fetched = [line for line in plain.fetched() if not line.startswith("from")]
    answers = plain.run([*plain.opened(), *plain.filled(), *plain.launched(), *fetched])
    assert not answers.refused()
    assert plain.differing() == [p["argument"] for p in plain.outputs]


def test_a_part_of_a_transfer_moves_that_part(plain: Card) -> None:
    name = plain.outputs[0]["argument"]
    lines = [*plain.opened(), *plain.filled(), *plain.launched()]
    answers = plain.run([*lines, f"byte {name} 0", f"from {name} 64 64", f"save {name} {plain.work / name}"])
    assert not answers.refused()
    golden = (plain.folder / "golden" / f"{name}.bin").read_bytes()
    found = (plain.work / name).read_bytes()
    assert found[64:128] == golden[64:128] and any(golden[:64])
    assert not any(found[:64]) and not any(found[128:])


def test_two_runs_of_one_kernel_queue_up(plain: Card) -> None:
    (kernel,) = plain.kernels
    second = [line.replace(f"arg {kernel} ", "arg second ") for line in plain.filled() if line[:4] == "arg "]
    lines = [*plain.opened(), *plain.filled(), f"run second {kernel}", *second]
    lines += [f"start {kernel}", "start second", "wait second 20000", f"state {kernel}"]
    answers = plain.run([*lines, *plain.fetched()])
    assert not answers.refused()
    assert answers.of("wait second") == f"ok {COMPLETED}" == answers.of(f"state {kernel}")
    assert [e["launch"] for e in answers.events("completed")] == [1, 2]
    assert plain.differing() == []


def test_buffers_may_be_parts_of_one_and_are_copied_on_the_card(plain: Card) -> None:
    port = next(p for p in plain.manifest["ports"] if p["role"] == "weights")
    name, size = port["argument"], port["bytes"]
    lines = [*plain.opened(), *plain.filled(), f"bo whole {size + 8192} {port['hbm']}"]
    lines += [f"part in_it whole {size} 4096", f"copy in_it {name}", f"byte {name} 0", f"to {name}"]
    lines += [f"arg {port['kernel']} {port['index']} bo in_it", *plain.launched(), *plain.fetched()]
    answers = plain.run(lines)
    assert not answers.refused()
    assert plain.differing() == []


def test_memory_of_buffers_that_are_given_up_is_free_again(plain: Card) -> None:
    lines = plain.opened()
    for number in range(6):
        lines += [f"bo big{number} {200 << 20} 5", f"drop big{number}"]
    assert not plain.run(lines).refused()


def test_the_timed_build_logs_the_cycles_of_the_timed_run(plain: Card, plain_model: CompiledModel) -> None:
    plain.environment = emulated_environment(plain.folder, log=plain.work / "log", timed=True)
    lines = [*plain.opened(), *plain.filled(), *plain.launched(), *plain.launched(), *plain.fetched()]
    answers = plain.run(lines)
    assert not answers.refused()
    assert plain.differing() == []
    first, second = answers.events("timed")
    assert first["problem"] == second["problem"] == ""
    batch, seq = plain.numbers()
    buffers = plain_model.buffers({"input": torch.randn(batch, seq, 24)})
    settings = timed_settings(plain_model, float(plain_model.board.clock_mhz))
    timed = TimedRun(plain_model.design).time(buffers, Launch(batch, seq), settings)
    assert first["cycles"] == second["cycles"] == timed.report["cycles"] > 0


@pytest.mark.hf
def test_the_timed_build_waits_for_all_kernels(generating: Card) -> None:
    generating.environment = emulated_environment(generating.folder, log=generating.work / "log", timed=True)
    first, second, third = generating.kernels
    lines = [*generating.opened(), *generating.filled(), f"start {second}", f"start {first}"]
    lines += [f"wait {first} 30", f"start {third}", *(f"wait {k} 20000" for k in generating.kernels)]
    answers = generating.run([*lines, *generating.fetched()])
    assert not answers.refused()
    assert [a for asked, a in answers.lines if asked[:4] == "wait"] == [f"ok {TIMEOUT}"] + [
        f"ok {COMPLETED}"
    ] * 3
    assert "until every kernel is started" in answers.events("timeout")[0]["waits"]
    assert len(answers.events("timed")) == 1 and generating.differing() == []


@pytest.mark.hf
def test_opening_the_device_again_leaves_a_card_that_works_alone(generating: Card) -> None:
    first, second, third = generating.kernels
    lines = [*generating.opened(), *generating.filled(), f"start {second}", "sleep 20", "device"]
    lines += [f"load {generating.xclbin}", f"start {third}", f"start {first}"]
    lines += [f"wait {k} 20000" for k in generating.kernels]
    answers = generating.run([*lines, *generating.fetched()])
    assert not answers.refused() and not answers.events("reset")
    assert [answers.of(f"wait {k}") for k in generating.kernels] == [f"ok {COMPLETED}"] * 3
    assert generating.differing() == []


@pytest.mark.hf
def test_a_program_may_end_while_kernels_run(generating: Card) -> None:
    lines = [*generating.opened(), *generating.filled()]
    for milliseconds in range(4):
        starts = [f"start {k}" for k in generating.kernels]
        generating.run([*lines, *starts, f"sleep {milliseconds}"])  # checks the exit status
    generating.run([*lines, f"start {generating.kernels[1]}", "sleep 5"])
