# SPDX-License-Identifier: Apache-2.0
"""The device of the GPU baseline: its clock, its energy counter, the bandwidth of its memory.

On a GPU a step is timed with CUDA events, on the CPU (which tests and dry runs use) with perf_counter.
NVML comes with the driver; its Python package ``nvidia-ml-py`` is optional, and what needs it says so when
it is missing.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

#: bytes that the measured copy reads: far more than any cache of a GPU; on the CPU only the program is tried
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 22}
#: bits on a pin in a cycle of the memory clock that NVML and CUDA report
TRANSFERS = 2


class NoGpu(Exception):
    """There is no CUDA device; the text says what was looked for."""


class NotMeasured(Exception):
    """A quantity that this machine does not give; the text says why."""


@dataclass(frozen=True)
class Energy:
    """Energy of many calls, from the whole board's counter.

    Attributes:
        millijoules: of one call.
        watts: mean over the time.
        seconds: how long the calls took together.
        calls: how many there were.
    """

    millijoules: float
    watts: float
    seconds: float
    calls: int


@dataclass(frozen=True)
class Bandwidth:
    """Bandwidth of the memory in GB/s, and how it is known (one of ``common.OBTAINED``, and in words)."""

    gbs: float
    obtained: str
    how: str


class Nvml:
    """NVML's view of one CUDA device.

    Raises:
        NotMeasured: without the package, without the driver, or for a device that NVML does not show.
    """

    def __init__(self, uuid: str) -> None:
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except ImportError:
            raise NotMeasured("pynvml is not installed (pip install nvidia-ml-py)") from None
        self._handle: Any = None
        self.ask("nvmlInit")
        self.driver = str(self.ask("nvmlSystemGetDriverVersion"))
        self._handle = self.ask("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}")

    def ask(self, function: str, *arguments: Any) -> Any:
        """The answer of an NVML function; its first argument, the device, is added where there is one.

        Raises:
            NotMeasured: if NVML refuses, with its reason.
        """
        if self._handle is not None:
            arguments = (self._handle, *arguments)
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError as error:
            raise NotMeasured(f"{function}: {error}") from None


class Device:
    """What models run on.

    Args:
        name: "cuda", "cuda:1", or "cpu" to try the program.
    Raises:
        NoGpu: if a GPU is asked for and there is none.
    """

    def __init__(self, name: str) -> None:
        self.torch = torch.device(name)
        self.cuda = self.torch.type == "cuda"
        if self.cuda and not torch.cuda.is_available():
            raise NoGpu(_what_was_looked_for())
        self.nvml: Nvml | None = None
        self.no_nvml = "the device is not a GPU"
        self.title = "CPU, to try the program"
        if not self.cuda:
            return
        index = self.torch.index or 0
        if index >= torch.cuda.device_count():
            raise NoGpu(f"no {name}: torch sees {torch.cuda.device_count()} CUDA devices")
        self.torch = torch.device("cuda", index)
        torch.cuda.set_device(self.torch)
        self._properties = torch.cuda.get_device_properties(self.torch)
        self.title = self._properties.name
        try:
            self.nvml = Nvml(str(self._properties.uuid))
        except NotMeasured as error:
            self.no_nvml = str(error)

    def details(self) -> dict[str, Any]:
        """What a reader needs to judge a time on this device."""
        if not self.cuda:
            return {"name": self.title}
        found: dict[str, Any] = {
            "name": self.title,
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(self.torch))),
            "memory_gb": round(self._properties.total_memory / 1e9, 1),
            "multiprocessors": self._properties.multi_processor_count,
        }
        if self.nvml is None:
            found["nvml"] = self.no_nvml
        if self.nvml is not None:
            found["driver"] = self.nvml.driver
            for key, ask, *more in (
                ("power_limit_mw", "nvmlDeviceGetPowerManagementLimit"),
                ("sm_clock_mhz_max", "nvmlDeviceGetMaxClockInfo", 1),
                ("memory_clock_mhz_max", "nvmlDeviceGetMaxClockInfo", 2),
            ):
                try:
                    found[key] = self.nvml.ask(ask, *more)
                except NotMeasured as error:
                    found[key] = f"not known: {error}"
        return found

    def synchronize(self) -> None:
        """Wait until everything that was started has ended."""
        if self.cuda:
            torch.cuda.synchronize(self.torch)

    def milliseconds(
        self, call: Callable[[], Any], prepare: Callable[[], Any], steps: int, warm_up: int
    ) -> list[float]:
        """Time of each of ``steps`` calls, after ``warm_up`` others; ``prepare`` goes before each, untimed.

        The device is idle when a call begins: as in generation, where the next token is not known before
        the last one is there. What Python takes to start the kernels is therefore part of a time.
        """
        for _ in range(warm_up):
            prepare()
            call()
        times = []
        for _ in range(steps):
            prepare()
            self.synchronize()
            times.append(self._events(call) if self.cuda else _wall(call))
        return times

    def _events(self, call: Callable[[], Any]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    def energy(self, call: Callable[[], Any], prepare: Callable[[], Any], seconds: float) -> Energy:
        """Energy of a call, by the counter of the whole board, over at least ``seconds`` of calls.

        The counter moves every 20 to 100 ms, so that 5 s leave an error of 2 % at most.

        Raises:
            NotMeasured: without such a counter.
        """
        if self.nvml is None:
            raise NotMeasured(self.no_nvml)
        before = self.nvml.ask("nvmlDeviceGetTotalEnergyConsumption")
        start, calls = time.perf_counter(), 0
        while (took := time.perf_counter() - start) < seconds:
            prepare()
            call()
            self.synchronize()
            calls += 1
        used = self.nvml.ask("nvmlDeviceGetTotalEnergyConsumption") - before
        if calls == 0 or used <= 0:
            raise NotMeasured(f"the energy counter did not move in {took:.1f} s")
        return Energy(used / calls, used / took / 1000, took, calls)

    def peak_bandwidth(self) -> Bandwidth:
        """Bandwidth from the memory's clock and width, as the driver states them.

        Raises:
            NotMeasured: if neither NVML nor torch know them.
        """
        how = "highest memory clock x bus width x 2"
        reason = self.no_nvml
        if self.nvml is not None:
            try:
                clock = self.nvml.ask("nvmlDeviceGetMaxClockInfo", 2)  # 2: NVML_CLOCK_MEM, in MHz
                width = self.nvml.ask("nvmlDeviceGetMemoryBusWidth")
                return Bandwidth(clock * width * TRANSFERS / 8000, "modelled", f"{how} (NVML)")
            except (NotMeasured, AttributeError) as error:
                reason = str(error)
        if self.cuda:
            khz = getattr(self._properties, "memory_clock_rate", 0)
            width = getattr(self._properties, "memory_bus_width", 0)
            if khz and width:
                return Bandwidth(khz * width * TRANSFERS / 8e6, "modelled", f"{how} (CUDA)")
        raise NotMeasured(reason)

    def copy_bandwidth(self) -> Bandwidth:
        """Bandwidth of a large copy, reads and writes counted: what the memory gives in practice."""
        size = COPY_BYTES[self.torch.type]
        source = torch.zeros(size, dtype=torch.uint8, device=self.torch)
        target = torch.empty_like(source)
        times = self.milliseconds(lambda: target.copy_(source), lambda: None, steps=20, warm_up=3)
        return Bandwidth(
            2 * size / min(times) / 1e6, "measured here", f"copy of {size >> 20} MiB, best of 20"
        )


def _wall(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _what_was_looked_for() -> str:
    built = torch.version.cuda
    build = f"built for CUDA {built}" if built else "a build without CUDA"
    return (
        f"no CUDA GPU found: torch.cuda.is_available() is false in torch {torch.__version__} ({build}). "
        "Needed are an NVIDIA GPU, its driver (does nvidia-smi show the GPU?) and a CUDA build of torch. "
        "To try the program without one: --device cpu --models tiny-gpt2 --prefill 32 --context 64 --steps 5"
    )
