# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model whose parameters stay on disk: safetensors, in one file or in shards.

The model is made from its configuration without memory; every parameter is then a memory-mapped tensor of
a shard. Shards in bfloat16 or float16 are converted to float32 first, one after the other, into files of the
store in use. What somebody else wrote is not trusted: names in an index lead nowhere but into its folder, and
everything that does not fit the configuration is said at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from torch2fpga.errors import WeightsError
from torch2fpga.plan.meta_model import build
from torch2fpga.plan.outline import Windows
from torch2fpga.weights.store import Item, Store, current, file_digest

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
#: an index names every tensor once
MAX_INDEX_BYTES = 64 << 20
#: a name of a shard: no folder, no hidden file
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
#: types that weights may have, by their name in a shard
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
#: problems that are said of a kind
SAID = 12

Say = Callable[[str, float], None]


@dataclass(frozen=True)
class Entry:
    """A tensor in a shard, as its header says."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass
class Checkpoint:
    """Headers of all shards of a folder.

    Attributes:
        entries: tensor -> where it is.
        problems: what is wrong with index and shards.
    """

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Shards with tensors, in order."""
        return sorted({entry.file for entry in self.entries.values()})


def read_headers(folder: Path) -> Checkpoint:
    """What the shards of a folder hold; nothing but headers is read.

    Raises:
        WeightsError: without weights that can be read at all.
    """
    found = Checkpoint(folder)
    index = folder / INDEX
    if not index.is_file():
        if not (folder / SINGLE).is_file():
            raise WeightsError(f"{folder} has neither {INDEX} nor {SINGLE}")
        found.entries = _header(found, SINGLE)
        return found
    named = _index(index)
    by_file: dict[str, list[str]] = {}
    for tensor, file in named.items():
        if not isinstance(file, str) or not FILE_NAME.fullmatch(file):
            found.problems.append(f"{INDEX} puts {tensor} into {file!r}, which is no shard beside it")
        else:
            by_file.setdefault(file, []).append(tensor)
    for file, tensors in sorted(by_file.items()):
        if not (folder / file).is_file():
            found.problems.append(f"the shard {file} is missing ({len(tensors)} tensors)")
            continue
        there = _header(found, file)
        absent = [t for t in tensors if t not in there]
        if there and absent:
            found.problems.append(f"{file} lacks {_listed(absent)}, which {INDEX} puts there")
        found.entries |= {t: there[t] for t in tensors if t in there}
    return found


def _index(path: Path) -> dict[str, Any]:
    """tensor -> shard of an index, as it says."""
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ValueError(f"it is larger than {MAX_INDEX_BYTES:,} bytes")
        named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(named, dict) or not named:
            raise ValueError("weight_map names no tensors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return named


def _header(found: Checkpoint, file: str) -> dict[str, Entry]:
    """Tensors of a shard; what is wrong with it goes to the problems."""
    try:
        with safe_open(found.folder / file, framework="pt") as shard:
            parts = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118  no mapping
            return {name: Entry(file, p.get_dtype(), tuple(p.get_shape())) for name, p in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        found.problems.append(f"{file} is truncated or no safetensors file: {error}")
        return {}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SAID} more" if len(names) > SAID else ""
    return ", ".join(names[:SAID]) + more


# -- which tensor is which parameter --------------------------------------------------------------


def renamed(names: Sequence[str], wanted: Sequence[str], prefix: str) -> dict[str, str]:
    """tensor -> name in the model, where a checkpoint lacks its base model's prefix, or has one too many.

    Args:
        names: of a checkpoint.
        wanted: parameters and buffers of the model.
        prefix: the model's ``base_model_prefix``.
    """
    there, found = set(wanted), {}
    for name in names:
        inner = name.removeprefix(f"{prefix}.")
        options = [name, f"{prefix}.{name}", inner] if prefix else [name]
        found[name] = next((option for option in options if option in there), name)
    return found


def _groups(model: nn.Module) -> dict[str, list[str]]:
    """First name -> all names of every parameter: tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {group[0]: group for group in names.values()}


@dataclass
class Fitted:
    """What goes where.

    Attributes:
        sources: first name of a parameter -> tensor in the checkpoint.
        buffers: buffer -> tensor in the checkpoint.
        twins: pairs of tensors that must be the same, for parameters that are tied.
    """

    sources: dict[str, str] = field(default_factory=dict)
    buffers: dict[str, str] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)


def fit(model: nn.Module, checkpoint: Checkpoint) -> Fitted:
    """Find every parameter of a model in a checkpoint.

    Raises:
        WeightsError: with everything that is missing, not expected, or of another shape or type, and what is
            wrong with index and shards.
    """
    found, problems = Fitted(), list(checkpoint.problems)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters(remove_duplicate=False)}
    buffers = {n: tuple(b.shape) for n, b in model.named_buffers(remove_duplicate=False)}
    prefix = str(getattr(model, "base_model_prefix", "") or "")
    tensors: dict[str, str] = {}
    for tensor, name in renamed(list(checkpoint.entries), [*shapes, *buffers], prefix).items():
        if name in tensors:
            problems.append(f"{tensors[name]} and {tensor} are both {name}")
        tensors.setdefault(name, tensor)
    absent = []
    for first, names in _groups(model).items():
        there = [tensors[n] for n in names if n in tensors]
        if not there:
            absent.append(" or ".join(names))
            continue
        found.sources[first] = there[0]
        found.twins += [(there[0], other) for other in there[1:]]
    saved = set(model.state_dict())  # others are computed from the configuration
    found.buffers = {n: tensors[n] for n in buffers if n in tensors and n in saved}
    if absent:
        problems.append(f"missing: {_listed(absent)}")
    foreign = [t for n, t in tensors.items() if n not in shapes and n not in buffers]
    foreign = [t for t in foreign if not _known_foreign(model, t)]
    if foreign:
        problems.append(f"not of this model: {_listed(foreign)}")
    problems += _misfits(checkpoint, {t: shapes.get(n) for n, t in tensors.items()})
    if problems:
        kind = type(model).__name__
        raise WeightsError(
            f"the weights in {checkpoint.folder} are not those of {kind} as its configuration describes it: "
            + "; ".join(problems)
        )
    return found


def _known_foreign(model: nn.Module, tensor: str) -> bool:
    """Tensors that transformers itself says old checkpoints may have too."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    return any(re.search(pattern, tensor) for pattern in patterns)


def _misfits(checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...] | None]) -> Iterator[str]:
    """Tensors of another shape or type than a parameter's."""
    for tensor, shape in wanted.items():
        entry = checkpoint.entries[tensor]
        if shape is not None and entry.shape != shape:
            yield f"{tensor} is {entry.shape}, expected {shape}"
        if shape is not None and entry.dtype not in FLOATS:
            yield f"{tensor} is {entry.dtype}, expected one of {', '.join(FLOATS)}"


# -- loading --------------------------------------------------------------------------------------


def load_streamed(config: Any, folder: Path, progress: Say | None = None) -> nn.Module:
    """The model of a configuration with memory-mapped float32 parameters from a folder's shards.

    Args:
        config: a configuration of transformers.
        progress: called with the shard that is read and the fraction of shards done.
    Raises:
        WeightsError: with everything that is wrong with the weights.
        CompileError: if transformers cannot build the architecture, or there is no room for what is
            converted.
    """
    say = progress or (lambda what, part: None)
    checkpoint = read_headers(folder)
    model = build(config, Windows()).eval()
    fitted = fit(model, checkpoint)
    tensors: dict[str, Tensor] = {}
    for number, file in enumerate(checkpoint.files):
        what = f"shard {number + 1} of {len(checkpoint.files)}: {file}"
        say(what, number / len(checkpoint.files))
        tensors |= _shard(checkpoint, file, what)
    different = [f"{a} and {b}" for a, b in fitted.twins if not torch.equal(tensors[a], tensors[b])]
    if different:
        raise WeightsError(
            f"the configuration ties parameters that differ in {folder}: {_listed(different)}; set "
            "tie_word_embeddings in config.json to what the weights are"
        )
    groups = _groups(model)
    for first, tensor in fitted.sources.items():
        parameter = nn.Parameter(tensors[tensor], requires_grad=False)
        for name in groups[first]:
            _place(model, name, parameter)
    for name, tensor in fitted.buffers.items():
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._buffers[leaf] = tensors[tensor]
    return model


def _place(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._parameters[leaf] = parameter


def _shard(checkpoint: Checkpoint, file: str, what: str) -> dict[str, Tensor]:
    """Tensors of a shard, memory-mapped; half ones as float32."""
    path = checkpoint.folder / file
    with safe_open(path, framework="pt") as shard:
        tensors = {name: shard.get_tensor(name) for name, e in checkpoint.entries.items() if e.file == file}
    half = {n: t for n, t in tensors.items() if t.dtype in (torch.bfloat16, torch.float16)}
    if not half:
        return tensors
    return tensors | _as_float32(path, half, what, current())


def _as_float32(path: Path, half: Mapping[str, Tensor], what: str, store: Store | None) -> dict[str, Tensor]:
    if store is None:
        return {name: tensor.to(torch.float32) for name, tensor in half.items()}
    return store.kept(
        f"{what}, as float32",
        ("float32", file_digest(path), sorted(half)),
        lambda: {name: Item.of(tensor, torch.float32) for name, tensor in half.items()},
    )
