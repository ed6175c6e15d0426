# SPDX-License-Identifier: Apache-2.0
"""Generation of text: ``CompiledModel.generate`` and the session behind it.

A session is a cache of keys and values and what has been put into it. A launch takes rows (the prompt,
or the last token) and generates tokens, each of which is fed back on the device.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch2fpga.emit.ports import all_ports, port_bytes
from torch2fpga.errors import InputError
from torch2fpga.lower.sample import sample, settings_word
from torch2fpga.runtime.host import INTEGERS
from torch2fpga.simulate.functional import FunctionalResult, aligned
from torch2fpga.simulate.launch import Launch
from torch2fpga.simulate.reference import Reference, Trace
from torch2fpga.simulate.turns import compare_launch
from torch2fpga.simulate.verify import recorded_streams, saturations

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

#: tokens a launch where somebody waits for each of them, or for the end of the text
STREAMED = 16
#: what a cache holds before it is written: no key or value is -128
UNWRITTEN = 0x80
#: arguments of transformers' ``generate`` that change nothing at these values
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "top_p": (1, 1.0),
    "typical_p": (1, 1.0),
    "min_p": (0, 0.0),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0),
    "length_penalty": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "penalty_alpha": (0, 0.0),
    "guidance_scale": (1, 1.0),
    "use_cache": (True,),
    "early_stopping": (False,),
    "output_scores": (False,),
    "output_logits": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "return_dict_in_generate": (False,),
    "renormalize_logits": (False,),
    "remove_invalid_values": (False,),
}


class Streamer(Protocol):
    """What takes tokens as they come: ``transformers.TextStreamer`` and its like."""

    def put(self, value: Tensor) -> None:
        """The prompt, (1, tokens), and then each new token, (1,)."""

    def end(self) -> None:
        """There are no more."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the largest logit (``top_k`` 1), or a draw from the k largest."""

    top_k: int = 1
    temperature: float = 1.0
    seed: int = 0


class Session:
    """A text that is generated: its caches, and how far they are filled.

    Attributes:
        past: rows in the caches.
        launches: so far.
    """

    def __init__(self, model: CompiledModel, sampling: Sampling | None = None) -> None:
        self.model = model
        self.past = 0
        self.launches: list[Launch] = []
        chosen, token = sampling or Sampling(), model.interface.token
        if token is None:
            raise InputError("the model was compiled without generate=True")
        self.settings = np.frombuffer(
            settings_word(chosen.top_k, chosen.temperature, token.scale, chosen.seed), dtype=np.uint8
        )
        self._caches: dict[str, NDArray[np.uint8]] = {
            port.name: aligned(np.full(port_bytes(port), UNWRITTEN, dtype=np.uint8))
            for _, port in all_ports(model.design)
            if port.role == "cache"
        }

    def launch(
        self, ids: Tensor, turns: int = 1, taps: Sequence[str] = ()
    ) -> tuple[list[int], FunctionalResult]:
        """The next rows of the text, and ``turns`` tokens behind them.

        Args:
            ids: (1, rows), what follows on the rows in the caches.
        Returns:
            The tokens; what the launch left. All rows but that of the last token are in the caches then.
        Raises:
            InputError: more rows or tokens than compiled for, or ids outside of the vocabulary.
        """
        design = self.model.design
        # Checked first: a table of embeddings is read wherever an id says.
        (ids,) = self.model.interface.bind((ids,), {}, design).values()
        run = Launch(int(ids.shape[0]), int(ids.shape[1]), self.past, turns)
        run.check(design)
        result = self.model.functional.run(
            self.buffers(ids), run.batch, run.seq, taps, past=run.past, turns=run.turns
        )
        self.past = run.end
        self.launches.append(run)
        return self.tokens(result.buffers, turns), result

    def tokens(self, buffers: Mapping[str, NDArray[np.uint8]], turns: int) -> list[int]:
        """What a launch of so many turns left behind its port of tokens."""
        port = self.model.design.port_of("tokens")
        return [int(t) for t in buffers[port.name].view(np.int32)[:turns]]

    def buffers(self, ids: Tensor) -> dict[str, NDArray[np.uint8]]:
        """Contents of the memory ports for a launch; the caches are the session's own."""
        spec = self.model.interface.inputs[0]
        found = self.model.buffers({spec.name: ids})
        settings = self.model.design.port_of("settings").name
        return {**found, settings: self.settings, **self._caches}


def generate(
    model: CompiledModel, input_ids: Tensor, *, streamer: Streamer | None = None, **options: Any
) -> Tensor:
    """See ``CompiledModel.generate``; ``options`` are those of ``request``."""
    return follow(model, request(model, input_ids, **options), streamer)[0]


@dataclass(frozen=True)
class Request:
    """A call of ``generate`` that can be done.

    Attributes:
        ids: (1, tokens) int64, the prompt.
        count: new tokens that are wanted.
        ends: tokens that end the text.
    """

    ids: Tensor
    count: int
    sampling: Sampling
    ends: frozenset[int]


def follow(model: CompiledModel, asked: Request, streamer: Streamer | None = None) -> tuple[Tensor, Session]:
    """Generate what was asked for: (1, prompt and new tokens) int64, and the session that did it."""
    session = Session(model, asked.sampling)
    waits = bool(asked.ends) or streamer is not None
    step = min(STREAMED, model.design.turns) if waits else model.design.turns
    if streamer is not None:
        streamer.put(asked.ids)
    found: list[int] = []
    rows, ended = _prompt(session, asked.ids), False
    while len(found) < asked.count and not ended:
        tokens, _ = session.launch(rows, min(step, asked.count - len(found)))
        for token in tokens:
            found.append(token)
            if streamer is not None:
                streamer.put(torch.tensor([token]))
            ended = token in asked.ends
            if ended:
                break
        rows = torch.tensor([[tokens[-1]]])
    if streamer is not None:
        streamer.end()
    return torch.cat((asked.ids, torch.tensor([found], dtype=torch.int64)), 1), session


def _prompt(session: Session, ids: Tensor) -> Tensor:
    """Puts what does not fit into one launch into the caches; gives the rows of the next one."""
    most = session.model.design.shape.max_seq
    while ids.shape[1] > most:
        session.launch(ids[:, :most])
        ids = ids[:, most:]
    return ids


def request(
    model: CompiledModel,
    input_ids: Tensor,
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    do_sample: bool = False,
    top_k: int | None = None,
    temperature: float | None = None,
    seed: int = 0,
    eos_token_id: int | Iterable[int] | None = None,
    pad_token_id: int | None = None,
    attention_mask: Tensor | None = None,
    **other: Any,
) -> Request:
    """Check a call; the arguments are those of ``CompiledModel.generate``.

    Raises:
        InputError: all that is wrong with the call in one text.
    """
    problems = [
        f"{name}={value!r} is not supported"
        for name, value in other.items()
        if value is not None and not (name in NEUTRAL and value in NEUTRAL[name])
    ]
    token = model.interface.token
    if token is None:
        raise InputError("; ".join([*problems, "the model was compiled without generate=True"]))
    wrong = _ids_problems(model, input_ids)
    prompt = 0 if wrong else int(input_ids.shape[1])
    if not wrong and attention_mask is not None:
        wrong = _mask_problems(attention_mask, input_ids)
    problems += wrong
    count = _count(max_new_tokens, max_length, prompt, model.design.shape.keys, problems)
    drawn = (50 if top_k is None else top_k, 1.0 if temperature is None else temperature)
    sampling = _sampling((*(drawn if do_sample else (1, 1.0)), seed), token.scale, problems)
    ends = _ends(eos_token_id, problems)
    if problems:
        raise InputError("; ".join(problems))
    return Request(input_ids.to(torch.int64).cpu(), count, sampling, ends)


def _ids_problems(model: CompiledModel, ids: Any) -> list[str]:
    """What is wrong with a prompt."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype not in INTEGERS or not ids.numel():
        what = f"{ids.dtype} {tuple(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        return [f"input_ids is {what}; expected integers (1, tokens)"]
    if ids.shape[0] != 1:
        return [f"input_ids has {ids.shape[0]} sequences; one at a time is supported"]
    problems, entries, keys = [], model.interface.inputs[0].entries, model.design.shape.keys
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= entries:
        problems.append(f"input_ids holds {low}..{high}, expected ids in 0..{entries - 1}")
    if ids.shape[1] > keys:
        problems.append(f"{ids.shape[1]} tokens; compiled with max_length={keys}")
    return problems


def _mask_problems(mask: Any, ids: Tensor) -> list[str]:
    """What is wrong with a mask: there is no padding, so that it can only be all ones."""
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        return [f"attention_mask is {what}; expected a tensor like input_ids, {tuple(ids.shape)}"]
    if not bool((mask == 1).all()):
        return ["attention_mask has zeros: padding is not supported, give the tokens alone"]
    return []


def _count(new: Any, length: Any, prompt: int, keys: int, problems: list[str]) -> int:
    """New tokens that are wanted; 0 where that cannot be said (``prompt`` is 0 if it is wrong itself)."""
    if new is None and length is None:
        problems.append("give max_new_tokens (or max_length)")
        return 0
    name, value = ("max_new_tokens", new) if new is not None else ("max_length", length)
    try:
        count = operator.index(value) - (0 if new is not None else prompt)
    except TypeError:
        problems.append(f"{name}={value!r} is no whole number")
        return 0
    # The last token is given out and not read again: it needs no place in the cache.
    room = keys - prompt + 1
    if prompt and room >= 1 and not 1 <= count <= room:
        problems.append(
            f"{name}={value}: {count} new tokens behind {prompt}; from 1 to {room} fit what was compiled"
        )
    return count


def _sampling(given: tuple[Any, Any, Any], scale: float, problems: list[str]) -> Sampling:
    """Top k, temperature and seed, each checked by itself so that all that is wrong is said."""
    k, temperature, seed = given
    alone = {
        "top_k": (k, 1.0, scale, 0),
        "temperature": (1, temperature, scale, 0),
        "seed": (1, 1.0, scale, seed),
    }
    for (name, word), value in zip(alone.items(), given, strict=True):
        try:
            settings_word(*word)
        except InputError as error:
            problems.append(str(error))
        except TypeError:
            problems.append(f"{name}={value!r} is no number")
    return Sampling(k, temperature, seed)


def _ends(eos: Any, problems: list[str]) -> frozenset[int]:
    """The tokens that end a text: one, or any number of them in a list or a tensor."""
    if eos is None:
        return frozenset()
    many = eos.reshape(-1).tolist() if isinstance(eos, Tensor) else eos
    try:
        return frozenset(map(operator.index, many if isinstance(many, Iterable) else [many]))
    except TypeError:
        problems.append(f"eos_token_id={eos!r}: expected a token id, or several")
        return frozenset()


@dataclass(frozen=True)
class GenerationReport:
    """What a verified generation found.

    Attributes:
        tokens: generated by the C++.
        bit_exact: every stream of every launch is the reference's, and so is every token.
        wrong: stream -> values that differ.
        compared: values compared in all.
        launches: of the generation.
        saturated: stage -> values at an end of the range that it clamps to (``verify.saturations``).
    """

    tokens: tuple[int, ...]
    bit_exact: bool
    wrong: dict[str, int]
    compared: int
    launches: tuple[Launch, ...]
    saturated: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        head = "bit-exact" if self.bit_exact else f"NOT bit-exact: {', '.join(self.wrong) or 'tokens'} differ"
        return (
            f"{head}; {len(self.tokens)} tokens in {len(self.launches)} launches, "
            f"{self.compared:,} values compared, {sum(self.saturated.values()):,} at an end of their range"
        )


def verify_generation(
    model: CompiledModel, ids: Tensor, splits: Sequence[int], sampling: Sampling | None = None
) -> GenerationReport:
    """Generate, and compare every stream of every launch with the reference over the whole text.

    Args:
        ids: (1, tokens) prompt.
        splits: tokens of each launch; the prompt goes into the first.
    """
    session = Session(model, sampling)
    streams, taps = recorded_streams(model.design), []
    text = ids.to(torch.int64)
    rows = text
    for turns in splits:
        tokens, result = session.launch(rows, turns, streams)
        taps.append(result.taps)
        text = torch.cat((text, torch.tensor([tokens])), 1)
        rows = torch.tensor([[tokens[-1]]])
    trace = reference_trace(model, text[:, :-1])
    wrong: dict[str, int] = {}
    compared = 0
    for launch, found in zip(session.launches, taps, strict=True):
        for name, (differ, values) in compare_launch(model.design, trace, found, launch).items():
            compared += values
            if differ:
                wrong[name] = wrong.get(name, 0) + differ
    chosen = text[0, ids.shape[1] :].tolist()
    want = reference_tokens(model, trace, session.settings, ids.shape[1])
    exact = not wrong and chosen == want
    ends = saturations(model.design, trace)
    return GenerationReport(tuple(chosen), exact, wrong, compared, tuple(session.launches), ends)


def reference_trace(model: CompiledModel, ids: Tensor) -> Trace:
    """Every stream of the quantised reference for all rows of a text at once, without a cache."""
    spec = model.interface.inputs[0]
    with torch.no_grad():
        _, trace = Reference(model.design, model.data, every_row=True).run({spec.name: ids}, ids, keep=True)
    return trace


def reference_tokens(
    model: CompiledModel, trace: Trace, settings: NDArray[np.uint8], prompt: int
) -> list[int]:
    """The token that the reference chooses behind every row from the prompt's last on."""
    token = model.interface.token
    assert token is not None
    (logits,) = trace[token.stream]
    words = settings.view(np.int32).tolist()
    return [sample(logits[0, row], words, row + 1) for row in range(prompt - 1, logits.shape[1])]
