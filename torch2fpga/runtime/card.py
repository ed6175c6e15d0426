# SPDX-License-Identifier: Apache-2.0
"""A project's design on a card: ``torch2fpga.load(folder, device=...)``.

The project's host program is compiled (``host.build``) and kept running; each launch goes to it over a pipe
(``host --serve``, host/README.md). The same program serves a card and the emulated one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.capture import OutputSpec
from torch2fpga.design import Design, Layout, Port, Shape, Stream
from torch2fpga.emit.host import INTERFACE
from torch2fpga.emit.manifest import FILE, digest, read_manifest
from torch2fpga.errors import Error, InputError, WeightsError
from torch2fpga.host.build import host_program
from torch2fpga.runtime.generation import generate
from torch2fpga.runtime.host import InputSpec, Interface, OutputItem, TokenItem
from torch2fpga.simulate.card import emulated_environment
from torch2fpga.simulate.functional import FunctionalResult, output_rows

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

EMULATED = "emulated"
#: address of a card on the PCI bus
ADDRESS = re.compile(r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
#: seconds that a program which was told to end may take
GRACE = 10.0
INPUTS, OUTPUTS = ("ids", "mask", "rows", "settings"), ("output", "tokens")


class CardError(Error):
    """No device, the device failed, or a launch did not end in time; the text is the host program's."""


@dataclass(frozen=True)
class PortFormat:
    """A port of the manifest, as far as launches need it."""

    name: str
    role: str
    binding: str


def host_command(project: Path, device: int | str, timeout_ms: int) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a serving host program.

    Raises:
        InputError: if ``device`` is no index, address or ``"emulated"``.
        MissingTool, SimulationError, WeightsError: if it cannot be built.
    """
    index = isinstance(device, int) and not isinstance(device, bool) and 0 <= device < 10_000
    address = isinstance(device, str) and ADDRESS.fullmatch(device) is not None
    if not (index or address or device == EMULATED):
        raise InputError(
            f"device={device!r}: expected the index of a card (0), its address ('0000:3b:00.1') or 'emulated'"
        )
    emulated = device == EMULATED
    environment = emulated_environment(project) if emulated else dict(os.environ)
    command = [str(host_program(project)), "--serve", "--project", str(project)]
    command += ["--device", "0" if emulated else str(device), "--timeout-ms", str(timeout_ms)]
    return command, environment


class HostProcess:
    """A host program that serves launches; it is started again by the next launch after it has failed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], hint: str = "") -> None:
        self._command, self._environment, self._hint = list(command), dict(environment), hint
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._closer: Any = None
        with self._lock:
            self._start()

    def _start(self) -> None:
        """Raises CardError if the program does not get ready."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip
        self._closer = weakref.finalize(self, _end, self._process, self._errors)
        line = self._line()
        if not line.startswith("ready "):
            raise self._failed(line)

    def launch(self, numbers: Sequence[int], inputs: Sequence[bytes]) -> list[bytes]:
        """Contents of the output ports after a launch.

        Args:
            numbers: batch, seq, past, turns.
            inputs: content of every input port, in the manifest's order.
        Raises:
            InputError: if the program refuses the launch; it can go on.
            CardError: if the launch or the program failed.
        """
        with self._lock:
            if self._process is None:
                self._start()
            process = self._process
            assert process is not None and process.stdin is not None and process.stdout is not None
            head = " ".join(str(n) for n in (*numbers, *(len(i) for i in inputs)))
            try:
                process.stdin.write(f"run {head}\n".encode() + b"".join(inputs))
                process.stdin.flush()
            except BrokenPipeError:
                raise self._failed("") from None
            word, _, rest = self._line().partition(" ")
            if word == "refused":
                raise InputError(rest)
            if word != "ok":
                raise self._failed(f"{word} {rest}")
            found = [process.stdout.read(int(size)) for size in rest.split()]
            if [len(f) for f in found] != [int(size) for size in rest.split()]:
                raise self._failed("")
            return found

    def _line(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().decode(errors="replace").rstrip("\n")

    def _failed(self, line: str) -> CardError:
        """What the program said; it is ended."""
        assert self._process is not None and self._errors is not None
        _wait(self._process)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().removeprefix("host: ")
        status = self._process.returncode
        self._close()
        text = line.removeprefix("failed ").strip() or said or f"the host program ended with {status}"
        return CardError(text + self._hint)

    def _close(self) -> None:
        self._closer()
        self._process = self._errors = None

    def close(self) -> None:
        """End the program; the next launch starts it again."""
        with self._lock:
            if self._process is not None:
                self._close()


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Until the program has ended, by force if need be."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it may have ended by itself
        process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """The end of its input ends the program."""
    _wait(process)
    assert process.stdout is not None
    process.stdout.close()
    errors.close()


class CardRun:
    """Launches on a device, with the interface of the functional run."""

    def __init__(self, process: HostProcess, ports: Sequence[PortFormat]) -> None:
        self.process = process
        self.inputs = [p.name for p in ports if p.role in INPUTS]
        self.outputs = [p.name for p in ports if p.role in OUTPUTS]

    def run(
        self,
        buffers: Mapping[str, NDArray[np.uint8]],
        batch: int,
        seq: int,
        taps: Sequence[str] = (),
        past: int = 0,
        turns: int = 1,
    ) -> FunctionalResult:
        """Run once; see ``FunctionalRun.run``. Caches stay on the device."""
        if taps:
            raise InputError("streams inside of a card cannot be recorded; use the compiled model")
        found = self.process.launch(
            (batch, seq, past, turns), [buffers[name].tobytes() for name in self.inputs]
        )
        values = (np.frombuffer(f, dtype=np.uint8) for f in found)
        return FunctionalResult(dict(zip(self.outputs, values, strict=True)))


class CardModel:
    """A project's design on a device: called, or asked to ``generate``, as a ``CompiledModel``.

    Attributes:
        design: shape and ports, no stages.
        interface: inputs and outputs of a call.
        device: index, address or ``"emulated"``.
    """

    def __init__(self, path: str | Path, device: int | str, timeout_ms: int = 60_000) -> None:
        """Compile the project's host program, open the device and load everything.

        Raises:
            InputError, MissingTool, SimulationError, WeightsError: see ``host_command``.
            CardError: if there is no such device; the text says what was looked for.
        """
        self.device = device
        folder = Path(path).resolve()
        data = read_manifest(folder)
        extra = _read_interface(folder)
        command, environment = host_command(folder, device, timeout_ms)
        self._ports = [PortFormat(p["argument"], p["role"], p["binding"]) for p in data["ports"]]
        self.interface = _interface(data, extra)
        self.output = OutputSpec(extra["kind"], tuple(extra["names"]), extra["class_name"])
        self.design = _design(data, self.interface)
        hint = "" if device == EMULATED else "\nwithout a card: torch2fpga.load(..., device='emulated')"
        self.functional = CardRun(HostProcess(command, environment, hint), self._ports)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model; see ``CompiledModel.__call__``."""
        if self.design.turns:
            raise InputError("the model was compiled with generate=True: call generate(input_ids, ...)")
        inputs = self.interface.bind(args, kwargs, self.design)
        batch, seq = (int(n) for n in next(iter(inputs.values())).shape[:2])
        result = self.functional.run(self.buffers(inputs), batch, seq)
        values = [
            output_rows(self.design, result.buffers[o.port], o.stream, batch, seq)
            for o in self.interface.outputs
        ]
        return self.output.build(self.interface.restore(values))

    def generate(self, input_ids: Tensor, **options: Any) -> Tensor:
        """Generate tokens; see ``CompiledModel.generate``."""
        # What generation needs of a compiled model is here: design, interface, functional, buffers.
        return generate(cast("CompiledModel", self), input_ids, **options)

    def buffers(self, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
        """Contents of the input ports, for bound inputs."""
        quantised = self.interface.quantise(inputs)
        return {
            p.name: self.interface.buffer(p.binding, p.role, quantised, self.design)
            for p in self._ports
            if p.role in ("ids", "mask", "rows")
        }

    def close(self) -> None:
        """Give the device back."""
        self.functional.process.close()

    def __enter__(self) -> CardModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<CardModel {self.design.name} on device {self.device}>"


# -- from the project's files -----------------------------------------------------------------


def _read_interface(folder: Path) -> dict[str, Any]:
    """``host/interface.json``, of the same project as the manifest."""
    file = folder / INTERFACE
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        wanted = digest((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); write the project again") from error
    if found.get("manifest_sha256") != wanted:
        raise WeightsError(
            f"{file} belongs to another manifest than {folder / FILE}; write the project again"
        )
    return found


def _tensor(scale: float | list[float]) -> Tensor:
    return torch.tensor(scale if isinstance(scale, list) else [scale], dtype=torch.float64)


def _interface(data: Mapping[str, Any], extra: Mapping[str, Any]) -> Interface:
    """Inputs and outputs of a call."""
    inputs = []
    for entry in data["inputs"]:
        fields = {k: entry[k] for k in ("name", "kind", "rank")}
        if entry["kind"] == "rows":
            fields |= {k: entry[k] for k in ("bits", "element", "swapped")}
            fields |= {"layout": Layout(**entry["layout"]), "scale": _tensor(entry["scale"])}
        else:
            fields["entries"] = entry["entries"]
        inputs.append(InputSpec(**fields))
    outputs = []
    for o, view in zip(data["outputs"], extra["views"], strict=True):
        layout, scale = Layout(**o["layout"]), _tensor(o["scale"])
        outputs.append(OutputItem(o["stream"], o["port"], scale, o["element"], layout, o["one_row"], view))
    unit = data["generation"]["logits_scale"] if "generation" in data else None
    return Interface(tuple(inputs), tuple(outputs), None if unit is None else TokenItem("", unit))


def _design(data: Mapping[str, Any], interface: Interface) -> Design:
    """What packing of inputs and outputs needs of the design."""
    streams = {
        o.stream: Stream(o.stream, "rows", o.element, o.layout, one_row=o.one_row) for o in interface.outputs
    }
    ports = tuple(
        Port(p["argument"], p["kernel"], p["direction"], p["role"], p["binding"], p["bytes"] // 64, "", ())
        for p in data["ports"]
    )
    turns = data["generation"]["turns"] if "generation" in data else 0
    return Design(data["design"], Shape(**data["shape"]), (), streams, ports, turns=turns)
