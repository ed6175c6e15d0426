# SPDX-License-Identifier: Apache-2.0
"""Ways in which the GPU baseline runs a model: eager, compiled, and compiled with int8 or int4 weights.

Every way makes the same three things: a call over a whole prompt, a call for one token behind a context,
and greedy tokens, by which ways are held against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_weights import quantise_weights

#: greedy tokens by which a way is compared with eager
GREEDY = 16


@dataclass(frozen=True)
class Way:
    """A way to run a model: ``bits`` of the weights (0: those of the activations), compiled or not."""

    key: str
    title: str
    compiled: bool
    bits: int = 0


WAYS = {
    way.key: way
    for way in (
        Way("eager", "Hugging Face as it is", False),
        Way("compiled", "torch.compile, static cache", True),
        Way("int8", "torch.compile, static cache, weight-only int8", True, 8),
        Way("int4", "torch.compile, static cache, weight-only int4", True, 4),
    )
}


@dataclass(frozen=True)
class Call:
    """What is timed: ``run``, and what puts everything back before it, which is not."""

    run: Callable[[], Any]
    prepare: Callable[[], Any] = lambda: None


def encode(model: nn.Module, ids: Tensor) -> Tensor:
    """Hidden states of an encoder."""
    hidden: Tensor = model(input_ids=ids).last_hidden_state
    return hidden


def first_token(model: nn.Module, ids: Tensor) -> Tensor:
    """Greedy token (batch, 1) behind a prompt; keys and values are kept, as in generation."""
    logits: Tensor = model(input_ids=ids, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1].argmax(-1, keepdim=True)


def next_token(model: nn.Module, ids: Tensor, cache: Any) -> Tensor:
    """The same behind what ``cache`` holds; ``ids`` go into it."""
    more = _where(model, ids, cache)
    logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **more).logits
    token: Tensor = logits[:, -1].argmax(-1, keepdim=True)
    return token


def _where(model: Any, ids: Tensor, cache: Any) -> dict[str, Tensor]:
    """Positions and mask that OPT needs with a static cache.

    It would make a tensor as long as the cache is full, which cannot be compiled: that is data.
    """
    past = cache.get_seq_length()
    if model.config.model_type != "opt" or not isinstance(past, Tensor):
        return {}
    positions = past + torch.arange(ids.shape[1], device=ids.device)[None]
    room = cache.layers[0].max_cache_len
    return {"position_ids": positions, "attention_mask": torch.ones(1, room, device=ids.device)}


class Runner:
    """A model, run in one way.

    Args:
        model: with its weights on its device; int8 and int4 replace them in place.
        way: one of ``WAYS``.
        dtype: type of the activations.
        backend: of torch.compile; another than Inductor only to try the program quickly.
    """

    def __init__(self, model: nn.Module, way: Way, dtype: torch.dtype, backend: str = "inductor") -> None:
        self.model, self.way, self.backend = model, way, backend
        self.device = next(model.parameters()).device
        self.note = f"attention {getattr(model.config, '_attn_implementation', 'unknown')}"
        if way.bits:
            self.note += "; " + quantise_weights(model, way.bits, dtype).note
        self._skips = 0

    def graphs(self) -> str:
        """What became of CUDA graphs since the last call of ``fresh``."""
        if not self.way.compiled:
            return "no CUDA graphs"
        if self.device.type != "cuda" or self.backend != "inductor":
            return f"no CUDA graphs on the {self.device.type}, backend {self.backend}"
        skips = _graph_skips() - self._skips
        return f"CUDA graphs skipped {skips} times by torch.compile" if skips else "CUDA graphs"

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Room for one measurement: no compiled code of the ones before, no gradients."""
        torch.compiler.reset()
        self._skips = _graph_skips()
        with torch.no_grad(), _matrix_vector_kernels():
            yield

    def prompt(self, ids: Tensor) -> Call:
        """A prompt (or, of an encoder, a sequence) of (batch, tokens)."""
        model = self.model
        if not hasattr(model, "lm_head"):
            encoder = self._compiled(encode)
            return Call(lambda: encoder(model, ids))
        if not self.way.compiled:
            return Call(lambda: first_token(model, ids))
        cache = self._static(ids.shape[1])
        next_token(model, ids, cache)  # allocates the cache, outside of what is compiled
        compiled = self._compiled(next_token)
        return Call(lambda: compiled(model, ids, cache), lambda: rewind(cache, 0))

    def decode(self, ids: Tensor) -> Decoder:
        """Steps of one token behind (1, context) tokens."""
        if not self.way.compiled:
            return self.decode_as_it_is(ids)
        cache = self._static(ids.shape[1])
        return Decoder(self.model, ids, cache, self._compiled(next_token))

    def decode_as_it_is(self, ids: Tensor) -> Decoder:
        """The same with a growing cache and without compiling, whatever the way: what others must equal."""
        from transformers import DynamicCache

        return Decoder(self.model, ids, DynamicCache(config=self.model.config), next_token)

    def _static(self, length: int) -> Any:
        from transformers import StaticCache

        return StaticCache(config=self.model.config, max_cache_len=length)

    def _compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if not self.way.compiled:
            return function
        if self.device.type != "cuda" or self.backend != "inductor":
            plain: Callable[..., Tensor] = torch.compile(
                function, fullgraph=True, dynamic=False, backend=self.backend
            )
            return plain
        compiled: Callable[..., Tensor] = torch.compile(
            function, fullgraph=True, dynamic=False, mode="reduce-overhead"
        )

        def step(*arguments: Any) -> Tensor:
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(*arguments)

        return step


class Decoder:
    """One token after the other behind a prompt.

    Args:
        model: what runs.
        ids: (1, context) made-up tokens; the last step attends to as many positions.
        cache: of transformers, with room for them.
        step: ``next_token``, compiled or not.
    """

    def __init__(self, model: nn.Module, ids: Tensor, cache: Any, step: Callable[..., Tensor]) -> None:
        self.model, self.ids, self.cache, self._step = model, ids, cache, step
        self._filled = False

    def fill(self) -> None:
        """Keys and values of all positions; never compiled, because it is not what is timed."""
        rewind(self.cache, 0)
        next_token(self.model, self.ids, self.cache)
        self._filled = True

    def call(self) -> Call:
        """The token at the last position, over and over."""
        if not self._filled:
            self.fill()
        token, before = self.ids[:, -1:], self.ids.shape[1] - 1
        return Call(lambda: self._step(self.model, token, self.cache), lambda: rewind(self.cache, before))

    def greedy(self, count: int) -> list[int]:
        """The tokens that the last ``count`` positions give, each of which goes into the next step."""
        self.fill()
        start = self.ids.shape[1] - count
        rewind(self.cache, start)
        token, found = self.ids[:, start : start + 1], []
        for _ in range(count):
            token = self._step(self.model, token, self.cache).clone()  # the graph overwrites its output
            found.append(int(token))
        return found


def rewind(cache: Any, length: int) -> None:
    """Forget all positions from ``length`` on; keys and values stay where they are."""
    for layer in cache.layers:
        if hasattr(layer, "cumulative_length"):
            layer.cumulative_length.fill_(length)
        elif layer.is_initialized and layer.get_seq_length() > length:
            layer.crop(length - layer.get_seq_length())


@contextmanager
def _matrix_vector_kernels() -> Iterator[None]:
    """Let Inductor write products with one row as kernels of its own, as gpt-fast does."""
    from torch._inductor import config

    with config.patch(coordinate_descent_tuning=True):
        yield


def _graph_skips() -> int:
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["cudagraph_skips"])
