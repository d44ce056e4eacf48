"""What waits to be sent on one stream.

Rules:
  - What is urgent goes first, whenever it was put in: the parameters that the next forward pass reads first, and the
    gradients that lead to them.
  - A message is made when its turn comes. So of all that waits, one message's bytes are in memory; and gRPC takes the
    next one only when the transport has taken the last: its flow control is ours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """An iterator of messages that ends when it is closed; any thread may put, one reads."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, ...], int, Callable[[], T]]] = []
        self._changed = threading.Condition(threading.Lock())
        self._order = count()
        self._closed = False

    def put(self, urgency: tuple[int, ...], make: Callable[[], T]) -> None:
        """What `make` returns is to be sent; of all that waits, the least `urgency` first, then what came first.

        Nothing where the end was said before.
        """
        with self._changed:
            if not self._closed:
                heappush(self._heap, (urgency, next(self._order), make))
                self._changed.notify()

    def close(self) -> None:
        """What was put in before is still sent; nothing after."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def drop(self) -> None:
        """Ends at once; what waits is not sent."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            while not self._heap and not self._closed:
                self._changed.wait()
            if not self._heap:
                raise StopIteration
            make = heappop(self._heap)[2]
        return make()
