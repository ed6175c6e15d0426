# SPDX-License-Identifier: Apache-2.0
"""``CompiledModel.generate``: what transformers does too is done as there, all else is refused by name."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import torch2fpga
from tests.runtime.generation_samples import (
    LENGTH,
    PROMPT,
    ROWS,
    WORDS,
    compiled_gpt2,
    gpt2,
    model,
    new,
    text,
)
from tests.tiny import cxx_cache, seeded
from torch2fpga.compiled import CompiledModel
from torch2fpga.errors import InputError
from torch2fpga.runtime import generation
from torch2fpga.runtime.generation import (
    Sampling,
    Session,
    reference_tokens,
    reference_trace,
    verify_generation,
)

__all__ = ["cxx_cache", "model", "seeded"]
pytestmark = [pytest.mark.hf, pytest.mark.gxx]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every launch."""
    seen: list[tuple[int, int]] = []
    real = Session.launch

    def spy(self: Session, ids: Tensor, turns: int = 1, taps: Any = ()) -> Any:
        seen.append((ids.shape[1], turns))
        return real(self, ids, turns, taps)

    monkeypatch.setattr(Session, "launch", spy)
    return seen


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.puts: list[Tensor] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        assert not self.ended
        self.puts.append(value)

    def end(self) -> None:
        self.ended += 1


# -- what comes out ---------------------------------------------------------------------------------


def test_the_prompt_stands_in_front(model: CompiledModel) -> None:
    found = model.generate(PROMPT, max_new_tokens=9)
    assert found.shape == (1, 14) and found.dtype == torch.int64
    assert torch.equal(found[:, :5], PROMPT)
    assert torch.equal(model.generate(PROMPT, max_length=14), found)
    # as in transformers, new tokens go before a length
    assert torch.equal(model.generate(PROMPT.to(torch.int32), max_new_tokens=9, max_length=10), found)
    assert len(set(new(model))) > 5


def test_tokens_are_those_of_the_reference(model: CompiledModel) -> None:
    for sampling in (Sampling(), Sampling(9, 1.5, 11)):
        session = Session(model, sampling)
        tokens, _ = session.launch(PROMPT, 12)
        whole = torch.cat((PROMPT, torch.tensor([tokens])), 1)
        trace = reference_trace(model, whole[:, :-1])
        assert reference_tokens(model, trace, session.settings, 5) == tokens
    assert tokens != new(model, count=12)


def test_float_and_compiled_mostly_agree(model: CompiledModel) -> None:
    """Each next token by itself, so that one other choice does not count twice."""
    whole = model.generate(PROMPT, max_new_tokens=40)
    with torch.no_grad():
        chosen = gpt2()(whole).logits.argmax(-1)[0, 4:-1]
    assert float((chosen == whole[0, 5:]).float().mean()) > 0.6


@pytest.mark.parametrize("splits", [[12], [1] * 12, [5, 7], [3, 1, 8]])
def test_the_same_tokens_and_bits_however_the_text_is_cut(model: CompiledModel, splits: list[int]) -> None:
    drawn = {"top_k": 7, "temperature": 0.9, "seed": 3}
    for sampling, options in ((None, {}), (Sampling(**drawn), {"do_sample": True, **drawn})):
        report = verify_generation(model, PROMPT, splits, sampling)
        assert report.bit_exact, report
        assert list(report.tokens) == new(model, count=12, **options)
        assert [launch.turns for launch in report.launches] == splits


def test_a_wrong_stream_is_found(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that another launch left behind must not go unseen."""
    real = Session.launch

    def forgets(self: Session, ids: Tensor, turns: int = 1, taps: Any = ()) -> Any:
        for cache in self._caches.values():
            cache[: cache.size // 2] = 3
        return real(self, ids, turns, taps)

    monkeypatch.setattr(Session, "launch", forgets)
    report = verify_generation(model, PROMPT, [2, 2])
    assert not report.bit_exact and report.wrong and str(report).startswith("NOT bit-exact: ")


def test_a_wrong_last_token_is_found(model: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream behind it shows it: it is not read again."""
    real = Session.launch

    def slips(self: Session, ids: Tensor, turns: int = 1, taps: Any = ()) -> Any:
        tokens, result = real(self, ids, turns, taps)
        return [*tokens[:-1], (tokens[-1] + 1) % WORDS], result

    monkeypatch.setattr(Session, "launch", slips)
    report = verify_generation(model, PROMPT, [3])
    assert not report.bit_exact and not report.wrong and "tokens differ" in str(report)


def test_a_long_prompt_goes_in_by_several_launches(
    model: CompiledModel, launches: list[tuple[int, int]]
) -> None:
    prompt = text(3 * ROWS + 2, 9)
    found = new(model, prompt, 6)
    assert launches == [(ROWS, 1)] * 3 + [(2, 6)]
    # the same rows in other pieces
    session = Session(model)
    for part in (prompt[:, :1], prompt[:, 1:6], prompt[:, 6:7], *prompt[:, 7:].split(4, 1)):
        tokens, _ = session.launch(part)
    rest, _ = session.launch(torch.tensor([tokens]), 5)
    assert [*tokens, *rest] == found
    whole = torch.cat((prompt, torch.tensor([found])), 1)
    trace = reference_trace(model, whole[:, :-1])
    assert reference_tokens(model, trace, session.settings, prompt.shape[1]) == found


def test_a_text_may_be_as_long_as_compiled_for(model: CompiledModel, launches: list[tuple[int, int]]) -> None:
    found = model.generate(PROMPT, max_length=LENGTH + 1)
    assert found.shape == (1, LENGTH + 1) and launches == [(5, LENGTH - 4)]
    # the last token of a full prompt has a place, the one behind it needs none
    assert model.generate(found[:, :LENGTH], max_new_tokens=1)[0, -1] == found[0, -1]
    assert model.generate(text(1), max_new_tokens=1).shape == (1, 2)


# -- where it ends ----------------------------------------------------------------------------------


def test_a_token_ends_the_text(model: CompiledModel, launches: list[tuple[int, int]]) -> None:
    free = new(model, count=40)
    places = {token: free.index(token) for token in set(free)}
    early = next(t for t, at in places.items() if 1 < at < 14)
    late = next(t for t, at in places.items() if at > 16)
    launches.clear()
    # inside of the first launch, whose other tokens are dropped
    assert new(model, count=40, eos_token_id=early) == free[: places[early] + 1]
    assert launches == [(5, 16)]
    # in the second one, and by the first of several
    assert new(model, count=40, eos_token_id=late) == free[: places[late] + 1]
    assert launches[1:] == [(5, 16), *[(1, 16)] * (len(launches) - 3), (1, 16 if places[late] < 32 else 8)]
    for several in ([late, early], (early, late), torch.tensor([late, early]), {early, late}):
        assert new(model, count=40, eos_token_id=several) == free[: places[early] + 1]
    assert new(model, count=40, eos_token_id=torch.tensor(early)) == free[: places[early] + 1]
    absent = next(t for t in range(WORDS) if t not in places)
    assert new(model, count=40, eos_token_id=absent) == free
    assert new(model, count=40, eos_token_id=[]) == free
    # a token that only the prompt has ends nothing
    assert new(model, free_prompt := torch.tensor([[absent, 1]]), 3, eos_token_id=absent) == new(
        model, free_prompt, 3
    )


def test_a_streamer_sees_prompt_and_every_token(
    model: CompiledModel, launches: list[tuple[int, int]]
) -> None:
    seen = Recorder()
    found = new(model, count=37, streamer=seen)
    assert torch.equal(seen.puts[0], PROMPT) and seen.ended == 1
    assert [tuple(p.shape) for p in seen.puts[1:]] == [(1,)] * 37
    assert [int(p) for p in seen.puts[1:]] == found
    assert launches == [(5, 16), (1, 16), (1, 5)]
    # it sees nothing behind the end
    seen = Recorder()
    ended = new(model, count=37, streamer=seen, eos_token_id=found[3])
    assert [int(p) for p in seen.puts[1:]] == ended == found[: found.index(found[3]) + 1]
    assert seen.ended == 1
    # without one, all tokens come in one launch
    launches.clear()
    assert new(model, count=37) == found and launches == [(5, 37)]


class Numbers:
    """A tokenizer whose words are numbers."""

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(f"w{int(i)} " for i in ids)


def test_a_streamer_of_transformers(model: CompiledModel, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import TextStreamer

    found = model.generate(PROMPT, max_new_tokens=20, streamer=TextStreamer(Numbers()))
    assert capsys.readouterr().out.split() == [f"w{int(i)}" for i in found[0]]
    model.generate(PROMPT, max_new_tokens=20, streamer=TextStreamer(Numbers(), skip_prompt=True))
    assert capsys.readouterr().out.split() == [f"w{int(i)}" for i in found[0, 5:]]


# -- draws ------------------------------------------------------------------------------------------


def test_draws_follow_their_seed(model: CompiledModel) -> None:
    def drawn(**options: Any) -> list[int]:
        return new(model, do_sample=True, **options)

    greedy = new(model)
    assert drawn(top_k=1) == greedy == new(model, top_k=64, temperature=9.0, seed=4)
    assert drawn(seed=3) == drawn(seed=3, top_k=50, temperature=1.0)
    assert len({tuple(drawn(seed=s, temperature=4.0)) for s in range(5)}) == 5
    # next to no temperature: only the largest logit has weight (but for equal ones)
    assert drawn(temperature=1e-6, seed=1) == greedy


# -- sessions ---------------------------------------------------------------------------------------


def test_sessions_do_not_touch_each_other(model: CompiledModel) -> None:
    one, two = text(6, 1), text(4, 2)
    wanted = new(model, one, 6), new(model, two, 6)
    first, second = Session(model), Session(model)
    rows, found = [one, two], ([], [])  # type: ignore[var-annotated]
    for _ in range(3):
        for at, session in enumerate((first, second)):
            tokens, _ = session.launch(rows[at], 2)
            found[at].extend(tokens)
            rows[at] = torch.tensor([tokens[-1:]])
    assert found == wanted


def test_nothing_leaks_from_an_earlier_text(model: CompiledModel) -> None:
    """The card's memory is not cleared between texts: rows behind ``past`` may hold anything."""
    wanted = new(model, count=10)
    before = Session(model)
    before.launch(text(ROWS, 8), LENGTH - ROWS + 1)
    for left in (None, 0x00, 0x7F):
        session = Session(model)
        session._caches = before._caches
        for cache in session._caches.values():
            assert any(cache != generation.UNWRITTEN)
            if left is not None:
                cache[:] = left
        assert session.launch(PROMPT, 10)[0] == wanted


def test_a_launch_that_does_not_fit_changes_nothing(model: CompiledModel) -> None:
    session = Session(model)
    tokens, _ = session.launch(PROMPT, 2)
    for ids, turns, why in (
        (text(ROWS + 1), 1, "compiled for"),
        (text(1), LENGTH, "compiled for"),
        (text(1), 0, "0 tokens a launch"),
        (torch.tensor([[WORDS]]), 1, "ids in 0..100"),
        (torch.tensor([[-1]]), 1, "ids in 0..100"),
        (text(2).float(), 1, "expected integers"),
        (torch.tensor([1]), 1, "dimensions"),
        (text(4).reshape(2, 2), 1, "2 x 2"),
    ):
        with pytest.raises(InputError, match=why):
            session.launch(ids, turns)
    assert session.past == 6 and len(session.launches) == 1
    rest, _ = session.launch(torch.tensor([tokens[-1:]]), 3)
    assert [*tokens, *rest] == new(model, count=5)


# -- on disk ----------------------------------------------------------------------------------------

LOADS = """import sys, torch
from torch2fpga.persist import load
model = load(sys.argv[1])
print(model.generate(torch.tensor([[int(t) for t in sys.argv[2].split(",")]]), max_new_tokens=8)[0].tolist())
"""


def test_a_saved_model_generates_the_same(model: CompiledModel, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "saved")
    loaded = torch2fpga.load(folder)
    assert loaded.design == model.design and loaded.interface.token == model.interface.token
    assert new(loaded) == new(model)
    assert new(loaded, do_sample=True, seed=2) == new(model, do_sample=True, seed=2)
    # in a process that has compiled nothing
    words = ",".join(str(int(t)) for t in PROMPT[0])
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(folder), words], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str([*PROMPT[0].tolist(), *new(model, count=8)]), done.stderr


def test_the_prompt_rows_compiled_for_change_no_token(model: CompiledModel) -> None:
    """Another number of rows a launch is another design with the same tokens."""
    other = compiled_gpt2(rows=2)
    assert other.design.shape.max_seq == 2 and other.design.shape.keys == LENGTH
    for prompt, seed in itertools.product((text(1), PROMPT, text(20, 3)), (0, 1)):
        assert new(other, prompt, do_sample=True, seed=seed) == new(model, prompt, do_sample=True, seed=seed)
