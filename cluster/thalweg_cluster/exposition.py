"""Metrics as text, and the HTTP server that answers with them.

prometheus_client would do both; but it takes several milliseconds to put a thousand series into words, in the process
that a run waits for. Here what does not change of a line, its name and labels, is put together once.

(https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from thalweg_cluster.monitoring.catalogue import Metric
from thalweg_cluster.web import Answering, HttpServer

LOOPBACK = "127.0.0.1"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LINES = 8192


class Histogram(NamedTuple):
    """counts: shape (n + 1,): how many fell at or below each of the n bounds and above the one before; last: above all
    sum: of all values
    """

    bounds: Sequence[float]
    counts: NDArray[np.int64]
    sum: float


Value = float | Histogram


def family(metric: Metric, *values: Value | tuple[Sequence[object], Value]) -> list[str]:
    """The lines of a metric; a value with labels comes after these, in the order of `metric.labels`."""
    lines = [_head(metric)]
    for each in values:
        labels, value = each if isinstance(each, tuple) and not isinstance(each, Histogram) else ((), each)
        if isinstance(value, Histogram):
            counts = value.counts.cumsum().tolist()
            *bounds, sum_, count = _histogram_keys(metric, tuple(labels), tuple(value.bounds))
            lines += [f"{key} {number}" for key, number in zip(bounds, counts, strict=True)]
            lines += (f"{sum_} {_number(value.sum)}", f"{count} {counts[-1]}")
        else:
            lines.append(f"{_key(metric, tuple(labels))} {_number(value)}")
    return lines


def text(families: Iterable[Iterable[str]]) -> str:
    """All lines of an answer."""
    return "".join(f"{line}\n" for lines in families for line in lines)


@lru_cache(_LINES)
def _head(metric: Metric) -> str:
    help_ = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {metric.name} {help_}\n# TYPE {metric.name} {metric.kind.value}"


@lru_cache(_LINES)
def _key(metric: Metric, labels: tuple[object, ...], suffix: str = "", *more: tuple[str, str]) -> str:
    if len(labels) != len(metric.labels):
        expected = ", ".join(metric.labels) or "no label"
        raise ValueError(f"{metric.name}: expected values of {expected}; found {labels}")
    named = (*zip(metric.labels, map(str, labels), strict=True), *more)
    escaped = [(key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in named]
    said = ",".join(f'{key}="{value}"' for key, value in escaped)
    return f"{metric.name}{suffix}{{{said}}}" if said else f"{metric.name}{suffix}"


@lru_cache(_LINES)
def _histogram_keys(metric: Metric, labels: tuple[object, ...], bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (
        *(_key(metric, labels, "_bucket", ("le", _number(bound))) for bound in (*bounds, math.inf)),
        _key(metric, labels, "_sum"),
        _key(metric, labels, "_count"),
    )


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    number = float(value)
    if math.isfinite(number):
        return repr(number)
    return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"


_PROCESS = CollectorRegistry()
ProcessCollector(registry=_PROCESS)


def of_process() -> bytes:
    """What Prometheus wants to know of any process: CPU, memory, files, start."""
    return generate_latest(_PROCESS)


def serve(metrics: Callable[[], str], port: int, address: str = LOOPBACK) -> int:
    """Serves /metrics on `address`, from threads of its own: what `metrics` says, called in one of them, and what
    `of_process` does. Returns the port (a free one where `port` is 0).

    OSError where the port is taken.
    """

    class Metrics(Answering):
        def get(self) -> None:
            known = self.path.partition("?")[0] == "/metrics"
            body = metrics().encode() + of_process() if known else b"there is nothing but /metrics\n"
            self.answer(200 if known else 404, CONTENT_TYPE, body)

    server = HttpServer(address, port, Metrics, name="thalweg-metrics")
    server.open()
    return server.server_port
