# SPDX-License-Identifier: Apache-2.0
"""The small GPT-2 whose weights lie in the repository: its size, its bits per byte on held-out text, and what
quantising it costs.

    python -m benchmarks.speaker --json benchmarks/results/speaker.json

The excerpt lies beside the weights, so these figures repeat on any Python. Those of everything that was held
out, of the 5-grams and of training are the ones that examples/speaker/train.py recorded.
"""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

from rich.console import Console

import torch2fpga
from benchmarks import common
from benchmarks.common import Results
from examples import speaker

if TYPE_CHECKING:
    from torch import Tensor

    from torch2fpga import CompiledModel


def fewer(bits: float, limit: float) -> str:
    """How much better than 5-grams, which three digits of both hardly show."""
    return f"{100 * (1 - bits / limit):.1f} % fewer bits than the 5-gram model"


def add_recorded(results: Results) -> None:
    """What the training run wrote down."""
    record = speaker.record()
    settings, found = record["settings"], record["bits_per_byte"]
    note = (
        f"seed {settings['seed']}, {record['steps']:,} steps, {record['epochs']} epochs, "
        f"{record['threads']} thread(s) of {record['machine']}"
    )
    results.add("training", "training time", record["training_seconds"] / 60, "minutes", note=note)
    note = (
        f"Python {record['python']}: {record['held_out_documents']} documents, "
        f"{record['held_out_bytes']:,} bytes; recorded in training; "
        + fewer(found["held_out"], found["held_out_5gram"])
    )
    limit = ("<=", round(found["held_out_5gram"], 4))
    results.add("held_out", "everything held out", round(found["held_out"], 4), "bits/byte", limit, note=note)
    note = f"Witten-Bell over bytes, fitted on the same {record['train_bytes']:,} bytes"
    results.add(
        "held_out_5gram", "everything held out, 5-gram", found["held_out_5gram"], "bits/byte", note=note
    )


def add_measured(results: Results) -> None:
    """The committed weights on the committed excerpt."""
    loaded, texts = speaker.load(), speaker.held_out()
    size = sum(len(d.data) for d in texts)
    tokens = sum(len(speaker.encode(loaded.tokenizer, d.text)) - 1 for d in texts)
    limit = speaker.record()["bits_per_byte"]["excerpt_5gram"]
    weights = (speaker.WEIGHTS / "model.safetensors").stat().st_size
    results.add("weights", "weights", weights / 1e6, "MB", ("<=", 6.0), note="float16, safetensors")
    parameters = sum(p.numel() for p in loaded.model.parameters()) / 1e6
    results.add("parameters", "parameters", parameters, "million", note="GPT2LMHeadModel")
    bits = speaker.bits_per_byte(loaded.model, loaded.tokenizer, texts)
    note = f"{len(texts)} documents, {size:,} bytes, half a context before each token; "
    note += fewer(bits, limit)
    results.add(
        "excerpt", "held-out excerpt", round(bits, 4), "bits/byte", ("<=", round(limit, 4)), note=note
    )
    note = "the same 5-gram model; recorded in training"
    results.add("excerpt_5gram", "held-out excerpt, 5-gram", limit, "bits/byte", note=note)
    perplexity = math.exp(bits * math.log(2) * size / tokens)
    note = f"{tokens:,} tokens of {size / tokens:.2f} bytes"
    results.add("perplexity", "held-out excerpt, perplexity", perplexity, "a token", note=note)


class Emitted:
    """A compiled model where a Hugging Face model is expected."""

    def __init__(self, compiled: CompiledModel, config: Any) -> None:
        self.compiled, self.config = compiled, config

    def __call__(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.compiled(input_ids=input_ids).logits)


def add_quantised(results: Results, console: Console) -> None:
    """Perplexity of the emitted C++ on the excerpt, for each precision; whole windows, without a cache."""
    loaded, texts = speaker.load(), speaker.held_out()
    rows = speaker.windows(loaded.tokenizer, speaker.calibration(), speaker.TOKENS)
    calibration = [{"input_ids": row[None]} for row in rows]
    size = sum(len(d.data) for d in texts)
    tokens = sum(len(speaker.encode(loaded.tokenizer, d.text)) - 1 for d in texts)
    exact = results.figures["perplexity"].value
    for precision, most in (("w8a8", 1.0), ("w4a8", 5.0)):
        name = precision.upper()
        console.print(f"{name}: compiling and reading {tokens:,} tokens", highlight=False)
        compiled = torch2fpga.compile(
            loaded.model, {"input_ids": rows[:1]}, calibration=calibration, precision=precision
        )
        emitted = Emitted(compiled, loaded.model.config)
        bits = speaker.bits_per_byte(emitted, loaded.tokenizer, texts, batch=1)
        perplexity = math.exp(bits * math.log(2) * size / tokens)
        note = f"emitted C++, calibrated on {len(rows)} windows of {speaker.TOKENS} tokens of training text"
        results.add(f"perplexity_{precision}", f"held-out excerpt, perplexity, {name}", perplexity, "a token",
                    note=note)  # fmt: skip
        more = 100 * (perplexity / exact - 1)
        results.add(f"worse_{precision}", f"{name} against float", round(more, 2), "% more perplexity",
                    ("<=", most))  # fmt: skip


def main() -> int:
    """Run and print."""
    arguments = common.arguments(__doc__).parse_args()
    results, console = Results("speaker"), Console()
    with common.one_core():
        add_measured(results)
        add_quantised(results, console)
    add_recorded(results)
    return results.finish(console, arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
