# SPDX-License-Identifier: Apache-2.0
"""Save and load compiled models: a folder with JSON and safetensors, checked by checksum.

No pickle. Interrupted saves leave nothing: the folder is written beside and renamed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from torch2fpga.boards import board_at
from torch2fpga.capture import OutputSpec
from torch2fpga.compiled import CompiledModel, Origin
from torch2fpga.design import Design, Kernel, Layout, Port, Shape, Stage, Stream
from torch2fpga.errors import WeightsError
from torch2fpga.plan.plan import load_plan
from torch2fpga.plan.summary import Gain
from torch2fpga.runtime.host import InputSpec, Interface, OutputItem, TokenItem
from torch2fpga.verifier import verify_design

if TYPE_CHECKING:
    from torch2fpga.runtime.card import CardModel

FORMAT = 4
MODEL, TENSORS = "model.json", "constants.safetensors"


def _stage_classes() -> dict[str, type[Stage]]:
    import torch2fpga.lower.operators  # noqa: F401
    from torch2fpga.lower import gather, plumbing, quantize_rows, requant  # noqa: F401

    found: dict[str, type[Stage]] = {}
    todo: list[type[Stage]] = [Stage]
    while todo:
        cls = todo.pop()
        found[cls.__name__] = cls
        todo += cls.__subclasses__()
    return found


def _plain(value: Any) -> Any:
    """Dataclasses and tuples as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _stage(entry: Mapping[str, Any], classes: Mapping[str, type[Stage]]) -> Stage:
    cls = classes.get(str(entry["class"]))
    if cls is None:
        raise WeightsError(f"{MODEL}: unknown stage class {entry['class']!r}")
    fields = dict(entry["fields"])
    for name, value in fields.items():
        if name.startswith("layout"):
            fields[name] = Layout(**value)
        elif name == "like":
            fields[name] = _stream(value)
        elif isinstance(value, list):
            fields[name] = tuple(value)
    return cls(**fields)


def _stream(entry: Mapping[str, Any]) -> Stream:
    return Stream(**{**entry, "layout": Layout(**entry["layout"])})


def _port(entry: Mapping[str, Any]) -> Port:
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["config"].items()}
    return Port(
        **{**entry, "streams": tuple(entry["streams"]), "sums": tuple(entry["sums"]), "config": config}
    )


def _kernel(entry: Mapping[str, Any]) -> Kernel:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Kernel(**fields)


def save(compiled: CompiledModel, path: Path) -> Path:
    """Write ``compiled`` to the folder ``path`` (replaced as a whole if it is one of ours)."""
    if path.exists() and not _is_ours(path):
        raise WeightsError(f"{path} exists and is no saved model of torch2fpga; choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    os.chmod(work, 0o777 & ~_umask())  # mkdtemp makes private folders
    try:
        tensors, numbers = _constants(compiled)
        for i, (spec, item) in enumerate(
            [(s, None) for s in compiled.interface.inputs] + [(None, o) for o in compiled.interface.outputs]
        ):
            scale = spec.scale if spec is not None else item.scale if item is not None else None
            if scale is not None:
                tensors[f"interface/{i}"] = scale.contiguous().clone()
        save_file(tensors, work / TENSORS)
        digest = hashlib.sha256((work / TENSORS).read_bytes()).hexdigest()
        document = _document(compiled, numbers, digest)
        # Order is kept: configurations appear in the emitted text in this order.
        (work / MODEL).write_text(json.dumps({**document, "checksum": _checksum(document)}))
        if path.exists():
            shutil.rmtree(path)
        os.replace(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return path


def _checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of a document in canonical form."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _is_ours(path: Path) -> bool:
    """A folder with nothing but a saved model in it (replacing it loses nothing else)."""
    if not path.is_dir() or {p.name for p in path.iterdir()} != {MODEL, TENSORS}:
        return False
    try:
        return json.loads((path / MODEL).read_text()).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _constants(compiled: CompiledModel) -> tuple[dict[str, Tensor], dict[str, list[dict[str, Any]]]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, list[dict[str, Any]]] = {}
    for stage, steps in compiled.data.items():
        numbers[stage] = []
        for i, step in enumerate(steps):
            plain = {k: v for k, v in step.items() if not isinstance(v, Tensor)}
            numbers[stage].append(plain)
            for key, value in step.items():
                if isinstance(value, Tensor):
                    tensors[f"{stage}/{i}/{key}"] = value.contiguous().clone()
    return tensors, numbers


def _document(compiled: CompiledModel, numbers: Mapping[str, Any], digest: str) -> dict[str, Any]:
    d, origin = compiled.design, compiled.origin
    strip = {"scale"}
    return {
        "format": FORMAT,
        "sha256": digest,
        "board": compiled.board.name,
        "design": {
            "name": d.name,
            "shape": _plain(d.shape),
            "steps": d.steps,
            "stages": [{"class": type(s).__name__, "fields": _plain(s)} for s in d.stages],
            "streams": [_plain(s) for s in d.streams.values()],
            "ports": [_plain(p) for p in d.ports],
            "kernels": [_plain(k) for k in d.kernels],
            "channels": dict(d.channels),
            "turns": d.turns,
            "logic": [{"class": type(s).__name__, "fields": _plain(s)} for s in d.logic],
        },
        "numbers": numbers,
        "inputs": [{k: v for k, v in _plain(i).items() if k not in strip} for i in compiled.interface.inputs],
        "outputs": [
            {k: v for k, v in _plain(o).items() if k not in strip} for o in compiled.interface.outputs
        ],
        "token": _plain(compiled.interface.token) if compiled.interface.token is not None else None,
        "output": _plain(compiled.output),
        "origin": {
            "model_class": origin.model_class,
            "parameters": origin.parameters,
            "precision": origin.precision,
            "calibration_samples": origin.calibration_samples,
            "plan": origin.plan.to_json(),
            "gains": [_plain(g) for g in origin.gains],
            "notes": list(origin.notes),
            "mapping": [list(m) for m in origin.mapping],
        },
    }


@overload
def load(path: str | Path) -> CompiledModel: ...
@overload
def load(path: str | Path, device: int | str) -> CardModel: ...


def load(path: str | Path, device: int | str | None = None) -> CompiledModel | CardModel:
    """A compiled model from a folder that ``CompiledModel.save`` wrote, or a project on a card.

    The float model is not part of it, so ``verify`` compares the functional run with the
    reference only.

    Args:
        device: of a project (``CompiledModel.write``): index of a card (0), its address
            (``"0000:3b:00.1"``), or ``"emulated"``.
    Raises:
        WeightsError: if files are missing, damaged or of another format.
        CardError, MissingTool: if there is no such card, or no XRT; the text says what was looked for.
    """
    if device is not None:
        from torch2fpga.runtime.card import CardModel

        return CardModel(path, device)
    folder = Path(path)
    try:
        document = json.loads((folder / MODEL).read_text())
        content = (folder / TENSORS).read_bytes()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} is no saved model: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"{folder / MODEL} is no saved model")
    if document.get("format") != FORMAT:
        raise WeightsError(f"{folder}: format {document.get('format')!r}, this version reads {FORMAT}")
    if document.pop("checksum", None) != _checksum(document):
        raise WeightsError(f"{folder / MODEL}: the checksum of its content does not match")
    found = hashlib.sha256(content).hexdigest()
    if found != document["sha256"]:
        raise WeightsError(f"{folder / TENSORS}: checksum {found[:16]}…, expected {document['sha256'][:16]}…")
    tensors = load_file(folder / TENSORS)
    design = _design(document["design"])
    verify_design(design)
    data = _data(document["numbers"], tensors)
    interface = _interface(document, tensors)
    output = document["output"]
    spec = OutputSpec(output["kind"], tuple(output["names"]), output["class_name"])
    o = document["origin"]
    origin = Origin(
        o["model_class"], o["parameters"], o["precision"], o["calibration_samples"],
        load_plan(o["plan"]), tuple(Gain(**g) for g in o["gains"]), tuple(o["notes"]),
        tuple((str(a), str(b), str(c)) for a, b, c in o["mapping"]),
    )  # fmt: skip
    board = board_at(document["board"], origin.plan.clock_mhz)
    return CompiledModel(design, data, interface, spec, board, origin)


def _design(entry: Mapping[str, Any]) -> Design:
    classes = _stage_classes()
    streams = [_stream(s) for s in entry["streams"]]
    return Design(
        entry["name"],
        Shape(**entry["shape"]),
        tuple(_stage(s, classes) for s in entry["stages"]),
        {s.name: s for s in streams},
        tuple(_port(p) for p in entry["ports"]),
        tuple(_kernel(k) for k in entry["kernels"]),
        entry["steps"],
        dict(entry.get("channels", {})),
        int(entry.get("turns", 0)),
        tuple(_stage(s, classes) for s in entry.get("logic", [])),
    )


def _data(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, list[Mapping[str, Any]]]:
    data: dict[str, list[dict[str, Any]]] = {k: [dict(s) for s in v] for k, v in numbers.items()}
    for key, value in tensors.items():
        stage, step, name = key.split("/", 2) if key.count("/") == 2 else ("", "", "")
        if stage in data:
            data[stage][int(step)][name] = value
    return {k: list(v) for k, v in data.items()}


def _interface(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Interface:
    inputs, outputs = [], []
    for i, entry in enumerate([*document["inputs"], *document["outputs"]]):
        fields = {**entry, "layout": Layout(**entry["layout"]), "scale": tensors.get(f"interface/{i}")}
        if i < len(document["inputs"]):
            inputs.append(InputSpec(**fields))
        else:
            outputs.append(
                OutputItem(
                    **{**fields, "scale": fields["scale"] if fields["scale"] is not None else torch.ones(1)}
                )
            )
    token = document.get("token")
    return Interface(tuple(inputs), tuple(outputs), TokenItem(**token) if token is not None else None)
