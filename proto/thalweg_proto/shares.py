"""How pieces are dealt out: microbatches, held-out chunks and parts of the flat vector."""

from __future__ import annotations


def share(of: int, rank: int, workers: int) -> range:
    """Which of `of` equal pieces the worker `rank` of `workers` takes: contiguous, sizes differ by at most one."""
    return range(rank * of // workers, (rank + 1) * of // workers)
