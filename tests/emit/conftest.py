# SPDX-License-Identifier: Apache-2.0
"""Options of the emitter's tests: ``pytest tests/emit --update-golden`` writes golden texts anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden texts in tests/golden are compared, or replaced where this option is given."""
    parser.addoption("--update-golden", action="store_true", help="replace tests/golden by what is emitted")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden texts are to be replaced."""
    return bool(request.config.getoption("--update-golden", default=False))
