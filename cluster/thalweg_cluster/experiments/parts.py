"""Where the time of a step went, from what the workers measured themselves (summary.json, by_worker). Pure.

Each worker's step is sample + compute + push + wait, and apply is within wait. All parts are means over the workers, so
that they add up to the mean step:

    compute:  sample + compute
    slowest:  what the slowest worker's compute exceeds the mean by, in `sync`: the others wait for it that long
    update:   apply, where the workers sum and update themselves (one host, sync)
    wire:     the rest, where gradients and parameters cross a network
    exchange: the rest, where they do not: waking up, waiting for stragglers of the moment, the server's work
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

PARTS = ("compute", "slowest", "update", "wire", "exchange")
MEANING = {
    "compute": "drawing samples, forward and backward",
    "slowest": "waiting for the slowest worker",
    "update": "sum and update",
    "wire": "gradients and parameters between hosts",
    "exchange": "waking up, waiting for each other, the server's work",
}


@dataclass(frozen=True)
class Split:
    """Milliseconds of a mean step, by part; `slowest_worker`: the rank with the longest compute of a microbatch."""

    ms: Mapping[str, float]
    slowest_worker: int | None

    @property
    def step_ms(self) -> float:
        return sum(self.ms.values())

    @staticmethod
    def mean(splits: Sequence[Split]) -> Split:
        """Of repeats; the slowest worker is the one that was it most often."""
        ranks = [split.slowest_worker for split in splits if split.slowest_worker is not None]
        return Split(
            {part: mean(split.ms[part] for split in splits) for part in PARTS},
            max(sorted(set(ranks)), key=ranks.count) if ranks else None,
        )


def split_of(by_worker: Sequence[Mapping[str, Any]], *, sync: bool, hosts: int) -> Split | None:
    """Of the by_worker list of a summary; None where no worker measured a step after the warm-up."""
    workers = [worker for worker in by_worker if worker["steps"]]
    if not workers:
        return None
    busy = [worker["sample_ms"] + worker["compute_ms"] for worker in workers]
    step = mean(b + worker["push_ms"] + worker["wait_ms"] for b, worker in zip(busy, workers, strict=True))
    compute, update = mean(busy), mean(worker["apply_ms"] for worker in workers)
    waited = max(step - compute - update, 0.0)
    slowest = min(max(busy) - compute, waited) if sync else 0.0
    rest = waited - slowest
    ms = {
        "compute": compute,
        "slowest": slowest,
        "update": update,
        "wire": rest if hosts > 1 else 0.0,
        "exchange": rest if hosts == 1 else 0.0,
    }
    paced = [worker for worker in workers if worker["microbatches"]]
    pace = max(paced, key=lambda worker: float(worker["microbatch_ms"]), default=None)
    return Split(ms, None if pace is None or len(paced) < 2 else int(pace["rank"]))
