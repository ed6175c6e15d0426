# SPDX-License-Identifier: Apache-2.0
"""The memory port model against the published bandwidth of one HBM pseudo-channel."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from benchmarks import memory_model
from benchmarks.memory_model import FITTED, PUBLISHED, SIZES, TOLERANCE, Point
from tests.tiny import cxx_cache
from torch2fpga.boards import U280

__all__ = ["cxx_cache"]
pytestmark = pytest.mark.gxx


@lru_cache
def points() -> dict[tuple[str, int], Point]:
    return {(p.pattern, p.size): p for p in memory_model.points()}


@pytest.mark.parametrize("pattern", PUBLISHED)
@pytest.mark.parametrize("size", SIZES)
def test_published_bandwidth(pattern: str, size: int) -> None:
    point = points()[pattern, size]
    bound = 0.5 if (pattern, size) in FITTED else TOLERANCE
    assert abs(point.error) <= bound, f"published {point.published} GB/s, modelled {point.modelled:.2f}"


@pytest.mark.parametrize(
    ("constant", "pattern"),
    [("sequential_gbs", "sequential"), ("row_ns", "random1"), ("cross_ns", "random4")],
)
def test_each_constant_matters(constant: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth off in any of the three and its row of the table is missed."""
    hbm = U280.hbm
    wrong = replace(hbm, **{constant: getattr(hbm, constant) * 0.8})
    monkeypatch.setattr(memory_model, "U280", replace(U280, hbm=wrong))
    generator = memory_model.Generator()
    assert abs(generator.gbs(pattern, 64) / PUBLISHED[pattern][0] - 1) > TOLERANCE / 100
