# SPDX-License-Identifier: Apache-2.0
"""Models named on the command line: a local Hugging Face directory or ``package.module:factory``.

A directory is data that somebody else wrote: nothing in it is run, nothing is fetched, and pickled
weights are refused because reading them would run code.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2fpga.errors import CompileError, Error, InputError, MissingTool, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
#: pickles, whatever they are called
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
#: a config.json is a page of text
MAX_CONFIG_BYTES = 1 << 20
#: a text whose tokens make up the example input; what is calibrated is the caller's business
EXAMPLE_TEXT = "A field-programmable gate array is a chip whose circuits are made after it was built. "
DEFAULT_SEQ = 128


class ModelSpecError(Error):
    """The model named on the command line is neither a directory nor ``package.module:factory``."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with inputs to capture it with.

    Attributes:
        model: in eval mode, float32.
        example: tuple of tensors or dict of keyword tensors.
        name: for folders and titles.
        tokenizer: of a directory that has one.
    """

    model: nn.Module
    example: Mapping[str, Tensor] | tuple[Tensor, ...]
    name: str
    tokenizer: Any = None

    def encode(self, sentences: Sequence[str]) -> list[dict[str, Tensor]]:
        """One input a sentence, with the names of the example and at most its length.

        Raises:
            InputError: without a tokenizer, or if the model takes other inputs than a tokenizer gives.
        """
        if self.tokenizer is None or not isinstance(self.example, Mapping):
            raise InputError(
                f"{self.name} has no tokenizer; sentences need a Hugging Face directory with tokenizer.json"
            )
        limit = next(iter(self.example.values())).shape[1]
        encoded = []
        for sentence in sentences:
            fields = self.tokenizer(sentence, return_tensors="pt", truncation=True, max_length=limit)
            missing = [name for name in self.example if name not in fields]
            if missing:
                raise InputError(f"the tokenizer of {self.name} does not give {', '.join(missing)}")
            encoded.append({name: fields[name] for name in self.example})
        return [inputs for inputs in encoded if next(iter(inputs.values())).shape[1] > 0]


def load_model(
    spec: str, *, seq: int | None = None, batch: int | None = None, inputs: Sequence[str] | None = None
) -> LoadedModel:
    """Load what a user named.

    Args:
        spec: path of a Hugging Face directory, or ``package.module:factory``.
        seq: tokens of the example input; only for directories.
        batch: sequences of the example input; only for directories.
        inputs: names of the inputs; only for directories.
    Raises:
        ModelSpecError: if ``spec`` is neither.
        WeightsError: if the weights are pickled, missing or do not fit the configuration.
    """
    path = Path(spec).expanduser()
    if path.exists():
        return load_directory(path, seq=seq, batch=batch, inputs=inputs)
    if FACTORY.fullmatch(spec):
        if seq is not None or batch is not None or inputs is not None:
            raise ModelSpecError(
                f"{spec} is a factory and decides its inputs; --seq, --batch and --inputs are for directories"
            )
        return load_factory(spec)
    raise ModelSpecError(
        f"{spec!r} is neither a directory that exists nor of the form package.module:factory"
    )


@contextmanager
def _search_here() -> Iterator[None]:
    """The working directory on the import path, as ``python -m`` has it."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def load_factory(spec: str) -> LoadedModel:
    """Call ``package.module:factory``, which returns (model, example inputs).

    Raises:
        ModelSpecError: if the module or the function is not there, or returns something else.
    """
    from torch import nn

    module_name, _, function = spec.partition(":")
    with _search_here():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # A package that the module itself misses is the module's problem, with its own traceback.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ModelSpecError(f"there is no module {module_name} (looked in {os.getcwd()} too)") from error
        factory = getattr(module, function, None)
        if not callable(factory):
            raise ModelSpecError(f"{module_name} has no function {function}")
        made = factory()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ModelSpecError(
            f"{spec} returned {type(made).__name__}; expected (model, example inputs) with a torch.nn.Module"
        )
    model, example = made
    return LoadedModel(model.eval(), example, module_name.rpartition(".")[2])


def load_directory(
    path: Path,
    *,
    seq: int | None = None,
    batch: int | None = None,
    inputs: Sequence[str] | None = None,
) -> LoadedModel:
    """Load a local Hugging Face directory: config.json, safetensors and, if there is one, its tokenizer.

    All of that may also lie in its folder ``weights``, beside the scripts that made it.

    Raises:
        ModelSpecError: if it is no such directory.
        WeightsError: if the weights are pickled, missing or do not fit the configuration.
        CompileError: if the architecture is not one that transformers has.
    """
    path = path.resolve()
    name, path = path.name, _model_folder(path)
    settings = _read_config(path)
    _check_weights(path)
    try:
        import transformers
    except ImportError as error:
        raise MissingTool("Hugging Face directories need transformers: pip install torch2fpga[hf]") from error
    with quiet(transformers):
        model_class = _model_class(transformers, settings, path)
        model = _load_weights(model_class, path)
        tokenizer = _load_tokenizer(transformers, path)
    example = _example(model, tokenizer, seq=seq, batch=batch or 1, names=inputs)
    return LoadedModel(model, example, name, tokenizer)


def tokenizer_at(path: Path) -> Any:
    """The tokenizer of a local Hugging Face directory.

    Raises:
        ModelSpecError: if there is none.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingTool("a tokenizer needs transformers: pip install torch2fpga[hf]") from error
    with quiet(transformers):
        found = _load_tokenizer(transformers, _model_folder(path.expanduser().resolve()))
    if found is None:
        raise ModelSpecError(f"{path} has no tokenizer (tokenizer.json)")
    return found


def _model_folder(path: Path) -> Path:
    """The directory itself, or its folder ``weights`` if the model lies there."""
    inner = path / "weights"
    return inner if not (path / "config.json").is_file() and (inner / "config.json").is_file() else path


def _read_config(path: Path) -> dict[str, Any]:
    config = path / "config.json"
    if not path.is_dir():
        raise ModelSpecError(f"{path} is a file; expected a directory with config.json and *.safetensors")
    settings = read_settings(config)
    if "auto_map" in settings:
        raise CompileError(
            f"{config} asks for code of its own (auto_map); torch2fpga never runs code from a model's "
            "directory. Use package.module:factory for a model that you trust."
        )
    return settings


def read_settings(config: Path) -> dict[str, Any]:
    """What a configuration file says.

    Raises:
        ModelSpecError: if it is missing, too large, or not an object in JSON.
    """
    if not config.is_file():
        raise ModelSpecError(f"{config.parent} has no {config.name}; expected a local Hugging Face directory")
    if config.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelSpecError(f"{config} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelSpecError(f"{config} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ModelSpecError(f"{config} holds {type(settings).__name__}; expected an object")
    return settings


def _check_weights(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for pattern in PICKLES for p in path.glob(pattern))
    if pickles:
        raise WeightsError(
            f"{path} has its weights only as {', '.join(pickles[:3])}, which is a pickle: reading it can run "
            "any code, so torch2fpga does not. Save the model as safetensors first: "
            "model.save_pretrained(folder)"
        )
    raise WeightsError(f"{path} has no weights (*.safetensors)")


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no hints of transformers in between; errors come as exceptions."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _model_class(transformers: Any, settings: Mapping[str, Any], path: Path) -> Any:
    architectures = settings.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(a, str) for a in architectures):
        raise ModelSpecError(f"{path}/config.json: architectures is not a list of names")
    if not architectures:
        return transformers.AutoModel
    found = getattr(transformers, architectures[0], None) if architectures[0].isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise CompileError(
            f"{path}/config.json names the architecture {architectures[0]!r}, which transformers "
            f"{transformers.__version__} does not have"
        )
    return found


def _load_weights(model_class: Any, path: Path) -> Any:
    import torch

    try:
        model, loading = model_class.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except Exception as error:
        # safetensors, json and transformers each have their own errors for a broken directory
        raise WeightsError(f"cannot load {path}: {type(error).__name__}: {error}") from error
    missing = sorted(loading["missing_keys"])
    wrong = sorted(key if isinstance(key, str) else str(key[0]) for key in loading["mismatched_keys"])
    if missing or wrong:
        what = [f"{key} is missing" for key in missing] + [f"{key} has another shape" for key in wrong]
        more = f" and {len(what) - 5} more" if len(what) > 5 else ""
        raise WeightsError(
            f"the weights in {path} are not those of {model_class.__name__} as config.json describes it: "
            f"{'; '.join(what[:5])}{more}. They would be random numbers."
        )
    return model.eval()


def _load_tokenizer(transformers: Any, path: Path) -> Any:
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise ModelSpecError(
            f"cannot load the tokenizer of {path}: {type(error).__name__}: {error}"
        ) from error


def _is_causal(model: Any) -> bool:
    name = type(model).__name__
    return name.endswith(("ForCausalLM", "LMHeadModel")) or getattr(model.config, "is_decoder", False)


def _example(
    model: Any, tokenizer: Any, *, seq: int | None, batch: int, names: Sequence[str] | None
) -> dict[str, Tensor]:
    """Token identifiers, and a mask where padding can occur (causal models need none)."""
    import torch

    from torch2fpga.decoding import positions_of

    config = model.config
    longest = positions_of(config)
    length = seq or min(DEFAULT_SEQ, longest or DEFAULT_SEQ)
    if longest is not None and length > longest:
        raise InputError(f"the model has {longest} positions; --seq {length} is more than that")
    if tokenizer is not None:
        text = EXAMPLE_TEXT * (length // 8 + 1)
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)["input_ids"]
    else:
        random = torch.Generator().manual_seed(0)
        ids = torch.randint(config.vocab_size, (1, length), generator=random)
    ids = ids.expand(batch, -1).contiguous()
    known = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    names = names or (["input_ids"] if _is_causal(model) else ["input_ids", "attention_mask"])
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelSpecError(f"unknown inputs {', '.join(unknown)}; expected some of {', '.join(known)}")
    return {name: known[name] for name in names}
