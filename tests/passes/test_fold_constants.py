# SPDX-License-Identifier: Apache-2.0
"""What depends on no input and no parameter becomes a constant; everything else stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import bert, gpt2, histogram, ids, rows
from torch2fpga.capture import capture
from torch2fpga.errors import DesignError
from torch2fpga.passes.drop_noops import DropNoops
from torch2fpga.passes.fold_constants import FoldConstants, attribute
from torch2fpga.passes.manager import PassManager


class _Model(nn.Module):
    """A mask from arange, a parameter, a buffer that is not saved, an input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows(5))
        self.register_buffer("table", torch.arange(5.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = (torch.arange(5)[:, None] >= torch.arange(5)[None]).float() * 2 - self.table
        return x @ mask + torch.exp(self.weight)


def test_folds_to_the_boundary() -> None:
    model, x = _Model(), rows(3, 5)
    module = capture(model, (x,)).module
    before = histogram(module.graph)
    module = PassManager([DropNoops(), FoldConstants()], given=("functional",)).run(module)
    after = histogram(module.graph)
    assert before["arange.default" if "arange.default" in before else "arange.start"] >= 1
    assert after == {"matmul.default": 1, "exp.default": 1, "add.Tensor": 1}, before
    assert torch.equal(module(x)[0], model(x))
    folded = attribute(module, "_const_0")
    assert torch.equal(folded, torch.ones(5, 5).tril() * 2 - torch.arange(5.0))


def test_the_same_value_for_two_readers_is_kept_once() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = torch.arange(5.0) + 1
            return (x + value) * value

    module = PassManager([FoldConstants()], given=("functional",)).run(capture(Model(), (rows(3, 5),)).module)
    assert [n.target for n in module.graph.nodes if n.op == "get_attr"] == ["_const_0"]


def test_random_numbers_are_not_folded() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(5)

    module = PassManager([FoldConstants()], given=("functional",)).run(capture(Model(), (rows(3, 5),)).module)
    assert "rand.default" in histogram(module.graph)


def test_a_missing_attribute_is_a_defect() -> None:
    module = capture(_Model(), (rows(3, 5),)).module
    node = next(n for n in module.graph.nodes if n.op == "get_attr")
    node.target = "nowhere"
    with pytest.raises(DesignError, match="fold_constants left nowhere without a value"):
        FoldConstants().verify(module)


@pytest.mark.hf
@pytest.mark.parametrize("make", [bert, gpt2])
def test_transformers_masks_and_positions_fold(make: object) -> None:
    """Without an attention mask nothing but the model's own operators is left."""
    model = make().eval()  # type: ignore[operator]
    module = capture(model, {"input_ids": ids()}).module
    passes = [DropNoops(), FoldConstants(), DropNoops()]
    found = histogram(PassManager(passes, given=("functional",)).run(module).graph)
    assert not {
        k for k in found if k.split(".")[0] in ("arange", "le", "cumsum", "where", "full", "index", "eq")
    }
    assert found["embedding.default"] == (3 if make is bert else 2)
