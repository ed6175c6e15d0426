# SPDX-License-Identifier: Apache-2.0
"""The token sampler: its C++ against its reference, and both against plain definitions."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.lower.sample_bench import CASES, TOP_KS, Logits, SampleLibrary, bench
from tests.tiny import cxx_cache
from torch2fpga.errors import CompileError, InputError
from torch2fpga.lower.sample import philox, philox4x32, sample, settings_word
from torch2fpga.simulate.tables import exp2_table

__all__ = ["cxx_cache"]
DRAW = CASES.index((16, "int32", 100))


@pytest.fixture(scope="module")
def library() -> SampleLibrary:
    return SampleLibrary([bench(*case) for case in CASES])


def _values(index: int, kind: str, seed: int) -> Logits:
    """Logits of a case: over the whole range, among few values (ties), or at the two ends of the range."""
    _, element, vocabulary = CASES[index]
    bits = int(element.removeprefix("int"))
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    random = np.random.default_rng(seed)
    if kind == "wide":
        return random.integers(low, high, vocabulary, endpoint=True)
    if kind == "lowest":
        return np.full(vocabulary, low)
    few = np.array([low, high] if kind == "ends" else [-3, 0, 4])
    return few[random.integers(0, few.size, vocabulary)]


def _by_hand(logits: Logits, given: Sequence[int], position: int) -> int:
    """The definition in Python's own integers."""
    top_k, factor, shift, low, high = given[:5]
    order = sorted(range(logits.size), key=lambda i: (-int(logits[i]), i))
    k = min(max(top_k, 1), 64, logits.size)
    if k == 1:
        return order[0]
    weights = []
    for i in order[:k]:
        below = (int(logits[order[0]]) - int(logits[i])) * factor
        distance = (below + (1 << shift >> 1)) >> shift
        whole = min(distance >> 8, 31)
        weights.append(((exp2_table()[distance % 256] << 8) + (1 << whole >> 1)) >> whole)
    draw = philox(position, (high % 2**32) << 32 | low % 2**32) * sum(weights) >> 32
    return next(order[i] for i in range(k) if sum(weights[: i + 1]) > draw)


def _spread(element: str) -> tuple[int, int]:
    """A multiplier and a shift with which the whole range of an element is some ten powers of two."""
    return (77777, 38) if element == "int32" else (90001, 21)


# -- random numbers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_vectors(counter: str, key: str, want: str) -> None:
    """The known answers of Random123 (tests/kat_vectors, philox4x32 10)."""
    c0, c1, c2, c3 = (int(x, 16) for x in counter.split())
    k0, k1 = (int(x, 16) for x in key.split())
    assert philox4x32((c0, c1, c2, c3), (k0, k1)) == tuple(int(x, 16) for x in want.split())


def test_the_seed_is_the_key_lowest_word_first() -> None:
    assert philox(0, 0) == 0x6627E8D5
    assert philox(7, 0x299F31D0A4093822) == philox4x32((7, 0, 0, 0), (0xA4093822, 0x299F31D0))[0]
    assert philox((1 << 32) + 7, 5) == philox(7, 5)


@pytest.mark.gxx
def test_the_random_number_of_the_template(library: SampleLibrary) -> None:
    """64 equal logits: the token is the upper six bits."""
    logits = np.zeros(100, dtype=np.int64)
    assert library.sample(DRAW, logits, (64, 0, 0, 0, 0), position=0) == 0x6627E8D5 >> 26
    for position in (1, 2, 1023, 2**31 - 1):
        for seed in (0, 1, 1 << 32, 0xFEDCBA9876543210, 2**64 - 1):
            words = (64, 0, 0, seed & 0xFFFFFFFF, seed >> 32)
            assert library.sample(DRAW, logits, words, position) == philox(position, seed) >> 26


# -- the template against the reference ------------------------------------------------------


@pytest.mark.gxx
@pytest.mark.parametrize("kind", ["wide", "few", "ends", "lowest"])
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: SampleLibrary, index: int, kind: str) -> None:
    """Lanes behind the vocabulary hold the largest value that there is, then the smallest."""
    for top_k in TOP_KS:
        for seed in range(3):
            logits = _values(index, kind, seed)
            given = (top_k, *_spread(CASES[index][1]), seed * 0x9ABCDEF1, 77)
            position = 1 + 17 * seed
            want = _by_hand(logits, given, position)
            assert sample(torch.from_numpy(logits), given, position) == want
            assert library.sample(index, logits, given, position) == want
            assert library.sample(index, logits, given, position, padding=-(2**15)) == want


@pytest.mark.gxx
@settings(max_examples=150, deadline=None)
@given(
    index=st.integers(0, len(CASES) - 1),
    kind=st.sampled_from(["wide", "few", "ends"]),
    top_k=st.integers(1, 70),
    factor=st.sampled_from([0, 1, 77777, 2**17 - 1]),
    shift=st.integers(0, 47),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**31 - 1),
)
def test_any_settings(
    library: SampleLibrary,
    index: int,
    kind: str,
    top_k: int,
    factor: int,
    shift: int,
    seed: int,
    position: int,
) -> None:
    logits = _values(index, kind, seed % 1000)
    given = (top_k, factor, shift, seed & 0xFFFFFFFF, seed >> 32)
    want = sample(torch.from_numpy(logits), given, position)
    assert want == _by_hand(logits, given, position)
    assert library.sample(index, logits, given, position) == want


@pytest.mark.gxx
def test_every_one_of_the_largest_is_drawn_in_turn(library: SampleLibrary) -> None:
    """Weights are equal, so all 64 of the largest come up, and nothing else: the order of extraction
    is exact where logits are equal across blocks and groups."""
    index = CASES.index((8, "int16", 523))
    logits = _values(index, "few", 5)
    best = sorted(range(523), key=lambda i: (-int(logits[i]), i))[:64]
    drawn = {library.sample(index, logits, (64, 0, 0, 9, 9), p) for p in range(1, 1500)}
    assert drawn == set(best)


@pytest.mark.gxx
def test_greedy_takes_the_first_of_equals(library: SampleLibrary) -> None:
    index = CASES.index((16, "int32", 1000))
    for first, second in ((0, 1), (3, 11), (15, 16), (8, 260), (250, 255), (1, 999), (998, 999)):
        logits = np.full(1000, -(2**31), dtype=np.int64)
        logits[[first, second]] = 2**31 - 1
        for top_k in (1, 0, -4):
            assert library.sample(index, logits, (top_k, 0, 0, 0, 0)) == first
            assert sample(torch.from_numpy(logits), (top_k, 0, 0, 0, 0), 1) == first
    assert library.sample(index, np.full(1000, -(2**31)), (1, 0, 0, 0, 0)) == 0


@pytest.mark.gxx
def test_differences_need_more_than_32_bits(library: SampleLibrary) -> None:
    """From one end of the range to the other is 2^32 - 1, here one power of two and no less."""
    logits = np.array([2**31 - 1, -(2**31), -(2**31), -(2**31), -(2**31)])
    given = (5, 1, 24, 4, 4)  # distance 256
    index = CASES.index((8, "int32", 5))
    drawn = [library.sample(index, logits, given, p) for p in range(1, 301)]
    assert drawn == [_by_hand(logits, given, p) for p in range(1, 301)]
    assert 60 < drawn.count(0) < 140  # a third


@pytest.mark.gxx
@pytest.mark.parametrize(("position", "place"), [(7_301_789, 16), (9_639_961, 62), (95_791_747, 25)])
def test_a_draw_that_meets_a_sum_goes_to_the_next_one(
    library: SampleLibrary, position: int, place: int
) -> None:
    """Positions, found by search, at which the draw from 64 equal weights is a sum of them exactly."""
    weight = exp2_table()[0] << 8
    assert philox(position, 0) * 64 * weight >> 32 == place * weight
    logits, given = np.zeros(100, dtype=np.int64), (64, 0, 0, 0, 0)
    assert sample(torch.from_numpy(logits), given, position) == place
    assert library.sample(DRAW, logits, given, position) == place


# -- the distribution ------------------------------------------------------------------------


def _p_value(drawn: Sequence[int], logits: Logits, scale: float, temperature: float, top_k: int) -> float:
    """How likely draws this far from the softmax of the k largest are."""
    real = torch.from_numpy(logits).double() * scale / temperature
    top, ids = torch.topk(real, top_k)
    expected = torch.softmax(top, 0).numpy() * len(drawn)
    counts = np.array([list(drawn).count(int(i)) for i in ids])
    assert counts.sum() == len(drawn) and expected.min() > 5
    return float(stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue)


@pytest.mark.gxx
@pytest.mark.parametrize(("top_k", "temperature"), [(4, 1.0), (10, 0.7), (40, 2.0)])
def test_draws_follow_the_softmax(library: SampleLibrary, top_k: int, temperature: float) -> None:
    scale = 2.2e-5
    logits = np.random.default_rng(3).permutation(100).astype(np.int64) * 10_007 - 123_456
    given = struct.unpack("<5i44x", settings_word(top_k, temperature, scale, 2026))
    drawn = [library.sample(DRAW, logits, given, p) for p in range(1, 10_001)]
    assert _p_value(drawn, logits, scale, temperature, top_k) > 0.01
    assert _p_value(drawn, logits, scale, temperature * 1.5, top_k) < 1e-4


@pytest.mark.gxx
def test_a_draw_belongs_to_its_seed_and_position(library: SampleLibrary) -> None:
    logits = np.arange(100, dtype=np.int64)

    def draws(seed: int, past: int) -> list[int]:
        given = struct.unpack("<5i44x", settings_word(50, 1.0, 0.001, seed))
        return [library.sample(DRAW, logits, given, p, past=past) for p in range(20, 120)]

    first = draws(1, 0)
    assert first == draws(1, 7) == draws(1, 20)
    for other in (draws(2, 0), draws(1 + (1 << 32), 0), draws(1 << 63, 0)):
        assert sum(a == b for a, b in zip(first, other, strict=True)) < 15
    assert len(set(first)) > 30


def test_reference_gives_every_row_its_position() -> None:
    stage = bench(8, "int32", 50).stage
    logits = torch.randint(-500, 500, (1, 6, 50), generator=torch.Generator().manual_seed(1))
    made = torch.frombuffer(bytearray(settings_word(20, 0.9, 0.01, 12)), dtype=torch.int32)
    words = made.to(torch.int64)
    (ids,) = stage.reference({}, [logits, words])
    assert ids.shape == (1, 6) and ids.dtype == torch.int64
    assert ids[0].tolist() == [sample(logits[0, r], words.tolist(), r + 1) for r in range(6)]
    (again,) = stage.reference({}, [logits, words[None]])
    assert torch.equal(ids, again)
    for r in range(6):
        (one,) = stage.reference({"past": r}, [logits[:, r : r + 1], words])
        assert one.tolist() == [[int(ids[0, r])]]


# -- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.7, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("scale", [1e-9, 3e-5, 0.02, 1.0])
def test_settings_are_the_temperature(temperature: float, scale: float) -> None:
    top_k, factor, shift, low, high = struct.unpack(
        "<3i2I44x", settings_word(7, temperature, scale, 0x1234567_89ABCDEF)
    )
    assert (top_k, low, high) == (7, 0x89ABCDEF, 0x1234567)
    assert 0 <= factor < 2**17 and 0 <= shift <= 47
    ratio = scale / temperature * math.log2(math.e) * 256
    if ratio < 2**17 - 1:
        assert factor / 2**shift == pytest.approx(ratio, rel=2**-15, abs=2**-46)
    else:
        assert (factor, shift) == (2**17 - 1, 0)


def test_temperatures_at_the_ends() -> None:
    """As good as greedy, and as good as equal weights."""
    logits = torch.tensor([3, 9, 8, -1])
    cold = struct.unpack("<5i44x", settings_word(4, 1e-300, 1.0, 5))
    hot = struct.unpack("<5i44x", settings_word(4, 1e300, 1e-9, 5))
    assert {sample(logits, cold, p) for p in range(200)} == {1}
    assert {sample(logits, hot, p) for p in range(200)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("top_k", "temperature", "seed", "text"),
    [
        (0, 1.0, 0, "from 1 to 64"),
        (65, 1.0, 0, "from 1 to 64"),
        (2.5, 1.0, 0, "from 1 to 64"),
        (1, 0.0, 0, "finite number above 0"),
        (1, -1.0, 0, "finite number above 0"),
        (1, math.nan, 0, "finite number above 0"),
        (1, math.inf, 0, "finite number above 0"),
        (1, 1.0, -1, "from 0 to 2\\^64 - 1"),
        (1, 1.0, 2**64, "from 0 to 2\\^64 - 1"),
    ],
)
def test_settings_out_of_range_are_refused(top_k: int, temperature: float, seed: int, text: str) -> None:
    with pytest.raises(InputError, match=text):
        settings_word(top_k, temperature, 1.0, seed)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(CompileError, match="one unit of the logits"):
        settings_word(2, 1.0, scale, 0)


@pytest.mark.parametrize(
    "given", [(2, -1, 0, 0, 0), (2, 1 << 17, 0, 0, 0), (2, 1, 48, 0, 0), (2, 1, -1, 0, 0)]
)
def test_settings_that_the_hardware_does_not_take(given: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiplier"):
        sample(torch.arange(5), given, 1)
