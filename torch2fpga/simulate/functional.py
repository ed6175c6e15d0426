# SPDX-License-Identifier: Apache-2.0
"""The functional run: the emitted C++, compiled by g++, all kernels at once with real FIFO depths."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.design import Design
from torch2fpga.emit.kernel import config_file, config_header, design_header, functional_source, kernel_source
from torch2fpga.emit.ports import all_ports, port_bytes
from torch2fpga.errors import SimulationError
from torch2fpga.simulate.build import FLAGS, build_library
from torch2fpga.simulate.launch import Launch

Bytes = NDArray[np.uint8]


def functional_sources(design: Design) -> dict[str, str]:
    """File name -> text of everything the functional run compiles."""
    files = {"design.hpp": design_header(design), "functional.cpp": functional_source(design)}
    for kernel in design.kernels:
        files[config_file(kernel)] = config_header(design, kernel)
        files[f"{kernel.name}.cpp"] = kernel_source(design, kernel)
    return files


@dataclass
class FunctionalResult:
    """What a run left.

    Attributes:
        buffers: output port name -> bytes.
        taps: stream name -> bytes of all its tokens (if recorded).
        message: what went wrong (empty if nothing did).
        report: JSON of a timed run.
    """

    buffers: dict[str, Bytes]
    taps: dict[str, Bytes] = field(default_factory=dict)
    message: str = ""
    report: str = ""


class FunctionalRun:
    """A compiled design, ready to run on buffers."""

    #: macros on top of those that every simulation is compiled with
    flags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, design: Design) -> None:
        self.design = design
        self.path: Path = build_library(functional_sources(design), (*FLAGS, *self.flags), stages=True)
        self._library = ctypes.CDLL(str(self.path))
        self._library.t2f_run.restype = ctypes.c_void_p
        self._library.t2f_run.argtypes = [
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        ]  # fmt: skip
        self._library.t2f_report.restype = ctypes.c_char_p
        self._library.t2f_report.argtypes = [ctypes.c_void_p]
        self._library.t2f_status.restype = ctypes.c_char_p
        self._library.t2f_status.argtypes = [ctypes.c_void_p]
        self._library.t2f_tap.restype = ctypes.c_void_p
        self._library.t2f_tap.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self._library.t2f_free.argtypes = [ctypes.c_void_p]

    def run(
        self,
        buffers: Mapping[str, Bytes],
        batch: int,
        seq: int,
        taps: Sequence[str] = (),
        past: int = 0,
        turns: int = 1,
    ) -> FunctionalResult:
        """Run once.

        Args:
            buffers: port name -> bytes for every read port (parameter ports: kernel_parameters), and for
                both ports of a cache, which the run leaves changed.
            past, turns: where tokens are generated, see ``Launch``.
            taps: streams whose tokens are recorded.
        Raises:
            SimulationError: deadlock or an exception in a process, with the runtime's report.
        """
        result = self._run(buffers, Launch(batch, seq, past, turns), taps, "")
        if result.message:
            raise SimulationError(result.message)
        return result

    def _run(
        self, buffers: Mapping[str, Bytes], launch: Launch, taps: Sequence[str], settings: str
    ) -> FunctionalResult:
        numbers = launch.numbers(self.design)
        sizes = (ctypes.c_int * len(numbers))(*numbers)
        ports = all_ports(self.design)
        results: dict[str, Bytes] = {}
        held: list[Bytes] = []
        pointers = (ctypes.c_void_p * len(ports))()
        outputs = (ctypes.c_void_p * len(ports))()
        for i, (kernel, port) in enumerate(ports):
            if port.write:
                size = port_bytes(port)
                results[port.name] = buffers.get(port.name, aligned(np.zeros(size, dtype=np.uint8)))
                outputs[i] = results[port.name].ctypes.data
                continue
            key = f"{kernel.name}_{port.name}" if port.role == "params" else port.name
            held.append(aligned(buffers[key]))
            pointers[i] = held[-1].ctypes.data
        handle = self._library.t2f_run(pointers, outputs, sizes, int(bool(taps)), settings.encode())
        try:
            message = self._library.t2f_status(handle).decode()
            report = self._library.t2f_report(handle).decode()
            found = {name: self._tap(handle, name) for name in taps}
            return FunctionalResult(results, found, message, report)
        finally:
            self._library.t2f_free(handle)

    def _tap(self, handle: int, name: str) -> Bytes:
        stream = self.design.streams[name]
        keys = ["link"] if stream.link else [k.name for k in self.design.kernels]
        size = ctypes.c_ulonglong()
        for key in keys:
            data = self._library.t2f_tap(handle, f"{key}/{name}".encode(), ctypes.byref(size))
            if data:
                return np.ctypeslib.as_array(
                    ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8)), (size.value,)
                ).copy()
        return np.zeros(0, dtype=np.uint8)


def aligned(content: Bytes) -> Bytes:
    """The bytes at a 64-byte boundary (memory words are vector registers to g++)."""
    if content.ctypes.data % 64 == 0 and content.flags.c_contiguous:
        return content
    room = np.empty(content.size + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    room[start : start + content.size] = content
    return room[start : start + content.size]


def output_rows(design: Design, values: Bytes, stream: str, batch: int, seq: int) -> Tensor:
    """The (batch, seq, channels) integers in an output buffer."""
    from torch2fpga.simulate.tokens import DTYPES, tokens_to_rows

    s = design.streams[stream]
    rows = 1 if s.one_row else seq
    count = batch * rows * s.layout.blocks(design.shape.lanes) * design.shape.lanes
    data = values.view(DTYPES[s.element])[:count]
    return tokens_to_rows(data, s.layout, batch, rows, design.shape)
