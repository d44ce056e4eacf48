"""The errors of Thalweg.

    ThalwegError
    |-- InputError          the user's input is wrong; nothing was started            exit status 2
    `-- RunError            the run failed                                            exit status 1
        |-- NonFiniteError  a loss, gradient or parameter is NaN or infinite
        |-- WorkerError     a worker raised or died
        |-- ServerError     a server raised or died
        |-- StorageError    a file of the run cannot be written
        |-- LedgerError     the ledger of samples cannot be written, is damaged or contradicts itself
        `-- ProtocolError   a peer sent what its state or the protocol does not allow
            `-- SpoiltError a message is not what was sent

Validators do not raise: they return `Problem`s, so that one `InputError` can report every mistake at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One mistake in the user's input.

    field:    where it is, e.g. "train.batch_size" or "data.train (digits.csv)"
    expected: what would have been right, e.g. "a whole number >= 1"
    found:    what was there, e.g. "0"
    hint:     what to do about it; "" where `expected` says it all
    """

    field: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.field}: expected {self.expected}; found {self.found}{hint}"


class ThalwegError(Exception):
    """Whatever Thalweg raises on purpose."""

    exit_status = 1


class InputError(ThalwegError):
    """The user's input is wrong and nothing was started."""

    exit_status = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        return InputError, (self.problems,)


class RunError(ThalwegError):
    """The run failed after it had started."""


class NonFiniteError(RunError):
    """A loss, gradient or parameter is NaN or infinite; it was not published."""


class WorkerError(RunError):
    """A worker raised or died."""


class ServerError(RunError):
    """A server raised or died."""


class StorageError(RunError):
    """A file of the run cannot be written."""


class LedgerError(RunError):
    """The ledger of samples cannot be written, is damaged or contradicts itself."""


class ProtocolError(RunError):
    """A peer sent what its state or the protocol does not allow."""


class SpoiltError(ProtocolError):
    """A message is not what was sent: it does not fit its checksum. The same one, sent again, may."""


def attempt(problems: list[Problem], read: Callable[[], T]) -> T | None:
    """What `read` returns; None, with its problems added to `problems`, where it raises InputError."""
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None
