"""How pieces are dealt out: samples to microbatches, microbatches and held-out chunks to workers, parts of the flat
vector to workers and their threads."""

from __future__ import annotations


def share(of: int, rank: int, workers: int) -> range:
    """Which of `of` pieces number `rank` of `workers` takes: contiguous, and sizes differ by at most one."""
    return range(rank * of // workers, (rank + 1) * of // workers)
