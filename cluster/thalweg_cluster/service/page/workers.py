"""Where the time of each worker's steps went lately, and who is a straggler, from `so_far` of two rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thalweg_cluster.monitoring.rules import SLOW
from thalweg_cluster.server.telemetry import PHASES

SoFar = Mapping[str, Any]
WINDOW_S = 10.0
COUNTED = ("steps", "microbatches", *(f"{phase}_s" for phase in PHASES), "waited_for_s")


def window(told: Sequence[SoFar]) -> tuple[SoFar | None, SoFar]:
    """Between which two of those that were told, one or more and the newest last, to look: the newest, and the one at
    least WINDOW_S before it, or else the oldest of the same attempt; None: from the attempt's begin on."""
    now = told[-1]
    before = None
    for each in reversed(told[:-1]):
        if each["time_s"] > (now if before is None else before)["time_s"]:
            break  # another attempt
        before = each
        if now["time_s"] - each["time_s"] >= WINDOW_S:
            break
    return before, now


def by_worker(before: SoFar | None, now: SoFar) -> list[dict[str, Any]]:
    """Of each worker what went on between the two, as the page's API has it."""
    earlier = {} if before is None else {worker["rank"]: worker for worker in _rows(before)}
    found = [_between(earlier.get(worker["rank"]), worker) for worker in _rows(now)]
    paces = {worker["rank"]: worker["microbatch_ms"] for worker in found if worker["microbatches"]}
    for worker in found:
        others = [pace for rank, pace in paces.items() if rank != worker["rank"]]
        known = worker["rank"] in paces and sum(others) > 0
        worker["slowness"] = worker["microbatch_ms"] * len(others) / sum(others) if known else None
        worker["sits_out"] = worker["rank"] in now["sits_out"]
        worker["straggler"] = worker["sits_out"] or (worker["slowness"] or 0) > SLOW
    return found


def _rows(so_far: SoFar) -> list[dict[str, Any]]:
    columns = so_far["workers"]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _between(earlier: dict[str, Any] | None, later: dict[str, Any]) -> dict[str, Any]:
    new = earlier is None or any(later[name] < earlier[name] for name in COUNTED)  # a process that took its place
    counted = {name: later[name] - (0 if new or earlier is None else earlier[name]) for name in COUNTED}
    steps, microbatches = max(counted["steps"], 1), max(counted["microbatches"], 1)
    return {
        "rank": later["rank"],
        "steps": counted["steps"],
        "microbatches": counted["microbatches"],
        **{f"{phase}_ms": 1e3 * counted[f"{phase}_s"] / steps for phase in PHASES},
        "microbatch_ms": 1e3 * (counted["sample_s"] + counted["compute_s"]) / microbatches,
        "waited_for_s": counted["waited_for_s"],
    }
