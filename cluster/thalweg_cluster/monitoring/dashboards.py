"""What Grafana shows: the cluster, one job, runs side by side, and the service.

Rules:
  - What shows one number shows the last one of the time range, so that a run that has ended has one.
  - Figures are those of recording rules where there are any: dashboards and alerts say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from thalweg_cluster.monitoring import catalogue as c
from thalweg_cluster.monitoring.panels import Panel, Query, dashboard, variable
from thalweg_cluster.monitoring.rules import BY, SLOW, Timing
from thalweg_cluster.monitoring.targets import JOB, RUN

OF: Final = f'{JOB}=~"$job", {RUN}=~"$run"'
NAMED: Final = f"{{{{{JOB}}}}} {{{{{RUN}}}}}"
SERVICE: Final = "service.json"
"""Of series that a service has; a run alone has none."""
NOT_YET: Final = "no run in this time range"
_RATE: Final = "$__rate_interval"


def dashboards(timing: Timing = Timing()) -> dict[str, dict[str, Any]]:
    """The models by file name."""
    refresh = f"{2 * timing.scrape_s}s"
    return {
        "cluster.json": dashboard(
            "thalweg-cluster", "Thalweg: cluster", "All runs: how many there are, what they get done, what is lost.",
            _variables(multi=True), _cluster(), refresh=refresh,
        ),
        "job.json": dashboard(
            "thalweg-job", "Thalweg: one job", "One run: its curve, where its time goes, for whom it waits, "
            "what moves.",
            _variables(multi=False), _job(), refresh=refresh,
        ),
        "comparison.json": dashboard(
            "thalweg-comparison", "Thalweg: experiments side by side", "Runs of one or more jobs, beside each other.",
            _variables(multi=True), _comparison(), refresh=refresh,
        ),
        SERVICE: dashboard(
            "thalweg-service", "Thalweg: service", "The queue of jobs, and how the service answers.",
            [], _service(), refresh=refresh,
        ),
    }  # fmt: skip


def _variables(*, multi: bool) -> list[dict[str, Any]]:
    steps = c.STEPS.name
    return [
        variable("job", "Job", f"label_values({steps}, {JOB})", multi=multi),
        variable("run", "Run", f'label_values({steps}{{{JOB}=~"$job"}}, {RUN})', multi=multi),
    ]


def _max(metric: c.Metric | str) -> str:
    """A gauge, by run."""
    return f"max {BY} ({metric if isinstance(metric, str) else metric.name}{{{OF}}})"


def _last(metric: c.Metric | str) -> str:
    """What a gauge came to in the time range, by run."""
    name = metric if isinstance(metric, str) else metric.name
    return f"max {BY} (last_over_time({name}{{{OF}}}[$__range]))"


def _rate(metric: c.Metric, by: str, where: str = "") -> str:
    """A counter's growth a second, by job, run, and more labels."""
    more = f", {by}" if by else ""
    also = f", {where}" if where else ""
    return f"sum by ({JOB}, {RUN}{more}) (rate({metric.name}{{{OF}{also}}}[{_RATE}]))"


def _grown(metric: c.Metric, by: str) -> str:
    """How much a counter grew in the time range, by another label."""
    return f"sum by ({by}) (max_over_time({metric.name}{{{OF}}}[$__range]))"


def _quantiles(metric: c.Metric, *quantiles: float) -> list[Query]:
    return [
        Query(
            expr=f"histogram_quantile({q}, sum by ({JOB}, {RUN}, le) "
            f"(rate({metric.name}_bucket{{{OF}}}[{_RATE}]))) >= 0",
            legend=f"{q:.0%} {NAMED}",
        )
        for q in quantiles
    ]


def _one(expr: str, legend: str = NAMED) -> list[Query]:
    return [Query(expr=expr, legend=legend)]


def _described(metric: c.Metric) -> str:
    return f"{metric.help} {metric.bad}"


def _cluster() -> Sequence[tuple[str, Sequence[Panel]]]:
    workers = f'{c.WORKERS.name}{{{OF}, state="joined"}}'
    return [
        (
            "Now",
            [
                Panel(
                    title="Runs", unit="none", kind="stat", width=4, empty=NOT_YET,
                    description="Runs of which something was scraped in the time range.",
                    queries=_one(f"count(count {BY} (last_over_time({c.STEPS.name}{{{OF}}}[$__range])))", "runs"),
                ),
                Panel(
                    title="Workers", unit="none", kind="stat", width=4, empty=NOT_YET,
                    description="Most workers that were there at the same time in the time range.",
                    queries=_one(f"max_over_time(sum({workers})[$__range:])", "workers"),
                ),
                Panel(
                    title="Efficiency", unit="percentunit", kind="stat", width=4, empty=NOT_YET, min=0, max=1,
                    description="Share of all workers' time in which they compute, the mean over the runs, at the end.",
                    colours=((None, "red"), (0.5, "orange"), (0.8, "green")),
                    queries=_one(f"avg({_last('thalweg_run:efficiency:ratio')})", "efficiency"),
                ),
                Panel(
                    title="Alerts", unit="none", kind="stat", width=4, empty="no alert",
                    description="Alerts of these runs that were firing in the time range.",
                    colours=((None, "green"), (1, "red")),
                    queries=_one(
                        'count(last_over_time(ALERTS{alertname=~"Thalweg.*", alertstate="firing"}[$__range])) '
                        "or vector(0)", "alerts",
                    ),
                ),
                Panel(
                    title="Processes that answer", unit="percentunit", kind="stat", width=4, empty=NOT_YET, min=0,
                    max=1,
                    description="Share of the processes that answer when they are asked for their metrics. "
                    "Below 1: one was killed, or hangs.",
                    colours=((None, "red"), (1, "green")),
                    queries=_one('avg(last_over_time(up{job="thalweg"}[$__range]))', "up"),
                ),
                Panel(
                    title="Restarts", unit="none", kind="stat", width=4, empty=NOT_YET,
                    description=_described(c.RESTARTS), colours=((None, "green"), (1, "orange")),
                    queries=_one(f"sum({_grown(c.RESTARTS, 'process')})", "restarts"),
                ),
            ],
        ),
        (
            "Runs",
            [
                Panel(
                    title="Samples a second", unit="cps", empty=NOT_YET, min=0, description=_described(c.SAMPLES),
                    queries=_one(_max("thalweg_run:samples:rate")),
                ),
                Panel(
                    title="Efficiency", unit="percentunit", empty=NOT_YET, min=0, max=1,
                    description="Share of the workers' time in which they draw samples and compute. What is missing to "
                    "1 stands in the dashboard of one job, by cause.",
                    queries=_one(_max("thalweg_run:efficiency:ratio")),
                ),
                Panel(
                    title="Workers by state", unit="none", empty=NOT_YET, min=0, description=_described(c.WORKERS),
                    queries=_one(f"sum by ({JOB}, {RUN}, state) ({c.WORKERS.name}{{{OF}}})", f"{NAMED} {{{{state}}}}"),
                ),
                Panel(
                    title="Slowest worker", unit="none", empty="runs with two workers or more have one", min=0,
                    description="How many times as long the slowest worker of a run takes for a microbatch as the mean "
                    f"of the others; above {SLOW} for a while an alert is told.",
                    queries=_one(_max("thalweg_worker:slowness:ratio")),
                ),
                Panel(
                    title="Bytes between hosts", unit="Bps", empty=NOT_YET, min=0, description=_described(c.WIRE),
                    queries=_one(f"sum {BY} (thalweg_run:wire_bytes:rate{{{OF}}})"),
                ),
                Panel(
                    title="Memory of servers and coordinators", unit="bytes", empty=NOT_YET, min=0,
                    description="Resident memory of each process that is scraped; it holds parameters and the rule's "
                    "state. Grows without end: report it.",
                    queries=_one(f"process_resident_memory_bytes{{{OF}}}", f"{NAMED} {{{{thalweg_process}}}}"),
                ),
                Panel(
                    title="CPU of servers and coordinators", unit="percentunit", empty=NOT_YET, min=0,
                    description="Share of one core that each process takes. In `sync` on one host the server "
                    "sleeps: its workers do its part of a step.",
                    queries=_one(
                        f"rate(process_cpu_seconds_total{{{OF}}}[{_RATE}])", f"{NAMED} {{{{thalweg_process}}}}"
                    ),
                ),
                Panel(
                    title="Age of the newest checkpoint", unit="s", empty=NOT_YET, min=0,
                    description=_described(c.CHECKPOINT_TIMESTAMP),
                    queries=_one(_max("thalweg_run:checkpoint_age:seconds")),
                ),
            ],
        ),
    ]  # fmt: skip


def _job() -> Sequence[tuple[str, Sequence[Panel]]]:
    return [
        (
            "The run",
            [
                Panel(
                    title="Steps", unit="none", kind="stat", width=4, empty=NOT_YET, description=_described(c.STEP),
                    queries=_one(_last(c.STEP), "steps"),
                ),
                Panel(
                    title="Loss", unit="none", kind="stat", width=4, empty="no step yet",
                    description=_described(c.LOSS),
                    queries=_one(_last(c.LOSS), "loss"),
                ),
                Panel(
                    title="Efficiency", unit="percentunit", kind="stat", width=4, empty="no step yet", min=0, max=1,
                    description="Share of the workers' time in which they draw samples and compute.",
                    colours=((None, "red"), (0.5, "orange"), (0.8, "green")),
                    queries=_one(_last("thalweg_run:efficiency:ratio"), "efficiency"),
                ),
                Panel(
                    title="Steps that a loss would cost", unit="none", kind="stat", width=4, empty=NOT_YET,
                    description=_described(c.CHECKPOINT_STEP),
                    queries=_one(_last("thalweg_run:checkpoint_behind:steps"), "steps"),
                ),
                Panel(
                    title="Restarts", unit="none", kind="bargauge", width=4, empty=NOT_YET, min=0,
                    description=_described(c.RESTARTS), colours=((None, "green"), (1, "orange")),
                    queries=_one(_grown(c.RESTARTS, "process"), "{{process}}"),
                ),
                Panel(
                    title="Steps that were not finite", unit="none", kind="stat", width=4, empty=NOT_YET,
                    description=_described(c.SKIPPED), colours=((None, "green"), (1, "red")),
                    queries=_one(f"sum(max_over_time({c.SKIPPED.name}{{{OF}}}[$__range]))", "skipped"),
                ),
                Panel(
                    title="Loss", unit="none", empty="no step yet", description=_described(c.LOSS),
                    queries=[
                        Query(expr=_max(c.LOSS), legend="training"),
                        Query(expr=_max(c.EVALUATION_LOSS), legend="held-out"),
                    ],
                ),
                Panel(
                    title="Held-out accuracy", unit="percentunit", empty="not evaluated, or no classes", min=0, max=1,
                    description=_described(c.EVALUATION_ACCURACY), queries=_one(_max(c.EVALUATION_ACCURACY),
                    "accuracy"),
                ),
                Panel(
                    title="Gradient norm", unit="none", empty="not taken yet", description=_described(c.GRADIENT_NORM),
                    queries=_one(_max(c.GRADIENT_NORM), "norm"),
                ),
                Panel(
                    title="Learning rate", unit="none", empty="no step yet", description=_described(c.LEARNING_RATE),
                    queries=_one(_max(c.LEARNING_RATE), "learning rate"),
                ),
            ],
        ),
        (
            "Where the time goes",
            [
                Panel(
                    title="Efficiency, and what is lost", unit="percentunit", stacked=True, empty="no step yet", min=0,
                    description="The workers' time by what it is spent on; together 1. `slowest worker`: the "
                    "others had nothing to compute while one of a step still did.",
                    queries=[
                        Query(expr=_max("thalweg_run:efficiency:ratio"), legend="computing"),
                        Query(expr=f"max by ({JOB}, {RUN}, cause) (thalweg_run:lost:ratio{{{OF}}})",
                        legend="{{cause}}"),
                    ],
                ),
                Panel(
                    title="Waited for, by worker", unit="percentunit", empty="workers that wait for each other: sync",
                    description=_described(c.WAITED_FOR), min=0,
                    queries=_one(_rate(c.WAITED_FOR, "worker"), "worker {{worker}}"),
                ),
                Panel(
                    title="A step", unit="s", empty="no step yet", min=0, description=_described(c.STEP_SECONDS),
                    queries=_quantiles(c.STEP_SECONDS, 0.5, 0.95),
                ),
                Panel(
                    title="A microbatch, by worker", unit="s", empty="no step yet", min=0,
                    description="How long each worker takes for a microbatch, drawing its samples included. One "
                    "far above the others is a straggler.",
                    queries=_one(
                        f"max by ({JOB}, {RUN}, worker) (thalweg_worker:microbatch_seconds:mean{{{OF}}})",
                        "worker {{worker}}",
                    ),
                ),
                Panel(
                    title="Phases of a worker's step, mean", unit="s", empty="no step yet", min=0, stacked=True,
                    description=_described(c.PHASE_SECONDS),
                    queries=_one(
                        f"sum by ({JOB}, {RUN}, phase) (rate({c.PHASE_SECONDS.name}_sum{{{OF}}}[{_RATE}])) / "
                        f"(sum by ({JOB}, {RUN}, phase) (rate({c.PHASE_SECONDS.name}_count{{{OF}}}[{_RATE}])) > 0)",
                        "{{phase}}",
                    ),
                ),
                Panel(
                    title="Microbatches, by worker", unit="cps", empty="no step yet", min=0,
                    description=_described(c.WORKER_MICROBATCHES),
                    queries=[
                        Query(expr=_rate(c.WORKER_MICROBATCHES, "worker"), legend="worker {{worker}}"),
                        Query(expr=_rate(c.TAKEN_OVER, ""), legend="taken over"),
                        Query(expr=_rate(c.COPIES, "copies"), legend="copies {{copies}}"),
                    ],
                ),
                Panel(
                    title="Pace, by worker", unit="s", empty="workers that meet on one host: sync", min=0,
                    description=_described(c.PACE),
                    queries=_one(f"max by ({JOB}, {RUN}, worker) ({c.PACE.name}{{{OF}}})", "worker {{worker}}"),
                ),
                Panel(
                    title="Sum and update", unit="s", empty="no step yet", min=0,
                    description=_described(c.APPLY_SECONDS),
                    queries=_quantiles(c.APPLY_SECONDS, 0.5, 0.95),
                ),
            ],
        ),
        (
            "Gradients and parameters",
            [
                Panel(
                    title="Bytes between hosts, by direction and wire format", unit="Bps", empty=NOT_YET, min=0,
                    description=_described(c.WIRE),
                    queries=_one(f"thalweg_run:wire_bytes:rate{{{OF}}}", "{{content}} {{direction}}, {{format}}"),
                ),
                Panel(
                    title="Bytes in shared memory", unit="Bps", empty=NOT_YET, min=0,
                    description=_described(c.EXCHANGED),
                    queries=_one(_rate(c.EXCHANGED, "direction"), "{{direction}}"),
                ),
                Panel(
                    title="Error of the wire format", unit="none", empty=NOT_YET, min=0,
                    description=_described(c.COMPRESSION_ERROR),
                    queries=_one(f"max by ({JOB}, {RUN}, host) ({c.COMPRESSION_ERROR.name}{{{OF}}})", "host {{host}}"),
                ),
                Panel(
                    title="Staleness", unit="none", empty="no push yet", min=0, description=_described(c.STALENESS),
                    queries=[
                        *_quantiles(c.STALENESS, 0.5, 0.95),
                        Query(expr=_max(c.STALENESS_BOUND), legend="bound"),
                    ],
                ),
                Panel(
                    title="Pushes by result", unit="cps", empty=NOT_YET, min=0, description=_described(c.PUSHES),
                    queries=_one(_rate(c.PUSHES, "result"), "{{result}}"),
                ),
                Panel(
                    title="Duplicates, late and fenced pushes", unit="none", empty=NOT_YET, min=0, kind="bargauge",
                    description=f"In the time range. {_described(c.FENCED)} {_described(c.CLIENT_PUSHES)} "
                    f"{_described(c.AMISS)}",
                    queries=[
                        Query(
                            expr=_grown(c.PUSHES, "result").replace("}[", ', result!="accepted"}['),
                            legend="workers: {{result}}",
                        ),
                        Query(expr=_grown(c.CLIENT_PUSHES, "result"), legend="clients: {{result}}"),
                        Query(expr=_grown(c.FENCED, "sender"), legend="fenced: {{sender}}"),
                        Query(expr=_grown(c.AMISS, "how"), legend="between hosts: {{how}}"),
                    ],
                ),
            ],
        ),
        (
            "Checkpoints and failures",
            [
                Panel(
                    title="Age of the newest checkpoint", unit="s", empty=NOT_YET, min=0,
                    description=_described(c.CHECKPOINT_TIMESTAMP),
                    queries=_one(_max("thalweg_run:checkpoint_age:seconds"), "age"),
                ),
                Panel(
                    title="Steps since the newest checkpoint", unit="none", empty=NOT_YET, min=0,
                    description=_described(c.CHECKPOINT_STEP),
                    queries=[
                        Query(expr=_max("thalweg_run:checkpoint_behind:steps"), legend="since the newest"),
                        Query(expr=_max(c.CHECKPOINT_EVERY), legend="from one to the next"),
                    ],
                ),
                Panel(
                    title="Checkpoints by result", unit="none", empty=NOT_YET, min=0, kind="bargauge",
                    description=_described(c.CHECKPOINTS), queries=_one(_grown(c.CHECKPOINTS, "result"), "{{result}}"),
                ),
                Panel(
                    title="Writing a checkpoint", unit="s", empty="no checkpoint yet", min=0,
                    description=_described(c.CHECKPOINT_SECONDS),
                    queries=_one(
                        f"sum {BY} ({c.CHECKPOINT_SECONDS.name}_sum{{{OF}}}) / "
                        f"(sum {BY} ({c.CHECKPOINT_SECONDS.name}_count{{{OF}}}) > 0)",
                        "mean",
                    ),
                ),
                Panel(
                    title="Steps since the newest replica", unit="none", empty=NOT_YET, min=0,
                    description=_described(c.REPLICA_STEP),
                    queries=_one(f"{_max(c.STEP)} - {_max(c.REPLICA_STEP)}", "since the newest"),
                ),
                Panel(
                    title="Replicas by result", unit="none", empty=NOT_YET, min=0, kind="bargauge",
                    description=_described(c.REPLICAS), queries=_one(_grown(c.REPLICAS, "result"), "{{result}}"),
                ),
                Panel(
                    title="Time in which a replica is under way", unit="percentunit", empty=NOT_YET, min=0,
                    description=_described(c.REPLICATING), queries=_one(_rate(c.REPLICATING, ""), "of the time"),
                ),
                Panel(
                    title="Recovery", unit="s", empty=NOT_YET, min=0, description=_described(c.RECOVERY_SECONDS),
                    queries=[
                        Query(expr=_max(c.RECOVERING), legend="recovering since"),
                        Query(
                            expr=f"max {BY} ({c.RECOVERY_SECONDS.name}_sum{{{OF}}})", legend="all recoveries together"
                        ),
                    ],
                ),
                Panel(
                    title="Membership", unit="none", empty=NOT_YET, min=0,
                    description=f"{_described(c.GENERATION)} {_described(c.ATTEMPTS)}",
                    queries=[
                        Query(expr=_max(c.GENERATION), legend="generation"),
                        Query(expr=_max(c.ATTEMPTS), legend="attempts"),
                        Query(
                            expr=f"sum by ({JOB}, {RUN}, state) ({c.WORKERS.name}{{{OF}}})", legend="workers {{state}}"
                        ),
                    ],
                ),
            ],
        ),
    ]  # fmt: skip


def _comparison() -> Sequence[tuple[str, Sequence[Panel]]]:
    def table(title: str, unit: str, expr: str, description: str) -> Panel:
        return Panel(
            title=title, unit=unit, kind="bargauge", width=8, empty=NOT_YET, min=0, description=description,
            queries=_one(expr),
        )  # fmt: skip

    mean = f"avg {BY} (avg_over_time(%s{{{OF}}}[$__range]))"
    return [
        (
            "What each run came to, in the time range",
            [
                table("Samples a second, mean", "cps", mean % "thalweg_run:samples:rate", _described(c.SAMPLES)),
                table(
                    "Efficiency, mean", "percentunit", mean % "thalweg_run:efficiency:ratio",
                    "Share of the workers' time in which they draw samples and compute.",
                ),
                table(
                    "Lost to the slowest worker, mean", "percentunit",
                    mean.replace(OF, f'{OF}, cause="slowest worker"') % "thalweg_run:lost:ratio",
                    "Share of the workers' time in which they had nothing to compute while the slowest one of a "
                    "step did.",
                ),
                table("Loss, last", "none", _last(c.LOSS), _described(c.LOSS)),
                table(
                    "Held-out accuracy, last", "percentunit", _last(c.EVALUATION_ACCURACY),
                    _described(c.EVALUATION_ACCURACY),
                ),
                table("Steps, last", "none", _last(c.STEP), _described(c.STEP)),
            ],
        ),
        (
            "Side by side",
            [
                Panel(
                    title="Loss", unit="none", empty=NOT_YET, description=_described(c.LOSS),
                    queries=_one(_max(c.LOSS)),
                ),
                Panel(
                    title="Held-out loss", unit="none", empty="not evaluated",
                    description=_described(c.EVALUATION_LOSS),
                    queries=_one(_max(c.EVALUATION_LOSS)),
                ),
                Panel(
                    title="Samples a second", unit="cps", empty=NOT_YET, min=0, description=_described(c.SAMPLES),
                    queries=_one(_max("thalweg_run:samples:rate")),
                ),
                Panel(
                    title="Efficiency", unit="percentunit", empty=NOT_YET, min=0, max=1,
                    description="Share of the workers' time in which they draw samples and compute.",
                    queries=_one(_max("thalweg_run:efficiency:ratio")),
                ),
                Panel(
                    title="A step, median", unit="s", empty=NOT_YET, min=0, description=_described(c.STEP_SECONDS),
                    queries=_quantiles(c.STEP_SECONDS, 0.5),
                ),
                Panel(
                    title="Bytes between hosts", unit="Bps", empty=NOT_YET, min=0, description=_described(c.WIRE),
                    queries=_one(f"sum {BY} (thalweg_run:wire_bytes:rate{{{OF}}})"),
                ),
            ],
        ),
    ]  # fmt: skip


def _service() -> Sequence[tuple[str, Sequence[Panel]]]:
    none = "no service in this time range"
    return [
        (
            "Jobs",
            [
                Panel(
                    title="Jobs by state", unit="none", empty=none, min=0, description=_described(c.JOBS),
                    queries=_one(f"sum by (job_state) ({c.JOBS.name})", "{{job_state}}"),
                ),
                Panel(
                    title="Longest time in the queue", unit="s", empty=none, min=0,
                    description=_described(c.OLDEST_QUEUED),
                    queries=_one(f"max({c.OLDEST_QUEUED.name})", "waits"),
                ),
            ],
        ),
        (
            "Answers",
            [
                Panel(
                    title="Calls by method and status", unit="cps", empty=none, min=0, description=_described(c.CALLS),
                    queries=_one(
                        f"sum by (method, status) (rate({c.CALLS.name}[{_RATE}]))", "{{method}} {{status}}"
                    ),
                ),
                Panel(
                    title="Time until the answer, 99 %", unit="s", empty=none, min=0,
                    description=_described(c.CALL_SECONDS),
                    queries=_one(
                        f"histogram_quantile(0.99, sum by (method, le) (rate({c.CALL_SECONDS.name}_bucket[{_RATE}])))",
                        "{{method}}",
                    ),
                ),
                Panel(
                    title="Memory", unit="bytes", empty=none, min=0,
                    description="Resident memory of the service. Grows without end: report it.",
                    queries=_one('process_resident_memory_bytes{job="thalweg-service"}', "service"),
                ),
                Panel(
                    title="CPU", unit="percentunit", empty=none, min=0,
                    description="Share of one core that the service takes. Above 1 for long: it answers more than it "
                    "can.",
                    queries=_one(f'rate(process_cpu_seconds_total{{job="thalweg-service"}}[{_RATE}])', "service"),
                ),
            ],
        ),
    ]  # fmt: skip
