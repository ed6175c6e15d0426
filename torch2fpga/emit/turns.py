# SPDX-License-Identifier: Apache-2.0
"""Text of processes that go through the turns of a launch, where a design generates tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch2fpga.emit.layout import Call, listed

#: numbers of a launch: sequences, rows, and where tokens are generated rows of the cache and turns
LAUNCH = ("batch", "seq", "past", "turns")
#: what stands in the loop for a number of the turn
OF_TURN = {"seq": "t2f::turn_rows(turn, seq)", "past": "t2f::turn_past(turn, seq, past)"}
#: numbers of the launch behind one of the turn
NEEDS = {"seq": ("seq",), "past": ("seq", "past"), "turn": ()}


def launch_numbers(arguments: Sequence[str]) -> list[str]:
    """Numbers of the launch, in order, that a loop over turns around a call with these arguments needs."""
    used = {"turns", *(n for a in arguments for n in NEEDS.get(a, (a,)))}
    return [name for name in LAUNCH if name in used]


@dataclass(frozen=True)
class Turns:
    """A process of its own around another one, which is called once a turn.

    Attributes:
        call: of the process.
        head: its parameter list.
        body: the call in the loop.
        comment: module path.
        most: turns a launch, at most.
    """

    call: Call
    head: str
    body: str
    comment: str
    most: int


def turns_of(call: Call, types: Mapping[str, str], most: int) -> Turns:
    """The loop over turns around a call.

    Args:
        types: argument -> its declaration as a parameter.
    """
    numbers = launch_numbers(call.arguments)
    objects = [a for a in call.arguments if a in types]
    name = f"{call.name}_turns"
    head = listed(f"static void {name}", [*(types[o] for o in objects), *(f"int {n}" for n in numbers)], " {")
    inside = Call(call.name, call.function, tuple(OF_TURN.get(a, a) for a in call.arguments))
    outside = Call(call.name, name, (*objects, *numbers), call.comment)
    return Turns(outside, head, inside.statement(4), call.comment, most)
