# SPDX-License-Identifier: Apache-2.0
"""Packing recipes: limits from the operands' ranges, the integer model over all operand values, and
what is wrong with two public recipes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from torch2fpga.plan.packing import (
    P_BITS,
    RECIPES,
    U8A8,
    W4A4,
    W4A4_UNSIGNED,
    W4A8,
    W8A8,
    W8A8_FULL,
    Operand,
    Recipe,
    dsps,
    packed_bytes,
    products_per_dsp,
    recipe_of,
)


def _values(operand: Operand) -> np.ndarray:
    """Every choice of an operand's values, shape (choices, values)."""
    one = np.arange(operand.least, operand.greatest + 1)
    return np.stack(np.meshgrid(*[one] * len(operand.shifts), indexing="ij"), -1).reshape(
        -1, len(operand.shifts)
    )


def _plain(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of products, (..., chain, values) twice -> (..., values of a, values of b)."""
    return np.einsum("...ki,...kj->...ij", a.astype(np.int64), b.astype(np.int64))


def _wrong(recipe: Recipe, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether any field of a chain differs from the plain sum."""
    return (recipe.extract(recipe.multiply(a, b)) != _plain(a, b)).any(axis=(-2, -1))


@pytest.mark.parametrize(
    ("recipe", "products", "starts", "chain"),
    [
        (W8A8, 2, (0, 18), 8),
        (W8A8_FULL, 2, (0, 18), 7),
        (U8A8, 2, (0, 18), 4),
        (W4A8, 2, (0, 22), 2047),
        (W4A4, 4, (0, 11, 22, 33), 15),
        (W4A4_UNSIGNED, 4, (0, 11, 22, 33), 8),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else None,
)
def test_recipes(recipe: Recipe, products: int, starts: tuple[int, ...], chain: int) -> None:
    assert (recipe.products, recipe.starts, recipe.chain) == (products, starts, chain)
    assert sum(recipe.widths) == P_BITS
    assert (recipe.a.bits, recipe.b.bits) == (27, 18)
    assert recipe.a.fits and recipe.b.fits
    assert RECIPES[recipe.name] is recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_choice_of_operands_is_exact(recipe: Recipe) -> None:
    a, wrong, compared = _values(recipe.a)[:, None, :], 0, 0
    for b in _values(recipe.b):
        got = _wrong(recipe, a, np.broadcast_to(b, (len(a), 1, len(b))))
        wrong, compared = wrong + int(got.sum()), compared + got.size
    sizes = [(o.greatest - o.least + 1) ** len(o.shifts) for o in (recipe.a, recipe.b)]
    assert (wrong, compared) == (0, sizes[0] * sizes[1])


def _worst(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Every operand of values at their ends, as pairs: (pairs, 1, values) twice."""
    ends = []
    for operand in (recipe.a, recipe.b):
        values = _values(replace(operand, least=0, greatest=1))
        ends.append(np.where(values, operand.greatest, operand.least))
    a, b = ends
    pairs = [(x, y) for x in a for y in b]
    return np.stack([x for x, _ in pairs])[:, None], np.stack([y for _, y in pairs])[:, None]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_chains_are_exact_up_to_their_limit_and_no_further(recipe: Recipe) -> None:
    a, b = _worst(recipe)
    for length, exact in ((recipe.chain, True), (recipe.chain + 1, False)):
        wrong = _wrong(recipe, np.repeat(a, length, axis=1), np.repeat(b, length, axis=1))
        assert wrong.any() != exact, length


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_chains_of_different_products_are_exact(recipe: Recipe) -> None:
    random = np.random.default_rng(recipe.chain)
    a, b = (
        np.where(
            random.random(shape) < 0.5,
            random.choice([operand.least, operand.greatest], shape),
            random.integers(operand.least, operand.greatest + 1, shape),
        )
        for operand in (recipe.a, recipe.b)
        for shape in [(500, recipe.chain, len(operand.shifts))]
    )
    assert not _wrong(recipe, a, b).any()


def _shifted(shift: int) -> Recipe:
    return replace(W4A8, a=replace(W4A8.a, shifts=(0, shift)))


def test_w4a8_at_shift_23_overflows_operand_a() -> None:
    """8 of 256 pairs of weights; the recipe is good for symmetric weights only."""
    recipe = _shifted(23)
    assert not recipe.a.fits
    assert recipe.chain == 0
    with pytest.raises(ValueError, match="overflow"):
        recipe.drains(1)
    weights = _values(recipe.a)
    wrong = np.zeros(len(weights), bool)
    for x in range(-128, 128):
        wrong |= _wrong(recipe, weights[:, None], np.full((len(weights), 1, 1), x))
    assert wrong.sum() == 8
    assert weights[wrong].tolist() == [[w0, -8] for w0 in range(-8, 0)]
    assert replace(recipe, a=replace(recipe.a, least=-7)).chain > 2047


def test_w4a8_at_shift_18_drains_sixteen_times_as_often() -> None:
    assert _shifted(18).chain == 127


def test_unsigned_activations_shorten_the_chain_of_int8() -> None:
    assert replace(W8A8, a=U8A8.a).chain == 4  # 4.05 with weights from -127 on, 4.02 with -128
    assert 4 * 255 * 128 < 1 << 17 < 5 * 255 * 128


def test_a_published_recipe_gets_most_products_wrong() -> None:
    """PE_8_4_pack of the artifact allo-pldi24: shift 13, the low nibble zero-extended, 12-bit
    fields cut out without giving the borrow back and put into 24-bit halves without their sign."""
    a, high, low = np.meshgrid(np.arange(-128, 128), np.arange(-8, 8), np.arange(-8, 8), indexing="ij")
    product = (a * (high * 2**13 + low % 16)) % 2**25
    halves = product % 2**12, product // 2**13
    wrong = (halves[0] != a * low) | (halves[1] != a * high)
    assert (int(wrong.sum()), wrong.size) == (56_000, 65_536)
    none_negative = (a >= 0) & (high >= 0) & (low >= 0)
    assert not wrong[none_negative].any()


def test_slices_of_an_array() -> None:
    assert {name: products_per_dsp(name) for name in RECIPES} == {
        "w8a8": 2,
        "w8a8-full": 2,
        "u8a8": 2,
        "w4a8": 2,
        "w4a4": 4,
        "w4a4-unsigned": 4,
    }
    assert dsps(2304, "w8a8") == 1152
    assert [dsps(macs, "w4a4") for macs in (0, 1, 4, 5)] == [0, 1, 1, 2]
    # FC2 of GPT-2 and a wider one: input channels are split
    assert [W4A8.drains(length) for length in (768, 2047, 3072, 11008)] == [1, 1, 2, 6]
    assert W8A8.drains(16) == 2


def test_impossible_questions_say_what_is_possible() -> None:
    known = "w8a8, w8a8-full, u8a8, w4a8, w4a4, w4a4-unsigned"
    with pytest.raises(ValueError, match=f"'w2a8'; there are {known}"):
        recipe_of("w2a8")
    with pytest.raises(ValueError, match="at least 0, not -1"):
        dsps(-1, "w8a8")
    with pytest.raises(ValueError, match=r"weights lie in -127\.\.127, not -128\.\.-128"):
        W8A8.b.pack([[-128]])
    with pytest.raises(ValueError, match="2 weights an operand"):
        W4A8.a.pack([1, 2, 3])


def test_packed_bytes() -> None:
    weights = _values(W4A8.a)
    packed = packed_bytes(weights)
    assert packed.dtype == np.int8
    assert len(set(packed.tolist())) == 256
    # The byte is operand A without the copies of w0's sign; only the fifth bit of -9 is lost.
    operand = W4A8.a.pack(weights)
    assert np.array_equal(packed & 15, operand & 15)
    assert np.array_equal(packed >> 4 & 15, operand >> 22 & 15)
    above = operand >> 22
    assert weights[(above < -8)].tolist() == [[w0, -8] for w0 in range(-8, 0)]
    assert packed_bytes(weights.reshape(4, 64, 2)).shape == (4, 64)
    for bad in ([[8, 0]], [[0, -9]]):
        with pytest.raises(ValueError, match=r"-8\.\.7"):
            packed_bytes(bad)
    with pytest.raises(ValueError, match="pairs of integers"):
        packed_bytes([[1.0, 2.0]])
    with pytest.raises(ValueError, match="pairs of integers"):
        packed_bytes([1, 2, 3])
