"""What went wrong in a run, put into words for the person who started it.

Rules:
  - The one who failed speaks first: a worker's own error, then a server's, and last the closed connection that others
    saw.
  - The same failure of several workers is told once, with their ranks.
  - Of a traceback, the user's own frames are shown; Ray's and ours are not.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.exceptions import RayActorError, RayError, RayTaskError

from thalweg_proto.errors import ServerError, ThalwegError


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
