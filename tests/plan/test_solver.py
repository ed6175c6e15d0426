# SPDX-License-Identifier: Apache-2.0
"""The mixed-integer programme: a knapsack against all subsets, infeasible rows, fixed variables."""

from __future__ import annotations

import itertools
import random

import pytest

from torch2fpga.plan.solver import Programme


def test_knapsack_equals_all_subsets() -> None:
    rng = random.Random(3)
    for _ in range(10):
        items = [(rng.randint(1, 20), rng.randint(1, 30)) for _ in range(9)]
        p = Programme()
        for i, (_, worth) in enumerate(items):
            p.cost(p.binary(i), -worth)
        p.row({i: float(size) for i, (size, _) in enumerate(items)}, upper=40.0)
        found = p.solve(gap=0.0)
        best = max(
            sum(items[i][1] for i in chosen)
            for n in range(len(items) + 1)
            for chosen in itertools.combinations(range(len(items)), n)
            if sum(items[i][0] for i in chosen) <= 40
        )
        assert found is not None
        assert round(-found.objective) == best
        assert sum(items[i][1] for i in range(9) if found.chosen(i)) == best


def test_no_solution() -> None:
    p = Programme()
    p.variable("x", 0.0, 1.0)
    p.row({"x": 1.0}, lower=2.0)
    assert p.solve() is None


def test_fixed_variables_keep_their_value_and_keys_are_unique() -> None:
    p = Programme()
    p.cost(p.binary("x"), 1.0)
    p.fix("x", 1.0)
    found = p.solve()
    assert found is not None
    assert found.chosen("x")
    with pytest.raises(ValueError, match="there already"):
        p.binary("x")
