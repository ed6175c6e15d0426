# SPDX-License-Identifier: Apache-2.0
"""Checksums: what kernels add up while they read it, what comes with the results, what it shows."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import torch2fpga
from tests.tiny import build, compile_model, gpt2
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import Design
from torch2fpga.emit.check import check_project
from torch2fpga.emit.golden import golden_run
from torch2fpga.emit.kernel import kernel_source
from torch2fpga.emit.link import channels, link_config
from torch2fpga.emit.ports import SUMS, all_ports, bundle, masters
from torch2fpga.emit.project import project_files
from torch2fpga.emit.sums import given_sum, launch_sums, result_port, sum_stride, summed, total_of
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.plan.plan import Plan, load_plan
from torch2fpga.plan.resources import design_cost
from torch2fpga.plan.sums import add_sums
from torch2fpga.plan.traffic import bytes_moved
from torch2fpga.runtime.generation import Session
from torch2fpga.simulate.launch import Launch
from torch2fpga.timing.run import time_design

Bytes = NDArray[np.uint8]
CASES = ("mlp", "resident", "streamed", "one_row", "generates", "lanes")


@cache
def case(name: str) -> CompiledModel:
    """A model with checksums; weights kept for a step, for the launch, or read again for every tile."""
    if name in ("generates", "lanes"):
        ids = torch.arange(11)[None] % 7
        samples = [{"input_ids": (ids + i) % 7} for i in range(8)]
        plan: Any = "simple" if name == "generates" else None
        return torch2fpga.compile(
            gpt2().eval(), {"input_ids": ids}, generate=True, max_length=20, calibration=samples, plan=plan,
            tile=3 if plan else None, checksums=True,
        )  # fmt: skip
    if name == "mlp":
        return compile_model(*build("mlp3d"), checksums=True)
    if name == "one_row":  # the pooler has one row a sequence, and reads its weights for each
        plan = compile_model(*build("bert")).origin.plan
        arrays = {
            n: replace(a, weights="streamed") if n == "pooler_dense" else a for n, a in plan.arrays.items()
        }
        return compile_model(*build("bert"), plan=replace(plan, arrays=arrays, checksums=True))
    return compile_model(*build("encoder"), plan={"weights": name}, checksums=True)


def images(design: Design, buffers: dict[str, Bytes]) -> dict[str, bytes]:
    """By argument, as the sums take them."""
    return {
        p.name: buffers[f"{k.name}_{p.name}" if p.role == "params" else p.name].tobytes()
        for k, p in all_ports(design)
        if summed(design, k, p)["place"] >= 0
    }


def sizes(design: Design) -> list[Launch]:
    """Launches of one row and of all, and some that tiles do not divide."""
    s = design.shape
    if design.turns:
        return [Launch(1, 1, 0, 1), Launch(1, s.max_seq, 0, 2), Launch(1, 4, 3, 5)]
    return [Launch(1, 1), Launch(s.max_batch, s.max_seq), Launch(s.max_batch, s.max_seq - 1)]


def launched(model: CompiledModel, launch: Launch, changed: dict[str, int] | None = None) -> Any:
    """(sums of a functional run, images that it was given); ``changed``: port -> bit that flips before."""
    design = model.design
    inputs = {
        spec.name: torch.ones(launch.batch, launch.seq, dtype=torch.int64)
        if spec.kind != "rows"
        else torch.ones(launch.batch, launch.seq, spec.layout.channels)
        for spec in model.interface.inputs
    }
    buffers = dict(model.buffers(inputs))
    if design.turns:
        session = Session(model)
        buffers = dict(session.buffers(inputs[model.interface.inputs[0].name]))
    before = images(design, buffers)
    for name, bit in (changed or {}).items():
        buffers[name] = buffers[name].copy()
        buffers[name][bit // 8] ^= 1 << bit % 8
    result = model.functional.run(buffers, launch.batch, launch.seq, past=launch.past, turns=launch.turns)
    found = result.buffers[SUMS].view(np.uint32)[: sum_stride(design) * launch.turns]
    return found, np.frombuffer(launch_sums(design, before, launch), dtype=np.uint32)


def test_a_word_is_folded_and_added() -> None:
    numbers = np.random.default_rng(1).integers(0, 1 << 32, (7, 16), dtype=np.uint32)
    want = 0
    for word in numbers.tolist():
        fold = 0
        for number in word:
            fold ^= number
        want += fold
    total = total_of(numbers.tobytes())
    assert (total, total_of(b"")) == (want, 0)
    most = (1 << 32) - 1
    assert [given_sum(x) for x in (0, 1, most - 1, most, most + 1, 5 * most)] == [
        0, 1, most - 1, most, 1, most
    ]  # fmt: skip
    # every bit counts, however often a word is read
    for bit in range(32):
        for times in (1, 2, 3, 64, 1 << 16, 65_535 * 65_535):
            other = numbers.copy()
            other[3, 15] ^= np.uint32(1 << bit)
            assert given_sum(times * total_of(other.tobytes())) != given_sum(times * total)


@pytest.mark.gxx
@pytest.mark.hf
@pytest.mark.parametrize("name", CASES)
def test_a_launch_gives_the_sums_of_what_it_read(name: str) -> None:
    model = case(name)
    read = {(p.template, bool(p.config.get("one_row"))) for p in model.design.ports if p.role == "weights"}
    kept = {"resident": "read_words", "streamed": "read_words_per_tile", "lanes": "read_lane_words"}
    if name in kept:
        assert read == {(kept[name], False)}
    elif name == "one_row":
        assert ("read_words_per_tile", True) in read
    for launch in sizes(model.design):
        found, want = launched(model, launch)
        assert len(want) == sum_stride(model.design) * launch.turns and want.any()
        assert found.tolist() == want.tolist(), launch


@pytest.mark.gxx
@pytest.mark.hf
@pytest.mark.parametrize("name", ["streamed", "generates", "lanes"])
def test_a_changed_bit_is_seen_in_the_sum_of_its_port_alone(name: str) -> None:
    model, design = case(name), case(name).design
    launch, stride = sizes(design)[-1], sum_stride(design)
    ports = {p.name if p.role != "params" else f"{k.name}_{p.name}": (k, p) for k, p in all_ports(design)}
    ports = {n: x for n, x in ports.items() if summed(design, *x)["place"] >= 0}
    assert len(ports) == len(result_port(design).sums)  # type: ignore[union-attr]
    for number, (argument, (kernel, port)) in enumerate(ports.items()):
        found, want = launched(model, launch, {argument: (port.words * 512 - 1) * number // len(ports)})
        places = {int(i) % stride for i in np.flatnonzero(found != want)}
        assert places == {summed(design, kernel, port)["place"]}


def test_without_checksums_nothing_is_there() -> None:
    plain = compile_model(*build("mlp3d"))
    assert not plain.origin.plan.checksums and result_port(plain.design) is None
    assert sum_stride(plain.design) == 0
    names = [p.name for _, p in all_ports(plain.design)]
    texts = project_files(plain)
    assert SUMS not in names and not any(
        "_sum" in t or "sums" in t for n, t in texts.items() if "kernels" in n
    )
    with_sums = case("mlp").design
    assert [p.name for _, p in all_ports(with_sums) if p.name != SUMS] == names
    assert masters(with_sums) == masters(plain.design)  # beside the results


@pytest.mark.parametrize("name", ["mlp", pytest.param("lanes", marks=pytest.mark.hf)])
def test_sums_leave_by_the_master_of_the_results(name: str) -> None:
    design = case(name).design
    port = next(p for _, p in all_ports(design) if p.name == SUMS)
    result = result_port(design)
    assert result is not None and port.binding == result.name
    assert bundle(port) == f"gmem_{result.name}"
    where = {argument: channel for (_, argument), channel in channels(design, U280).items()}
    assert where[SUMS] == where[result.name]
    (line,) = [x for x in link_config(design, U280).splitlines() if f".{SUMS}:" in x]
    assert line.endswith(f":HBM[{where[result.name]}]")
    assert f"port={SUMS} offset=slave bundle=gmem_{result.name} " in "".join(
        kernel_source(design, k) for k in design.kernels
    )


@pytest.mark.hf
@pytest.mark.needs("clang")
@pytest.mark.parametrize("name", ["streamed", "resident", "generates", "lanes"])
def test_the_checker_finds_nothing(name: str) -> None:
    assert check_project(project_files(case(name)), include_dirs=[]) == []


@pytest.mark.hf
@pytest.mark.parametrize("name", ["one_row", "lanes"])
def test_golden_vectors_have_the_sums(name: str) -> None:
    model = case(name)
    golden = golden_run(model)
    content = golden.files[f"golden/{SUMS}.bin"]
    launch = Launch(golden.batch, golden.seq, 0, golden.turns)
    held = images(model.design, {n: np.frombuffer(x, np.uint8) for n, x in model.images.items()})
    assert content == launch_sums(model.design, held, launch)
    assert len(content) == 4 * sum_stride(model.design) * golden.turns
    assert f'"golden/{SUMS}.bin"' in project_files(model)[f"tb/{model.design.kernels[0].name}_tb.cpp"]


@pytest.mark.gxx
@pytest.mark.hf
@pytest.mark.parametrize("name", ["streamed", "lanes"])
def test_a_timed_run_moves_the_bytes(name: str) -> None:
    """The sums of a turn do not hold up the next one: they cost once what the last one takes to leave."""
    design = case(name).design
    plain = replace(
        design,
        streams={n: s for n, s in design.streams.items() if n not in result_port(design).sums},  # type: ignore[union-attr]
        ports=tuple(replace(p, sums=()) for p in design.ports),
        kernels=tuple(replace(k, parameters_sum=None) for k in design.kernels),
    )
    assert design == add_sums(plain)
    late = []
    for launch in sizes(design)[1:]:
        report, before = time_design(design, U280, launch), time_design(plain, U280, launch)
        moved = bytes_moved(design, launch.batch, launch.seq, launch.past, launch.turns)
        (port,) = [p for p in report.ports if p.name == SUMS]
        assert port.bytes == next(v for (_, name), v in moved.items() if name == SUMS)
        late.append(report.cycles - before.cycles)
    assert all(0 <= x <= 150 for x in late), late


def test_cost_is_a_fold_and_a_sum_for_each_reader() -> None:
    with_sums, plain = case("mlp").design, compile_model(*build("mlp3d")).design
    a, b = (design_cost(d, U280)[U280.memory_slr] for d in (with_sums, plain))
    count = len(result_port(with_sums).sums)  # type: ignore[union-attr]
    assert 200 * count <= a.lut - b.lut <= 280 * count
    assert (a.dsp, a.bram18, a.uram) == (b.dsp, b.bram18, b.uram)


# -- how it is asked for ------------------------------------------------------------------------


def test_a_plan_says_it(tmp_path: Path) -> None:
    plan = case("mlp").origin.plan
    assert plan.checksums and load_plan(plan.save(tmp_path / "plan.toml")) == plan
    model, inputs = build("mlp3d")
    again = compile_model(model, inputs, plan=tmp_path / "plan.toml")
    assert result_port(again.design) == result_port(case("mlp").design)
    off = replace(plan, checksums=False)
    assert result_port(compile_model(model, inputs, plan=off).design) is None
    # what is asked for is there, whatever the plan says
    assert result_port(compile_model(model, inputs, plan=off, checksums=True).design) is not None
    with pytest.raises(CompileError, match="checksums is 1; allowed is true or false"):
        load_plan({"checksums": 1})


@pytest.mark.hf
def test_saved_and_loaded(tmp_path: Path) -> None:
    model = case("lanes")
    assert torch2fpga.load(model.save(tmp_path / "model")).design == model.design


def test_refused() -> None:
    design = compile_model(*build("mlp3d")).design
    (kernel,) = {p.kernel for p in design.ports}
    result = next(p for p in design.ports if p.role == "output")
    ports = tuple(replace(p, kernel="other") if p is result else p for p in design.ports)
    away = replace(design, ports=ports)
    with pytest.raises(DesignError, match=rf"one kernel: .*in {kernel}.*, but results leave other"):
        add_sums(away)
    first = design.ports[0]
    taken = replace(design, ports=(replace(first, name=SUMS), *design.ports[1:]))
    with pytest.raises(DesignError, match="argument called sums, which the model has already"):
        add_sums(taken)
    assert add_sums(copy.deepcopy(design)) == add_sums(design)
    assert Plan("u280", 300.0).checksums is False
