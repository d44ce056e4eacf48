"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a shared machine may be slow at any moment, and a test that fails for it says nothing. The same examples
# each time: what passed here passes elsewhere.
settings.register_profile("thalweg", deadline=None, derandomize=True)
settings.load_profile("thalweg")
