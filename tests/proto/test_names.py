"""Names that are safe."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg_proto.names import is_safe


@pytest.mark.parametrize(
    "name", ["a/b", "/", "..", "a..b", "a\\b", "a\nb", "\x00", "\x1b[2J", "\x7f", "\u202e", "\ud800"]
)
def test_what_leads_elsewhere_or_cannot_be_seen_is_not_safe(name):
    """Paths, control characters, and those that turn the direction of a line."""
    assert not is_safe(name)


@pytest.mark.parametrize("name", ["mnist", "mnist-1a2b", "a.b", "\N{WATER WAVE}", "a b"])
def test_names_are_safe(name):
    """In any script."""
    assert is_safe(name)


@given(name=st.text(min_size=1))
def test_a_safe_name_stays_in_its_folder(name):
    """Whatever it is, as a part of a file name it leads nowhere else."""
    if is_safe(name):
        assert PurePosixPath("folder", f"x{name}").parent == PurePosixPath("folder")
