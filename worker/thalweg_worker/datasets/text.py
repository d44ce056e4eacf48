"""Read .txt and .md: characters as tokens, cut into windows; what is to be predicted is each next character.

    text     a b c d e f g h          context = 3
    samples  [a b c] [d e f]          x: (N, context)
    targets  [b c d] [e f g]          y: (N, context)

Rules:

- The vocabulary is the sorted distinct characters of the training file; a token is a place in it.
- Windows do not overlap: sample i begins at character i * context. So each character is predicted once an epoch, and
  where windows are held out by chance, as rows of other files are, none that is predicted there is predicted in
  training. (Windows that overlap would have the same characters as targets on both sides.) What is left at the end and
  fills no window is not used.
- Tokens are kept once, in one byte each, or two where there are more than 256 characters: samples and targets are views
  of the same array, one character apart.
- The file is UTF-8, with or without a byte order mark; line ends stay as they are.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.labels import CLASSES_MAX
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import Array, ArrayPart, StoredArray

CHUNK_BYTES = 1 << 20
CODE_POINTS = 0x110000  # of Unicode
CHARACTERS_SHOWN_MAX = 10


def read_text(field: str, path: str, context: int) -> Source:
    """Windows of `context` characters, and those one further on, as places in the file's own vocabulary.

    Raises InputError where the file is not UTF-8, too short for one window, or has one distinct character or too many.
    """
    seen, count = np.zeros(CODE_POINTS, np.bool_), 0
    for codes in _code_points(field, path):
        seen[codes] = True
        count += len(codes)
    if count < context + 1:
        expected = f"at least {context + 1} characters (data.context and one more)"
        raise InputError([Problem(field, expected, f"{count} characters" if count else "an empty file")])
    vocabulary = np.flatnonzero(seen).astype(np.uint32)
    if not 2 <= len(vocabulary) <= CLASSES_MAX:
        expected = f"from 2 to {CLASSES_MAX} distinct characters"
        raise InputError([Problem(field, expected, str(len(vocabulary)))])
    table = np.zeros(CODE_POINTS, np.uint8 if len(vocabulary) <= 256 else np.uint16)
    table[vocabulary] = np.arange(len(vocabulary))
    tokens, end = np.zeros(count, table.dtype), 0
    for codes in _code_points(field, path):
        if end + len(codes) > count:
            break  # the file has grown since; what was counted is read
        tokens[end : end + len(codes)] = table[codes]
        end += len(codes)
    return _source(field, tokens, context, vocabulary)


def in_vocabulary(second: Source, vocabulary: Array) -> Source:
    """A second text with places in the vocabulary of the first. Raises InputError where it has other characters."""
    own, part = second.vocabulary, second.x.file
    assert own is not None
    assert isinstance(part, ArrayPart)
    unknown = np.flatnonzero(~np.isin(own, vocabulary))
    if len(unknown):
        first = int(np.argmax(np.isin(part.whole, unknown)))
        shown = ", ".join(_shown(int(code)) for code in own[unknown[:CHARACTERS_SHOWN_MAX]])
        more = f" and {len(unknown) - CHARACTERS_SHOWN_MAX} others" if len(unknown) > CHARACTERS_SHOWN_MAX else ""
        found = f"{shown}{more}; the first at character {first}"
        hint = "training never sees them; take them out, or put them into the training text, too"
        raise InputError([Problem(second.field, "only characters that data.train has, too", found, hint)])
    places = np.searchsorted(vocabulary, own).astype(np.uint8 if len(vocabulary) <= 256 else np.uint16)
    return _source(second.field, places[part.whole], part.shape[1], vocabulary)


def _source(field: str, tokens: NDArray[Any], context: int, vocabulary: Array) -> Source:
    shape = ((len(tokens) - 1) // context, context)
    x, y = (StoredArray.of(ArrayPart(whole=tokens, begin=begin, shape=shape)) for begin in (0, 1))
    return Source(field=field, field_y=field, x=x, y=y, vocabulary=vocabulary)


def _code_points(field: str, path: str) -> Iterator[NDArray[np.uint32]]:
    """The characters of the file in order, in bounded memory."""
    with open(path, "rb") as stream:
        offset, rest = 0, b""
        while True:
            data = stream.read(CHUNK_BYTES)
            part = rest + data
            try:
                text, used = codecs.utf_8_decode(part, "strict", not data)
            except UnicodeDecodeError as error:
                found = f"byte 0x{part[error.start]:02x} at offset {offset + error.start} ({error.reason})"
                raise InputError([Problem(field, "text in UTF-8", found)]) from None
            if offset == 0:
                text = text.removeprefix("\ufeff")
            yield np.frombuffer(text.encode("utf-32-le"), "<u4")
            if not data:
                return
            offset, rest = offset + used, part[used:]


def _shown(code: int) -> str:
    return f"{chr(code)!r} (U+{code:04X})"
