# SPDX-License-Identifier: Apache-2.0
"""The documents agree with the code: the stage library's page, links, the README's table and code."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import torch2fpga
from examples import encoder
from scripts import pictures, supported

ROOT = Path(__file__).resolve().parents[1]
HEADERS = sorted((ROOT / "torch2fpga" / "hls" / "include" / "t2f").glob("*.hpp"))
PAGE = (ROOT / "docs" / "stage-library.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])

#: a function template at the start of a line, up to its name
_FUNCTION = re.compile(
    r"^template <(?P<parameters>[^>]*)>\n(?P<inline>inline )?(?!struct)[^;{(]*?\b(?P<name>\w+)\(",
    re.MULTILINE,
)
_MEMBER = re.compile(r"\bC::(\w+)")
_QUOTED = re.compile(r"`(\w+)`")


def _section(title: str, level: int = 2) -> str:
    """Text under a heading of the page, with its subsections."""
    marks = "#" * level
    match = re.search(rf"^{marks} `?{re.escape(title)}`?\n(.*?)(?=^#{{1,{level}}} |\Z)", PAGE, re.M | re.S)
    assert match is not None, f"docs/stage-library.md has no section {marks} {title}"
    return match.group(1)


def _common() -> set[str]:
    """Members that the page lists for all stages."""
    return set(_QUOTED.findall(_section("Rules for all stages")))


def _functions(text: str) -> dict[str, tuple[bool, str]]:
    """name -> (is a stage, text) of the templates of a header; overloads are taken together."""
    found: dict[str, tuple[bool, str]] = {}
    matches = list(_FUNCTION.finditer(text))
    for match in matches:
        end = text.index("\n}\n", match.start())
        of_stage = re.fullmatch(r"typename C(, typename\.\.\. \w+)?", match["parameters"])
        stage = of_stage is not None and not match["inline"]
        before = found.get(match["name"], (stage, ""))[1]
        found[match["name"]] = (stage, before + text[match.start() : end])
    return found


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_every_template_is_documented(header: Path) -> None:
    text, section = header.read_text(encoding="utf-8"), _section(header.name)
    for name, (stage, body) in _functions(text).items():
        assert f"`{name}`" in section or f"`{name}(" in section, f"{header.name}: {name} is not documented"
        if stage:
            own = set(_QUOTED.findall(_section(name, 3)))
            missing = set(_MEMBER.findall(body)) - own - _common()
            assert not missing, f"docs/stage-library.md, {name}: {sorted(missing)} are not documented"


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_every_member_is_documented_and_no_other(header: Path) -> None:
    text, section = header.read_text(encoding="utf-8"), _section(header.name)
    members = set(_MEMBER.findall(text))
    missing = members - set(_QUOTED.findall(section)) - _common()
    assert not missing, f"{header.name}: {sorted(missing)} are not documented"
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    listed = {name for row in rows for name in _QUOTED.findall(row)}
    old = {name for name in listed - members if not name.startswith("T2F_")}  # macros
    assert not old, f"docs/stage-library.md lists {sorted(old)}, which {header.name} does not use"


def test_every_stage_has_a_heading_that_is_a_stage() -> None:
    stages = set()
    for header in HEADERS:
        functions = _functions(header.read_text(encoding="utf-8"))
        stages |= {name for name, (stage, _) in functions.items() if stage}
    assert len(stages) > 20
    assert set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == stages


def _anchors(path: Path) -> set[str]:
    """Anchors that a Markdown page has, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name}: {target} does not exist"
        assert not anchor or anchor in _anchors(other), f"{path.name}: {target} has no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(path: Path) -> None:
    """Paths in code marks: ``torch2fpga/...``, ``docs/...``, ``tests/...`` and the like."""
    text = path.read_text(encoding="utf-8")
    pattern = r"`((?:torch2fpga|docs|tests|scripts|benchmarks|examples)/[\w./-]+)`"
    for name in re.findall(pattern, text):
        assert (ROOT / name).exists(), f"{path.name} names {name}, which does not exist"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    long = [i for i, line in enumerate(lines, 1) if len(line) > 110 and not line.startswith("|")]
    assert not long, f"{path.name}: lines {long} are longer than 110 columns"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_code_compiles(path: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
        ast.parse(textwrap.dedent(code))


def test_code_excerpts_stand_in_the_code() -> None:
    """A block behind ``<!-- from path -->`` is an excerpt of that file, gaps marked ``...``; it may stand
    inside a block there, as a whole."""
    found = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for name, code in re.findall(r"^<!-- from (\S+) -->\n```\w+\n(.*?)^```", text, re.M | re.S):
            source = (ROOT / name).read_text(encoding="utf-8")
            for part in re.split(r"^\s*(?:#|//)? ?\.\.\.\n", code, flags=re.MULTILINE):
                depths = (textwrap.indent(part.strip("\n"), " " * n) for n in (0, 4, 8))
                assert any(d in source for d in depths), f"{path.name}: this is not in {name}:\n{part}"
                found += 1
    assert found > 0


def test_the_plan_in_the_readme_is_the_one_that_is_made() -> None:
    """An excerpt of ``torch2fpga plan examples.encoder:factory``, gaps marked ``...``; else copy it anew."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (excerpt,) = re.findall(r"^<!-- plan of examples.encoder -->\n```text\n(.*?)^```", text, re.M | re.S)
    model, inputs = encoder.factory()
    with pytest.warns(UserWarning, match="calibrated on no inputs"):
        printed = str(torch2fpga.compile(model, inputs).plan) + "\n"
    parts = excerpt.split("...\n")
    assert len(parts) > 3
    for part in parts:
        assert part in printed, f"README.md shows\n{part}\nbut the plan is\n{printed}"


def test_table_of_operators_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert supported.main(["--check"]) == 0, capsys.readouterr().err


def test_an_old_table_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"a\n{supported.START}\nold\n{supported.END}\nb\n")
    monkeypatch.setattr(supported, "README", readme)
    assert supported.main(["--check"]) == 1
    assert supported.main([]) == 0
    assert supported.main(["--check"]) == 0
    assert readme.read_text().startswith(f"a\n{supported.START}\n| `lower/` |")
    assert readme.read_text().endswith(f"|\n{supported.END}\nb\n")
    with pytest.raises(ValueError, match="one <!-- supported -->"):
        supported.replaced("no markers")


def test_pictures_are_current() -> None:
    assert pictures.main(["--check"]) == 0


def test_readme_has_room_for_the_figures() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- figures:minilm -->") == 1
    assert "<!-- /figures -->" in text[text.index("<!-- figures:minilm -->") :]
