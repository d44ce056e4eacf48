"""What a value of the job file may be.

A kind says in words what it takes (`expected`) and turns a TOML value into its final type (`read`), or raises
`MismatchError`. Ranges and choices are data, so that messages and the reference page come from one place.

A boolean is not a number here, although Python says so; a whole number is taken where a number is wanted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

from thalweg_proto.names import SAFE, holds_control, is_safe

WHOLE_MAX = 2**63 - 1
TEXT_BYTES_MAX = 4096  # PATH_MAX of Linux
NAME_BYTES_MAX = 128  # a name becomes part of file names, which end at 255 bytes


class MismatchError(Exception):
    """A value is not of the kind; the text is a hint, or empty where `expected` says it all."""


class Kind(Protocol):
    """One kind of value."""

    @property
    def expected(self) -> str:
        """What is taken, in words: "a whole number >= 1"."""

    def read(self, value: object, folder: Path) -> Any:
        """The value in its final type; relative paths start at `folder`. Raises MismatchError."""


def closest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """The known word that `word` is spelt most like; "" where none is near."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return near[0] if near else ""


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint that names the known word closest to `word`; "" where none is near."""
    near = closest(word, known)
    return f'did you mean "{near}"?' if near else ""


def one_of(words: list[str] | tuple[str, ...]) -> str:
    """`["a", "b", "c"]` as "a, b or c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A whole number in [minimum, maximum], both included."""

    minimum: int
    maximum: int = WHOLE_MAX

    @property
    def expected(self) -> str:
        upper = f"from {self.minimum} to {self.maximum}"
        return f"a whole number {upper if self.maximum != WHOLE_MAX else f'>= {self.minimum}'}"

    def read(self, value: object, folder: Path) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise MismatchError
        if not self.minimum <= value <= self.maximum:
            raise MismatchError(f"the largest is {self.maximum}" if value > self.maximum else "")
        return value


def function_in(text: str) -> tuple[str, str] | None:
    """Path and name of "FILE.py:FUNCTION"; None where `text` is something else."""
    path, _, name = text.rpartition(":")
    return (path, name) if path.endswith(".py") and name.isidentifier() else None


@dataclass(frozen=True, kw_only=True)
class Number:
    """A finite number in [minimum, below), or in (above, below)."""

    minimum: float | None = None
    above: float | None = None
    below: float = math.inf

    @property
    def expected(self) -> str:
        lower = f">= {self.minimum:g}" if self.minimum is not None else f"> {self.above:g}"
        return f"a number {lower}" + (f" and < {self.below:g}" if self.below < math.inf else "")

    def read(self, value: object, folder: Path) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MismatchError
        try:
            number = float(value)
        except OverflowError:
            raise MismatchError("it does not fit into a float") from None
        # NaN fails every comparison, and infinity is not below infinity.
        high_enough = number >= self.minimum if self.minimum is not None else number > (self.above or 0.0)
        if not (high_enough and number < self.below):
            raise MismatchError
        return number


FROM_0_TO_1 = Number(minimum=0, below=1)


@dataclass(frozen=True)
class Numbers:
    """A list of `count` numbers of one kind; None: of one or more."""

    count: int | None
    each: Number

    @property
    def expected(self) -> str:
        numbers = "numbers" if self.count is None else f"{self.count} numbers"
        return f"a list of {numbers}, each {self.each.expected}"

    def read(self, value: object, folder: Path) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or not value or self.count not in (None, len(value)):
            raise MismatchError
        return tuple(self.each.read(number, folder) for number in value)


@dataclass(frozen=True)
class Bounds:
    """The least and the most: a list of two whole numbers."""

    each: Whole

    @property
    def expected(self) -> str:
        return f"[least, most], each {self.each.expected}"

    def read(self, value: object, folder: Path) -> tuple[int, int]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise MismatchError
        least, most = (self.each.read(number, folder) for number in value)
        if least > most:
            raise MismatchError("the least comes first")
        return least, most


@dataclass(frozen=True)
class Flag:
    """true or false."""

    expected: str = "true or false"

    def read(self, value: object, folder: Path) -> bool:
        if not isinstance(value, bool):
            raise MismatchError
        return value


@dataclass(frozen=True)
class Choice:
    """One word of a list."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return one_of([f'"{word}"' for word in self.words])

    def read(self, value: object, folder: Path) -> str:
        if not isinstance(value, str):
            raise MismatchError
        if value not in self.words:
            raise MismatchError(nearest(value, self.words) or nearest(value.lower(), self.words))
        return value


@dataclass(frozen=True)
class Text:
    """Text that is not empty and has no control characters."""

    expected: str = "text"

    def read(self, value: object, folder: Path) -> str:
        if not isinstance(value, str) or not value:
            raise MismatchError
        if holds_control(value):
            raise MismatchError("it holds a control character")
        if len(value.encode()) > TEXT_BYTES_MAX:
            raise MismatchError(f"it is longer than {TEXT_BYTES_MAX} bytes")
        return value


@dataclass(frozen=True)
class Name:
    """Text that is safe as a part of a file name."""

    expected: str = f'{SAFE}, and not beginning with "." or "-"'

    def read(self, value: object, folder: Path) -> str:
        name = Text().read(value, folder)
        if not is_safe(name) or name[0] in ".-" or name != name.strip():
            raise MismatchError
        if len(name.encode()) > NAME_BYTES_MAX:
            raise MismatchError(f"it is longer than {NAME_BYTES_MAX} bytes")
        return name


@dataclass(frozen=True)
class FilePath:
    """A path relative to the folder of the job file; read as an absolute one."""

    expected: str = "a path"
    built_in: tuple[str, ...] = ()  # names that stand for something else than a file

    def read(self, value: object, folder: Path) -> str:
        text = Text().read(value, folder)
        return text if text in self.built_in else os.path.abspath(folder / text)


@dataclass(frozen=True)
class ArrayPair:
    """Two files, one with the samples and one with the labels: absolute paths."""

    x: str
    y: str


@dataclass(frozen=True)
class PathPair:
    """`{ x = "...", y = "..." }`."""

    expected: str = '{ x = "...", y = "..." }'

    def read(self, value: object, folder: Path) -> ArrayPair:
        if not isinstance(value, Mapping) or set(value) != {"x", "y"}:
            raise MismatchError
        return ArrayPair(x=FilePath().read(value["x"], folder), y=FilePath().read(value["y"], folder))


@dataclass(frozen=True)
class ModelName:
    """A built-in model, or "file.py:function" with the file relative to the job file."""

    built_in: tuple[str, ...]

    @property
    def expected(self) -> str:
        return one_of([*(f'"{name}"' for name in self.built_in), '"FILE.py:FUNCTION"'])

    def read(self, value: object, folder: Path) -> str:
        text = Text().read(value, folder)
        if text in self.built_in:
            return text
        named = function_in(text)
        if named is None:
            raise MismatchError(nearest(text, self.built_in))
        path, function = named
        return f"{os.path.abspath(folder / path)}:{function}"


@dataclass(frozen=True)
class Either:
    """The first of several kinds that takes the value."""

    kinds: tuple[Kind, ...]

    @property
    def expected(self) -> str:
        return one_of([kind.expected for kind in self.kinds])

    def read(self, value: object, folder: Path) -> Any:
        first, *others = self.kinds
        try:
            return first.read(value, folder)
        except MismatchError as mismatch:
            if not others:
                raise
            try:
                return Either(tuple(others)).read(value, folder)
            except MismatchError as other:
                raise MismatchError(str(mismatch) or str(other)) from None
