# SPDX-License-Identifier: Apache-2.0
"""Pictures of a plan say what its report says, at the right places, and stay readable."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests import timed_samples
from tests.plan_samples import CYCLES, many, report_of, sample
from torch2fpga.boards import U55C, U280, U280_XDMA_201920
from torch2fpga.plan.summary import TITLES, PlanReport, Roofline
from torch2fpga.report import floorplan
from torch2fpga.report.channel_map import render_channels
from torch2fpga.report.describe import size_text
from torch2fpga.report.floorplan import arrays_of, part_of, render_floorplan
from torch2fpga.report.roofline import points, render_roofline
from torch2fpga.report.stage_bars import render_stage_bars
from torch2fpga.timing.report import TimeReport

SPACE = "{http://www.w3.org/2000/svg}"
Element = ElementTree.Element
Rectangle = tuple[float, float, float, float]


def groups(svg: str | Element, name: str) -> list[Element]:
    """Groups whose class begins with a word."""
    root = ElementTree.fromstring(svg) if isinstance(svg, str) else svg
    return [e for e in root.iter(f"{SPACE}g") if (e.get("class") or "").split(" ")[0] == name]


def rectangles(element: Element, name: str = "") -> list[Element]:
    """Rectangles below an element, of a class if one is given."""
    return [r for r in element.iter(f"{SPACE}rect") if not name or r.get("class") == name]


def sides(rect: Element) -> Rectangle:
    """Left, top, right, bottom."""
    x, y, w, h = (float(rect.get(k) or 0) for k in ("x", "y", "width", "height"))
    return x, y, x + w, y + h


def inside(a: Rectangle, b: Rectangle) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def apart(a: Rectangle, b: Rectangle) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def title_of(element: Element) -> str:
    return element.findtext(f"{SPACE}title") or ""


def texts(element: Element) -> list[str]:
    return [t.text or "" for t in element.iter(f"{SPACE}text")]


def timed(report: PlanReport) -> TimeReport:
    """A timed run of the plan's launch."""
    model, _, _ = sample()
    run = timed_samples.report_of(model, timed_samples.raw_run(model))
    return replace(run, batch=report.batch, seq=report.seq, cycles=CYCLES + 50_000)


@pytest.mark.parametrize("copies", [1, 4, 13])
def test_boxes_lie_in_their_region_and_do_not_overlap(copies: int) -> None:
    _, design, report = sample(copies=copies)
    assert copies < 4 or len(report.stages) >= 60
    found = groups(render_floorplan(design, report, U280), "region")
    assert [texts(r)[0].split(" · ")[0] for r in found] == ["SLR2", "SLR1", "SLR0"]
    seen = []
    for region, use in zip(found, reversed(report.regions), strict=True):
        (area,) = [sides(r) for r in rectangles(region, "area")]
        boxes = {}
        for part in groups(region, "group"):
            (outer,) = [sides(r) for r in rectangles(part, "part")]
            assert inside(outer, area)
            for stage in groups(part, "stage"):
                own = sides(rectangles(stage, "box")[0])
                assert inside(own, outer)
                boxes[stage.get("data-place")] = own
        assert set(boxes) == {s.name for s in report.stages if s.slr == use.slr}
        assert all(apart(a, b) for a, b in itertools.combinations(boxes.values(), 2))
        parts = [sides(rectangles(p, "part")[0]) for p in groups(region, "group")]
        # rounded to a tenth, neighbours may share that
        shrunk = [(a + 0.1, b + 0.1, c - 0.1, d - 0.1) for a, b, c, d in parts]
        assert all(apart(a, b) for a, b in itertools.combinations(shrunk, 2))
        seen += list(boxes)
    assert len(seen) == len(report.stages)


@pytest.mark.parametrize("copies", [1, 13])
def test_labels_stay_in_their_boxes(copies: int) -> None:
    _, design, report = sample(copies=copies)
    named = 0
    for stage in groups(render_floorplan(design, report, U280), "stage"):
        left, top, right, bottom = sides(rectangles(stage)[0])
        for text in stage.iter(f"{SPACE}text"):
            if stage.get("data-place") is None:  # the legend
                continue
            x, y = float(text.get("x") or 0), float(text.get("y") or 0)
            assert x >= left and x + floorplan.CHARACTER * len(text.text or "") <= right
            assert top + 8 < y < bottom
            named += 1
    assert named > len(report.stages) / 2


def test_parts_and_boundaries_do_not_run_into_each_other() -> None:
    _, design, report = sample(copies=13)
    root = ElementTree.fromstring(render_floorplan(design, report, U280))
    whole = [sides(r) for g in groups(root, "region") for r in rectangles(g, "area")]
    tracks = [sides(rectangles(g)[0]) for g in groups(root, "boundary")]
    cells = [sides(r) for g in groups(root, "channels") for r in rectangles(g)]
    assert all(apart(a, b) for a, b in itertools.combinations([*whole, *tracks, *cells], 2))
    assert min(c[1] for c in cells) > max(w[3] for w in whole), "memory lies below the regions"
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    assert all(inside(r, (0, 0, width, height)) for r in [*whole, *tracks, *cells])


def test_area_follows_the_share_of_the_region() -> None:
    _, design, report = sample()
    area, dsp = {}, {}
    for stage in groups(render_floorplan(design, report, U280), "stage"):
        name = stage.get("data-place")
        if name is not None:
            x0, y0, x1, y1 = sides(rectangles(stage)[0])
            area[name] = (x1 - x0 + 1.2) * (y1 - y0 + 1.2)
            dsp[name] = design.stage(name).cost(design).dsp
    first, second = "self_attn_attention_pv", "self_attn_attention_qk"
    assert dsp[first] != dsp[second]
    assert area[first] / area[second] == pytest.approx(dsp[first] / dsp[second], rel=0.02)
    assert area["self_attn"] > 4 * area["src_input_mac_requant"]


def test_a_box_says_everything_in_its_title() -> None:
    _, design, report = sample(copies=4)
    boxes = {s.get("data-place"): s for s in groups(render_floorplan(design, report, U280), "stage")}
    arrays = arrays_of(report)
    assert len(arrays) == 4 * len(report.plan.arrays)
    for use in report.stages:
        title, cost = title_of(boxes[use.name]), design.stage(use.name).cost(design)
        assert title.splitlines()[:2] == [use.path, use.name]
        for text in (f"{cost.dsp:,} DSP", f"{cost.lut:,} LUT", f"{cost.uram:,} URAM", f"{use.busy:,} cycles"):
            assert text in title
        if use.name in arrays:
            name, array = arrays[use.name]
            assert f"one of 4 copies of {name}, {array.columns} columns each, weights step" in title
            assert f"{use.products:,} products a cycle" in title
        else:
            assert "copies" not in title


def test_bars_of_a_region() -> None:
    _, design, report = sample()
    found = groups(render_floorplan(design, report, U280), "region")
    over = 0
    for group, region in zip(found, reversed(report.regions), strict=True):
        bars = groups(group, "use")
        assert [texts(b)[0] for b in bars] == [TITLES[r] for r in region.resources]
        for bar, (used, have, cap) in zip(bars, region.resources.values(), strict=True):
            track, fill = (sides(r) for r in rectangles(bar))
            mark = bar.find(f"{SPACE}path")
            assert mark is not None
            at = float((mark.get("d") or "")[1:].split()[0])
            assert (at - track[0]) / (track[2] - track[0]) == pytest.approx(cap, abs=0.002)
            assert (fill[2] - fill[0]) / (track[2] - track[0]) == pytest.approx(used / have, abs=0.002)
            assert texts(bar)[1:] == [
                f"{used:,} of {have:,}",
                f"{used / have:.1%}, cap {cap:.0%}" + (": over" if used > cap * have else ""),
            ]
            assert (rectangles(bar)[1].get("class") == "over") == (used > cap * have)
            over += used > cap * have
    assert over > 0


def test_more_than_there_is_stays_on_the_track() -> None:
    _, design, report = sample()
    full = {r: (3 * have, have, cap) for r, (_, have, cap) in report.regions[0].resources.items()}
    bad = replace(report, regions=(replace(report.regions[0], resources=full), *report.regions[1:]))
    for bar in groups(groups(render_floorplan(design, bad, U280), "region")[2], "use"):
        track, fill = (sides(r) for r in rectangles(bar))
        assert fill == track and texts(bar)[2].startswith("300.0%")


def test_wires_over_boundaries() -> None:
    _, design, report = sample()
    strips = groups(render_floorplan(design, report, U280), "boundary")
    assert len(strips) == 2
    for strip, use, tone in zip(strips, reversed(report.boundaries), ("over", "near"), strict=True):
        words = texts(strip)
        assert words[0] == str(use) and f"{use.wires:,} of {use.available:,} wires" in words[0]
        assert words[1:] == [
            f"prudent {use.prudent:,}", f"budget {use.budget:,}", f"available {use.available:,}",
        ]  # fmt: skip
        track, fill = (sides(r) for r in rectangles(strip))
        assert (fill[2] - fill[0]) / (track[2] - track[0]) == pytest.approx(
            use.wires / use.available, abs=0.001
        )
        assert rectangles(strip)[1].get("class") == tone
        marks = [float((p.get("d") or "")[1:].split()[0]) for p in strip.iter(f"{SPACE}path")]
        scale = (track[2] - track[0]) / use.available
        expected = [n * scale for n in (use.prudent, use.budget, use.available)]
        assert marks == pytest.approx(expected, abs=0.06)


def test_one_region_without_wires() -> None:
    _, design, _ = sample("mlp3d")
    report = replace(report_of(design, regions=1), gains=())
    svg = render_floorplan(design, report, U280)
    assert len(groups(svg, "region")) == 1 and groups(svg, "boundary") == []
    assert {s.get("data-place") for s in groups(svg, "stage")} - {None} == {s.name for s in report.stages}


def test_an_empty_region_says_so() -> None:
    _, design, report = sample()
    stages = tuple(replace(s, slr=0) for s in report.stages)
    regions = (*report.regions[:2], replace(report.regions[2], kernel=""))
    top = groups(render_floorplan(design, replace(report, stages=stages, regions=regions), U280), "region")[0]
    assert texts(top)[0] == "SLR2 · no kernel · 0 stages" and "empty" in texts(top)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("encoder.layer.*.attention.self.query", "attention"),
        ("h.*.mlp", "mlp"),
        ("layers.*", "layer"),
        ("embeddings.word", "embeddings"),
        ("", "loop"),
    ],
)
def test_parts_are_the_modules_of_a_layer(path: str, part: str) -> None:
    _, design, _ = sample()
    stage = replace(design.stage("linear1"), path=path)
    assert part_of(stage) == part


def test_memory_under_the_regions() -> None:
    _, design, report = sample()
    cells = [
        title_of(c) for c in groups(render_floorplan(design, report, U280), "channels")[0] if title_of(c)
    ]
    used = {c.channel: c for c in report.channels}
    assert len(cells) == 32
    for number, title in enumerate(cells):
        assert title.startswith(f"HBM[{number}], ")
        assert (used[number].port in title) if number in used else title.endswith("free")


def test_channel_map() -> None:
    _, _, report = sample()
    svg = render_channels(report, U280)
    rows = {int(e.get("data-channel") or -1): e for e in groups(svg, "row")}
    assert sorted(rows) == list(range(32))
    used = {c.channel: c for c in report.channels}
    most = max(c.moved for c in report.channels)
    room = 13.08 / 240 * 1000 * report.cycles
    for number, row in rows.items():
        if number not in used:
            assert texts(row) == [str(number), "free"] and [
                r.get("class") for r in row.iter(f"{SPACE}rect")
            ] == ["free"]
            continue
        port = used[number]
        assert f"r-{port.role}" in (row.get("class") or "")
        assert f"{port.moved:,} bytes a launch (modelled)" in title_of(row) and port.port in title_of(row)
        assert f"{size_text(port.moved)}, {port.moved / room:.1%}" == texts(row)[-1]
        track, (bar,) = rectangles(row, "track")[0], [r for r in rectangles(row, "fill") if r.get("y") == "4"]
        share = float(bar.get("width") or 0) / float(track.get("width") or 0)
        assert share == pytest.approx(port.moved / most, abs=0.001)
    assert "left column of SLR0 (X0Y0)" in svg and "right column of SLR0 (X1Y0)" in svg
    sides_of = groups(svg, "legend")
    assert "free" in texts(sides_of[0])


def test_sums_lie_beside_the_results_that_are_shown() -> None:
    _, design, report = sample()
    last = report.channels[-1]
    more = replace(
        report, channels=(*report.channels, replace(last, port="sums", role="sums", moved=1 << 30))
    )
    for text in (render_channels(more, U280), render_floorplan(design, more, U280)):
        shown = [title_of(e) for e in ElementTree.fromstring(text).iter()]
        (title,) = [t for t in shown if t.startswith(f"HBM[{last.channel}]")]
        assert last.port in title and "sums" not in title


@pytest.mark.parametrize("board", [U280, U55C, U280_XDMA_201920])
def test_channel_map_of_every_board(board: object) -> None:
    _, _, report = sample()
    report = replace(report, channels=(), cycles=0)
    assert isinstance(board, type(U280))
    assert len(groups(render_channels(report, board), "row")) == 32


def coordinates(svg: str) -> dict[str, tuple[float, float]]:
    """``modelled`` or ``timed`` -> (x, y) of its point."""
    found = {}
    for group in groups(svg, "point"):
        circle, path = group.find(f"{SPACE}circle"), group.find(f"{SPACE}path")
        if circle is not None:
            found["modelled"] = (float(circle.get("cx") or 0), float(circle.get("cy") or 0))
        elif path is not None:
            x, y = re.findall(r"[\d.]+", path.get("d") or "")[:2]
            found["timed"] = (float(x), float(y) + 7)
    return found


def scale_of(svg: str) -> tuple[dict[float, float], dict[float, float]]:
    """Value -> coordinate of the ticks on x and on y."""
    across, up = {}, {}
    for text in ElementTree.fromstring(svg).iter(f"{SPACE}text"):
        if not re.fullmatch(r"[\d,.]+", text.text or ""):
            continue
        value = float((text.text or "").replace(",", ""))
        if text.get("text-anchor") == "middle":
            across[value] = float(text.get("x") or 0)
        else:
            up[value] = float(text.get("y") or 0) - 4
    return across, up


def between(ticks: dict[float, float], value: float) -> float:
    """Coordinate of a value on a logarithmic axis, from its ticks."""
    (v0, c0), (v1, c1) = min(ticks.items()), max(ticks.items())
    return c0 + (c1 - c0) * (math.log10(value / v0)) / math.log10(v1 / v0)


def test_the_roofline_puts_everything_at_its_place() -> None:
    _, _, report = sample()
    run = timed(report)
    svg = render_roofline(report, run)
    across, up = scale_of(svg)
    assert len(across) > 1 and len(up) > 1
    found = coordinates(svg)
    roof = report.roofline
    bytes_timed = sum(p.bytes for p in run.ports)
    expected = {
        "modelled": (roof.intensity, roof.reached),
        "timed": (report.macs / bytes_timed, report.macs / run.cycles),
    }
    assert {p.how: (p.intensity, p.reached) for p in points(report, run)} == expected
    for how, (x, y) in expected.items():
        assert found[how] == pytest.approx((between(across, x), between(up, y)), abs=0.3)
    drawn = [e for e in ElementTree.fromstring(svg) if e.tag == f"{SPACE}path"]  # not the key's
    lines = {e.get("class"): e.get("d") or "" for e in drawn}
    slope = roof.memory / roof.intensity
    for kind, value in (("card", roof.card), ("arrays", roof.arrays)):
        x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", lines[f"line {kind}"]))
        assert y0 == y1 == pytest.approx(between(up, value), abs=0.3)
        assert x0 == pytest.approx(between(across, value / slope), abs=0.3) and x1 == max(across.values())
    x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", lines["line slope"]))
    assert (x1, y1) == pytest.approx((between(across, roof.card / slope), between(up, roof.card)), abs=0.3)
    words = " ".join(texts(ElementTree.fromstring(svg)))
    for text in (f"{roof.card:,.0f}", f"{roof.arrays:,.0f}", f"{roof.reached:,.0f}", "modelled", "timed"):
        assert text in words


def test_a_run_of_another_size_is_not_compared() -> None:
    _, design, report = sample()
    run = replace(timed(report), seq=report.seq + 1)
    assert [p.how for p in points(report, run)] == ["modelled"]
    assert "the timed run is not of this launch" in render_roofline(report, run)
    assert render_stage_bars(design, report, run) == render_stage_bars(design, report)


@pytest.mark.parametrize("roof", [Roofline(14e3, 0.0, 0.0, 0.0, 0.0), Roofline(14e3, 512.0, 0.0, 100.0, 0.0)])
def test_no_roofline_without_products_or_traffic(roof: Roofline) -> None:
    _, _, report = sample()
    svg = render_roofline(replace(report, roofline=roof))
    assert "There is no roofline" in svg and not groups(svg, "point")


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_any_roofline_stays_in_its_frame(factor: float) -> None:
    _, _, report = sample()
    roof = report.roofline
    roof = replace(roof, intensity=roof.intensity * factor, memory=roof.memory * factor)
    svg = render_roofline(replace(report, roofline=roof))
    frame = sides(rectangles(ElementTree.fromstring(svg), "frame")[0])
    x, y = coordinates(svg)["modelled"]
    assert inside((x, y, x, y), frame)
    for path in ElementTree.fromstring(svg):
        if (path.get("class") or "").startswith("line"):
            x0, y0, x1, y1 = map(float, re.findall(r"-?[\d.]+", path.get("d") or ""))
            assert inside((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), frame)


@pytest.mark.parametrize("with_run", [False, True])
def test_bars_of_stages(with_run: bool) -> None:
    _, design, report = sample()
    run = timed(report) if with_run else None
    rows = groups(render_stage_bars(design, report, run), "row")
    assert len(rows) == len(report.stages)
    busy = {s.name: s.busy for s in run.stages} if run is not None else {}
    pace = max(s.busy for s in report.stages)
    longest = max(float(rectangles(r, "fill busy")[0].get("width") or 0) for r in rows)
    for row, stage in zip(rows, design.stages, strict=True):
        use = next(s for s in report.stages if s.name == stage.name)
        assert title_of(row).startswith(f"{stage.name} ({stage.path})")
        width = float(rectangles(row, "fill busy")[0].get("width") or 0)
        assert width / longest == pytest.approx(use.busy / pace, abs=0.001)
        assert f"{use.busy:,}" in texts(row)[-1] and f"{use.share:.0%}" in texts(row)[-1]
        if run is not None:
            assert f"timed {busy[stage.name]:,}" in texts(row)[-1]
            second = float(rectangles(row, "timed")[0].get("width") or 0)
            assert second / longest == pytest.approx(busy[stage.name] / pace, abs=0.001)
    (mark,) = [r for r in rows if any(t.get("class") == "pace" for t in r.iter(f"{SPACE}text"))]
    assert report.pace in title_of(mark)


def test_pictures_are_the_same_every_time() -> None:
    _, design, report = sample(copies=4)
    again = report_of(many(sample()[1], 4), copies=4)
    assert render_floorplan(design, report, U280) == render_floorplan(design, again, U280)
    assert render_stage_bars(design, report) == render_stage_bars(design, again)
    assert render_roofline(report) == render_roofline(again)
    assert render_channels(report, U280) == render_channels(again, U280)


def test_bars_go_by_parts_of_the_model_then_by_data() -> None:
    _, design, report = sample()
    late = replace(design, stages=(*design.stages[3:], *design.stages[:3]))
    svg = render_stage_bars(late, report)
    assert [title_of(r) for r in groups(svg, "row")] == [
        title_of(r) for r in groups(render_stage_bars(design, report), "row")
    ]
    heads = [t.text for t in ElementTree.fromstring(svg).iter(f"{SPACE}text") if t.get("class") == "title"]
    assert heads == ["before the layer loop", "layer loop", "after the layer loop"]
