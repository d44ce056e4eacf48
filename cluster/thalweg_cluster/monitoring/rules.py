"""What Prometheus works out of the metrics (recording rules), and of what it warns (alerts).

Rules:
  - Each window is a number of scrapes, so that whoever scrapes more rarely looks over a longer time: Timing.
  - All is summed by job and run. A run that goes on after a loss has new processes, so new series; the sums go on.
  - What has nothing to say gives no series: no 0/0.
  - An alert says what to look at, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from thalweg_cluster.monitoring import catalogue as c
from thalweg_cluster.monitoring.targets import JOB, RUN

BY: Final = f"by ({JOB}, {RUN})"
BUSY: Final = 'phase=~"sample|compute"'
PUSH, WAIT = 'phase="push"', 'phase="wait"'
SLOW: Final = 1.5
"""A worker is a straggler where a microbatch takes it so many times what it takes the others."""
BEHIND: Final = 3
"""A checkpoint is too old where so many should have been made since."""
NEAR: Final = 0.8
"""Of the bound of staleness."""
RESTARTS: Final = 2
GROUPS: Final = ("thalweg", "thalweg-alerts")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """scrape_s: seconds between two scrapes, and between two looks at the rules; at least 1"""

    scrape_s: int = 5

    @property
    def window(self) -> str:
        """Of rates: a dozen scrapes."""
        return f"{12 * self.scrape_s}s"

    @property
    def patience(self) -> str:
        """For how long what is no single slow step has to last before it is told."""
        return f"{6 * self.scrape_s}s"

    @property
    def long(self) -> str:
        """Of what happens seldom: ten windows."""
        return f"{120 * self.scrape_s}s"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A series that Prometheus works out; `unit` and `help` as of a Metric, for the docs.

    name: level:what:how; labels: added ones
    """

    name: str
    expr: str
    unit: str
    help: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Alert:
    """for_: how long it must have been so; summary, action: for who is told, with {{ $labels }} filled in"""

    name: str
    expr: str
    for_: str
    severity: str
    summary: str
    action: str


def rate(metric: c.Metric | str, window: str, where: str = "") -> str:
    """How much a counter grows a second."""
    name = metric if isinstance(metric, str) else metric.name
    return f"rate({name}{f'{{{where}}}' if where else ''}[{window}])"


def recordings(timing: Timing = Timing()) -> list[Recording]:
    """All of them, each after those that it stands on."""
    w = timing.window
    spent = f"(sum {BY} ({rate(c.WORKER_PHASE_SECONDS, w)}) > 0)"

    def share(of: str) -> str:
        return f"sum {BY} ({of}) / {spent}"

    slowest = share(rate(c.WAITED_FOR, w))
    pace = "thalweg_worker:microbatch_seconds:mean"
    others = f"(sum {BY} ({pace}) - on ({JOB}, {RUN}) group_right () {pace})"
    return [
        Recording(
            name="thalweg_run:steps:rate", unit="steps a second", help="Steps published.",
            expr=f"sum {BY} ({rate(c.STEPS, w)})",
        ),
        Recording(
            name="thalweg_run:samples:rate", unit="samples a second", help="Samples trained on.",
            expr=f"sum {BY} ({rate(c.SAMPLES, w)})",
        ),
        Recording(
            name="thalweg_run:efficiency:ratio", unit="ratio",
            help="Share of the workers' time in which they draw samples and compute: 1 would be an ideal cluster.",
            expr=share(rate(c.WORKER_PHASE_SECONDS, w, BUSY)),
        ),
        Recording(
            name="thalweg_run:lost:ratio", unit="ratio", labels=(("cause", "slowest worker"),),
            help="Share of the workers' time in which they had nothing to compute while the slowest one of a step did.",
            expr=slowest,
        ),
        Recording(
            name="thalweg_run:lost:ratio", unit="ratio", labels=(("cause", "sum and update"),),
            help="Share that goes into summing gradients and applying the rule, by the workers; in `sync` on one host.",
            expr=share(rate(f"{c.APPLY_SECONDS.name}_sum", w)),
        ),
        Recording(
            name="thalweg_run:lost:ratio", unit="ratio", labels=(("cause", "push"),),
            help="Share that goes into handing over gradients.",
            expr=share(rate(c.WORKER_PHASE_SECONDS, w, PUSH)),
        ),
        Recording(
            name="thalweg_run:lost:ratio", unit="ratio", labels=(("cause", "other waiting"),),
            help="The rest of what is waited: for servers, the network, and being woken.",
            expr=f"clamp_min({share(rate(c.WORKER_PHASE_SECONDS, w, WAIT))}"
            f" - {slowest} - {share(rate(f'{c.APPLY_SECONDS.name}_sum', w))}, 0)",
        ),
        Recording(
            name=pace, unit="seconds", help="How long a worker takes for a microbatch.",
            expr=f"sum by ({JOB}, {RUN}, worker) ({rate(c.WORKER_PHASE_SECONDS, w, BUSY)}) / "
            f"(sum by ({JOB}, {RUN}, worker) ({rate(c.WORKER_MICROBATCHES, w)}) > 0)",
        ),
        Recording(
            name="thalweg_worker:slowness:ratio", unit="ratio",
            help="How many times as long a worker takes for a microbatch as the mean of the others.",
            expr=f"{pace} / ({others} / on ({JOB}, {RUN}) group_left () (count {BY} ({pace}) - 1 > 0))",
        ),
        Recording(
            name="thalweg_run:staleness_versions:p95", unit="versions",
            help="Staleness that 95 % of the pushes do not exceed.",
            expr=f"histogram_quantile(0.95, sum by ({JOB}, {RUN}, le) ({rate(f'{c.STALENESS.name}_bucket', w)})) >= 0",
        ),
        Recording(
            name="thalweg_run:checkpoint_age:seconds", unit="seconds",
            help="Since when the newest checkpoint is there.",
            expr=f"time() - max {BY} ({c.CHECKPOINT_TIMESTAMP.name})",
        ),
        Recording(
            name="thalweg_run:checkpoint_behind:steps", unit="steps",
            help="Steps since the newest checkpoint: lost with the next server, where there is no replica.",
            expr=f"max {BY} ({c.STEP.name}) - max {BY} ({c.CHECKPOINT_STEP.name})",
        ),
        Recording(
            name="thalweg_run:wire_bytes:rate", unit="bytes a second",
            help="Bytes between hosts, by direction, content and wire format.",
            expr=f"sum by ({JOB}, {RUN}, direction, content, format) (max by ({JOB}, {RUN}, host, direction, content, "
            f"format) ({rate(c.WIRE, w)}))",
        ),
    ]  # fmt: skip


def alerts(timing: Timing = Timing()) -> list[Alert]:
    """Of what Prometheus warns."""
    w, long = timing.window, timing.long
    who = f"job {{{{ $labels.{JOB} }}}}, run {{{{ $labels.{RUN} }}}}"
    return [
        Alert(
            name="ThalwegJobStalled", severity="critical", for_=timing.window,
            expr=f"sum {BY} (increase({c.STEPS.name}[{w}])) == 0 or "
            f"max {BY} ({c.RECOVERING.name}) > {12 * timing.scrape_s}",
            summary=f"{who}: no step was made.",
            action="Look whether all workers are there (thalweg_workers), what the command or the coordinator's "
            "log says, and whether Ray has room (`ray status`).",
        ),
        Alert(
            name="ThalwegStraggler", severity="warning", for_=timing.patience,
            expr=f"thalweg_worker:slowness:ratio > {SLOW} or "
            f"max by ({JOB}, {RUN}, worker) (min_over_time({c.PACE.name}[{w}])) == +Inf",
            summary=f"{who}: worker {{{{ $labels.worker }}}} is {{{{ $value | humanize }}}} times as slow as "
            f"the others.",
            action="See what else runs on its machine, and whether it is throttled; a run on Ray places it anew "
            "when its process ends. With consistency ssp or async nobody waits for it.",
        ),
        Alert(
            name="ThalwegLossNotFinite", severity="critical", for_="0s",
            expr=f"sum {BY} (increase({c.SKIPPED.name}[{w}])) > 0 or max {BY} (abs({c.LOSS.name})) == +Inf",
            summary=f"{who}: the loss or the gradient is not finite.",
            action="Lower optimizer.learning_rate, or set optimizer.clip_norm or optimizer.warmup_steps; look "
            "for NaN in the data. Ten such steps in a row end the run; with train.non_finite = \"stop\" the first "
            "one does.",
        ),
        Alert(
            name="ThalwegCheckpointTooOld", severity="warning", for_=timing.patience,
            expr=f"thalweg_run:checkpoint_behind:steps > {BEHIND} * (max {BY} ({c.CHECKPOINT_EVERY.name}) > 0)",
            summary=f"{who}: {{{{ $value | humanize }}}} steps would be lost.",
            action="See thalweg_checkpoints_total: where they fail, the run says why; where they are skipped, "
            "the storage is slower than they fall due.",
        ),
        Alert(
            name="ThalwegRestartsClimbing", severity="warning", for_="0s",
            expr=f"sum {BY} (increase({c.RESTARTS.name}[{long}])) >= {RESTARTS}",
            summary=f"{who}: {{{{ $value | humanize }}}} processes died and were replaced lately.",
            action="The run names the causes; beyond cluster.max_failures it fails. Look for memory (OOM) and "
            "nodes that come and go.",
        ),
        Alert(
            name="ThalwegStalenessNearBound", severity="warning", for_=timing.patience,
            expr=f"thalweg_run:staleness_versions:p95 >= {NEAR} * (max {BY} ({c.STALENESS_BOUND.name}) > 0)",
            summary=f"{who}: 95 % of the pushes are up to {{{{ $value | humanize }}}} versions old, near the bound.",
            action="Workers wait at the bound for the slowest one: find out which (ThalwegStraggler), or raise "
            "train.staleness.",
        ),
        Alert(
            name="ThalwegTargetDown", severity="warning", for_=timing.window,
            expr='up{job="thalweg"} == 0',
            summary=f"{who}: {{{{ $labels.thalweg_process }}}} does not answer at {{{{ $labels.instance }}}}.",
            action="The run was killed with all that belongs to it, or hangs: `thalweg watch` and `thalweg "
            "resume` with {{ $labels.thalweg_folder }} tell.",
        ),
    ]  # fmt: skip


def rule_groups(timing: Timing = Timing()) -> dict[str, Any]:
    """The file of rules, as Prometheus reads it."""
    interval = f"{timing.scrape_s}s"
    recorded = [
        {"record": r.name, "expr": r.expr, **({"labels": dict(r.labels)} if r.labels else {})}
        for r in recordings(timing)
    ]
    told = [
        {
            "alert": a.name,
            "expr": a.expr,
            "for": a.for_,
            "labels": {"severity": a.severity},
            "annotations": {"summary": a.summary, "action": a.action},
        }
        for a in alerts(timing)
    ]
    return {
        "groups": [
            {"name": name, "interval": interval, "rules": rules}
            for name, rules in zip(GROUPS, (recorded, told), strict=True)
        ]
    }
