"""The Prometheus metrics of a process, made from what it has counted when they are scraped.

What there is, and what it is called, stands in monitoring/catalogue.py; here each metric gets its values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thalweg_cluster.exposition import LOOPBACK, Histogram, family, serve, text
from thalweg_cluster.monitoring import catalogue as c
from thalweg_cluster.server.telemetry import BUCKET_BOUNDS_S, Durations, Staleness, Telemetry, WireCounts, WorkerTimes

_NOT_ALWAYS_KNOWN = (
    (c.LOSS, "loss"),
    (c.LEARNING_RATE, "learning_rate"),
    (c.GRADIENT_NORM, "gradient_norm"),
    (c.EVALUATION_LOSS, "evaluation_loss"),
    (c.EVALUATION_ACCURACY, "evaluation_accuracy"),
)


def metrics_of(telemetry: Telemetry) -> str:
    """What a server answers a scrape with."""
    with telemetry.lock:
        return text([*_own(telemetry), *(_of_all(telemetry) if telemetry.lead else ())])


def serve_metrics(telemetry: Telemetry, port: int, address: str = LOOPBACK) -> int:
    """Serves /metrics of a server; see `serve`."""
    return serve(lambda: metrics_of(telemetry), port, address)


def _durations(durations: Durations) -> Histogram:
    return Histogram(BUCKET_BOUNDS_S, durations.counts, durations.sum_s)


def _own(t: Telemetry) -> Iterator[list[str]]:
    """What each server has of its own."""
    yield family(c.CLIENT_PUSHES, *(((result,), count) for result, count in t.door.clients.items()))
    yield family(c.FENCED, *(((sender,), count) for sender, count in t.door.fenced.items()))
    yield family(c.COMPRESSION_ERROR, ((str(t.host),), t.compression_error))
    yield family(c.CHECKPOINTS, *(((result,), count) for result, count in t.checkpoints.counts.items()))
    wire = t.wire or {t.host: WireCounts()}  # alone, a host sends nothing: that is known, not missing
    yield family(
        c.WIRE,
        *(
            ((host, direction, content, t.wire_formats[content]), count)
            for host, counts in sorted(wire.items())
            for name in WireCounts.BYTES
            for content, direction in [name.split("_")]
            for count in [counts.counts[name]]
        ),
    )


def _of_all(t: Telemetry) -> Iterator[list[str]]:
    """What the lead has of the run."""
    done = t.steps - t.first
    yield family(c.STEPS, done)
    yield family(c.SAMPLES, done * t.batch_size)
    yield family(c.SKIPPED, t.skipped)
    yield family(c.STEP, t.steps)
    for metric, attribute in _NOT_ALWAYS_KNOWN:
        value = getattr(t, attribute)
        if not np.isnan(value):  # not known yet, or never for this job: no series rather than NaN
            yield family(metric, value)
    yield family(c.WORKERS, (("joined",), t.joined), (("expected",), t.workers - t.joined))
    yield family(c.GENERATION, t.generation)
    if t.pace_s:
        yield family(c.PACE, *(((rank,), seconds) for rank, seconds in t.pace_s.items()))
    yield family(c.TAKEN_OVER, t.taken_over)
    yield family(c.COPIES, (("given",), t.copies_given), (("won",), t.copies_won))
    yield family(c.PUSHES, *(((verdict.value,), count) for verdict, count in t.pushes.items()))
    amiss = dict.fromkeys(WireCounts.MESSAGES, 0)
    for counts in t.wire.values():
        amiss = {name: count + counts.counts[name] for name, count in amiss.items()}
    yield family(c.AMISS, *(((name.removeprefix("messages_"),), count) for name, count in amiss.items()))
    yield family(c.STALENESS, Histogram(Staleness.BOUNDS, t.staleness.counts, t.staleness.sum))
    if t.staleness_bound is not None:
        yield family(c.STALENESS_BOUND, t.staleness_bound)
    pushed = sum(t.pushes.values()) * t.bytes_pushed
    yield family(c.EXCHANGED, (("push",), pushed), (("publish",), done * t.bytes_published))
    yield family(c.PHASE_SECONDS, *(((phase,), _durations(durations)) for phase, durations in t.phases.items()))
    yield family(c.STEP_SECONDS, _durations(t.step_durations))
    yield family(c.APPLY_SECONDS, _durations(t.apply_durations))
    workers = [(rank, t.worker_times.get(rank, WorkerTimes())) for rank in range(t.workers)]
    yield family(
        c.WORKER_PHASE_SECONDS,
        *(((rank, phase), seconds) for rank, times in workers for phase, seconds in times.phase_s.items()),
    )
    yield family(c.WORKER_MICROBATCHES, *(((rank,), times.computed) for rank, times in workers))
    yield family(c.WAITED_FOR, *(((rank,), seconds) for rank, seconds in enumerate(t.waiting.for_s.tolist())))
    yield family(c.CHECKPOINT_SECONDS, _durations(t.checkpoints.durations))
    yield family(c.CHECKPOINT_EVERY, t.save_every)
    yield family(c.CHECKPOINT_STEP, t.first if t.checkpoints.step is None else t.checkpoints.step)
    yield family(c.REPLICAS, *(((result,), count) for result, count in t.replicas.counts.items()))
    yield family(c.REPLICA_STEP, t.first if t.replicas.step is None else t.replicas.step)
    yield family(c.REPLICATING, t.replicas.durations.sum_s)
    if t.started_at:
        yield family(c.STARTED, t.started_at)
        yield family(c.CHECKPOINT_TIMESTAMP, t.checkpoints.at or t.started_at)
