"""Whether what a worker of a meeting computes still counts: it may have been left out while it was in the middle.

A worker that begins microbatches puts its permit down, and takes it up when they are done. Where the server has
withdrawn it meanwhile, others meet without that worker, and compute these microbatches, too.

Rules:
  - A permit is an eventfd: whoever reads it has it, one of the two, in any process.
  - Who finds its permit gone writes nothing that others read: not on the board, in no hand, at no rendezvous. It goes
    on writing to the places of its own gradients until it is done, and nobody else reads or writes there.
  - For a new membership the server takes up all permits of those who will meet: one who died may have left his.
"""

from __future__ import annotations

import os


def create_permits(seats: int) -> list[int]:
    """None of them is put down: eventfds, by rank."""
    return [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(seats)]


def put_down(fd: int) -> None:
    """Its worker begins something that others can do in its place."""
    os.eventfd_write(fd, 1)


def take_up(fd: int) -> bool:
    """Whether it was put down, and was still there."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return False
    return True
