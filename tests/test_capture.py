# SPDX-License-Identifier: Apache-2.0
"""Capture: what cannot be captured is refused with the reason, inputs and outputs keep their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import WIDTH, bert, distilbert, encoder, gpt2, histogram, ids, mlp, padding, rows
from torch2fpga.capture import capture
from torch2fpga.errors import CaptureError

X = rows(2, 5, 10)


class _Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.fc, self.function = nn.Linear(10, 4), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.fc(x))


def _error(model: Any, inputs: Any) -> str:
    with pytest.raises(CaptureError) as error:
        capture(model, inputs)
    return str(error.value)


@pytest.mark.parametrize("inputs", [(), {}, []])
def test_no_inputs(inputs: Any) -> None:
    assert "there are no example inputs" in _error(mlp().eval(), inputs)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ((3,), "example input number 0 is a int"),
        (([1.0, 2.0],), "example input number 0 is a list"),
        ({"input": None}, "example input input is a NoneType"),
        (("text",), "example input number 0 is a str"),
    ],
)
def test_inputs_that_are_no_tensors(inputs: Any, text: str) -> None:
    assert text in _error(mlp().eval(), inputs)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"wrong": X}, "wrong"),
        ({"input": X, "more": X}, "more"),
        ((X, X), "(2, 5, 10)"),
        ((rows(2, 5, 11),), "(2, 5, 11)"),
        ((X.long(),), "RuntimeError"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, text: str) -> None:
    message = _error(mlp().eval(), inputs)
    assert "does not run on the example inputs" in message and text in message


def test_no_module() -> None:
    assert "expected a torch.nn.Module, got function" in _error(lambda x: x, (X,))


def test_dropout_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.Sequential(nn.Dropout(0.1)))
    assert "1.0 is in training mode (Dropout is active); call model.eval() first" in _error(model, (X,))


def test_attention_dropout_in_training_mode() -> None:
    attention = nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True)
    assert "training mode" in _error(nn.Sequential(attention), (rows(2, 5, 12),))


def test_batch_norm_in_training_mode() -> None:
    assert "training mode (BatchNorm1d" in _error(nn.Sequential(nn.BatchNorm1d(10)), (rows(4, 10),))


def test_training_mode_without_dropout_is_kept() -> None:
    """Nothing depends on the mode: captured, and left as it was."""
    model = mlp().train()
    assert histogram(capture(model, (X,)).module.graph)["linear.default"] == 3
    assert model.training and all(m.training for m in model.modules())


def test_a_submodule_keeps_its_own_mode() -> None:
    model = mlp().train()
    model[1].eval()
    capture(model, (X,))
    assert [m.training for m in model] == [True, False, True, True, True]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_weights_that_are_not_finite(value: float) -> None:
    model = mlp().eval()
    model[2].weight.data[3, 5] = value
    assert "2.weight holds values that are not finite" in _error(model, (X,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    message = _error(mlp().eval().to(dtype), (X.to(dtype),))
    assert f"0.weight is {dtype}; convert the model first: model.float()" in message


def test_data_dependent_control_flow() -> None:
    model = _Function(lambda x: x if x.sum() > 0 else -x)
    message = _error(model.eval(), (X,))
    assert "torch.export cannot capture the model (data-dependent control flow" in message


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (lambda x: None, "the model returns NoneType"),
        (lambda x: 3, "the model returns int"),
        (lambda x: (x, None), "the model returns tuple"),
        (lambda x: {"a": (x, x)}, "the model returns dict"),
        (lambda x: {}, "the model returns dict"),
        (lambda x: (), "the model returns tuple"),
        (lambda x: [], "the model returns list"),
    ],
)
def test_outputs_that_are_no_tensors(output: Any, text: str) -> None:
    message = _error(_Function(output).eval(), (X,))
    assert text in message and "expected a tensor" in message


@pytest.mark.parametrize(
    ("output", "kind", "names"),
    [
        (lambda x: x, "tensor", ()),
        (lambda x: (x, x * 2), "tuple", ()),
        (lambda x: [x], "list", ()),
        (lambda x: {"b": x, "a": x * 2, "none": None}, "dict", ("b", "a")),
    ],
)
def test_output_structure(output: Any, kind: str, names: tuple[str, ...]) -> None:
    captured = capture(_Function(output).eval(), (X,))
    assert (captured.output.kind, captured.output.names) == (kind, names)
    built = captured.output.build(captured.expected)
    assert type(built).__name__ == {"tensor": "Tensor"}.get(kind, kind)


def test_names_come_from_the_signature() -> None:
    class Model(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return left + right

    class Any_(nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return tensors[0] + tensors[1]

    assert capture(Model(), (X, X)).names == ["left", "right"]
    assert capture(Any_(), (X, X)).names == ["input_0", "input_1"]
    assert capture(Model(), {"right": X, "left": X}).names == ["right", "left"]


@pytest.mark.hf
@pytest.mark.parametrize("make", [bert, gpt2, distilbert])
def test_transformers_models(make: Any) -> None:
    """No cache in the outputs, one operator an operator: nothing is decomposed."""
    captured = capture(make().eval(), {"input_ids": ids(), "attention_mask": padding()})
    assert captured.output.kind == "model_output" and "past_key_values" not in captured.output.names
    found = histogram(captured.module.graph)
    assert found["scaled_dot_product_attention.default"] == 2
    assert found["layer_norm.default"] == (4 if make is distilbert else 5) + (make is distilbert)
    placeholders = [n.name for n in captured.module.graph.nodes if n.op == "placeholder"]
    assert placeholders == ["input_ids", "attention_mask"]


def test_transformer_encoder_keeps_its_paths() -> None:
    captured = capture(encoder(batch_first=True).eval(), (rows(2, 5, WIDTH),))
    paths = {
        stack_path
        for node in captured.module.graph.nodes
        for stack_path, _ in (node.meta.get("nn_module_stack") or {}).values()
    }
    assert any(p.endswith("layers.1.linear2") for p in paths)
