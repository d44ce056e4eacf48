"""The grid of a scaling experiment: its configurations, what each changes in the job, and their order. Pure.

Rules:
  - Strong scaling: the batch is the job's, whatever the number of workers. Weak scaling: the job's batch is that of one
    worker, so that batch and microbatches grow with the workers.
  - In strong scaling the microbatches are the same everywhere (DESIGN 2.4: so are the bits), enough for the most
    workers.
  - Every repeat runs each configuration once, in an order of its own: what drifts in the meantime hits all alike, and
    configurations are compared within a repeat.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from thalweg_proto.errors import InputError, Problem
from thalweg_proto.job import ClusterSection, Job, TrainSection
from thalweg_proto.job.options import Section, options_in
from thalweg_proto.job.sections import MICROBATCHES

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Series:
    """What is compared over numbers of workers.

    hosts: on how many the workers are; None: wherever Ray places them
    """

    mode: str
    wire: str
    hosts: int | None = None

    def __str__(self) -> str:
        where = "" if self.hosts is None else f", {self.hosts} host{'s' if self.hosts > 1 else ''}"
        wire = "" if self.wire == "float32" else f", {self.wire}"
        return f"{self.mode}{wire}{where}"


@dataclass(frozen=True, order=True)
class Configuration:
    """One point of the grid."""

    series: Series
    workers: int

    def __str__(self) -> str:
        return f"{self.series}, {self.workers} worker{'s' if self.workers > 1 else ''}"

    @property
    def folder(self) -> str:
        """A name for its runs' folders."""
        hosts = "" if self.series.hosts is None else f"-{self.series.hosts}hosts"
        return f"{self.series.mode}-{self.series.wire}{hosts}-{self.workers}w"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What `thalweg scale` was asked for.

    workers, modes, wires, hosts: of the grid; hosts is () where Ray places as it likes
    weak:        whether the batch grows with the workers
    target_loss: to which the time is told; None: it is not asked for
    compute_ms:  what a microbatch takes with an engine that only sleeps; None: the job's own engine
    """

    workers: tuple[int, ...]
    modes: tuple[str, ...]
    wires: tuple[str, ...]
    hosts: tuple[int, ...] = ()
    repeats: int = 3
    weak: bool = False
    target_loss: float | None = None
    compute_ms: float | None = None
    seed: int = 0

    @property
    def configurations(self) -> list[Configuration]:
        """All of the grid; in sorted order. A configuration has at least a worker on each of its hosts."""
        return sorted(
            Configuration(Series(mode, wire, hosts), workers)
            for mode in self.modes
            for wire in self.wires
            for hosts in self.hosts or (None,)
            for workers in self.workers
            if hosts is None or hosts <= workers
        )

    def order(self) -> Iterator[tuple[int, Configuration]]:
        """Repeat and configuration of each run, in the order in which they are made."""
        for repeat in range(self.repeats):
            shuffled = self.configurations
            random.Random(f"{self.seed} {repeat}").shuffle(shuffled)
            yield from ((repeat, configuration) for configuration in shuffled)


def configured(experiment: Experiment, configuration: Configuration, job: Job) -> Job:
    """The job of a configuration. Keys that its mode does not know are left out; of checkpoints only the last is made.

    Strictly as the job says are data, model, rule, and how long it trains.
    """
    series, workers = configuration.series, configuration.workers
    train = _of_mode(job.train, series.mode)
    microbatches = train.microbatches or MICROBATCHES
    if not experiment.weak:
        train = replace(train, microbatches=max(microbatches, *experiment.workers))
    elif isinstance(train.batch_size, int):
        train = replace(train, batch_size=train.batch_size * workers, microbatches=microbatches * workers)
    changes: dict[str, Any] = {"workers": workers, "wire": series.wire}
    if series.wire != job.cluster.wire:
        changes["wire_fraction"] = None
    if series.hosts is not None:
        changes["placement"] = "PACK" if series.hosts == 1 else "SPREAD"
    if experiment.compute_ms is not None:
        changes |= _not_of(ClusterSection, "engine", "emulated")
        changes |= {"engine": "emulated", "emulated_ms": experiment.compute_ms}
    checkpoint = replace(job.checkpoint, every_steps=0, keep=1, replicate_every_s=0.0)
    return replace(job, train=train, cluster=replace(job.cluster, **changes), checkpoint=checkpoint)


def _of_mode(train: TrainSection, mode: str) -> TrainSection:
    return replace(train, **(_not_of(TrainSection, "consistency", mode) | {"consistency": mode}))


def _not_of(section: type[Section], of: str, value: str) -> dict[str, Any]:
    """None for each option of the field `of` that does not exist where that is `value`."""
    return {
        name: None
        for name, declared in options_in(section).items()
        if declared.of == of and value not in declared.defaults
    }


MODES = ("sync", "ssp", "async")
WIRES = ("float32", "bfloat16", "int8", "topk")


def asked(
    job: Job,
    *,
    workers: str,
    modes: str | None,
    wires: str | None,
    hosts: str | None,
    repeats: int,
    weak: bool,
    target_loss: float | None,
    emulate_compute: str | None,
) -> Experiment:
    """Of the options of the command, as they are typed. InputError with all that is wrong with them."""
    problems: list[Problem] = []

    def read(option: str, text: str | None, kind: Callable[[str], T], expected: str, otherwise: T) -> T:
        if text is None:
            return otherwise
        try:
            return kind(text)
        except ValueError:
            problems.append(Problem(option, expected, repr(text)))
            return otherwise

    counts = "whole numbers above 0 with commas between, such as 1,2,4"
    experiment = Experiment(
        workers=read("--workers", workers, _whole_numbers, counts, (1,)),
        modes=read("--modes", modes, partial(_words, of=MODES), _listed(MODES), (job.train.consistency,)),
        wires=read("--wires", wires, partial(_words, of=WIRES), _listed(WIRES), (job.cluster.wire,)),
        hosts=read("--hosts", hosts, _whole_numbers, counts, ()),
        repeats=repeats,
        weak=weak,
        target_loss=target_loss,
        compute_ms=read("--emulate-compute", emulate_compute, _milliseconds, "a time such as 20ms or 0.5s", None),
        seed=job.seed,
    )
    if not problems and not experiment.configurations:
        found = f"{hosts}, and at most {max(experiment.workers)} workers"
        problems.append(Problem("--hosts", "a worker for each host", found))
    if problems:
        raise InputError(problems)
    return experiment


def _listed(values: Sequence[str]) -> str:
    return f"some of {', '.join(values)}, with commas between"


def _whole_numbers(text: str) -> tuple[int, ...]:
    numbers = sorted({int(word) for word in text.split(",")})
    if numbers[0] < 1:
        raise ValueError(text)
    return tuple(numbers)


def _words(text: str, of: Sequence[str]) -> tuple[str, ...]:
    given = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not set(given) <= set(of):
        raise ValueError(text)
    return given


def _milliseconds(text: str) -> float | None:
    for unit, factor in (("ms", 1.0), ("s", 1e3)):
        if text.endswith(unit):
            value = float(text.removesuffix(unit)) * factor
            break
    else:
        raise ValueError(text)
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(text)
    return value
