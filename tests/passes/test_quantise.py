# SPDX-License-Identifier: Apache-2.0
"""Quantisation: formats by consumer, shared residual formats, the smoothing search."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import (
    BATCH,
    SEQ,
    WIDTH,
    compile_model,
    compiled,
    named,
    rows,
    seeded,
)
from torch2fpga.lower.add import add
from torch2fpga.lower.attention import attention
from torch2fpga.lower.layer_norm import layer_norm
from torch2fpga.lower.linear import quantise_weight
from torch2fpga.lower.multiply import product_scale
from torch2fpga.passes.quantise import Format, demands, search_factor, search_smoothing

__all__ = ["seeded"]


def _formats(name: str) -> list[tuple[object, dict[str, Format]]]:
    canonical = compiled(name).origin.canonical
    assert canonical is not None
    return [(n.target, n.meta["formats"]) for n in canonical.graph.nodes if "formats" in n.meta]


@pytest.mark.parametrize(("name", "bits"), [("encoder_gelu", 16), ("encoder_pre", 24)])
def test_residuals(name: str, bits: int) -> None:
    """int16 between norms, 24 bits with one power-of-two scale where adds follow each other."""
    wide = [f["wide"] for target, f in _formats(name) if target is add]
    assert len(wide) == 4 and {f.bits for f in wide} == {bits}
    if bits == 24:
        scales = {float(s) for f in wide for s in f.scale}
        assert len(scales) == 1 and math.frexp(scales.pop())[0] == 0.5


@pytest.mark.parametrize("name", named("bert", "gpt2"))
def test_every_demand_has_its_format(name: str) -> None:
    canonical = compiled(name).origin.canonical
    assert canonical is not None
    for node in canonical.graph.nodes:
        for role in demands(node):
            fmt = node.meta["formats"][role]
            assert fmt.scale.shape == (node.meta["channels"],) and bool((fmt.scale > 0).all())
            assert fmt.bits == {"mac": 8, "attn": 8, "act": 24}.get(role, fmt.bits)
            assert fmt.dynamic == (role == "mac" and "activation" in str(node.target))


def test_query_and_key_scales_have_one_product_a_head() -> None:
    canonical = compiled("encoder").origin.canonical
    assert canonical is not None
    for node in canonical.graph.nodes:
        if node.target is attention:
            q, k = (n.meta["formats"]["attn"].scale for n in node.args[:2])
            product = (q * k).reshape(node.kwargs["heads"], -1)
            assert float((product / product[:, :1] - 1).abs().max()) < 1e-12


def test_norms_feed_static_int8() -> None:
    found = [f["mac"] for target, f in _formats("encoder") if target is layer_norm and "mac" in f]
    assert found and not any(f.dynamic or f.zero_point for f in found)


def test_smoothing_pays_where_a_channel_is_large() -> None:
    """One channel 300 times the others: the chosen scales differ, and the product is closer."""
    sample = rows(200, WIDTH)
    sample[:, 4] *= 300
    weights = rows(40, WIDTH)
    largest = sample.abs().amax(0).double()
    scale = search_smoothing(sample, largest, weights.abs().amax(0).double(), weights)

    def error(unit: Tensor) -> float:
        q = torch.floor(sample / unit.float() + 0.5).clamp(-127, 127)
        return float(((q * unit.float()) @ weights.t() - sample @ weights.t()).norm())

    assert scale.unique().numel() > 1
    assert error(scale) < 0.5 * error(torch.full_like(largest, float(largest.max()) / 127))


def test_no_smoothing_is_per_channel_largest_over_127() -> None:
    scale = search_smoothing(torch.ones(4, 3), *torch.ones(2, 3, dtype=torch.float64), torch.ones(2, 3))
    assert torch.allclose(scale, torch.full((3,), 1 / 127, dtype=torch.float64))


class _Zero(nn.Module):
    """A head whose weights are zero (as at the start of training): its bias is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 5)
        self.head.weight.data.zero_()
        self.head.bias.data = torch.tensor([-3.0, -0.5, 0.0, 0.25, 3.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def test_zero_weights_give_the_bias() -> None:
    x = rows(BATCH, SEQ, WIDTH)
    model = _Zero().eval()
    got = compile_model(model, (x,)).reference(x)
    assert float((got - model(x)).detach().abs().max()) < 1e-3


class _ZeroAct(nn.Module):
    """Zero weights before GELU, a bias beyond the table's range."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(WIDTH, 8), nn.Linear(8, 3)
        self.fc.weight.data.zero_()
        self.fc.bias.data.fill_(bias)
        self.out.weight.data.fill_(0.5)  # exact in int8: what is left is the error of the rows
        self.out.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.gelu(self.fc(x)))


@pytest.mark.parametrize("bias", [0.5, 3.0, 20.0])
def test_zero_weights_before_gelu(bias: float) -> None:
    x = rows(BATCH, SEQ, WIDTH)
    model = _ZeroAct(bias).eval()
    want = model(x).detach()
    got = compile_model(model, (x,)).reference(x)
    assert float((got - want).abs().max()) < 0.01 * float(want.abs().max())


def test_smoothing_of_a_product_pays_where_channels_differ() -> None:
    """One channel a hundred times the others: its scale goes into the factor, and rows keep their int8."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 40, generator=generator)
    rows[:, 3] *= 100
    weights = torch.randn(24, 40, generator=generator)
    weights[:, 3] /= 100
    largest, least = rows.abs().amax(0).double(), torch.full((40,), 2.0**-14, dtype=torch.float64)
    factor = search_factor(rows, largest, least, weights.abs().amax(0).double(), weights)
    assert bool((factor >= least * (1 - 1e-12)).all()), "the factor's own format must hold it"
    assert float(factor[3] / factor.median()) > 5

    def error(scale: torch.Tensor) -> float:
        units = rows / scale.float()
        unit = torch.exp2(torch.log2(units.abs().amax(1, keepdim=True) / 127).ceil().clamp(min=0))
        data, weight_scale = quantise_weight(weights, scale)
        product = (torch.floor(units / unit + 0.5) * unit) @ data.float().t() * weight_scale.float()
        return float((product - rows @ weights.t()).square().mean())

    assert error(product_scale(factor)) < error(product_scale(least)) / 20
