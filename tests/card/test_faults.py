# SPDX-License-Identifier: Apache-2.0
"""Faults that the emulated card shows when told to."""

from __future__ import annotations

import subprocess

import pytest

from tests.card.cards import ABORT, COMPLETED, TIMEOUT, Card, driver
from torch2fpga.simulate.card import emulated_environment

pytestmark = [pytest.mark.xrt, pytest.mark.gxx]


def whole(card: Card, launches: int = 1, ms: int = 20_000) -> list[str]:
    """Everything from the device to the outputs."""
    launched = [line for _ in range(launches) for line in card.launched(ms=ms)]
    return [*card.opened(), *card.filled(), *launched, *card.fetched()]


def waits(card: Card, lines: list[str], faults: str) -> list[str]:
    """What the waits gave; nothing is refused."""
    answers = card.run(lines, faults)
    assert not answers.refused()
    return [a.removeprefix("ok ") for asked, a in answers.lines if asked.startswith("wait")]


def test_a_hung_kernel_never_ends(plain: Card) -> None:
    (kernel,) = plain.kernels
    lines = [*whole(plain, 3, ms=200), f"state {kernel}"]
    lines = [line for line in lines if not line.startswith(("from", "save"))]
    answers = plain.run(lines, f"hang:{kernel}@launch=3")
    assert [a for asked, a in answers.lines if asked[:4] == "wait"] == [
        f"ok {COMPLETED}", f"ok {COMPLETED}", f"ok {TIMEOUT}"
    ]  # fmt: skip
    assert answers.of("state") == "ok 3"
    assert [e["fault"] for e in answers.events("fault")] == [f"hang:{kernel}@launch=3"]


@pytest.mark.hf
def test_a_hung_kernel_holds_its_neighbours_up_and_a_new_device_does_not(generating: Card) -> None:
    hung = generating.kernels[2]
    first = [x for x in whole(generating, ms=150) if not x.startswith(("from", "save"))]
    found = waits(generating, [*first, *whole(generating)], f"hang:{hung}@launch=1")
    assert found[1:3] == [TIMEOUT, TIMEOUT] and found[3:] == [COMPLETED] * 3
    assert generating.differing() == []


def test_a_slow_kernel_ends_later(plain: Card) -> None:
    (kernel,) = plain.kernels
    lines = [*plain.opened(), *plain.filled(), f"start {kernel}", f"wait {kernel} 50", f"wait {kernel} 20000"]
    found = waits(plain, [*lines, *plain.fetched()], "timeout@launch=1:ms=400")
    assert found == [TIMEOUT, COMPLETED]
    assert plain.differing() == []
    assert waits(plain, lines, f"timeout:{kernel}@launch=2:ms=400") == [COMPLETED, COMPLETED]


def test_a_bit_flips_on_the_way_to_the_host(plain: Card) -> None:
    name = plain.outputs[0]["argument"]
    fetched = [*plain.fetched(), f"from {name}", f"save {name} {plain.work / 'second'}"]
    lines = [*plain.opened(), *plain.filled(), *plain.launched(), *fetched]
    answers = plain.run(lines, f"corrupt-read:{name}@sync=1:bit=12")
    assert not answers.refused()
    golden = bytearray((plain.folder / "golden" / f"{name}.bin").read_bytes())
    assert (plain.work / "second").read_bytes()[: len(golden)] == golden  # it happens once
    golden[1] ^= 1 << 4
    assert (plain.work / name).read_bytes()[: len(golden)] == golden
    other = plain.run(lines, "corrupt-read:no_such_argument@sync=1")
    assert not other.events("fault")


def test_a_bit_of_the_weights_flips_on_the_way_to_the_card(plain: Card) -> None:
    name = next(p["argument"] for p in plain.manifest["ports"] if p["role"] == "weights")
    answers = plain.run(whole(plain), f"corrupt-weights:{name}@sync=1:bit=6")
    assert not answers.refused() and len(answers.events("fault")) == 1
    assert plain.differing() != []


def test_a_bit_that_the_transfer_does_not_have(plain: Card) -> None:
    answers = plain.run([*plain.opened(), "bo a 64 9", "from a"], "corrupt-read@sync=1:bit=512")
    assert "this transfer has 64 bytes" in answers.refused()[0]


def test_a_bit_of_the_card_s_memory_flips_when_a_launch_begins(plain: Card) -> None:
    (kernel,) = plain.kernels
    port = next(p for p in plain.manifest["ports"] if p["role"] == "weights")
    name, content = port["argument"], (plain.folder / port["file"]).read_bytes()
    bit = 8 * (len(content) // 2) + 6
    fault = f"corrupt-memory:{name}@launch=2:bit={bit}"
    saved = [f"from {name}", f"save {name} {plain.work / 'weights'}"]
    begun = [*plain.opened(), *plain.filled(), *plain.launched(), *plain.fetched()]

    answers = plain.run([*begun, *saved], fault)  # one launch: nothing yet
    assert not answers.refused() and not answers.events("fault")
    assert plain.differing() == [] and (plain.work / "weights").read_bytes() == content

    answers = plain.run([*begun, *plain.launched(), *plain.fetched(), *saved], fault)
    assert not answers.refused()
    (event,) = answers.events("fault")
    assert (event["fault"], event["kernel"], event["launch"]) == (fault, kernel, 2)
    assert plain.differing() != []
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << (bit % 8)
    assert (plain.work / "weights").read_bytes() == flipped  # and nothing else

    # It stays so for the next launch, until the host writes it.
    assert not plain.run([*begun, *plain.launched(), *plain.launched(), *plain.fetched()], fault).refused()
    assert plain.differing() != []
    again = [f"fill {name} {plain.folder / port['file']}", f"to {name}", *plain.launched()]
    assert not plain.run([*begun, *plain.launched(), *again, *plain.fetched()], fault).refused()
    assert plain.differing() == []


@pytest.mark.hf
def test_the_launch_is_that_of_the_argument_s_kernel(generating: Card) -> None:
    """Kernels are started one by one; both bits of one launch."""
    port = next(p for p in generating.manifest["ports"] if p["role"] == "params")
    name = port["argument"]
    faults = f"corrupt-memory:{name}@launch=1;corrupt-memory:{name}@launch=1:bit=9"
    saved = [f"from {name}", f"save {name} {generating.work / 'params'}"]
    lines = [*generating.opened(), *generating.filled(), *generating.launched(), *saved]
    answers = generating.run(lines, faults)
    assert [e["fault"] for e in answers.events("fault")] == faults.split(";")
    assert {e["kernel"] for e in answers.events("fault")} == {port["kernel"]}
    content = bytearray((generating.folder / port["file"]).read_bytes())
    content[0] ^= 1
    content[1] ^= 2
    assert (generating.work / "params").read_bytes() == content


def test_the_memory_of_the_timed_build_flips_too(plain: Card) -> None:
    environment = emulated_environment(plain.folder, log=plain.work / "log", timed=True)
    timed = Card(plain.folder, plain.work, environment, plain.manifest)
    name = next(p["argument"] for p in plain.manifest["ports"] if p["role"] == "weights")
    lines = [*timed.opened(), *timed.filled(), *timed.launched(), *timed.fetched()]
    assert not timed.run(lines).refused() and timed.differing() == []
    answers = timed.run(lines, f"corrupt-memory:{name}@launch=1:bit=6")
    assert len(answers.events("fault")) == 1 and len(answers.events("timed")) == 1
    assert timed.differing() != []


def test_a_bit_that_the_memory_does_not_have(plain: Card) -> None:
    (kernel,) = plain.kernels
    port = next(p for p in plain.manifest["ports"] if p["role"] == "weights")
    lines = [*plain.opened(), *plain.filled(), f"start {kernel}"]
    size = -(-port["bytes"] // 64) * 64
    answers = plain.run(lines, f"corrupt-memory:{port['argument']}@launch=1:bit={8 * size}")
    (text,) = answers.refused()
    assert f"this buffer has {size} bytes" in text and f"bit={8 * size}" in text
    assert not plain.run(lines, "corrupt-memory:no_such_argument@launch=1").events("fault")


def test_an_allocation_fails(plain: Card) -> None:
    answers = plain.run([*plain.opened(), "bo a 64 9", "bo b 64 9", "bo b 64 9"], "alloc@n=2")
    assert [a for asked, a in answers.lines if asked.startswith("bo")][::2] == ["ok ", "ok "]
    assert answers.refused() == ["emulated card: allocation 2 of 64 bytes in HBM[9] fails (T2F_CARD_FAULTS)"]


@pytest.mark.hf
def test_a_reset_in_mid_run_ends_everything_until_the_device_is_opened_again(generating: Card) -> None:
    first, second, third = generating.kernels
    output = generating.outputs[0]["argument"]
    lines = [*generating.opened(), *generating.filled(), f"start {first}", f"start {second}"]
    lost = [f"start {third}", f"start {first}", f"from {output}", "bo a 64 9", "kernel k " + first,
            f"load {generating.xclbin}", f"arg {first} 0 bo {output}", f"run r {first}"]  # fmt: skip
    lines += [f"wait {first} 1000", f"wait {second} 1000", *lost]
    again = generating.run([*lines, *whole(generating)], f"reset:{second}@launch=1")
    assert [a for asked, a in again.lines if asked == f"wait {first} 1000"] == [f"ok {ABORT}"]
    assert [a for asked, a in again.lines if asked == f"wait {second} 1000"] == [f"ok {ABORT}"]
    assert len(again.refused()) == len(lost)
    assert all("open it again" in text for text in again.refused())
    assert [a for asked, a in again.lines if asked == f"wait {first} 20000"] == [f"ok {COMPLETED}"]
    assert generating.differing() == []


def test_objects_of_before_a_reset_are_refused(plain: Card) -> None:
    (kernel,) = plain.kernels
    name = plain.outputs[0]["argument"]
    lines = [*plain.opened(), *plain.filled(), "reset", f"start {kernel}", f"from {name}", "bo a 64 9"]
    answers = plain.run([*lines, *whole(plain)])
    texts = answers.refused()
    assert len(texts) == 3
    assert "made before the device was reset" in texts[0]
    assert "made before the device was reset" in texts[1]
    assert "load one first" in texts[2]
    assert plain.differing() == []


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ("explode@launch=1", "unknown kind; there are hang, timeout, reset"),
        ("hang", 'no "@" that says when'),
        ("hang@sync=1", '"sync" is not for hang, which counts "launch"'),
        ("hang@launch=0", "launch counts from 1"),
        ("hang@launch=-1", '"-1" is no whole number'),
        ("alloc:x@n=1", "alloc takes no name"),
        ("hang:@launch=1", 'no name behind ":"'),
        ("corrupt-memory@launch=1", "corrupt-memory takes the name of an argument"),
        ("corrupt-memory:x@sync=1", '"sync" is not for corrupt-memory, which counts "launch"'),
        ("corrupt-memory:x@launch=1:ms=3", '"ms" is not for corrupt-memory'),
        ("hang@launch=1:bit=3", '"bit" is not for hang'),
        ("timeout@launch=1:ms=1s", '"1s" is no whole number'),
        ("corrupt-read@sync=1:ms=4", '"ms" is not for corrupt-read'),
        ("hang@launch=1;what@n=2;reset@launch=x", '"what@n=2": unknown kind'),
    ],
)
def test_unknown_faults_are_refused_before_the_program_begins(plain: Card, faults: str, said: str) -> None:
    environment = plain.environment | {"T2F_CARD_FAULTS": faults}
    done = subprocess.run(
        [str(driver())], input="device\n", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "T2F_CARD_FAULTS: " in done.stderr and said in done.stderr
    if ";" in faults:
        assert '"reset@launch=x": ' in done.stderr  # all at once
