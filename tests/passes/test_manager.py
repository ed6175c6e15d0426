# SPDX-License-Identifier: Apache-2.0
"""The pass manager: order, verification, errors."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from torch2fpga.errors import DesignError, UnsupportedModel
from torch2fpga.passes.manager import GraphPass, PassManager


class _Pass(GraphPass):
    def __init__(self, name: str, requires: tuple[str, ...] = (), ensures: tuple[str, ...] = ()) -> None:
        self.name, self.requires, self.ensures = name, requires, ensures
        self.seen = 0

    def call(self, module: fx.GraphModule) -> bool:
        self.seen += 1
        return False


class _Breaks(_Pass):
    """Leaves a node behind that uses one which comes later."""

    def call(self, module: fx.GraphModule) -> bool:
        first, *_ = [n for n in module.graph.nodes if n.op == "call_module"]
        with module.graph.inserting_before(next(iter(module.graph.nodes))):
            module.graph.call_function(torch.relu, (first,))
        return True


class _Raises(_Pass):
    def __init__(self, error: Exception) -> None:
        super().__init__("raises")
        self.error = error

    def call(self, module: fx.GraphModule) -> bool:
        raise self.error


class _Lies(_Pass):
    def verify(self, module: fx.GraphModule) -> None:
        raise DesignError("the promise does not hold")


def _graph() -> fx.GraphModule:
    return fx.symbolic_trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))


def test_requirements_must_be_ensured_before() -> None:
    a, b = _Pass("a", ensures=("x",)), _Pass("b", requires=("x", "y"))
    with pytest.raises(DesignError, match=r"pass b needs \['y'\], which no pass before it ensures"):
        PassManager([a, b])
    with pytest.raises(DesignError, match="pass b needs"):
        PassManager([b, a], given=("y",))
    assert PassManager([a, b], given=("y",)).passes == (a, b)


def test_all_passes_run_in_order() -> None:
    said: list[tuple[str, float]] = []
    passes = [_Pass("a"), _Pass("b")]
    module = _graph()
    manager = PassManager(passes, progress=lambda name, part: said.append((name, part)))
    assert manager.run(module) is module
    assert [p.seen for p in passes] == [1, 1] and said == [("a", 0.0), ("b", 0.5)]


def test_a_broken_graph_names_the_pass() -> None:
    with pytest.raises(DesignError, match=r"pass breaks failed after \['a'\]"):
        PassManager([_Pass("a"), _Breaks("breaks")]).run(_graph())


def test_other_errors_name_the_pass() -> None:
    with pytest.raises(DesignError, match=r"pass raises failed after \[\]: oops"):
        PassManager([_Raises(ValueError("oops"))]).run(_graph())


def test_own_errors_pass_through() -> None:
    error = UnsupportedModel([])
    with pytest.raises(UnsupportedModel) as found:
        PassManager([_Raises(error)]).run(_graph())
    assert found.value is error


def test_promises_are_checked() -> None:
    with pytest.raises(DesignError, match="the promise does not hold"):
        PassManager([_Lies("lies")]).run(_graph())
