# SPDX-License-Identifier: Apache-2.0
"""One generator feeds the reference and the headers: they must be the same numbers."""

from __future__ import annotations

import math

from torch2fpga.simulate import tables


def test_committed_headers_are_what_the_generator_writes() -> None:
    texts = tables.headers()
    assert set(texts) == {"tables.hpp", "activation_tables.hpp"}
    for name, text in texts.items():
        assert (tables.FOLDER / name).read_text() == text, name


def test_tables_are_halves_up_of_the_real_values() -> None:
    assert all(abs(v - 255 * 256 * 2.0 ** (-i / 256)) <= 0.5 for i, v in enumerate(tables.exp2_table()))
    for name, function in tables.FUNCTIONS.items():
        nodes = tables.activation_table(name)
        limit = tables.LIMITS[name]
        assert len(nodes) == 2 * limit * 64 + 1
        assert all(abs(v - function(-limit + i / 64) * 2**14) <= 0.5 for i, v in enumerate(nodes))
    assert all(abs(v - 2**16 * math.sin(i * math.pi / 512)) <= 0.5 for i, v in enumerate(tables.sine_table()))


def test_tails_meet_the_tables() -> None:
    """No step of more than one unit where the table ends."""
    for name, (left, right) in tables.TAILS.items():
        nodes = tables.activation_table(name)
        assert abs(nodes[0] - left * 2**14) <= 1
        assert abs(nodes[-1] - (tables.LIMITS[name] if right is None else right) * 2**14) <= 1


def test_elements_fit_the_types_of_the_headers() -> None:
    assert max(tables.exp2_table()) < 2**16
    assert max(tables.reciprocal_table()) < 2**16 < 2 * min(tables.reciprocal_table()) + 200
    assert max(tables.rsqrt_table()) < 2**16
    assert math.isclose(tables.rsqrt_table()[-1] / 2**16, 0.5, rel_tol=2e-3)
