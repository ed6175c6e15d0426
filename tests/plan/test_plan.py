# SPDX-License-Identifier: Apache-2.0
"""Plans as data: TOML there and back, and errors that say what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from torch2fpga.errors import CompileError
from torch2fpga.plan.plan import Array, Plan, load_plan

FULL = Plan(
    board="u280",
    clock_mhz=225.0,
    objective="throughput",
    budget=0.5,
    multipliers=2304,
    tile=8,
    arrays={"query": Array(2, 16, "step", 1), "scores": Array(1, 4)},
    ways={"query_requant": 4},
    slr={"query_0": 0, "query_1": 2, "scores": 1},
    channels={"query_0_weights_in": 3, "query_1_weights_in": 17},
)


def test_toml_there_and_back(tmp_path: Path) -> None:
    path = FULL.save(tmp_path / "plan.toml")
    assert load_plan(path) == FULL
    assert load_plan(str(path)) == FULL
    assert load_plan(FULL.to_json()) == FULL
    assert load_plan(FULL) is FULL


def test_text_is_deterministic_and_explains_itself() -> None:
    assert FULL.to_toml() == FULL.to_toml()
    for word in ("latency", "copies", "columns", "resident", "share of the card"):
        assert word in FULL.to_toml()


def test_a_part_of_a_plan_is_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "part.toml"
    path.write_text('board = "u55c"\n[arrays.fc]\ncopies = 3\n')
    plan = load_plan(path)
    assert plan == Plan("u55c", 250.0, arrays={"fc": Array(3, 0, "")})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"bord": "u280"}, "unknown key 'bord'; there are board, clock_mhz"),
        ({"board": "u250"}, "unknown board 'u250'; there are"),
        ({"clock_mhz": 900}, "clock_mhz is 900; allowed is a number from 50 to 500"),
        ({"clock_mhz": True}, "clock_mhz is True"),
        ({"objective": "speed"}, "objective is 'speed'; allowed is one of 'latency', 'throughput'"),
        ({"budget": 0}, "budget is 0"),
        ({"tile": 65}, "tile is 65; allowed is a whole number from 0 to 64"),
        ({"multipliers": -1}, "multipliers is -1"),
        ({"arrays": {"fc": {"copy": 2}}}, "arrays.fc has the unknown key 'copy'; there are copies, columns"),
        ({"arrays": {"fc": {"ports": -1}}}, "arrays.fc.ports is -1"),
        (
            {"arrays": {"fc": {"copies": 17}}},
            "arrays.fc.copies is 17; allowed is a whole number from 0 to 16",
        ),
        ({"arrays": {"fc": {"columns": 5}}}, "arrays.fc.columns is 5"),
        ({"arrays": {"fc": {"weights": "disk"}}}, "arrays.fc.weights is 'disk'"),
        ({"weights": "disk"}, "weights is 'disk'; allowed is one of '', 'step', 'resident', 'streamed'"),
        ({"arrays": 7}, "arrays is 7; it must be a table"),
        ({"ways": {"fc": 3}}, "ways.fc is 3; allowed is one of 1, 2, 4, 8, 16"),
        ({"slr": {"fc": 3}}, "slr.fc is 3; allowed is a whole number from 0 to 2"),
        ({"slr": {"fc": 1.0}}, "slr.fc is 1.0"),
        ({"channels": {"a": 32}}, "channels.a is 32"),
        ({"channels": {"a": 3, "b": 3}}, "channels: a, b share one"),
    ],
)
def test_impossible_values_say_what_is_allowed(values: dict[str, object], text: str) -> None:
    with pytest.raises(CompileError) as error:
        load_plan(values)
    assert text in str(error.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(CompileError) as error:
        load_plan({"tile": 65, "budget": 2, "slr": {"x": 9}})
    assert all(word in str(error.value) for word in ("tile is 65", "budget is 2", "slr.x is 9"))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="cannot be read as a plan"):
        load_plan(tmp_path / "missing.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("tile = = 4")
    with pytest.raises(CompileError, match="cannot be read as a plan"):
        load_plan(bad)
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(CompileError, match="cannot be read as a plan"):
        load_plan(bad)
