# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.pack``: put the weights into a project that was written without.

The model is compiled with the settings in ``manifest.json``; the kernels that this gives must be those that
are there. What it adds is written file by file, the manifest last: until then the project has no weights,
and packing it again goes on with what is in the work folder. The result is what ``compile(...).write(...)``
gives, byte for byte; a ``build`` folder of the vendor's tools stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from torch2fpga import hub
from torch2fpga.capture import Inputs
from torch2fpga.compiled import CompiledModel
from torch2fpga.compiler import compile
from torch2fpga.emit import manifest
from torch2fpga.emit.link import link_config
from torch2fpga.emit.project import design_sources, make_project
from torch2fpga.errors import CompileError, WeightsError
from torch2fpga.plan.meta_model import build, read_config
from torch2fpga.plan.outline import example_of, prompted
from torch2fpga.weights.shards import load_streamed
from torch2fpga.weights.store import Phases, working
from torch2fpga.weights.unpacked import Settings, config_values

Progress = Callable[[str, float], None]

#: fractions of the whole at which shards are read, and files are written
READ, WRITE = 0.1, 0.8
#: files that differ which are named
SAID = 8


def pack(
    project: str | Path,
    model: str | Path,
    calibration: Iterable[Inputs] | None = None,
    *,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Put the weights of a model into a project that ``emit_outline`` wrote.

    >>> torch2fpga.pack("llama7b", "Llama-2-7b-hf", calibration)  # doctest: +SKIP

    Weights are read shard by shard and memory-mapped; what is made of them is written layer by layer to the
    work folder, so memory holds one layer at a time. A run that was interrupted goes on with what is there.

    Args:
        project: its folder.
        model: folder with config.json and safetensors, in one file or in shards with an index.
        calibration: as of ``compile``: inputs by name, token ids alone where text is generated.
        work: folder for what is computed, on a disk with room for the weights (and as many again in float32
            if they are bfloat16 or float16); beside the project, ``<name>.work``, if not given. It may be
            deleted afterwards.
        progress: called with what is done, which names shards, layers and ports, and the fraction done.
    Returns:
        The files written.
    Raises:
        WeightsError: if the folder is no project without weights, or with everything that is wrong with the
            weights.
        CompileError: if the model is not the one that the project was made for; all differences at once.
    """
    target = Path(project).expanduser().resolve()
    settings = outline_of(target)
    folder = model_folder(model, settings)
    work = target.parent / f"{target.name}.work" if work is None else work
    with working(work, progress) as say:
        compiled = _compiled(settings, folder, calibration, say)
        check_sources(compiled, target)
    return _fill(compiled, target, _part(say, WRITE, 1.0))


def outline_of(project: Path) -> Settings:
    """What a project without weights was made from.

    Raises:
        WeightsError: if it is none.
    """
    data = manifest.read_manifest(project)
    if data.get("packed") is not False:
        raise WeightsError(f"{project} has its weights already")
    return Settings.of(data, f"{project / manifest.FILE}")


def model_folder(model: str | Path, settings: Settings) -> Path:
    """The folder with a model's weights; its configuration must be the project's.

    Raises:
        CompileError: with every setting that is another.
        ModelSpecError: if there is no configuration.
    """
    folder = hub._model_folder(Path(model).expanduser().resolve())
    config, _ = read_config(folder)
    there, wanted = config_values(config), settings.config
    names = [n for n in sorted({*there, *wanted}) if there.get(n) != wanted.get(n)]
    if names:
        differ = "; ".join(f"{n} is {there.get(n)!r}, not {wanted.get(n)!r}" for n in names)
        raise CompileError(f"{folder} holds another model than the one that the project is for: {differ}")
    return folder


def example_inputs(model: nn.Module, settings: Settings) -> dict[str, Tensor]:
    """Inputs of the sizes that the project takes."""
    config, name = read_config(dict(settings.config))
    return example_of(prompted(model), config, name, settings.tokens, settings.batch)


def encoded(project: str | Path, model: str | Path, sentences: Sequence[str]) -> list[dict[str, Tensor]]:
    """Calibration inputs of a project: sentences in the tokens of the model's folder, as ``compile`` of the
    command line makes them.

    Raises:
        InputError, ModelSpecError: if there is no tokenizer that gives the model's inputs.
        WeightsError, CompileError: as of ``pack``.
    """
    settings = outline_of(Path(project).expanduser().resolve())
    folder = model_folder(model, settings)
    empty = build(read_config(dict(settings.config))[0])
    example = example_inputs(empty, settings)
    return hub.LoadedModel(empty, example, folder.name, hub.tokenizer_at(folder)).encode(sentences)


def _part(say: Phases, start: float, end: float) -> Progress:
    return lambda phase, done: say(phase, start + (end - start) * done)


def _compiled(
    settings: Settings, folder: Path, calibration: Iterable[Inputs] | None, say: Phases
) -> CompiledModel:
    """The model with its weights, compiled as the project was."""
    config, _ = read_config(dict(settings.config))
    loaded = load_streamed(config, folder, _part(say, 0.0, READ))
    example = example_inputs(loaded, settings)
    wanted = settings.wanted()
    planning: dict[str, Any] = {"plan": wanted}
    if settings.simple:
        planning = {
            "plan": "simple",
            "board": wanted.board,
            "objective": wanted.objective,
            "budget": wanted.budget,
            "clock_mhz": wanted.clock_mhz,
            "tile": wanted.tile or None,
        }
    whole = loaded if settings.generate else prompted(loaded)
    return compile(
        whole,
        example,
        precision=settings.precision,
        calibration=calibration,
        lanes=settings.lanes,
        generate=settings.generate,
        max_length=settings.max_length or None,
        progress=_part(say, READ, WRITE),
        **planning,
    )


def check_sources(compiled: CompiledModel, project: Path) -> None:
    """What is synthesised of a project must be that of the model: kernels, stage library, links.

    Raises:
        CompileError: with the files that are not.
    """
    design = compiled.design
    wanted = {p: t for p, t in design_sources(design).items() if p.startswith(("kernels/", "include/"))}
    wanted["link.cfg"] = link_config(design, compiled.board)
    there = {f"kernels/{path.name}" for path in (project / "kernels").glob("*")}
    problems = sorted(p for p in wanted if not _same(project / p, wanted[p]))
    problems += [f"{p} (too many)" for p in sorted(there - set(wanted))]
    if problems:
        more = f" and {len(problems) - SAID} more" if len(problems) > SAID else ""
        raise CompileError(
            f"{project} has other kernels than this version of torch2fpga makes of the model: "
            f"{', '.join(problems[:SAID])}{more}; write it again (torch2fpga plan --write), or undo changes "
            "made by hand"
        )


def _same(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _fill(compiled: CompiledModel, target: Path, progress: Progress) -> list[Path]:
    """Write what is new, the manifest last."""
    names: list[str] = []

    def keep(name: str, content: bytes) -> None:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
        names.append(name)

    try:
        texts: Mapping[str, str] = make_project(compiled, keep, progress)
        for name in sorted(texts, key=lambda name: (name == manifest.FILE, name)):
            keep(name, texts[name].encode())
    except OSError as error:
        raise CompileError(f"the weights cannot be written to {target}: {error}") from error
    progress("done", 1.0)
    return [target / name for name in sorted(names)]
