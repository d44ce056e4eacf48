"""A few threads that do a task side by side, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Threads:
    """`count` threads, the caller among them; NumPy lets go of the interpreter while it computes.

    They wait in the kernel, not in a loop. Floating-point warnings are off in them.
    """

    def __init__(self, count: int) -> None:
        self._tasks: list[SimpleQueue[Callable[[int], Any] | None]] = [SimpleQueue() for _ in range(count - 1)]
        self._done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(index,), daemon=True, name=f"thalweg-update-{index}")
            for index in range(1, count)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, task: Callable[[int], T]) -> list[T]:
        """The results of task(0), ..., task(count - 1), each in a thread of its own; raises what one raised."""
        for queue in self._tasks:
            queue.put(task)
        with np.errstate(all="ignore"):
            results: list[Any] = [task(0)] + [None] * len(self._tasks)
        failure = None
        for _ in self._tasks:
            index, results[index], error = self._done.get()
            failure = failure or error
        if failure is not None:
            raise failure
        return results

    def close(self) -> None:
        """Ends the threads."""
        for queue in self._tasks:
            queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, index: int) -> None:
        with np.errstate(all="ignore"):
            while (task := self._tasks[index - 1].get()) is not None:
                self._done.put((index, *_outcome(task, index)))


def _outcome(task: Callable[[int], Any], index: int) -> tuple[Any, BaseException | None]:
    """What the task returned, or what it raised."""
    try:
        return task(index), None
    except BaseException as error:
        return None, error
