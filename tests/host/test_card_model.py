# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.load(project, device=...)``: a project on a card, as a compiled model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import torch2fpga
from tests.host.programs import Program
from tests.runtime.generation_samples import PROMPT, new, text
from tests.tiny import build, compile_model
from torch2fpga.compiled import CompiledModel
from torch2fpga.errors import InputError, WeightsError
from torch2fpga.host.build import host_program
from torch2fpga.runtime.card import CardError, CardModel
from torch2fpga.simulate.card import emulated_environment

pytestmark = [pytest.mark.xrt, pytest.mark.gxx, pytest.mark.hf]


@pytest.fixture(scope="module")
def card(gpt2: Program) -> Iterator[CardModel]:
    """The generating design on an emulated card."""
    with torch2fpga.load(gpt2.folder, device="emulated") as found:
        yield found


class Tokens:
    """A streamer that keeps what it gets."""

    def __init__(self) -> None:
        self.parts: list[list[int]] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.parts.append(value.reshape(-1).tolist())

    def end(self) -> None:
        self.ended = True


def test_tokens_are_the_compiled_models(card: CardModel, generating: CompiledModel) -> None:
    prompt = text(17)
    assert card.generate(prompt, max_new_tokens=20).tolist() == [prompt[0].tolist() + new(generating, prompt)]
    options = {"do_sample": True, "top_k": 9, "temperature": 1.7, "seed": 11}
    assert card.generate(PROMPT, max_new_tokens=20, **options).tolist() == [
        PROMPT[0].tolist() + new(generating, PROMPT, 20, **options)
    ]
    streamer = Tokens()
    found = card.generate(PROMPT, max_new_tokens=6, streamer=streamer)
    assert streamer.ended and streamer.parts[0] == PROMPT[0].tolist()
    assert [t for part in streamer.parts for t in part] == found[0].tolist()


def test_wrong_requests_are_refused_as_ever(card: CardModel) -> None:
    with pytest.raises(InputError, match="give max_new_tokens"):
        card.generate(PROMPT)
    with pytest.raises(InputError, match=r"expected ids in 0\.\.100"):
        card.generate(torch.tensor([[101]]), max_new_tokens=1)
    with pytest.raises(InputError, match="call generate"):
        card(PROMPT)


def test_the_program_refuses_by_itself(card: CardModel, generating: CompiledModel) -> None:
    """What reaches it in another way than by this class; it goes on after that."""
    process = card.functional.process
    ids, word = (b"\1\0\0\0" + bytes(60)), bytes(64)
    with pytest.raises(InputError, match="rows up to 62; compiled for 61"):
        process.launch((1, 1, 61, 1), [ids, word])
    with pytest.raises(InputError, match=r"id 101 at 0; expected ids in 0\.\.100"):
        process.launch((1, 1, 0, 1), [b"e\0\0\0" + bytes(60), word])
    with pytest.raises(InputError, match="63 bytes, the launch takes 64"):
        process.launch((1, 1, 0, 1), [ids[:63], word])
    assert (
        new(generating, PROMPT, 5) == card.generate(PROMPT, max_new_tokens=5)[0, PROMPT.shape[1] :].tolist()
    )


def test_a_call_of_a_plain_model(mlp: Program, plain: CompiledModel) -> None:
    inputs = [torch.randn(*sizes, 10) for sizes in ((2, 5), (1, 3), (2, 1))]
    with torch2fpga.load(mlp.folder, device="emulated") as card:
        for given in inputs:
            assert torch.equal(card(given), plain(given))
        with pytest.raises(InputError, match="has 11 channels, expected 10"):
            card(torch.randn(2, 5, 11))
        with pytest.raises(InputError, match="compiled for at most 2 x 5"):
            card(torch.randn(2, 6, 10))


def test_masks_ids_and_named_outputs(tmp_path: Path) -> None:
    compiled = compile_model(*build("bert"))
    compiled.write(tmp_path / "project")
    inputs = build("bert")[1]
    assert isinstance(inputs, dict)
    folder = tmp_path / "project"
    program = Program(folder, host_program(folder), emulated_environment(folder))
    assert "verify: equal" in program.says("--verify")
    with torch2fpga.load(folder, device="emulated") as card:
        found, wanted = card(**inputs), compiled.reference(**inputs)
    assert type(found) is type(wanted) and list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_without_a_card(gpt2: Program) -> None:
    with pytest.raises(CardError) as caught:
        torch2fpga.load(gpt2.folder, device=0)
    message = str(caught.value)
    assert "build/hw/gpt_2_lm_head_model.xclbin is missing" in message
    assert "device='emulated'" in message
    shutil.copytree(gpt2.folder / "emulation", gpt2.folder / "build" / "hw")
    try:
        with pytest.raises(CardError, match="no card with the driver xocl"):
            torch2fpga.load(gpt2.folder, device="0000:3b:00.1")
    finally:
        shutil.rmtree(gpt2.folder / "build")


@pytest.mark.parametrize("device", [-1, True, "cuda", "0; true", "--help", 1.5])
def test_devices_that_are_none(gpt2: Program, device: object) -> None:
    with pytest.raises(InputError, match="expected the index of a card"):
        torch2fpga.load(gpt2.folder, device=device)  # type: ignore[call-overload]


def test_a_launch_that_fails_does_not_end_the_model(gpt2: Program, generating: CompiledModel) -> None:
    """The program has ended; the next launch starts it again."""
    with pytest.MonkeyPatch.context() as patch:
        faults = "hang@launch=2"
        from torch2fpga.runtime import card as module

        real = module.emulated_environment
        patch.setattr(module, "emulated_environment", lambda project: real(project, faults=faults))
        card = CardModel(gpt2.folder, "emulated", timeout_ms=500)
    with card:
        with pytest.raises(CardError, match="is not done after 500 ms"):
            card.generate(text(17), max_new_tokens=3)
        assert card.generate(PROMPT, max_new_tokens=3)[0, 5:].tolist() == new(generating, PROMPT, 3)


def test_a_process_that_was_killed(card: CardModel, generating: CompiledModel) -> None:
    process = card.functional.process._process
    assert process is not None
    process.kill()
    with pytest.raises(CardError, match="the host program ended with -9"):
        card.generate(PROMPT, max_new_tokens=3)
    assert card.generate(PROMPT, max_new_tokens=3)[0, 5:].tolist() == new(generating, PROMPT, 3)


def test_files_of_another_project(gpt2: Program, tmp_path: Path) -> None:
    folder = gpt2.copied(tmp_path / "project").folder
    file = folder / "host" / "interface.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "manifest_sha256": "0" * 64}))
    with pytest.raises(WeightsError, match="belongs to another manifest"):
        torch2fpga.load(folder, device="emulated")
    file.unlink()
    with pytest.raises(WeightsError, match=r"interface\.json cannot be read"):
        torch2fpga.load(folder, device="emulated")
    with pytest.raises(WeightsError, match=r"manifest\.json is missing"):
        torch2fpga.load(tmp_path, device="emulated")
