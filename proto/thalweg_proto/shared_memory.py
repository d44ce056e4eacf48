"""The memory that the workers and the server of one host share.

Where the workers do the server's part of a step (`MemoryPlan`, `Vectors`):

    row 0, 1, 2          version t of the parameters lies in row t % 3,
                         the gradient of microbatch 0 for step t in row (t + 1) % 3
    2 rows for each      at version t array s of the rule's state lies in the one of t % 2,
    array s of state     the gradient of microbatch s + 1 for step t, where there is one, in the other
    the rows after       the gradients of the other microbatches
    V more, spare        for copies of microbatches that a slow worker is in the middle of (MemoryPlan.spares)

Where the server does it (`ServedPlan`, `ServedVectors`):

    row 0 ... R - 1      version t of the parameters in row t % R
    the G rows after     gradients, as the server deals them out to workers
    the rows after       with local steps: for each gradient, twice S arrays of the state of its worker's own rule; at
                         version t those of t % 2
    spare ones after     for copies, as above; in sync

each row of `size` float32.

Rules:
  - What a step makes takes the place of gradients: the next version that of microbatch 0's, the next state that of
    those after it. So their cache lines are fetched once, not once to be read and a second time, elsewhere, to be
    overwritten.
  - Version t is whole and stays so until version t + 2 is published; only then is its row used again. The state at
    version t is whole until version t + 1 is published. So a step that is broken off, wherever that is, can be made
    again.
  - A segment is a file in /dev/shm without a name (O_TMPFILE), handed over as a file descriptor. The kernel frees it
    with the last process that maps it, so neither a crash nor `kill -9` leaves anything behind, and nothing has to be
    swept up at the next start.
  - Its pages are reserved when it is made: a full /dev/shm is an OSError then, not a SIGBUS in the middle of a step.
    Spare rows have no pages until one is needed (`reserve`): a run without stragglers takes none of that memory.
  - Where workers meet, a row stands for a place in memory. A worker that is still writing when its microbatch is given
    to another keeps the place that it writes to, and the row gets another one (`Vectors.places`).
  - `multiprocessing.shared_memory` is not used: before Python 3.13 it unlinks segments that it only attached to.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import Problem

FOLDER = "/dev/shm"
FLOAT_BYTES = 4
VERSION_ROWS = 3
STATE_ROWS = 2
PERIOD = VERSION_ROWS * STATE_ROWS
"""Steps after which all lies again where it lay."""
CHUNK = 8 * 1024
"""Elements of a chunk: shares of the flat vector begin at a multiple of it, and norms are summed chunk by chunk."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How much is shared on one host.

    size:         elements of the flat vector, gaps counted
    microbatches: V
    slots:        S, state arrays of the rule
    """

    size: int
    microbatches: int
    slots: int

    @property
    def rows(self) -> int:
        """Rows of `size` float32."""
        others = max(0, self.microbatches - 1 - self.slots)
        return VERSION_ROWS + STATE_ROWS * self.slots + others

    @property
    def spares(self) -> int:
        """Rows beyond these, each a place for one copy of a microbatch that another worker is in the middle of."""
        return self.microbatches

    @property
    def overwritten(self) -> range:
        """The microbatches whose gradients a step overwrites with what it makes."""
        return range(min(1 + self.slots, self.microbatches))

    @property
    def vector_bytes(self) -> int:
        """Without what is spare."""
        return self.rows * self.size * FLOAT_BYTES

    @property
    def spare_bytes(self) -> int:
        return self.spares * self.size * FLOAT_BYTES

    @property
    def chunks(self) -> int:
        """Chunks of the flat vector; the last one may be short."""
        return -(-self.size // CHUNK)


class Vectors:
    """The rows of one host, as arrays; see the top of this module for who lies where.

    places: where in memory each row is, a number below rows + spares; whoever changes it makes new views of all
    """

    def __init__(self, plan: MemoryPlan, fd: int) -> None:
        """Maps the segment behind `fd`, which may be closed at once."""
        self._rows = map_segment(fd, plan.rows + plan.spares, plan.size, writable=True)
        # Mapped a second time: a version cannot be written by mistake through the arrays that engines read.
        self._read_only = map_segment(fd, plan.rows + plan.spares, plan.size, writable=False)
        self._microbatches, self._slots = plan.microbatches, plan.slots
        self.places = list(range(plan.rows))

    def version(self, t: int) -> NDArray[np.float32]:
        """Version t, shape (size,), read-only; valid until version t + 2 is published."""
        row: NDArray[np.float32] = self._read_only[self.places[t % VERSION_ROWS]]
        return row

    def gradient(self, t: int, microbatch: int) -> NDArray[np.float32]:
        """The gradient of a microbatch for step t, shape (size,).

        That of microbatch 0 becomes version t + 1, that of s + 1 array s of the state.
        """
        gradient: NDArray[np.float32] = self._rows[self.places[self.gradient_row(t, microbatch)]]
        return gradient

    def gradient_row(self, t: int, microbatch: int) -> int:
        """Which row that is."""
        slot = microbatch - 1
        if microbatch == 0:
            return (t + 1) % VERSION_ROWS
        if slot < self._slots:
            return self._state_row(slot, t + 1)
        return VERSION_ROWS + STATE_ROWS * self._slots + slot - self._slots

    def _state_row(self, slot: int, t: int) -> int:
        return VERSION_ROWS + STATE_ROWS * slot + t % STATE_ROWS

    def gradients(self, t: int) -> list[NDArray[np.float32]]:
        """All gradients of step t, by microbatch."""
        return [self.gradient(t, m) for m in range(self._microbatches)]

    def state(self, t: int) -> list[NDArray[np.float32]]:
        """The rule's state at version t, by slot, each of shape (size,); valid until version t + 1 is published."""
        return [self._rows[self.places[self._state_row(slot, t)]] for slot in range(self._slots)]


@dataclass(frozen=True, kw_only=True)
class ServedPlan:
    """How much is shared on one host where the server does its part of a step itself.

    size:      elements of the flat vector, gaps counted
    versions:  R
    gradients: G
    slots:     S; 0: workers have no rule of their own
    spares:    places for copies of gradients, beyond `rows`
    """

    size: int
    versions: int
    gradients: int
    slots: int = 0
    spares: int = 0

    @property
    def rows(self) -> int:
        """Rows of `size` float32."""
        return self.versions + self.gradients * (1 + STATE_ROWS * self.slots)

    @property
    def vector_bytes(self) -> int:
        """Without what is spare."""
        return self.rows * self.size * FLOAT_BYTES

    @property
    def spare_bytes(self) -> int:
        return self.spares * self.size * FLOAT_BYTES

    def row_of(self, gradient: int) -> int:
        """The row of the `gradient`-th of the gradients and the spare ones after them."""
        return self.versions + gradient if gradient < self.gradients else self.rows + gradient - self.gradients


class ServedVectors:
    """The rows of one host, as arrays.

    versions:  (R, size), read-only for workers; version t in row t % R
    gradients: (size,) each, the spare ones after the others
    """

    def __init__(self, plan: ServedPlan, fd: int, *, server: bool) -> None:
        """Maps the segment behind `fd`, which may be closed at once. Only the server may write versions."""
        rows = map_segment(fd, plan.rows + plan.spares, plan.size, writable=True)
        self.gradients: list[NDArray[np.float32]] = [
            rows[plan.row_of(gradient)] for gradient in range(plan.gradients + plan.spares)
        ]
        state = rows[plan.versions + plan.gradients : plan.rows]
        self._state = state.reshape(plan.gradients, STATE_ROWS, plan.slots, plan.size)
        self.versions: NDArray[np.float32] = (
            rows[: plan.versions] if server else map_segment(fd, plan.versions, plan.size, writable=False)
        )

    def version(self, t: int) -> NDArray[np.float32]:
        """Where version t is, shape (size,)."""
        row: NDArray[np.float32] = self.versions[t % len(self.versions)]
        return row

    def state(self, gradient: int, t: int) -> list[NDArray[np.float32]]:
        """The state of the own rule of that gradient's worker at version t, by slot, each of shape (size,); whole until
        that worker begins with version t + 1."""
        return list(self._state[gradient, t % STATE_ROWS])


def check_room(plan: MemoryPlan, bytes_free: int) -> list[Problem]:
    """Whether the buffers of `plan` fit into `bytes_free` bytes of /dev/shm."""
    spare = plan.size * FLOAT_BYTES  # of one straggler's microbatch
    needed = plan.vector_bytes + spare
    if needed <= bytes_free:
        return []
    return [
        Problem(
            "model",
            f"buffers that fit into {FOLDER}: {bytes_free:,} bytes are free there",
            f"{needed:,} bytes needed ({plan.rows + 1} arrays of {plan.size:,} float32: 2 versions, "
            f"{plan.microbatches} microbatch gradients, {plan.slots} of the rule's state, a spare gradient)",
            "use a smaller model or fewer train.microbatches, or give the machine or container a larger /dev/shm",
        )
    ]


def bytes_free() -> int:
    """Bytes that can still be taken from /dev/shm: it may be given more than the machine has left."""
    stat = os.statvfs(FOLDER)
    return min(stat.f_bavail * stat.f_frsize, memory_available(Path("/proc/meminfo").read_text()))


def memory_available(meminfo: str) -> int:
    """Bytes that can be taken without swapping, from the text of /proc/meminfo."""
    [kilobytes] = [line.split()[1] for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    return int(kilobytes) * 1024


def create_segment(size_bytes: int, spare_bytes: int = 0) -> int:
    """A new nameless segment of `size_bytes` zero bytes: its file descriptor. OSError where there is no room.

    spare_bytes: so many follow that have no pages yet; `reserve` comes before they are touched
    """
    fd = os.open(FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes + spare_bytes)
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def reserve(fd: int, row: int, size: int) -> bool:
    """Gives a row of `size` float32 its pages, zero where they are new; False where there is no room."""
    try:
        os.posix_fallocate(fd, row * size * FLOAT_BYTES, size * FLOAT_BYTES)
    except OSError:
        return False
    return True


def map_segment(fd: int, rows: int, size: int, *, writable: bool) -> NDArray[np.float32]:
    """The segment behind `fd` as float32 of shape (rows, size). Where not `writable`, a write raises ValueError.

    The mapping lives as long as the array; `fd` may be closed at once.
    """
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    mapped = mmap.mmap(fd, rows * size * FLOAT_BYTES, access=access)
    return np.frombuffer(mapped, dtype=np.float32).reshape(rows, size)
