# SPDX-License-Identifier: Apache-2.0
"""What a card refuses and XRT's no-op driver lets pass."""

from __future__ import annotations

import pytest

from tests.card.cards import ABORT, COMPLETED, ERROR, TIMEOUT, Card

pytestmark = [pytest.mark.xrt, pytest.mark.gxx]


def refusal(card: Card, lines: list[str]) -> str:
    """The refusal of the last line; no other line is refused."""
    answers = card.run([*card.opened(), *lines])
    last = answers.lines[-1]
    assert answers.refused() == [last[1].removeprefix("refused ")], answers.lines
    return answers.refused()[0]


def argument(card: Card, role: str) -> tuple[str, int, str]:
    """(kernel, index, name) of the first port of a role."""
    port = next(p for p in card.manifest["ports"] if p["role"] == role)
    return port["kernel"], port["index"], port["argument"]


def test_arguments_that_were_not_set_are_all_named(plain: Card) -> None:
    (kernel,) = plain.kernels
    _, index, name = argument(plain, "weights")
    filled = [x for x in plain.filled() if not x.startswith((f"arg {kernel} {index} ", f"arg {kernel} 6"))]
    text = refusal(plain, [*filled, f"start {kernel}"])
    assert f"argument {index} ({name}) of kernel {kernel} was not set" in text
    assert f"(seq) of kernel {kernel} was not set" in text
    assert text.count("was not set") == 2


def test_numbers_and_buffers_are_told_apart(plain: Card) -> None:
    kernel, index, name = argument(plain, "weights")
    text = refusal(plain, [f"arg {kernel} {index} int 3"])
    assert f"argument {index} ({name}) of kernel {kernel} is a buffer, given was a number" in text
    text = refusal(plain, ["bo any 64 0", f"arg {kernel} 5 bo any"])
    assert f"(batch) of kernel {kernel} is a number of 4 bytes, given was a buffer" in text
    text = refusal(plain, [f"arg {kernel} 5 long 1"])
    assert "has 4 bytes, given were 8" in text
    text = refusal(plain, [f"arg {kernel} 7 int 1"])
    assert f"kernel {kernel} has no argument 7, only 0 to 6" in text


@pytest.mark.hf
def test_a_stream_takes_no_argument(generating: Card) -> None:
    kernel = generating.manifest["kernels"][1]
    text = refusal(generating, [f"arg {kernel['name']} 0 int 1"])
    assert f"argument 0 ({kernel['axis_in'][0]})" in text and "is a stream to another kernel" in text


def test_a_buffer_in_the_wrong_bank(plain: Card) -> None:
    kernel, index, name = argument(plain, "weights")
    bank = next(p["hbm"] for p in plain.manifest["ports"] if p["argument"] == name)
    text = refusal(plain, ["bo wrong 64 31", f"arg {kernel} {index} bo wrong"])
    assert f"is connected to HBM[{bank}], the buffer is in HBM[31]" in text
    assert f"allocate it with group_id({index})" in text
    assert "there is no memory 99, only 0 (HBM[0]) to 33 (DDR[1])" in refusal(plain, ["bo none 64 99"])


def test_a_pseudo_channel_holds_256_mib_in_all(plain: Card) -> None:
    text = refusal(plain, [f"bo a {156 << 20} 7", f"bo other {200 << 20} 8", f"bo b {(100 << 20) + 1} 7"])
    assert f"does not fit into HBM[7]: {156 << 20} of its {256 << 20} bytes are taken" in text
    assert "a buffer of 0 bytes" in refusal(plain, ["bo empty 0 7"])


def test_transfers_stay_inside_the_buffer(plain: Card) -> None:
    assert "bytes 50 to 150 of a buffer of 100" in refusal(plain, ["bo a 100 7", "to a 100 50"])
    assert "bytes 101 to 101 of a buffer of 100" in refusal(plain, ["bo a 100 7", "from a 0 101"])
    text = refusal(plain, ["bo a 4096 7", "bo b 8192 7", "copy a b"])
    assert "copy to: bytes 0 to 8192 of a buffer of 4096" in text
    assert "bytes 4096 to 8192" in refusal(plain, ["bo a 4160 7", "part p a 4096 4096"])


def test_a_kernel_that_reads_beyond_its_buffer_is_found_out(plain: Card) -> None:
    kernel, index, name = argument(plain, "weights")
    port = next(p for p in plain.manifest["ports"] if p["argument"] == name)
    short = [f"bo short {port['bytes'] - 64} {port['hbm']}", f"arg {kernel} {index} bo short"]
    lines = [*plain.opened(), *plain.filled(), *short, *plain.launched(), f"state {kernel}"]
    answers = plain.run(lines)
    assert answers.of(f"wait {kernel}") == f"ok {ERROR}" == answers.of("state")
    (event,) = answers.events("failed")
    assert f"reads beyond the {port['bytes'] - 64} bytes of the buffer of {name}" in event["text"]
    assert event["text"] in answers.errors  # said without a log, too


def test_a_card_that_failed_is_as_new_when_it_is_opened_again(plain: Card) -> None:
    kernel, index, name = argument(plain, "weights")
    bank = next(p["hbm"] for p in plain.manifest["ports"] if p["argument"] == name)
    bad = [f"bo short 64 {bank}", f"arg {kernel} {index} bo short", *plain.launched()]
    again = [*plain.opened(), *plain.filled(), *plain.launched(), *plain.fetched()]
    answers = plain.run(
        [*plain.opened(), *plain.filled(), *bad, f"start {kernel}", f"state {kernel}", *again]
    )
    assert not answers.refused()
    waits = [a for asked, a in answers.lines if asked.startswith("wait")]
    assert waits == [f"ok {ERROR}", f"ok {COMPLETED}"]
    assert plain.differing() == []


def test_smaller_buffers_do_where_a_launch_reads_less(plain: Card) -> None:
    """Two sequences were compiled for; one needs half of the input."""
    kernel, index, name = argument(plain, "rows")
    port = next(p for p in plain.manifest["ports"] if p["argument"] == name)
    half = [f"bo half {port['bytes'] // 2} {port['hbm']}", f"arg {kernel} {index} bo half"]
    launch = [*plain.scalars([1, 5]), *plain.launched()]
    answers = plain.run([*plain.opened(), *plain.filled(), *half, *launch])
    assert answers.of(f"wait {kernel}") == f"ok {COMPLETED}"


@pytest.mark.hf
def test_a_run_that_is_not_over_is_not_started_again(generating: Card) -> None:
    kernel = generating.kernels[1]
    text = refusal(generating, [*generating.filled(), f"start {kernel}", f"start {kernel}"])
    assert f"this run of kernel {kernel} is not over yet" in text


@pytest.mark.hf
def test_both_sides_of_a_cache_need_one_buffer(generating: Card) -> None:
    port = next(p for p in generating.manifest["ports"] if p["role"] == "cache" and p["direction"] == "write")
    other = [f"bo other {port['bytes']} {port['hbm']}", f"arg {port['kernel']} {port['index']} bo other"]
    text = refusal(generating, [*generating.filled(), *other, f"start {port['kernel']}"])
    assert f"({port['argument']})" in text and "are one cache: set one buffer for both" in text


@pytest.mark.hf
def test_an_aborted_kernel_stays_until_the_device_is_opened_again(generating: Card) -> None:
    kernel = generating.kernels[1]
    lines = [*generating.opened(), *generating.filled(), f"start {kernel}", f"wait {kernel} 30"]
    lines += [f"abort {kernel}", f"state {kernel}", *generating.opened(), f"state {kernel}"]
    lines += [*generating.filled(), *generating.launched(), *generating.fetched()]
    answers = generating.run(lines)
    assert not answers.refused()
    assert (
        answers.of("abort"),
        answers.lines[answers.lines.index((f"abort {kernel}", f"ok {ABORT}")) + 1][1],
    ) == (
        f"ok {ABORT}",
        f"ok {ABORT}",
    )
    assert f"ok {TIMEOUT}" in [a for asked, a in answers.lines if asked == f"wait {kernel} 30"]
    assert generating.differing() == []


def test_a_buffer_that_was_given_up(plain: Card) -> None:
    kernel, index, name = argument(plain, "weights")
    text = refusal(plain, [*plain.filled(), f"drop {name}", f"start {kernel}"])
    assert f"argument {index} ({name}) of kernel {kernel}: its buffer is gone" in text


def test_memory_of_a_launch_that_is_over_is_free_again(plain: Card) -> None:
    _, _, name = argument(plain, "weights")
    bank = next(p["hbm"] for p in plain.manifest["ports"] if p["argument"] == name)
    lines = [*plain.opened(), *plain.filled(), *plain.launched(), f"drop {name}"]
    assert not plain.run([*lines, f"bo all {256 << 20} {bank}"]).refused()


def test_things_that_come_too_early(plain: Card) -> None:
    answers = plain.run(["device", "bo early 64 0"])
    assert "load one first" in answers.refused()[0]
    assert "was never started" in refusal(plain, [f"wait {plain.kernels[0]} 10"])
    assert plain.run([*plain.opened(), f"state {plain.kernels[0]}"]).of("state") == "ok 1"


@pytest.mark.hf
def test_a_card_library_of_another_design(plain: Card, generating: Card) -> None:
    plain.environment["T2F_CARD_LIBRARY"] = generating.environment["T2F_CARD_LIBRARY"]
    answers = plain.run(plain.opened())
    assert f"which has no kernel {plain.kernels[0]}" in answers.refused()[0]
    plain.environment["T2F_CARD_LIBRARY"] = str(plain.work / "none.so")
    assert "none.so: cannot open shared object file" in plain.run(["device"]).refused()[0]
    del plain.environment["T2F_CARD_LIBRARY"]
    assert "T2F_CARD_LIBRARY does not name" in plain.run(["device"]).refused()[0]
