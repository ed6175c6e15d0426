# SPDX-License-Identifier: Apache-2.0
"""benchmarks/compare.py: figures of several kinds, each with its kind; what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.common import OBTAINED, ROOT

pytestmark = pytest.mark.hf


def figure(
    value: float, unit: str, obtained: str, title: str = "a | title", note: str = ""
) -> dict[str, Any]:
    return {"title": title, "value": value, "unit": unit, "obtained": obtained, "note": note}


def write(folder: Path, name: str, figures: dict[str, Any], **more: Any) -> None:
    data = {"benchmark": name, "date": "2026-01-02", "machine": {"class": f"machine of {name}"},
            "versions": {"torch": "9.9", "transformers": "8.8"}, "figures": figures, **more}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(data))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """All inputs, made up."""
    write(tmp_path, "planned", {
        "bert128_ms": figure(5.5, "ms", "timed", note="100 cycles"),
        "bert128_arrays_ms": figure(31.0, "ms", "timed"),
        "bert128_busy": figure(70.0, "%", "timed"),
        "gpt2m_w4_ms": figure(44.0, "ms", "timed"),
        "gpt2m_model": figure(1e6, "cycles", "modelled"),
    })  # fmt: skip
    write(tmp_path, "timed", {"gpt2_ms": figure(111.0, "ms", "timed")})
    write(tmp_path, "minilm", {"compile_s": figure(3.0, "s", "measured here")})
    write(tmp_path, "generation", {
        "gpt2m_w4_1024_tokens": figure(800.0, "tokens/s", "timed", note="21 lanes"),
        "gpt2m_w4_1024_share": figure(40.0, "%", "timed"),
    })  # fmt: skip
    way = "torch.compile, static cache, weight-only int4"
    write(tmp_path, "gpu_baseline", {
        "peak_gbs": figure(2000.0, "GB/s", "modelled"),
        "gpt2_medium_int4_decode1024_ms": figure(0.75, "ms", "measured here", note=f"{way}; bfloat16"),
        "gpt2_medium_int4_decode1024_mj": figure(123.0, "mJ", "measured here"),
        "gpt2_eager_prefill128_ms": figure(6.5, "ms", "measured here"),
        "bert_base_compiled_prefill128_ms": figure(1.5, "ms", "measured here"),
    }, device={"name": "GPU X"}, not_run={"gpt2_int4": "no such kernel"})  # fmt: skip
    return tmp_path


def rows(found: compare.Comparison) -> set[tuple[str, str, float, str]]:
    return {(r.what, r.system, r.ms, r.obtained) for r in found.rows if r.obtained != "published"}


def test_figures_stand_side_by_side_with_their_kind(results: Path) -> None:
    found = compare.compare(results)
    assert rows(found) == {
        ("BERT-base, 128 tokens", "torch2fpga, U280, planned", 5.5, "timed"),
        ("BERT-base, 128 tokens", "torch2fpga, U280, planned", 31.0, "timed"),
        ("BERT-base, 128 tokens", "GPU X, torch.compile, static cache", 1.5, "measured here"),
        ("GPT-2 medium, prefill of 128 tokens", "torch2fpga, U280, planned", 44.0, "timed"),
        ("GPT-2 124M, prefill of 128 tokens", "torch2fpga, U280, not planned", 111.0, "timed"),
        ("GPT-2 124M, prefill of 128 tokens", "GPU X, Hugging Face as it is", 6.5, "measured here"),
        ("GPT-2 medium, one token, 1,024 positions", "GPU X, torch.compile, static cache, weight-only int4",
         0.75, "measured here"),
        ("GPT-2 medium, one token, 1,024 positions", "torch2fpga, U280, planned", 1.25, "timed"),
    }  # fmt: skip
    (own,) = (r for r in found.rows if r.ms == 1.25)
    assert own.note.endswith("21 lanes; 800 tokens/s")
    (decode,) = (r for r in found.rows if r.ms == 0.75)
    assert decode.note == "123 mJ; bfloat16"
    bert = [(r.ms, r.obtained) for r in found.ordered() if r.what == "BERT-base, 128 tokens"]
    assert bert == [(5.5, "timed"), (31.0, "timed"), (1.5, "measured here")]


def test_published_figures_are_shown_once_with_their_source() -> None:
    found = compare.Comparison()
    compare.published(found)
    assert all(row.obtained == "published" and row.note and row.ms > 0 for row in found.rows)
    assert len({(r.what, r.system, r.ms) for r in found.rows}) == len(found.rows)
    chen = [r for r in found.rows if r.ms == 325.98]
    assert [(r.what, r.system) for r in chen] == [
        ("GPT-2 medium, prefill of 128 tokens", "Chen et al., W8A8, U280")
    ]
    (eager,) = (r for r in found.rows if "HF eager" in r.system)
    assert eager.what == "Llama-2-7B, one token, several lengths" and eager.ms == pytest.approx(
        22.22, abs=0.01
    )


def test_what_is_missing_is_said_and_not_invented(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = "\n".join(compare.compare(results).missing)
    assert "gpu_baseline.json: gpt2_int4: no such kernel" in missing
    assert "no timed figure of this project for a token of decode" not in missing
    assert "is not there" not in missing
    (results / "generation.json").unlink()
    missing = "\n".join(compare.compare(results).missing)
    assert "no timed figure of this project for a token of decode" in missing
    (results / "gpu_baseline.json").unlink()
    (results / "timed.json").unlink()
    found = compare.compare(results)
    assert not any(r.obtained == "measured here" for r in found.rows)
    missing = "\n".join(found.missing)
    assert (
        "gpu_baseline.json is not there; on a machine with an NVIDIA GPU: python -m benchmarks.gpu_b"
        in missing
    )
    assert "timed.json is not there" in missing and "planned.json is not there" not in missing
    assert "Llama-2-7B" in missing and "GPT-2 medium" not in missing.split("for: ")[1].splitlines()[0]
    assert compare.main(["--results", str(results)]) == 0
    assert "missing: gpu_baseline.json is not there" in capsys.readouterr().out


def test_a_latency_that_nobody_placed_is_said(results: Path) -> None:
    write(results, "planned", {"resnet_ms": figure(1.0, "ms", "timed")})
    found = compare.compare(results)
    assert "planned.json: what resnet_ms runs is not known to benchmarks.compare" in found.missing
    assert 1.0 not in {r.ms for r in found.rows if r.obtained == "timed"}


def test_a_row_without_its_kind_is_refused() -> None:
    assert compare.Row("m", "decode", 1, "s", 1.0, OBTAINED[0], "").what == "m, one token, 1 positions"
    with pytest.raises(ValueError, match="obtained by one of"):
        compare.Row("m", "decode", 1, "s", 1.0, "guessed", "")


def test_a_page_is_filled_once(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- compare -->\nold\n<!-- /compare -->\nb\n")
    options = ["--results", str(results), "--markdown", str(page)]
    assert compare.main([*options, "--check"]) == 1 and "old" in page.read_text()
    assert compare.main(options) == 0
    text = page.read_text()
    assert text.startswith("a\n<!-- compare -->\n| work | system | ms | obtained |") and text.endswith(
        "\nb\n"
    )
    shown = "| BERT-base, 128 tokens | torch2fpga, U280, planned | 5.5 | timed | a \\| title; 100 cycles |"
    assert shown in text.splitlines()
    assert (
        "| planned.json: 3 latencies, 2026-01-02, machine of planned; torch 9.9, transformers 8.8 |" in text
    )
    assert compare.main([*options, "--check"]) == 0
    page.write_text("no marks")
    assert compare.main(options) == 1 and "needs one pair" in capsys.readouterr().err


def test_the_page_shows_the_committed_results() -> None:
    assert compare.main(["--markdown", str(ROOT / "docs" / "gpu-baseline.md"), "--check"]) == 0, (
        "run: python -m benchmarks.compare --markdown docs/gpu-baseline.md"
    )
