"""Unit tests of the rules, as `promtool test rules` runs them: series that were made up, and what comes of them.

Each alert has a case in which it is told, one moment before which it is not yet, and one after which it is no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from thalweg_cluster.monitoring import catalogue as c
from thalweg_cluster.monitoring.rules import GROUPS, Alert, Timing, alerts
from thalweg_cluster.monitoring.targets import JOB, RUN

_OF = {JOB: "digits", RUN: "first"}
_SCRAPED = {**_OF, "job": "thalweg", "instance": "127.0.0.1:1"}
Series = Mapping[str, Any]


def rule_tests(rules_file: str, timing: Timing = Timing()) -> dict[str, Any]:
    """The file of tests; `rules_file` as seen from it."""
    return {
        "rule_files": [rules_file],
        "evaluation_interval": f"{timing.scrape_s}s",
        "group_eval_order": list(GROUPS),  # else in a random one, and alerts stand on what was recorded one look before
        "tests": [_recorded(timing), *_told(timing)],
    }


def _series(metric: c.Metric | str, values: str, **labels: str) -> Series:
    """`values` in promtool's notation: 0+5x40 is 0, 5, 10, ... 200, one a scrape."""
    name = metric if isinstance(metric, str) else metric.name
    said = ",".join(f'{key}="{value}"' for key, value in {**_SCRAPED, **labels}.items())
    return {"series": f"{name}{{{said}}}", "values": values}


def _recorded(timing: Timing) -> dict[str, Any]:
    """Worker 1 takes ten times as long for a microbatch as worker 0, which waits for it for half of its time."""
    s = timing.scrape_s

    def each_second(amount: float) -> str:
        return f"0+{amount * s:g}x60"

    phases = [
        _series(c.WORKER_PHASE_SECONDS, each_second(amount), worker=worker, phase=phase)
        for worker, phase, amount in (
            ("0", "compute", 0.4), ("0", "sample", 0.1), ("0", "push", 0.0), ("0", "wait", 0.5),
            ("1", "compute", 0.9), ("1", "sample", 0.0), ("1", "push", 0.1), ("1", "wait", 0.0),
        )
    ]  # fmt: skip
    input_ = [
        _series(c.STEPS, each_second(10)),
        _series(c.SAMPLES, each_second(640)),
        *phases,
        _series(c.WORKER_MICROBATCHES, each_second(10), worker="0"),
        _series(c.WORKER_MICROBATCHES, each_second(1.8), worker="1"),
        _series(c.WAITED_FOR, each_second(0), worker="0"),
        _series(c.WAITED_FOR, each_second(0.3), worker="1"),
        _series(f"{c.APPLY_SECONDS.name}_sum", each_second(0.1)),
        _series(c.STEP, f"100+{10 * s}x60"),
        _series(c.CHECKPOINT_STEP, "100+0x60"),
        _series(c.CHECKPOINT_TIMESTAMP, "7+0x60"),
        _series(c.WIRE, each_second(100), host="0", direction="sent", content="gradients", format="int8"),
        _series(c.WIRE, each_second(50), host="1", direction="sent", content="gradients", format="int8"),
        # 90 of 100 pushes are not stale, 10 are 1 or 2 versions old: so is the 95th, half of the way from 1 to 2.
        *(
            _series(f"{c.STALENESS.name}_bucket", each_second(count), le=le)
            for le, count in (("0.0", 90), ("1.0", 90), ("2.0", 100), ("+Inf", 100))
        ),
    ]
    at = 30 * s
    expected: list[tuple[str, dict[str, str], float]] = [
        ("thalweg_run:steps:rate", {}, 10),
        ("thalweg_run:samples:rate", {}, 640),
        ("thalweg_run:efficiency:ratio", {}, 0.7),
        ("thalweg_run:lost:ratio", {"cause": "slowest worker"}, 0.15),
        ("thalweg_run:lost:ratio", {"cause": "sum and update"}, 0.05),
        ("thalweg_run:lost:ratio", {"cause": "push"}, 0.05),
        ("thalweg_run:lost:ratio", {"cause": "other waiting"}, 0.05),
        ("thalweg_worker:microbatch_seconds:mean", {"worker": "0"}, 0.05),
        ("thalweg_worker:microbatch_seconds:mean", {"worker": "1"}, 0.5),
        ("thalweg_worker:slowness:ratio", {"worker": "0"}, 0.1),
        ("thalweg_worker:slowness:ratio", {"worker": "1"}, 10),
        ("thalweg_run:staleness_versions:p95", {}, 1.5),
        ("thalweg_run:checkpoint_age:seconds", {}, at - 7),
        ("thalweg_run:checkpoint_behind:steps", {}, 10 * at),
        (
            "thalweg_run:wire_bytes:rate",
            {"direction": "sent", "content": "gradients", "format": "int8"},
            150,
        ),
    ]
    names = sorted({name for name, _, _ in expected})
    return {
        "name": "what is worked out",
        "interval": f"{s}s",
        "input_series": input_,
        "promql_expr_test": [
            {
                # To three digits: sums of floats differ in the last ones.
                "expr": f"round({name}, 0.001)",
                "eval_time": f"{at}s",
                "exp_samples": [
                    {"labels": _written({**_OF, **labels}), "value": value}
                    for each, labels, value in expected
                    if each == name
                ],
            }
            for name in names
        ],
    }


def _written(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"


def _told(timing: Timing) -> list[dict[str, Any]]:
    """For each alert: its series, when it is not told yet, when it is, with what value, and when no more."""
    s = timing.scrape_s
    straggler = [
        # Worker 1 is five times as slow as worker 0, for 40 scrapes; then it is as quick.
        _series(c.WORKER_PHASE_SECONDS, f"0+{s}x100", worker="0", phase="compute"),
        _series(c.WORKER_PHASE_SECONDS, f"0+{s}x100", worker="1", phase="compute"),
        _series(c.WORKER_MICROBATCHES, f"0+{5 * s}x100", worker="0"),
        _series(c.WORKER_MICROBATCHES, f"0+{s}x40 {41 * s + 4 * s}+{5 * s}x60", worker="1"),
    ]
    every = _series(c.CHECKPOINT_EVERY, "100+0x100")
    cases: dict[str, tuple[list[Series], int, int, dict[str, str], str, int]] = {
        "ThalwegJobStalled": ([_series(c.STEPS, f"0+{s}x20 {20 * s}+0x40 {21 * s}+{s}x60")], 25, 50, {}, "0", 80),
        "ThalwegStraggler": (straggler, 5, 30, {"worker": "1"}, "5", 70),
        "ThalwegLossNotFinite": ([_series(c.SKIPPED, "0+0x20 1+0x60")], 20, 22, {}, "", 40),
        "ThalwegCheckpointTooOld": (
            [_series(c.STEP, "0+20x100"), _series(c.CHECKPOINT_STEP, "0+0x60 1220+20x30"), every],
            15, 40, {}, "800", 70,
        ),
        "ThalwegRestartsClimbing": (
            [_series(c.RESTARTS, "0+0x20 1+0x20 2+0x140", process="worker"),
             _series(c.RESTARTS, "0+0x30 1+0x150", process="server")],
            25, 60, {}, "3", 180,
        ),
        "ThalwegStalenessNearBound": (
            [*(_series(f"{c.STALENESS.name}_bucket", f"0+{count}x40 {40 * count + late}+{late}x60", le=le)
               for le, count, late in (("0.0", 0, 100), ("4.0", 0, 100), ("8.0", 100, 100), ("+Inf", 100, 100))),
             _series(c.STALENESS_BOUND, "8+0x100")],
            5, 30, {}, "7.8", 70,
        ),
        "ThalwegTargetDown": (
            [_series("up", "1+0x20 0+0x40 1+0x40", thalweg_process="server 0", thalweg_folder="/runs/first")],
            30, 40, {"job": "thalweg", "instance": "127.0.0.1:1", "thalweg_process": "server 0",
                     "thalweg_folder": "/runs/first"}, "", 70,
        ),
    }  # fmt: skip
    tests = []
    for alert in alerts(timing):
        input_, before, during, labels, value, after = cases[alert.name]
        tests.append(
            {
                "name": alert.name,
                "interval": f"{s}s",
                "input_series": input_,
                "alert_rule_test": [
                    {"eval_time": f"{before * s}s", "alertname": alert.name, "exp_alerts": []},
                    {
                        "eval_time": f"{during * s}s",
                        "alertname": alert.name,
                        "exp_alerts": [_expected(alert, {**_OF, **labels}, value)],
                    },
                    {"eval_time": f"{after * s}s", "alertname": alert.name, "exp_alerts": []},
                ],
            }
        )
    return tests


def _expected(alert: Alert, labels: Mapping[str, str], value: str) -> dict[str, Any]:
    def filled(text: str) -> str:
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], text)
        return text.replace("{{ $value | humanize }}", value)

    return {
        "exp_labels": {"severity": alert.severity, **labels},
        "exp_annotations": {"summary": filled(alert.summary), "action": filled(alert.action)},
    }
