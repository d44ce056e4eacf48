"""The memory that the workers and the server of one host share.

Where the workers do the server's part of a step (`MemoryPlan`, `Vectors`):

    row 0, 1, 2          version t of the parameters lies in row t % 3,
                         the gradient of microbatch 0 for step t in row (t + 1) % 3
    row 3 ... V + 1      the gradients of microbatches 1 ... V - 1
    the S rows after     the state of the update rule

Where the server does it (`ServedPlan`, `ServedVectors`):

    row 0 ... R - 1      version t of the parameters in row t % R
    the G rows after     gradients, as the server deals them out to workers

each row of `size` float32.

Rules:
  - The next version takes the place of microbatch 0's gradient: sum and update work where that gradient lies. So its
    cache lines are fetched once, not once to be read and a second time, elsewhere, to be overwritten.
  - Version t is whole and stays so until version t + 2 is published; only then is its row used again.
  - A segment is a file in /dev/shm without a name (O_TMPFILE), handed over as a file descriptor. The kernel frees it
    with the last process that maps it, so neither a crash nor `kill -9` leaves anything behind, and nothing has to be
    swept up at the next start.
  - Its pages are reserved when it is made: a full /dev/shm is an OSError then, not a SIGBUS in the middle of a step.
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
        return VERSION_ROWS - 1 + self.microbatches + self.slots

    @property
    def vector_bytes(self) -> int:
        return self.rows * self.size * FLOAT_BYTES

    @property
    def chunks(self) -> int:
        """Chunks of the flat vector; the last one may be short."""
        return -(-self.size // CHUNK)


class Vectors:
    """The rows of one host, as arrays; see the top of this module for who lies where."""

    def __init__(self, plan: MemoryPlan, fd: int) -> None:
        """Maps the segment behind `fd`, which may be closed at once."""
        self._rows = map_segment(fd, plan.rows, plan.size, writable=True)
        # Mapped a second time: a version cannot be written by mistake through the arrays that engines read.
        self._versions = map_segment(fd, VERSION_ROWS, plan.size, writable=False)
        self._microbatches = plan.microbatches

    def version(self, t: int) -> NDArray[np.float32]:
        """Version t, shape (size,), read-only; valid until version t + 2 is published."""
        row: NDArray[np.float32] = self._versions[t % VERSION_ROWS]
        return row

    def gradient(self, t: int, microbatch: int) -> NDArray[np.float32]:
        """The gradient of a microbatch for step t, shape (size,); that of microbatch 0 becomes version t + 1."""
        row = (t + 1) % VERSION_ROWS if microbatch == 0 else VERSION_ROWS - 1 + microbatch
        gradient: NDArray[np.float32] = self._rows[row]
        return gradient

    def gradients(self, t: int) -> list[NDArray[np.float32]]:
        """All gradients of step t, by microbatch."""
        return [self.gradient(t, m) for m in range(self._microbatches)]

    @property
    def state(self) -> NDArray[np.float32]:
        """The rule's state, shape (slots, size)."""
        rows: NDArray[np.float32] = self._rows[VERSION_ROWS - 1 + self._microbatches :]
        return rows


@dataclass(frozen=True, kw_only=True)
class ServedPlan:
    """How much is shared on one host where the server does its part of a step itself.

    size:      elements of the flat vector, gaps counted
    versions:  R
    gradients: G
    """

    size: int
    versions: int
    gradients: int

    @property
    def rows(self) -> int:
        """Rows of `size` float32."""
        return self.versions + self.gradients

    @property
    def vector_bytes(self) -> int:
        return self.rows * self.size * FLOAT_BYTES


class ServedVectors:
    """The rows of one host, as arrays.

    versions:  (R, size), read-only for workers; version t in row t % R
    gradients: (G, size)
    """

    def __init__(self, plan: ServedPlan, fd: int, *, server: bool) -> None:
        """Maps the segment behind `fd`, which may be closed at once. Only the server may write versions."""
        rows = map_segment(fd, plan.rows, plan.size, writable=True)
        self.gradients: NDArray[np.float32] = rows[plan.versions :]
        self.versions: NDArray[np.float32] = (
            rows[: plan.versions] if server else map_segment(fd, plan.versions, plan.size, writable=False)
        )

    def version(self, t: int) -> NDArray[np.float32]:
        """Where version t is, shape (size,)."""
        row: NDArray[np.float32] = self.versions[t % len(self.versions)]
        return row


def check_room(plan: MemoryPlan, bytes_free: int) -> list[Problem]:
    """Whether the buffers of `plan` fit into `bytes_free` bytes of /dev/shm."""
    needed = plan.vector_bytes
    if needed <= bytes_free:
        return []
    return [
        Problem(
            "model",
            f"buffers that fit into {FOLDER}: {bytes_free:,} bytes are free there",
            f"{needed:,} bytes needed (2 versions, {plan.microbatches} microbatch gradients and {plan.slots} arrays of "
            f"the rule's state, of {plan.size:,} float32 each)",
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


def create_segment(size_bytes: int) -> int:
    """A new nameless segment of `size_bytes` zero bytes: its file descriptor. OSError where there is no room."""
    fd = os.open(FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def map_segment(fd: int, rows: int, size: int, *, writable: bool) -> NDArray[np.float32]:
    """The segment behind `fd` as float32 of shape (rows, size). Where not `writable`, a write raises ValueError.

    The mapping lives as long as the array; `fd` may be closed at once.
    """
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    mapped = mmap.mmap(fd, rows * size * FLOAT_BYTES, access=access)
    return np.frombuffer(mapped, dtype=np.float32).reshape(rows, size)
