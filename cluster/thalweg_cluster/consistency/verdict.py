"""What becomes of a push."""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    ACCEPTED = "accepted"  # it is in the sum, or applied
    DUPLICATE = "duplicate"  # one of the same name was accepted before
    LATE = "late"  # its step ended without it
