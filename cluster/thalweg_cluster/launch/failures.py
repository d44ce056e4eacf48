"""What went wrong in a run, put into words for the person who started it.

Rules:
  - The one who failed speaks first: a worker's own error, then a server's, and last the closed connection that others
    saw.
  - The same failure of several workers is told once, with their ranks.
  - Of a traceback, the user's own frames are shown; Ray's and ours are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ray.exceptions import RayActorError, RayError, RayTaskError

from thalweg_proto.errors import ServerError, ThalwegError


class Loss(NamedTuple):
    """A process that died: of the worker `number`, of the server of host `number`, or of the coordinator (0)."""

    kind: str  # "worker", "server" or "coordinator"
    number: int
    cause: str

    def __str__(self) -> str:
        where = {"worker": f"worker {self.number}", "server": f"the server of host {self.number}"}
        return f"{where.get(self.kind, 'the coordinator')}: {self.cause}"


class Failures:
    """The losses of a run so far, and whether it may go on."""

    def __init__(self, bound: int, losses: Iterable[Loss] = (), times: int = 0) -> None:
        """
        bound:  so many times a run may go on after a loss; -1: always
        losses: before now
        times:  so often the run has gone on after one
        """
        self._bound = bound
        self._losses = list(losses)
        self.times = times

    @property
    def losses(self) -> tuple[Loss, ...]:
        return tuple(self._losses)

    @property
    def exhausted(self) -> bool:
        """Whether the run may not go on after another loss."""
        return self._bound != -1 and self.times >= self._bound

    def may_go_on(self, losses: Sequence[Loss]) -> bool:
        """Takes note of what died at one time; whether the run may go on without it."""
        self._losses += losses
        if self.exhausted:
            return False
        self.times += 1
        return True

    @property
    def restarts(self) -> dict[str, int]:
        """How often workers and servers were replaced after a loss of their own."""
        kinds = Counter(loss.kind for loss in self._losses)
        return {kind: kinds[kind] for kind in ("worker", "server")}

    @property
    def allowed(self) -> str:
        """e.g. "2 of 3"."""
        return f"{self.times} of {self._bound}" if self._bound != -1 else str(self.times)

    def describe(self) -> str:
        """All causes, grouped by who was lost and how."""
        groups = Counter(str(loss) for loss in self._losses)
        lines = [f"  {count} x {what}" for what, count in groups.items()]
        return "\n".join([f"more than cluster.max_failures = {self._bound} failures:", *lines])


def only_saw_another_fail(error: RayError) -> bool:
    """Whether a worker failed only since its server did."""
    return isinstance(error, RayTaskError) and isinstance(error.cause, ServerError)


def failure_of(error: RayError) -> str:
    """What a Ray error says about the task that raised it."""
    if isinstance(error, RayTaskError):
        return str(error.cause if isinstance(error.cause, ThalwegError) else error)
    if isinstance(error, RayActorError):
        return f"its process died: {str(error).strip().splitlines()[0]}"
    return f"{type(error).__name__}: {error}"


def describe_failures(
    workers: Mapping[int, str],
    *,
    server: str | None,
    step: int | None = None,
    witnesses: Mapping[int, str] | None = None,
) -> str | None:
    """All failures of a run as one text, or None where there are none.

    workers: what each failed worker said, by rank
    server:  what the server said
    step:    how many steps were done
    witnesses: what each worker said that only saw another fail, by rank; told where nothing else is known
    """
    after = "" if step is None else f" after {step:,} steps"
    told = workers or ({} if server else witnesses or {})
    by_text: dict[str, list[int]] = {}
    for rank in sorted(told):
        by_text.setdefault(told[rank], []).append(rank)
    if by_text:
        return "\n".join(f"{_workers(ranks)} failed{after}: {text}" for text, ranks in by_text.items())
    return server


def _workers(ranks: list[int]) -> str:
    return f"worker {ranks[0]}" if len(ranks) == 1 else f"workers {', '.join(map(str, ranks))}"
