# SPDX-License-Identifier: Apache-2.0
"""Constants on disk: the same values, kept once, used only if they are as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import torch2fpga
from tests.weights.samples import LENGTH, TOKENS, example, model, rows
from torch2fpga.errors import CompileError
from torch2fpga.plan.outline import Prompt
from torch2fpga.weights import store as module
from torch2fpga.weights.store import (
    Item,
    Store,
    kept,
    kept_tensor,
    pieces,
    read_tensors,
    using,
    write_tensors,
)

pytest.importorskip("transformers")
pytestmark = pytest.mark.hf
GENERATE: dict[str, Any] = {"generate": True, "max_length": LENGTH}


@pytest.fixture(autouse=True)
def everything_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models have small constants."""
    monkeypatch.setattr(module, "LEAST_BYTES", 0)


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


# -- the store --------------------------------------------------------------------------------


def test_what_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7)
    made = {
        "eight": torch.randint(-128, 128, (5, 3), dtype=torch.int8),
        "double": torch.randn(4, dtype=torch.float64),
        "wide": torch.randn(9, 2).t(),
        "none": torch.zeros(0, 4, dtype=torch.int32),
        "one": torch.tensor(7),
    }
    file = tmp_path / "x"
    digest = write_tensors(file, {n: Item.of(t) for n, t in made.items()})
    assert digest == module.file_digest(file)
    for found in (read_tensors(file), load_file(file)):
        assert found.keys() == made.keys()
        for name, tensor in made.items():
            assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    half = torch.randn(30, 4).to(torch.bfloat16)
    write_tensors(file, {"half": Item.of(half, torch.float32)})
    assert torch.equal(read_tensors(file)["half"], half.float())
    assert torch.equal(torch.cat(list(pieces(half))), half) and len(list(pieces(half))) == 30


def test_what_comes_back_is_not_in_memory(tmp_path: Path) -> None:
    store = Store(tmp_path)
    size = 200_000_000
    before = anonymous()
    found = store.kept("large", ("large",), lambda: {"x": torch.ones(size, dtype=torch.int8)})
    rows_seen = [store.scratch(torch.ones(50_000_000, dtype=torch.int8)) for _ in range(4)]
    assert int(found["x"].sum()) == size and all(int(x.sum()) == 50_000_000 for x in rows_seen)
    assert anonymous() - before < size // 4
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors", ".json"}  # scratch has no name any more


def test_something_is_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def made() -> dict[str, Tensor]:
        calls.append(1)
        return {"x": torch.arange(5.0)}

    first = Store(tmp_path)
    for store in (first, first, Store(tmp_path)):
        assert torch.equal(store.kept("x", ("x", torch.ones(2)), made)["x"], torch.arange(5.0))
    assert len(calls) == 1 and first.made == ["x"] and first.found == ["x"]
    for key in [("x", torch.zeros(2)), ("x", torch.ones(2).double()), ("x", torch.ones(1, 2)), ("y",)]:
        Store(tmp_path).kept("x", key, made)
    assert len(calls) == 5


def test_another_version_of_the_code_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = Store(tmp_path).name(["x"])
    assert name == Store(tmp_path).name(["x"])
    monkeypatch.setattr(module, "_code", lambda: "other")
    assert name != Store(tmp_path).name(["x"])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a bit": lambda file, about: flipped(file),
    "cut": lambda file, about: file.write_bytes(file.read_bytes()[:-1]),
    "gone": lambda file, about: file.unlink(),
    "no text": lambda file, about: about.write_bytes(b"\xff"),
    "no object": lambda file, about: about.write_text("[]"),
    "another format": lambda file, about: about.write_text(
        json.dumps({**json.loads(about.read_text()), "format": "other"})
    ),
    "no safetensors": lambda file, about: (
        file.write_bytes(b"x" * 40),
        about.write_text(
            json.dumps({**json.loads(about.read_text()), "bytes": 40, "sha256": module.file_digest(file)})
        ),
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    def made() -> dict[str, Tensor]:
        return {"x": torch.arange(100.0)}

    Store(tmp_path).kept("x", ("x",), made)
    (file,), (about,) = tmp_path.glob("*.safetensors"), tmp_path.glob("*.json")
    DAMAGES[damage](file, about)
    store = Store(tmp_path)
    assert torch.equal(store.kept("x", ("x",), made)["x"], torch.arange(100.0))
    assert (store.made, store.found, store.damaged) == (["x"], [], ["x"])
    assert Store(tmp_path).kept("x", ("x",), dict)["x"].numel() == 100


def test_without_a_store_nothing_is_kept() -> None:
    value = torch.arange(3)
    assert kept_tensor("x", ("x",), 10, lambda: value) is value
    assert module.scratch(value) is value

    def never() -> Any:
        raise AssertionError

    assert kept("x", 10, never, lambda: {"x": value})["x"] is value


def test_little_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 100)
    with using(Store(tmp_path)):
        kept_tensor("little", ("x",), 99, lambda: torch.ones(1))
        assert not list(tmp_path.iterdir())
        kept_tensor("much", ("x",), 100, lambda: torch.ones(1))
        assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match="cannot be used"):
        Store(tmp_path / "file" / "below")
    with module.working(tmp_path / "w"):
        other = module.working(tmp_path / "w")
        with pytest.raises(CompileError, match="another program works in"):
            other.__enter__()
    (tmp_path / "w" / ".new-1-left").write_text("of a run that was killed")
    with module.working(tmp_path / "w"):
        assert not list((tmp_path / "w").glob(".new-*"))


# -- compile(work=...) ------------------------------------------------------------------------


def same(a: Any, b: Any) -> None:
    """All constants, images and the plan of two compiled models are equal."""
    assert a.design == b.design and a.data.keys() == b.data.keys() and a.origin.plan == b.origin.plan
    for name, steps in a.data.items():
        for x, y in zip(steps, b.data[name], strict=True):
            assert x.keys() == y.keys()
            for key, value in x.items():
                equal = torch.equal(value, y[key]) if isinstance(value, Tensor) else value == y[key]
                assert equal and getattr(value, "dtype", 0) == getattr(y[key], "dtype", 0), (name, key)
    assert a.images == b.images


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("gpt2", "w8a8", GENERATE),
    ("llama", "w4a8", GENERATE),
    ("gpt2", "w4a8", {}),  # the optimiser splits arrays
    ("bert", "w8a8", {"plan": "simple"}),
]


def compiled(kind: str, precision: str, options: dict[str, Any], **more: Any) -> Any:
    whole, text = model(kind), bool(options.get("generate"))
    given = rows(kind)[0] if kind == "bert" else example()
    whole = whole if text or kind == "bert" else Prompt(whole).eval()
    return torch2fpga.compile(
        whole,
        given,
        precision=precision,
        calibration=rows(kind, LENGTH if text else TOKENS),
        **options,
        **more,
    )


@pytest.mark.parametrize(("kind", "precision", "options"), CASES)
def test_constants_on_disk_are_those_in_memory(
    kind: str, precision: str, options: dict[str, Any], tmp_path: Path
) -> None:
    phases: list[str] = []
    inside = compiled(kind, precision, options)
    first = compiled(kind, precision, options, work=tmp_path, progress=lambda what, _: phases.append(what))
    same(first, inside)
    layers = [p for p in phases if p.startswith("weights of ")]
    assert "calibration" in phases and len(layers) == len(set(layers)) >= 3 * 4
    if kind == "gpt2":
        assert any(p.endswith("c_fc.weight, transposed") for p in phases)
    if not options:
        assert any(p.startswith("weight of ") and "_array1" in p for p in phases)
    if kind == "llama":
        assert any(p.endswith("q_proj.weight in pairs") for p in phases)
    files = set(tmp_path.glob("*.safetensors"))
    again = compiled(kind, precision, options, work=tmp_path, progress=lambda what, _: phases.append(what))
    same(again, inside)
    assert [p for p in phases if p.startswith("weights of ")] == layers
    assert set(tmp_path.glob("*.safetensors")) == files


def test_one_folder_for_several_models(tmp_path: Path) -> None:
    """Other weights, calibration or precision: nothing of the one is taken for the other."""
    whole = Prompt(model("gpt2")).eval()
    for form, count, more in (("w4a8", 8, 0.0), ("w4a8", 12, 0.0), ("w8a8", 8, 0.0), ("w8a8", 12, 0.5)):
        seen = rows("gpt2", TOKENS, count)
        whole.model.transformer.h[1].mlp.c_fc.weight[3, 5] += more
        inside, outside = (
            torch2fpga.compile(whole, example(), precision=form, calibration=seen, plan="simple", work=work)
            for work in (None, tmp_path)
        )
        same(outside, inside)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """It ends after five layers: only the others are computed then, and a damaged one."""
    with pytest.raises(KeyboardInterrupt):
        compiled(*CASES[1], work=tmp_path, progress=_stopping(5))
    before = {p: p.read_bytes() for p in tmp_path.glob("*.safetensors")}
    about = {p: json.loads(p.read_text())["what"] for p in tmp_path.glob("*.json")}
    complete = {what for what in about.values() if what.startswith("weights of ")}
    assert len(complete) == 5 and "calibration" in about.values()
    (damaged,) = [p.with_suffix(".safetensors") for p, what in about.items() if what == min(complete)]
    flipped(damaged)
    phases: list[str] = []
    again = compiled(*CASES[1], work=tmp_path, progress=lambda what, _: phases.append(what))
    layers = {p for p in phases if p.startswith("weights of ")}
    assert layers & complete == {min(complete)} and len(layers | complete) == 7 * 3 + 1
    assert "calibration" not in [p for p in phases if p not in layers and "calibrate" not in p]
    assert {p: p.read_bytes() for p in before} == before
    same(again, compiled(*CASES[1]))


def _stopping(layers: int) -> Any:
    seen: list[str] = []

    def progress(what: str, _: float) -> None:
        seen.append(what)
        if sum(s.startswith("weights of ") for s in seen) > layers:
            raise KeyboardInterrupt

    return progress
