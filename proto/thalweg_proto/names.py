"""Names that become part of paths, log lines and terminals."""

from __future__ import annotations

import unicodedata

SAFE = 'a name without "/", "\\", ".." or control characters'


def holds_control(text: str) -> bool:
    """Whether a character is none to be seen: Unicode's C* are the control, format, surrogate and unassigned ones."""
    return any(unicodedata.category(character).startswith("C") for character in text)


def is_safe(name: str) -> bool:
    """Whether a name is what `SAFE` says: it leads out of no folder, and does nothing to a terminal or a log."""
    return not ("/" in name or "\\" in name or ".." in name or holds_control(name))
