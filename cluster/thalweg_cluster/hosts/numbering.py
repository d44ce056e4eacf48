"""What each end of a stream between hosts knows of its messages, so that each is taken in once and in order, whatever
is lost, doubled or spoilt on the way. Pure: no socket, no clock, no lock.

    sender: Sent                                      hearer: Taken
    number 7, 8, 9 ->              8 is lost
                                   <- taken 7, again   9 is not the next
    8, 9 again ->                                      taken 7, 8, 9
    number 24 ->                   <- taken 23         every TELL_EVERY messages
    sent 30 (a beat) ->            30 was the last     taken 30, told at once; or asked for again from there on

Rules:
  - A stream loses, doubles or spoils messages; it does not change their order. So whoever hears a number that is not
    the next knows at once that one before it is lost; and of the last one, by the beat.
  - Nobody waits for a clock to send something again: a slow link is none that loses.
  - Bounded: KEPT_MAX messages are kept to be sent again, and the next is asked for ASKED_MAX times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from thalweg_proto.errors import ProtocolError
from thalweg_proto.wire import Bytes

Parts = Sequence[Bytes]

TELL_EVERY = 16
KEPT_MAX = 64
"""Far more than is under way on a link of 1 Gbit/s; what a lossy format makes of them takes memory, others do not."""
ASKED_MAX = 10


class Arrival(Enum):
    """What a message is that came whole."""

    NEXT = auto()
    REPEATED = auto()  # it was there before
    EARLY = auto()  # one before it is missing, and asked for


class Told(NamedTuple):
    """What a hearer tells the sender: all up to number `taken` are there; `again`: send what follows once more."""

    taken: int
    again: bool


class Sent:
    """What was sent on a stream.

    number: of the newest message; 0: there was none
    """

    def __init__(self) -> None:
        self.number = 0
        self._kept: deque[Parts] = deque()  # the newest ones: those that the hearer has not said to have
        self._repeating = 0  # how many of them, the newest, are to be sent again

    @property
    def full(self) -> bool:
        """Whether nothing new may be sent."""
        return len(self._kept) >= KEPT_MAX

    @property
    def waiting(self) -> bool:
        """Whether there is something that the hearer has not said to have."""
        return bool(self._kept)

    def keep(self, message: Parts) -> None:
        """The message of the number after `number` is sent.

        What it is made of stays as it is until the hearer has it: no buffer of a step that has not arrived is used for
        another one (barrier_flow.py, stale_flow.py). So nothing is copied to be kept. What the hearer has and has not
        said to have may change: it is not looked at any more.
        """
        self.number += 1
        self._kept.append(message)

    def heard(self, told: Told) -> None:
        """What the hearer tells. ProtocolError where it has what was never sent."""
        if told.taken > self.number:
            raise ProtocolError(f"taken: expected at most {self.number}, the newest number; found {told.taken}")
        while len(self._kept) > self.number - told.taken:
            self._kept.popleft()
        self._repeating = min(len(self._kept) if told.again else self._repeating, len(self._kept))

    def again(self) -> tuple[int, Parts] | None:
        """The next message that is to be sent again, with its number; None: there is none."""
        if not self._repeating:
            return None
        self._repeating -= 1
        return self.number - self._repeating, self._kept[-1 - self._repeating]


class Taken:
    """What has come on a stream.

    number: of the newest message that was taken in, as all before it
    asked:  how often one was asked for
    """

    def __init__(self) -> None:
        self.number = 0
        self.asked = 0
        self._told = 0  # the newest number that the sender was told
        self._asked = 0  # how often the next one was asked for
        self._tell = False

    def arrived(self, number: int) -> Arrival:
        """The message of this number came, whole."""
        if number <= self.number:
            return Arrival.REPEATED
        if number > self.number + 1:
            if not self._asked:  # else what is on its way behind it says nothing new
                self.ask(f"number {number} came instead")
            return Arrival.EARLY
        self.number, self._asked = number, 0
        self._tell = self._tell or number - self._told >= TELL_EVERY
        return Arrival.NEXT

    def ended(self, sent: int) -> None:
        """`sent` is the newest number, and nothing is under way any more; where it is not there it is asked for."""
        if sent > self.number:
            self.ask(f"the newest is number {sent}")
        self._tell = True

    def ask(self, why: str) -> None:
        """The next message is not there, or not whole. ProtocolError where that was said too often."""
        self.asked += 1
        self._asked += 1
        if self._asked > ASKED_MAX:
            raise ProtocolError(
                f"number: expected {self.number + 1}; asked for it {ASKED_MAX} times, and it did not come: {why}"
            )
        self._tell = True

    def due(self) -> Told | None:
        """What is to be told to the sender now."""
        if not self._tell:
            return None
        self._tell, self._told = False, self.number
        return Told(self.number, self._asked > 0)
