# SPDX-License-Identifier: Apache-2.0
"""Figures in the documents come from results, never from a keyboard."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.common import OBTAINED, Figure, Results, format_number
from scripts import figures

FIGURES = {
    "speed": Figure("speed | one core", 2.375, "GMAC/s", (">=", 1.0), note="one sequence"),
    "wrong": Figure("values that differ", 3, bound=("==", 0)),
    "plain": Figure("text", 1234.5, "kB", obtained="modelled"),
}


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    """A repository with results and documents."""
    data = {
        "benchmark": "tiny",
        "date": "2026-01-02",
        "machine": {"class": "2 cores of x"},
        "versions": {"torch": "1"},
        "figures": {k: {**vars(f), "reached": f.reached} for k, f in FIGURES.items()},
    }
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "tiny.json").write_text(json.dumps(data))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("a\n<!-- figures:tiny speed -->\nold\n<!-- /figures -->\nb\n")
    (tmp_path / "README.md").write_text("x\n<!-- figures:tiny -->\n<!-- /figures -->\n")
    return tmp_path


def run(root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["figures", *arguments])
    return figures.main(root)


def test_regions_are_filled_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(root, monkeypatch, "--check") == 1
    assert "old" in (root / "docs" / "page.md").read_text()
    assert run(root, monkeypatch) == 0
    page = (root / "docs" / "page.md").read_text()
    assert page.startswith("a\n<!-- figures:tiny speed -->\n| figure |") and page.endswith(
        "<!-- /figures -->\nb\n"
    )
    assert "| speed \\| one core | 2.38 GMAC/s | ≥ 1 | measured here | one sequence |" in page
    assert (
        "values that differ" not in page
        and "2026-01-02, 2 cores of x, of which one was used except by g++; torch 1" in page
    )
    readme = (root / "README.md").read_text()
    assert "| values that differ | 3 | = 0 (**missed**) |" in readme and "| modelled |" in readme
    assert run(root, monkeypatch, "--check") == 0
    assert run(root, monkeypatch) == 0
    assert (root / "README.md").read_text() == readme


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figures:other -->\n<!-- /figures -->", "no results other.json"),
        ("<!-- figures:tiny nope -->\n<!-- /figures -->", "no figures nope"),
        ("<!-- figures:tiny -->\n", "no end"),
        ("<!-- /figures -->\n", "no beginning"),
        ("<!-- figures:Tiny -->\n<!-- /figures -->", "one has no beginning"),
    ],
)
def test_broken_regions_are_named(
    text: str, message: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "README.md").write_text(text)
    assert run(root, monkeypatch) == 1
    assert message in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


def test_the_documents_show_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(figures.ROOT, monkeypatch, "--check") == 0


@pytest.mark.parametrize(
    "path", sorted((figures.ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.name
)
def test_committed_results_say_how_they_were_obtained(path: Path) -> None:
    data = json.loads(path.read_text())
    assert data["benchmark"] == path.stem and data["machine"]["class"] and data["versions"]["torch"]
    for figure in data["figures"].values():
        assert figure["obtained"] in OBTAINED


def test_a_figure_knows_whether_it_is_reached() -> None:
    assert [f.reached for f in FIGURES.values()] == [True, False, None]
    assert Figure("t", 5.0, bound=("<=", 4.0)).reached is False
    with pytest.raises(ValueError, match="obtained by one of"):
        Figure("t", 1.0, obtained="guessed")


def test_results_refuse_two_figures_of_one_name() -> None:
    results = Results("tiny")
    results.add("a", "t", 1.0)
    with pytest.raises(ValueError, match="two figures called a"):
        results.add("a", "t", 2.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0"), (1234567, "1,234,567"), (0.996512, "0.99651"), (0.5, "0.5"), (2.3456, "2.35"),
     (337.24, "337"), (1.0000001, "1")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text
