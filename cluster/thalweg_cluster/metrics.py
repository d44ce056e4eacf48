"""The Prometheus metrics of a server, made from its telemetry when they are scraped.

Names follow the Prometheus conventions: prefix `thalweg_`, base units, `_total` on counters. No label has values that
grow without bound: phases, results, states, directions, hosts and workers are fixed sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from thalweg_cluster.server.telemetry import BUCKET_BOUNDS_S, Durations, Staleness, Telemetry, WireCounts

_GAUGES = (
    ("loss", "Mean loss over the batch of the newest step.", "loss"),
    ("learning_rate", "Learning rate of the newest step.", "learning_rate"),
    (
        "gradient_norm",
        "Euclidean norm of the summed gradient, taken with each line of metrics.jsonl.",
        "gradient_norm",
    ),
    ("evaluation_loss", "Mean loss over the held-out samples.", "evaluation_loss"),
    ("evaluation_accuracy_ratio", "Share of the held-out samples classified rightly.", "evaluation_accuracy"),
)


class TelemetryCollector(Collector):
    """Turns a Telemetry into metric families, once for each scrape."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        with self._telemetry.lock:
            families = list(self._families(self._telemetry))
        yield from families

    @staticmethod
    def _families(t: Telemetry) -> Iterator[Metric]:
        yield CounterMetricFamily("thalweg_steps", "Steps applied and published by this run.", t.steps - t.first)
        yield CounterMetricFamily(
            "thalweg_samples", "Samples that went into these steps.", (t.steps - t.first) * t.batch_size
        )
        yield CounterMetricFamily(
            "thalweg_steps_skipped",
            "Steps of this run that were not finite, and left the parameters as they were.",
            t.skipped,
        )
        yield GaugeMetricFamily(
            "thalweg_step", "Steps applied since the job began, those before a resume counted.", t.steps
        )
        for name, help_, attribute in _GAUGES:
            value = getattr(t, attribute)
            if not np.isnan(value):  # not known yet, or never for this job: no series rather than NaN
                yield GaugeMetricFamily(f"thalweg_{name}", help_, value)
        states = GaugeMetricFamily("thalweg_workers", "Workers by state.", labels=["state"])
        states.add_metric(["joined"], t.joined)
        states.add_metric(["expected"], t.workers - t.joined)
        yield states
        yield GaugeMetricFamily(
            "thalweg_generation", "Number of the membership: it grows with each change.", t.generation
        )
        if t.pace_s:
            pace = GaugeMetricFamily(
                "thalweg_worker_microbatch_seconds",
                "Shortest of the newest few microbatches of a worker; +Inf while it leaves them to quicker ones.",
                labels=["worker"],
            )
            for rank, seconds in t.pace_s.items():
                pace.add_metric([str(rank)], seconds)
            yield pace
            yield CounterMetricFamily(
                "thalweg_microbatches_taken_over",
                "Microbatches computed by another worker than the one that they were dealt to.",
                t.taken_over,
            )
        pushes = CounterMetricFamily("thalweg_pushes", "Gradient pushes by what became of them.", labels=["result"])
        for verdict, count in t.pushes.items():
            pushes.add_metric([verdict.value], count)
        yield pushes
        staleness = HistogramMetricFamily(
            "thalweg_staleness_versions", "How many versions old what a push is based on was."
        )
        staleness.add_metric([], *_buckets(Staleness.BOUNDS, t.staleness.counts, t.staleness.sum))
        yield staleness
        moved = CounterMetricFamily("thalweg_exchanged_bytes", "Bytes exchanged with workers.", labels=["direction"])
        moved.add_metric(["push"], sum(t.pushes.values()) * t.bytes_pushed)
        moved.add_metric(["publish"], (t.steps - t.first) * t.bytes_published)
        yield moved
        if t.wire:
            wire = CounterMetricFamily(
                "thalweg_wire_bytes",
                "Bytes of the messages with tensors between a host and the others.",
                labels=["host", "direction", "content"],
            )
            for host, counts in sorted(t.wire.items()):
                for name in WireCounts.BYTES:
                    content, direction = name.split("_")
                    wire.add_metric([str(host), direction, content], counts.counts[name])
            yield wire
            amiss = CounterMetricFamily(
                "thalweg_wire_messages_amiss",
                "Messages between hosts that came again, and were ignored; spoilt, or not at all, and were asked for.",
                labels=["host", "how"],
            )
            for host, counts in sorted(t.wire.items()):
                for name in WireCounts.MESSAGES:
                    amiss.add_metric([str(host), name.removeprefix("messages_")], counts.counts[name])
            yield amiss
        phases = HistogramMetricFamily(
            "thalweg_step_phase_seconds", "Time of a worker's step by phase.", labels=["phase"]
        )
        for phase, durations in t.phases.items():
            phases.add_metric([phase], *_histogram(durations))
        yield phases
        checkpoints = CounterMetricFamily(
            "thalweg_checkpoints", "Checkpoints by what became of them.", labels=["result"]
        )
        for result, count in t.checkpoints.items():
            checkpoints.add_metric([result], count)
        yield checkpoints
        if t.checkpoint_step is not None:
            yield GaugeMetricFamily("thalweg_checkpoint_step", "Step of the newest checkpoint.", t.checkpoint_step)
        for name, help_, durations in (
            ("step", "From one publish to the next.", t.step_durations),
            ("apply", "A worker's share of summing the gradients and applying the rule.", t.apply_durations),
            ("checkpoint", "From the copy of the state until the checkpoint is there.", t.checkpoint_durations),
        ):
            family = HistogramMetricFamily(f"thalweg_{name}_seconds", help_)
            family.add_metric([], *_histogram(durations))
            yield family


def _histogram(durations: Durations) -> tuple[list[tuple[str, float]], float]:
    return _buckets(BUCKET_BOUNDS_S, durations.counts, durations.sum_s)


def _buckets(bounds: Sequence[float], counts: NDArray[np.int64], total: float) -> tuple[list[tuple[str, float]], float]:
    """The cumulative buckets, and the sum."""
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, (float(c) for c in np.cumsum(counts)), strict=True)), total


def serve_metrics(telemetry: Telemetry, port: int, address: str = "127.0.0.1") -> int:
    """Serves /metrics on `address`, from a thread of its own; returns the port (a free one where `port` is 0).

    OSError where the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(telemetry))
    server, _ = start_http_server(port, addr=address, registry=registry)
    return int(server.server_port)
