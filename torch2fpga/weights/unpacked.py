# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.emit_outline``: the project of a Hugging Face configuration, without weights.

Kernels, build files and ``manifest.json`` are those of the model with weights: they say shapes, not numbers.
What depends on weights comes with ``torch2fpga.pack``: ``weights/``, ``golden/``, ``tb/``, ``emulation/`` and
the scales in the manifest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch2fpga.boards import Board
from torch2fpga.compiled import Origin
from torch2fpga.compiler import wanted_plan
from torch2fpga.design import Design
from torch2fpga.emit import manifest
from torch2fpga.emit.link import link_config
from torch2fpga.emit.project import design_sources, readme, tool_files, write_files
from torch2fpga.errors import WeightsError
from torch2fpga.plan.meta_model import read_config
from torch2fpga.plan.optimise import Progress
from torch2fpga.plan.outline import sketch
from torch2fpga.plan.plan import Plan, load_plan
from torch2fpga.plan.summary import PlanReport, summarise
from torch2fpga.runtime.host import Interface

#: settings of a configuration that say nothing about the model
PRIVATE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True)
class Settings:
    """What a design was made from, as ``manifest.json`` of a project without weights keeps it.

    Attributes:
        config: all settings of the configuration.
        tokens, batch: sizes of a launch.
        precision, lanes: as of ``compile``.
        plan: what was asked of the planner, parts of it open.
        simple: it was asked for the plan without optimiser.
        generate: the model generates text, of at most ``max_length`` tokens (0: chosen as ``compile`` does).
    """

    config: Mapping[str, Any]
    tokens: int
    batch: int
    precision: str
    lanes: int
    plan: Mapping[str, Any]
    simple: bool
    generate: bool
    max_length: int

    @staticmethod
    def of(data: Mapping[str, Any], where: str) -> Settings:
        """The settings that a manifest keeps.

        Raises:
            WeightsError: if they are missing or damaged, with all reasons.
        """
        given = data.get("outline")
        if not isinstance(given, Mapping):
            raise WeightsError(f"{where} does not say what the project was made from")
        kinds = {f.name: _KINDS[str(f.type)] for f in dataclasses.fields(Settings)}
        problems = [f"{name} is missing" for name in kinds if name not in given]
        problems += [f"{name} is unknown" for name in given if name not in kinds]
        problems += [
            f"{name} is {type(given[name]).__name__}, expected {kind.__name__}"
            for name, kind in kinds.items()
            if name in given and type(given[name]) is not kind
        ]
        if problems:
            raise WeightsError(f"{where}: its settings are damaged: {'; '.join(problems)}")
        return Settings(**given)

    def wanted(self) -> Plan:
        """What was asked of the planner."""
        return load_plan(self.plan)


_KINDS: dict[str, type] = {"Mapping[str, Any]": dict, "int": int, "str": str, "bool": bool}


@dataclass(frozen=True)
class Unpacked:
    """A planned design without weights.

    Attributes:
        design: with kernels, FIFOs and memory channels.
        interface: inputs and outputs of a call; its scales mean nothing.
        settings: from which all of it can be made again, with weights.
    """

    design: Design
    board: Board
    interface: Interface
    origin: Origin
    settings: Settings

    @cached_property
    def plan(self) -> PlanReport:
        """As ``compiled.plan``."""
        return summarise(self.design, self.board, self.origin.plan, self.origin.gains)

    def files(self) -> dict[str, str]:
        """Path -> text of every file of the project.

        Raises:
            CompileError: if the design does not fit the board's memory channels.
        """
        texts = {"link.cfg": link_config(self.design, self.board)}  # refuses what does not fit, first
        texts.update(design_sources(self.design))
        texts.update(tool_files(self))
        texts["README.md"] = readme(self, None)
        said = dataclasses.asdict(self.settings)
        texts[manifest.FILE] = manifest.manifest_text(manifest.manifest(self, None, {}, said))
        return dict(sorted(texts.items()))

    def write(self, path: str | Path, progress: Callable[[str, float], None] | None = None) -> list[Path]:
        """Write the project; the folder appears whole or not at all. Returns the files written.

        Raises:
            CompileError: if ``path`` is taken by something else or cannot be written.
        """
        return write_files(Path(path), lambda keep: self.files(), progress)


def unpacked(
    config: Any,
    tokens: int = 128,
    batch: int = 1,
    *,
    board: str = "u280",
    precision: str = "w8a8",
    plan: Plan | Mapping[str, Any] | str | Path | None = None,
    objective: str = "latency",
    budget: float = 1.0,
    clock_mhz: float | None = None,
    lanes: int = 16,
    tile: int | None = None,
    checksums: bool = False,
    generate: bool = False,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """The planned design of a configuration, to write its project; see ``emit_outline``."""
    wanted = wanted_plan(
        plan,
        board=board,
        objective=objective,
        budget=budget,
        clock_mhz=clock_mhz,
        tile=tile,
        checksums=checksums,
    )
    simple = plan == "simple"
    given, _ = read_config(config)
    length = (max_length or 0) if generate else None
    found = sketch(
        config, tokens, batch, wanted, simple=simple, precision=precision, lanes=lanes, length=length,
        progress=progress,
    )  # fmt: skip
    settings = Settings(
        config_values(given), tokens, batch, precision, lanes, dataclasses.asdict(wanted), simple, generate,
        length or 0,
    )  # fmt: skip
    return Unpacked(found.planned.design, found.board, found.interface, found.origin, settings)


def config_values(config: Any) -> dict[str, Any]:
    """What a configuration of transformers says of the model, as JSON values; where it lay is left out."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {name: value for name, value in values.items() if name not in PRIVATE}


def emit_outline(
    config: Any, path: str | Path, tokens: int = 128, batch: int = 1, **options: Any
) -> PlanReport:
    """Write the project of a Hugging Face configuration, without weights.

    >>> torch2fpga.emit_outline("Llama-2-7b-hf", "llama7b", 64, precision="w4a8",
    ...                         generate=True, max_length=512)          # doctest: +SKIP
    >>> torch2fpga.pack("llama7b", "Llama-2-7b-hf", calibration)        # doctest: +SKIP

    Args:
        config, tokens, batch: as of ``torch2fpga.outline``.
        path: folder of the project; it appears whole or not at all.
        options: the other arguments of ``torch2fpga.outline``.
    Returns:
        What ``outline`` returns: the plan, all of it modelled.
    Raises:
        CompileError: if ``path`` is taken by something else than a project, or cannot be written.
        UnsupportedModel, InputError, CaptureError, ModelSpecError: as of ``outline``.
    """
    progress = options.get("progress")
    made = unpacked(config, tokens, batch, **options)
    made.write(path)
    if progress is not None:
        progress("done", 1.0)
    return made.plan
