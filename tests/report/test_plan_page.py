# SPDX-License-Identifier: Apache-2.0
"""The page's section about a plan: tables, cards, escaping, and what a browser shows of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.plan_samples import report_of, sample
from tests.report.test_page import browse, parse, scanlines
from torch2fpga.boards import U280
from torch2fpga.design import Design
from torch2fpga.errors import CompileError
from torch2fpga.plan.summary import PlanReport
from torch2fpga.report.build import report_info
from torch2fpga.report.info import ReportInfo
from torch2fpga.report.page import render_page
from torch2fpga.report.plan_view import array_rows, limit_row, plan_cards, plan_view

HOSTILE = """<script>alert(1)</script>"'&amp;{{ 7321*11 }}"""


def page_of(design: Design, report: PlanReport | None) -> str:
    return render_page(design, ReportInfo("t", board=U280, plan=report))


def section(page: str) -> str:
    """The section's part of a page."""
    return page[page.index('<section id="plan">') : page.index('<section id="streams">')]


def cells(page: str, title: str) -> list[list[str]]:
    """Texts of the table under a heading."""
    table = page[page.index(f"<h3>{title}</h3>") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [[re.sub(r"<[^>]*>", " ", c).strip() for c in re.findall(r"<td[^>]*>(.*?)</td>", r)] for r in rows]


def test_the_section_holds_all_pictures_and_no_second_table_of_regions() -> None:
    _, design, report = sample()
    page = page_of(design, report)
    parse(page)
    for name in ("t2f-floor", "t2f-channels", "t2f-roof", "t2f-bars"):
        assert section(page).count(f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}"') == 1
    assert 'href="#plan"' in page and 'id="board"' not in page and 'href="#board"' not in page
    assert f"{report.cycles:,} cycles, 5.135 ms at 240 MHz, paced by {report.pace}" in section(page)
    assert "240 MHz (assumed)" in page and "250 MHz (assumed)" not in page
    assert page == page_of(design, report)


def test_a_design_without_a_plan_keeps_the_table_of_regions() -> None:
    _, design, _ = sample()
    page = page_of(design, None)
    assert 'id="board"' in page and 'id="plan"' not in page and 'href="#plan"' not in page


@pytest.mark.parametrize("copies", [1, 4])
def test_table_of_arrays(copies: int) -> None:
    _, design, report = sample(copies=copies)
    rows = cells(page_of(design, report), "Arrays")
    assert len(rows) == len(report.plan.arrays) > 3
    for row, (name, array) in zip(rows, report.plan.arrays.items(), strict=True):
        names = [name] if copies == 1 else [f"{name}_array{i}" for i in range(copies)]
        own = [s for s in report.stages if s.name in names]
        assert len(own) == copies and row[0].split()[0] == name
        assert row[1:3] == [str(array.copies), str(array.columns)]
        assert row[4] == str(copies)
        assert row[5] == ", ".join(f"SLR{n}" for n in sorted({s.slr for s in own}))
        assert row[6] == f"{sum(s.products for s in own):,}" and row[7] == f"{sum(s.dsp for s in own):,}"
        assert row[8] == f"{max(s.share for s in own):.1%}"
    assert sum(r["products"] for r in array_rows(report)) <= report.products


def test_what_binds() -> None:
    _, design, report = sample()
    page = section(page_of(design, report))
    assert "10 % more DSP would save 12.3%; 10 % more memory ports would save 3.1% (each alone" in page
    rows = cells(page, "What binds")
    assert [r[0] for r in rows] == ["DSP", "memory ports", "mean of BRAM, URAM, DSP", "URAM"]
    assert rows[0][1:] == ["7,204", "6,643", "108.4%", "12.3%"]
    assert rows[2][1:] == ["61.2%", "70.0%", "87.5%", "0.0%"]
    assert limit_row(replace(report.gains[0], limit=0.0))["part"] == "–"


def test_nothing_binds_and_nothing_was_optimised() -> None:
    _, design, report = sample()
    loose = replace(report, gains=tuple(g for g in report.gains if g.saved == 0))
    assert "No limit of the card binds" in section(page_of(design, loose))
    plain = section(page_of(design, replace(report, gains=())))
    assert "Nothing was optimised" in plain and '<th scope="col">limit' not in plain


def test_a_plan_of_one_region_without_arrays() -> None:
    _, design, _ = sample("mlp3d")
    report = report_of(design, regions=1)
    bare = replace(report, plan=replace(report.plan, arrays={}), channels=(), boundaries=(), gains=())
    page = page_of(design, bare)
    parse(page)
    assert "This design has no multiplier arrays." in page and "0 of 32 channels used" in page


def test_cards_say_how_figures_were_obtained() -> None:
    _, _, report = sample()
    cards = {label: (value, note) for label, value, note, _ in plan_cards(report)}
    assert cards["planned launch"][0] == "5.135 ms"
    assert cards["products a cycle"][0] == f"{report.products:,}"
    assert f"{report.busy:.0%} of them useful" in cards["products a cycle"][1]
    assert all("modelled" in note for _, note in cards.values())


def test_a_compiled_model_brings_its_plan(tmp_path: Path) -> None:
    model, _, _ = sample()
    info = report_info(model, None)
    assert info.plan is not None and info.plan.cycles > 0
    assert any(o.figure.startswith("plan:") for o in info.obtained)
    page = model.report(tmp_path / "page.html").read_text(encoding="utf-8")
    parse(page)
    for use in info.plan.boundaries:
        assert str(use) in section(page)
    for region in info.plan.regions:
        for used, have, _ in region.resources.values():
            assert f">{used:,} of {have:,}<" in section(page)
    assert len(cells(page, "Arrays")) == len(info.plan.plan.arrays)
    assert f"{info.plan.cycles:,} cycles" in section(page)


def test_the_board_is_found_by_the_name_in_the_plan() -> None:
    _, design, report = sample()
    assert plan_view(design, report, None) == plan_view(design, report, U280)
    with pytest.raises(CompileError, match="unknown board"):
        plan_view(design, replace(report, plan=replace(report.plan, board="none")), None)
    assert plan_view(design, None, None) is None


def hostile(design: Design) -> tuple[Design, PlanReport]:
    """A plan with every name made dangerous."""
    stages = tuple(replace(s, name=s.name + HOSTILE, path=f"layers.*.{HOSTILE}") for s in design.stages)
    kernels = tuple(replace(k, stages=tuple(s + HOSTILE for s in k.stages)) for k in design.kernels)
    made = replace(design, stages=stages, kernels=kernels)
    report = report_of(made)
    return made, replace(
        report,
        title=HOSTILE,
        regions=tuple(replace(r, kernel=HOSTILE) for r in report.regions),
        channels=tuple(replace(c, port=c.port + HOSTILE, role=HOSTILE) for c in report.channels),
    )


def test_hostile_names_stay_text() -> None:
    made, report = hostile(sample()[1])
    page = page_of(made, report)
    parser = parse(page)
    assert "<script>alert" not in page and "80531" not in parser.text.replace(HOSTILE, "")
    assert parser.count["script"] == 1 and parser.text.count(HOSTILE) > 3 * len(report.stages)
    assert not [a for a in parser.attributes if a.startswith("on")]


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
@pytest.mark.parametrize("width", [1280, 500])
def test_browser_shows_the_section(tmp_path: Path, scheme: int, width: int) -> None:
    made, report = hostile(sample()[1])
    # only the section, so that the picture is of it
    only = "<style>main > :not(#plan), header, nav { display: none !important; }</style></head>"
    page = tmp_path / "report.html"
    page.write_text(page_of(made, report).replace("</head>", only), encoding="utf-8")
    picture = tmp_path / "page.png"
    colours = f"--blink-settings=preferredColorScheme={scheme}"
    browse(page, tmp_path / "user", f"--screenshot={picture}", f"--window-size={width},1800", colours)
    found = scanlines(picture.read_bytes())
    assert found[:2] == (width, 1800)
    assert len(found[2]) > 600, "the section is blank"
