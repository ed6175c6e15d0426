# SPDX-License-Identifier: Apache-2.0
"""A compiled model: runs the emitted C++, its reference, verifies, writes the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from torch2fpga.boards import Board
from torch2fpga.capture import OutputSpec
from torch2fpga.design import Design
from torch2fpga.emit.images import images
from torch2fpga.emit.ports import all_ports
from torch2fpga.errors import InputError
from torch2fpga.passes.nodes import Node
from torch2fpga.plan.plan import Plan
from torch2fpga.plan.summary import Gain, PlanReport, summarise
from torch2fpga.runtime.host import Interface
from torch2fpga.simulate.functional import FunctionalResult, FunctionalRun, aligned, output_rows
from torch2fpga.simulate.reference import Reference
from torch2fpga.simulate.timed import TimedRun
from torch2fpga.simulate.verify import (
    VerifyReport,
    compare_float,
    compare_taps,
    output_cosines,
    recorded_streams,
    saturations,
    valid_rows,
)

if TYPE_CHECKING:
    from torch2fpga.timing.fifos import FifoReport
    from torch2fpga.timing.report import TimeReport


@dataclass(frozen=True)
class Origin:
    """Where a compiled model comes from; ``canonical`` is missing after loading from disk.

    Attributes:
        native: stream -> (role, canonical nodes, one a step), for comparison with float.
        exponents: row stream -> stream of its row exponents.
        plan: what was put into effect, complete; ``CompiledModel.plan`` reports on it.
        gains: what more of each of the card's limits would have bought, where it was optimised.
    """

    model_class: str
    parameters: int
    precision: str
    calibration_samples: int
    plan: Plan
    gains: tuple[Gain, ...] = ()
    notes: tuple[str, ...] = ()
    mapping: tuple[tuple[str, str, str], ...] = ()
    canonical: fx.GraphModule | None = None
    native: Mapping[str, tuple[str, tuple[Node, ...]]] = field(default_factory=dict)
    exponents: Mapping[str, str] = field(default_factory=dict)


class CompiledModel:
    """What ``torch2fpga.compile`` gives.

    Attributes:
        design: stages, streams, ports and kernels (data).
        interface: inputs and outputs of a call.
        board: the card it was compiled for.
        origin: model class, precision, calibration, notes.
    """

    def __init__(
        self,
        design: Design,
        data: Mapping[str, list[Mapping[str, Any]]],
        interface: Interface,
        output: OutputSpec,
        board: Board,
        origin: Origin,
    ) -> None:
        self.design = design
        self.data = data
        self.interface = interface
        self.output = output
        self.board = board
        self.origin = origin

    @cached_property
    def plan(self) -> PlanReport:
        """How wide arrays are, where everything lies, what the card's limits leave, and what binds.

        Print it, or take ``to_json()``; ``to_toml()`` can be edited and given to ``compile(plan=...)``.
        """
        return summarise(self.design, self.board, self.origin.plan, self.origin.gains)

    # -- running --------------------------------------------------------------------------

    @cached_property
    def functional(self) -> FunctionalRun:
        """The compiled C++ (built by g++ on first use, cached by content)."""
        return FunctionalRun(self.design)

    @cached_property
    def timed(self) -> TimedRun:
        """The same C++ with a clock (built on first use, cached by content)."""
        return TimedRun(self.design)

    @cached_property
    def images(self) -> dict[str, bytes]:
        """Weight, table and parameter images by port."""
        return images(self.design, self.data)

    @cached_property
    def _image_arrays(self) -> dict[str, NDArray[np.uint8]]:
        return {
            name: aligned(np.frombuffer(content, dtype=np.uint8)) for name, content in self.images.items()
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the emitted C++ (functional run).

        Inputs are the model's own, up to the compiled batch and tokens. Returns the model's
        output structure with float32 tensors.

        Raises:
            InputError: if the inputs do not fit.
            SimulationError: if the C++ does not build, deadlocks or fails.
        """
        inputs = self._bound(args, kwargs, "generate(input_ids, ...)")
        result = self._launch(inputs)
        return self.finish(result.buffers, inputs)

    def generate(self, input_ids: Tensor, **options: Any) -> Tensor:
        """Generate text with the emitted C++ (functional run), as ``model.generate`` of transformers does.

        Args:
            input_ids: (1, tokens), the prompt. More than compiled for at once goes in by several launches.
            max_new_tokens, max_length: tokens behind the prompt, or with it.
            do_sample, top_k, temperature, seed: draw from the ``top_k`` (at most 64, 50 if not given)
                largest logits, divided by ``temperature``. The draw depends on seed and position only.
                Without ``do_sample`` the largest logit is taken, of equal ones the smallest id.
            eos_token_id: token, or tokens, that end the text.
            streamer: takes the prompt and then every token (a transformers ``TextStreamer`` does).
            pad_token_id: ignored: there is one sequence, without padding.
            attention_mask: must be all ones.
        Returns:
            (1, tokens) int64: the prompt, and what was generated.
        Raises:
            InputError: for what is not supported, by name, and inputs that do not fit.
        """
        from torch2fpga.runtime.generation import generate

        return generate(self, input_ids, **options)

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], instead: str) -> dict[str, Tensor]:
        """The inputs of one pass; a model that generates makes none."""
        if self.design.turns:
            raise InputError(f"the model was compiled with generate=True: call {instead}")
        return self.interface.bind(args, kwargs, self.design)

    def reference(self, *args: Any, **kwargs: Any) -> Any:
        """The quantised reference in PyTorch: the same values as a call, bit for bit."""
        inputs = self._bound(args, kwargs, "generate(input_ids, ...)")
        values, _ = self._reference(inputs, keep=False)
        return self._finish([values[o.stream] for o in self.interface.outputs])

    def verify(self, *args: Any, **kwargs: Any) -> VerifyReport:
        """Run functional and reference and compare every stage; and with float where the model
        is at hand."""
        inputs = self._bound(args, kwargs, "verify_generation(model, ...) of torch2fpga.runtime.generation")
        streams = recorded_streams(self.design)
        result = self._launch(inputs, taps=streams)
        values, trace = self._reference(inputs, keep=True)
        rows = compare_taps(self.design, trace, result.taps)
        accuracy = compare_float(self.origin, inputs, trace)
        outputs = self._outputs(result.buffers, inputs)
        same = [
            torch.equal(o, values[i.stream]) for o, i in zip(outputs, self.interface.outputs, strict=True)
        ]
        real = [o.double() * i.scale for o, i in zip(outputs, self.interface.outputs, strict=True)]
        near = output_cosines(real, self._float(inputs), valid_rows(self.origin, inputs))
        ends = saturations(self.design, trace)
        return VerifyReport.build(self.design, rows, accuracy, same, near, ends)

    def time(
        self,
        *args: Any,
        clock_mhz: float | None = None,
        fifos: Mapping[str, int] | None = None,
        spread: bool = True,
        interval: bool = True,
        cycle_limit: int | None = None,
        progress: Callable[[str, float], None] | None = None,
        **kwargs: Any,
    ) -> TimeReport:
        """Run the emitted C++ with a clock in every process: cycles, stalls, FIFOs, memory ports.

        Inputs are the model's own. The values are those of a call, bit for bit
        (``report.output``). A deadlock is not raised but reported: ``report.deadlock``.

        Args:
            clock_mhz: kernel clock (the board's planned one if not given); memory is so many
                cycles slower or faster.
            fifos: depth of streams to try instead of the design's, by name.
            spread: also run at half and twice the pipeline depths, which are estimates.
            interval: also start three launches back to back and take the steady interval.
            cycle_limit: give up beyond this many cycles.
            progress: called with (what, fraction).
        Raises:
            InputError: if the inputs do not fit.
            SimulationError: if the C++ does not build, a stage does not end within the limit,
                token counts differ, or a stack overflows; the text names the stage.
        """
        from torch2fpga.timing.run import time_model

        inputs = self._bound(args, kwargs, "time_generation(input_ids, ...)")
        return time_model(
            self, inputs, clock_mhz=clock_mhz, fifos=fifos, spread=spread, interval=interval,
            cycle_limit=cycle_limit, progress=progress,
        )  # fmt: skip

    def time_generation(
        self,
        input_ids: Tensor | None = None,
        *,
        tokens: int = 1,
        context: int = 0,
        **options: Any,
    ) -> TimeReport:
        """Run a launch that generates with a clock in every process.

        The values in the cache do not matter for the time, so a step far into a text needs no text.

        Args:
            input_ids: (1, rows) that the launch takes (one token if not given).
            tokens: that it generates.
            context: rows in the cache before it.
            options: as of ``time``.
        Returns:
            As ``time``; ``report.tokens_per_second``, and the tokens as ``report.output``.
        Raises:
            InputError, SimulationError: as ``time``.
        """
        from torch2fpga.timing.run import time_generation

        return time_generation(self, input_ids, tokens, context, **options)

    def shrink_fifos(
        self,
        *,
        loss: float = 0.0,
        sizes: Sequence[tuple[int, int]] | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> FifoReport:
        """Cut FIFOs to the smallest depths that lose no cycle in timed runs (``report.model``).

        Args:
            loss: share of the cycles that may be lost for smaller FIFOs (0.02 is two per cent).
            sizes: (batch, tokens) of the timed runs; without them the compiled maximum and lengths
                that tiles do not divide.
            progress: called with (what, fraction).
        Raises:
            SimulationError: if a timed run fails.
        """
        from torch2fpga.timing.fifos import shrink_fifos

        if self.design.turns:
            raise InputError("FIFOs of a model that was compiled with generate=True are not cut")
        return shrink_fifos(self, loss=loss, sizes=sizes, progress=progress)

    def _float(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """The float model's outputs, (batch, seq, channels); none where it is not at hand."""
        module = self.origin.canonical
        if module is None:
            return []
        names = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
        with torch.no_grad():
            return list(module(*[inputs[n] for n in names]))

    def buffers(self, inputs: Mapping[str, Tensor]) -> dict[str, NDArray[np.uint8]]:
        """Contents of every memory port that is read, by port, for bound inputs."""
        quantised = self.interface.quantise(inputs)
        buffers = dict(self._image_arrays)
        for _, port in all_ports(self.design):
            if port.role in ("ids", "mask", "rows") and not port.write:
                buffers[port.name] = self.interface.buffer(port.binding, port.role, quantised, self.design)
        return buffers

    def finish(self, buffers: Mapping[str, NDArray[np.uint8]], inputs: Mapping[str, Tensor]) -> Any:
        """The model's output from the buffers of its output ports."""
        return self._finish(self._outputs(buffers, inputs))

    def _launch(self, inputs: Mapping[str, Tensor], taps: tuple[str, ...] = ()) -> FunctionalResult:
        batch, seq = next(iter(inputs.values())).shape[:2]
        return self.functional.run(self.buffers(inputs), int(batch), int(seq), taps)

    def _outputs(
        self, buffers: Mapping[str, NDArray[np.uint8]], inputs: Mapping[str, Tensor]
    ) -> list[Tensor]:
        batch, seq = next(iter(inputs.values())).shape[:2]
        return [
            output_rows(self.design, buffers[o.port], o.stream, int(batch), int(seq))
            for o in self.interface.outputs
        ]

    def _reference(self, inputs: Mapping[str, Tensor], keep: bool) -> tuple[dict[str, Tensor], Any]:
        quantised = self.interface.quantise(inputs)
        like = next(iter(quantised.values()))
        with torch.no_grad():
            return Reference(self.design, self.data).run(quantised, like, keep)

    def _finish(self, outputs: list[Tensor]) -> Any:
        return self.output.build(self.interface.restore(outputs))

    # -- writing --------------------------------------------------------------------------

    def write(self, path: str | Path, progress: Callable[[str, float], None] | None = None) -> list[Path]:
        """Write the Vitis project; returns the files written.

        The folder appears whole or not at all (written beside, then renamed).
        """
        from torch2fpga.emit.project import write_project

        return write_project(self, Path(path), progress)

    def report(
        self,
        path: str | Path,
        verification: VerifyReport | None = None,
        timing: TimeReport | None = None,
    ) -> Path:
        """Write one self-contained HTML page.

        With a verification its figures are shown, with a timed run its cycles and timeline.
        """
        from torch2fpga.report.build import write_report

        return write_report(self, Path(path), verification, timing)

    def save(self, path: str | Path) -> Path:
        """Save to a folder that ``torch2fpga.load`` reads (no pickle, checksums)."""
        from torch2fpga.persist import save

        return save(self, Path(path))

    def __repr__(self) -> str:
        d = self.design
        return (
            f"<CompiledModel {self.origin.model_class} for {self.board.name}: {len(d.stages)} stages in "
            f"{len(d.kernels)} kernels, {d.steps} layers in the loop, {self.origin.precision}>"
        )
