# SPDX-License-Identifier: Apache-2.0
"""The report page: well-formed, complete, harmless, the same every time, and shown by a browser."""

from __future__ import annotations

import base64
import hashlib
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from torch2fpga.boards import U280, Slr
from torch2fpga.design import Design, Kernel, Layout, Port, Shape, Stage, Stream
from torch2fpga.lower.add import AddStage
from torch2fpga.lower.layer_norm import NormalizeStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.plumbing import (
    ForkStage,
    LoopEnterStage,
    LoopExitStage,
    PackStage,
    RelayStage,
    UnpackStage,
)
from torch2fpga.lower.requant import RequantStage
from torch2fpga.report.graph import render_svg
from torch2fpga.report.info import DISCLAIMER, MappingRow, ReportInfo
from torch2fpga.report.page import render_page
from torch2fpga.simulate.verify import Accuracy, StageResult
from torch2fpga.verifier import verify_design

HOSTILE = """<script>alert(1)</script>"'&amp;{{ 7321*11 }}"""
SVG_SPACE = ' xmlns="http://www.w3.org/2000/svg"'
VOID = {"meta", "input", "br", "hr", "img", "link"}
STEPS = 3


def design() -> Design:
    """A residual block in a layer loop, over two kernels."""
    wide = Stream("", "rows", "int16", Layout(1, 24), depth=16)
    narrow, raw = replace(wide, element="int8"), replace(wide, element="int32")
    stages: list[Stage] = [
        UnpackStage("in_rows", "x", "before", 1, ("in",), ("rows",), layout=Layout(1, 24), element="int16"),
        NormalizeStage("norm", "norm", "before", 1, ("rows",), ("norm_unit",), layout=Layout(1, 24)),
        RequantStage(
            "norm_wide", "norm", "before", 1, ("norm_unit",), ("first",), layout=Layout(1, 24),
            out_element="int16",
        ),
        RelayStage("relay_back", "loop", "loop", STEPS, ("back",), ("back_near",), like=wide),
        LoopEnterStage("enter", "loop", "loop", STEPS, ("first", "back_near"), ("x",), like=wide),
        ForkStage("fork_x", "loop", "loop", STEPS, ("x",), ("x_a", "x_b"), like=wide),
        RequantStage(
            "x_mac", "layers.*.fc", "loop", STEPS, ("x_a",), ("x_mac_y",), layout=Layout(1, 24),
            in_element="int16",
        ),
        MatmulStage(
            "fc", "layers.*.fc", "loop", STEPS, ("x_mac_y", "fc_weights"), ("acc",),
            layout_in=Layout(1, 24), layout_out=Layout(1, 24),
        ),
        RequantStage(
            "fc_wide", "layers.*.fc", "loop", STEPS, ("acc",), ("fc_y",), "fc_params", layout=Layout(1, 24),
            out_element="int16",
        ),
        RelayStage("relay_x", "loop", "loop", STEPS, ("x_b",), ("x_near",), like=wide),
        AddStage("sum", "layers.*", "loop", STEPS, ("fc_y", "x_near"), ("sum_y",), layout=Layout(1, 24)),
        LoopExitStage("exit", "loop", "loop", STEPS, ("sum_y",), ("back", "last"), like=wide),
        PackStage("output0", "output 0", "after", 1, ("last",), ("words",), layout=Layout(1, 24)),
    ]  # fmt: skip
    kinds = {"norm_unit": raw, "acc": raw, "x_mac_y": narrow}
    names = {n for s in stages for n in (*s.inputs, *s.outputs, *([s.params] if s.params else []))}
    words = {"fc_weights", "fc_params", "in", "words"}
    links = {"x_b", "back", "acc"}
    streams = {
        n: Stream(n, "words") if n in words else replace(kinds.get(n, wide), name=n, link=n in links)
        for n in sorted(names)
    }
    ports = (
        Port("in_in", "k0", "read", "rows", "x", 64, "read_rows", ("in",)),
        Port("fc_in", "k0", "read", "weights", "fc", 27, "read_words", ("fc_weights",)),
        Port("output0_out", "k1", "write", "output", "output0", 64, "write_rows", ("words",)),
    )
    order = [s.name for s in stages]
    kernels = (
        Kernel("k0", tuple(order[:8]), ("back",), ("x_b", "acc"), 0),
        Kernel("k1", tuple(order[8:]), ("x_b", "acc"), ("back",), 1),
    )
    made = Design("tiny", Shape(8, 4, 2, 6), tuple(stages), streams, ports, kernels, STEPS)
    verify_design(made)
    return made


def result(name: str, *cosines: float, mismatches: int = 0) -> StageResult:
    """One stage of a verification."""
    steps = tuple(Accuracy(c, 0.25) for c in cosines)
    worst, error = (min(cosines), 0.25) if cosines else (None, None)
    return StageResult(name, f"path.{name}", mismatches == 0, mismatches, 5000, worst, error, steps)


def info(made: Design) -> ReportInfo:
    """Everything that a page can show."""
    accuracy = tuple(
        result(s.name, *(1 - 10.0 ** -(2 + i % 4) for _ in range(s.steps if i % 3 else 0)))
        for i, s in enumerate(made.stages)
    )
    return ReportInfo(
        title="tiny model",
        model_class="Tiny",
        precision="w8a8",
        board=replace(U280, slrs=(U280.slrs[0], Slr(1000, 900, 4, 100, 0))),
        parameters=600,
        calibration_samples=3,
        bit_exact=True,
        cosine=0.99761,
        accuracy=accuracy,
        mapping=(
            MappingRow("linear", "linear", ("fc", "fc_wide"), "layers.0.fc"),
            MappingRow("view", "view"),
        ),
        channels={("k0", "fc_in"): "HBM[4]"},
        notes=("a note",),
        warnings=("a warning",),
    )


def hostile(made: Design) -> Design:
    """The design with every name made dangerous."""

    def bad(name: str) -> str:
        return name + HOSTILE

    stages = tuple(
        replace(
            s, name=bad(s.name), path=bad(s.path), inputs=tuple(map(bad, s.inputs)),
            outputs=tuple(map(bad, s.outputs)), params=bad(s.params) if s.params else None,
        )
        for s in made.stages
    )  # fmt: skip
    return replace(
        made,
        name=bad(made.name),
        stages=stages,
        streams={bad(n): replace(s, name=bad(n)) for n, s in made.streams.items()},
        ports=tuple(
            replace(
                p,
                name=bad(p.name),
                kernel=bad(p.kernel),
                binding=bad(p.binding),
                streams=tuple(map(bad, p.streams)),
            )
            for p in made.ports
        ),
        kernels=tuple(replace(k, name=bad(k.name), stages=tuple(map(bad, k.stages))) for k in made.kernels),
    )


class Strict(HTMLParser):
    """Refuses what a browser would silently repair."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.stages: list[str] = []
        self.attributes: set[str] = set()
        self.count: dict[str, int] = {}
        self.text = ""
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in <{tag}>: {names}"
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes |= set(names)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")
            elif name == "data-stage":
                self.stages.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        self.text += data


def parse(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open, f"never closed: {parser.open}"
    assert len(parser.ids) == len(set(parser.ids)), "an id twice"
    assert all(link.startswith("#") and link[1:] in parser.ids for link in parser.links), parser.links
    return parser


def check_page(page: str, made: Design) -> Strict:
    """What every page must satisfy."""
    parser = parse(page)
    assert parser.count["script"] == 1
    assert not [a for a in parser.attributes if a.startswith("on")]
    assert not {"iframe", "object", "embed", "img", "link", "base", "form"} & set(parser.count)
    assert "url(" not in page.replace("url(#", "") and "@import" not in page
    assert sorted(parser.stages) == sorted(s.name for s in made.stages)
    for stage in made.stages:
        assert stage.name in parser.text
    assert DISCLAIMER in parser.text
    assert len(page.encode()) < 2_000_000
    return parser


def test_full_page_is_well_formed_and_complete() -> None:
    made = design()
    page = render_page(made, info(made))
    parser = check_page(page, made)
    left = page.replace(SVG_SPACE, "")
    assert "http://" not in left and "https://" not in left
    for text in (
        "tiny model", "w8a8", "bit-exact", "0.997610", "600 parameters", "xcu280", "2023.2", "250 MHz",
        "Calibrated on 3 inputs", "a warning", "a note", "parameters of k1", "HBM[4]", "no stage of its own",
        "kernel k0", "kernel k1", "layer loop · 3 steps", "next layer", "layers.*.fc", "24 int8 → 24 int32",
        "modelled",
    ):  # fmt: skip
        assert text in parser.text, text


def test_page_of_an_unverified_design_says_so() -> None:
    made = design()
    parser = check_page(render_page(made, ReportInfo("tiny")), made)
    assert "not verified yet" in parser.text and "bit-exact" not in parser.text
    assert "use of the board" not in parser.text.lower()


def test_mismatches_are_shown() -> None:
    made = design()
    wrong = (result("fc", 0.5, 0.75, 0.25, mismatches=1234),)
    page = render_page(made, ReportInfo("t", bit_exact=False, cosine=0.5, accuracy=wrong))
    parser = check_page(page, made)
    assert "1,234 values differ from the reference" in parser.text
    assert "fc, step 1: 0.750000, not equal to the reference" in parser.text
    assert "0.250000step 2" in parser.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0, 1.0, 1.0000001])
def test_any_cosine_can_be_drawn(value: float) -> None:
    made = design()
    row = replace(result("sum", value), max_error=value)
    parser = check_page(render_page(made, ReportInfo("t", cosine=value, accuracy=(row,))), made)
    assert "sum, step 0:" in parser.text


def test_overfull_slr_is_marked() -> None:
    made = design()
    page = render_page(made, info(made))
    assert 'class="bad" style="width: 100.0%"' in page


def test_hostile_names_stay_text() -> None:
    made = hostile(design())
    known = replace(
        info(made),
        title=HOSTILE,
        model_class=HOSTILE,
        precision=HOSTILE,
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
        board=replace(U280, title=HOSTILE, part=HOSTILE, platform=HOSTILE, tools=(HOSTILE, HOSTILE)),
        mapping=(MappingRow(HOSTILE, HOSTILE, (HOSTILE, made.stages[0].name), HOSTILE),),
        channels={(made.ports[0].kernel, made.ports[0].name): HOSTILE},
    )
    page = render_page(made, known)
    parser = check_page(page, made)
    assert parser.text.count(HOSTILE) > 50
    assert "<script>alert" not in page and "80531" not in parser.text.replace(HOSTILE, "")
    ElementTree.fromstring(render_svg(made))


def test_unprintable_and_reordering_characters_are_replaced() -> None:
    made = design()
    page = render_page(made, ReportInfo("a\x00b\x1b[31m\ud800c\u202ed"))
    page.encode()
    assert "a\ufffdb\ufffd[31m\ufffdc\ufffdd" in parse(page).text


def test_page_is_the_same_every_time() -> None:
    made = design()
    assert render_page(made, info(made)) == render_page(design(), info(design()))


def test_only_the_script_of_the_page_may_run() -> None:
    parser = parse(render_page(design(), ReportInfo("t")))
    digest = base64.b64encode(hashlib.sha256("".join(parser.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in render_page(design(), ReportInfo("t"))


def test_svg_stands_alone() -> None:
    made = design()
    svg = render_svg(made)
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert len([e for e in root.iter() if e.get("data-stage")]) == len(made.stages)
    edges = [e.find(f"{space}title") for e in root.iter() if e.get("data-from")]
    titles = [e.text or "" for e in edges if e is not None]
    writers = {o for stage in made.stages for o in stage.outputs}
    assert len(titles) == sum(name in writers for stage in made.stages for name in stage.inputs)
    assert any("back (AXI stream between kernels)" in t and "exit → relay_back" in t for t in titles)
    assert any("token t2f::vec<int32_t, 8>, depth 16, FIFO of 512 B" in t for t in titles)
    assert "#stage-" not in svg and 'href="#stage-0"' in render_svg(made, links=True)


def test_design_without_kernels_or_stages() -> None:
    made = replace(design(), kernels=())
    check_page(render_page(made, ReportInfo("t")), made)
    flat = Design("flat", made.shape, made.stages[:1], {n: made.streams[n] for n in ("in", "norm_unit")})
    assert "the layer loop" not in render_svg(flat) and "before the layer loop" in render_svg(made)
    empty = Design("empty", Shape(8, 4, 1, 4), (), {})
    check_page(render_page(empty, ReportInfo("t")), empty)


def browse(page: Path, folder: Path, *options: str) -> str:
    """Run the browser on a page; what it printed."""
    program = shutil.which("chromium")
    assert program is not None
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder}", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def scanlines(png: bytes) -> tuple[int, int, set[bytes]]:
    """Width, height and the distinct (filtered) lines of a PNG picture."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        at += length + 12
    raw = zlib.decompress(data)
    line = len(raw) // size[1]
    return size[0], size[1], {raw[i : i + line] for i in range(0, len(raw), line)}


@pytest.mark.chromium
def test_browser_shows_the_page(tmp_path: Path) -> None:
    made = hostile(design())
    page = tmp_path / "report.html"
    page.write_text(render_page(made, info(made)), encoding="utf-8")
    dom = browse(page, tmp_path / "one", "--dump-dom")
    parser = parse(dom)
    assert sorted(parser.stages) == sorted(s.name for s in made.stages)
    assert parser.count["script"] == 1
    assert parser.count["input"] == 3, "the page's own script did not run"
    picture = tmp_path / "page.png"
    browse(page, tmp_path / "two", f"--screenshot={picture}", "--window-size=1400,2400")
    width, height, lines = scanlines(picture.read_bytes())
    assert (width, height) == (1400, 2400)
    assert len(lines) > 300, "the page is blank"
