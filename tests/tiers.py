"""Which tests run in `make test`, and which in `make test-slow` only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: int) -> list[Any]:
    """Parameters of a test that differ in their circumstances: those at these indices are for `make test`, all for
    `make test-slow` and what runs it."""
    each = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*of, marks=() if i in quick else pytest.mark.slow) for i, of in enumerate(each)]
