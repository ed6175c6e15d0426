# SPDX-License-Identifier: Apache-2.0
"""A project folder as the build sees it: names, files, what it was made for. Nothing in it is trusted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch2fpga.build import BuildError

MANIFEST, SUMS, LINK, ESTIMATES = "manifest.json", "SHA256SUMS", "link.cfg", "estimates.json"
FORMATS = {MANIFEST: ("torch2fpga project", 1), ESTIMATES: ("torch2fpga estimates", 1)}

#: names that become parts of paths and arguments
_NAME = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_PLATFORM = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_RELEASE = re.compile(r"20\d\d\.\d")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"\n]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Folder:
    """What the build needs to know of a project.

    Attributes:
        root: absolute path.
        kernels: names, in the manifest's order.
        tools: first and last release that supports the card.
        platform, frequency: of ``link.cfg``; MHz.
        packed: are weights, golden vectors and test bench there (a project may be made before them)?
        estimates: data of ``estimates.json``.
        problems: everything that is wrong with its files; empty where it can be built.
    """

    root: Path
    design: str
    kernels: tuple[str, ...]
    tools: tuple[str, str]
    board: str
    platform: str
    frequency: str
    packed: bool
    estimates: Mapping[str, Any]
    problems: tuple[str, ...] = field(default=())


def digest(path: Path) -> str:
    """SHA-256 of a file, in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_folder(path: Path) -> Folder:
    """Read a project folder.

    Raises:
        BuildError: with every reason, if it is no project of torch2fpga or its files do not name what
            has to be built. Damaged files are ``problems`` of the result.
    """
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise BuildError(f"{root} is not a folder; torch2fpga compile --out writes one")
    data, link = _json(root, MANIFEST), _link(root)
    problems: list[str] = []
    design = _name(data.get("design"), "the design", problems)
    kernels = tuple(_name(k, "a kernel", problems) for k in _kernels(data))
    if not kernels or len(set(kernels)) != len(kernels):
        problems.append(f"{MANIFEST} names no kernels, or one twice")
    tools = data.get("tools")
    if not (isinstance(tools, list) and len(tools) == 2 and all(_RELEASE.fullmatch(str(t)) for t in tools)):
        problems.append(f"{MANIFEST} has no range of tool releases: {tools!r}")
    platform, frequency = link.get("platform", ""), link.get("kernel_frequency", "")
    if not _PLATFORM.fullmatch(platform):
        problems.append(f"{LINK} names no platform (platform={platform!r})")
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", frequency):
        problems.append(f"{LINK} has no kernel_frequency in MHz ({frequency!r})")
    if problems:
        raise BuildError(f"{root} cannot be built: " + "; ".join(problems))
    assert isinstance(tools, list)
    if platform != data.get("platform"):
        problems.append(
            f"{LINK} asks for platform {platform}, the project was written for {data.get('platform')}; "
            "compile for that platform instead of changing the line"
        )
    packed = data.get("packed") is not False  # the key is younger than the format
    return Folder(
        root, design, kernels, (str(tools[0]), str(tools[1])), str(data.get("board")), platform, frequency,
        packed, _estimates(root, problems),
        (*problems, *_missing(root, kernels, packed), *(_damaged(root) if packed else ())),
    )  # fmt: skip


def _kernels(data: Mapping[str, Any]) -> list[Any]:
    found = data.get("kernels")
    return [k.get("name") if isinstance(k, dict) else k for k in found] if isinstance(found, list) else []


def _name(value: Any, what: str, problems: list[str]) -> str:
    """A name that may be part of a path and of an argument."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    problems.append(f"{MANIFEST} calls {what} {value!r}, which is no identifier")
    return ""


def _json(root: Path, name: str) -> dict[str, Any]:
    """A JSON file of the project, of the format that this version writes."""
    file, (wanted, version) = root / name, FORMATS[name]
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BuildError(
            f"{file} is missing: {root} is no project, or one of an older torch2fpga; write it again"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict) or data.get("format") != wanted:
        raise BuildError(f"{file} does not hold a {wanted}")
    if data.get("format_version") != version:
        raise BuildError(f"{file} has format version {data.get('format_version')!r}, expected {version}")
    return data


def _estimates(root: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return _json(root, ESTIMATES)
    except BuildError as error:
        problems.append(str(error))
        return {}


def _link(root: Path) -> dict[str, str]:
    """Keys of ``link.cfg`` ahead of its first section."""
    try:
        text = (root / LINK).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BuildError(f"{root / LINK} cannot be read: {error}; write the project again") from error
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            break
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found[key.strip()] = value.strip()
    return found


def _missing(root: Path, kernels: tuple[str, ...], packed: bool) -> list[str]:
    """Sources and scripts that targets need."""
    bench = [("tb", "_tb.cpp")] if packed else []
    places = [("kernels", ".cpp"), *bench, ("hls", ".tcl"), ("hls", ".cfg")]
    wanted = [f"{folder}/{kernel}{end}" for kernel in kernels for folder, end in places]
    return [f"{name} is missing: write the project again" for name in wanted if not (root / name).is_file()]


def _damaged(root: Path) -> list[str]:
    """Files of ``SHA256SUMS`` that are not what was written."""
    try:
        lines = (root / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        return [f"{SUMS} cannot be read: {error}; write the project again"]
    problems = []
    for number, line in enumerate(lines, 1):
        wanted, gap, name = line.partition("  ")
        if not gap or not re.fullmatch(r"[0-9a-f]{64}", wanted):
            problems.append(f"{SUMS}:{number} is no checksum: {line[:80]!r}")
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            problems.append(f"{SUMS}:{number} names a file outside the project: {name!r}")
        elif not (root / name).is_file():
            problems.append(f"{name} is missing: write the project again")
        elif digest(root / name) != wanted:
            problems.append(f"{name} is not what was written (SHA-256): write the project again")
    return problems


def sources(root: Path, first: str, folders: tuple[str, ...]) -> tuple[str, ...]:
    """A C++ file and every project header that it includes, directly or not, sorted.

    Args:
        first: path in the project.
        folders: where quoted includes are looked for, after the including file's own folder.
    """
    found: set[str] = set()
    pending = [first]
    while pending:
        name = pending.pop()
        if name in found or not (root / name).is_file():
            continue
        found.add(name)
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        here = str(Path(name).parent)
        for wanted in _INCLUDE.findall(text):
            places = [Path(folder, wanted) for folder in (here, *folders)]
            inside = [p for p in places if ".." not in p.parts and not p.is_absolute()]
            pending += [p.as_posix() for p in inside if (root / p).is_file()][:1]
    return tuple(sorted(found))
