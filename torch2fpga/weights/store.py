# SPDX-License-Identifier: Apache-2.0
"""Large constants on disk while a model is compiled (``compile(work=FOLDER)``).

What passes, quantisation and calibration compute is written to a file as soon as it is complete, and comes
back memory-mapped: the page cache holds it, not the program. A file's name is the digest of everything that
its content depends on (the code that computes it too), so a run that was interrupted goes on with what is
there. A file counts only if its own digest is the one in the JSON beside it; a damaged one is made again.

Files are safetensors. Without a store everything stays in memory, and has the same values.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from torch2fpga.errors import CompileError

P = ParamSpec("P")

FORMAT = "torch2fpga work"
#: smaller constants stay in memory
LEAST_BYTES = 1 << 20
#: elements that are read, converted or written at once
CHUNK = 1 << 22
#: bytes of a file of ``Store.scratch``
SCRATCH_BYTES = 64 << 20
#: where a file's data begins: a multiple of this
ALIGNMENT = 64

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A tensor that is written part by part.

    Attributes:
        parts: gives its rows in order, as tensors of ``dtype``.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[Tensor]]

    @staticmethod
    def of(tensor: Tensor, dtype: torch.dtype | None = None) -> Item:
        """A tensor, converted on the way."""
        kind = dtype or tensor.dtype
        return Item(kind, tuple(tensor.shape), lambda: (part.to(kind) for part in pieces(tensor)))

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor's rows in order, so many at once that they are about ``CHUNK`` elements."""
    if tensor.dim() < 2 or tensor.numel() <= CHUNK:
        yield tensor
        return
    yield from tensor.split(max(1, CHUNK // max(1, tensor[0].numel())))


def raw(tensor: Tensor) -> memoryview:
    """A tensor's bytes."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat.data


def write_tensors(path: Path, items: Mapping[str, Item]) -> str:
    """Write a safetensors file; returns the SHA-256 of all of it."""
    order = sorted(items, key=lambda name: (-items[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        start, end = end, end + items[name].bytes
        header[name] = {
            "dtype": NAMES[items[name].dtype],
            "shape": list(items[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in _content(text, [items[name] for name in order]):
            digest.update(part)
            file.write(part)
    return digest.hexdigest()


def _content(header: bytes, items: list[Item]) -> Iterator[bytes | memoryview]:
    yield len(header).to_bytes(8, "little")
    yield header
    for item in items:
        for part in item.parts():
            yield raw(part)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _code() -> str:
    """Digest of the code that computes what is kept, and of the library it computes with."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(torch.__version__.encode())
    for folder in ("lower", "passes", "plan", "weights"):
        for path in sorted((root / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Store:
    """A folder of tensors.

    Attributes:
        folder: is made if it is not there.
        made, found, damaged: what was computed, taken from a file, and computed because its file was no good.
    """

    def __init__(self, folder: str | Path, progress: Callable[[str], None] | None = None) -> None:
        """
        Args:
            progress: called with what is computed, before it is.
        Raises:
            CompileError: if the folder cannot be made.
        """
        self.folder = Path(folder).expanduser().resolve()
        self.progress = progress or (lambda what: None)
        self.made: list[str] = []
        self.found: list[str] = []
        self.damaged: list[str] = []
        self._digests = WeakTensorKeyDictionary()
        self._scratch: Tensor | None = None
        self._used = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompileError(f"the work folder {self.folder} cannot be used: {error}") from error

    def kept(
        self, what: str, key: Iterable[Any], make: Callable[[], Mapping[str, Tensor | Item]]
    ) -> dict[str, Tensor]:
        """Tensors from their file, or computed and then written to it.

        Args:
            what: for people: progress, and the JSON beside the file.
            key: all that the tensors depend on, apart from code.
        Raises:
            CompileError: if the file cannot be written.
        """
        name = self.name(key)
        path, beside = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        known = _read_json(beside)
        if known is not None:
            tensors = _verified(path, known)
            if tensors is not None:
                self.found.append(what)
                return tensors
            self.damaged.append(what)
        self.progress(what)
        made = make()
        items = {n: t if isinstance(t, Item) else Item.of(t) for n, t in made.items()}
        try:
            fresh = self._fresh()
            sha256 = write_tensors(fresh, items)
            del made, items
            size = fresh.stat().st_size
            fresh.replace(path)
            fresh = self._fresh()
            about = {"format": FORMAT, "what": what, "bytes": size, "sha256": sha256}
            fresh.write_text(json.dumps(about) + "\n", encoding="utf-8")
            fresh.replace(beside)
            self.made.append(what)
            return read_tensors(path)
        except OSError as error:
            raise CompileError(f"{what} cannot be kept in {self.folder}: {error}") from error

    def _fresh(self) -> Path:
        return self.folder / f".new-{os.getpid()}-{secrets.token_hex(4)}"

    def name(self, key: Iterable[Any]) -> str:
        """Name of the file of what depends on all of ``key``."""
        parts = [self.digest(k) if isinstance(k, Tensor) else repr(k) for k in key]
        return hashlib.sha256(json.dumps([_code(), *parts]).encode()).hexdigest()

    def digest(self, tensor: Tensor) -> str:
        """SHA-256 of a tensor's type, shape and values; of a tensor object it is computed once."""
        known: str | None = self._digests.get(tensor)
        if known is None:
            digest = hashlib.sha256(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
            for part in pieces(tensor):
                digest.update(raw(part))
            known = self._digests[tensor] = digest.hexdigest()
        return known

    def scratch(self, tensor: Tensor) -> Tensor:
        """A copy that lies in a file which is gone with the program.

        Raises:
            CompileError: if there is no room.
        """
        values, size = tensor.contiguous(), tensor.numel() * tensor.dtype.itemsize
        if self._scratch is None or self._used + size > self._scratch.numel():
            self._scratch, self._used = self._mapped(max(size, SCRATCH_BYTES)), 0
        place = self._scratch[self._used : self._used + size].view(tensor.dtype).reshape(tensor.shape)
        self._used += size + -size % ALIGNMENT
        return place.copy_(values)

    def _mapped(self, size: int) -> Tensor:
        path = self._fresh()
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a signal later
            return torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
        except OSError as error:
            raise CompileError(f"no {size:,} bytes are left in {self.folder}: {error}") from error
        finally:
            path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What is said of a file; None if nothing is. Nonsense says nothing that a file could hold to."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _verified(path: Path, known: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The tensors of a file that is as it was written; None for any other."""
    try:
        if known.get("format") != FORMAT or path.stat().st_size != known.get("bytes"):
            return None
        return read_tensors(path) if file_digest(path) == known.get("sha256") else None
    except (OSError, SafetensorError):
        return None


_CURRENT: ContextVar[Store | None] = ContextVar("store", default=None)


@contextmanager
def using(store: Store | None) -> Iterator[None]:
    """``kept`` and ``scratch`` use this store; with None they keep everything in memory."""
    token = _CURRENT.set(store)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def kept(
    what: str, size: int, key: Callable[[], Iterable[Any]], make: Callable[[], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """``Store.kept`` of the store in use.

    Args:
        size: bytes of what is made; little is always made anew.
        key: gives what ``make`` depends on; not called where nothing is kept.
    """
    store = _CURRENT.get()
    if store is None or size < LEAST_BYTES:
        return dict(make())
    return store.kept(what, key(), make)


def kept_tensor(what: str, key: tuple[Any, ...], size: int, make: Callable[[], Tensor]) -> Tensor:
    """The same for one tensor."""
    return kept(what, size, lambda: key, lambda: {"value": make()})["value"]


def kept_scales(search: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A search for scales whose result the store in use keeps."""

    @wraps(search)
    def found(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        given = [*args, *(kwargs[name] for name in sorted(kwargs))]
        key = [search.__name__, *(getattr(value, "precision", value) for value in given)]
        size = sum(value.numel() for value in given if isinstance(value, Tensor))
        return kept_tensor("a layer's scales", tuple(key), size, lambda: search(*args, **kwargs))

    return found


def scratch(tensor: Tensor) -> Tensor:
    """``Store.scratch`` of the store in use; without one the tensor itself."""
    store = _CURRENT.get()
    return tensor if store is None else store.scratch(tensor)


def current() -> Store | None:
    """The store in use."""
    return _CURRENT.get()


class Phases:
    """Progress as ``compile`` reports it, with what a store computes in between.

    Attributes:
        at: the fraction that is done.
    """

    def __init__(self, report: Callable[[str, float], None] | None) -> None:
        self.report = report or (lambda phase, fraction: None)
        self.at = 0.0

    def __call__(self, phase: str, fraction: float) -> None:
        self.at = fraction
        self.report(phase, fraction)

    def within(self, what: str) -> None:
        """Name what is done, without a fraction of its own."""
        self.report(what, self.at)


@contextmanager
def working(
    folder: str | Path | None, report: Callable[[str, float], None] | None = None
) -> Iterator[Phases]:
    """A store in this folder is in use; with None there is none. Gives what progress is said to.

    Raises:
        CompileError: if the folder cannot be used, or another program uses it.
    """
    say = Phases(report)
    if folder is None:
        yield say
        return
    store = Store(folder, say.within)
    with _alone(store.folder), using(store):
        yield say


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other program uses the folder, and nothing is left of one that was interrupted."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CompileError(
                f"another program works in {folder}; wait for it, or take another folder"
            ) from error
        for left in folder.glob(".new-*"):
            left.unlink()
        yield
