"""What shall go wrong, as data, and which fault is due. Pure: no file, no clock, no signal.

Rules:
  - A point stands before, in the middle of, or after an act that cannot be taken back. It has one name, whoever comes
    to it: a worker or a server.
  - A fault that says no step, worker or server is meant for the first that comes.
  - Each fault fires once in a run. Its name tells it from all others of the plan, and stays what it is over restarts.
  - What is random (how long a delay with jitter is) follows from the plan's seed and the fault's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Final, NamedTuple

KILL, PAUSE, DELAY, RAISE = "kill", "pause", "delay", "raise"
NAN, CORRUPT, DROP, DOUBLE = "nan", "corrupt", "drop", "double"
ACTS: Final = {
    KILL: "the process kills itself (SIGKILL)",
    PAUSE: "the process stops itself (SIGSTOP), and is continued after `seconds`",
    DELAY: "the thread waits for `seconds`, give or take `jitter`",
    RAISE: "an exception, as if the user's model had raised it",
    NAN: "the gradient of the microbatch becomes NaN",
    CORRUPT: "one bit of the message or file is flipped: in `byte`, or in the middle",
    DROP: "the message is lost",
    DOUBLE: "the message is sent, or comes, twice",
}
WORKER, SERVER = "worker", "server"


class Point(NamedTuple):
    """parts: who comes to it; acts: what can happen there."""

    parts: tuple[str, ...]
    acts: tuple[str, ...]


_OWN = (KILL, PAUSE, DELAY)  # what a process can do to itself, anywhere
_BOTH = (WORKER, SERVER)  # on one host in sync the workers do the server's part of a step
_MESSAGE = (*_OWN, DROP, DOUBLE, CORRUPT)

POINTS: Final[Mapping[str, Point]] = {
    # A worker: one microbatch is computed; all of its step are announced; the next version is there.
    "gradient.before": Point((WORKER,), (*_OWN, RAISE)),
    "gradient.after": Point((WORKER,), (*_OWN, RAISE, NAN)),
    "push.before": Point((WORKER,), _OWN),
    "push.after": Point((WORKER,), _OWN),
    "push.acknowledged": Point((WORKER,), _OWN),
    # The server's part of a step. In the middle of `apply` a block's gradients are summed and its parameters are still
    # the old ones; in the middle of `publish` a version is there for some and not for others.
    "apply.before": Point(_BOTH, _OWN),
    "apply.middle": Point(_BOTH, _OWN),
    "apply.after": Point(_BOTH, _OWN),
    "publish.before": Point(_BOTH, _OWN),
    "publish.middle": Point(_BOTH, _OWN),
    "publish.after": Point(_BOTH, _OWN),
    # A file of a checkpoint: before anything is written, before it gets its name, once it has it.
    "shard.write": Point((SERVER,), _OWN),
    "shard.rename": Point((SERVER,), _OWN),
    "shard.written": Point((SERVER,), (*_OWN, CORRUPT)),
    "manifest.write": Point((SERVER,), _OWN),
    "manifest.rename": Point((SERVER,), _OWN),
    "manifest.written": Point((SERVER,), (*_OWN, CORRUPT)),
    # A file of a replica, the manifest's, too: before it goes to the hosts that hold it, and once they have it.
    "replica.write": Point((SERVER,), (*_OWN, CORRUPT)),
    "replica.written": Point((SERVER,), _OWN),
    # Between hosts, at the server that calls: before a message is sent, and before one is taken in. Gradients, and what
    # is said to them; what is said to parameters, and parameters; in ssp and async, parameters that are fetched; words
    # to and from the lead. Without a step it may be a message that only says how far the stream is.
    "rpc.push.request": Point((SERVER,), _MESSAGE),
    "rpc.push.reply": Point((SERVER,), _MESSAGE),
    "rpc.follow.request": Point((SERVER,), _MESSAGE),
    "rpc.follow.reply": Point((SERVER,), _MESSAGE),
    "rpc.pull.reply": Point((SERVER,), _MESSAGE),
    "rpc.attend.request": Point((SERVER,), _MESSAGE),
    "rpc.attend.reply": Point((SERVER,), _MESSAGE),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that shall go wrong.

    do, at:         of ACTS and POINTS
    worker, server: whose it is, by rank or by host; None: whoever comes first
    step:           the step in which; of a checkpoint, the steps before it; None: the first
    seconds:        how long a pause or a delay is; `jitter`: a delay may be so much shorter or longer
    byte:           of a message or file, the one that has a bit flipped, from its end where negative; None: the middle
    """

    do: str
    at: str
    worker: int | None = None
    server: int | None = None
    step: int | None = None
    seconds: float = 0.0
    jitter: float = 0.0
    byte: int | None = None

    def meets(self, part: str, number: int, step: int | None) -> bool:
        """Whether it is meant for worker or server `number`, in `step`; None: what happens belongs to no step."""
        own = {WORKER: self.worker, SERVER: self.server}
        other = own.pop(SERVER if part == WORKER else WORKER)
        return other is None and own[part] in (None, number) and self.step in (None, step)

    def __str__(self) -> str:
        rest = [f"{f.name} {value}" for f in fields(self)[2:] if (value := getattr(self, f.name)) != f.default]
        return ", ".join([f"{self.do} at {self.at}", *rest])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall go wrong in a run. `seed`: what is random follows from it."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @property
    def named(self) -> dict[str, Fault]:
        """The faults by name, in order."""
        seen: Counter[str] = Counter()
        named = {}
        for fault in self.faults:
            seen[str(fault)] += 1
            times = seen[str(fault)]
            named[str(fault) if times == 1 else f"{fault} ({times})"] = fault
        return named

    def of(self, part: str, number: int) -> dict[str, dict[str, Fault]]:
        """By point, and then by name: those that may meet worker or server `number`."""
        found: dict[str, dict[str, Fault]] = {}
        for name, fault in self.named.items():
            if part in POINTS[fault.at].parts and fault.meets(part, number, fault.step):
                found.setdefault(fault.at, {})[name] = fault
        return found

    def seconds(self, name: str) -> float:
        """How long the fault of this name lasts."""
        fault = self.named[name]
        return fault.seconds + fault.jitter * Random(f"{self.seed} {name}").uniform(-1, 1)


class Due(NamedTuple):
    """What is left to do for who came to a point: one of NAN, CORRUPT, DROP, DOUBLE; "": nothing."""

    do: str = ""
    byte: int | None = None

    def spoil(self, data: bytes) -> bytes:
        """`data` with the lowest bit of its byte flipped."""
        at = (len(data) // 2 if self.byte is None else self.byte) % max(1, len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else data


NOTHING: Final = Due()


def due(faults: Mapping[str, Fault], part: str, number: int, step: int | None, fired: Collection[str]) -> str | None:
    """The name of the fault that fires now; None: none does.

    faults: of the point that worker or server `number` has come to, by name
    fired:  names of those that did before
    """
    meant = (name for name, fault in faults.items() if name not in fired and fault.meets(part, number, step))
    return next(meant, None)
