# SPDX-License-Identifier: Apache-2.0
"""The checker accepts a good project and refuses each way of breaking it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from torch2fpga.emit.check import Finding, check_project

FIXTURES = Path(__file__).parent / "fixtures"
INCLUDE = FIXTURES / "include"
FIRST, SECOND, LINK, SHAPE = (
    "kernels/first.cpp",
    "kernels/second.cpp",
    "link.cfg",
    "kernels/shape.hpp",
)
STAGES = "t2f/stages.hpp"
PIPELINE = "#pragma HLS pipeline II=1 style=flp"
TRIPCOUNT = "#pragma HLS loop_tripcount max=Residual::max_rows"
M_AXI = "#pragma HLS interface m_axi port=w_q offset=slave bundle=w_q depth=96"
URAM = "#pragma HLS bind_storage variable=x type=fifo impl=uram"
LOOP = "for (int i = 0; i < rows; i++) {\n#pragma HLS loop_tripcount max=Residual::max_rows"
BODY = "const t2f::vec<int8_t, 16> v = y.read();"
CURRENT = "  t2f::word current;\n"
START_BODY = " {\n#pragma HLS inline off\n  token.write(rows);\n}\n"


def project() -> dict[str, str]:
    root = FIXTURES / "project"
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def findings(changes: list[tuple[str, str, str]]) -> list[Finding]:
    files = project()
    files[STAGES] = (INCLUDE / STAGES).read_text()
    files["t2f/dataflow.hpp"] = (INCLUDE / "t2f" / "dataflow.hpp").read_text()
    for path, old, new in changes:
        assert old in files[path], f"{old!r} is not in {path}"
        files[path] = files[path].replace(old, new, 1)
    return check_project(files, include_dirs=[INCLUDE])


def test_a_good_project_has_no_findings() -> None:
    assert check_project(project(), include_dirs=[INCLUDE]) == []
    assert findings([]) == []


def test_a_project_is_checked_quickly() -> None:
    begin = time.process_time()
    check_project(project(), include_dirs=[INCLUDE])
    assert time.process_time() - begin < 3


def in_store(text: str) -> tuple[str, str, str]:
    """Put statements in front of a sequential function's body."""
    return (SECOND, CURRENT, CURRENT + text)


def beside(text: str) -> tuple[str, str, str]:
    """Put declarations at namespace scope."""
    return (SECOND, "struct Residual", text + "\nstruct Residual")


PRAGMAS = [
    ("pragma-kind", (SECOND, PIPELINE, "#pragma HLS pipelin II=1 style=flp")),
    ("pragma-kind", (SECOND, PIPELINE, "#pragma HLS")),
    ("pragma-option", (SECOND, PIPELINE, PIPELINE + " depth=3")),
    ("pragma-option", (SECOND, PIPELINE, PIPELINE + " II=2")),
    ("pragma-option", (SECOND, PIPELINE, PIPELINE + " rewind=1")),
    ("pragma-option", (SECOND, PIPELINE, "#pragma HLS pipeline II style=flp")),
    ("pragma-option", (SECOND, PIPELINE, "#pragma HLS pipeline II= style=flp")),
    ("pragma-option", (SECOND, PIPELINE, PIPELINE + " =")),
    ("pragma-option", (STAGES, "variable = acc complete", "variable = acc complete=2")),
    ("pragma-required", (SECOND, PIPELINE, "#pragma HLS pipeline II=1")),
    ("pragma-required", (SECOND, PIPELINE, "#pragma HLS pipeline style=flp")),
    ("pragma-required", (SECOND, TRIPCOUNT, "#pragma HLS loop_tripcount min=1")),
    ("pragma-required", (STAGES, "variable = acc complete", "variable = acc cyclic")),
    ("pragma-required", (STAGES, "variable = acc complete", "variable = acc type = block")),
    ("pragma-required", (FIRST, URAM, "#pragma HLS bind_storage variable=x type=fifo")),
    ("pragma-required", (FIRST, URAM, "#pragma HLS bind_storage variable=x impl=uram")),
    ("pragma-required", (FIRST, M_AXI, M_AXI.replace(" offset=slave", ""))),
    ("pragma-required", (FIRST, M_AXI, M_AXI.replace(" bundle=w_q", ""))),
    ("pragma-required", (FIRST, M_AXI, M_AXI.replace(" depth=96", ""))),
    ("pragma-required", in_store("#pragma HLS latency\n")),
    ("pragma-exclusive", (SECOND, PIPELINE, PIPELINE + " off")),
    ("pragma-exclusive", (SECOND, PIPELINE, PIPELINE + "\nT2F_PIPELINE(2);")),
    ("pragma-exclusive", (SECOND, "HLS dataflow", "HLS dataflow\n" + PIPELINE)),
    ("pragma-exclusive", (SECOND, PIPELINE, PIPELINE + " rewind")),
    ("pragma-value", (SECOND, PIPELINE, "#pragma HLS pipeline II=1 style=fast")),
    ("pragma-value", (SECOND, PIPELINE, "#pragma HLS pipeline II=0 style=flp")),
    ("pragma-value", (STAGES, "variable = acc complete", "variable = acc complete factor=2")),
    ("pragma-value", (FIRST, URAM, "#pragma HLS bind_storage variable=x type=ram_1p impl=srl")),
    ("pragma-value", (FIRST, URAM, "#pragma HLS bind_storage variable=x type=fifa impl=uram")),
    ("pragma-value", in_store("#pragma HLS bind_op variable=current op=fdiv impl=fulldsp\n")),
    ("pragma-value", (FIRST, M_AXI, M_AXI.replace("slave", "direct"))),
    ("pragma-value", (FIRST, M_AXI, M_AXI + " max_widen_bitwidth=48")),
    ("pragma-value", (FIRST, "m_axi port=w_q", "m_axii=3 mode=n_axi port=w_q")),
    ("pragma-integer", (SECOND, PIPELINE, "#pragma HLS pipeline II=rows style=flp")),
    ("pragma-integer", (SECOND, PIPELINE, "#pragma HLS pipeline II=Residual::nope style=flp")),
    ("pragma-integer", (SECOND, PIPELINE, "#pragma HLS pipeline II=1.5 style=flp")),
    ("pragma-integer", (SECOND, PIPELINE, "T2F_PIPELINE(nothing);")),
    ("pragma-integer", (STAGES, "factor = N / 2", "factor = M / 2")),
    ("pragma-deprecated", (SECOND, PIPELINE, "#pragma HLS pipeline II=1 enable_flush")),
    ("pragma-deprecated", (SECOND, PIPELINE, "#pragma AP pipeline II=1 style=flp")),
    ("pragma-deprecated", in_store("#pragma HLS resource variable=current core=RAM_1P\n")),
    ("pragma-deprecated", (STAGES, "unroll factor = N / 2", "unroll region")),
    ("pragma-deprecated", (FIRST, "axis port=x_out", "ap_stable port=x_out")),
]

SCOPES_AND_NAMES = [
    ("pragma-scope", in_store("#pragma HLS interface axis port=y\n")),
    ("pragma-scope", in_store("#pragma HLS unroll\n")),
    ("pragma-scope", in_store("#pragma HLS loop_tripcount max=4\n")),
    ("pragma-scope", in_store("#pragma HLS loop_flatten off\n")),
    ("pragma-scope", (STAGES, "  int32_t total = 0;", "  int32_t total = 0;\n#pragma HLS unroll")),
    ("pragma-scope", (SECOND, PIPELINE, "if (rows > 3) {\n" + PIPELINE + "\n}")),
    ("pragma-scope", (SECOND, PIPELINE, "if (rows > 3) { T2F_PIPELINE(1); }")),
    ("pragma-scope", (SECOND, "#pragma HLS dataflow", "{\n#pragma HLS dataflow\n}")),
    ("pragma-scope", beside("#pragma HLS inline off")),
    ("pragma-name", (FIRST, URAM, URAM.replace("variable=x", "variable=xx"))),
    ("pragma-name", (FIRST, "axis port=x_out", "axis port=out_x")),
    ("pragma-name", (STAGES, "bind_storage variable = kept", "bind_storage variable = keep")),
    ("pragma-name", (STAGES, "bind_storage variable = kept", "bind_storage variable = acc")),
    ("pragma-name", in_store("#pragma HLS stable variable=later\n  int later = 0;\n")),
    ("pragma-name", in_store("#pragma HLS stable variable=current.e\n")),
    ("pragma-name", in_store("#pragma HLS stable variable=store\n")),
]

READ_Y = '  T2F_PROCESS("store", store(y, y_mem, rows));'
ADD_Y = '  T2F_PROCESS("add", t2f::add<Residual>(q_in, x_in, y, rows));'
DATAFLOW = [
    ("dataflow-form", (SECOND, READ_Y, "for (int i = 0; i < 1; ++i) {\n" + READ_Y + "\n}")),
    ("dataflow-form", (SECOND, READ_Y, "if (rows > 0) {\n" + READ_Y + "\n}")),
    ("dataflow-form", (SECOND, READ_Y, READ_Y + "\n  rows = 3;")),
    ("dataflow-form", (SECOND, READ_Y, READ_Y + "\n  return;")),
    ("dataflow-form", (SECOND, READ_Y, READ_Y + "\n  int all = rows * 2;")),
    ("dataflow-form", (SECOND, READ_Y, READ_Y + "\n  static t2f::word kept;")),
    ("dataflow-form", (SECOND, READ_Y, '  T2F_PROCESS("n", t2f::ceil_div(4, 2));\n' + READ_Y)),
    ("dataflow-argument", (SECOND, "store(y, y_mem, rows)", "store(y, y_mem, rows + 1)")),
    ("dataflow-argument", (SECOND, "store(y, y_mem, rows)", "store(y, y_mem, rows++)")),
    (
        "dataflow-argument",
        (SECOND, "store(y, y_mem, rows)", "store(y, y_mem, t2f::ceil_div(rows, 2))"),
    ),
    ("dataflow-depth", (SECOND, "16>, 2> y", "16>> y")),
    ("dataflow-process", (SECOND, READ_Y, "  store(y, y_mem, rows);")),
    ("dataflow-process", (SECOND, '"store"', '"add"')),
    ("dataflow-process", (SECOND, '"store"', "name")),
    ("dataflow-process", (SECOND, "  T2F_DATAFLOW_END\n", "")),
    ("dataflow-channel", (SECOND, READ_Y + "\n", "")),
    ("dataflow-channel", (SECOND, "(q_in, x_in, y,", "(q_in, q_in, y,")),
    ("dataflow-channel", (SECOND, "(q_in, x_in, y,", "(y, x_in, q_in,")),
    ("dataflow-channel", (SECOND, READ_Y, READ_Y + "\n  t2f::word buffer[4];")),
    ("dataflow-channel", (FIRST, "read_x(x_mem,", "read_x(w_q,")),
    ("dataflow-feedback", (SECOND, ADD_Y + "\n" + READ_Y, READ_Y + "\n" + ADD_Y)),
    ("dataflow-direction", (STAGES, "  out << value;", "  auto &alias = out;\n  alias << value;")),
    ("dataflow-direction", (STAGES, "    y.write(v);\n  }\n}\n\n}", "    (void)v;\n  }\n}\n\n}")),
    ("dataflow-direction", (STAGES, "    x >> v;", "    x >> v;\n    x << v;")),
    (
        "dataflow-direction",
        (SECOND, START_BODY, ";\n"),
    ),
]

INTERFACES = [
    ("interface-bundle", (FIRST, "bundle=x_mem", "bundle=w_q")),
    ("interface-port", (FIRST, "#pragma HLS interface s_axilite port=w_q\n", "")),
    ("interface-port", (FIRST, "#pragma HLS interface s_axilite port=batch\n", "")),
    ("interface-port", (FIRST, "#pragma HLS interface axis port=token\n", "")),
    ("interface-port", (FIRST, "#pragma HLS interface s_axilite port=return\n", "")),
    ("interface-port", (FIRST, "s_axilite port=seq", "s_axilite port=return")),
    ("interface-port", (FIRST, "axis port=token", "s_axilite port=token")),
    ("interface-port", (SECOND, "*y_mem, int rows)", "*y_mem, int &rows)")),
    ("top", (FIRST, 'extern "C" void first', "void first")),
    ("top", (FIRST, 'extern "C" void first', 'extern "C" void fist')),
]

LINKS = [
    ("link-config", (LINK, "kernel_frequency=250\n", "")),
    ("link-config", (LINK, "kernel_frequency=250", "kernel_freq=250")),
    ("link-config", (LINK, "nk=first:1:first_1", "nk=first:2:first_1.first_2")),
    ("link-config", (LINK, "nk=first:1:first_1", "nk=fist:1:fist_1")),
    ("link-config", (LINK, "nk=first:1:first_1\n", "")),
    ("link-config", (LINK, "slr=first_1:SLR0", "slr=first_1:SLR3")),
    ("link-config", (LINK, "slr=first_1:SLR0", "slr=second_1:SLR0")),
    ("link-config", (LINK, "slr=first_1:SLR0", "slr=first_1:SLR0 # near the HBM")),
    ("link-config", (LINK, "[connectivity]", "[conectivity]")),
    ("link-port", (LINK, "sp=first_1.w_q:HBM[0]\n", "")),
    ("link-port", (LINK, "sp=first_1.w_q:HBM[0]", "sp=first_1.w_q:HBM[0:3]")),
    ("link-port", (LINK, "sp=first_1.w_q:HBM[0]", "sp=first_1.w_q:HBM[32]")),
    ("link-port", (LINK, "sp=first_1.w_q:HBM[0]", "sp=first_1.w_k:HBM[0]")),
    ("link-port", (LINK, "sp=first_1.w_q:", "sp=first_1.w_q:HBM[4]\nsp=first_1.w_q:")),
    ("link-stream", (LINK, "stream_connect=second_1.token:first_1.token:2\n", "")),
    ("link-stream", (LINK, "second_1.token:first_1.token", "first_1.token:second_1.token")),
    ("link-stream", (LINK, "first_1.q_out:second_1.q_in", "first_1.q_out:second_1.rows")),
    ("link-stream", (LINK, "first_1.x_out:second_1.x_in", "first_1.x_out:second_1.q_in")),
    ("link-stream", (LINK, "second_1.token:first_1.token:2", "second_1.token>first_1.token")),
]

CODE = [
    ("static-array", in_store("  static int32_t table[4];\n")),
    ("static-array", in_store("  static int32_t count;\n")),
    ("static-array", beside("int32_t table[4];")),
    (
        "uram-static",
        in_store(
            "  static const int32_t t[4] = {};\n#pragma HLS bind_storage variable=t type=rom_1p impl=uram\n"
        ),
    ),
    (
        "uram-static",
        in_store("  const int32_t t[4] = {};\n#pragma HLS bind_storage variable=t type=ram_s2p impl=uram\n"),
    ),
    ("recursion", beside("static int down(int n) { return n > 0 ? down(n - 1) : 0; }")),
    (
        "recursion",
        beside(
            "static int odd(int n);\n"
            "static int even(int n) { return n > 0 ? odd(n - 1) : 1; }\n"
            "static int odd(int n) { return n > 0 ? even(n - 1) : 0; }"
        ),
    ),
    (
        "recursion",
        beside("template <int N>\nint deep(int (&x)[N], int n) { return n > 0 ? deep(x, n - 1) : x[0]; }"),
    ),
    ("dynamic-memory", in_store("  int *p = new int[4];\n  delete[] p;\n")),
    ("dynamic-memory", beside("void free(void *);\nstatic void f(int *p) { free(p); }")),
    (
        "dynamic-memory",
        beside("namespace std { template <typename T> struct vector {}; }\nstatic std::vector<int> v();"),
    ),
    ("loop-bound", in_store("  while (true) {\n  }\n")),
    ("loop-bound", in_store("  while (rows > 3) {\n  }\n")),
    ("loop-bound", in_store("  do {\n  } while (rows > 3);\n")),
    ("loop-bound", in_store("  for (int i = 0;; ++i) {\n  }\n")),
    ("loop-bound", in_store("  for (;;) {\n  }\n")),
    ("loop-bound", in_store("  for (int i = 0; true; ++i) {\n  }\n")),
    ("loop-bound", in_store("  for (int i = rows; i < 4; ++i) {\n  }\n")),
    ("loop-bound", in_store("  for (int i = 0; i < 4; i += rows) {\n  }\n")),
    ("loop-bound", (SECOND, TRIPCOUNT, "")),
    ("loop-bound", (STAGES, "#pragma HLS loop_tripcount max = C::max_rows", "")),
    ("virtual", beside("struct Base { virtual void run(); };")),
    ("virtual", beside("struct Root {};\nstruct Left : virtual Root {};")),
    ("exception", in_store("  try {\n  } catch (int) {\n  }\n")),
    ("exception", in_store("  if (rows < 0) throw 3;\n")),
    ("goto", in_store("  if (rows < 0) goto STORE;\n")),
    ("floating-point", in_store("  float scale = 1;\n")),
    ("floating-point", in_store("  const int scale = 2.5;\n")),
    ("floating-point", beside("template <typename T> double to_real(T x);")),
    ("floating-point", beside("using real = float;")),
    ("function-pointer", in_store("  void (*f)(int) = nullptr;\n")),
    ("function-pointer", beside("template <typename T> void call(T (*f)(T));")),
]

ARRAYS = [
    ("aggregate", in_store("  t2f::word buffer[8];\n")),
    ("aggregate", (STAGES, "#pragma HLS aggregate variable = kept\n", "")),
    (
        "aggregate",
        (
            STAGES,
            "#pragma HLS aggregate variable = kept\n",
            "  vec<int8_t, C::lanes> rows[4][4];\n#pragma HLS aggregate variable = kept\n",
        ),
    ),
    (
        "aggregate",
        in_store("  t2f::word buffer[8];\n#pragma HLS array_partition variable=buffer cyclic factor=2\n"),
    ),
    ("array-size", in_store("  int32_t buffer[rows];\n")),
    (
        "array-size",
        (STAGES, "int32_t acc[C::lanes];", "int32_t acc[C::lanes], more[C::lanes + batch];"),
    ),
]

HYGIENE = [
    ("initialiser-size", beside(f"const int8_t w[5000] = {{{'1, ' * 5000}}};")),
    (
        "initialiser-size",
        beside(f"const int8_t w[2][2100] = {{{('{' + '1, ' * 2100 + '},') * 2}}};"),
    ),
    ("file-size", beside("// " + "x" * 1_000_000)),
    ("function-length", in_store("\n" * 420)),
    ("function-length", (SECOND, "#pragma HLS dataflow\n", "#pragma HLS dataflow\n" + "\n" * 2020)),
    ("non-ascii", beside("// caf\u00e9")),
    ("non-ascii", (LINK, "# one", "# \u2013 one")),
    ("include", beside("#include <cmath>")),
    ("include", beside("#include <vector>")),
    ("include", (SECOND, '"t2f/stages.hpp"', '"t2f/../t2f/stages.hpp"')),
    ("include", (SHAPE, "struct Shape", "#include <cstddef>\nstruct Shape")),
    ("parse", beside("struct Broken {")),
    ("parse", (SECOND, BODY, BODY.replace("read()", "reed()"))),
    ("parse", (SECOND, BODY, "#ifndef __SYNTHESIS__\n(;\n#endif\n" + BODY)),
]


# Reported where it matters, not where the change was made.
ELSEWHERE = ("link-config", "dataflow-direction")


@pytest.mark.parametrize(
    ("rule", "change"),
    PRAGMAS + SCOPES_AND_NAMES + DATAFLOW + INTERFACES + LINKS + CODE + ARRAYS + HYGIENE,
)
def test_a_broken_project_is_refused(rule: str, change: tuple[str, str, str]) -> None:
    found = findings([change])
    shown = [str(item) for item in found]
    assert rule in {item.rule for item in found}, shown
    assert rule == "parse" or "parse" not in {item.rule for item in found}, shown
    assert change[0] in {item.path for item in found if item.rule == rule} or rule in ELSEWHERE


ACCEPTED = [
    in_store("  for (int i = 0; i < 4; ++i) {\n  }\n"),
    in_store("  const int8_t table[4] = {1, 2, 3, 4};\n  (void)table;\n"),
    in_store("  static const t2f::word table[2] = {};\n  (void)table;\n"),
    in_store("  t2f::word b[8];\n#pragma HLS array_partition variable=b type=complete\n"),
    in_store("  t2f::word b[8];\n#pragma HLS array_partition variable=b complete dim=0\n"),
    in_store("#pragma HLS stable variable=current.d\n"),
    in_store("#pragma HLS dependence variable=current inter false\n"),
    in_store("#pragma HLS LATENCY MIN=1 \\\n  max=3\n"),
    in_store("#ifdef T2F_SIM\n  float x = 1;\n#pragma HLS nonsense\n#endif\n"),
    in_store("// #pragma HLS nonsense\n/* #pragma HLS nonsense */\n"),
    in_store('  _Pragma("HLS latency max=4");\n'),
    beside(
        "template <int N> int deep(int n) { return deep<N - 1>(n); }\n"
        "template <> inline int deep<0>(int n) { return n; }"
    ),
    beside(
        "namespace tables { constexpr int count = 4; }\n"
        "static int take(const int (&x)[tables::count]) {\n"
        "#pragma HLS array_partition variable=x cyclic factor=tables::count / 2\n"
        "  return x[0];\n}"
    ),
    (SECOND, READ_Y, READ_Y + "\n  const int four = 4;\n"),
    (SECOND, "t2f::add<Residual>(q_in, x_in, y, rows)", "t2f::add<Residual>(q_in, x_in, y, 2 * 8)"),
    (LINK, "HBM[1]", "DDR[1]"),
    (LINK, "[connectivity]", "[vivado]\nprop=run.impl_1.strategy=X\n[connectivity]"),
]


@pytest.mark.parametrize("change", ACCEPTED)
def test_what_is_legal_is_accepted(change: tuple[str, str, str]) -> None:
    assert [str(item) for item in findings([change])] == []


def test_connected_streams_carry_the_same_tokens() -> None:
    found = findings([(LINK, "second_1.token:first_1.token:2", "second_1.token:second_1.q_in:2")])
    assert any("joins int" in item.message for item in found if item.rule == "link-stream")


def test_a_kernel_without_a_link_configuration() -> None:
    files = project()
    del files[LINK]
    found = check_project(files, include_dirs=[INCLUDE])
    assert [item.rule for item in found] == ["link-config"]


def test_headers_above_the_kernels_are_checked() -> None:
    files = project()
    odd = "struct Odd { float x; };\nstruct Shape"
    files["shape.hpp"] = files.pop(SHAPE).replace("struct Shape", odd)
    for name in (FIRST, SECOND):
        files[name] = files[name].replace('"shape.hpp"', '"../shape.hpp"')
    found = check_project(files, include_dirs=[INCLUDE])
    assert [(item.path, item.rule) for item in found] == [("shape.hpp", "floating-point")]


def test_a_long_dataflow_region_is_a_list_of_many_stages() -> None:
    """A region may have more lines than another function, which is something to read."""
    region = "#pragma HLS dataflow\n"
    assert findings([(SECOND, region, region + "\n" * 1000)]) == []
