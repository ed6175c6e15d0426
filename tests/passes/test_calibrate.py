# SPDX-License-Identifier: Apache-2.0
"""Calibration: what is seen, what is kept, padding left out; the number of inputs is reported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.tiny import (
    BATCH,
    SEQ,
    WIDTH,
    build,
    calibration,
    mlp,
    rows,
    seeded,
)
from torch2fpga.passes import calibrate
from torch2fpga.passes.calibrate import Statistics

__all__ = ["seeded"]

X = (rows(BATCH, SEQ, 10),)


@pytest.mark.parametrize(("count", "text"), [(0, "no inputs"), (3, "3 inputs")])
def test_few_inputs_are_a_warning_and_a_note(count: int, text: str) -> None:
    with pytest.warns(UserWarning, match=f"calibrated on {text} beside the example; give at least 8"):
        model = torch2fpga.compile(mlp().eval(), X, calibration=calibration(X, count))
    assert model.origin.calibration_samples == count + 1
    assert any(text in note for note in model.origin.notes)


def test_enough_inputs_are_no_warning() -> None:
    model = torch2fpga.compile(mlp().eval(), X, calibration=iter(calibration(X, 8)))
    assert model.origin.calibration_samples == 8 and not model.origin.notes


def test_shorter_inputs_calibrate_too() -> None:
    samples = [(rows(1 + i % BATCH, 1 + i % SEQ, 10),) for i in range(8)]
    assert torch2fpga.compile(mlp().eval(), X, calibration=samples).origin.calibration_samples == 8


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ({"other": X[0]}, "calibration input 0 lacks ['input']"),
        (("text",), "is a str"),
        ((), "no example inputs"),
        ((rows(BATCH, SEQ, 11),), "calibration input 0"),
        ((X[0], X[0]), "calibration input 0"),
    ],
)
def test_wrong_inputs(sample: object, text: str) -> None:
    with pytest.raises(torch2fpga.Error) as error:
        torch2fpga.compile(mlp().eval(), X, calibration=[sample] * 8)  # type: ignore[list-item]
    assert text in str(error.value)


def test_values_that_are_not_finite_are_refused() -> None:
    bad = X[0].clone()
    bad[0, 0, 0] = float("nan")
    with pytest.raises(torch2fpga.Error, match="finite"):
        torch2fpga.compile(mlp().eval(), X, calibration=[(bad,)] * 8)


def test_statistics_hold_rows_within_the_budget() -> None:
    seen = Statistics(torch.ones(3), [rows(4, 3), rows(2, 3)])
    assert seen.sample().shape == (6, 3)
    assert calibrate.SAMPLE_ROWS >= 256


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


def test_ranges_follow_the_calibration_inputs() -> None:
    """Inputs eight times as large give a residual format eight times as coarse."""
    x = (rows(BATCH, SEQ, WIDTH),)
    scales = []
    seen, scaled = calibration(x, 8), _Scaled().eval()
    for factor in (1, 8):
        samples = [(s[0] * factor,) for s in seen]  # type: ignore[index]
        model = torch2fpga.compile(scaled, x, calibration=samples)
        scales.append(float(model.interface.outputs[0].scale[0]))
    assert scales[1] == 8 * scales[0]


@pytest.mark.hf
def test_padding_does_not_count() -> None:
    """What stands behind the mask changes no scale."""
    model, inputs = build("bert")
    assert isinstance(inputs, dict)
    sets = []
    for fill in (1, 99):
        samples = [dict(s) for s in calibration(inputs, 8)]  # type: ignore[call-overload]
        for sample in samples:
            sample["input_ids"] = sample["input_ids"].masked_fill(inputs["attention_mask"] == 0, fill)
        sets.append(torch2fpga.compile(model, inputs, calibration=samples))
    a, b = (m.images for m in sets)
    assert a == b
