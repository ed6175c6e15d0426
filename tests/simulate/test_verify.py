# SPDX-License-Identifier: Apache-2.0
"""The comparison itself: a difference anywhere is found, and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import torch2fpga
from tests.tiny import build, compiled, cxx_cache, run
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.simulate.functional import output_rows
from torch2fpga.simulate.tokens import rows_to_tokens, stream_tokens, tokens_to_rows
from torch2fpga.simulate.verify import compare_taps, cosine

__all__ = ["cxx_cache"]


def _copy(made: CompiledModel) -> CompiledModel:
    copied = CompiledModel(made.design, made.data, made.interface, made.output, made.board, made.origin)
    copied.__dict__["functional"] = made.functional
    return copied


@pytest.mark.gxx
@pytest.mark.parametrize("name", ["mlp3d", "encoder"])
def test_a_changed_weight_is_found_where_it_is(name: str) -> None:
    """One weight of the functional run only: its stage is the first that differs."""
    made, (_, inputs) = compiled(name), build(name)
    report = run(made.verify, inputs)
    assert report.bit_exact
    stages = [s for s in made.design.stages if isinstance(s, MatmulStage)]
    stage = stages[len(stages) // 2]
    (port,) = [p for p in made.design.ports if p.binding == stage.name]
    image = bytearray(made.images[port.name])
    image[0] ^= 0x40
    broken = _copy(made)
    broken.__dict__["images"] = {**made.images, port.name: bytes(image)}
    report = run(broken.verify, inputs)
    assert not report.bit_exact
    wrong = [s for s in report.stages if not s.equal]
    assert stage.name in {s.name for s in wrong}
    (found,) = [s for s in report.stages if s.name == stage.name]
    assert 0 < found.mismatches <= found.compared and found.path == stage.path
    if made.design.steps == 1:  # in a loop what follows comes round again
        assert all(s.equal for s in report.stages[: report.stages.index(found)])
    assert "NOT bit-exact" in str(report) and stage.name in str(report) and "differ" in str(report)


@pytest.mark.gxx
def test_a_changed_constant_of_the_reference_is_found() -> None:
    made, (_, inputs) = compiled("mlp3d"), build("mlp3d")
    stage = next(s for s in made.design.stages if s.template == "requant")
    data = {
        **made.data,
        stage.name: [{**made.data[stage.name][0], "shift": made.data[stage.name][0]["shift"] - 1}],
    }
    broken = CompiledModel(made.design, data, made.interface, made.output, made.board, made.origin)
    broken.__dict__.update(functional=made.functional, images=made.images)
    report = run(broken.verify, inputs)
    assert not report.bit_exact and not next(s for s in report.stages if s.name == stage.name).equal


@pytest.mark.gxx
def test_report_of_an_exact_run() -> None:
    made, (_, inputs) = compiled("encoder"), build("encoder")
    report = run(made.verify, inputs)
    text = str(report)
    assert text.startswith("bit-exact; ") and all(s.name in text for s in report.stages)
    assert [s.name for s in report.stages] == [s.name for s in made.design.stages]
    linears = [s for s in report.stages if s.name.endswith("linear2")]
    assert linears and all(s.cosine is not None and s.cosine > 0.99 and s.mismatches == 0 for s in linears)
    assert report.cosine == report.outputs[0] > 0.99


def _taps(value: torch.Tensor, stream: Stream, shape: Shape) -> np.ndarray:  # type: ignore[type-arg]
    return stream_tokens(value, stream, shape).view(np.uint8)


def test_missing_and_surplus_tokens_are_mismatches() -> None:
    shape, stream = Shape(8, 2, 2, 3), Stream("x", "rows", "int16", Layout(1, 10))
    design = dataclasses.replace(compiled("mlp3d").design, shape=shape, streams={"x": stream})
    value = torch.arange(60, dtype=torch.int32).reshape(2, 3, 10)
    good = _taps(value, stream, shape)
    assert compare_taps(design, {"x": [value]}, {"x": good}) == {"x": (0, 96)}
    assert compare_taps(design, {"x": [value]}, {"x": good[:-16]})["x"][0] > 0
    assert compare_taps(design, {"x": [value]}, {"x": good[:0]})["x"][0] > 0
    assert compare_taps(design, {"x": [value, value]}, {"x": good})["x"][0] > 0
    assert compare_taps(design, {}, {"x": good})["x"][0] > 0
    one = good.copy()
    one[5] ^= 1
    assert compare_taps(design, {"x": [value]}, {"x": one}) == {"x": (1, 96)}


@pytest.mark.parametrize("tile", [1, 2, 3, 4])
@pytest.mark.parametrize("seq", [1, 3, 5, 8])
@pytest.mark.parametrize("layout", [Layout(1, 21), Layout(3, 7), Layout(1, 16)])
def test_tokens_and_back(tile: int, seq: int, layout: Layout) -> None:
    shape = Shape(8, tile, 2, 8)
    x = torch.randint(-99, 99, (2, seq, layout.channels), dtype=torch.int32)
    tokens = rows_to_tokens(x, layout, "int16", shape)
    assert torch.equal(tokens_to_rows(tokens, layout, 2, seq, shape), x)
    assert tokens.size == 2 * seq * layout.blocks(8) * 8


def test_output_rows_reads_what_was_written() -> None:
    made = compiled("mlp3d")
    (item,) = made.interface.outputs
    value = torch.randint(-99, 99, (2, 5, 13), dtype=torch.int32)
    raw = rows_to_tokens(value, item.layout, item.element, made.design.shape).view(np.uint8)
    assert torch.equal(output_rows(made.design, raw, item.stream, 2, 5), value)


def test_cosine() -> None:
    a = torch.tensor([3.0, 4.0])
    assert cosine(a, a * 2) == pytest.approx(1.0) and cosine(a, -a) == pytest.approx(-1.0)
    assert cosine(a, torch.tensor([4.0, -3.0])) == pytest.approx(0.0)
    assert cosine(a * 0, a * 0) == 1.0 and cosine(a, a * 0) == 0.0


@pytest.mark.gxx
def test_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2fpga.simulate import build as build_file

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build_file.shutil, "which", lambda name: None)
    with pytest.raises(torch2fpga.MissingTool, match="g\\+\\+"):
        build_file.compiler()


@pytest.mark.gxx
def test_compiler_messages_are_in_the_error() -> None:
    from torch2fpga.simulate.build import build_library

    with pytest.raises(torch2fpga.SimulationError, match="nonsense"):
        build_library({"wrong.cpp": "int f() { return nonsense; }\n"})


@pytest.mark.gxx
def test_libraries_are_shared_by_content() -> None:
    from torch2fpga.simulate.build import build_library

    sources = {
        "a.cpp": '#include "a.hpp"\nextern "C" int f() { return VALUE; }\n',
        "a.hpp": "#define VALUE 3\n",
    }
    first = build_library(sources)
    stamp = first.stat().st_mtime_ns
    assert build_library(dict(reversed(sources.items()))) == first and first.stat().st_mtime_ns == stamp
    assert build_library({**sources, "a.hpp": "#define VALUE 4\n"}) != first
