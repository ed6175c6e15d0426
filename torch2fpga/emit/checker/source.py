# SPDX-License-Identifier: Apache-2.0
"""One file to check: its text, its tree, its pragmas (also those from macros) and its includes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from torch2fpga.emit.checker.syntax import FUNCTIONS, LOOPS, Node, Token, Unit

PIPELINE_MACRO = "T2F_PIPELINE"
PROCESS_MACRO = "T2F_PROCESS"
END_MACRO = "T2F_DATAFLOW_END"
INTRODUCERS = ("HLS", "AP", "AUTOPILOT")
# After these a value goes on, whatever the next token is.
_JOINS = frozenset(
    [
        "::",
        ".",
        "->",
        "+",
        "-",
        "*",
        "/",
        "%",
        "<<",
        ">>",
        "&",
        "|",
        "^",
        "~",
        "!",
        "<",
        ">",
        "<=",
        ">=",
        "==",
        "!=",
        "&&",
        "||",
        "?",
        ":",
        "(",
        "[",
        "{",
        ",",
    ]
)
_CONTINUES = _JOINS | frozenset([")", "]", "}"])


@dataclass(frozen=True)
class Argument:
    """`name`, or `name=value` with the value as tokens."""

    name: str
    value: tuple[str, ...] | None

    @property
    def text(self) -> str:
        return "".join(self.value or ())


@dataclass(frozen=True)
class Pragma:
    """A `#pragma HLS`, a `_Pragma("HLS ...")` or a T2F_PIPELINE."""

    introducer: str
    kind: str
    arguments: tuple[Argument, ...]
    offset: int
    line: int
    problem: str = ""

    def value(self, name: str) -> str | None:
        """The text of an option, None where it is absent; "" for a flag."""
        for argument in self.arguments:
            if argument.name == name:
                return argument.text
        return None

    def variables(self, name: str = "variable") -> list[str]:
        """The names of a variable list, without address signs."""
        value = self.value(name)
        return [part.lstrip("&*") for part in value.split(",")] if value else []


@dataclass(frozen=True)
class Include:
    """An #include line of the synthesis path."""

    target: str
    line: int


def _split_arguments(words: list[str]) -> tuple[tuple[Argument, ...], str]:
    arguments: list[Argument] = []
    at = 0
    while at < len(words):
        name = words[at]
        at += 1
        if not (name[0].isalpha() or name[0] == "_"):
            return tuple(arguments), f"'{name}' where an option name was expected"
        if at >= len(words) or words[at] != "=":
            arguments.append(Argument(name.lower(), None))
            continue
        at += 1
        value: list[str] = []
        while at < len(words) and _goes_on(value, words[at]):
            value.append(words[at])
            at += 1
        if not value:
            return tuple(arguments), f"'{name}=' has no value"
        arguments.append(Argument(name.lower(), tuple(value)))
    return tuple(arguments), ""


def _goes_on(value: list[str], word: str) -> bool:
    if not value:
        return word != "="
    depth = sum(part in "([{" for part in value) - sum(part in ")]}" for part in value)
    return depth > 0 or value[-1] in _JOINS or word in _CONTINUES


def make_pragma(introducer: str, words: list[str], offset: int, line: int) -> Pragma:
    """Split the words behind `HLS` into kind and options."""
    if not words:
        return Pragma(introducer, "", (), offset, line, "no pragma kind")
    arguments, problem = _split_arguments(words[1:])
    return Pragma(introducer, words[0].lower(), arguments, offset, line, problem)


class Source:
    """A file of a unit, with everything that rules ask about it."""

    def __init__(self, unit: Unit, path: str, label: str, data: bytes) -> None:
        self.unit = unit
        self.path = path
        self.label = label
        self.data = data
        self.pragmas: list[Pragma] = []
        self.includes: list[Include] = []
        self.macros: list[Token] = []
        self._scan()

    @cached_property
    def top(self) -> list[Node]:
        return self.unit.nodes(self.path)

    @cached_property
    def nodes(self) -> list[Node]:
        """Every node of the file."""
        return [node for root in self.top for node in root.walk()]

    @cached_property
    def functions(self) -> list[Node]:
        """Functions with a body."""
        return [node for node in self.nodes if node.kind in FUNCTIONS and node.body is not None]

    @cached_property
    def entries(self) -> list[Node]:
        """Functions with C linkage: what becomes a kernel."""
        return [
            node
            for node in self.functions
            if node.kind == "FUNCTION_DECL" and node.cursor.mangled_name == node.spelling
        ]

    def enclosing(self, offset: int) -> list[Node]:
        """The chain of nodes around an offset, outermost first."""
        chain: list[Node] = []
        candidates = self.top
        while candidates:
            inside = next((n for n in candidates if n.start <= offset < n.end), None)
            if inside is None:
                break
            chain.append(inside)
            candidates = inside.children
        return chain

    @cached_property
    def pragma_owners(self) -> list[tuple[Pragma, list[Node], Node | None]]:
        """Each pragma with its chain and the compound statement directly around it."""
        found = []
        for pragma in self.pragmas:
            chain = self.enclosing(pragma.offset)
            found.append((pragma, chain, _compound(chain)))
        return found

    @cached_property
    def _by_compound(self) -> dict[int, list[Pragma]]:
        table: dict[int, list[Pragma]] = {}
        for pragma, _, compound in self.pragma_owners:
            if compound is not None:
                table.setdefault(compound.start, []).append(pragma)
        return table

    def pragmas_in(self, compound: Node | None) -> list[Pragma]:
        """The pragmas that stand directly in a compound statement."""
        return [] if compound is None else self._by_compound.get(compound.start, [])

    def macro_at(self, offset: int) -> str:
        """The name of the T2F macro whose expansion begins at an offset."""
        return next((token.text for token in self.macros if token.offset == offset), "")

    def _scan(self) -> None:
        skipped = self.unit.skipped(self.path)
        tokens = self.unit.tokens(self.path, 0, len(self.data))
        pending = next(tokens, None)
        while pending is not None:
            if pending.text == "#" and self._starts_line(pending.offset):
                line_end = self._logical_end(pending.offset)
                words, pending = _take_line(tokens, line_end)
                if words and words[0].offset not in skipped:
                    self._directive(words, line_end)
                continue
            if pending.offset not in skipped:
                self._word(pending, tokens)
            pending = next(tokens, None)

    def _directive(self, words: list[Token], line_end: int) -> None:
        first = words[0]
        texts = [word.text for word in words]
        if texts[0] == "pragma" and texts[1:2] and texts[1] in INTRODUCERS:
            self.pragmas.append(make_pragma(texts[1], texts[2:], first.offset, first.line))
        elif texts[0] == "include":
            raw = self.data[first.offset + len("include") : line_end].decode(errors="replace")
            self.includes.append(Include(raw.split("//")[0].strip(), first.line))

    def _word(self, token: Token, tokens: Iterator[Token]) -> None:
        if token.text == PIPELINE_MACRO:
            inside = _parenthesised(tokens)
            words = ["pipeline", "II", "=", *inside, "style", "=", "flp"]
            self.pragmas.append(make_pragma("HLS", words, token.offset, token.line))
        elif token.text == "_Pragma":
            text = "".join(_parenthesised(tokens))
            words = str(ast.literal_eval(text) if text.startswith('"') else "").split()
            if words[:1] and words[0] in INTRODUCERS:
                plain = " ".join(words[1:]).replace("=", " = ").split()
                self.pragmas.append(make_pragma(words[0], plain, token.offset, token.line))
        elif token.text in (PROCESS_MACRO, END_MACRO):
            self.macros.append(token)

    def _starts_line(self, offset: int) -> bool:
        return not self.data[self.data.rfind(b"\n", 0, offset) + 1 : offset].strip()

    def _logical_end(self, offset: int) -> int:
        end = offset
        while True:
            end = self.data.find(b"\n", end)
            if end < 0:
                return len(self.data)
            if not self.data[:end].endswith((b"\\", b"\\\r")):
                return end
            end += 1


def _take_line(tokens: Iterator[Token], end: int) -> tuple[list[Token], Token | None]:
    words: list[Token] = []
    for token in tokens:
        if token.offset >= end:
            return words, token
        words.append(token)
    return words, None


def _parenthesised(tokens: Iterator[Token]) -> list[str]:
    depth = 0
    inside: list[str] = []
    for token in tokens:
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        if depth == 0:
            break
        inside.append(token.text)
    return inside[1:]


def _compound(chain: list[Node]) -> Node | None:
    """The innermost compound statement, unless a loop without braces stands inside it."""
    for node in reversed(chain):
        if node.kind == "COMPOUND_STMT":
            return node
        if node.kind in LOOPS or node.kind == "IF_STMT":
            return None
    return None


def scope_of(compound: Node | None) -> str:
    """ "function", "loop" or "region": what a compound statement is the body of."""
    if compound is None or compound.parent is None:
        return "none"
    owner = compound.parent.kind
    if owner in FUNCTIONS or owner == "LAMBDA_EXPR":
        return "function"
    return "loop" if owner in LOOPS else "region"
