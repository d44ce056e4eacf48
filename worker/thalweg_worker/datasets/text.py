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
  of the same array, one character apart. Up to IN_MEMORY_BYTES_MAX they travel to the workers, so that no other host
  needs the file. Beyond, each host makes them once, chunk by chunk, in its cache (cache.py), and maps them.
- The file is UTF-8, with or without a byte order mark; line ends stay as they are.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import InputError, Problem
from thalweg_worker.datasets.cache import CachedArrays, cache_folder, digest, present_state
from thalweg_worker.datasets.labels import CLASSES_MAX
from thalweg_worker.datasets.source import Source
from thalweg_worker.datasets.stored import Array, ArrayPart, Place, StoredArray

CHUNK_BYTES = 1 << 20
IN_MEMORY_BYTES_MAX = 64 << 20
CODE_POINTS = 0x110000  # of Unicode
CHARACTERS_SHOWN_MAX = 10


def read_text(field: str, path: str, context: int) -> Source:
    """Windows of `context` characters, and those one further on, as places in the file's own vocabulary.

    Raises InputError where the file is not UTF-8, too short for one window, or has one distinct character or too many;
    or where there is no room in the cache for one that is large.
    """
    size = os.stat(path).st_size
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
    text = Text(field=field, path=path, size=size, count=count, vocabulary=vocabulary, owner=path)
    return text.source(context)


def in_vocabulary(second: Source, first: Text) -> Source:
    """A second text with places in the vocabulary of the first. Raises InputError where it has other characters."""
    own = second.text
    assert own is not None
    unknown = own.vocabulary[~np.isin(own.vocabulary, first.vocabulary)]
    if len(unknown):
        shown = ", ".join(_shown(int(code)) for code in unknown[:CHARACTERS_SHOWN_MAX])
        more = f" and {len(unknown) - CHARACTERS_SHOWN_MAX} others" if len(unknown) > CHARACTERS_SHOWN_MAX else ""
        found = f"{shown}{more}; the first at character {own.first_of(unknown)}"
        hint = "training never sees them; take them out, or put them into the training text, too"
        raise InputError([Problem(second.field, "only characters that data.train has, too", found, hint)])
    return replace(own, vocabulary=first.vocabulary, owner=first.path).source(second.x.array.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Text:
    """A file as it was when the job was read; the same for each host that sees it.

    field:      what problems are named after
    size:       in bytes
    count:      in characters
    vocabulary: code points, sorted; what the file has, and perhaps others
    owner:      path of the text whose vocabulary that is
    """

    field: str
    path: str
    size: int
    count: int
    vocabulary: Array
    owner: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if len(self.vocabulary) <= 256 else np.uint16)

    def source(self, context: int) -> Source:
        """Windows of `context` characters. Raises InputError where there is no room for the tokens."""
        shape = ((self.count - 1) // context, context)
        places: list[Place]
        if self.count * self.dtype.itemsize <= IN_MEMORY_BYTES_MAX:
            whole, end = np.empty(self.count, self.dtype), 0
            for tokens in self._tokens():
                whole[end : end + len(tokens)] = tokens
                end += len(tokens)
            places = [ArrayPart(whole=whole, begin=begin, shape=shape) for begin in (0, 1)]
        else:
            cache = str(cache_folder(os.environ))
            places = [TokensPart(text=self, cache=cache, begin=begin, shape=shape) for begin in (0, 1)]
        x, y = map(StoredArray.of, places)
        return Source(field=self.field, field_y=self.field, x=x, y=y, text=self)

    def mapped(self, cache: str) -> Array:
        """All tokens, (count,), mapped; made before, where this host has not yet. InputError."""
        state = present_state(self.field, Path(self.path), self.size)
        arrays = CachedArrays(
            field=self.field,
            what="its characters are numbered",
            cache=cache,
            group=digest(self.path, self.owner),
            state=digest(state, self.vocabulary.tobytes()),
            arrays={"tokens": (self.dtype, (self.count,))},
        )
        return arrays.open("tokens", self._write)

    def first_of(self, codes: Array) -> int:
        """The place of the first character that is one of `codes`, of which there is one."""
        begin = 0
        for some in _code_points(self.field, self.path):
            found = np.flatnonzero(np.isin(some, codes))
            if len(found):
                return begin + int(found[0])
            begin += len(some)
        return begin

    def _write(self, append: Mapping[str, Callable[[Array], None]]) -> None:
        for tokens in self._tokens():
            append["tokens"](tokens)

    def _tokens(self) -> Iterator[Array]:
        """Chunk by chunk, `count` in all. InputError where the file is another one by now."""
        table = np.full(CODE_POINTS, CLASSES_MAX, np.int32)
        table[self.vocabulary] = np.arange(len(self.vocabulary))
        left = self.count
        for codes in _code_points(self.field, self.path):
            tokens = table[codes[:left]]  # what was appended since is not read
            if len(tokens) and tokens.max() == CLASSES_MAX:
                raise self._changed("other characters")
            yield tokens.astype(self.dtype)
            left -= len(tokens)
        if left:
            raise self._changed(f"{self.count - left} characters")

    def _changed(self, found: str) -> InputError:
        return InputError([Problem(self.field, f"the {self.count} characters that it had", found, "it has changed")])


@dataclass(frozen=True, kw_only=True, eq=False)
class TokensPart:
    """Tokens of a large text that lie together, as a `Place`: as `ArrayPart`, mapped."""

    text: Text
    cache: str
    begin: int
    shape: tuple[int, ...]

    def open(self) -> Array:
        """A view."""
        return ArrayPart(whole=self.text.mapped(self.cache), begin=self.begin, shape=self.shape).open()


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
