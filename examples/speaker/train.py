# SPDX-License-Identifier: Apache-2.0
"""Train the small GPT-2 on text that comes with Python, and fit the 5-gram model that it has to beat.

    python -m examples.speaker.train                   12 minutes, into build/speaker
    python -m examples.speaker.train --steps 1200      a fixed number of steps instead

The same seed, steps and corpus give the same batches. Sums of floats in another order (threads, other
processors) still change the last digits of the weights.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from benchmarks.common import machine
from examples import speaker
from examples.speaker import card, corpus
from examples.speaker.corpus import Document
from examples.speaker.ngram import NGram
from torch2fpga.hub import quiet

#: bytes of the excerpts that are written beside the weights, and of one document in them
HELD_OUT_BYTES, CALIBRATION_BYTES, ONE_DOCUMENT = 32_000, 16_000, 2_500
#: steps whose time says how many fit into the minutes
TRIAL_STEPS = 6
#: settings that the command line takes
SIZES = ("vocabulary", "width", "layers", "heads", "batch", "rate", "seed")


@dataclass(frozen=True)
class Settings:
    """Sizes and training; the defaults are those of the committed weights.

    Attributes:
        vocabulary: tokens: a separator, 256 bytes, and byte pairs that training finds.
        width, layers, heads, context: of GPT-2.
        batch: windows of a step.
        rate, table_rate: highest learning rates of Muon and of AdamW; both rise over the first ``warm_up``
            of the steps, then fall as a cosine to a twentieth.
        decay: weight decay of the layers' matrices.
        clip: largest norm of all gradients.
        bfloat16: matrix products of training in bfloat16.
    """

    vocabulary: int = 2048
    width: int = 256
    layers: int = 3
    heads: int = 8
    context: int = speaker.TOKENS
    batch: int = 8
    rate: float = 0.02
    table_rate: float = 3e-3
    warm_up: float = 0.05
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    bfloat16: bool = True


def fit_tokenizer(texts: Sequence[Document], vocabulary: int) -> Any:
    """Byte pairs after GPT-2, with its splitting into words; any text has tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[speaker.SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pairs.train_from_iterator((d.text for d in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        bos_token=speaker.SEPARATOR,
        eos_token=speaker.SEPARATOR,
        clean_up_tokenization_spaces=False,
    )


def make_model(settings: Settings, vocabulary: int) -> Any:
    """An untrained ``GPT2LMHeadModel``, its head tied to the table of tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    # dropout off: few epochs, nothing is learnt by heart
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(settings.seed)
    return GPT2LMHeadModel(config).train()


def token_stream(tokenizer: Any, texts: Sequence[Document]) -> Tensor:
    """Tokens of all texts, each behind the separator; (tokens,)."""
    found = tokenizer([d.text for d in texts], add_special_tokens=False)["input_ids"]
    separator = tokenizer.convert_tokens_to_ids(speaker.SEPARATOR)
    return torch.tensor([token for ids in found for token in (separator, *ids)], dtype=torch.int64)


def batches(stream: Tensor, settings: Settings) -> Iterator[Tensor]:
    """Windows in random order without end, cut elsewhere in each epoch; (batch, context).

    Raises:
        ValueError: if the text is shorter than a batch.
    """
    random = torch.Generator().manual_seed(settings.seed)
    if len(stream) < settings.context * (settings.batch + 1):
        raise ValueError(f"{len(stream)} tokens are less than a batch")
    while True:
        offset = int(torch.randint(settings.context, (1,), generator=random))
        rows = (len(stream) - offset) // settings.context
        cut = stream[offset : offset + rows * settings.context].reshape(rows, settings.context)
        order = torch.randperm(rows, generator=random)
        for begin in range(0, rows - settings.batch + 1, settings.batch):
            yield cut[order[begin : begin + settings.batch]]


def share_of_rate(step: int, steps: int, settings: Settings) -> float:
    """What part of the highest learning rate holds in a step: a rise, then a cosine to a twentieth."""
    rise = max(1, round(settings.warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    share = (step - rise) / max(1, steps - rise)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * share)) / 2


def optimisers(model: Any, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for tables and vectors, both of torch.

    Muon makes every update orthogonal (K. Jordan 2024); AdamW for everything, at the one rate tried, needed
    more than three times as many steps to the same loss.
    """
    matrices = [p for p in model.transformer.h.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=settings.rate, weight_decay=settings.decay),
        torch.optim.AdamW(others, lr=settings.table_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def take_step(
    model: Any, optimise: Sequence[torch.optim.Optimizer], ids: Tensor, share: float, settings: Settings
) -> float:
    """One step on a batch at a share of the highest rates; the loss before it, nats a token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
    model.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    for one, rate in zip(optimise, (settings.rate, settings.table_rate), strict=True):
        for group in one.param_groups:
            group["lr"] = share * rate
        one.step()
    return float(loss.detach())


def train(
    stream: Tensor, settings: Settings, vocabulary: int, steps: int, console: Console | None = None
) -> tuple[Any, list[float]]:
    """(model in eval mode, loss of every step in nats a token)."""
    model = make_model(settings, vocabulary)
    optimise, losses = optimisers(model, settings), []
    source = batches(stream, settings)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    silent = console is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as progress:
        task = progress.add_task("training", total=steps)
        for step in range(steps):
            share = share_of_rate(step, steps, settings)
            losses.append(take_step(model, optimise, next(source), share, settings))
            recent = losses[-50:]
            shown = f"loss {sum(recent) / len(recent):.3f} nats a token"
            progress.update(task, advance=1, description=shown)
            if console is not None and silent and (step + 1) % 100 == 0:
                console.print(f"step {step + 1} of {steps}: {shown}", highlight=False)
    return model.eval(), losses


def seconds_a_step(stream: Tensor, settings: Settings, vocabulary: int) -> float:
    """Time of a step here, on a model that is thrown away."""
    model = make_model(settings, vocabulary)
    optimise, source = optimisers(model, settings), batches(stream, settings)
    times = []
    for _ in range(TRIAL_STEPS):
        start = time.perf_counter()
        take_step(model, optimise, next(source), 1.0, settings)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def faster(stream: Tensor, settings: Settings, vocabulary: int) -> tuple[Settings, float]:
    """(settings with the arithmetic that is faster here, seconds a step)."""
    timed = [
        (seconds_a_step(stream, tried, vocabulary), tried.bfloat16, tried)
        for tried in (replace(settings, bfloat16=value) for value in (False, True))
    ]
    took, _, chosen = min(timed)
    return chosen, took


def save(
    folder: Path, model: Any, tokenizer: Any, train_on: list[Document], judge_on: list[Document]
) -> None:
    """Weights in float16, tokenizer and both excerpts."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    with quiet(transformers):
        copy.deepcopy(model).half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    corpus.write(folder / "held_out.jsonl", corpus.excerpt(judge_on, HELD_OUT_BYTES, ONE_DOCUMENT))
    # every tenth document: topics and modules from all over the library
    corpus.write(folder / "calibration.jsonl", corpus.excerpt(train_on[::10], CALIBRATION_BYTES, 1_000))


def judge(folder: Path, train_on: list[Document], judge_on: list[Document]) -> dict[str, float]:
    """Bits per byte of the saved model and of 5-grams, on everything held out and on the excerpt."""
    loaded = speaker.load(folder=folder)
    grams, excerpt = NGram([d.data for d in train_on]), speaker.held_out(folder)
    return {
        "held_out": speaker.bits_per_byte(loaded.model, loaded.tokenizer, judge_on),
        "held_out_5gram": grams.bits_per_byte([d.data for d in judge_on]),
        "excerpt": speaker.bits_per_byte(loaded.model, loaded.tokenizer, excerpt),
        "excerpt_5gram": grams.bits_per_byte([d.data for d in excerpt]),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--minutes", type=float, default=12.0, help="training time (default 12)")
    parser.add_argument("--steps", type=int, help="train for so many steps, however long they take")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, help="of torch (default: all cores)")
    what = "of matrix products in training (default: the faster)"
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help=what)
    parser.add_argument("--out", type=Path, default=Path("build/speaker"))
    for name in SIZES:
        value = getattr(Settings, name)
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def plan(
    chosen: argparse.Namespace, stream: Tensor, settings: Settings, vocabulary: int
) -> tuple[Settings, int]:
    """(settings with their arithmetic, number of steps), from a few timed steps where not given."""
    if chosen.dtype == "auto":
        settings, each = faster(stream, settings, vocabulary)
    else:
        settings = replace(settings, bfloat16=chosen.dtype == "bfloat16")
        each = seconds_a_step(stream, settings, vocabulary)
    return settings, chosen.steps or max(1, round(60 * chosen.minutes / each))


def main() -> int:
    """Corpus, tokenizer, training, figures."""
    chosen, console = arguments(), Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(chosen.threads)
    texts = corpus.documents()
    train_on, judge_on = corpus.split(texts)
    sizes = [sum(len(d.data) for d in part) for part in (train_on, judge_on)]
    console.print(f"Python {platform.python_version()}, corpus {corpus.sha256(texts)}")
    console.print(f"{len(train_on)} documents of {sizes[0]:,} bytes to train on; "
                  f"{len(judge_on)} of {sizes[1]:,} bytes held out")  # fmt: skip
    settings = Settings(**{name: getattr(chosen, name) for name in SIZES})
    tokenizer = fit_tokenizer(train_on, settings.vocabulary)
    stream = token_stream(tokenizer, train_on)
    settings, steps = plan(chosen, stream, settings, len(tokenizer))
    epochs = steps * settings.batch * settings.context / len(stream)
    console.print(f"{len(stream):,} tokens of {sizes[0] / len(stream):.2f} bytes; "
                  f"{steps} steps, {epochs:.2f} epochs")  # fmt: skip
    start = time.perf_counter()
    model, _ = train(stream, settings, len(tokenizer), steps, console)
    took = time.perf_counter() - start
    save(chosen.out, model, tokenizer, train_on, judge_on)
    found = judge(chosen.out, train_on, judge_on)
    parameters = sum(p.numel() for p in model.parameters())
    record = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": machine()["class"],
        "corpus_sha256": corpus.sha256(texts),
        "train_documents": len(train_on),
        "train_bytes": sizes[0],
        "train_tokens": len(stream),
        "held_out_documents": len(judge_on),
        "held_out_bytes": sizes[1],
        "parameters": parameters,
        "steps": steps,
        "epochs": round(epochs, 3),
        "threads": chosen.threads,
        "training_seconds": round(took, 1),
        "settings": asdict(settings),
        "bits_per_byte": found,
    }
    (chosen.out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    card.write(chosen.out)
    console.print(f"trained in {took / 60:.1f} minutes with seed {settings.seed}: {parameters:,} parameters, "
                  f"written to {chosen.out}")  # fmt: skip
    for name in ("held_out", "excerpt"):
        console.print(f"bits per byte, {name}: {found[name]:.4f}; 5-gram {found[name + '_5gram']:.4f}")
    return 0 if found["held_out"] < found["held_out_5gram"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
