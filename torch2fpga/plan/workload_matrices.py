# SPDX-License-Identifier: Apache-2.0
"""The matrices of a module: linear layers, their relatives, and parameters that are used like them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

#: what configurations call the experts of a layer, and those that a token uses
EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "moe_k")


@dataclass(frozen=True)
class Experts:
    """Experts of a layer and how many of them a token uses; (0, None) if the configuration has none."""

    count: int = 0
    chosen: int | None = None

    @classmethod
    def of(cls, config: Any) -> Experts:
        """From a Hugging Face configuration."""

        def first(names: tuple[str, ...]) -> int | None:
            values = (getattr(config, name, None) for name in names)
            return next((v for v in values if isinstance(v, int) and v > 0), None)

        return cls(first(EXPERTS) or 0, first(CHOSEN))


@dataclass(frozen=True)
class Matrix:
    """One matrix, or one for each expert.

    Attributes:
        path: of the module that has it (and of the parameter, for a bare one).
        owner: path of the module around it, lists of experts left out.
        inputs, outputs: channels.
        experts: matrices of this shape that tokens choose from; 1 without experts.
        chosen: of these, used by a token.
        key: identity of the parameter, the same for shared ones.
        module: the module that has it.
        linear: whether it is a linear layer of its own, not a convolution's kernel (which is counted as
            if a token met it once) or a bare parameter.
    """

    path: str
    owner: str
    inputs: int
    outputs: int
    experts: int
    chosen: float
    key: int
    module: nn.Module
    linear: bool = False

    @property
    def weights(self) -> int:
        """Weights as stored."""
        return self.inputs * self.outputs * self.experts

    @property
    def active(self) -> int:
        """Weights that a token is multiplied by; a list of experts has one entry each."""
        return round(self.inputs * self.outputs * self.chosen)

    @property
    def expert_list(self) -> bool:
        """Whether tokens choose."""
        return self.chosen != 1 or self.experts > 1


def matrices_of(
    module: nn.Module, path: str, experts: Experts, note: Callable[[str], None], raw: bool = True
) -> Iterator[Matrix]:
    """All matrices under a module, a shared one as often as it is used.

    Args:
        path: of the module in the model.
        experts: of the configuration.
        note: takes the assumptions that were needed.
        raw: also parameters of modules that are no layers of torch (experts, routers, hand-made
            projections); outside of blocks those are positions and the like.
    """
    for name, child in module.named_modules(remove_duplicate=False):
        where = ".".join(part for part in (path, name) if part)
        if isinstance(child, nn.Embedding | nn.EmbeddingBag):
            continue
        shape = _layer_shape(child)
        if shape is not None:
            inputs, outputs = shape
            count, chosen = _listed(name, module, experts, note)
            owner = where.partition(".experts.")[0] if count else where.rpartition(".")[0]
            weight: Any = child.weight
            share = chosen / count if count else 1
            linear = not isinstance(child, _ConvNd)
            yield Matrix(where, owner, inputs, outputs, 1, share, id(weight), child, linear)
        elif raw:
            yield from _raw(child, where, experts, note)


def _layer_shape(module: nn.Module) -> tuple[int, int] | None:
    """(inputs, outputs) of a linear layer, of GPT-2's Conv1D (transposed), or of a convolution's kernel."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Any = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and weight is not None and weight.dim() == 2:
        return int(weight.shape[0]), int(weight.shape[1])
    if isinstance(module, _ConvNd):
        return int(weight.numel() // module.out_channels), module.out_channels
    return None


def _listed(name: str, module: nn.Module, experts: Experts, note: Callable[[str], None]) -> tuple[int, float]:
    """(experts, chosen) of the list of experts that a layer stands in; (0, 1) in none."""
    head, found, _ = f".{name}".rpartition(".experts.")
    if not found:
        return 0, 1
    around = module.get_submodule(f"{head}.experts".lstrip("."))
    count = len(list(around.children()))
    if experts.chosen is None or experts.count != count:
        note(f"how many of {count} experts a token uses is not known: all are counted")
        return count, count
    return count, min(experts.chosen, count)


def _raw(module: nn.Module, path: str, experts: Experts, note: Callable[[str], None]) -> Iterator[Matrix]:
    owner = path.rpartition(".")[0]
    for name, parameter in module.named_parameters(recurse=False):
        shape = tuple(parameter.shape)
        where = f"{path}.{name}"
        if len(shape) < 2 or name.endswith("bias"):
            continue
        if len(shape) == 3 and "expert" in type(module).__name__.lower():
            chosen: float = shape[0]
            if experts.chosen is not None and experts.count == shape[0]:
                chosen = min(experts.chosen, shape[0])
            else:
                note(f"how many of {shape[0]} experts a token uses is not known: all are counted")
            inputs, outputs = shape[2], shape[1]
            yield Matrix(where, owner, inputs, outputs, shape[0], chosen, id(parameter), module)
            continue
        outputs = shape[0]
        router = experts.count == outputs and "router" in type(module).__name__.lower()
        if not (router or isinstance(module, nn.MultiheadAttention)):
            note(f"{type(module).__name__}.{name} {shape} is taken for a matrix that every token meets once")
        inputs = parameter.numel() // outputs
        yield Matrix(where, owner, inputs, outputs, 1, 1, id(parameter), module)
