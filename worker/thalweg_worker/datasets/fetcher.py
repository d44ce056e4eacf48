"""The thread in which a worker's user data sets are called, ahead of the steps that need their samples.

Rules:

- All calls of a user's code for data are made in one thread, one after another: it need not be safe for threads, and
  what belongs to the thread that made it (a database's connection) stays usable.
- What is asked for goes before what is only expected. Between any two samples the thread may leave one batch for
  another, and nothing that was fetched is fetched again.
- What is expected holds BYTES_MAX of samples at most: beyond, the thread waits until some are taken.
- An exception waits in its batch until somebody asks for that. Of a batch that nobody asks for it is never heard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol, TypeVar

import numpy as np

BYTES_MAX = 256 << 20
T = TypeVar("T")


class Piecewise(Protocol):
    """Work that is done piece by piece.

    key:    what it is known by; the same of two, and only one is done
    nbytes: memory that it holds
    done:   whether nothing is left to do
    """

    @property
    def key(self) -> Hashable: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def done(self) -> bool: ...

    def go_on(self) -> None:
        """Does the next piece."""


class _Task:
    """One that waits for its turn; error: what `go_on` raised."""

    def __init__(self, work: Piecewise) -> None:
        self.work = work
        self.error: BaseException | None = None

    def go_on(self) -> None:
        try:
            self.work.go_on()
        except BaseException as error:  # whatever it is, it is for who asks
            self.error = error

    @property
    def ended(self) -> bool:
        return self.error is not None or self.work.done


class Fetcher:
    """One thread, which begins with the first thing to do. Others may call it at any time."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self._expected: dict[Hashable, _Task] = {}  # in order
        self._asked: list[_Task] = []
        self._now: _Task | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def expect(self, work: Iterable[Piecewise]) -> None:
        """This will probably be asked for next, in this order. What was expected before, and is not again, is dropped;
        what was begun of the rest is kept."""
        with self._changed:
            before = self._expected
            self._expected = {each.key: before.get(each.key) or _Task(each) for each in work}
            self._start()

    def result(self, work: Piecewise) -> Piecewise:
        """`work`, or what was expected under its key, done. Raises what a piece raised. One caller at a time counts on
        the order; any number may wait."""
        with self._changed:
            task = self._expected.pop(work.key, None) or _Task(work)
            self._asked.append(task)
            self._start()
            while not task.ended:
                self._changed.wait()
        if task.error is not None:
            raise task.error
        return task.work

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns, called in the thread. Raises what it raises."""
        call = _Call(function)
        self.result(call)
        return call.returned  # type: ignore[no-any-return]  # of the function's own type

    def close(self) -> None:
        """Ends the thread, after the piece that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="thalweg-fetcher")
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        with np.errstate(all="ignore"):  # what is not finite is named with its index
            while (task := self._next()) is not None:
                task.go_on()

    def _next(self) -> _Task | None:
        """What to go on with; None: nothing any more."""
        with self._changed:
            if self._now is not None and self._now.ended:
                self._changed.notify_all()
            while not self._closed:
                self._asked = [task for task in self._asked if not task.ended]
                self._now = self._asked[0] if self._asked else self._first_expected()
                if self._now is not None:
                    return self._now
                self._changed.wait()
            return None

    def _first_expected(self) -> _Task | None:
        held = 0
        for task in self._expected.values():
            held += task.work.nbytes
            if not task.ended:
                return task if held <= self._bytes_max else None
        return None


class _Call:
    nbytes = 0

    def __init__(self, function: Callable[[], Any]) -> None:
        self.key = object()
        self.done = False
        self.returned: Any = None
        self._function = function

    def go_on(self) -> None:
        self.returned = self._function()
        self.done = True
