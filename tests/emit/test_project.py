# SPDX-License-Identifier: Apache-2.0
"""The emitted project: accepted by the checker, the same every time, written whole or not at all."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import MODELS, bert, build, compile_model, compiled, named
from torch2fpga.boards import U280
from torch2fpga.compiled import CompiledModel
from torch2fpga.emit import project as writer
from torch2fpga.emit.check import check_project
from torch2fpga.emit.golden import LIMIT, estimated_bytes, golden_run, run_size
from torch2fpga.emit.kernel import type_name
from torch2fpga.emit.project import build_project, load_images, project_files, read_manifest, write_project
from torch2fpga.errors import CompileError, WeightsError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NUMBER = re.compile(r"[0-9a-f]{64}|[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")


def content(path: Path) -> dict[str, bytes]:
    """All files of a folder."""
    files = [f for f in path.rglob("*") if f.is_file()]
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in files}


# -- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", named("mlp3d", "bert", "gpt2_mask", "encoder_swapped_pre"))
@pytest.mark.needs("clang")
def test_the_checker_finds_nothing(name: str) -> None:
    assert check_project(project_files(compiled(name)), include_dirs=[]) == []


def test_the_same_model_gives_the_same_bytes() -> None:
    first, second = (build_project(compile_model(*build("encoder_pre"))) for _ in range(2))
    assert first.texts == second.texts
    assert first.blobs == second.blobs


@pytest.mark.hf
def test_text_does_not_grow_with_layers() -> None:
    inputs = MODELS["bert"]()[1]
    shapes = []
    for layers in (2, 4):
        texts = project_files(compile_model(bert(layers), inputs))
        # Longer numbers may move a line break.
        shapes.append({path: re.sub(r"\s+", "", NUMBER.sub("0", text)) for path, text in texts.items()})
    assert shapes[0] == shapes[1]


def test_kernel_text_is_as_committed(update_golden: bool) -> None:
    """A change of this text is seen in review: pytest tests/emit --update-golden writes it anew."""
    texts = project_files(compiled("mlp2d"))
    for suffix in (".cpp", "_config.hpp"):
        text = re.sub(r"torch2fpga \d+\.\d+\.\d+\w*", "torch2fpga", texts[f"kernels/sequential_0{suffix}"])
        file = GOLDEN / f"mlp{suffix}"
        if update_golden:
            file.write_text(text)
        assert text == file.read_text()


def test_text_is_plain() -> None:
    for path, text in project_files(compiled("mlp3d")).items():
        assert text.isascii() and text.endswith("\n") and "\r" not in text, path


def test_configuration_structs_never_collide() -> None:
    names = ["fc1", "fc_1", "f_c1", "a_b", "a__b", "ab", "a_b_", "a1b", "a_1b", "e_o_f", "design"]
    structs = [type_name(n) for n in names]
    assert len(set(structs)) == len(names)
    assert not {"Design", "EOF"} & set(structs)


# -- names of the user's model ----------------------------------------------------------------

EVIL = ('x"; $(rm -rf ~)\n#error EVIL\n', "*/ `evil` \\")
#: names that torch.export takes (quotes and newlines are syntax errors to it)
NAMES = ("$(shell evil)", "; rm -rf ~ #", "*/ `evil`", "ünïcode", "e_o_f", "{{ evil }}")


class Hostile(nn.Module):
    """Modules and an input with names that mean something to C++, make, Tcl, Jinja and the shell."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.add_module(name, nn.Linear(9, 9))

    def forward(self, größe: Tensor) -> Tensor:
        for name in NAMES:
            größe = torch.relu(getattr(self, name)(größe))
        return größe


@pytest.fixture(scope="module")
def hostile() -> CompiledModel:
    """Hostile names as far as torch takes them; the worst ones put into the design by hand."""
    found = copy.copy(compile_model(Hostile(), (torch.randn(2, 3, 9),)))
    assert {s.path for s in found.design.stages} >= set(NAMES)
    stages = list(found.design.stages)
    for number, path in enumerate(EVIL, 1):  # not the first: its path is the name of the input
        stages[number] = replace(stages[number], path=path)
    found.design = replace(found.design, stages=tuple(stages))
    found.origin = replace(found.origin, model_class=EVIL[0], notes=EVIL)
    return found


def test_hostile_names_stay_harmless(hostile: CompiledModel) -> None:
    texts = project_files(hostile)
    for path, text in texts.items():
        if path == "manifest.json":
            continue
        for part in ("$(rm", "rm -rf ~", "#error", "`evil", "$(shell evil", "{{ evil", "ünï", "größe"):
            assert part not in text, (path, part)
    data = json.loads(texts["manifest.json"])
    assert data["model"]["class"] == EVIL[0] and data["model"]["notes"] == list(EVIL)
    assert data["stages"][1]["path"] == EVIL[0]


@pytest.mark.needs("clang")
def test_hostile_names_give_a_good_project(hostile: CompiledModel) -> None:
    assert check_project(project_files(hostile), include_dirs=[]) == []


# -- link and manifest ------------------------------------------------------------------------


@pytest.mark.hf
def test_ports_have_channels_and_files() -> None:
    model = compiled("bert")
    data = json.loads(project_files(model)["manifest.json"])
    ports = data["ports"]
    assert sorted(p["hbm"] for p in ports) == list(range(len(ports)))
    blobs = build_project(model).blobs
    for port in ports:
        if port["role"] in ("weights", "table", "params"):
            blob = blobs[port["file"]]
            assert (len(blob), hashlib.sha256(blob).hexdigest()) == (port["bytes"], port["sha256"])
        else:
            assert port["file"] is None and port["bytes"] > 0
    heads = {k["name"]: project_files(model)[k["file"]] for k in data["kernels"]}
    for port in ports:
        head = re.search(rf'extern "C" void {port["kernel"]}\(([^{{]*)\) \{{', heads[port["kernel"]])
        assert head is not None
        arguments = re.split(r",\s*(?![^<]*>)", head.group(1))
        assert arguments[port["index"]].endswith(port["argument"])
    assert {i["name"] for i in data["inputs"]} == {"input_ids", "attention_mask"}
    assert len(data["outputs"]) == 2 and len(data["links"]) == sum(len(k["axis_in"]) for k in data["kernels"])


def test_a_buffer_larger_than_a_channel_is_refused() -> None:
    model = copy.copy(compiled("mlp3d"))
    model.board = replace(U280, hbm=replace(U280.hbm, channel_bytes=1000))
    with pytest.raises(CompileError, match=r"port \w+ of kernel \w+ needs [\d,]+ bytes, .* holds 1,000"):
        project_files(model)


@pytest.mark.hf
def test_golden_runs_stay_small() -> None:
    design = compiled("bert").design
    golden = golden_run(compiled("bert"))
    assert (golden.batch, golden.seq) == (2, 5)
    streams = sum(len(b) for n, b in golden.files.items() if not n.endswith("_in.bin") and "output" not in n)
    assert streams <= estimated_bytes(design, 2, 5) <= 2 * streams
    large = replace(design, shape=replace(design.shape, max_batch=4, max_seq=512))
    assert run_size(large) == (2, 9)
    deep = replace(design, stages=tuple(replace(s, steps=s.steps * 200) for s in design.stages))
    deep = replace(deep, shape=large.shape)
    assert run_size(deep) == (1, 5) or estimated_bytes(deep, *run_size(deep)) <= LIMIT


# -- weights ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project on disk; not to be changed."""
    path = tmp_path_factory.mktemp("written") / "project"
    compiled("mlp2d").write(path)
    return path


def test_images_come_back(written: Path) -> None:
    assert load_images(written) == compiled("mlp2d").images
    assert read_manifest(written)["model"]["class"] == "Sequential"


def _flip(file: Path) -> str:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return r"has SHA-256 \w{64}, expected \w{64}"


def _cut(file: Path) -> str:
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    return rf"has {len(data) - 1} bytes, expected {len(data)}"


def _remove(file: Path) -> str:
    file.unlink()
    return "cannot be read: No such file"


@pytest.mark.parametrize("damage", [_flip, _cut, _remove])
def test_damaged_weights_are_refused(written: Path, tmp_path: Path, damage: Callable[[Path], str]) -> None:
    for name, data in content(written).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    file = sorted((tmp_path / "weights").iterdir())[0]
    with pytest.raises(WeightsError, match=rf"weights/{file.name} {damage(file)}"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("[]", "not a manifest"),
        ('{"format": "torch2fpga project", "format_version": 99}', "format version 99, expected 1"),
        ('{"format": "torch2fpga project", "format_version": 1}', "is damaged: .*ports"),
        (
            '{"format": "torch2fpga project", "format_version": 1, '
            '"ports": [{"file": "../x", "bytes": 1, "sha256": ""}]}',
            "outside the project",
        ),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_images(tmp_path)
    with pytest.raises(WeightsError, match="no torch2fpga project"):
        load_images(tmp_path / "nowhere")


# -- writing ----------------------------------------------------------------------------------


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    phases: list[tuple[str, float]] = []
    model = compiled("mlp2d")
    listed = write_project(model, tmp_path / "a", lambda phase, done: phases.append((phase, done)))
    write_project(model, tmp_path / "deep" / "b")
    assert content(tmp_path / "a") == content(tmp_path / "deep" / "b")
    assert listed == sorted(listed)
    assert {f.relative_to(tmp_path / "a").as_posix() for f in listed} == set(content(tmp_path / "a"))
    done = [fraction for _, fraction in phases]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 1


def test_only_our_own_folder_is_replaced(tmp_path: Path) -> None:
    model, foreign = compiled("mlp2d"), tmp_path / "foreign"
    foreign.mkdir()
    write_project(model, foreign)  # an empty folder may be taken
    (foreign / "kernels" / "stale.cpp").write_text("old")
    (foreign / "build" / "hw").mkdir(parents=True)
    (foreign / "build" / "hw" / "link.xclbin").write_text("took a night")
    write_project(model, foreign)
    assert not (foreign / "kernels" / "stale.cpp").exists()
    assert (foreign / "build" / "hw" / "link.xclbin").read_text() == "took a night"
    (foreign / "manifest.json").write_text('{"name": "of somebody else"}')
    before = content(foreign)
    with pytest.raises(CompileError, match="not empty and holds no project of torch2fpga"):
        write_project(model, foreign)
    assert content(foreign) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match="is a file"):
        write_project(model, tmp_path / "file")
    with pytest.raises(CompileError, match="cannot be written"):
        write_project(model, tmp_path / "file" / "below")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "foreign"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, existing: bool
) -> None:
    target = tmp_path / "project"
    if existing:
        write_project(compiled("mlp2d"), target)
        (target / "mine").write_text("kept")
        (target / "build").mkdir()
        (target / "build" / "mine").write_text("kept")
    before = content(tmp_path)
    plain, count = writer._write, iter(range(100))

    def failing(path: Path, data: bytes) -> None:
        if next(count) == 7:
            raise error
        plain(path, data)

    monkeypatch.setattr(writer, "_write", failing)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CompileError):
        write_project(compiled("mlp2d"), target)
    assert content(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["project"] if existing else [])


def test_a_failed_exchange_puts_the_old_project_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "project"
    write_project(compiled("mlp2d"), target)
    (target / "build").mkdir()
    for name in ("mine", "build/mine"):
        (target / name).write_text("kept")
    before, rename = content(tmp_path), Path.rename

    def failing(self: Path, to: Path) -> Path:
        if ".new-" in self.name:  # what was built is in it by now
            assert (self / "build" / "mine").exists()
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(CompileError, match="Input/output error"):
        write_project(compiled("mlp2d"), target)
    assert content(tmp_path) == before
