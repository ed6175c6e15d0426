# SPDX-License-Identifier: Apache-2.0
"""Tables of a timed run: figures are those of the report, bars fill, names are not swallowed."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from tests.timed_samples import CYCLES, sample
from tests.tiny import compiled
from torch2fpga.errors import InputError
from torch2fpga.simulate.timed import Settings, check_fifos
from torch2fpga.timing.fifos import FifoReport, FifoSize
from torch2fpga.timing.report import Deadlock, Wait
from torch2fpga.timing.show import (
    BAR,
    BARS,
    bar,
    cut_text,
    intervals,
    milliseconds,
    parse_fifos,
    rate_of,
    show,
    show_cut,
    text,
)
from torch2fpga.timing.states import totals


def test_every_figure_stands_in_the_text() -> None:
    _, report = sample()
    full = replace(report, half_depth=4502, double_depth=6004, interval=2500)
    out = text(full, limit=1000)
    assert "timed: the emitted C++ under a clock of 250 MHz (planned; not synthesised, no card)" in out
    assert f"{CYCLES:,}, 20.01 µs" in out
    assert "4,502, 18.01 µs, -10.0 %" in out and "6,004, 24.02 µs, +20.0 %" in out
    assert "2,500, 10 µs, 200,000 sequences/s" in out  # two sequences each 10 µs
    for stage in report.stages:
        assert any(stage.name in line and f"{stage.busy:,}" in line for line in out.splitlines()), stage.name
    for port in report.ports:
        assert f"{port.kernel}/{port.name}" in out and f"HBM[{port.channel}]" in out
    assert "one by one" in text(report) and "steady interval" not in text(report)


def test_rows_are_limited_and_the_rest_is_counted() -> None:
    _, report = sample()
    out = text(report, limit=3)
    busy = sorted(report.stages, key=lambda s: -s.busy)
    head = out[: out.index("FIFOs that were full")].split("stages, busiest first")[1]
    assert [s.name for s in busy[:3]] == [line.split()[0] for line in head.splitlines()[2:5]]
    assert f"{len(busy) - 3} more stages" in out


def test_bars_fill_and_show_the_shares() -> None:
    _, report = sample()
    for stage in report.stages:
        spent = totals(stage, report.cycles)
        drawn = bar(spent, report.cycles).plain
        assert len(drawn) == BAR
        for state, (character, _) in BARS.items():
            assert abs(drawn.count(character) - BAR * spent[state] / report.cycles) <= 1
    assert bar(dict.fromkeys(BARS, 0) | {"busy": 7}, 7).plain == BARS["busy"][0] * BAR


def test_intervals_differ_only_where_they_do() -> None:
    _, report = sample()
    loop = report.stages[0].loops[0]
    stage = replace(report.stages[0], loops=(replace(loop, ii=2, ii_achieved=2.0),))
    assert intervals(stage) == "2"
    assert intervals(replace(stage, loops=(replace(loop, ii=2, ii_achieved=3.456),))) == "2 → 3.46"
    short = replace(loop, iterations=1, ii_achieved=9.0)
    assert intervals(replace(stage, loops=(short, replace(loop, ii_achieved=1.0)))) == "1"
    assert intervals(replace(stage, loops=())) == "–"


def test_rates_of_a_few_bytes_are_left_out() -> None:
    _, report = sample()
    port = replace(report.ports[0], bytes=1 << 20, gbs=7.1875, peak_gbs=14.375)
    assert rate_of(port) == ("7.19", "50%")
    assert rate_of(replace(port, bytes=64)) == ("–", "–")


def test_times_have_units() -> None:
    assert milliseconds(250, 250) == "1 µs"
    assert milliseconds(308_250, 250) == "1.233 ms"
    assert milliseconds(1, 300) == "0.003333 µs"


def test_markup_in_names_is_text() -> None:
    _, report = sample()
    stages = (replace(report.stages[0], name="[red]x[/red]"), *report.stages[1:])
    assert "[red]x[/red]" in text(replace(report, stages=stages), limit=1000)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_fit_the_terminal(width: int) -> None:
    _, report = sample()
    stream = StringIO()
    show(report, Console(file=stream, width=width, color_system=None), limit=5)
    assert max(map(len, stream.getvalue().splitlines())) <= width


def test_a_deadlock_shows_every_wait_and_what_to_try() -> None:
    _, report = sample()
    waits = (
        Wait("a", "s", "write", 4, 4, "b", 10),
        Wait("b", "t", "read", 0, 2, "a", 12),
        Wait("c", "u", "read", 0, 2, "b", 3),
    )
    out = text(replace(report, deadlock=Deadlock(waits, waits[:2], "")))
    assert "deadlock" in out and "wait cycle:" in out
    assert out.count("a waits to write s (full, 4 of 4 tokens) since cycle 10") == 2
    assert out.count("c waits to read u") == 1
    assert out.endswith("--fifo s=8") and "busiest" not in out


@pytest.mark.parametrize("value", ["a", "a=", "=3", "a=0", "a=-1", "a=x", "a=1.5", "a=²", "", "a = 1 2"])
def test_depths_of_another_form_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="NAME=DEPTH"):
        parse_fifos(["b=2", value])


def test_depths_are_read() -> None:
    assert parse_fifos(["a=1", " b_2 = 300 "]) == {"a": 1, "b_2": 300}
    with pytest.raises(ValueError, match="stream a is given twice"):
        parse_fifos(["a=1", "a=2"])


def test_unknown_streams_get_near_names() -> None:
    streams = ["query_weights", "key_weights", "x"]
    check_fifos(["x", "key_weights"], streams)
    with pytest.raises(InputError, match="no stream key_weight; did you mean key_weights, query_weights"):
        check_fifos(["key_weight"], streams)
    with pytest.raises(InputError, match=r"no stream zzz; there are query_weights, .*no stream qqq"):
        check_fifos(["zzz", "qqq"], streams)
    name = next(n for n, s in compiled("mlp3d").design.streams.items() if s.kind == "rows")
    with pytest.raises(InputError, match=f"no stream {name}x; did you mean .*{name}"):
        Settings(fifos={f"{name}x": 3}).text(compiled("mlp3d").design)


# -- FIFOs that were cut ----------------------------------------------------------------------------

#: name, computed, held, new, whole tensor, bytes of a token; costs by hand in the tests below
SIZES = (
    FifoSize("long", 4096, 700, 512, 9000, 64),
    FifoSize("[red]x[/red]", 204, 114, 32, 4096, 8),
    FifoSize("kept", 16, 16, 16, 16, 4),
)


def cut_report(sizes: tuple[FifoSize, ...] = SIZES, loss: float = 0.0, after: int = 2000) -> FifoReport:
    model, _ = sample()
    return FifoReport(model, sizes, {(1, 19): (1000, 1000), (3, 19): (2000, after)}, loss, 38)


def columns(out: str, start: str) -> list[str]:
    (line,) = (line for line in out.splitlines() if line.startswith(start))
    return line.removeprefix(start).split()


def test_cut_fifos_show_memory_at_each_choice_of_depths() -> None:
    out = cut_text(cut_report())
    # A URAM is 72 bits x 4,096: 8 side by side for 64 bytes, 3 deep for 9,000 tokens. A RAMB18 is
    # 36 bits x 512: 2 side by side for 8 bytes, 8 deep for 4,096 tokens; 15 for 64 bytes x 512. An
    # SRL32 is a LUT a bit.
    assert columns(out, "whole tensors") == ["594.6", "100%", "32", "16", "24"]
    assert columns(out, "computed ") == ["257.7", "43%", "32", "2", "8"]
    assert columns(out, "after timed runs") == ["32.3", "5%", "96", "15", "0"]
    assert "3 FIFOs; from 38 timed runs at 2 sizes, no cycle lost; cycles timed, memory modelled" in out
    assert "at most 0.02 of the cycles lost" in cut_text(cut_report(loss=0.02))


def test_cut_fifos_show_cycles_at_each_size() -> None:
    out = cut_text(cut_report(after=2030))
    assert columns(out, "1 x 19") == ["1,000", "1,000", "none"]
    assert columns(out, "3 x 19") == ["2,000", "2,030", "+1.50", "%"]


def test_cut_fifos_are_named_most_bytes_first() -> None:
    out = cut_text(cut_report())
    assert columns(out, "long") == ["64", "9,000", "4,096", "700", "512", "BRAM"]
    assert columns(out, "[red]x[/red]") == ["8", "4,096", "204", "114", "32", "SRL"]
    assert out.index("long") < out.index("[red]x[/red]") and "kept  " not in out
    short = cut_text(cut_report(), limit=1)
    assert "1 more FIFOs that were cut" in short and "[red]x[/red]" not in short
    assert "cut most" not in cut_text(cut_report(SIZES[2:]))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_tables_of_cut_fifos_fit_the_terminal(width: int) -> None:
    stream = StringIO()
    show_cut(cut_report(), Console(file=stream, width=width, color_system=None))
    assert max(map(len, stream.getvalue().splitlines())) <= width
