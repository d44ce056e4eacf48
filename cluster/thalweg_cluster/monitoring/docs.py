"""The page that lists every metric, made from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable

from thalweg_cluster.monitoring.catalogue import LABELS, METRICS, Metric, Process
from thalweg_cluster.monitoring.rules import Timing, alerts, recordings
from thalweg_cluster.monitoring.targets import LABELS as TARGET_LABELS


def metrics_page(timing: Timing = Timing()) -> str:
    """Markdown."""
    return "\n".join(
        [
            "# Metrics",
            "",
            "Made from `cluster/thalweg_cluster/monitoring/catalogue.py` and `rules.py`; `thalweg monitor` "
            "writes it, too.",
            "",
            "Which run a series belongs to is said by the target that it was scraped from:",
            "",
            *(f"- `{name}`: {meaning}" for name, meaning in TARGET_LABELS.items()),
            "",
            "Labels of metrics:",
            "",
            *(f"- `{name}`: {meaning}" for name, meaning in LABELS.items()),
            "",
            "Each process has the usual `process_*` metrics besides: CPU, memory, open files, start.",
            "",
            "## Of a server",
            "",
            "The server of host 0, the lead, has all of them; those of other hosts have what is marked with *.",
            "",
            *_table(metric for metric in METRICS if metric.process is Process.SERVER),
            "",
            "## Of the coordinator",
            "",
            *_table(metric for metric in METRICS if metric.process is Process.COORDINATOR),
            "",
            "## Of the service",
            "",
            *_table(metric for metric in METRICS if metric.process is Process.SERVICE),
            "",
            "## What Prometheus works out",
            "",
            f"Over {timing.window}, where a window is needed: a dozen scrapes.",
            "",
            "| series | unit | meaning |",
            "|---|---|---|",
            *(
                f"| `{each.name}`{''.join(f', {key} `{value}`' for key, value in each.labels)} | {each.unit} | "
                f"{each.help} |"
                for each in recordings(timing)
            ),
            "",
            "## Alerts",
            "",
            "| alert | severity | for | what to do |",
            "|---|---|---|---|",
            *(f"| `{each.name}` | {each.severity} | {each.for_} | {_plain(each.action)} |" for each in alerts(timing)),
            "",
        ]
    )


def _table(metrics: Iterable[Metric]) -> list[str]:
    return [
        "| metric | type | unit | labels | meaning | when it is bad |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{metric.name}`{' *' if metric.everywhere else ''} | {metric.kind.value} | {metric.unit} | "
            f"{', '.join(metric.labels) or '-'} | {metric.help} | {metric.bad} |"
            for metric in metrics
        ),
    ]


def _plain(action: str) -> str:
    return action.replace("{{ $labels.thalweg_folder }}", "its folder")
