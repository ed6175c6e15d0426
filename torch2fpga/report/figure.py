# SPDX-License-Identifier: Apache-2.0
"""What the pictures of a plan share."""

from __future__ import annotations

from collections.abc import Sequence

from torch2fpga.report.describe import FAMILIES
from torch2fpga.report.layout import number_text

#: width of a character of a legend's text, and of the sample and the space beside it
CHARACTER, SAMPLE = 6.0, 38.0


def clipped(text: str, room: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


def spread(texts: Sequence[str]) -> list[str]:
    """Where the entries of a legend begin, side by side, and where the next one would."""
    places = [0.0]
    for text in texts:
        places.append(places[-1] + CHARACTER * len(text) + SAMPLE)
    return [number_text(x) for x in places]


def family_legend() -> tuple[list[tuple[str, str, str]], str]:
    """(place, class, text) of every family of stages, and the place behind them."""
    places = spread([text for text, _ in FAMILIES.values()])
    found = [(x, key, text) for x, (key, (text, _)) in zip(places, FAMILIES.items(), strict=False)]
    return found, places[-1]
