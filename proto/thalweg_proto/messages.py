"""What a worker and the server of its host say to each other on the hot path.

Rules:
  - One message is one fixed record; its first byte is its kind. A datagram of the Unix SOCK_SEQPACKET socket holds one,
    but for pushes: all those of a worker's step come in one, since each datagram wakes the server.
  - Tensors are never in a message: they lie in shared memory. A `Push` only says which gradient slot is full, a
    `Publish` which version of the parameters may be read.
  - A record that cannot be read raises ProtocolError; it never raises anything else.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from thalweg_proto.errors import ProtocolError

PROTOCOL_VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 64 * 1024


class Push(NamedTuple):
    """Worker to server: worker `rank` has put the gradient of `microbatch` for `step` into its slot.

    loss:     the microbatch's mean loss
    *_s:      seconds that this worker spent since its last message: drawing samples, in forward and backward,
              sending, and waiting for the server
    """

    rank: int
    generation: int
    step: int
    microbatch: int
    loss: float
    sample_s: float
    compute_s: float
    push_s: float
    wait_s: float


class Evaluated(NamedTuple):
    """Worker to server: held-out chunk `chunk` evaluated with version `version`.

    loss_sum: sum of the losses of its `samples` samples
    correct:  how many of them were classified rightly; -1 where the model does not classify
    """

    version: int
    chunk: int
    samples: int
    correct: int
    loss_sum: float


class Publish(NamedTuple):
    """Server to worker: version `version` is whole and may be read, until version + 2 is written.

    train:    compute the gradients of step `version`
    evaluate: first evaluate the held-out set with it
    """

    generation: int
    version: int
    train: bool
    evaluate: bool


class Stop(NamedTuple):
    """Server to worker: there is nothing more to do."""


_PUSH = struct.Struct("<BxHIQQ5d")
_EVALUATED = struct.Struct("<BxxxIQQqd")
_PUBLISH = struct.Struct("<B??xIQQ")
_STOP = struct.Struct("<B")
# The same record for NumPy, so that many can be read at once.
PUSH_DTYPE: Final = np.dtype(
    {
        "names": ["rank", "step", "sample_s", "compute_s", "push_s", "wait_s"],
        "formats": ["<u2", "<u8", "<f8", "<f8", "<f8", "<f8"],
        "offsets": [2, 16, 32, 40, 48, 56],
        "itemsize": _PUSH.size,
    }
)
_KIND_PUSH, _KIND_EVALUATED, _KIND_PUBLISH, _KIND_STOP = 1, 2, 3, 4


def pack_push(push: Push) -> bytes:
    rank, generation, step, microbatch, *numbers = push
    return _PUSH.pack(_KIND_PUSH, rank, microbatch, generation, step, *numbers)


def pack_evaluated(message: Evaluated) -> bytes:
    version, chunk, samples, correct, loss_sum = message
    return _EVALUATED.pack(_KIND_EVALUATED, chunk, version, samples, correct, loss_sum)


def pack_publish(message: Publish) -> bytes:
    return _PUBLISH.pack(_KIND_PUBLISH, message.train, message.evaluate, 0, message.generation, message.version)


def pack_stop() -> bytes:
    return _STOP.pack(_KIND_STOP)


def unpack_from_worker(record: bytes) -> list[Push] | Evaluated:
    """The messages in a datagram of a worker. ProtocolError where `record` is none."""
    kind = record[0] if record else 0
    if kind == _KIND_PUSH and len(record) % _PUSH.size == 0:
        pushes = []
        for kind, rank, microbatch, generation, step, *numbers in _PUSH.iter_unpack(record):
            if kind != _KIND_PUSH:
                raise _unreadable("a Push after a Push", record)
            pushes.append(Push(rank, generation, step, microbatch, *numbers))
        return pushes
    if kind == _KIND_EVALUATED and len(record) == _EVALUATED.size:
        _, chunk, version, samples, correct, loss_sum = _EVALUATED.unpack(record)
        return Evaluated(version, chunk, samples, correct, loss_sum)
    raise _unreadable("a Push or Evaluated", record)


def unpack_from_server(record: bytes) -> Publish | Stop:
    """The message of a server. ProtocolError where `record` is none."""
    kind = record[0] if record else 0
    if kind == _KIND_PUBLISH and len(record) == _PUBLISH.size:
        _, train, evaluate, _, generation, version = _PUBLISH.unpack(record)
        return Publish(generation, version, train, evaluate)
    if kind == _KIND_STOP and len(record) == _STOP.size:
        return Stop()
    raise _unreadable("a Publish or Stop", record)


def _unreadable(expected: str, record: bytes) -> ProtocolError:
    found = f"kind {record[0]} of {len(record)} bytes" if record else "an empty record"
    return ProtocolError(f"expected {expected} message; found {found}")
