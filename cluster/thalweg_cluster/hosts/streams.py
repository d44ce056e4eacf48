"""The two directions of one stream between hosts: what waits to be sent, and what is heard.

Rules:
  - What is urgent goes first, whenever it was put in: the parameters that the next forward pass reads first, and the
    gradients that lead to them.
  - A message is made when its turn comes. So of all that waits, one message's bytes are in memory; and gRPC takes the
    next one only when the transport has taken the last: its flow control is ours.
  - Messages are numbered as they go out, and kept until the other side says to have them (numbering.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count

from thalweg_cluster.hosts.answering import parsed
from thalweg_cluster.hosts.numbering import Arrival, Sent, Taken, Told
from thalweg_proto.errors import SpoiltError
from thalweg_proto.v1.stream_pb2 import Envelope, Progress
from thalweg_proto.wire import Make, seal, sealed_number


class Outbox:
    """An iterator of messages that ends when it is closed; any thread may put, one reads."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, ...], int, Make]] = []
        self._changed = threading.Condition(threading.Lock())
        self._order = count()
        self._closed = self._dropped = False
        self._sent = Sent()
        self._told: Told | None = None  # what is to be said of the other direction
        self._ask = False  # whether the other side is to say what it has

    def put(self, urgency: tuple[int, ...], make: Make) -> None:
        """What `make` returns is to be sent; of all that waits, the least `urgency` first, then what came first.

        Nothing where the end was said before.
        """
        with self._changed:
            if not self._closed:
                heappush(self._heap, (urgency, next(self._order), make))
                self._changed.notify()

    def beat(self) -> None:
        """Asks the other side what it has, where that is not known of everything that was sent."""
        with self._changed:
            if self._sent.waiting:
                self._ask = True
                self._changed.notify()

    def tell(self, told: Told) -> None:
        """Says what has come in the other direction."""
        with self._changed:
            self._told = Told(told.taken, told.again or (self._told is not None and self._told.again))
            self._changed.notify()

    def heard(self, told: Told) -> None:
        """The other side says what it has; the rest is sent again where it asks for it."""
        with self._changed:
            self._sent.heard(told)
            self._changed.notify()

    def close(self) -> None:
        """What was put in before is still sent; nothing after."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def drop(self) -> None:
        """Ends at once; what waits is not sent."""
        with self._changed:
            self._closed = self._dropped = True
            self._heap.clear()
            self._changed.notify()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            while (message := self._at_once()) is None:
                if self._heap and (self._closed or not self._sent.full):
                    make = heappop(self._heap)[2]
                    break
                if self._closed:
                    raise StopIteration
                self._changed.wait()
            else:
                return message
        parts = make()
        with self._changed:
            self._sent.keep(parts)
            number = self._sent.number
        return seal(parts, number)

    def _at_once(self) -> bytes | None:
        """What goes before all that waits: how far the stream is, then what is sent again."""
        if self._dropped:
            return None
        if self._told is None and not self._ask:
            repeated = self._sent.again()
            return None if repeated is None else seal(repeated[1], repeated[0])
        taken, again = self._told or (0, False)
        progress = Progress(sent=self._sent.number if self._ask else 0, taken=taken, again=again)
        self._told, self._ask = None, False
        return seal([Envelope(progress=progress).SerializeToString()], 0)


class Inbox:
    """What comes on a stream whose other direction is `back`; one thread hears."""

    def __init__(self, back: Outbox, count: Callable[[str, int], None] = lambda name, by: None) -> None:
        """`count`: is told of messages that are "repeated", "spoilt" or "missing"."""
        self._back = back
        self._count = count
        self._taken = Taken()

    def takes(self, message: bytes) -> bool:
        """Whether a message is the next one, and whole: then it is to be taken in. Of all others nothing is left to do.

        ProtocolError where the next one was asked for too often, or where one that has no number is no Envelope.
        """
        asked, arrival = self._taken.asked, None
        try:
            number = sealed_number(message)
            if number:
                arrival = self._taken.arrived(number)
            else:
                self._hear(parsed(Envelope, message).progress)
        except SpoiltError as error:
            self._taken.ask(str(error))
            self._count("messages_spoilt", 1)
        else:
            self._count("messages_repeated", arrival is Arrival.REPEATED)
            self._count("messages_missing", self._taken.asked - asked)
        due = self._taken.due()
        if due is not None:
            self._back.tell(due)
        return arrival is Arrival.NEXT

    def _hear(self, progress: Progress) -> None:
        self._back.heard(Told(progress.taken, progress.again))
        if progress.sent:
            self._taken.ended(progress.sent)
