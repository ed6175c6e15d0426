# SPDX-License-Identifier: Apache-2.0
"""The small GPT-2 whose weights lie in the repository: its size, and its bits per byte on held-out text.

    python -m benchmarks.speaker --json benchmarks/results/speaker.json

The excerpt lies beside the weights, so these figures repeat on any Python. Those of everything that was held
out, of the 5-grams and of training are the ones that examples/speaker/train.py recorded.
"""

from __future__ import annotations

import math
import os

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

from rich.console import Console

from benchmarks import common
from benchmarks.common import Results
from examples import speaker


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


def main() -> int:
    """Run and print."""
    arguments = common.arguments(__doc__).parse_args()
    results = Results("speaker")
    with common.one_core():
        add_measured(results)
    add_recorded(results)
    return results.finish(Console(), arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
