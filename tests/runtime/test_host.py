# SPDX-License-Identifier: Apache-2.0
"""Calls are checked before anything runs, with all problems in one text; packing is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch2fpga
from tests.tiny import BATCH, LONG, SEQ, WIDTH, compiled, ids, padding, rows
from torch2fpga.design import Layout, Shape
from torch2fpga.simulate.tokens import mask_to_tokens, rows_to_tokens

GOOD = {"input_ids": ids(), "attention_mask": padding()}


def _problems(name: str, *args: Any, **kwargs: Any) -> str:
    """The same text from every way of running."""
    model = compiled(name)
    texts = set()
    for call in (model, model.reference, model.verify):
        with pytest.raises(torch2fpga.InputError) as error:
            call(*args, **kwargs)
        texts.add(str(error.value))
    (text,) = texts
    return text


@pytest.mark.hf
@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"attention_mask": None}, ["input attention_mask is missing"]),
        ({"token_type_ids": ids()}, ["unknown input token_type_ids", "['input_ids', 'attention_mask']"]),
        ({"input_ids": ids()[0]}, ["input input_ids has shape (5,), expected 2 dimensions"]),
        ({"input_ids": ids().float()}, ["input input_ids is torch.float32, expected integers"]),
        ({"input_ids": [[1, 2]]}, ["input input_ids is a list, expected a tensor"]),
        ({"input_ids": ids() - 1}, ["input input_ids holds -1..", "expected ids in 0..99"]),
        ({"input_ids": ids() + 50}, ["expected ids in 0..99"]),
        ({"input_ids": ids()[:, :3]}, ["inputs disagree on (batch, tokens): [(2, 3), (2, 5)]"]),
        ({k: v[:, :0] for k, v in GOOD.items()}, ["2 x 0 rows"]),
        ({k: v[:0] for k, v in GOOD.items()}, ["0 x 5 rows"]),
        ({k: torch.cat([v, v], 1) for k, v in GOOD.items()}, ["2 x 10 rows; compiled for at most 2 x 5"]),
        ({k: torch.cat([v, v], 0) for k, v in GOOD.items()}, ["4 x 5 rows; compiled for at most 2 x 5"]),
        (
            {"attention_mask": None, "mask": padding(), "types": ids()},
            ["input attention_mask is missing", "unknown input mask", "unknown input types"],
        ),
        (
            {"input_ids": ids() + 50, "attention_mask": padding().float()},
            ["expected ids in 0..99", "input attention_mask is torch.float32, expected integers"],
        ),
        (
            {"input_ids": torch.cat([ids() + 50] * 2, 1), "attention_mask": torch.cat([padding()] * 2, 1)},
            ["expected ids in 0..99", "2 x 10 rows"],
        ),
    ],
)
def test_token_models(change: dict[str, Any], texts: list[str]) -> None:
    inputs = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    text = _problems("bert", **inputs)
    assert all(t in text for t in texts), text


@pytest.mark.hf
def test_given_twice_and_too_many() -> None:
    assert "input input_ids is given twice" in _problems("bert", ids(), **GOOD)
    assert "3 positional inputs, expected" in _problems("bert", ids(), padding(), ids())


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (rows(BATCH, SEQ, WIDTH - 1), ["has 20 channels, expected 21"]),
        (rows(SEQ, WIDTH), ["expected 3 dimensions"]),
        (rows(BATCH, SEQ, WIDTH).long(), ["torch.int64, expected float32"]),
        (torch.full((BATCH, SEQ, WIDTH), float("nan")), ["values that are not finite"]),
        (torch.full((1, 1, WIDTH), float("inf")), ["values that are not finite"]),
        (rows(BATCH, SEQ + 1, WIDTH), ["2 x 6 rows; compiled for at most 2 x 5"]),
        (np.zeros((BATCH, SEQ, WIDTH)), ["is a ndarray, expected a tensor"]),
    ],
)
def test_row_models(value: Any, texts: list[str]) -> None:
    text = _problems("encoder", value)
    assert all(t in text for t in texts), text


def test_two_dimensional_model() -> None:
    assert "expected 2 dimensions" in _problems("mlp2d", rows(1, 3, 10))
    assert "4 rows" in _problems("mlp2d", rows(4, 10)) or "1 x 4 rows" in _problems("mlp2d", rows(4, 10))


@pytest.mark.hf
@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8, torch.int8, torch.int16])
def test_integer_types_of_masks(dtype: torch.dtype) -> None:
    model = compiled("bert")
    want = model.reference(**GOOD).last_hidden_state
    got = model.reference(input_ids=ids().int(), attention_mask=padding().to(dtype)).last_hidden_state
    assert torch.equal(got, want)


@pytest.mark.hf
def test_strided_inputs() -> None:
    model = compiled("bert")
    turned = {k: v.t().contiguous().t() for k, v in GOOD.items()}
    assert not turned["input_ids"].is_contiguous()
    assert torch.equal(model.reference(**turned).last_hidden_state, model.reference(**GOOD).last_hidden_state)


def test_inputs_are_left_as_they_were() -> None:
    x = rows(BATCH, SEQ, WIDTH)
    before = x.clone()
    compiled("encoder").reference(x)
    assert torch.equal(x, before)


def test_float_inputs_are_rounded_halves_up_and_saturate() -> None:
    interface = compiled("encoder").interface
    (spec,) = interface.inputs
    assert spec.scale is not None and spec.bits == 16
    units = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 1e9, -1e9])
    x = torch.zeros(1, 1, WIDTH)
    x[0, 0, :7] = (units * spec.scale[:7]).float()
    got = interface.quantise({spec.name: x})[spec.name][0, 0, :7]
    assert got[[5, 6]].tolist() == [32767, -32768]
    assert all(abs(g - u) <= 0.5 for g, u in zip(got[:5].tolist(), units[:5].tolist(), strict=True))


def test_rows_in_token_order() -> None:
    """Block by block within a tile: the second block of row 0 comes behind the first of row 1."""
    x = torch.arange(1 * 3 * 10, dtype=torch.int32).reshape(1, 3, 10)
    got = rows_to_tokens(x, Layout(1, 10), "int16", Shape(8, 2, 1, 3)).reshape(-1, 8)
    assert got[:, 0].tolist() == [0, 10, 8, 18, 20, 28]
    assert got[2].tolist() == [8, 9, 0, 0, 0, 0, 0, 0]


def test_masks_in_token_order() -> None:
    mask = torch.zeros(2, LONG, dtype=torch.int64)
    mask[1, 18] = 7
    got = mask_to_tokens(mask, Shape(16, 4, 2, LONG))
    assert got.size == 2 * 32 and got.nonzero()[0].tolist() == [32 + 18] and got[50] == 1
