# SPDX-License-Identifier: Apache-2.0
"""Compile-only check for CI: model -> capture -> passes -> project text -> checker, without g++.

    python -m scripts.smoke [NAME ...]

Every example with a ``factory()`` and tiny configurations of every family; the sizes are chosen so that
nothing is a multiple of anything else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from rich.console import Console
from rich.markup import escape
from torch import Tensor, nn

import torch2fpga
from torch2fpga.emit.check import Finding, check_project
from torch2fpga.emit.project import project_files

ROOT = Path(__file__).resolve().parents[1]
BATCH, TOKENS, WORDS = 2, 11, 103
Inputs = Mapping[str, Tensor] | tuple[Tensor, ...]
Factory = Callable[[], tuple[nn.Module, Inputs]]


def _ids() -> Tensor:
    return torch.randint(WORDS, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))


def _masked() -> dict[str, Tensor]:
    mask = torch.ones(BATCH, TOKENS, dtype=torch.int64)
    mask[-1, -3:] = 0
    return {"input_ids": _ids(), "attention_mask": mask}


def bert() -> tuple[nn.Module, Inputs]:
    """Post-norm encoder with erf GELU and a pooling head."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 42, "intermediate_size": 90, "num_attention_heads": 3, "num_hidden_layers": 3}
    return BertModel(BertConfig(vocab_size=WORDS, max_position_embeddings=32, **sizes)), _masked()


def distilbert() -> tuple[nn.Module, Inputs]:
    """The same without types and pooling."""
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"dim": 35, "hidden_dim": 75, "n_heads": 5, "n_layers": 2}
    return DistilBertModel(DistilBertConfig(vocab_size=WORDS, **sizes)), _masked()


def gpt2() -> tuple[nn.Module, Inputs]:
    """Pre-norm causal decoder with tanh GELU and a head tied to the word table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS, n_embd=39, n_head=3, n_layer=3, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config), {"input_ids": _ids()}


def decoder() -> tuple[nn.Module, Inputs]:
    """Grouped heads, rotary positions, gated MLP; compiled to generate text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 48, "intermediate_size": 75, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=WORDS,
        num_hidden_layers=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        **sizes,
    )
    return LlamaForCausalLM(config), {"input_ids": _ids()[:1]}


#: more arguments of compile
OPTIONS: dict[str, dict[str, Any]] = {"tiny decoder": {"generate": True, "max_length": 29}}


def perceptron() -> tuple[nn.Module, Inputs]:
    """Linears and ReLU."""
    return nn.Sequential(nn.Linear(21, 50), nn.ReLU(), nn.Linear(50, 9)), (torch.randn(7, 21),)


def encoder() -> tuple[nn.Module, Inputs]:
    """torch's encoder in its pre-norm form."""
    layer = nn.TransformerEncoderLayer(27, 3, 50, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(BATCH, TOKENS, 27),)


def cases() -> dict[str, Factory]:
    """Name -> factory of everything that is compiled."""
    tiny = (perceptron, encoder, bert, distilbert, gpt2, decoder)
    found: dict[str, Factory] = {f"tiny {factory.__name__}": factory for factory in tiny}
    for path in sorted((ROOT / "examples").glob("[!_]*.py")):
        factory = getattr(importlib.import_module(f"examples.{path.stem}"), "factory", None)
        if factory is not None:
            found[f"examples.{path.stem}"] = factory
    return found


def check(factory: Factory, options: Mapping[str, Any] | None = None) -> tuple[list[Finding], Any, int]:
    """(findings, compiled model, bytes of text) of one model.

    Args:
        options: more arguments of ``compile``.
    """
    torch.manual_seed(0)
    model, example = factory()
    model.eval()
    explanation = torch2fpga.explain(model, example)
    if not explanation.ok:
        raise torch2fpga.UnsupportedModel(explanation.refusals)
    with warnings.catch_warnings():
        # one sample is enough to see whether the text is well formed
        warnings.filterwarnings("ignore", message="calibrated on")
        compiled = torch2fpga.compile(model, example, **(options or {}))
    files = project_files(compiled)
    return check_project(files, include_dirs=[]), compiled, sum(map(len, files.values()))


def main() -> int:
    """Check the chosen cases; the exit status is the number of those that failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only cases whose name contains one of these"
    )
    names = parser.parse_args().names
    console, failed, begin = Console(soft_wrap=True), 0, time.perf_counter()
    chosen = {k: v for k, v in cases().items() if not names or any(name in k for name in names)}
    for name, factory in chosen.items():
        start = time.perf_counter()
        try:
            findings, compiled, size = check(factory, OPTIONS.get(name))
        except Exception:
            failed += 1
            console.print(
                f"[red]failed[/]  {escape(name)}\n{escape(traceback.format_exc())}", highlight=False
            )
            continue
        took = f"{time.perf_counter() - start:4.1f} s"
        design = compiled.design
        what = f"{len(design.stages)} stages, {len(design.kernels)} kernels, {size / 1000:.0f} kB of text"
        mark = "[red]failed[/]" if findings else "[green]ok[/]    "
        console.print(f"{mark}  {escape(name):<20} {took}  {what}", highlight=False)
        for finding in findings:
            console.print(f"          {escape(str(finding))}", highlight=False)
        failed += bool(findings)
    total = time.perf_counter() - begin
    console.print(f"{len(chosen) - failed} of {len(chosen)} passed in {total:.0f} s; g++ was not run")
    return failed


if __name__ == "__main__":
    sys.exit(main())
