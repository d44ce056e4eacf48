"""What happened during a run, from what the workers tell of their steps, many at a time.

Rules:
  - Nothing here is on the hot path: the records of many steps come in together and are added up with NumPy.
  - Memory does not grow with the number of steps: durations go into histograms of fixed bounds.
  - A step counts once; its phases count for each worker.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time

import numpy as np
from numpy.typing import NDArray

from thalweg_cluster.consistency.verdict import Verdict
from thalweg_cluster.server.waiting import Waiting
from thalweg_proto.wire import SEAL_BYTES, Bytes, Make

PHASES = ("sample", "compute", "push", "wait")
WARM_UP_STEPS = 10
"""Left out of samples_per_s and of the times by worker: caches, clocks and buffers are still cold."""
BUCKET_BOUNDS_S = (
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
_BOUNDS_S: NDArray[np.float64] = np.array(BUCKET_BOUNDS_S)
_FINE_S: NDArray[np.float64] = 1e-6 * 1.01 ** np.arange(2220, dtype=np.float64)  # from 1 us to over an hour


class Durations:
    """A histogram of durations: Prometheus buckets, sum and count.

    counts: how many fell at or below each bound of BUCKET_BOUNDS_S and above the one before; last: above all
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(BUCKET_BOUNDS_S) + 1, dtype=np.int64)
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Counts durations, shape (n,), n >= 1."""
        self.count += len(seconds)
        self.sum_s += float(seconds.sum())
        self.max_s = max(self.max_s, float(seconds.max()))
        self.counts += np.bincount(np.searchsorted(_BOUNDS_S, seconds), minlength=len(self.counts))

    @property
    def mean_ms(self) -> float:
        """The mean in milliseconds; 0 where there is none."""
        return 1e3 * self.sum_s / self.count if self.count else 0.0


class QuantileDurations(Durations):
    """Durations whose quantiles are known to 1 %, without keeping them: in bins that grow by 1 %."""

    def __init__(self) -> None:
        super().__init__()
        self._fine: NDArray[np.int64] = np.zeros(len(_FINE_S) + 1, dtype=np.int64)

    def add(self, seconds: NDArray[np.float64]) -> None:
        super().add(seconds)
        self._fine += np.bincount(np.searchsorted(_FINE_S, seconds), minlength=len(self._fine))

    def quantile_s(self, q: float) -> float:
        """The duration that a share `q` of all does not exceed, to 1 %; 0 where there is none."""
        if self.count == 0:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self._fine), q * self.count))
        return min(float(_FINE_S[min(bin_, len(_FINE_S) - 1)]), self.max_s)


class Staleness:
    """A histogram of the staleness of pushes, in versions.

    counts: how many had staleness 0, 1, 2, 4, ... at most, each above the bound before; last: above all
    """

    BOUNDS = (0, 1, 2, 4, 8, 16, 32, 64)

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(self.BOUNDS) + 1, dtype=np.int64)
        self.count = self.sum = self.max = 0

    def add(self, staleness: int, pushes: int = 1) -> None:
        """Counts `pushes` pushes."""
        self.counts[bisect_left(self.BOUNDS, staleness)] += pushes
        self.count += pushes
        self.sum += staleness * pushes
        self.max = max(self.max, staleness)

    def summary(self) -> dict[str, float]:
        """Mean and maximum; 0 where there was no push."""
        return {"mean": self.sum / self.count if self.count else 0.0, "max": self.max}


class WorkerTimes:
    """Where the time of one worker's steps went; in `summary` those of the warm-up are left out.

    phase_s, computed, told: seconds by phase, microbatches, and how many steps, of all steps
    """

    PARTS = (*PHASES, "apply")

    def __init__(self) -> None:
        self.phase_s = dict.fromkeys(PHASES, 0.0)
        self.computed = self.told = 0
        self.steps = self.microbatches = 0
        self._sums_s = dict.fromkeys(self.PARTS, 0.0)
        # Of the steps with microbatches: how many, their time, and the square of a step's mean time for a microbatch,
        # times its microbatches.
        self._working = 0
        self._busy_s = self._squares = 0.0

    def add(self, records: NDArray[np.void], warm: int) -> None:
        """Counts steps: STEP_DTYPE. From step `warm` on they are past the warm-up."""
        for phase in PHASES:
            self.phase_s[phase] += float(records[f"{phase}_s"].sum())
        self.computed += int(records["microbatches"].sum())
        self.told += len(records)
        records = records[records["step"] >= warm]
        self.steps += len(records)
        for part in self.PARTS:
            self._sums_s[part] += float(records[f"{part}_s"].sum())
        some = records[records["microbatches"] > 0]
        self.microbatches += int(some["microbatches"].sum())
        busy_s = some["sample_s"] + some["compute_s"]
        self._working += len(some)
        self._busy_s += float(busy_s.sum())
        self._squares += float((np.square(busy_s) / some["microbatches"]).sum())

    def summary(self) -> dict[str, float]:
        """Means in milliseconds; of a microbatch (drawing, forward and backward) also the standard deviation.

        What is known of a step is its mean over k microbatches, whose variance is that of one divided by k; so k times
        the squared deviation, averaged over the steps, is the variance of one.
        """
        steps, microbatches = max(self.steps, 1), max(self.microbatches, 1)
        mean_s = self._busy_s / microbatches
        variance = max(self._squares - microbatches * mean_s**2, 0.0) / max(self._working, 1)
        return {
            "steps": self.steps,
            "microbatches": self.microbatches,
            **{f"{part}_ms": 1e3 * self._sums_s[part] / steps for part in self.PARTS},
            "microbatch_ms": 1e3 * mean_s,
            "microbatch_sd_ms": 1e3 * variance**0.5,
        }


class DoorCounts:
    """What a server's gRPC doors made of pushes that no worker of the job sent; from any thread.

    clients: by what became of them; fenced: those of an earlier membership, by who sent them
    """

    def __init__(self) -> None:
        self.clients = dict.fromkeys((verdict.value for verdict in Verdict), 0)
        self.fenced = {"client": 0, "host": 0}
        self._lock = threading.Lock()

    def answered(self, verdict: Verdict) -> None:
        """A client's push was let in, and this became of it."""
        with self._lock:
            self.clients[verdict.value] += 1

    def fence(self, *, host: bool) -> None:
        """A push was refused for its generation; `host`: it came from a host of the job."""
        with self._lock:
            self.fenced["host" if host else "client"] += 1


class WireCounts:
    """What goes between one host and the others: bytes of the messages with tensors, as they are made and taken in; and
    how many messages of any kind came to this host again, or spoilt, or did not come and were asked for.

    counts: by name; those of coordination.proto's Beat
    """

    BYTES = ("gradients_sent", "gradients_received", "parameters_sent", "parameters_received")
    MESSAGES = ("messages_repeated", "messages_spoilt", "messages_missing")
    NAMES = BYTES + MESSAGES

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self.counts = dict(counts) if counts is not None else dict.fromkeys(self.NAMES, 0)
        self._lock = threading.Lock()  # each stream has a thread of its own

    def add(self, name: str, by: int) -> None:
        """Counts bytes or messages; from any thread."""
        if by:
            with self._lock:
                self.counts[name] += by

    def counting(self, name: str, make: Make) -> Make:
        """`make`, whose message is counted when it is made."""

        def counted() -> Sequence[Bytes]:
            parts = make()
            self.add(name, sum(memoryview(part).nbytes for part in parts) + SEAL_BYTES)
            return parts

        return counted


class Saves:
    """What became of checkpoints, or of replicas. Whoever writes or reads several figures holds the telemetry's lock.

    counts: how many were saved, failed, or were skipped since the one before was still being written
    step:   of the newest that was saved; None: none was
    at:     when that was there, in seconds since 1970; 0: there is none
    error:  what went wrong with the newest that failed; "": none did
    """

    def __init__(self, lock: threading.Lock, words: str) -> None:
        """`words`: what is said of one that failed, with {step} and {error}."""
        self.counts = {"saved": 0, "failed": 0, "skipped": 0}
        self.step: int | None = None
        self.at = 0.0
        self.error = ""
        self.durations = Durations()
        self._lock = lock
        self._words = words

    def saved(self, step: int, seconds: float) -> None:
        """One is there; it took `seconds` from the copy of the state on."""
        with self._lock:
            self.counts["saved"] += 1
            self.step, self.at = step, time()
            self.durations.add(np.array([seconds]))

    def failed(self, step: int, error: str) -> None:
        """One could not be saved."""
        with self._lock:
            self.counts["failed"] += 1
            self.error = self._words.format(step=step, error=error)

    def skipped(self) -> None:
        """One fell due that was left out."""
        with self._lock:
            self.counts["skipped"] += 1

    def summary(self) -> dict[str, int | None]:
        """The counts, and the step of the newest."""
        return {**self.counts, "step": self.step}


@dataclass
class Telemetry:
    """The counts of one server. One thread writes; reading is for any, under `lock` where figures belong together.

    bytes_pushed, bytes_published: what one push and one new version move, in bytes
    first, steps:                  steps that were taken before this run, and altogether
    published_s:                   when the newest counted version was published (perf_counter)
    checkpoints, replicas:         what became of them
    generation:                    of the membership on this host
    taken_over:                    microbatches that a worker computed in place of the one that they were dealt to
    copies_given, copies_won:      microbatches that a slow worker was in the middle of, and that others computed, too;
                                   how many of these were whole first
    pace_s:                        how long each worker takes for a microbatch, by rank; infinity: it sits out
    skipped:                       steps of this run that left the parameters as they were
    worker_times:                  where the time of each worker's steps went, by rank
    wire:                          by host, where there are several: this one's, and on the lead what others told last
    wire_formats:                  of what travels between hosts, by content
    compression_error:             norm of what the wire's format still owes of this host's gradients
    host, lead:                    which one this is; whether it speaks for all workers
    door:                          what the gRPC doors count
    meets:                         whether the workers wait for each other at the end of each step
    staleness_bound:               of the job; None: it has none
    save_every:                    steps between two checkpoints; 0: only at the end
    started_at:                    when the first step began, in seconds since 1970; 0: not yet
    """

    workers: int
    batch_size: int
    bytes_pushed: int
    bytes_published: int
    published_s: float = 0.0
    first: int = 0
    steps: int = 0
    pushes: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    loss: float = float("nan")
    learning_rate: float = float("nan")
    gradient_norm: float = float("nan")
    joined: int = 0
    evaluation_loss: float = float("nan")
    evaluation_accuracy: float = float("nan")
    phases: dict[str, Durations] = field(default_factory=lambda: {phase: Durations() for phase in PHASES})
    step_durations: QuantileDurations = field(default_factory=QuantileDurations)
    apply_durations: Durations = field(default_factory=Durations)
    staleness: Staleness = field(default_factory=Staleness)
    generation: int = 1
    taken_over: int = 0
    copies_given: int = 0
    copies_won: int = 0
    pace_s: Mapping[int, float] = field(default_factory=dict)
    skipped: int = 0
    worker_times: dict[int, WorkerTimes] = field(default_factory=dict)
    wire: dict[int, WireCounts] = field(default_factory=dict)
    wire_formats: Mapping[str, str] = field(default_factory=lambda: {"gradients": "float32", "parameters": "float32"})
    compression_error: float = 0.0
    host: int = 0
    lead: bool = True
    door: DoorCounts = field(default_factory=DoorCounts)
    meets: bool = True
    staleness_bound: int | None = 0
    save_every: int = 0
    started_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.waiting = Waiting(self.workers)
        self.checkpoints = Saves(self.lock, "the checkpoint after step {step} could not be saved: {error}")
        # The same words for all steps: where each fails alike, it is told once.
        self.replicas = Saves(
            self.lock, "no replica could be made, a lost server costs the steps since the newest checkpoint: {error}"
        )

    def heard(self, records: NDArray[np.void]) -> None:
        """Counts what one worker tells of its steps: STEP_DTYPE."""
        rank = int(records["rank"][0])
        with self.lock:
            for phase, durations in self.phases.items():
                durations.add(records[f"{phase}_s"])
            self.apply_durations.add(records["apply_s"])
            self.worker_times.setdefault(rank, WorkerTimes()).add(records, self.first + WARM_UP_STEPS)
            if self.meets and rank < self.workers:
                busy_s = records["sample_s"] + records["compute_s"]
                self.waiting.add(rank, records["step"], records["microbatches"], busy_s)

    def pushed(self, verdict: Verdict, staleness: int = 0, pushes: int = 1) -> None:
        """Counts pushes."""
        with self.lock:
            self.pushes[verdict] += pushes
            if verdict is Verdict.ACCEPTED:
                self.staleness.add(staleness, pushes)

    def copied(self, given: int, won: int) -> None:
        """Counts copies that were given, and that were whole first."""
        with self.lock:
            self.copies_given += given
            self.copies_won += won

    @property
    def duplicates(self) -> int:
        """Pushes of a name that was there before, and messages between hosts that came again: not taken in again."""
        with self.lock:
            repeated = sum(wire.counts["messages_repeated"] for wire in self.wire.values())
            return self.pushes[Verdict.DUPLICATE] + repeated

    def on_wire(self, host: int, counts: Mapping[str, int]) -> None:
        """Takes note of another host's WireCounts."""
        with self.lock:
            self.wire[host] = WireCounts(counts)

    def stepped(
        self,
        steps: int,
        loss: NDArray[np.float64],
        gradient_norm: NDArray[np.float64],
        published_s: NDArray[np.float64],
    ) -> None:
        """Counts new versions, with which `steps` steps are done; arrays (n,), n >= 1: of each new version.

        gradient_norm: NaN where it was not taken; published_s: when the version was whole (perf_counter)
        """
        with self.lock:
            each = (steps - self.steps) / len(loss)  # one, but for local steps
            durations = np.diff(published_s, prepend=self.published_s) / each
            self.step_durations.add(durations if each == 1 else np.repeat(durations, round(each)))
            self.steps, self.published_s, self.loss = steps, float(published_s[-1]), float(loss[-1])
            norms = gradient_norm[~np.isnan(gradient_norm)]
            if len(norms):
                self.gradient_norm = float(norms[-1])

    def step_skipped(self) -> None:
        """A step came to something that is not finite, and left the parameters as they were."""
        with self.lock:
            self.skipped += 1

    def phase_means_ms(self) -> dict[str, float]:
        """Mean time of each phase in a worker's step, in milliseconds."""
        return {name: durations.mean_ms for name, durations in self.phases.items()}

    def by_worker(self) -> list[dict[str, float]]:
        """Where the time of each worker's steps went (WorkerTimes.summary), by rank."""
        return [{"rank": rank, **times.summary()} for rank, times in sorted(self.worker_times.items())]

    def step_ms(self) -> dict[str, float]:
        """p50, p95 and max of the duration of a step, in milliseconds."""
        steps = self.step_durations
        return {
            "p50": 1e3 * steps.quantile_s(0.5),
            "p95": 1e3 * steps.quantile_s(0.95),
            "max": 1e3 * steps.max_s,
        }
