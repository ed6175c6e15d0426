# SPDX-License-Identifier: Apache-2.0
"""``manifest.json`` of a project: what every file, port and stage is; reading images back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from torch2fpga.boards import Board
from torch2fpga.design import Design, Kernel
from torch2fpga.emit.golden import SEED, Golden
from torch2fpga.emit.images import CONSTANT_ROLES
from torch2fpga.emit.link import channels, stream_ends
from torch2fpga.emit.ports import KernelPort, kernel_ports, port_bytes
from torch2fpga.emit.sums import sums_shape
from torch2fpga.emit.testbench import weights_path
from torch2fpga.errors import WeightsError
from torch2fpga.runtime.host import InputSpec, Interface, OutputItem
from torch2fpga.version import __version__

if TYPE_CHECKING:
    from torch2fpga.compiled import Origin

FILE = "manifest.json"
SUMS = "SHA256SUMS"
FORMAT = "torch2fpga project"
FORMAT_VERSION = 1


class Described(Protocol):
    """What a manifest is made of: a compiled model, or a design without weights."""

    @property
    def design(self) -> Design: ...
    @property
    def board(self) -> Board: ...
    @property
    def interface(self) -> Interface: ...
    @property
    def origin(self) -> Origin: ...


def digest(content: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sums_text(blobs: Mapping[str, bytes]) -> str:
    """``SHA256SUMS`` as the tool sha256sum reads it."""
    return digests_text({name: digest(content) for name, content in blobs.items()})


def digests_text(digests: Mapping[str, str]) -> str:
    """The same of files whose SHA-256 is known."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))


def manifest(
    compiled: Described,
    golden: Golden | None,
    digests: Mapping[str, str],
    outline: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest as data.

    Args:
        golden: golden run; None without weights.
        digests: SHA-256 of the images by path; none without weights.
        outline: what a project without weights was made from; ``torch2fpga pack`` needs it.
    """
    design, board, origin = compiled.design, compiled.board, compiled.origin
    where = channels(design, board)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "packed": golden is not None,
        **({} if outline is None else {"outline": outline}),
        "torch2fpga": __version__,
        "model": {"class": origin.model_class, "parameters": origin.parameters, "notes": list(origin.notes)},
        "design": design.name,
        "board": board.name,
        "part": board.part,
        "platform": board.platform,
        "tools": list(board.tools),
        "clock_mhz": board.clock_mhz,
        "precision": origin.precision,
        "shape": {
            "lanes": design.shape.lanes,
            "tile": design.shape.tile,
            "max_batch": design.shape.max_batch,
            "max_seq": design.shape.max_seq,
            **({"max_keys": design.shape.max_keys} if design.shape.max_keys else {}),
        },
        "steps": design.steps,
        "kernels": [_kernel(kernel) for kernel in design.kernels],
        "ports": [
            _port(kernel, port, index, where[kernel.name, port.name], digests)
            for kernel in design.kernels
            for index, port in enumerate(kernel_ports(design, kernel))
        ],
        "links": [
            {"stream": name, "from": writer, "to": reader, "depth": depth}
            for name, writer, reader, depth in stream_ends(design)
        ],
        "inputs": [_input(spec, design) for spec in compiled.interface.inputs],
        "outputs": [_output(item, golden is not None) for item in compiled.interface.outputs],
        **_generation(compiled, golden is not None),
        **sums_shape(design),
        "stages": _stages(design),
        **({"golden": _golden(golden, design)} if golden is not None else {}),
    }


def _golden(golden: Golden, design: Design) -> dict[str, Any]:
    return {
        "batch": golden.batch,
        "seq": golden.seq,
        "seed": SEED,
        **({"turns": golden.turns} if design.turns else {}),
        "files": {
            name: {"bytes": len(content), "sha256": digest(content)} for name, content in golden.files.items()
        },
    }


def _generation(compiled: Described, packed: bool) -> dict[str, Any]:
    """What a host needs to know to generate tokens."""
    token = compiled.interface.token
    if token is None:
        return {}
    return {
        "generation": {
            "turns": compiled.design.turns,
            "tokens": compiled.design.port_of("tokens").name,
            "settings": compiled.design.port_of("settings").name,
            "logits_scale": token.scale if packed else None,
        }
    }


def manifest_text(data: Mapping[str, Any]) -> str:
    """The manifest as JSON: same data, same bytes; ASCII, names of the model escaped."""
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def _kernel(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "file": f"kernels/{kernel.name}.cpp",
        "slr": kernel.slr,
        "axis_in": list(kernel.axis_in),
        "axis_out": list(kernel.axis_out),
    }


def _port(
    kernel: Kernel, port: KernelPort, index: int, channel: int, digests: Mapping[str, str]
) -> dict[str, Any]:
    constant = port.role in CONSTANT_ROLES
    path = weights_path(kernel, port) if constant else None
    return {
        "kernel": kernel.name,
        "argument": port.name,
        "index": index,
        "direction": "write" if port.write else "read",
        "role": port.role,
        "binding": port.binding,
        "hbm": channel,
        "bytes": port_bytes(port),
        "file": path,
        "sha256": digests.get(path) if path else None,
    }


def _scale(values: Tensor | None) -> float | list[float] | None:
    """One number where all channels share it."""
    if values is None:
        return None
    numbers = [float(v) for v in values.reshape(-1).tolist()]
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _input(spec: InputSpec, design: Design) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": spec.name,
        "kind": spec.kind,
        "rank": spec.rank,
        "ports": [p.name for p in design.ports if p.direction == "read" and p.binding == spec.name],
    }
    if spec.kind == "rows":
        layout = {"groups": spec.layout.groups, "size": spec.layout.size}
        found |= {"bits": spec.bits, "element": spec.element, "layout": layout, "swapped": spec.swapped}
        found["scale"] = _scale(spec.scale)
    else:
        found["entries"] = spec.entries
    return found


def _output(item: OutputItem, packed: bool) -> dict[str, Any]:
    return {
        "port": item.port,
        "stream": item.stream,
        "element": item.element,
        "layout": {"groups": item.layout.groups, "size": item.layout.size},
        "one_row": item.one_row,
        "scale": _scale(item.scale) if packed else None,
    }


def _stages(design: Design) -> list[dict[str, Any]]:
    owner = {stage: kernel.name for kernel in design.kernels for stage in kernel.stages}
    return [
        {
            "name": stage.name,
            "template": stage.template,
            "path": stage.path,
            "kernel": owner[stage.name],
            "group": stage.group,
            "steps": stage.steps,
        }
        for stage in design.stages
    ]


# -- reading ----------------------------------------------------------------------------------


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a project folder.

    Raises:
        WeightsError: if it is missing, not JSON, or of another format or version.
    """
    file = Path(path) / FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{file} is missing: {path} is no torch2fpga project") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise WeightsError(f"{file} is not a manifest of a {FORMAT}")
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        raise WeightsError(f"{file} has format version {version}, expected {FORMAT_VERSION}")
    return data


def load_images(path: str | Path) -> dict[str, bytes]:
    """Image name -> bytes of every constant port of a project, sizes and checksums verified.

    Raises:
        WeightsError: with every file that is missing, truncated or corrupt; without weights.
    """
    root, data = Path(path), read_manifest(path)
    if data.get("packed") is False:
        raise WeightsError(f"{root} has no weights yet: torch2fpga pack puts them in")
    found: dict[str, bytes] = {}
    problems: list[str] = []
    try:
        for port in data["ports"]:
            if port["file"] is None:
                continue
            content, problem = _image(root, port)
            if problem:
                problems.append(problem)
            found[Path(port["file"]).stem] = content
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{root / FILE} is damaged: {error!r}") from error
    if problems:
        raise WeightsError("; ".join(problems))
    return found


def _image(root: Path, port: Mapping[str, Any]) -> tuple[bytes, str]:
    """Content of a port's file, and what is wrong with it."""
    name = str(port["file"])
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return b"", f"{name} lies outside the project"
    try:
        content = (root / name).read_bytes()
    except OSError as error:
        return b"", f"{name} cannot be read: {error.strerror}"
    if len(content) != port["bytes"]:
        return b"", f"{name} has {len(content)} bytes, expected {port['bytes']}"
    if digest(content) != port["sha256"]:
        return b"", f"{name} has SHA-256 {digest(content)}, expected {port['sha256']}"
    return content, ""
