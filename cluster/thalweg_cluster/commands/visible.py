"""What somebody's job has printed, as it may go to a terminal: what would move the cursor, change colours or the title,
or answer for the person at the keyboard is shown, and does nothing."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator


def visible(text: str) -> str:
    r"""`text` with newlines, tabs and what can be printed as they are; of all else the escape: "\x1b[31m", "\u202e"."""
    if text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def visible_pieces(pieces: Iterable[bytes]) -> Iterator[str]:
    """Of UTF-8 that comes in pieces, cut anywhere; bytes that are none become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield visible(decoder.decode(piece))
    yield visible(decoder.decode(b"", final=True))
