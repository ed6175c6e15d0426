# SPDX-License-Identifier: Apache-2.0
"""The checker on single sources, on the stage library, and without its tools."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from torch2fpga.emit.check import check_library, check_project, check_source
from torch2fpga.emit.checker import syntax
from torch2fpga.errors import MissingTool

INCLUDE = Path(__file__).parent / "fixtures" / "include"
LIBRARY = Path(__file__).parents[2] / "torch2fpga" / "hls" / "include"
LINK = "link.cfg"


def test_at_most_thirty_two_masters() -> None:
    names = [f"m{i}" for i in range(33)]
    ports = "".join(
        f"#pragma HLS interface m_axi port={n} offset=slave bundle={n} depth=1\n"
        f"#pragma HLS interface s_axilite port={n}\n"
        for n in names
    )
    text = (
        '#include "t2f/stages.hpp"\nextern "C" void wide('
        + ", ".join(f"const t2f::word *{n}" for n in names)
        + f") {{\n{ports}#pragma HLS interface s_axilite port=return\n}}\n"
    )
    link = "platform=p\nkernel_frequency=250\n[connectivity]\nnk=wide:1:wide_1\n"
    lines = [f"sp=wide_1.{n}:HBM[{i % 32}]\n" for i, n in enumerate(names)]
    files = {"kernels/wide.cpp": text, LINK: link + "".join(lines)}
    found = check_project(files, include_dirs=[INCLUDE])
    assert [item.rule for item in found] == ["link-masters"]


def test_one_source_and_the_text_of_a_finding() -> None:
    text = "void f(int n) {\n  for (int i = 0; i < n; ++i) {\n  }\n}\n"
    (finding,) = check_source(text, path="one.cpp")
    assert str(finding).startswith("one.cpp:2: [loop-bound] ")
    assert check_source(text.replace("i < n", "i < 4")) == []


def test_elements_of_a_stream_array_are_channels_of_their_own() -> None:
    text = """
#include "t2f/stages.hpp"
void make(hls::stream<int> &out) { out.write(1); }
void take(hls::stream<int> &in) { in.read(); }
void region() {
#pragma HLS dataflow
  hls::stream<int, 2> lane[2];
  make(lane[0]);
  make(lane[1]);
  take(lane[0]);
  take(lane[1]);
}
"""
    assert check_source(text, include_dirs=[INCLUDE]) == []
    broken = text.replace("  take(lane[1]);\n", "")
    assert [f.rule for f in check_source(broken, include_dirs=[INCLUDE])] == ["dataflow-channel"]


def test_a_dataflow_loop_stands_alone() -> None:
    text = """
#include "t2f/stages.hpp"
void make(hls::stream<int> &out, int i) { out.write(i); }
void take(hls::stream<int> &in) { in.read(); }
void region() {
  for (int i = 0; i < 4; ++i) {
#pragma HLS dataflow
    hls::stream<int, 2> lane;
    make(lane, i);
    take(lane);
  }
}
"""
    assert check_source(text, include_dirs=[INCLUDE]) == []
    broken = text.replace("void region() {", "void region(hls::stream<int> &s) {\n  s.write(1);")
    found = {f.rule for f in check_source(broken, include_dirs=[INCLUDE])}
    assert "dataflow-form" in found


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "clang.cindex", None)
        with pytest.raises(MissingTool, match="pip install libclang"):
            check_source("int f();")
    with monkeypatch.context() as context:
        context.setattr("shutil.which", lambda name: None)
        syntax.system_include_dirs.cache_clear()
        with pytest.raises(MissingTool, match=r"install g\+\+"):
            check_source("int f();")


def test_the_stage_library_has_no_findings() -> None:
    assert check_library(INCLUDE) == []
    assert [str(item) for item in check_library(LIBRARY)] == []
