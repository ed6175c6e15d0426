# SPDX-License-Identifier: Apache-2.0
"""FIFO cutting: no cycle lost, no deadlock at other sizes, the project carries the new depths."""

from __future__ import annotations

import re
from functools import lru_cache

import pytest

from tests.timing.models import long_bert, timed
from tests.tiny import compiled, cxx_cache, seeded
from torch2fpga.design import Design, Shape, Stream, ceil_div
from torch2fpga.emit.project import project_files
from torch2fpga.plan.storage import fifo_cost, whole_tensor
from torch2fpga.timing.fifos import FifoReport, cheaper, default_sizes
from torch2fpga.timing.inputs import random_inputs

__all__ = ["cxx_cache", "seeded"]


@lru_cache
def cut() -> FifoReport:
    return long_bert().shrink_fifos()


@pytest.mark.gxx
def test_no_cycle_is_lost() -> None:
    report = cut()
    assert len(report.cycles) >= 4
    assert all(before == after for before, after in report.cycles.values())
    assert report.bytes("depth") < report.bytes("computed") < report.bytes("whole_tensor")
    for stream in report.streams:
        assert 2 <= stream.depth <= max(2, stream.computed), stream


@pytest.mark.gxx
def test_the_cut_model_runs_at_every_length_and_stays_exact() -> None:
    model = cut().model
    s = model.design.shape
    for batch in (1, s.max_batch):
        for seq in range(1, s.max_seq + 1):
            assert timed(model, batch, seq).deadlock is None, (batch, seq)
    assert model.verify(**random_inputs(model, s.max_batch, s.max_seq)).bit_exact


@pytest.mark.gxx
def test_cheaper_storage_costs_cycles_or_deadlocks() -> None:
    """What is more than shift registers needs it: one step cheaper loses cycles at some size."""
    report = cut()
    tried = 0
    for stream in report.streams:
        for depth in cheaper(stream.depth, stream.token_bytes)[-1:]:
            tried += 1
            assert any(
                other.deadlock is not None or other.cycles > after
                for size, (_, after) in report.cycles.items()
                for other in [timed(report.model, *size, {stream.name: depth})]
            ), stream
    assert tried


@pytest.mark.gxx
def test_the_project_carries_the_depths() -> None:
    report = cut()
    text = "\n".join(project_files(report.model).values())
    for stream in report.streams:
        (depth,) = {int(d) for d in re.findall(rf", (\d+)> {stream.name}\(", text)}
        assert depth == stream.depth


@pytest.mark.gxx
def test_a_loss_may_be_allowed() -> None:
    loose = long_bert().shrink_fifos(loss=0.5)
    assert loose.bytes("depth") <= cut().bytes("depth")
    for before, after in loose.cycles.values():
        assert after <= before * 1.5


def test_a_loss_is_a_share() -> None:
    with pytest.raises(ValueError, match="share of the cycles"):
        long_bert().shrink_fifos(loss=2)


def test_sizes_are_awkward_and_allowed() -> None:
    design = compiled("bert", 8, 4).design
    sizes = default_sizes(design)
    s = design.shape
    assert (1, s.max_seq) in sizes and (s.max_batch, s.max_seq) in sizes and (1, 1) in sizes
    assert all(1 <= b <= s.max_batch and 1 <= n <= s.max_seq for b, n in sizes)


@pytest.mark.parametrize(
    ("depth", "token", "lut", "bram", "uram"),
    [
        (2, 64, 512, 0, 0),
        (32, 16, 128, 0, 0),
        (33, 1, 16, 0, 0),  # 264 bits stay in shift registers: two for each bit
        (512, 8, 0, 2, 0),
        (513, 8, 0, 4, 0),
        (2048, 1, 0, 1, 0),
        (4096, 64, 0, 0, 8),
        (4097, 64, 0, 0, 16),
    ],
)
def test_cost_by_hand(depth: int, token: int, lut: int, bram: int, uram: int) -> None:
    cost = fifo_cost(depth, token)
    assert (cost.lut, cost.bram18, cost.uram) == (lut, bram, uram)


def test_whole_tensors_by_hand() -> None:
    from torch2fpga.design import Layout

    design = Design("d", Shape(8, 4, 2, 19), (), {})
    rows = Stream("r", "rows", layout=Layout(1, 21), depth=16)
    scores = Stream("s", "scores", "int32", Layout(3, 7), depth=16)
    words = Stream("w", "words", depth=2)
    assert whole_tensor(design, rows) == 2 * 19 * 3
    assert whole_tensor(design, scores) == 2 * 19 * 3 * ceil_div(19, 8)
    assert whole_tensor(design, words) == 2
