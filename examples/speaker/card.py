# SPDX-License-Identifier: Apache-2.0
"""The page beside the weights: what they are, how they came about, what they say.

python -m examples.speaker.card examples/speaker/weights
"""

from __future__ import annotations

import argparse
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

# Before transformers is imported: what is not on this machine is not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"

from examples import speaker

#: none of them stands in the corpus like this
PROMPTS = (
    "The for statement\n*****************\n\nThe for statement is used to",
    'class Queue:\n    """A queue of',
    "def read_lines(path):\n",
)
LICENCE = "LICENSE.python.txt"

PAGE = """# A small GPT-2 that speaks Python's library

`GPT2LMHeadModel`, {parameters:,} parameters: {layers} layers of width {width}, {heads} heads,
{vocabulary:,} tokens, context {context}, head tied to the token table. Stored as float16, loaded as float32.

| | |
|---|---|
| made by | `python -m examples.speaker.train {options}` |
| with | Python {python}, torch {torch} |
| training time | {minutes:.1f} minutes, {threads} thread(s), {machine} |
| seed | {seed} |
| corpus | {train_documents} documents, {train_bytes:,} bytes; SHA-256 with what is held out {corpus_sha256} |
| held out | {held_out_documents} documents, {held_out_bytes:,} bytes |
| seen | {steps:,} steps of {batch} windows, {epochs} epochs |

| bits per byte | this model | 5-gram (Witten-Bell) of the same text |
|---|---:|---:|
| everything held out | {held_out:.4f} | {held_out_5gram:.4f} |
| `held_out.jsonl` | {excerpt:.4f} | {excerpt_5gram:.4f} |

`training.json` holds the same as data. `held_out.jsonl` and `calibration.jsonl` are excerpts of documents
that were held out and of documents that were trained on.

## What it says

Sampled at temperature 0.7 with seed 0; the prompt stands before `|`.
{samples}
## Licence

The text comes from the documentation and the standard library of Python, Copyright © 2001 and later
Python Software Foundation; all rights reserved. It is used under the PSF licence, which is in
`{licence}` and goes for the two excerpts. They are unchanged but for being cut. The weights
and the tokenizer were computed from such text; the project adds no restriction to them.
"""


def page(folder: Path, record: dict[str, Any]) -> str:
    """Markdown from the record of a training run, and what its model says now."""
    loaded, samples = speaker.load(folder=folder), ""
    for prompt in PROMPTS:
        said = speaker.speak(loaded, prompt, tokens=80, temperature=0.7)
        samples += f"\n```text\n{prompt}|{said.rstrip()}\n```\n"
    settings = record["settings"]
    dtype = "bfloat16" if settings["bfloat16"] else "float32"
    options = f"--steps {record['steps']} --threads {record['threads']} --dtype {dtype}"
    options += f" --seed {settings['seed']}"
    return PAGE.format(
        **{**settings, **record, **record["bits_per_byte"]},
        options=options,
        minutes=record["training_seconds"] / 60,
        samples=samples,
        licence=LICENCE,
    )


def write(folder: Path) -> None:
    """README.md, and the licence of the running Python where its installation has one."""
    (folder / "README.md").write_text(page(folder, speaker.record(folder)), encoding="utf-8")
    licence = Path(sysconfig.get_paths()["stdlib"]) / "LICENSE.txt"
    if licence.is_file():
        shutil.copyfile(licence, folder / LICENCE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
