# SPDX-License-Identifier: Apache-2.0
"""The public surface: unusual but right models, options, determinism, what is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.tiny import (
    BATCH,
    SEQ,
    WIDTH,
    Inputs,
    Inside,
    build,
    calibration,
    compile_model,
    cxx_cache,
    encoder,
    exact,
    float_error,
    gpt2,
    ids,
    lowered,
    mlp,
    named,
    refused,
    rows,
    run,
    same,
    seeded,
    tensors_of,
)
from torch2fpga.emit.images import images
from torch2fpga.lower.linear import linear
from torch2fpga.simulate.functional import functional_sources

__all__ = ["cxx_cache", "seeded"]
X = (rows(BATCH, SEQ, WIDTH),)


class _Forward(nn.Module):
    """Two linears ``a`` and ``b`` and a forward function of the module and its inputs."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.do = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self.do(self, *inputs)


#: unusual wiring that must be right
RIGHT: dict[str, Callable[..., Any]] = {
    "shared module twice": lambda m, x: m.a(torch.relu(m.a(x))),
    "shared module on two values": lambda m, x: m.a(x) + m.a(torch.tanh(m.norm(x))),
    "two outputs": lambda m, x: (m.a(x), m.b(x)),
    "the same output twice": lambda m, x: (y := m.a(x), y),
    "output and intermediate": lambda m, x: {"last": m.b(y := m.a(x)), "first": y},
    "residual around two": lambda m, x: x + m.b(torch.relu(m.a(x))),
    "input to five readers": lambda m, x: m.a(x) + m.b(x) + x + torch.tanh(m.norm(x)) + m.norm(x),
    "norm without affine": lambda m, x: nn.functional.layer_norm(m.a(x), (WIDTH,)),
    "positions added": lambda m, x: m.a(x) + m.b.weight[:SEQ],
    "one row": lambda m, x: m.b(torch.tanh(m.a(x[:, 0]))),
    "row and rows": lambda m, x: (m.a(x)[:, 2], m.b(x)),
    "joined": lambda m, x: torch.cat((m.a(x), torch.tanh(m.norm(x))), -1),
    "relu table": lambda m, x: m.b(torch.relu(m.norm(x))),
    "head views": lambda m, x: m.a(x).reshape(BATCH, SEQ, 3, 7).transpose(1, 2),
}


@pytest.mark.gxx
@pytest.mark.parametrize("group", [list(RIGHT)[i::4] for i in range(4)], ids=lambda g: "; ".join(g))
def test_unusual_wiring_is_right(group: list[str]) -> None:
    """Several models at once, as branches of one, so that g++ runs once for them."""

    def forward(m: nn.Module, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name in group:
            result = RIGHT[name](m, x)
            found.update({f"{name} {i}": part for i, part in enumerate(tensors_of(result))})
        return found

    model = _Forward(forward).eval()
    assert float_error(model, X) <= 1e-5
    made = compile_model(model, X)
    exact(made, X, cosine=0.999)
    got, want = made(*X), model(*X)
    assert list(got) == list(want) and all(got[k].shape == want[k].shape for k in want)


@pytest.mark.gxx
def test_two_inputs_by_position_and_by_name() -> None:
    made = compile_model(_Two().eval(), (rows(BATCH, SEQ, WIDTH), rows(BATCH, SEQ, WIDTH) * 2))
    left, right = rows(BATCH, SEQ, WIDTH), rows(BATCH, SEQ, WIDTH).flip(0)
    assert torch.equal(made(left, right), made(right=right, left=left))
    assert torch.equal(made(left, right=right), made(left, right))
    assert not torch.equal(made(left, right), made(right, left))


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(left) + torch.tanh(self.other(right))


@pytest.mark.gxx
@pytest.mark.parametrize(
    "function",
    [lambda m, x: m.a(torch.tanh(x)), lambda m, x: m.a(x) + m.b(torch.relu(x))],
    ids=["only", "beside a linear"],
)
def test_activation_of_an_input(function: Callable[..., Tensor]) -> None:
    exact(compile_model(_Forward(function), X), X, cosine=0.999)


class _Blocks(nn.Module):
    def __init__(self, blocks: list[nn.Module], skip: bool = False) -> None:
        super().__init__()
        self.blocks, self.skip = nn.ModuleList(blocks), skip

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y)
        return x + y if self.skip else y


def _block(act: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), act)


@pytest.mark.gxx
@pytest.mark.parametrize("skip", [False, True])
def test_loop_of_plain_blocks(skip: bool) -> None:
    """A skip over the whole loop waits for all layers: its FIFO must hold the launch."""
    x = (rows(3, 33, WIDTH),)
    model = _Blocks([nn.Linear(WIDTH, WIDTH) for _ in range(3)], skip)
    made = compile_model(model, x, tile=2)
    assert made.design.steps == 3
    exact(made, x, cosine=0.999)


@pytest.mark.gxx
def test_layers_that_are_one_module() -> None:
    """A block used twice is one block with two uses, not two layers."""
    block = _block(nn.ReLU())
    model = _Blocks([block, block]).eval()
    made = compile_model(model, X)
    exact(made, X, cosine=0.999)


@pytest.mark.gxx
def test_blocks_that_end_in_a_table() -> None:
    made = compile_model(_Blocks([_block(nn.GELU()), _block(nn.GELU())]).eval(), X)
    exact(made, X, cosine=0.999)


def test_tied_weights_are_one_parameter() -> None:
    pytest.importorskip("transformers")
    model = gpt2()
    made = compile_model(model, {"input_ids": ids()})
    assert made.origin.parameters == sum(p.numel() for p in model.parameters())


def test_buffers_that_are_not_saved() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(WIDTH, 4)
            self.register_buffer("rows", rows(SEQ, WIDTH), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(x) + self.rows)

    assert float_error(Model(), X) <= 1e-5


def test_linear_without_bias_has_no_bias() -> None:
    module, _ = lowered(nn.Sequential(nn.Linear(WIDTH, 4, bias=False)), X)
    (node,) = [n for n in module.graph.nodes if n.target is linear]
    assert len(node.args) == 2


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = build("encoder")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compile_model(model, inputs)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training


UNUSED = {
    "ids": (lambda x, i: x, (rows(BATCH, SEQ, WIDTH), ids())),
    "rows": (lambda x, y: x, (rows(BATCH, SEQ, WIDTH), rows(BATCH, SEQ, WIDTH))),
}


@pytest.mark.gxx
@pytest.mark.parametrize(
    "kind",
    [
        "ids",
        "rows",
    ],
)
def test_an_input_that_is_not_used(kind: str) -> None:
    """Right, or refused with a reason; not a crash."""
    function, inputs = UNUSED[kind]
    model = _Forward(lambda m, *a: m.a(function(*a)))
    try:
        made = compile_model(model, inputs)
    except torch2fpga.Error:
        return
    exact(made, inputs, cosine=0.999)


@pytest.mark.gxx
def test_the_input_as_output() -> None:
    model = _Forward(lambda m, x: (x, m.a(x)))
    try:
        made = compile_model(model, X)
    except torch2fpga.Error:
        return
    exact(made, X, cosine=0.999)


@pytest.mark.gxx
def test_a_row_behind_the_end_of_a_shorter_input() -> None:
    """A model that asks for row 4 has none in a shorter call (one that asks for the last row has)."""
    made = compile_model(_Forward(lambda m, x: m.a(x)[:, SEQ - 1]), X)
    exact(made, X, cosine=0.999)
    with pytest.raises(torch2fpga.InputError):
        made(rows(BATCH, SEQ - 1, WIDTH))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_constants_that_are_not_finite(value: float) -> None:
    model = _Forward(lambda m, x: torch.tanh(m.a(x)) + torch.full((WIDTH,), value))
    with pytest.raises(torch2fpga.CompileError):
        compile_model(model, X)


def test_bfloat16_inside_is_refused() -> None:
    refused(Inside(lambda x: torch.relu(x.bfloat16()).float()), X, "part", "use a float32 model")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lanes": 4}, "lanes must be 8 or 16"),
        ({"lanes": 12}, "lanes must be 8 or 16"),
        ({"tile": -1}, "tile is -1; allowed is a whole number from 0 to 64"),
        ({"budget": 2.0}, "budget is 2.0; allowed is a number from 0.01 to 1"),
        ({"objective": "size"}, "objective is 'size'; allowed is one of 'latency', 'throughput'"),
        ({"precision": "w2a8"}, "'w2a8' is not supported; use one of ['w8a8', 'w4a8']"),
        ({"precision": "w4a8"}, "lanes must be 16 for precision 'w4a8', not 8"),
        ({"board": "u9999"}, "u9999"),
    ],
)
def test_options(options: dict[str, Any], text: str) -> None:
    with pytest.raises(torch2fpga.CompileError) as error:
        compile_model(mlp(), (rows(BATCH, SEQ, 10),), **options)
    assert text in str(error.value)


def test_progress_only_goes_up() -> None:
    said: list[tuple[str, float]] = []
    compile_model(mlp(), (rows(BATCH, SEQ, 10),), progress=lambda name, part: said.append((name, part)))
    parts = [p for _, p in said]
    assert said[0][0] == "capture" and said[-1] == ("done", 1.0)
    assert parts == sorted(parts) and len(said) > 5


@pytest.mark.parametrize("name", named("encoder_gelu", "bert"))
def test_two_compiles_give_the_same_bytes(name: str) -> None:
    a, b = (compile_model(*build(name)) for _ in range(2))
    assert functional_sources(a.design) == functional_sources(b.design)
    assert images(a.design, a.data) == images(b.design, b.data)
    assert a.design == b.design


def test_weights_do_not_change_the_sources() -> None:
    """Everything that training changes is data: the compiled library is shared."""
    model, inputs = build("encoder")
    before = compile_model(model, inputs)
    for parameter in model.parameters():
        parameter.data *= 1.25
    after = compile_model(model, inputs)
    assert functional_sources(before.design) == functional_sources(after.design)
    assert images(before.design, before.data) != images(after.design, after.data)


@pytest.mark.gxx
def test_names_of_the_model_are_made_harmless() -> None:
    """Identifiers and comments come from module names; none may break the C++."""
    evil = {
        "int": nn.Linear(WIDTH, WIDTH),
        "größe": nn.ReLU(),
        "__FILE__": nn.Linear(WIDTH, 4),
        "EOF": nn.Tanh(),
        "Design": nn.Linear(4, 4),
    }
    model = nn.Sequential()
    for name, module in evil.items():
        model.add_module(name, module)
    made = compile_model(model, X)
    assert "".join(functional_sources(made.design).values()).isascii()
    exact(made, X, cosine=0.999)


@pytest.mark.parametrize("name", ["x*/int y;", "a b", "$(rm)", "tab<td>"])
def test_strange_names_are_captured(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(WIDTH, 4))
    assert torch2fpga.explain(model.eval(), X).ok


@pytest.mark.parametrize("name", ["it's", 'a"b', "\\", "new\nline"])
def test_names_that_cannot_be_captured_are_told(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(WIDTH, 4))
    with pytest.raises(torch2fpga.CaptureError, match="export cannot capture"):
        compile_model(model, X)


@pytest.mark.gxx
def test_reference_and_call_agree_on_other_inputs() -> None:
    model, inputs = build("encoder")
    made = compile_model(model, inputs)
    for other in calibration(inputs, 2):
        assert same(run(made, other), run(made.reference, other))


def test_encoder_with_padding_mask_is_right_or_refused() -> None:
    """torch's own masks say where padding is, not where tokens are."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder(1, batch_first=True)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.encoder(x, src_key_padding_mask=mask)

    mask = torch.zeros(BATCH, SEQ, dtype=torch.bool)
    mask[1, 3:] = True
    inputs: Inputs = (*X, mask)
    try:
        error = float_error(Model(), inputs)
    except torch2fpga.UnsupportedModel as refusal:
        assert "mask" in str(refusal)
    else:
        assert error <= 1e-5
