"""Replicas: checkpoints into the memory of hosts, so that a lost server does not cost the steps since the newest one on
storage.

    host 0                host 1                host 2
    shard 0, shard 2      shard 1, shard 0      shard 2, shard 1       each shard: with its own host, and with the next

Rules:
  - A replica is a checkpoint but for where it lies: files of shards, and a manifest with their SHA-256, written last.
  - Each file lies in two memories, that of the host that wrote it and that of the next one: any host may be lost.
  - A memory is a process of its own, which outlives the servers; a file is there when the last piece of it is.
  - The manifest of the next replica removes the one before: the newest whole one and the one that is being written are
    all that there is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from thalweg_cluster.checkpoints.manifest import step_of
from thalweg_cluster.checkpoints.store import PART_SUFFIX, check_name
from thalweg_proto.faults import CORRUPT, NO_FAULTS, Faults

PIECE_BYTES = 4 << 20
"""Of what goes to another host at a time, one piece after the other. Each call has its price, whatever its size: with
pieces of 1 MiB a replica took 1.7 times as much of the processors."""
REPLICAS_MAX = 3
"""In one memory: the whole one, the one that is being written, and one that came to nothing and is not removed yet."""
COPIES = 2
"""Of each file."""
T = TypeVar("T")


class Memory(Protocol):
    """The files that one host holds. OSError where it cannot be reached or has no room."""

    def put(self, name: str, begin: int, size: int, piece: bytes) -> None:
        """The bytes from `begin` on of a file of `size` bytes; the first piece begins it anew, the last one ends it."""
        ...

    def get(self, name: str, begin: int) -> tuple[bytes, int]:
        """A piece from `begin` on, and the size of the file. FileNotFoundError where there is none."""
        ...

    def names(self) -> list[str]:
        """Of all files; of those that are not whole, with PART_SUFFIX."""
        ...

    def remove(self, name: str) -> None:
        """Nothing where there is none."""
        ...


class ReplicaMemory:
    """The memory of this process. Any thread may call."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._parts: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def put(self, name: str, begin: int, size: int, piece: bytes) -> None:
        with self._lock:
            if begin == 0:
                folders = {_folder(other) for other in (*self._files, *self._parts)} | {_folder(name)}
                if len(folders) > REPLICAS_MAX:
                    raise OSError(f"expected at most {REPLICAS_MAX} replicas at a time; found {sorted(folders)}")
                self._parts[name] = bytearray()
            part = self._parts.get(name, bytearray())
            if begin != len(part) or begin + len(piece) > size:
                found = f"{len(piece)} from {begin} on"
                raise OSError(f"{name}: expected bytes from {len(part)} to at most {size}; found {found}")
            part += piece
            if len(part) == size:
                self._files[name] = bytes(self._parts.pop(name))

    def get(self, name: str, begin: int) -> tuple[bytes, int]:
        with self._lock:
            if name not in self._files:
                raise FileNotFoundError(name)
            data = self._files[name]
        return data[begin : begin + PIECE_BYTES], len(data)

    def names(self) -> list[str]:
        with self._lock:
            return sorted([*self._files, *(name + PART_SUFFIX for name in self._parts)])

    def remove(self, name: str) -> None:
        with self._lock:
            self._files.pop(name, None)
            self._parts.pop(name.removesuffix(PART_SUFFIX), None)


class ReplicaStore:
    """All memories of a run as one store."""

    def __init__(self, memories: Sequence[Memory], host: int = 0, faults: Faults = NO_FAULTS) -> None:
        """
        memories: by host
        host:     who writes; `faults` are planned for its server
        """
        self._memories = memories
        self._own = [memories[(host + i) % len(memories)] for i in range(min(COPIES, len(memories)))]
        self._faults = faults
        self._holders: dict[str, list[Memory]] = {}  # who had which file when `names` was asked for last

    def write(self, name: str, data: bytes) -> None:
        check_name(name)
        due = self._faults.at("replica.write", step_of(_folder(name)))
        if due.do == CORRUPT:
            data = due.spoil(data)
        for begin in range(0, max(1, len(data)), PIECE_BYTES):
            piece = data[begin : begin + PIECE_BYTES]
            for memory in self._own:
                memory.put(name, begin, len(data), piece)
        self._faults.at("replica.written", step_of(_folder(name)))

    def read(self, name: str) -> bytes:
        check_name(name)
        for _, data in _living(self._memories, lambda memory: _whole(memory, name)):
            return data
        raise FileNotFoundError(f"none of {len(self._memories)} hosts that can be reached has it")

    def names(self) -> list[str]:
        self._holders = {}
        for memory, names in _living(self._memories, lambda memory: memory.names()):
            for name in names:
                self._holders.setdefault(name, []).append(memory)
        return sorted(self._holders)

    def remove(self, name: str) -> None:
        # Who asked for the names before knows whom to ask: a call for each copy, not for each host.
        for _ in _living(self._holders.pop(name, self._memories), lambda memory: memory.remove(name)):
            pass


def _living(memories: Iterable[Memory], ask: Callable[[Memory], T]) -> Iterator[tuple[Memory, T]]:
    """Those memories that can be reached, and what they answer: what others held is lost."""
    for memory in memories:
        try:
            answer = ask(memory)
        except OSError:
            continue
        yield memory, answer


def _folder(name: str) -> str:
    return name.partition("/")[0]


def _whole(memory: Memory, name: str) -> bytes:
    data, size = memory.get(name, 0)
    pieces, there = [data], len(data)
    while there < size:
        piece, _ = memory.get(name, there)
        pieces.append(piece)
        there += len(piece)
    return b"".join(pieces)
