# SPDX-License-Identifier: Apache-2.0
"""A GPT-2 of a few million parameters that speaks: its weights lie in ``weights/`` (no network).

Try ``torch2fpga explain examples.speaker:factory``. How it was trained: docs/speaker.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.speaker import corpus
from examples.speaker.corpus import Document
from torch2fpga.hub import LoadedModel, load_directory

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "speaker"
WEIGHTS = Path(__file__).resolve().parent / "weights"
#: the longest context
TOKENS = 256
#: stands before every document, in training and in every figure
SEPARATOR = "<|endoftext|>"


def load(*, tokens: int = TOKENS, batch: int = 1, folder: Path = WEIGHTS) -> LoadedModel:
    """Model in float32, tokenizer and an example input of ``batch`` x ``tokens`` tokens."""
    loaded = load_directory(folder, seq=tokens, batch=batch)
    return LoadedModel(loaded.model, loaded.example, NAME, loaded.tokenizer)


def factory() -> tuple[nn.Module, Mapping[str, Tensor] | tuple[Tensor, ...]]:
    """The model with its weights, and example inputs."""
    loaded = load(tokens=64)
    return loaded.model, loaded.example


def record(folder: Path = WEIGHTS) -> dict[str, Any]:
    """What training printed: seed, seconds, corpus, bits per byte."""
    found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return found


def held_out(folder: Path = WEIGHTS) -> list[Document]:
    """The committed excerpt of held-out documents: judge on it."""
    return corpus.read(folder / "held_out.jsonl")


def calibration(folder: Path = WEIGHTS) -> list[Document]:
    """The committed excerpt of training documents: calibrate on it."""
    return corpus.read(folder / "calibration.jsonl")


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token identifiers with the separator before them."""
    return [tokenizer.convert_tokens_to_ids(SEPARATOR), *tokenizer.encode(text, add_special_tokens=False)]


def windows(tokenizer: Any, texts: Sequence[Document], tokens: int) -> Tensor:
    """Texts one after the other, cut into rows of ``tokens`` tokens without overlap; (rows, tokens)."""
    import torch

    ids = [token for document in texts for token in encode(tokenizer, document.text)]
    rows = len(ids) // tokens
    return torch.tensor(ids[: rows * tokens], dtype=torch.int64).reshape(rows, tokens)


def scored_windows(ids: Sequence[int], tokens: int) -> Iterator[tuple[list[int], int]]:
    """(window, position of its first token that counts); every token but the first counts once.

    A window is half a context further than the one before, so that a token is judged with at least half a
    context before it, except at the beginning of its text.
    """
    step, counted = tokens // 2, 1
    for start in range(0, len(ids), step):
        window = list(ids[start : start + tokens])
        if start + len(window) > counted:
            yield window, counted - start
            counted = start + len(window)


def bits_per_byte(model: Any, tokenizer: Any, texts: Sequence[Document], *, batch: int = 16) -> float:
    """Mean of -log2 p over texts, for a byte of UTF-8 whatever the tokens are.

    Each text is judged alone, behind the separator. Only the tokenizer's own tokens of a text count, so
    this is at most what the text costs: other tokens of the same text would add to its probability.
    """
    import torch

    tokens = min(TOKENS, model.config.n_positions)
    rows = [w for d in texts for w in scored_windows(encode(tokenizer, d.text), tokens)]
    rows.sort(key=lambda row: len(row[0]))  # little padding
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(rows), batch):
            part = rows[begin : begin + batch]
            longest = len(part[-1][0])
            # padding comes last, where a causal model does not see it
            ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in part])
            logits = model(input_ids=ids).logits.float()
            nats = -logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            for line, (row, first) in zip(nats, part, strict=True):
                total += float(line[first - 1 : len(row) - 1].double().sum())
    return total / math.log(2) / sum(len(document.data) for document in texts)


def speak(
    loaded: LoadedModel, prompt: str, *, tokens: int = 64, temperature: float = 0.0, seed: int = 0
) -> str:
    """What the model adds to a prompt.

    Args:
        tokens: at most so many, and no more than the context holds.
        temperature: 0 takes the most probable token each time.
    """
    import torch

    ids = encode(loaded.tokenizer, prompt)
    separator, begin = ids[0], len(ids)
    random = torch.Generator().manual_seed(seed)
    model: Any = loaded.model
    with torch.no_grad():
        while len(ids) < min(begin + tokens, model.config.n_positions):
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            if temperature > 0:
                chosen = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=random))
            else:
                chosen = int(logits.argmax())
            if chosen == separator:
                break
            ids.append(chosen)
    text: str = loaded.tokenizer.decode(ids[begin:], clean_up_tokenization_spaces=False)
    return text
