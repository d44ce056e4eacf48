"""A real Prometheus, with the files of `thalweg monitor`, watches a real run that has a straggler for a while."""

from __future__ import annotations

import json
import math
import signal
from contextlib import ExitStack
from time import time

import pytest
from tests.scenarios.conftest import ended, spawn
from tests.scenarios.conftest import until as until_it_says
from tests.scenarios.prometheus import TIMING, implausible, needs_prometheus, panel_queries, until, watching

from thalweg_cluster.monitoring.dashboards import SERVICE
from thalweg_cluster.monitoring.rules import alerts, recordings

pytestmark = [pytest.mark.slow, pytest.mark.alone, needs_prometheus]

DELAYS = 100
PLAN = """
[[fault]]
do = "delay"
at = "gradient.before"
worker = 1
seconds = 0.3
"""
"""So many microbatches of worker 1 take 0.3 s longer, whichever they are; then it is as quick as the other."""


@pytest.fixture
def targets(tmp_path):
    return tmp_path / "targets"


@pytest.fixture
def prometheus(tmp_path, targets):
    with watching(tmp_path / "monitor", targets, "--interval", str(TIMING.scrape_s)) as answering:
        yield answering


@pytest.fixture
def run(ray_address, job, tmp_path, targets):
    """A job of 2 workers that does not end by itself, and has a straggler at first."""
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN * DELAYS)
    out = tmp_path / "out"
    sets = ["train.steps=10000000", "train.eval_every=200", "checkpoint.every_steps=200"]
    sets += ["model.hidden=[256, 128]", "train.batch_size=1024"]  # a millisecond a microbatch: more than noise
    with ExitStack() as stack:
        command = spawn(
            stack, out, "train", str(job), "--out", str(out), "--faults", str(plan),
            *(part for word in sets for part in ("--set", word)),
            RAY_ADDRESS=ray_address, THALWEG_TARGETS=str(targets),
        )  # fmt: skip
        until_it_says(command, "step ")
        yield command


@pytest.mark.faults("worker slow for a while, watched", how="plan: 0.3 s a microbatch", expected="alert comes and goes")
def test_every_panel_and_rule_has_an_answer_and_the_straggler_is_told(prometheus, run, targets, tmp_path):
    """The alert names worker 1, and ends when it is as quick as the other again. Every expression of every panel and
    rule has a plausible answer while the run goes on; and every number of a dashboard still has one after its end."""
    [file] = targets.glob("*.json")
    groups = {group["labels"]["thalweg_process"]: group for group in json.loads(file.read_text())}
    assert sorted(groups) == ["coordinator", "server 0"]
    assert {group["labels"]["thalweg_folder"] for group in groups.values()} == {str(tmp_path / "out")}
    until(lambda: prometheus.query("count(up{job='thalweg'} == 1) == 2"), "both processes scraped", 60)

    straggler = ("ThalwegStraggler", "1")
    slowness = until(lambda: prometheus.firing().get(straggler), "an alert of worker 1", 120)
    assert slowness > 2
    lost = dict.fromkeys(("0", "1"), 0.0) | {
        labels["worker"]: value for labels, value in prometheus.query("thalweg_waited_for_seconds_total")
    }
    assert lost["1"] > 2 * lost["0"]  # the waiting is put down to it, too
    until(lambda: straggler not in prometheus.firing(), "that the alert ends with the delays", 180)

    everything = {name: asked for name, asked in panel_queries().items() if not name.startswith(SERVICE)}
    answers = {name: prometheus.query(expression) for name, (expression, _) in everything.items()}
    found = {
        name: why
        for name, (expression, panel) in everything.items()
        if (why := implausible([value for _, value in answers[name]], panel, expression))
    }
    assert found == {}
    for recording in recordings(TIMING):
        values = [value for _, value in prometheus.query(recording.expr)]
        assert values, recording.name
        assert all(math.isfinite(value) and value >= 0 for value in values), (recording.name, values)
        assert prometheus.query(recording.name), recording.name
    shares = prometheus.query("thalweg_run:efficiency:ratio + on () group_left () sum(thalweg_run:lost:ratio)")
    assert [value for _, value in shares] == pytest.approx([1.0], abs=0.05)
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(recordings(TIMING)) + len(alerts(TIMING))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert set(prometheus.firing()) <= {straggler}  # a noisy machine may make one again

    [(_, scrape_s)] = prometheus.query("max(scrape_duration_seconds)")
    [(_, series)] = prometheus.query("sum(scrape_samples_scraped)")
    print(
        f"{len(everything)} expressions of panels; {series:.0f} series; the longest scrape took {1e3 * scrape_s:.1f} ms"
    )

    run.send_signal(signal.SIGINT)
    summary = ended(run).summary
    assert summary["state"] == "cancelled"
    assert list(targets.iterdir()) == []
    until(lambda: prometheus.query("up{job='thalweg'}") == [], "that nothing is scraped any more", 30)
    for name, (expression, panel) in everything.items():
        if panel["type"] != "timeseries":
            assert prometheus.query(expression), name
    values = prometheus.ask(
        "label/thalweg_run/values",
        start=f"{time() - 300:.3f}",
        end=f"{time():.3f}",
        **{"match[]": "thalweg_steps_total"},
    )
    assert values == ["out"]
    [(_, steps)] = prometheus.query("max_over_time(thalweg_steps_total[300s])")
    assert 0 < steps <= summary["steps"]
