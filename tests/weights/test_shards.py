# SPDX-License-Identifier: Apache-2.0
"""Models from shards: the values that transformers loads, and everything that is wrong said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.weights.samples import example, model, pretrained, save_folder, save_shards, tensors_of
from torch2fpga.errors import WeightsError
from torch2fpga.plan.meta_model import read_config
from torch2fpga.weights.shards import load_streamed, read_headers, renamed
from torch2fpga.weights.store import Store, using

pytest.importorskip("transformers")
pytestmark = pytest.mark.hf


def load(folder: Path, work: Path | None = None, progress: Any = None) -> Any:
    """The model of a folder, with a store if ``work`` is one."""
    with using(None if work is None else Store(work)):
        return load_streamed(read_config(folder)[0], folder, progress)


def same(a: Any, b: Any) -> None:
    """Equal parameters and buffers, by name, and outputs as close as rounding lets them."""
    for left, right in ((a.named_parameters, b.named_parameters), (a.named_buffers, b.named_buffers)):
        x, y = dict(left(remove_duplicate=False)), dict(right(remove_duplicate=False))
        assert x.keys() == y.keys()
        for name in x:
            assert torch.equal(x[name], y[name]) and x[name].dtype == y[name].dtype, name
    with torch.no_grad():
        torch.testing.assert_close(a(**example())[0], b(**example())[0])  # attention is written another way


CASES: list[tuple[str, int, torch.dtype, Callable[[str], str]]] = [
    ("gpt2", 0, torch.float32, str),
    ("gpt2", 3, torch.bfloat16, lambda name: name.removeprefix("transformer.")),
    ("llama", 3, torch.bfloat16, str),
    ("llama_tied", 2, torch.float16, lambda name: name.removeprefix("model.")),
    ("bert", 1, torch.float32, lambda name: f"bert.{name}"),
]


@pytest.mark.parametrize(("kind", "shards", "dtype", "rename"), CASES)
def test_a_model_is_what_transformers_loads(
    kind: str, shards: int, dtype: torch.dtype, rename: Callable[[str], str], tmp_path: Path
) -> None:
    folder, seen = save_folder(tmp_path / "m", kind, shards, dtype, rename), []
    found = load(folder, tmp_path / "w", lambda what, part: seen.append((what, part)))
    same(found, pretrained(folder))
    files = sorted(p.name for p in folder.glob("*.safetensors"))
    count = max(1, shards)
    assert [w for w, _ in seen] == [f"shard {i + 1} of {count}: {f}" for i, f in enumerate(files)]
    half = dtype != torch.float32
    assert len(list((tmp_path / "w").glob("*.safetensors"))) == (count if half else 0)
    if not half:  # nothing is copied: parameters are the file's
        assert all(not p.requires_grad for p in found.parameters())


def test_converted_shards_are_used_again(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "m", "llama", 3, torch.bfloat16)
    for made, found in ((3, 0), (0, 3)):
        store = Store(tmp_path / "w")
        with using(store):
            load_streamed(read_config(folder)[0], folder)
        assert (len(store.made), len(store.found)) == (made, found)
    other = tensors_of("llama", torch.bfloat16)
    name = next(iter(other))
    other[name][0, 0] += 1
    save_shards(folder, other, 3)
    store = Store(tmp_path / "w")
    with using(store):
        found_model = load_streamed(read_config(folder)[0], folder)
    assert (len(store.made), len(store.found)) == (1, 2)
    assert torch.equal(dict(found_model.named_parameters())[name], other[name].float())


def test_parameters_that_are_tied_stay_so(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "m", "llama_tied")
    assert "lm_head.weight" not in tensors_of("llama_tied")
    found = load(folder)
    assert found.lm_head.weight is found.model.embed_tokens.weight
    tensors = tensors_of("llama_tied")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()  # as some folders have it
    save_shards(folder, tensors, 0)
    same(load(folder), found)
    tensors["lm_head.weight"][0, 0] += 1
    save_shards(folder, tensors, 0)
    with pytest.raises(WeightsError, match=r"ties parameters that differ .*embed_tokens.weight and lm_head"):
        load(folder)


def test_tensors_that_old_checkpoints_have(tmp_path: Path) -> None:
    """A buffer that is computed, and one that transformers itself passes over."""
    folder = save_folder(tmp_path / "m", "bert")
    tensors = {**tensors_of("bert"), "embeddings.position_ids": torch.arange(40)[None]}
    save_shards(folder, tensors, 0)
    same(load(folder), model("bert"))


def broken(folder: Path) -> None:
    """All at once: an index that leads elsewhere, shards that are missing and cut, wrong tensors."""
    tensors = tensors_of("llama")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 5)
    tensors["model.norm.weight"] = torch.zeros(42, dtype=torch.int8)
    tensors["model.more.weight"] = torch.zeros(2)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_shards(folder, tensors, 4)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    where = index["weight_map"]
    where["lm_head.weight"] = "../outside.safetensors"
    where["model.embed_tokens.weight"] = "/etc/passwd"
    where["model.layers.9.x"] = "model-00004-of-00004.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00004.safetensors").unlink()
    file = folder / "model-00002-of-00004.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "m", "llama", 0)
    (folder / "model.safetensors").unlink()
    broken(folder)
    with pytest.raises(WeightsError) as error:
        load(folder)
    text = str(error.value)
    for part in (
        "lm_head.weight into '../outside.safetensors', which is no shard beside it",
        "model.embed_tokens.weight into '/etc/passwd'",
        "the shard model-00001-of-00004.safetensors is missing (",
        "model-00002-of-00004.safetensors is truncated or no safetensors file",
        "model-00004-of-00004.safetensors lacks model.layers.9.x",
        "missing: ",
        "model.layers.1.mlp.up_proj.weight",
        "LlamaForCausalLM",
    ):
        assert part in text, (part, text)
    save_shards(folder, {**_wrong()}, 1)
    with pytest.raises(WeightsError) as error:
        load(folder)
    for part in (
        "not of this model: model.more.weight",
        "model.layers.0.mlp.up_proj.weight is (3, 5), expected (40, 42)",
        "model.norm.weight is I8, expected one of F32, BF16, F16",
    ):
        assert part in str(error.value), (part, str(error.value))


def _wrong() -> dict[str, torch.Tensor]:
    tensors = tensors_of("llama")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 5)
    tensors["model.norm.weight"] = torch.zeros(42, dtype=torch.int8)
    tensors["model.more.weight"] = torch.zeros(2)
    return tensors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"weight_map": {}}', "names no tensors"),
        ('{"weight_map": 3}', "names no tensors"),
        ('{"weight_map": {"lm_head.weight": 3}}', "into 3, which is no shard"),
        ('{"weight_map": {"lm_head.weight": ".hidden.safetensors"}}', "which is no shard beside it"),
        ('{"weight_map": {"lm_head.weight": "a.bin"}}', "which is no shard beside it"),
    ],
)
def test_an_index_that_is_nonsense(tmp_path: Path, text: str, message: str) -> None:
    folder = save_folder(tmp_path / "m", "llama")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        load(folder)


def test_no_weights_at_all(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "m", "llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has neither model\.safetensors\.index\.json nor"):
        read_headers(folder)


def test_two_tensors_for_one_parameter(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "m", "gpt2")
    tensors = tensors_of("gpt2")
    tensors["wpe.weight"] = tensors["transformer.wpe.weight"].clone()
    save_shards(folder, tensors, 0)
    with pytest.raises(WeightsError, match=r"wpe\.weight and .*wpe\.weight are both transformer\.wpe"):
        load(folder)


def test_prefixes() -> None:
    wanted = ["base.a", "head.b"]
    assert renamed(["a", "head.b"], wanted, "base") == {"a": "base.a", "head.b": "head.b"}
    assert renamed(["base.base.a"], wanted, "base") == {"base.base.a": "base.a"}
    assert renamed(["x"], wanted, "base") == {"x": "x"} and renamed(["a"], wanted, "") == {"a": "a"}
