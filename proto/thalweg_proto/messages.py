"""What a worker and the server of its host say to each other while they train.

Rules:
  - One message is one fixed record; its first byte is its kind. A datagram of the Unix SOCK_SEQPACKET socket holds one,
    but for step records: a worker keeps those of many steps and sends them together, since each datagram wakes the
    server, which has the same cores.
  - Tensors are never in a message: they lie in shared memory.
  - Where the workers themselves do the server's part of a step, no step waits for a message: they meet at the
    rendezvous (rendezvous.py) and read the board (board.py). Where the server does it (several hosts, and every
    consistency but sync), it says what to compute (Work, Ready), and hears how far it is (PartFinal).
  - A record that cannot be read raises ProtocolError; it never raises anything else.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thalweg_proto.errors import ProtocolError

PROTOCOL_VERSION: Final = 6
MESSAGE_BYTES_MAX: Final = 64 * 1024


class StepRecord(NamedTuple):
    """Worker to server: how step `step` went for worker `rank`, which pushed `microbatches` gradients in it.

    loss, gradient_norm, published_s: of the whole step, as on the board
    *_s: seconds of the worker's step: drawing samples, forward and backward, saying that the gradients are there, and
         from then until the next version is there; `apply_s` of that: the worker's share of sum and update
    """

    rank: int
    microbatches: int
    step: int
    loss: float
    gradient_norm: float
    published_s: float
    sample_s: float
    compute_s: float
    push_s: float
    wait_s: float
    apply_s: float


class Evaluated(NamedTuple):
    """Worker to server: held-out chunk `chunk` evaluated with version `version`.

    labels:   how many its samples have: one each, or where they are sequences one at each position
    loss_sum: sum of the losses of these
    correct:  how many of them were classified rightly; -1 where the model does not classify
    """

    version: int
    chunk: int
    labels: int
    correct: int
    loss_sum: float


class CopyAsked(NamedTuple):
    """Worker to server: copy version `version` for a checkpoint, and write it on the board."""

    version: int


class Computed(NamedTuple):
    """Worker to server: it was left out of the meeting (permits.py), and has the gradient of microbatch `microbatch`
    for step `step` nonetheless, with this mean loss."""

    step: int
    microbatch: int
    loss: float


class Left(NamedTuple):
    """Worker to server: this worker trains no more; the board says why. Its last message."""


class PartFinal(NamedTuple):
    """Worker to server: elements [begin, size) of the gradient of part `part` for step `step` are final.

    loss: mean loss of the part; known where begin is 0, that is, with the part's last message
    """

    step: int
    part: int
    begin: int
    loss: float


class PartLeft(NamedTuple):
    """Worker to server: it will not compute part `part` of step `step`, which it was told to: that step is over."""

    step: int
    part: int


class Work(NamedTuple):
    """Server to worker: compute the parts [begin, end) of step `step`, on version `version` of the parameters.

    gradient: where that of part `begin` goes, among those in the memory of this host; those of the others follow
    until:    only the elements [0, until) of each may be written, and told of: the server has the rest, from one who is
              gone
    """

    step: int
    version: int
    begin: int
    end: int
    gradient: int
    until: int


class Ready(NamedTuple):
    """Server to worker: the elements [0, end) of version `version` are there."""

    version: int
    end: int


class Evaluate(NamedTuple):
    """Server to worker: evaluate the chunks [begin, end) of the held-out set, as version `version`."""

    version: int
    begin: int
    end: int


class Finish(NamedTuple):
    """Server to worker: there is nothing more to do; leave."""


class Begin(NamedTuple):
    """Server to worker: all have joined. Where the workers meet, the board says who they are now."""


class Regroup(NamedTuple):
    """Server to worker: others will meet from now on; leave the meeting, and say so (Regrouped)."""


class Regrouped(NamedTuple):
    """Worker to server: it has left the meeting, and writes nothing that is shared until it hears a Begin."""


class Broke(NamedTuple):
    """Worker to server: it raised an exception, as others would in its place; its last message."""


class Stop(NamedTuple):
    """Server to worker: the run is over, whatever you do."""


_STEP = struct.Struct("<BxHIQ8d")
_EVALUATED = struct.Struct("<BxxxIQQqd")
_FINAL = struct.Struct("<BxxxIQQd")
_PART_LEFT = struct.Struct("<BxxxIQ")
_WORK = struct.Struct("<BxxxIIIQQQ")
_READY = struct.Struct("<BxxxxxxxQQ")
_EVALUATE = struct.Struct("<BxxxIIxxxxQ")
_COPY = struct.Struct("<BxxxxxxxQ")
_COMPUTED = struct.Struct("<BxxxIQd")
_BARE = struct.Struct("<B")
# The step record for NumPy, so that many can be read at once.
STEP_DTYPE: Final = np.dtype(
    {
        "names": ["kind", "rank", "microbatches", "step", *StepRecord._fields[3:]],
        "formats": ["u1", "<u2", "<u4", "<u8", *["<f8"] * 8],
        "offsets": [0, 2, 4, 8, *range(16, 16 + 8 * 8, 8)],
        "itemsize": _STEP.size,
    }
)
RECORDS_MAX: Final = MESSAGE_BYTES_MAX // _STEP.size
"""Step records that fit into one datagram."""
_KIND_STEP, _KIND_EVALUATED, _KIND_LEFT, _KIND_BEGIN, _KIND_STOP = 1, 2, 3, 4, 5
_KIND_FINAL, _KIND_WORK, _KIND_READY, _KIND_EVALUATE, _KIND_FINISH, _KIND_COPY = 6, 7, 8, 9, 10, 11
_KIND_REGROUP, _KIND_REGROUPED, _KIND_BROKE, _KIND_COMPUTED, _KIND_PART_LEFT = 12, 13, 14, 15, 16
_BARE_FROM_WORKER: Final[dict[int, Left | Regrouped | Broke]] = {
    _KIND_LEFT: Left(),
    _KIND_REGROUPED: Regrouped(),
    _KIND_BROKE: Broke(),
}
_BARE_FROM_SERVER: Final[dict[int, Begin | Finish | Stop | Regroup]] = {
    _KIND_BEGIN: Begin(),
    _KIND_FINISH: Finish(),
    _KIND_STOP: Stop(),
    _KIND_REGROUP: Regroup(),
}


def pack_step(record: StepRecord) -> bytes:
    return _STEP.pack(_KIND_STEP, *record)


def pack_evaluated(message: Evaluated) -> bytes:
    version, chunk, labels, correct, loss_sum = message
    return _EVALUATED.pack(_KIND_EVALUATED, chunk, version, labels, correct, loss_sum)


def pack_copy_asked(message: CopyAsked) -> bytes:
    return _COPY.pack(_KIND_COPY, *message)


def pack_computed(message: Computed) -> bytes:
    step, microbatch, loss = message
    return _COMPUTED.pack(_KIND_COMPUTED, microbatch, step, loss)


def pack_left() -> bytes:
    return _BARE.pack(_KIND_LEFT)


def pack_final(message: PartFinal) -> bytes:
    step, part, begin, loss = message
    return _FINAL.pack(_KIND_FINAL, part, step, begin, loss)


def pack_part_left(message: PartLeft) -> bytes:
    step, part = message
    return _PART_LEFT.pack(_KIND_PART_LEFT, part, step)


def pack_work(message: Work) -> bytes:
    step, version, begin, end, gradient, until = message
    return _WORK.pack(_KIND_WORK, begin, end, gradient, step, version, until)


def pack_ready(message: Ready) -> bytes:
    return _READY.pack(_KIND_READY, *message)


def pack_evaluate(message: Evaluate) -> bytes:
    version, begin, end = message
    return _EVALUATE.pack(_KIND_EVALUATE, begin, end, version)


def pack_finish() -> bytes:
    return _BARE.pack(_KIND_FINISH)


def pack_begin() -> bytes:
    return _BARE.pack(_KIND_BEGIN)


def pack_stop() -> bytes:
    return _BARE.pack(_KIND_STOP)


def pack_regroup() -> bytes:
    return _BARE.pack(_KIND_REGROUP)


def pack_regrouped() -> bytes:
    return _BARE.pack(_KIND_REGROUPED)


def pack_broke() -> bytes:
    return _BARE.pack(_KIND_BROKE)


FromWorker = NDArray[np.void] | Evaluated | PartFinal | PartLeft | CopyAsked | Computed | Left | Regrouped | Broke


def unpack_from_worker(record: bytes) -> FromWorker:
    """The messages in a datagram of a worker, step records as an array of STEP_DTYPE.

    ProtocolError where `record` is none.
    """
    kind = record[0] if record else 0
    if kind == _KIND_STEP and len(record) % _STEP.size == 0:
        records = np.frombuffer(record, dtype=STEP_DTYPE)
        if (records["kind"] == _KIND_STEP).all():
            return records
    elif kind == _KIND_EVALUATED and len(record) == _EVALUATED.size:
        _, chunk, version, labels, correct, loss_sum = _EVALUATED.unpack(record)
        return Evaluated(version, chunk, labels, correct, loss_sum)
    elif kind == _KIND_FINAL and len(record) == _FINAL.size:
        _, part, step, begin, loss = _FINAL.unpack(record)
        return PartFinal(step, part, begin, loss)
    elif kind == _KIND_PART_LEFT and len(record) == _PART_LEFT.size:
        _, part, step = _PART_LEFT.unpack(record)
        return PartLeft(step, part)
    elif kind == _KIND_COPY and len(record) == _COPY.size:
        return CopyAsked(*_COPY.unpack(record)[1:])
    elif kind == _KIND_COMPUTED and len(record) == _COMPUTED.size:
        _, microbatch, step, loss = _COMPUTED.unpack(record)
        return Computed(step, microbatch, loss)
    elif kind in _BARE_FROM_WORKER and len(record) == _BARE.size:
        return _BARE_FROM_WORKER[kind]
    expected = "a StepRecord, Evaluated, PartFinal, PartLeft, CopyAsked, Computed, Left, Regrouped or Broke"
    raise _unreadable(expected, record)


FromServer = Begin | Work | Ready | Evaluate | Finish | Stop | Regroup


def unpack_from_server(record: bytes) -> FromServer:
    """The message of a server. ProtocolError where `record` is none."""
    kind = record[0] if record else 0
    if kind == _KIND_READY and len(record) == _READY.size:
        return Ready(*_READY.unpack(record)[1:])
    if kind == _KIND_WORK and len(record) == _WORK.size:
        _, begin, end, gradient, step, version, until = _WORK.unpack(record)
        return Work(step, version, begin, end, gradient, until)
    if kind == _KIND_EVALUATE and len(record) == _EVALUATE.size:
        _, begin, end, version = _EVALUATE.unpack(record)
        return Evaluate(version, begin, end)
    if kind in _BARE_FROM_SERVER and len(record) == _BARE.size:
        return _BARE_FROM_SERVER[kind]
    raise _unreadable("a Begin, Work, Ready, Evaluate, Finish, Stop or Regroup", record)


def _unreadable(expected: str, record: bytes) -> ProtocolError:
    found = f"kind {record[0]} of {len(record)} bytes" if record else "an empty record"
    return ProtocolError(f"expected {expected} message; found {found}")
