# SPDX-License-Identifier: Apache-2.0
"""Save and load: the same results, damaged folders refused, foreign folders left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import torch2fpga
from tests.tiny import build, compiled, cxx_cache, exact, named, run, same
from torch2fpga.errors import WeightsError
from torch2fpga.simulate.functional import functional_sources

__all__ = ["cxx_cache"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that tests copy."""
    return compiled("mlp3d").save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.gxx
@pytest.mark.parametrize("name", named("mlp3d", "bert"))
def test_round_trip(name: str, tmp_path: Path) -> None:
    made = compiled(name)
    loaded = torch2fpga.load(made.save(tmp_path / "model"))
    _, inputs = build(name)
    assert loaded.design == made.design and loaded.images == made.images
    assert same(run(loaded.reference, inputs), run(made.reference, inputs))
    assert same(run(loaded, inputs), run(made, inputs))
    assert type(run(loaded, inputs)) is type(run(made, inputs))
    exact(loaded, inputs, cosine=None)
    assert run(loaded.verify, inputs).cosine is None  # the float model is not saved
    assert (loaded.board, repr(loaded)) == (made.board, repr(made))
    assert (loaded.origin.notes, loaded.origin.mapping) == (made.origin.notes, made.origin.mapping)


def test_loaded_models_emit_the_same_text(folder: Path) -> None:
    sources = functional_sources(torch2fpga.load(folder).design)
    assert sources == functional_sources(compiled("mlp3d").design)


def test_two_saves_are_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    again = compiled("mlp3d").save(tmp_path / "again")
    first, second = ({p.name: p.read_bytes() for p in d.iterdir()} for d in (saved, again))
    assert first == second and len(first) == 2


def test_saving_again_replaces(folder: Path) -> None:
    before = (folder / "model.json").stat().st_ino
    compiled("mlp3d").save(folder)
    assert (folder / "model.json").stat().st_ino != before
    assert torch2fpga.load(folder).design == compiled("mlp3d").design


def test_loaded_models_save_and_load(folder: Path, tmp_path: Path) -> None:
    again = torch2fpga.load(torch2fpga.load(folder).save(tmp_path / "again"))
    assert again.design == compiled("mlp3d").design and again.images == compiled("mlp3d").images


def _error(folder: Path) -> str:
    with pytest.raises(WeightsError) as error:
        torch2fpga.load(folder)
    return str(error.value)


@pytest.mark.parametrize("at", [0, 100, -1])
def test_one_changed_byte(folder: Path, at: int) -> None:
    path = folder / "constants.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert "checksum" in _error(folder) and "constants.safetensors" in _error(folder)


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_truncated_constants(folder: Path, keep: int) -> None:
    path = folder / "constants.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "checksum" in _error(folder)


@pytest.mark.parametrize("name", ["constants.safetensors", "model.json"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert "is no saved model" in _error(folder)


def test_missing_folder(tmp_path: Path) -> None:
    assert "is no saved model" in _error(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "no json"])
def test_broken_document(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    assert "is no saved model" in _error(folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_another_document(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    assert _error(folder)


@pytest.mark.parametrize("value", [0, 99, None, "1"])
def test_another_format(folder: Path, value: object) -> None:
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**document, "format": value}))
    assert f"format {value!r}" in _error(folder)


@pytest.mark.parametrize("key", ["design", "numbers", "inputs", "sha256"])
def test_a_document_with_a_part_missing(folder: Path, key: str) -> None:
    document = json.loads((folder / "model.json").read_text())
    del document[key]
    (folder / "model.json").write_text(json.dumps(document))
    assert _error(folder)


def test_an_unknown_stage(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"MatmulStage"', '"OtherStage"'))
    assert "OtherStage" in _error(folder) or "checksum" in _error(folder)


def test_a_changed_shift(folder: Path) -> None:
    """Multipliers' shifts are weights as much as the tensors are."""
    path = folder / "model.json"
    document = json.loads(path.read_text())
    stage = next(s for s, steps in document["numbers"].items() if "shift" in steps[0])
    document["numbers"][stage][0]["shift"] -= 1
    path.write_text(json.dumps(document, sort_keys=True))
    assert _error(folder)


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_foreign_targets_are_left_alone(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "mine.txt").write_text("mine")
    with pytest.raises(WeightsError, match="exists and is no saved model"):
        compiled("mlp3d").save(target)
    assert [p.name for p in tmp_path.iterdir()] == ["target"]
    if kind == "folder":
        assert (target / "mine.txt").read_text() == "mine"


def test_an_interrupted_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2fpga import persist

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(persist, "_document", stop)
    with pytest.raises(KeyboardInterrupt):
        compiled("mlp3d").save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
