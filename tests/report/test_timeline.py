# SPDX-License-Identifier: Apache-2.0
"""The page of a timed run: picture, tables and cards say what the report says."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.timed_samples import CYCLES, raw_run, report_of, sample
from torch2fpga.compiled import CompiledModel
from torch2fpga.design import PARAMETER_DEALER, PARAMETER_READER
from torch2fpga.emit.link import channels
from torch2fpga.report import timeline
from torch2fpga.report.timeline import (
    in_order,
    render_timeline,
    stage_rows,
    timed_view,
    timing_cards,
    wait_rows,
)
from torch2fpga.timing.report import Deadlock, TimeReport, Wait
from torch2fpga.timing.states import STATES

SPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = """<script>alert(1)</script>"'&amp;"""


def rows_of(svg: str) -> list[ElementTree.Element]:
    """The rows of the picture."""
    return [e for e in ElementTree.fromstring(svg).iter(f"{SPACE}g") if e.get("class") == "row"]


def title_of(element: ElementTree.Element) -> str:
    return element.findtext(f"{SPACE}title") or ""


def page_of(model: CompiledModel, folder: Path, report: TimeReport | None) -> str:
    return model.report(folder / "page.html", timing=report).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["mlp3d", "encoder"])
def test_a_row_a_stage_in_the_order_of_the_data(name: str) -> None:
    model, report = sample(name)
    found = in_order(model.design, report)
    assert sorted((s.kernel, s.name) for s in found) == sorted((s.kernel, s.name) for s in report.stages)
    place = {(s.kernel, s.name): i for i, s in enumerate(found)}
    kernels = [k.name for k in model.design.kernels]
    assert [k for i, k in enumerate(s.kernel for s in found) if i == 0 or found[i - 1].kernel != k] == kernels
    for kernel in model.design.kernels:
        at = [place[kernel.name, stage] for stage in kernel.stages]
        order = [s.name for s in model.design.stages if s.name in kernel.stages]
        assert [s for _, s in sorted(zip(at, kernel.stages, strict=True))] == order
    readers, writers = model.design.readers(), model.design.writers()
    for port in model.design.ports:
        for stream in port.streams:
            own = place[port.kernel, port.name]
            if port.direction == "read" and (port.kernel, readers[stream]) in place:
                assert own < place[port.kernel, readers[stream]]
            elif port.direction == "write" and (port.kernel, writers[stream]) in place:
                assert own > place[port.kernel, writers[stream]]
    for kernel in model.design.kernels:
        fed = [place[kernel.name, s] for s in kernel.stages if model.design.stage(s).params]
        if kernel.parameters is not None:
            assert place[kernel.name, PARAMETER_DEALER] < min(fed)
    assert len(rows_of(render_timeline(model.design, report))) == len(report.stages)


def test_the_picture_shows_every_cycle_at_its_place() -> None:
    model, report = sample()
    order = in_order(model.design, report)
    scale = timeline.PLOT / CYCLES
    for row, stage in zip(rows_of(render_timeline(model.design, report)), order, strict=True):
        spent = dict.fromkeys(STATES, 0)
        for rect in row.iter(f"{SPACE}rect"):
            if not (rect.get("class") or "").startswith("s-"):
                continue
            found = re.match(r"cycles ([\d,]+) to ([\d,]+) ", title_of(rect))
            assert found is not None
            begin, end = (int(n.replace(",", "")) for n in found.groups())
            assert float(rect.get("x") or -1) == pytest.approx(begin * scale, abs=0.06)
            assert float(rect.get("width") or -1) == pytest.approx(max(0.2, (end - begin) * scale), abs=0.06)
            for state, word in STATES.items():
                number = re.search(rf"\b{word} ([\d,]+)", title_of(rect))
                spent[state] += int(number[1].replace(",", "")) if number else 0
        assert spent["busy"] == stage.busy and spent["output"] == stage.stalled_output
        assert spent["input"] == stage.stalled_input and spent["memory"] == stage.stalled_memory
        title = title_of(row[0])
        assert stage.name in title and f"busy: {stage.busy:,} cycles" in title


def test_a_row_names_what_the_stage_waits_for() -> None:
    model, report = sample()
    seen = 0
    for row, stage in zip(
        rows_of(render_timeline(model.design, report)), in_order(model.design, report), strict=True
    ):
        reads = [s for s in report.streams if s.reader == stage.name and s.stalled_reads > 0]
        if reads and stage.name != PARAMETER_READER:
            most = max(reads, key=lambda s: s.stalled_reads)
            wait = f"waits for input most: {most.name} from {most.writer}, {most.stalled_reads:,} cycles"
            assert wait in title_of(row[0])
            seen += 1
    assert seen > 3


def test_the_picture_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model, report = sample("encoder")
    fine = render_timeline(model.design, report)
    assert fine.count('<rect class="s-') <= timeline.MOST_SLICES + len(STATES)
    assert len(fine) < 700_000
    monkeypatch.setattr(timeline, "MOST_SLICES", 100)
    assert render_timeline(model.design, report).count('<rect class="s-') <= 100 + len(STATES)
    assert len(rows_of(render_timeline(model.design, report))) == len(report.stages)


@pytest.mark.parametrize("cycles", [16, 1000, CYCLES, 10**6, 123_456_789])
def test_the_axis_has_a_few_round_times(cycles: int) -> None:
    _, report = sample()
    view = timeline._ticks(replace(report, cycles=cycles), timeline.PLOT / cycles, 0.0)
    assert 3 <= len(view) <= timeline.TICKS + 1
    at = [int(tick["cycles"].replace(",", "")) for tick in view]
    assert at[0] == 0 and at[-1] <= cycles and len({b - a for a, b in itertools.pairwise(at)}) <= 2


def test_tables_hold_the_figures() -> None:
    model, report = sample()
    rows = stage_rows(model.design, report)
    for row, stage in zip(rows, in_order(model.design, report), strict=True):
        assert row["numbers"][0] == stage.busy and sum(row["numbers"]) == CYCLES
        assert sum(float(b["width"]) for b in row["bars"]) == pytest.approx(timeline.SHARE, abs=0.3)
    found = wait_rows(report)
    assert len(found) == timeline.LONGEST
    largest = max(max(s.stalled_reads, s.stalled_writes) for s in report.streams)
    assert found[0]["cycles"] == max(largest, max(s.stalled_memory for s in report.stages))
    assert [r["cycles"] for r in found] == sorted((r["cycles"] for r in found), reverse=True)


def test_cards_say_how_figures_were_obtained() -> None:
    _, report = sample()
    plain = {label: (value, note) for label, value, note, _ in timing_cards(report)}
    assert plain["time of a launch"][0] == "20.01 µs" and "not synthesised" in plain["time of a launch"][1]
    assert "steady interval" not in plain
    full = replace(report, half_depth=4502, double_depth=6004, interval=2500)
    cards = {label: (value, note) for label, value, note, _ in timing_cards(full)}
    assert cards["if depths are wrong"][0] == "-10.0 % to +20.0 %"
    assert cards["steady interval"][0] == "10 µs" and "200,000 sequences/s" in cards["steady interval"][1]
    assert all("timed" in note for _, note in cards.values())


def test_the_page_with_and_without_a_timed_run(tmp_path: Path) -> None:
    model, report = sample()
    without = page_of(model, tmp_path, None)
    assert "Not timed yet" in without and "t2f-time" not in without and "most held" not in without
    page = page_of(model, tmp_path, report)
    assert "Not timed yet" not in page and page.count('class="t2f-time"') == 1
    assert f"{CYCLES:,} cycles" in page and "Longest waits" in page and "most held" in page
    assert "<td><strong>timed</strong></td>" in page and "<strong>timed</strong>" not in without
    assert page == page_of(model, tmp_path, report)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert all(link in ids for link in re.findall(r'href="#([^"]+)"', page))


def test_ports_get_their_channels(tmp_path: Path) -> None:
    model, report = sample()
    for page in (page_of(model, tmp_path, None), page_of(model, tmp_path, report)):
        part = page[page.index('<section id="ports">') : page.index('<section id="timed">')]
        lines = [line for line in part.splitlines() if line.startswith("<tr><td")]
        where = channels(model.design, model.board)
        assert len(lines) == len(where)
        for (kernel, port), number in where.items():
            (line,) = [x for x in lines if f">{port}</td>" in x and f">{kernel}</td>" in x]
            assert f">HBM[{number}]<" in line
    assert "of peak)" in part


def test_a_deadlock_is_on_the_page(tmp_path: Path) -> None:
    model, report = sample()
    wait = Wait("layers", "a_stream", "write", 4, 4, None, 10)
    dead = replace(report, deadlock=Deadlock((wait,), (), ""))
    page = page_of(model, tmp_path, dead)
    assert "The run did not end." in page and str(wait) in page
    assert timing_cards(dead) == [("timed run", "deadlock", f"at cycle {CYCLES:,}", "bad")]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    model, report = sample()
    stages = tuple(replace(s, name=s.name + HOSTILE, path=HOSTILE) for s in report.stages)
    streams = tuple(replace(s, name=s.name + HOSTILE, writer=s.writer + HOSTILE) for s in report.streams)
    bad = replace(report, stages=stages, streams=streams)
    rows_of(render_timeline(model.design, bad))
    page = page_of(model, tmp_path, bad)
    assert "<script>alert" not in page


def test_no_stage_and_no_wait() -> None:
    model, _ = sample()
    raw = raw_run(model)
    empty = report_of(model, {**raw, "processes": [], "streams": [], "ports": []})
    assert rows_of(render_timeline(model.design, empty)) == []
    view = timed_view(model.design, empty)
    assert view is not None and view["waits"] == [] and view["stages"] == []
    assert timed_view(model.design, None) is None
