"""The memory that the workers and the server of one host share.

    parameters   2 x size float32   version t lies in buffer t % 2; the server writes, workers map it read-only
    gradients    V x size float32   slot m belongs to whichever worker computes microbatch m

Rules:
  - A segment is a file in /dev/shm without a name (O_TMPFILE), handed over as a file descriptor. The kernel frees it
    with the last process that maps it, so neither a crash nor `kill -9` leaves anything behind, and nothing has to be
    swept up at the next start.
  - Its pages are reserved when it is made: a full /dev/shm is an OSError then, not a SIGBUS in the middle of a step.
  - `multiprocessing.shared_memory` is not used: before Python 3.13 it unlinks segments that it only attached to.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import Problem

FOLDER = "/dev/shm"
FLOAT_BYTES = 4


def bytes_needed(size: int, microbatches: int) -> int:
    """Bytes of shared memory for a flat vector of `size` elements: two versions and a gradient slot per microbatch."""
    return (2 + microbatches) * size * FLOAT_BYTES


def check_room(size: int, microbatches: int, bytes_free: int) -> list[Problem]:
    """Whether the buffers of a model of `size` elements fit into `bytes_free` bytes of /dev/shm."""
    needed = bytes_needed(size, microbatches)
    if needed <= bytes_free:
        return []
    return [
        Problem(
            "model",
            f"buffers that fit into {FOLDER}: {bytes_free:,} bytes are free there",
            f"{needed:,} bytes needed (2 versions and {microbatches} microbatch gradients of {size:,} float32)",
            "use a smaller model or fewer train.microbatches, or give the machine or container a larger /dev/shm",
        )
    ]


def bytes_free() -> int:
    """Bytes that can still be taken from /dev/shm."""
    stat = os.statvfs(FOLDER)
    return stat.f_bavail * stat.f_frsize


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
