"""Rounds of runs: what all comparisons do alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from rich.console import Console
from tests.benchmarks.figures import Measurement, turn
from tests.benchmarks.report import progress

W = TypeVar("W")


def in_rounds(
    measure: Callable[[str, W], Measurement],
    systems: tuple[str, ...],
    workloads: Iterable[W],
    titles: Mapping[str, str],
    *,
    repeats: int,
    console: Console,
) -> list[Measurement]:
    """`measure(system, workload)` for every system with every workload in every round, with a line on the console for
    each; the order of the systems turns from round to round."""
    measurements = []
    for round_index in range(repeats):
        for workload in workloads:
            for system in turn(systems, round_index):
                measurements.append(replace(measure(system, workload), round=round_index))
                console.print(progress(measurements[-1], repeats, titles[system]), soft_wrap=True)
    return measurements
