# SPDX-License-Identifier: Apache-2.0
"""The generated tables, and the settings word that the host makes itself."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.tiny import compiled
from torch2fpga.emit.host import SOURCES
from torch2fpga.emit.project import project_files
from torch2fpga.lower.sample import settings_word

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def test_tables_are_as_committed(update_golden: bool) -> None:
    """A change of this text is seen in review: pytest tests/emit tests/host --update-golden."""
    text = project_files(compiled("mlp2d"))["host/design.cpp"]
    text = re.sub(r"torch2fpga \d+\.\d+\.\d+\w*", "torch2fpga", text)
    # Weights depend on the machine's arithmetic, the manifest on everything.
    text = re.sub(r'"[0-9a-f]{64}"', '"SHA-256"', text)
    file = GOLDEN / "host_design.cpp"
    if update_golden:
        file.write_text(text)
    assert text == file.read_text()


def test_every_source_is_emitted() -> None:
    texts = project_files(compiled("mlp2d"))
    sources = {f"host/{p.name}" for p in SOURCES.iterdir() if p.suffix in (".cpp", ".hpp")}
    assert sources and sources <= set(texts)
    for name in sources | {"host/design.cpp", "host/README.md"}:
        assert texts[name].isascii() and texts[name].endswith("\n"), name


def test_sources_are_short_and_narrow() -> None:
    for path in SOURCES.iterdir():
        if path.suffix in (".cpp", ".hpp"):
            lines = path.read_text().splitlines()
            assert len(lines) < 400 and max(map(len, lines)) <= 110, path


@pytest.mark.gxx
def test_the_host_makes_the_same_settings_words(tmp_path: Path) -> None:
    draw = random.Random(3)
    cases = [(1, 1.0, 4.76837158203125e-07, 0), (64, 1e-300, 1.0, 2**64 - 1), (50, 1e300, 1e-9, 7)]
    cases += [(2, 1.0, 2.0**k, k) for k in range(12)]
    for _ in range(3000):
        cases.append(
            (draw.randint(1, 64), 10 ** draw.uniform(-3, 3), 10 ** draw.uniform(-9, 2), draw.getrandbits(64))
        )
    program = tmp_path / "words"
    source = Path(__file__).with_name("settings_words.cpp")
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True)
    given = "".join(f"{k} {t.hex()} {s.hex()} {seed}\n" for k, t, s, seed in cases)
    done = subprocess.run([str(program)], input=given, capture_output=True, text=True, check=True)
    words = done.stdout.split()
    assert len(words) == len(cases)
    for case, word in zip(cases, words, strict=True):
        assert bytes.fromhex(word) == settings_word(*case), case
