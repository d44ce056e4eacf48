"""Where the processes of one host wait for each other, and the last to arrive acts for all.

Rules:
  - Whoever arrives takes one from a semaphore that holds `members - 1`. Who finds it empty is the last: it does what is
    to be done once, fills the semaphore again, and opens the gate for the others.
  - The gate is a semaphore, too: each member that waits takes one. Two gates take turns, so that nobody who is quick
    takes the pass of somebody who is slow to wake up.
  - Waiting is a blocking poll: nothing spins, nothing sleeps for a while to look again.
  - Both are eventfds. The kernel's locks order memory on every CPU: what a member wrote before it arrived, all others
    see after they went on.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class RendezvousFds:
    """File descriptors of a rendezvous: eventfds in semaphore mode."""

    arrivals: int
    gates: tuple[int, int]

    @classmethod
    def create(cls, members: int) -> RendezvousFds:
        """A new rendezvous of `members` >= 1."""
        flags = os.EFD_SEMAPHORE | os.EFD_CLOEXEC | os.EFD_NONBLOCK
        return cls(os.eventfd(members - 1, flags), (os.eventfd(0, flags), os.eventfd(0, flags)))

    def reset(self, members: int) -> None:
        """Makes it one of `members` again, whatever those before did; when nobody is at it."""
        for fd in self:
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.eventfd_read(fd)
        if members > 1:
            os.eventfd_write(self.arrivals, members - 1)

    def __iter__(self) -> Iterator[int]:
        return iter((self.arrivals, *self.gates))


class Rendezvous:
    """One member's end. Each meeting is `arrive`, then `open` by the last and `wait` by all others."""

    def __init__(self, fds: RendezvousFds, alarm: int) -> None:
        """Takes over `fds`; `join` comes before the first meeting.

        alarm: a file descriptor that becomes readable where waiting has no point any more
        """
        self._fds = fds
        self._others = self._turn = 0
        self._polls = []
        for gate in fds.gates:
            poll = select.poll()
            poll.register(gate, select.POLLIN)
            poll.register(alarm, select.POLLIN)
            self._polls.append(poll)

    def join(self, members: int) -> None:
        """It is new, or was reset, and is one of `members` now."""
        self._others, self._turn = members - 1, 0

    def arrive(self) -> bool:
        """Whether this member is the last of all."""
        try:
            os.eventfd_read(self._fds.arrivals)
        except BlockingIOError:
            return True
        return False

    def open(self) -> None:
        """Lets the others go on; for the last."""
        gate = self._next_gate()
        if self._others:
            os.eventfd_write(self._fds.arrivals, self._others)
            os.eventfd_write(self._fds.gates[gate], self._others)

    def wait(self) -> bool:
        """Blocks until the last has opened the gate; False where the alarm came first."""
        gate = self._next_gate()
        ready = self._polls[gate].poll()
        if all(fd != self._fds.gates[gate] for fd, _ in ready):
            return False
        os.eventfd_read(self._fds.gates[gate])
        return True

    def _next_gate(self) -> int:
        gate, self._turn = self._turn, 1 - self._turn
        return gate

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
