# SPDX-License-Identifier: Apache-2.0
"""An n-gram model over bytes, interpolated after Witten and Bell: what the small GPT-2 has to beat.

With h a context, h' the same without its first symbol, c(hw) how often w followed h, c(h) their sum and
t(h) how many different w did:

    p(w | h) = (c(hw) + t(h) p(w | h')) / (c(h) + t(h)),    p(w | nothing) = 1 / 256 before any count

(I. Witten, T. Bell, IEEE Transactions on Information Theory 37(4), 1991, method C, interpolated.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
#: stands before a text, as often as the longest context; never predicted
START = 256
SYMBOLS = 257
BYTES = 256


@dataclass(frozen=True)
class Order:
    """Counts of one length n.

    Attributes:
        grams: the different strings of n symbols, each packed into a number, ascending.
        counts: how often each occurs.
        contexts: the different strings of the n - 1 symbols before, packed, ascending.
        totals: how often each context occurs, c(h).
        types: how many different symbols follow it, t(h).
    """

    grams: Integers
    counts: Integers
    contexts: Integers
    totals: Integers
    types: Integers


class NGram:
    """Counts of lengths 1 to ``order``, fitted on texts."""

    def __init__(self, texts: Sequence[bytes], order: int = 5) -> None:
        """Count; about a second a million bytes."""
        if not 1 <= order <= 7:
            raise ValueError(f"an order of {order} symbols does not fit into 64 bits; expected 1 to 7")
        self.order = order
        self.orders = [self._count(packed) for packed in pack(texts, order)]

    @staticmethod
    def _count(packed: Integers) -> Order:
        grams, counts = np.unique(packed, return_counts=True)
        contexts, first = np.unique(grams // SYMBOLS, return_index=True)
        if not len(grams):
            empty = np.zeros(0, np.int64)
            return Order(grams, counts, contexts, empty, empty)
        types = np.diff(np.append(first, len(grams)))
        return Order(grams, counts, contexts, np.add.reduceat(counts, first), types)

    def probabilities(self, text: bytes) -> Floats:
        """p of each byte of a text given the bytes before it; (bytes,)."""
        probability = np.full(len(text), 1 / BYTES)
        for order, packed in zip(self.orders, pack([text], self.order), strict=True):
            seen = _look_up(order.grams, order.counts, packed)
            total = _look_up(order.contexts, order.totals, packed // SYMBOLS)
            types = _look_up(order.contexts, order.types, packed // SYMBOLS)
            known = total > 0
            mixed = (seen + types * probability) / np.maximum(total + types, 1)
            probability = np.where(known, mixed, probability)
        return probability

    def bits_per_byte(self, texts: Sequence[bytes]) -> float:
        """Mean of -log2 p over the bytes of texts."""
        bits = sum(float(-np.log2(self.probabilities(text)).sum()) for text in texts)
        return bits / sum(len(text) for text in texts)


def pack(texts: Sequence[bytes], order: int) -> list[Integers]:
    """For n = 1 to ``order``: the n symbols that end at each byte, as one number; (bytes,) each."""
    start = np.full(order - 1, START, np.int64)
    parts = [part for text in texts for part in (start, np.frombuffer(text, np.uint8).astype(np.int64))]
    symbols = np.concatenate(parts) if parts else start
    ends = np.flatnonzero(symbols != START)
    packed, found = np.zeros(len(ends), np.int64), []
    for back in range(order):
        packed = packed + symbols[ends - back] * SYMBOLS**back
        found.append(packed)
    return found


def _look_up(keys: Integers, values: Integers, wanted: Integers) -> Integers:
    """Value of each wanted key, 0 where there is none; keys ascend."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
