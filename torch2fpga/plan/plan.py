# SPDX-License-Identifier: Apache-2.0
"""A plan: how wide every array is, where its weights are kept, and where every stage and port goes.

Plans are data. The optimiser makes them (``torch2fpga.plan.optimise``); a person may write one, or a
part of one: what a plan leaves out is chosen by the optimiser around what it says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch2fpga.errors import CompileError

OBJECTIVES = ("latency", "throughput")
#: where weights are kept: of one step, of all steps, or read again for every tile of rows
KEEPS = ("step", "resident", "streamed")
LARGEST_TILE = 64
COLUMNS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Array:
    """One linear or attention stage: how many multipliers it has.

    Attributes:
        copies: arrays that share its output channels; 0: not said.
        columns: output channels (attention: keys) a cycle of each; 0: not said.
        weights: one of ``KEEPS``; empty: not said, or attention, which has none.
        ports: memory ports of the weights of all copies; 0: not said, or attention.
    """

    copies: int = 0
    columns: int = 0
    weights: str = ""
    ports: int = 0


@dataclass(frozen=True)
class Plan:
    """See the module's text.

    Attributes:
        board: its name.
        clock_mhz: kernel clock that times are given for.
        objective: what was optimised, one of ``OBJECTIVES``.
        budget: share of the card that may be used (of its caps).
        multipliers: most products a cycle of all arrays together; 0: no such limit.
        tile: rows that share a pass over the weights; 0: not said.
        weights: where linear layers keep theirs, for those that do not say; empty: chosen by size.
        lanes: of the array that all linear layers share, one beside each weight port (``lower/lanes.py``);
            0: layers have arrays of their own.
        caches: parts of the heads of attention, each with arrays and a cache of its own, where a model
            generates tokens; 0: as many as reading the cache takes.
        checksums: sums of the weights and parameters that a launch read come with its results.
        arrays: by the stage's name before it is split into copies.
        ways: channels a cycle of the other stages, by name.
        slr: super logic region of every stage, by name (copies have names of their own).
        channels: memory channel of every port, by name.
    """

    board: str
    clock_mhz: float
    objective: str = "latency"
    budget: float = 1.0
    multipliers: int = 0
    tile: int = 0
    weights: str = ""
    lanes: int = 0
    caches: int = 0
    checksums: bool = False
    arrays: Mapping[str, Array] = field(default_factory=dict)
    ways: Mapping[str, int] = field(default_factory=dict)
    slr: Mapping[str, int] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        names = (
            "board",
            "clock_mhz",
            "objective",
            "budget",
            "multipliers",
            "tile",
            "weights",
            "lanes",
            "caches",
            "checksums",
        )
        head = {k: getattr(self, k) for k in names}
        arrays = {name: _array_json(array) for name, array in self.arrays.items()}
        rest = {k: dict(getattr(self, k)) for k in ("ways", "slr", "channels")}
        return {**head, "arrays": arrays, **rest}

    def to_toml(self) -> str:
        """The plan as TOML text, with comments that say what may stand where."""
        from torch2fpga.emit.kernel import render

        return render("plan.toml.j2", plan=self.to_json(), columns=COLUMNS, keeps=KEEPS, largest=LARGEST_TILE)

    def save(self, path: str | Path) -> Path:
        """Write the plan as TOML."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")
        return Path(path)


def _array_json(array: Array) -> dict[str, Any]:
    found: dict[str, Any] = {"copies": array.copies, "columns": array.columns}
    return {**found, "weights": array.weights, "ports": array.ports} if array.weights else found


def load_plan(source: Plan | str | Path | Mapping[str, Any]) -> Plan:
    """A plan from itself, from values, or from a TOML file; parts may be missing.

    Raises:
        CompileError: for an unreadable file, and with all unknown keys and impossible values at once.
    """
    if isinstance(source, Plan):
        return source
    if isinstance(source, Mapping):
        return _parsed(source, "the plan")
    return _parsed(plan_values(source), str(source))


def plan_values(path: str | Path) -> dict[str, Any]:
    """The values in a TOML file, not checked.

    Raises:
        CompileError: if it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CompileError(f"{path}: cannot be read as a plan: {error}") from None


class _Reader:
    """Takes values out of a document and notes what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def whole(self, where: str, value: Any, least: int, greatest: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
            allowed = f"a whole number from {least} to {greatest}"
            self.problems.append(f"{where} is {value!r}; allowed is {allowed}")
            return least
        return value

    def number(self, where: str, value: Any, least: float, greatest: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= greatest:
            self.problems.append(f"{where} is {value!r}; allowed is a number from {least:g} to {greatest:g}")
            return greatest
        return float(value)

    def truth(self, where: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.problems.append(f"{where} is {value!r}; allowed is true or false")
        return value is True

    def one_of(self, where: str, value: Any, allowed: tuple[Any, ...]) -> Any:
        if isinstance(value, bool) or value not in allowed:
            self.problems.append(f"{where} is {value!r}; allowed is one of {', '.join(map(repr, allowed))}")
            return allowed[0]
        return value

    def keys(self, where: str, value: Any, allowed: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self.problems.append(f"{where} is {value!r}; it must be a table")
            return {}
        for key in value:
            if allowed and key not in allowed:
                self.problems.append(f"{where} has the unknown key {key!r}; there are {', '.join(allowed)}")
        return value


def _parsed(document: Mapping[str, Any], where: str) -> Plan:
    from torch2fpga.boards import board_named

    r = _Reader()
    top = r.keys("the plan", document, tuple(f.name for f in fields(Plan)))
    try:
        board = board_named(str(top.get("board", "u280")))
    except CompileError as error:
        raise CompileError(f"{where}: {error}") from None
    arrays = {
        str(name): _array(r, f"arrays.{name}", entry)
        for name, entry in r.keys("arrays", top.get("arrays", {}), ()).items()
    }
    widths = r.keys("ways", top.get("ways", {}), ())
    ways = {str(n): r.one_of(f"ways.{n}", v, COLUMNS) for n, v in widths.items()}
    places = r.keys("slr", top.get("slr", {}), ())
    slr = {str(n): r.whole(f"slr.{n}", v, 0, len(board.slrs) - 1) for n, v in places.items()}
    ports = r.keys("channels", top.get("channels", {}), ())
    channels = {str(n): r.whole(f"channels.{n}", v, 0, board.hbm_channels - 1) for n, v in ports.items()}
    twice = sorted(n for n in channels if list(channels.values()).count(channels[n]) > 1)
    if twice:
        r.problems.append(f"channels: {', '.join(twice)} share one; every port has a channel of its own")
    plan = Plan(
        board=board.name,
        clock_mhz=r.number("clock_mhz", top.get("clock_mhz", board.clock_mhz), 50, 500),
        objective=r.one_of("objective", top.get("objective", "latency"), OBJECTIVES),
        budget=r.number("budget", top.get("budget", 1.0), 0.01, 1.0),
        multipliers=r.whole("multipliers", top.get("multipliers", 0), 0, 1 << 20),
        tile=r.whole("tile", top.get("tile", 0), 0, LARGEST_TILE),
        weights=r.one_of("weights", top.get("weights", ""), ("", *KEEPS)),
        lanes=r.whole("lanes", top.get("lanes", 0), 0, board.masters),
        caches=r.whole("caches", top.get("caches", 0), 0, 16),
        checksums=r.truth("checksums", top.get("checksums", False)),
        arrays=arrays,
        ways=ways,
        slr=slr,
        channels=channels,
    )
    if r.problems:
        raise CompileError(f"{where}: " + "; ".join(r.problems))
    return plan


def _array(r: _Reader, where: str, value: Any) -> Array:
    entry = r.keys(where, value, ("copies", "columns", "weights", "ports"))
    return Array(
        copies=r.whole(f"{where}.copies", entry.get("copies", 0), 0, 16),
        columns=r.one_of(f"{where}.columns", entry.get("columns", 0), (0, *COLUMNS)),
        weights=r.one_of(f"{where}.weights", entry.get("weights", ""), ("", *KEEPS)),
        ports=r.whole(f"{where}.ports", entry.get("ports", 0), 0, 16),
    )
