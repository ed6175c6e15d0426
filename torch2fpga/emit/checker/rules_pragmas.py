# SPDX-License-Identifier: Apache-2.0
"""Rules on pragmas: grammar, values, scope and names.

Sources: XlxPragmaOption.td and ParseXlxPragma.cpp of Xilinx/hls-llvm-project; UG1399 2022.2, "HLS
Pragmas".  Conventions of this project on top: `pipeline` always states II and style, `m_axi`
always states offset=slave, bundle and depth, `bind_storage` always states impl.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch2fpga.emit.checker import scopes
from torch2fpga.emit.checker.finding import Finding
from torch2fpga.emit.checker.pragmas import (
    FLAG,
    ID,
    INT,
    KINDS,
    NUMBER,
    OP_IMPLS,
    REFUSED_MODES,
    REMOVED,
    STORAGE_IMPLS,
    VAR,
    Kind,
    Option,
    kind_of,
)
from torch2fpga.emit.checker.source import Argument, Pragma, Source, scope_of
from torch2fpga.emit.checker.syntax import Node

Problem = tuple[str, str]
# Kinds that stand at most once in a body, each with the kind it cannot meet there.
_ONCE = {
    "pipeline": "dataflow",
    "dataflow": "pipeline",
    "unroll": "",
    "loop_tripcount": "",
    "loop_flatten": "",
    "inline": "",
}


def check(source: Source) -> Iterator[Finding]:
    """All pragma rules on one file."""
    entries = {node.start for node in source.entries}
    for pragma, chain, compound in source.pragma_owners:
        options, problems = read(pragma)
        if not any(rule in ("pragma-kind", "pragma-deprecated") for rule, _ in problems):
            problems += list(_scope(pragma, compound, entries))
            problems += list(_resolve(source, pragma, chain, options))
        for rule, message in problems:
            text = f"{pragma.kind}: {message}" if pragma.kind else message
            yield Finding(source.label, pragma.line, rule, text)
    yield from _once(source)


def _once(source: Source) -> Iterator[Finding]:
    seen: set[tuple[int, str]] = set()
    for pragma, _, compound in source.pragma_owners:
        if compound is None or pragma.kind not in _ONCE:
            continue
        if (compound.start, pragma.kind) in seen:
            message = f"{pragma.kind}: stands twice in one body"
            yield Finding(source.label, pragma.line, "pragma-exclusive", message)
        seen.add((compound.start, pragma.kind))
        other = _ONCE[pragma.kind]
        if other and (compound.start, other) in seen:
            message = f"{pragma.kind} and {other} exclude each other in one body"
            yield Finding(source.label, pragma.line, "pragma-exclusive", message)


def read(pragma: Pragma) -> tuple[dict[str, str], list[Problem]]:
    """The options of a pragma by full name (bare enum values resolved), and what is wrong."""
    if not pragma.kind:
        return {}, [("pragma-kind", pragma.problem)]
    if pragma.problem:
        return {}, [("pragma-option", pragma.problem)]
    kind = kind_of(pragma.kind, _mode(pragma))
    if kind is None:
        return {}, [("pragma-kind", "unknown pragma")]
    if kind.refused:
        return {}, [("pragma-deprecated", kind.refused)]
    problems: list[Problem] = []
    if pragma.introducer != "HLS":
        problems.append(("pragma-deprecated", f"write HLS, not {pragma.introducer}"))
    options: dict[str, str] = {}
    for argument in pragma.arguments:
        problems += _take(kind, argument, options)
    problems += _whole(kind, options)
    if not problems:
        problems += _agreement(kind.name, options)
    return options, problems


def _mode(pragma: Pragma) -> str | None:
    value = pragma.value("mode")
    if value:
        return value.lower()
    modes = next(option for option in KINDS["interface"].options if option.name == "mode").values
    return next((a.name for a in pragma.arguments if a.value is None and a.name in modes), None)


def _find(kind: Kind, name: str) -> tuple[Option, str | None] | None:
    for option in kind.options:
        if option.name == name:
            return option, None
    for option in kind.options:
        if option.bare and name in option.values:
            return option, name
    return None


def _take(kind: Kind, argument: Argument, options: dict[str, str]) -> list[Problem]:
    removed = REMOVED.get(kind.name, {}).get(argument.name)
    if removed:
        return [("pragma-deprecated", f"{argument.name}: {removed}")]
    found = _find(kind, argument.name)
    if found is None:
        return [("pragma-option", f"unknown option '{argument.name}'")]
    option, bare = found
    if option.name in options:
        return [("pragma-option", f"'{option.name}' given twice")]
    if bare is not None and argument.value is not None:
        return [("pragma-option", f"'{argument.name}' takes no value")]
    if bare is None and (option.form == FLAG) != (argument.value is None):
        wants = "takes no value" if option.form == FLAG else "needs a value"
        return [("pragma-option", f"'{option.name}' {wants}")]
    text = bare or argument.text
    options[option.name] = text if option.form in (INT, VAR, ID) else text.lower()
    if option.deprecated:
        return [("pragma-deprecated", f"{option.name}: {option.deprecated}")]
    return _value_problems(option, text)


def _value_problems(option: Option, text: str) -> list[Problem]:
    if option.name == "mode" and text.lower() in REFUSED_MODES:
        return [("pragma-deprecated", f"{text}: {REFUSED_MODES[text.lower()]}")]
    if option.values and text.lower() not in option.values:
        allowed = ", ".join(option.values)
        return [("pragma-value", f"{option.name}={text} is none of {allowed}")]
    if option.form == ID and not re.fullmatch(r'[A-Za-z_][\w:]*|"[^"]*"', text):
        return [("pragma-value", f"{option.name}={text} is no name")]
    if option.form == NUMBER and not re.fullmatch(r"[\d.,\-eE]+", text):
        return [("pragma-value", f"{option.name}={text} is no number")]
    return []


def _whole(kind: Kind, options: dict[str, str]) -> Iterator[Problem]:
    for option in kind.options:
        if option.required and option.name not in options:
            yield ("pragma-required", f"'{option.name}' is missing")
    for first, second in kind.exclusive:
        if first in options and second in options:
            yield ("pragma-exclusive", f"'{first}' and '{second}' exclude each other")
    for group in kind.one_of:
        if not any(name in options for name in group):
            yield ("pragma-required", f"one of {', '.join(group)} is missing")


def _agreement(kind: str, options: dict[str, str]) -> Iterator[Problem]:
    if kind == "pipeline":
        yield from _pipeline(options)
    elif kind in ("array_partition", "array_reshape"):
        yield from _partition(options)
    elif kind == "bind_storage":
        yield from _pair(options.get("type", ""), options.get("impl"), STORAGE_IMPLS)
    elif kind == "bind_op":
        yield from _pair(options.get("op", ""), options.get("impl"), OP_IMPLS)
    elif kind == "interface":
        yield from _interface(options)


def _pipeline(options: dict[str, str]) -> Iterator[Problem]:
    if "off" in options:
        return
    for name in ("ii", "style"):
        if name not in options:
            yield ("pragma-required", f"'{name}' is always written (its default varies)")
    if "rewind" in options and options.get("style") != "stp":
        yield ("pragma-exclusive", "rewind is only legal with style=stp")


def _partition(options: dict[str, str]) -> Iterator[Problem]:
    way = options.get("type", "complete")
    if way == "complete" and "factor" in options:
        yield ("pragma-value", "complete takes no factor")
    if way != "complete" and "factor" not in options:
        yield ("pragma-required", f"{way} needs a factor")


def _pair(name: str, impl: str | None, table: dict[str, frozenset[str]]) -> Iterator[Problem]:
    if impl is None:
        yield ("pragma-required", "'impl' is always written")
    elif impl.lower() not in table[name.lower()]:
        yield ("pragma-value", f"{name} cannot be made of {impl}")


def _interface(options: dict[str, str]) -> Iterator[Problem]:
    mode, port = options.get("mode", ""), options.get("port", "")
    if mode == "m_axi":
        for name in ("offset", "bundle", "depth"):
            if name not in options:
                yield ("pragma-required", f"m_axi always states '{name}'")
        if options.get("offset", "slave") != "slave":
            yield ("pragma-value", "m_axi needs offset=slave (the host sets the address)")
        width = options.get("max_widen_bitwidth", "0")
        if width.isdigit() and int(width) & (int(width) - 1):
            yield ("pragma-value", "max_widen_bitwidth is 0 or a power of two")
    if mode.startswith("ap_ctrl") and port != "return":
        yield ("pragma-value", f"{mode} belongs to port=return")


def _scope(pragma: Pragma, compound: Node | None, entries: set[int]) -> Iterator[Problem]:
    kind = KINDS[pragma.kind]
    scope = scope_of(compound)
    if scope not in kind.scopes:
        wanted = " or ".join(sorted(kind.scopes))
        yield ("pragma-scope", f"stands in scope '{scope}', must be directly in a {wanted} body")
    elif kind.top_only:
        owner = None if compound is None else compound.parent
        if owner is None or owner.start not in entries:
            yield ("pragma-scope", 'belongs to a top function (extern "C")')


def _resolve(source: Source, pragma: Pragma, chain: list[Node], options: dict[str, str]) -> Iterator[Problem]:
    kind = kind_of(pragma.kind, options.get("mode"))
    if kind is None:
        return
    for option in kind.options:
        text = options.get(option.name)
        if text is None:
            continue
        if option.form == VAR:
            for name in text.split(","):
                if name == "return" and pragma.kind == "interface":
                    continue
                problem = scopes.resolve_variable(source, chain, pragma.offset, name)
                if problem:
                    yield ("pragma-name", f"{option.name}={name}: {problem}")
        elif option.form == INT:
            yield from _integer(source, pragma, chain, option.name)


def _integer(source: Source, pragma: Pragma, chain: list[Node], name: str) -> Iterator[Problem]:
    words = next((a.value for a in pragma.arguments if a.name == name), None) or ()
    problem = scopes.integer_problem(source, chain, pragma.offset, words)
    if problem:
        yield ("pragma-integer", f"{name}={''.join(words)}: {problem}")
        return
    least = 0 if name == "dim" else 1
    if name in ("ii", "factor", "dim", "max", "depth", "limit") and len(words) == 1:
        text = words[0].rstrip("uUlL")
        if text.isdigit() and int(text) < least:
            yield ("pragma-value", f"{name}={text} must be at least {least}")
