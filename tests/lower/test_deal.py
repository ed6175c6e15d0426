# SPDX-License-Identifier: Apache-2.0
"""Deal: one port's words to several arrays, and split layers whose arrays share ports."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.stage_bench import MAX_BATCH, MAX_SEQ, Bench, Library
from tests.tiny import build, compile_model, cxx_cache, run
from torch2fpga.design import Shape, Stream, nominal_depth, pipelined
from torch2fpga.errors import DesignError
from torch2fpga.lower.deal import DealStage
from torch2fpga.plan.split import shares, split_linear
from torch2fpga.timing.inputs import random_inputs

__all__ = ["cxx_cache"]
#: words of each output, steps
CASES = (((5, 5), 1), ((7, 4, 4), 3), ((3, 3, 2), 2), ((1,) * 16, 2))


def _stage(words: tuple[int, ...], steps: int) -> DealStage:
    outputs = tuple(f"w{i}" for i in range(len(words)))
    return DealStage("d", "", "loop", steps, ("words",), outputs, words=words, arrays=outputs)


def _bench(words: tuple[int, ...], steps: int) -> Bench:
    stage = _stage(words, steps)
    streams = tuple(Stream(n, "words") for n in (*stage.inputs, *stage.outputs))
    return Bench(stage, streams, Shape(16, 4, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


@pytest.mark.gxx
@pytest.mark.parametrize("index", range(len(CASES)))
def test_every_output_gets_its_words_in_order(library: Library, index: int) -> None:
    words, steps = CASES[index]
    image = np.random.default_rng(index).integers(0, 256, (steps, sum(words), 64), dtype=np.uint8)
    sizes = [64 * steps * n for n in words]
    got = library.tokens(index, [image.reshape(-1)], sizes, 1, 1)
    first = 0
    for number, count in enumerate(words):
        expected = image[:, first : first + count].reshape(-1)
        assert (got[number] == expected).all()
        first += count


def test_cycles_are_the_words() -> None:
    stage = _stage((7, 4, 4), 3)
    design = _bench((7, 4, 4), 3).design
    assert stage.cycles(design, 1, 1, nominal_depth) == pipelined(45, nominal_depth("DEAL"))
    assert stage.cycles(design, 2, 19, nominal_depth) == pipelined(45, nominal_depth("DEAL"))


@pytest.mark.parametrize("words", [(4,), (1,) * 17, (2, 3), (4, 3, 2), (2, 0)])
def test_refused(words: tuple[int, ...]) -> None:
    with pytest.raises(DesignError):
        _stage(words, 1)


def test_shares_are_even() -> None:
    for copies in range(1, 17):
        for ports in range(1, copies + 1):
            edges = shares(copies, ports)
            sizes = [b - a for a, b in pairwise(edges)]
            assert edges[0] == 0 and edges[-1] == copies and len(sizes) == ports
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.gxx
@pytest.mark.parametrize(("copies", "ports"), [(2, 1), (3, 2), (3, 1)])
def test_arrays_that_share_ports_compute_the_same(copies: int, ports: int) -> None:
    """Three output blocks in two or three arrays: unequal shares, three layers, links to other regions."""
    model, inputs = build("bert_long")
    name = "intermediate_dense"
    arrays = {name: {"copies": copies, "columns": 4, "ports": ports}}
    slr = {f"{name}_array1": 2, f"{name}_array0": 1}
    made = compile_model(model, inputs, plan={"arrays": arrays, "slr": slr}, lanes=16, tile=4)
    bindings = [p.binding for p in made.design.ports if p.role == "weights" and name in p.binding]
    assert len(bindings) == ports
    assert any("deal" in b for b in bindings)
    assert run(made.verify, inputs).bit_exact
    report = made.time(**random_inputs(made, 2, 19), spread=False, interval=False)
    assert report.deadlock is None


def test_impossible_shares_are_refused() -> None:
    made = compile_model(*build("mlp3d"), lanes=8)
    design = made.design
    with pytest.raises(DesignError):
        split_linear(design, made.data, design.stages[0].name, 2, 3)
