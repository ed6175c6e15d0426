# SPDX-License-Identifier: Apache-2.0
"""A model without weights from a Hugging Face configuration: an object, a mapping, or a local file.

Nothing is fetched and no code of a model's directory runs; parameters are on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from torch2fpga import hub
from torch2fpga.errors import CompileError, InputError, MissingTool

#: settings that change how weights are stored, which the estimate decides by its precision
STORAGE = ("quantization_config", "compression_config")


def meta_model(config_or_model: Any) -> tuple[nn.Module, str]:
    """(module, name) of what ``estimate`` was given.

    Args:
        config_or_model: a module; a configuration of transformers; its settings as a mapping; the path
            of a ``config.json`` or of a folder that has one.

    Raises:
        InputError: for anything else.
        ModelSpecError: if a path leads to no configuration.
        CompileError: if transformers cannot build the architecture, or code of its own is asked for.
        MissingTool: without transformers.
    """
    if isinstance(config_or_model, nn.Module):
        return config_or_model, type(config_or_model).__name__
    config, name = read_config(config_or_model)
    return build(config), name


def read_config(given: Any) -> tuple[Any, str]:
    """(configuration of transformers, name) of what was given; raises as ``meta_model``."""
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        if not path.exists():
            raise hub.ModelSpecError(
                f"{str(given)!r} is no file or folder here; expected a config.json or a folder "
                "with one (nothing is fetched)"
            )
        file = path / "config.json" if path.is_dir() else path
        name = path.name if path.is_dir() else path.resolve().parent.name
        return _config(hub.read_settings(file), str(file)), name
    if isinstance(given, Mapping):
        config = _config(dict(given), "the configuration")
        return config, str(given.get("_name_or_path") or config.model_type)
    if not isinstance(given, _transformers().PreTrainedConfig):
        raise InputError(
            f"expected a torch module, a Hugging Face configuration, its settings or the path of a "
            f"config.json, not {type(given).__name__}"
        )
    return given, str(given.name_or_path or given.model_type)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingTool("configurations need transformers: pip install torch2fpga[hf]") from error
    return transformers


def _config(settings: dict[str, Any], where: str) -> Any:
    transformers = _transformers()
    if "auto_map" in settings:
        raise CompileError(
            f"{where} asks for code of its own (auto_map), which is never run; give the module instead"
        )
    kind = settings.get("model_type")
    if kind not in transformers.CONFIG_MAPPING:
        raise CompileError(
            f"{where}: transformers {transformers.__version__} has no model type {kind!r}; give the module"
        )
    settings = {key: value for key, value in settings.items() if key not in STORAGE}
    try:
        with hub.quiet(transformers):
            return transformers.CONFIG_MAPPING[kind].from_dict(settings)
    except Exception as error:
        # every configuration checks its settings with errors of its own
        raise CompileError(f"{where} is no configuration of {kind}: {error}") from error


def build(config: Any, place: AbstractContextManager[Any] | None = None) -> nn.Module:
    """The module that a configuration describes.

    Args:
        place: where its tensors are made; torch's meta device if not given.
    Raises:
        CompileError: if transformers has no such class or cannot build it.
    """
    import torch

    transformers = _transformers()
    with hub.quiet(transformers), place or torch.device("meta"):
        try:
            model: nn.Module = _class(transformers, config)._from_config(config, attn_implementation="eager")
        except CompileError:
            raise
        except Exception as error:
            kind = getattr(config, "model_type", type(config).__name__)
            raise CompileError(f"transformers cannot build {kind} without weights: {error}") from error
    return model


def _class(transformers: Any, config: Any) -> Any:
    """The class in ``architectures``; without one a language model if the family makes tokens."""
    named = getattr(config, "architectures", None) or []
    if named:
        found = getattr(transformers, str(named[0]), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
        raise CompileError(f"transformers {transformers.__version__} has no architecture {named[0]!r}")
    from transformers.models.auto import modeling_auto as auto

    kinds = [auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, auto.MODEL_MAPPING]
    if getattr(config, "is_encoder_decoder", False):
        kinds[:0] = [auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING]
    elif is_causal_family(config):
        kinds.insert(0, auto.MODEL_FOR_CAUSAL_LM_MAPPING)
    for mapping in kinds:
        if type(config) in mapping:
            found = mapping[type(config)]
            return found[0] if isinstance(found, tuple) else found
    raise CompileError(
        f"transformers {transformers.__version__} has no model for {type(config).__name__}; give the module"
    )


def is_causal_family(config: Any) -> bool:
    """Whether a type of model is made to continue text: it has a causal head and no masked one."""
    from transformers.models.auto import modeling_auto as auto

    kind = getattr(config, "model_type", None)
    if getattr(config, "is_decoder", False):
        return True
    return (
        kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and not getattr(config, "is_encoder_decoder", False)
    )
