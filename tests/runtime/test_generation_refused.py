# SPDX-License-Identifier: Apache-2.0
"""What generation does not do is refused by name, and all of it at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.runtime.generation_samples import (
    LENGTH,
    POSITIONS,
    PROMPT,
    WORDS,
    compiled_gpt2,
    gpt2,
    model,
    new,
    text,
)
from tests.tiny import cxx_cache, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.errors import CompileError, InputError
from torch2fpga.runtime import generation
from torch2fpga.runtime.generation import Session

__all__ = ["cxx_cache", "model", "seeded"]
pytestmark = [pytest.mark.hf, pytest.mark.gxx]


@pytest.fixture(scope="module")
def plain() -> CompiledModel:
    """The same without ``generate=True``."""
    return compiled_gpt2(generate=False, max_length=None)


# -- what is refused --------------------------------------------------------------------------------

REFUSED: dict[str, Any] = {
    "top_p": 0.9,
    "min_p": 0.1,
    "typical_p": 0.5,
    "num_beams": 4,
    "num_return_sequences": 2,
    "repetition_penalty": 1.2,
    "length_penalty": 2.0,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[1]],
    "min_new_tokens": 3,
    "penalty_alpha": 0.6,
    "guidance_scale": 1.5,
    "use_cache": False,
    "output_scores": True,
    "return_dict_in_generate": True,
    "logits_processor": [len],
    "stopping_criteria": [len],
    "stop_strings": ["."],
    "generation_config": object(),
    "assistant_model": object(),
    "past_key_values": (),
    "token_type_ids": torch.zeros(1, 5),
    "no_such_argument": 1,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_refused_by_name(name: str, model: CompiledModel) -> None:
    with pytest.raises(InputError, match=f"{name}=.* is not supported"):
        model.generate(PROMPT, max_new_tokens=2, **{name: REFUSED[name]})


def test_what_changes_nothing_is_taken(model: CompiledModel) -> None:
    neutral = {name: values[-1] for name, values in generation.NEUTRAL.items()}
    given = {
        **neutral,
        "logits_processor": None,
        "pad_token_id": 3,
        "attention_mask": torch.ones_like(PROMPT),
    }
    assert new(model, count=4, **given) == new(model, count=4)


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "batch": (torch.ones(2, 3, dtype=torch.int64), {}, "2 sequences; one at a time"),
    "floats": (torch.ones(1, 3), {}, r"torch.float32 \(1, 3\); expected integers"),
    "complex": (torch.ones(1, 3, dtype=torch.complex64), {}, "expected integers"),
    "list": ([1, 2], {}, "is list; expected integers"),
    "flat": (torch.tensor([1, 2]), {}, r"\(2,\); expected integers"),
    "nothing": (torch.ones(1, 0, dtype=torch.int64), {}, r"\(1, 0\); expected integers"),
    "large ids": (torch.tensor([[1, WORDS]]), {}, r"holds 1..101, expected ids in 0..100"),
    "small ids": (torch.tensor([[-1, 4]]), {}, r"holds -1..4, expected ids"),
    "long prompt": (text(LENGTH + 1), {}, "62 tokens; compiled with max_length=61"),
    "zeros": (PROMPT, {"attention_mask": torch.tensor([[0, 1, 1, 1, 1]])}, "attention_mask has zeros"),
    "mask": (PROMPT, {"attention_mask": torch.ones(1, 4)}, r"attention_mask is \(1, 4\); expected a tensor"),
    "no mask": (PROMPT, {"attention_mask": [1]}, "attention_mask is list"),
    "no end": (PROMPT, {"max_new_tokens": None}, r"give max_new_tokens \(or max_length\)"),
    "none": (PROMPT, {"max_new_tokens": 0}, "0 new tokens behind 5"),
    "too many": (PROMPT, {"max_new_tokens": LENGTH - 3}, "58 new tokens behind 5; from 1 to 57"),
    "too long": (PROMPT, {"max_new_tokens": None, "max_length": LENGTH + 2}, "max_length=63: 58 new tokens"),
    "too short": (PROMPT, {"max_new_tokens": None, "max_length": 5}, "0 new tokens"),
    "half": (PROMPT, {"max_new_tokens": 2.5}, "max_new_tokens=2.5 is no whole number"),
    "top_k": (PROMPT, {"do_sample": True, "top_k": 65}, "top_k is 65"),
    "top_k 0": (PROMPT, {"do_sample": True, "top_k": 0}, "top_k is 0"),
    "cold": (PROMPT, {"do_sample": True, "temperature": 0.0}, "temperature is 0.0"),
    "word": (PROMPT, {"do_sample": True, "temperature": "hot"}, "temperature='hot' is no number"),
    "seed": (PROMPT, {"seed": -1}, "seed is -1"),
    "eos": (PROMPT, {"eos_token_id": 1.5}, "eos_token_id=1.5: expected a token id"),
    "eos words": (PROMPT, {"eos_token_id": ["."]}, r"eos_token_id=\['.'\]: expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str, model: CompiledModel) -> None:
    ids, options, why = WRONG[name]
    with pytest.raises(InputError, match=why):
        model.generate(ids, **{"max_new_tokens": 2, **options})


def test_all_that_is_wrong_is_said_at_once(model: CompiledModel) -> None:
    wrong = {"top_p": 0.5, "num_beams": 3, "do_sample": True, "top_k": 99, "temperature": -1.0, "seed": -5}
    with pytest.raises(InputError) as error:
        model.generate(torch.tensor([[500]]), eos_token_id="x", **wrong)
    parts = str(error.value).split("; ")
    named = ("top_p=0.5", "num_beams=3", "input_ids holds", "give max_new_tokens", "top_k is 99",
             "temperature is -1.0", "seed is -5", "eos_token_id='x'")  # fmt: skip
    assert len(parts) == len(named)
    assert all(part.startswith(name) for part, name in zip(parts, named, strict=True)), parts


def test_each_kind_of_model_says_what_to_call(model: CompiledModel, plain: CompiledModel) -> None:
    with pytest.raises(InputError, match=r"call generate\(input_ids"):
        model(PROMPT)
    with pytest.raises(InputError, match=r"top_p=0\.5 is not supported; the model was compiled without"):
        plain.generate(PROMPT, max_new_tokens=2, top_p=0.5)
    with pytest.raises(InputError, match="without generate=True"):
        Session(plain)
    assert plain(PROMPT).logits.shape == (1, 5, WORDS)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("reference", r"call generate\(input_ids"),
        ("verify", "call verify_generation"),
        ("time", r"call time_generation\(input_ids"),
        ("shrink_fifos", "are not cut"),
    ],
)
def test_what_makes_one_pass_says_what_to_call_instead(model: CompiledModel, name: str, instead: str) -> None:
    with pytest.raises(InputError, match=f"with generate=True.*{instead}"):
        getattr(model, name)(*([] if name == "shrink_fifos" else [PROMPT]))


def test_times_are_not_taken_of_ids_that_are_none(model: CompiledModel) -> None:
    with pytest.raises(InputError, match="expected ids in 0"):
        model.time_generation(torch.tensor([[WORDS]]))


# -- compile ----------------------------------------------------------------------------------------


class NoHead(nn.Module):
    """Ids in, but no language model of transformers."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids * 1.0


IDS = {"input_ids": text(4)}
NOT_COMPILED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "two inputs": (gpt2, {**IDS, "attention_mask": torch.ones(1, 4)}, {}, "expected the token ids alone"),
    "batch": (gpt2, {"input_ids": text(4).reshape(2, 2)}, {}, r"\(2, 2\); expected integers \(1, tokens\)"),
    "floats": (gpt2, {"input_ids": text(4).float()}, {}, "torch.float32"),
    "no head": (NoHead, IDS, {}, "NoHead has no argument logits_to_keep"),
    "positions": (gpt2, IDS, {"max_length": POSITIONS + 1}, "max_length=81: the model has 80 positions"),
    "example": (gpt2, IDS, {"max_length": 3}, "the example has 4 tokens, more than max_length=3"),
    "two reasons": (
        NoHead,
        {"input_ids": text(4).float()},
        {"max_length": 3},
        "float32.*logits_to_keep.*4 tokens",
    ),
}


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_compile_refuses(name: str) -> None:
    make, example, options, why = NOT_COMPILED[name]
    with pytest.raises(CompileError, match=f"generate=True: .*{why}"):
        torch2fpga.compile(make().eval(), example, generate=True, plan="simple", **options)


def test_a_length_is_only_for_generation() -> None:
    with pytest.raises(CompileError, match="max_length is for generate=True"):
        torch2fpga.compile(gpt2(), IDS, max_length=9, plan="simple")


def test_the_length_is_the_models_own_where_none_is_given() -> None:
    from torch2fpga.decoding import decoding

    found = decoding(gpt2(), IDS, None)
    assert (found.length, found.prompt) == (POSITIONS, 4)
    assert decoding(gpt2(n_positions=3000), (text(4),), None).length == 1024
