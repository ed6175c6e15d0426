# SPDX-License-Identifier: Apache-2.0
"""A mixed-integer linear programme in terms of named variables, solved by HiGHS (``scipy.optimize.milp``).

HiGHS is deterministic as long as no limit of time ends it: limits here are nodes and gaps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: any hashable value names a variable
Key = Any
Terms = Mapping[Key, float]


@contextmanager
def _silent() -> Iterator[None]:
    """Nothing reaches the process's standard output: HiGHS writes a line there, whatever it is told,
    each time it repairs a solution, and the output may be somebody's JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


@dataclass(frozen=True)
class Solution:
    """Values of all variables.

    Attributes:
        objective: of the values.
        bound: no solution is better than this.
    """

    values: Mapping[Key, float]
    objective: float
    bound: float

    def __getitem__(self, key: Key) -> float:
        return self.values[key]

    def chosen(self, key: Key) -> bool:
        """A binary variable is one."""
        return self.values[key] > 0.5


@dataclass
class Programme:
    """Variables, rows and an objective to minimise; built up, then solved."""

    _lower: list[float] = field(default_factory=list)
    _upper: list[float] = field(default_factory=list)
    _integer: list[int] = field(default_factory=list)
    _column: dict[Key, int] = field(default_factory=dict)
    _rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)
    _cost: dict[int, float] = field(default_factory=dict)

    def variable(
        self, key: Key, lower: float = 0.0, upper: float = float("inf"), integer: bool = False
    ) -> Key:
        """Declare a variable; returns its key."""
        if key in self._column:
            raise ValueError(f"variable {key!r} is there already")
        self._column[key] = len(self._lower)
        self._lower.append(lower)
        self._upper.append(upper)
        self._integer.append(int(integer))
        return key

    def binary(self, key: Key) -> Key:
        """Declare a variable that is 0 or 1."""
        return self.variable(key, 0.0, 1.0, True)

    def fix(self, key: Key, value: float) -> None:
        """Give a variable its value."""
        column = self._column[key]
        self._lower[column] = self._upper[column] = value

    def row(self, terms: Terms, lower: float = -float("inf"), upper: float = float("inf")) -> None:
        """``lower <= sum of coefficient * variable <= upper``."""
        self._rows.append(({self._column[k]: c for k, c in terms.items()}, lower, upper))

    def cost(self, key: Key, coefficient: float) -> None:
        """Add to a variable's coefficient in the objective."""
        column = self._column[key]
        self._cost[column] = self._cost.get(column, 0.0) + coefficient

    def solve(self, gap: float = 1e-4, nodes: int = 20_000) -> Solution | None:
        """The best values, or None if there are none.

        Args:
            gap: relative distance to the bound at which the search ends.
            nodes: of the search tree, after which the best one found is taken.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        count = len(self._lower)
        objective = np.zeros(count)
        for column, value in self._cost.items():
            objective[column] = value
        row, column_of, value_of = [], [], []
        for number, (terms, _, _) in enumerate(self._rows):
            for column, value in terms.items():
                row.append(number)
                column_of.append(column)
                value_of.append(value)
        matrix = csr_array((value_of, (row, column_of)), shape=(len(self._rows), count))
        limits = LinearConstraint(matrix, [r[1] for r in self._rows], [r[2] for r in self._rows])
        with _silent():
            result = milp(
                objective,
                integrality=np.array(self._integer),
                bounds=Bounds(np.array(self._lower), np.array(self._upper)),
                constraints=limits,
                options={"mip_rel_gap": gap, "node_limit": nodes},
            )
        if result.x is None:
            return None
        values = {key: float(result.x[column]) for key, column in self._column.items()}
        bound = result.mip_dual_bound if result.mip_dual_bound is not None else result.fun
        return Solution(values, float(result.fun), float(bound))
