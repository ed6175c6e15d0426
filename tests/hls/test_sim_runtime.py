# SPDX-License-Identifier: Apache-2.0
"""The simulation runtime: streams, fibers, deadlock reports, taps.

The designs are in ``sim/runtime_cases.cpp``; one program holds them all, because
starting g++ costs more than running any of them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HLS = HERE.parents[1] / "torch2fpga" / "hls"
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HLS / 'include'}", f"-I{HLS / 'sim'}"]
CASES = [
    *("order", "residual_512", "residual_768", "crossed", "thrown", "unwound", "unread"),
    *("two_readers", "two_writers", "nested", "no_join", "two_kernels", "same_tap"),
    *("unread_link", "polling", "poll_forever", "sequential", "owning", "big_locals"),
]

pytestmark = [
    pytest.mark.gxx,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def build(folder: Path, name: str, *options: str) -> Path:
    """Compile one program of ``sim/`` and return where it is."""
    program = folder / name
    source = HERE / "sim" / f"{name}.cpp"
    command = ["g++", *FLAGS, *options, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return program


def execute(program: Path, *arguments: str) -> str:
    """Run a program that must end well and say nothing on stderr."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sim"), "runtime_cases", "-O2", "-DT2F_SIM")


@pytest.fixture(scope="module")
def cases(program: Path) -> dict[str, list[str]]:
    """The lines that each case printed; the first is its status, "ok" or "failed"."""
    lines: dict[str, list[str]] = {}
    for block in execute(program, *CASES).split("case ")[1:]:
        name, *rest = block.splitlines()
        lines[name] = [line for line in rest if line]
    assert list(lines) == CASES
    return lines


@pytest.mark.parametrize("name", ["order", "residual_768", "nested", "two_kernels", "polling", "big_locals"])
def test_runs_to_its_end(cases: dict[str, list[str]], name: str) -> None:
    assert cases[name][0] == "ok"


def test_depth_bounds_the_fill_and_use_is_kept(cases: dict[str, list[str]]) -> None:
    assert cases["order"][1:] == [
        "use k/a depth 7 high 7 written 5000 read 5000 by k/produce to k/forward",
        "use k/b depth 2 high 2 written 5000 read 5000 by k/forward to k/expect",
    ]


def test_residual_bypass_too_shallow(cases: dict[str, list[str]]) -> None:
    status, headline, *rest = cases["residual_512"]
    assert status == "failed"
    assert headline == "deadlock: 3 of 3 unfinished processes wait on a stream"
    text = "\n".join(rest)
    assert "k/split waits to write k/bypass (full, 512 of 512 tokens)" in text
    assert "k/add waits to read k/from_layer (empty, 0 of 2 tokens)" in text
    cycle = rest[rest.index("wait cycle:") + 1 :][:3]
    assert [line.split()[0] for line in cycle] == ["k/split", "k/add", "k/layer"]
    assert "unknown yet (likely k/add)" in cycle[0]


def test_residual_bypass_high_water_is_the_row(cases: dict[str, list[str]]) -> None:
    assert "use k/bypass depth 768 high 768" in cases["residual_768"][1]


def test_crossed_reads_deadlock(cases: dict[str, list[str]]) -> None:
    waits = [
        "  k/a waits to read k/ba (empty, 0 of 2 tokens), written by k/b",
        "  k/b waits to read k/ab (empty, 0 of 2 tokens), written by k/a",
    ]
    assert cases["crossed"][:7] == [
        "failed",
        "deadlock: 2 of 2 unfinished processes wait on a stream",
        *waits,
        "wait cycle:",
        *waits,
    ]


def test_exception_names_its_process(cases: dict[str, list[str]]) -> None:
    assert cases["thrown"][:2] == ["failed", "process k/broken: row 10 of 10"]


def test_failed_run_unwinds_every_process(cases: dict[str, list[str]]) -> None:
    text = "\n".join(cases["unwound"])
    assert "first/outer/inner waits to read first/outer/t" in text
    assert "no wait cycle" in text
    assert cases["unwound"][-1] == "destroyed 4"


def test_unread_tokens(cases: dict[str, list[str]]) -> None:
    def left(stream: str, tokens: int, writer: str, reader: str) -> str:
        ends = f"written by {writer}, read by {reader}"
        why = "the two disagree on how many there are"
        return f"stream {stream}: {tokens} tokens were never read ({ends}): {why}"

    assert cases["unread"][:2] == ["failed", left("k/s", 3, "k/produce", "k/expect")]
    assert cases["owning"][:2] == ["failed", left("k/s", 10, "k/write", "k/read")]
    assert cases["unread_link"] == ["failed", left("link/ab", 1, "nobody yet", "b"), "left 8"]


def test_one_reader_and_one_writer(cases: dict[str, list[str]]) -> None:
    readers = "process k/right: stream k/s has two readers: k/left and k/right"
    writers = "process k/right: stream k/s has two writers: k/left and k/right"
    assert cases["two_readers"][:2] == ["failed", readers]
    assert cases["two_writers"][:2] == ["failed", writers]


def test_region_entered_again_has_the_same_processes(cases: dict[str, list[str]]) -> None:
    uses = cases["nested"][1:]
    assert "use k/a depth 2 high 2 written 300 read 300 by k/produce to k/stage/first" in uses
    last = "written 300 read 300 by k/stage/lane#3 to k/stage/last"
    assert uses[-1].startswith("use k/stage/unnamed#4 depth 3 high")
    assert uses[-1].endswith(last)
    assert len(uses) == 6


def test_missing_join_is_found(cases: dict[str, list[str]]) -> None:
    assert cases["no_join"][0] == "failed"
    assert "stream k/s was destroyed while processes" in cases["no_join"][1]


def test_recorder(cases: dict[str, list[str]]) -> None:
    lanes = " ".join(str(i + lane) for i in range(5) for lane in range(4))
    assert cases["two_kernels"][1:] == [
        f"tap a/s size 16 bytes {lanes}",
        f"tap link/ab size 16 bytes {lanes}",
    ]
    assert cases["same_tap"][0] == "failed"
    assert "two streams are named k/s" in cases["same_tap"][1]


def test_polling_without_progress_is_a_deadlock(cases: dict[str, list[str]]) -> None:
    assert cases["poll_forever"][0] == "failed"
    assert cases["poll_forever"][1].startswith("deadlock of polling processes: 1 of 1")


def test_sequential_run(cases: dict[str, list[str]]) -> None:
    assert cases["sequential"] == [
        "full 0 left 1",
        "last 999 high 1000 again 0",
        "read of the empty stream b",
    ]


def test_the_same_under_sanitizers(program: Path, tmp_path: Path) -> None:
    checked = build(
        tmp_path, "runtime_cases", "-O1", "-DT2F_SIM", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    )  # fmt: skip
    assert execute(checked, *CASES) == execute(program, *CASES)


def test_the_same_with_portable_switches(program: Path, tmp_path: Path) -> None:
    portable = build(tmp_path, "runtime_cases", "-O0", "-DT2F_SIM", "-DT2F_FIBER_UCONTEXT")
    assert execute(portable, *CASES) == execute(program, *CASES)


@pytest.mark.parametrize("mode", [["-D__SYNTHESIS__", "-Wno-unknown-pragmas"], []])
def test_plain_calls_outside_our_simulation(mode: list[str], tmp_path: Path) -> None:
    assert execute(build(tmp_path, "plain_calls", "-O0", *mode)) == "4950\n[call(a, b)] []\n"


def test_pipeline_pragma(tmp_path: Path) -> None:
    source = '#include "t2f/dataflow.hpp"\nT2F_PIPELINE(4);\n'
    done = subprocess.run(
        ["g++", *FLAGS, "-D__SYNTHESIS__", "-E", "-P", "-x", "c++", "-"],
        input=source, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "#pragma HLS pipeline II=4 style=flp" in done.stdout
