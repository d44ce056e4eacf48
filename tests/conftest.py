"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# The table of faults is a plugin, which must know its options before tests are looked for.
from tests.faults.table import (  # noqa: F401
    pytest_addoption,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_terminal_summary,
    row,
)

# No deadline: a shared machine may be slow at any moment, and a test that fails for it says nothing. The same examples
# each time: what passed here passes elsewhere.
settings.register_profile("thalweg", deadline=None, derandomize=True)
settings.load_profile("thalweg")
