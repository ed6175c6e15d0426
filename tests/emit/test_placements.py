# SPDX-License-Identifier: Apache-2.0
"""Stages in any SLR: the kernels still compute the same, run without a deadlock, and lose no cycle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emit.projects import SANITIZERS, make, write
from tests.plan.placements import elsewhere
from tests.tiny import HF, build, compiled, cxx_cache, exact, run, same, seeded
from torch2fpga.emit.check import check_project
from torch2fpga.emit.project import project_files
from torch2fpga.simulate.verify import VALUES

__all__ = ["cxx_cache", "seeded"]

QUICK = [("mlp3d", 1), ("encoder", 2)]
SLOW = [("bert", 1), ("gpt2_mask", 2), ("bert_types", 3), ("gpt2_long", 5), ("encoder_swapped_pre", 4)]


def _cases(*cases: tuple[str, int], slow: bool = False) -> list[object]:
    """Pytest parameters with the markers that a model needs."""
    found = []
    for name, seed in cases:
        marks = [pytest.mark.hf] * (name in HF) + [pytest.mark.slow] * slow
        found.append(pytest.param(name, seed, marks=marks))
    return found


CASES = [*_cases(*QUICK), *_cases(*SLOW, slow=True)]


@pytest.mark.parametrize(("name", "seed"), _cases(*QUICK, *SLOW))
@pytest.mark.needs("clang")
def test_the_checker_finds_nothing(name: str, seed: int) -> None:
    assert check_project(project_files(elsewhere(name, seed)), include_dirs=[]) == []


@pytest.mark.gxx
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_every_stage_is_bit_exact(name: str, seed: int) -> None:
    model, inputs = elsewhere(name, seed), build(name)[1]
    assert len({k.slr for k in model.design.kernels}) == 3
    exact(model, inputs)
    assert same(run(model, inputs), run(compiled(name).reference, inputs))


@pytest.mark.gxx
@pytest.mark.needs("clang")
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_no_cycle_is_lost_to_crossings(name: str, seed: int) -> None:
    """No deadlock, and FIFOs of twice the depth are not faster: paths beside a link hold enough."""
    model, inputs = elsewhere(name, seed), build(name)[1]

    def cycles(fifos: dict[str, int]) -> int:
        report = run(lambda *a, **k: model.time(*a, **k, spread=False, interval=False, fifos=fifos), inputs)
        assert report.deadlock is None
        return int(report.cycles)

    streams = model.design.streams.values()
    assert cycles({}) == cycles({s.name: 2 * s.depth for s in streams})
    short = {s.name: 1 for s in streams if s.link and s.kind in VALUES}
    assert short and cycles(short) > cycles({})  # a link that holds no round trip does cost cycles


@pytest.mark.gxx
@pytest.mark.slow
@pytest.mark.needs("make")
@pytest.mark.parametrize(("name", "seed"), _cases(("bert", 1), ("gpt2_mask", 2)))
def test_the_test_bench_passes(name: str, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kernel by kernel and stage by stage, words over links included, under sanitizers."""
    model = elsewhere(name, seed)
    project: Path = write(model, tmp_path_factory, name)
    output = make(project, "csim_sanitize", f"SANITIZE={SANITIZERS}")
    count = len(model.design.stages) + len(model.design.kernels) + 1
    assert f"{count} passed, 0 failed" in output
