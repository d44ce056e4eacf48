"""The options of a built-in model: declared like the job file's sections, checked before anything is built.

@dataclass(frozen=True, kw_only=True)
class Options(Section):
    hidden: tuple[int, ...] = option(Wholes(), "units of each hidden layer", default=(128, 128))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from thalweg_proto.errors import Problem
from thalweg_proto.job.doubt import in_doubt
from thalweg_proto.job.kinds import Kind, MismatchError, Whole, nearest
from thalweg_proto.job.options import Section, options_in
from thalweg_proto.job.parsing import describe

S = TypeVar("S", bound=Section)

SIZE_MAX = 2**20  # of one layer: a slip of the keyboard must not ask for a petabyte
LAYERS_MAX = 256


@dataclass(frozen=True, kw_only=True)
class Wholes:
    """A list of whole numbers, at least 1 each, with a number of items in [count_min, count_max]."""

    count_min: int = 0
    count_max: int = LAYERS_MAX
    example: str = "[128, 64]"

    @property
    def expected(self) -> str:
        """What is taken, in words."""
        return f"a list of whole numbers from 1 to {SIZE_MAX}, such as {self.example}"

    def read(self, value: object, folder: Path) -> tuple[int, ...]:
        """The numbers as a tuple. Raises MismatchError."""
        if not isinstance(value, list | tuple) or not self.count_min <= len(value) <= self.count_max:
            raise MismatchError
        return tuple(Whole(minimum=1, maximum=SIZE_MAX).read(number, folder) for number in value)


def read_options(declared: type[S], table: Mapping[str, Any]) -> tuple[S, list[Problem], frozenset[str]]:
    """The options of a built-in model, defaults filled in; every mistake among them; and the names of those not right.

    What is not right is wrong, or in doubt (see `in_doubt`), and has its default: a caller can go on to find more, in
    what is right.
    """
    known = options_in(declared)
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in table.items():
        if key not in known:
            hint = _alternatives(key, [*known])
            problems.append(Problem(f"model.{key}", "a known option", describe(value), hint))
        elif problem := _read(key, value, known[key].kind, values):
            problems.append(problem)
    doubt = in_doubt({"": table}, {"": known}, Path())
    return declared(**values), problems, doubt | (table.keys() - values.keys())


def _read(key: str, value: object, kind: Kind, values: dict[str, Any]) -> Problem | None:
    try:
        values[key] = kind.read(value, Path())
    except MismatchError as mismatch:
        return Problem(f"model.{key}", kind.expected, describe(value), str(mismatch))
    return None


def _alternatives(key: str, known: list[str]) -> str:
    return nearest(key, known) or (f"options: {', '.join(known)}" if known else "this model has no options")
